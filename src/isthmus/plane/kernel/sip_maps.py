# SPDX-License-Identifier: BSD-3-Clause
"""Values of IPAE as octets of the maps; the rest of ``maps.Codec``."""

from __future__ import annotations

from collections.abc import Mapping

from isthmus.address import Address, Family, Prefix
from isthmus.border.crossing import Encapsulation, Native, Translate, Way
from isthmus.border.realm import Realm
from isthmus.border.rules import Df0, IcmpPseudo, Rules
from isthmus.plane.kernel.btf import Record
from isthmus.plane.reference.ways import Condition

_REALM_BITS = 32


class SipCodec:
    """Writes keys and values of the maps that IPAE's program reads."""

    _record: Mapping[str, Record]
    _endpoint: Mapping[str, int]
    _crossing: Mapping[str, int]
    _rule: Mapping[str, int]

    def crossing(self, crossing: Encapsulation | Native | Translate, device: int) -> bytes:
        """What ``endpoints`` holds of how IPAE goes on."""
        local: Address | None = None
        remote: Address | None = None
        more: dict[str, int] = {}
        match crossing:
            case Encapsulation():
                kind, local, remote = "ENCAPSULATION", crossing.local, crossing.remote
                more = {"mtu": min(crossing.mtu, 0xFFFF), "made_for": crossing.mtu}
            case Native():
                kind, remote = "NATIVE", crossing.neighbour
            case Translate():
                kind, local = "TRANSLATE", crossing.image.address
                remote = None if crossing.compatible is None else crossing.compatible.address
                more = {"family": int(crossing.image.family), "image": crossing.image.length}
        flag = "ENDPOINT_COMPATIBLE" if isinstance(crossing, Translate) else "ENDPOINT_IMPLICIT"
        return self._record["endpoint"].pack(
            realm=crossing.realm,
            device=device,
            kind=self._crossing[kind],
            flags=self._endpoint[flag] * ((remote is None) is (flag == "ENDPOINT_IMPLICIT")),
            local=bytes(16) if local is None else local.key_octets,
            remote=bytes(16) if remote is None else remote.key_octets,
            **more,
        )

    def is_crossing(self, endpoint: bytes) -> bool:
        """Whether that is what ``endpoints`` holds, and not a tunnel."""
        return self._record["endpoint"].number(endpoint, "kind") in self._crossing.values()

    def sip_realm(
        self,
        realm: Realm,
        *,
        mapping: int,
        mapped_to: int,
        translates: bool,
        known: tuple[int, int] = (0, 0),
        deep: int = 0,
    ) -> bytes:
        """What ``sip_realms`` holds.

        Args:
            realm: What the border says of it.
            mapping: Number of its mapping; 0: it has none.
            mapped_to: Number of the SIP realm that this leads into.
            translates: Whether a binding leads from it into another realm by translation.
            known: The SIP realm in which all its systems have one upper half, and that; (0, 0): they have not.
            deep: Bits of the upper halves under which there are bindings by more than 32 bits (``own.bit``).
        """
        return self._record["sip_realm"].pack(
            number=realm.number,
            sip=realm.sip or 0,
            site=0 if realm.site is None else realm.site.address.upper,
            mapped_to=mapped_to,
            mapping=mapping,
            translates=int(translates),
            family=int(realm.family),
            unmapped=int(realm.unmapped),
            foreign=int(realm.foreign),
            known_in=known[0],
            known_as=known[1],
            deep=deep,
        )

    def deep_of(self, sip_realm: bytes) -> tuple[int, int]:
        """Realm and its upper halves with longer bindings in what ``sip_realms`` holds."""
        record = self._record["sip_realm"]
        return record.number(sip_realm, "number"), record.number(sip_realm, "deep")

    def mapping_of(self, sip_realm: bytes) -> tuple[int, int]:
        """Realm and number of its mapping in what ``sip_realms`` holds."""
        record = self._record["sip_realm"]
        return record.number(sip_realm, "number"), record.number(sip_realm, "mapping")

    def upper(self, upper: int) -> bytes:
        """The key of ``sites``, the value of it and of ``sip_ends``: 32 bits in network order."""
        return upper.to_bytes(4, "big")

    def image_key(self, realm: int, other: int, image: Prefix) -> bytes:
        """The key of ``by_image``: who in ``realm`` is known by an image in ``other``, seen from ``realm``."""
        place = self._record["place"].pack(realm=other, address=image.address.key_octets)
        return self._record["image_key"].pack(length=2 * _REALM_BITS + image.length, realm=realm, image=place)

    def known(self, selector: Prefix) -> bytes:
        """What ``by_image`` holds."""
        return self._record["known"].pack(
            address=selector.address.key_octets, length=selector.length, family=int(selector.family)
        )

    def rules(self, rules: Rules) -> int:
        """The flags in what ``rules`` holds."""
        return (
            self._rule["RULE_SLOW"]
            * (rules.seed_order or rules.keep_tos or rules.probe_on_error or rules.df0 is Df0.FRAG576)
            | self._rule["RULE_ICMP_SLOW"] * (rules.icmp_pseudo is not IcmpPseudo.IPAE)
            | self._rule["RULE_FIT"] * (rules.df0 is Df0.FIT)
            | self._rule["RULE_ACCEPT"] * bool(rules.accept_from)
            | self._rule["RULE_SITE"] * rules.site_tunnels
        )

    def way_key(self, way: Way) -> bytes:
        """The key of ``ways``; of a way between SIP addresses the destination, in two halves, is all that counts."""
        if way.remote.family is Family.SIP:
            upper, low = way.remote.upper, way.remote.low.number
            return self._record["way_key"].pack(realm=way.realm, local=upper, remote=low)
        return self._record["way_key"].pack(realm=way.realm, local=way.local.number, remote=way.remote.number)

    def way(self, known: Condition) -> bytes:
        """What ``ways`` holds."""
        return self._record["way"].pack(mtu=known.mtu or 0, down=int(known.down is not None), hops=known.hops)
