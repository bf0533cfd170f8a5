# SPDX-License-Identifier: BSD-3-Clause
"""Mapping tables and SIP addresses as DNS records (seed IPAE 8.1; spec 6.3).

Two types of the range for private use (RFC 6895 §3.1), since none was ever assigned:

* 65400, the network record, at a name of a mapping zone: ``144.129.map.example.`` for 129.144.0.0/16, octets in
  reverse as in in-addr.arpa, as many labels as the length needs octets. RDATA of six octets::

      0        1        2        3        4        5
      +--------+--------+--------+--------+--------+--------+
      | flags  | length |   upper half without the C bit    |
      +--------+--------+--------+--------+--------+--------+

  Flag 1 is the C bit, the others are 0. A prefix whose length is no multiple of eight stands at the names of
  all the octets it has: 10.16.0.0/12 at 16.10 to 31.10.
* 65401, the AA record, at a host's name or, for the reverse, a PTR at the sixteen nibbles of its address. RDATA is
  the SIP address, eight octets.

Servers that refuse unknown types carry TXT instead: ``ipae=1.213.77.5 c=1 len=24``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from isthmus.address import Address, Family, Prefix, parse_upper, upper_text
from isthmus.border.mapping import C_BIT, Mapping
from isthmus.errors import Malformed, Truncated
from isthmus.ipae.mapping import Fault, OwnNetwork, Rows, accept

NETWORK = dns.rdatatype.RdataType.make(65400)
"""The type of network records."""
HOST = dns.rdatatype.RdataType.make(65401)
"""The type of AA records."""

_C_FLAG = 1
_LENGTH_OF_NETWORK = 6
_LENGTH_OF_HOST = 8


@dataclass(frozen=True, slots=True)
class Network:
    """What a network record says of the network that its name lies in."""

    length: int
    "Prefix length, 1 to 32."
    upper: int
    "Upper half, C bit included."

    @classmethod
    def parse(cls, octets: bytes) -> Network:
        """Read RDATA.

        Raises:
            WireError: not six octets, unknown flags, C bit in the upper half, a length that is none.
        """
        if len(octets) < _LENGTH_OF_NETWORK:
            raise Truncated("network record", at=0, need=_LENGTH_OF_NETWORK, have=len(octets))
        flags, length, upper = octets[0], octets[1], int.from_bytes(octets[2:], "big")
        if len(octets) > _LENGTH_OF_NETWORK:
            raise Malformed("network record", at=6, problem=f"{len(octets)} octets instead of 6")
        if flags & ~_C_FLAG:
            raise Malformed("flags", at=0, problem=f"{flags:#04x} has others than C, 0x01")
        if not 1 <= length <= 32:
            raise Malformed("length", at=1, problem=f"{length} is not within 1..32")
        # Silent: spec 6.3 has the C bit in the flags and an upper half of 32 bits; here the first of them is 0.
        if upper & C_BIT:
            raise Malformed("upper half", at=2, problem="its first bit is set; C is a flag")
        return cls(length, upper | (C_BIT if flags & _C_FLAG else 0))

    def emit(self) -> bytes:
        """Write RDATA."""
        return bytes([self.upper >> 31, self.length]) + (self.upper & ~C_BIT).to_bytes(4, "big")

    @classmethod
    def parse_text(cls, text: str) -> Network | None:
        """Read the TXT form; None: the text is about something else.

        Raises:
            WireError: it begins with ``ipae=`` and goes on otherwise than it should.
        """
        if not text.startswith("ipae="):
            return None
        words = dict(word.partition("=")[::2] for word in text.split())
        try:
            c, length = {"0": 0, "1": C_BIT}[words.pop("c", "1")], int(words.pop("len"))
            found = cls(length, parse_upper(words.pop("ipae")) | c)
        except (KeyError, ValueError) as error:
            raise Malformed("TXT", at=0, problem=f"{text!r} is not ipae=UPPER c=0|1 len=LENGTH") from error
        if words or not 1 <= length <= 32:
            raise Malformed("TXT", at=0, problem=f"{text!r} is not ipae=UPPER c=0|1 len=1..32")
        return found

    def emit_text(self) -> str:
        """Write the TXT form."""
        return f"ipae={upper_text(self.upper & ~C_BIT)} c={self.upper >> 31} len={self.length}"

    @classmethod
    def of_rdata(cls, rdata: dns.rdata.Rdata) -> Network | None:
        """Read a record of either type; None: of neither, or a TXT about something else.

        Raises:
            WireError: it is one and wrong.
        """
        if rdata.rdtype == NETWORK:
            return cls.parse(rdata.to_wire() or b"")
        if rdata.rdtype == dns.rdatatype.TXT:
            return cls.parse_text(b"".join(rdata.strings).decode("ascii", "replace"))  # type: ignore[attr-defined]
        return None


def parse_host(octets: bytes) -> Address:
    """Read the RDATA of an AA record.

    Raises:
        WireError: not eight octets.
    """
    if len(octets) < _LENGTH_OF_HOST:
        raise Truncated("AA record", at=0, need=_LENGTH_OF_HOST, have=len(octets))
    if len(octets) > _LENGTH_OF_HOST:
        raise Malformed("AA record", at=8, problem=f"{len(octets)} octets instead of 8")
    return Address(Family.SIP, int.from_bytes(octets, "big"))


def emit_host(address: Address) -> bytes:
    """Write the RDATA of an AA record."""
    address.upper  # noqa: B018 - refuses other families
    return address.octets


def rdata(rdtype: dns.rdatatype.RdataType, octets: bytes) -> dns.rdata.Rdata:
    """Make a record that dnspython has no type for (RFC 3597)."""
    return dns.rdata.GenericRdata(dns.rdataclass.IN, rdtype, octets)


def unknown_type_text(octets: bytes) -> str:
    r"""Write RDATA as every zone file may have it: ``\# 6 011001D54D05`` (RFC 3597 §5)."""
    return f"\\# {len(octets)} {octets.hex().upper()}"


def name_of(number: int, octets: int, zone: dns.name.Name) -> dns.name.Name:
    """The name in a mapping zone of the first octets of an IPv4 address.

    Args:
        number: The address; what lies beyond the octets does not count.
        octets: How many, 1 to 4.
        zone: The zone's name, absolute.
    """
    labels = [str(number >> shift & 0xFF).encode() for shift in range(32 - 8 * octets, 32, 8)]
    return dns.name.Name((*labels, *zone.labels))


def names_of(prefix: Prefix, zone: dns.name.Name) -> Iterator[dns.name.Name]:
    """Every name at which the record of an IPv4 prefix stands: one for each value of its last octet."""
    octets = max(1, (prefix.length + 7) // 8)
    step = 1 << (32 - 8 * octets)
    for at in range(1 << (8 * octets - prefix.length)):
        yield name_of(prefix.address.number + at * step, octets, zone)


def beginning_of(name: dns.name.Name, zone: dns.name.Name) -> Prefix | None:
    """Which IPv4 addresses a name of a mapping zone is about; None: none, it is about something else."""
    labels = name.labels[: len(name.labels) - len(zone.labels)]
    if not name.is_subdomain(zone) or not 1 <= len(labels) <= 4:
        return None
    number = number_of(labels)
    return None if number is None else Prefix(Address(Family.IPV4, number), 8 * len(labels))


def number_of(labels: Sequence[bytes]) -> int | None:
    """The address that begins with the octets of one to four labels, the first octet last; None: they are others."""
    number = 0
    for at, label in enumerate(labels, 4 - len(labels)):
        octet = _LABELS.get(label)
        if octet is None:
            return None
        number |= octet << 8 * at
    return number


_LABELS = {str(number).encode(): number for number in range(256)}


def network_at(beginning: Prefix, length: int) -> Prefix:
    """The network that a record of this length at this name is about.

    Raises:
        ValueError: it is not one that stands at names of so many labels.
    """
    number = first_address(beginning.address.number, beginning.length // 8, length)
    return Prefix(Address(Family.IPV4, number), length)


def first_address(number: int, octets: int, length: int) -> int:
    """The first address of the network of a length that stands at the name of some first octets of an address.

    Raises:
        ValueError: it is not one that stands at names of so many octets.
    """
    if (length + 7) // 8 != octets:
        raise ValueError(f"a network of length {length} stands at names of {(length + 7) // 8} octets")
    return number >> (32 - length) << (32 - length)


def reverse_name(address: Address, zone: dns.name.Name) -> dns.name.Name:
    """The name of the PTR record of a SIP address: its sixteen nibbles, the last first, below a zone."""
    nibbles = [b"%x" % (address.number >> shift & 0xF) for shift in range(0, 64, 4)]
    return dns.name.Name((*nibbles, *zone.labels))


def parse_reverse_name(name: dns.name.Name, zone: dns.name.Name) -> Address | None:
    """The SIP address whose PTR record stands at a name; None: it is no such name."""
    labels = name.labels[: len(name.labels) - len(zone.labels)]
    if not name.is_subdomain(zone) or len(labels) != 16 or any(each.lower() not in _NIBBLES for each in labels):
        return None
    return Address(Family.SIP, sum(int(each, 16) << 4 * at for at, each in enumerate(labels)))


_NIBBLES = {b"%x" % number for number in range(16)}


def mapping_of(
    records: Iterable[tuple[dns.name.Name, dns.rdata.Rdata]],
    zone: dns.name.Name,
    *,
    own: Iterable[OwnNetwork] = (),
) -> Mapping:
    """Make a mapping of all records of a zone. Records of other types, and other names, are passed over.

    Raises:
        MappingRefused: with everything that is wrong, as for a file.
    """
    rows, faults = Rows(), list[Fault]()
    for name, each in records:
        try:
            found = Network.of_rdata(each)
            if found is None or (beginning := beginning_of(name, zone)) is None:
                continue
            prefix = network_at(beginning, found.length)
        except (Truncated, Malformed, ValueError) as error:
            faults.append(Fault(str(name), str(error)))
            continue
        rows.numbers.append(prefix.address.number)
        rows.lengths.append(prefix.length)
        rows.uppers.append(found.upper)
        rows.places.append(str(name))
    return accept(rows, source=f"zone {zone}", own=own, faults=faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneHead:
    """What a zone file begins with."""

    origin: str
    serial: int
    server: str
    "Name of its nameserver, absolute or below the origin."
    ttl: int = 3600
    "Seconds."
    negative_ttl: int = 300
    "For how many seconds it is remembered that a network is not mapped."
    address: str | None = None
    "The nameserver's IPv4 address, if its name lies in the zone."


def zone_lines(mapping: Mapping, head: ZoneHead, *, as_text: bool = False) -> Iterator[str]:
    """Write a mapping as a zone file that any nameserver reads (RFC 1035 §5, RFC 3597 §5).

    Args:
        mapping: The table.
        head: What the file begins with.
        as_text: Write TXT records instead of network records.
    """
    zone = dns.name.from_text(head.origin)
    yield f"$ORIGIN {zone}"
    yield f"$TTL {head.ttl}"
    times = f"{head.serial} {head.ttl} {head.ttl // 4} {3 * head.ttl} {head.negative_ttl}"
    yield f"@ SOA {head.server} hostmaster ({times})"
    yield f"@ NS {head.server}"
    if head.address is not None:
        yield f"{head.server} A {head.address}"
    for prefix, image in mapping:
        record = Network(prefix.length, image.address.upper)
        data = f'TXT "{record.emit_text()}"' if as_text else f"TYPE65400 {unknown_type_text(record.emit())}"
        for name in names_of(prefix, zone):
            yield f"{name.relativize(zone)} {data}"
