# SPDX-License-Identifier: BSD-3-Clause
"""How the 31 bits above the IPv4 part are divided among country, region and site.

::

    63  62 ... country ... | ... metro or provider ... | ... site or subscriber ... 32 | 31 ... 0
     C |<---- country ---->|<-------- region --------->|<--------- site ------------->| IPv4 part

Seed IPAE 4.1 and 7: 7, 8 and 16 bits. Nothing on the wire depends on it (spec E26).
"""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.sim.claim import NETWORKS_REQUIRED

UPPER_BITS = 31
REGION_BITS = 8
MULTICAST_BITS = 7
"""Multicast has the first seven bits below C all ones (RFC 8507 §4.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A division of the upper half; the value 0 is reserved at each level (RFC 8507 §4.4)."""

    country_bits: int = 7
    region_bits: int = REGION_BITS

    def __post_init__(self) -> None:
        """Refuse what does not leave a bit to every level, or cannot tell multicast from a country."""
        if self.country_bits < MULTICAST_BITS or self.region_bits < 1 or self.site_bits < 1:
            raise ValueError(f"{self.country_bits} bits of country and {self.region_bits} of region: there are 31")

    # Deviation: spec E26 has 7 bits of country by default, which hold 126; the 230 of spec 7.1 need 8,
    # and the bit is taken from the site.
    @classmethod
    def holding(cls, countries: int) -> Plan:
        """Give the plan with the fewest bits of country that hold so many.

        Raises:
            ValueError: more than can be told apart with eight bits left for sites.
        """
        for bits in range(MULTICAST_BITS, UPPER_BITS - REGION_BITS - 7):
            if (plan := cls(country_bits=bits)).countries >= countries:
                return plan
        raise ValueError(f"{countries} countries leave no bits for sites")

    @property
    def site_bits(self) -> int:
        """Bits that number the sites of a region."""
        return UPPER_BITS - self.country_bits - self.region_bits

    @property
    def countries(self) -> int:
        """How many there can be: neither 0 nor those that are multicast."""
        return (1 << self.country_bits) - 1 - (1 << self.country_bits - MULTICAST_BITS)

    @property
    def regions(self) -> int:
        """How many regions a country can have."""
        return (1 << self.region_bits) - 1

    @property
    def sites(self) -> int:
        """How many sites a region can have."""
        return (1 << self.site_bits) - 1

    @property
    def codes(self) -> int:
        """How many upper halves there are, one for each attachment of a network (spec E27)."""
        return self.countries << self.region_bits + self.site_bits

    @property
    def efficiency_needed(self) -> float:
        """What share of the codes must be in use for the 10^9 networks of seed IPAE 2.1 (spec E27)."""
        return NETWORKS_REQUIRED / self.codes

    @property
    def country_length(self) -> int:
        """Length of a prefix that means a country, C included."""
        return 1 + self.country_bits

    @property
    def region_length(self) -> int:
        """Length of a prefix that means a region."""
        return self.country_length + self.region_bits
