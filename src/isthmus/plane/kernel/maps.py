# SPDX-License-Identifier: BSD-3-Clause
"""Values of the model as octets of the maps, by the layouts of ``bpf/include/isthmus/abi.h``.

Nothing here knows an offset: ``btf.Record`` packs by field name, and a name that the object
does not have is an ``AbiMismatch``.
"""

from __future__ import annotations

import enum
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER
from isthmus.border.crossing import Encapsulation, Native, Translate, Tunnel, Way
from isthmus.border.realm import End, Realm
from isthmus.border.rules import Df0, IcmpPseudo, Rules
from isthmus.border.selector import Admit, Remote
from isthmus.plane.kernel.btf import Types
from isthmus.plane.reference.ways import Condition

STRUCTS = (
    "place",
    "interface",
    "realm",
    "tunnel_end",
    "prefix_key",
    "spi_key",
    "demux_key",
    "binding",
    "address",
    "endpoint",
    "owner",
    "holding_key",
    "path_key",
    "path",
    "bucket",
    "event",
    "limit",
    "sip_realm",
    "image_key",
    "known",
    "words",
    "rules",
    "way_key",
    "way",
    "slot",
    "about",
)
"""What user space and program must agree about."""

REALMS = 1024
MEANT_BITS = 1 << 16
"""As in abi.h; tests/test_abi.py compares them."""
NOWHERE = 0x7FFFFFFF
"""An interface index that no interface has: of a device that has vanished."""
_FOREVER = 0xFFFFFFFF
_UNSLICED = 0xFFFFFFFF
_REMOTE_NEVER = 255
_REALM_BITS = 32
_OWNER_BITS = 32


@dataclass(frozen=True, slots=True)
class Standing:
    """What a table says about one resource: who has it, until when, with which limit."""

    endpoint: int
    "0: nobody."
    expires_at: float
    remote: Remote = Remote()
    ask: bool = False
    "Whether only the reference plane knows, for each peer."
    route: bool = False
    "Whether it is nobody's lease, but how IPAE goes on."


NOBODY = Standing(0, 0.0)


class Claimed(enum.Enum):
    """What pools claim of an address's SPIs."""

    NOTHING = 0
    ALL = 1
    "From the first to the last."
    SOME = 2


class Codec:
    """Writes keys and values of the maps."""

    def __init__(self, types: Types, *, boot_offset: float) -> None:
        """Read the layouts.

        Args:
            types: Of the object that the maps belong to.
            boot_offset: Seconds since 1970 at which CLOCK_BOOTTIME was 0.
        """
        self._offset = boot_offset
        self._record = {name: types.record(name) for name in STRUCTS}
        self._binding = types.enum("binding_flag")
        self._slice = types.enum("slice_flag")
        self._address = types.enum("address_flag")
        self._interface = types.enum("interface_flag")
        self._endpoint = types.enum("endpoint_flag")
        self._crossing = types.enum("crossing_kind")
        self._rule = types.enum("rule")
        self._realm = types.enum("realm_flag")
        self.holder = types.enum("index_kind")["HOLDER"]
        "The kind under which ``by_demux`` says by whose right ESP and AH are sent."

    def deadline(self, expires_at: float) -> int:
        """Whole seconds of CLOCK_BOOTTIME. A lease is promised for all its time, so part of a second counts as one."""
        if expires_at == FOREVER:
            return _FOREVER
        return min(max(math.ceil(expires_at - self._offset), 0), _FOREVER - 1)

    def number(self, value: int) -> bytes:
        """A key that is a number, such as an interface index."""
        return struct.pack("=I", value)

    def octets(self, word: int) -> bytes:
        """A word of ``slices``."""
        return struct.pack("=Q", word)

    def realm_key(self, realm: int) -> bytes:
        """The key of ``realms``."""
        return self.number(realm % REALMS)

    def place(self, realm: int, address: Address) -> bytes:
        """An address in a realm."""
        return self._record["place"].pack(realm=realm, address=address.key_octets)

    def prefix_key(self, realm: int, prefix: Prefix) -> bytes:
        """The key of ``by_prefix``."""
        place = self.place(realm, prefix.address)
        return self._record["prefix_key"].pack(length=_REALM_BITS + prefix.length, place=place)

    def demux_key(self, realm: int, address: Address, kind: int, value: int) -> bytes:
        """The key of ``by_demux``."""
        return self._record["demux_key"].pack(place=self.place(realm, address), kind=kind, value=value)

    def spi_key(self, realm: int, address: Address, first: int, length: int) -> bytes:
        """The key of ``by_spi``: the SPIs that begin like ``first`` in so many bits."""
        place = self.place(realm, address)
        return self._record["spi_key"].pack(length=8 * len(place) + length, place=place, spi=first)

    def holding_key(self, tag: int, realm: int, prefix: Prefix) -> bytes:
        """The key of ``holdings``."""
        return self._record["holding_key"].pack(
            length=_OWNER_BITS + _REALM_BITS + prefix.length, owner=tag, place=self.place(realm, prefix.address)
        )

    def interface(self, realm: int, end: End, *, bare: bool, family: Family) -> bytes:
        """What ``interfaces`` holds."""
        flags = self._interface["INTERFACE_BARE"] if bare else 0
        if family is not Family.IPV4:
            flags |= self._interface["INTERFACE_TUNNELS_ONLY"]
        return self._record["interface"].pack(realm=realm, end=int(end), flags=flags)

    def realm_of(self, interface: bytes) -> int:
        """The realm in what ``interfaces`` holds."""
        return self._record["interface"].number(interface, "realm")

    def first_ends(self, interface: bytes, ends: Mapping[Family, tuple[Address, bytes]]) -> bytes:
        """What ``interfaces`` holds, with other first tunnel ends: the address and what ``tunnel_ends`` says of it."""
        nothing = bytes(16), bytes(self._record["tunnel_end"].octets)
        values: dict[str, bytes] = {}
        for family, name in ((Family.IPV4, "first"), (Family.IPV6, "first6")):
            found = ends.get(family)
            values[f"{name}_address"], values[name] = nothing if found is None else (found[0].key_octets, found[1])
        return self._record["interface"].replace(interface, **values)

    def realm(self, number: int, interface: int, punt: int, mtu: int, *, ipae: bool) -> bytes:
        """What ``realms`` holds."""
        flags = self._realm["REALM_IPAE"] if ipae else 0
        return self._record["realm"].pack(number=number, interface=interface, punt=punt, mtu=mtu, flags=flags)

    def port_of(self, realm: bytes) -> int:
        """The interface index of the port in what ``realms`` holds."""
        return self._record["realm"].number(realm, "punt")

    def tunnel_end(self, leads_to: int, end: End) -> bytes:
        """What ``tunnel_ends`` holds."""
        return self._record["tunnel_end"].pack(leads_to=leads_to, end=int(end))

    def owner(self, tag: int, *, registered: bool) -> bytes:
        """What ``owners`` holds."""
        return self._record["owner"].pack(tag=tag, registered=int(registered))

    def tag(self, owner: bytes) -> int:
        """The tag in what ``owners`` holds."""
        return self._record["owner"].number(owner, "tag")

    def endpoint(self, tunnel: Tunnel, tag: int, device: int) -> bytes:
        """What ``endpoints`` holds, as long as its owner has not registered."""
        return self._record["endpoint"].pack(
            realm=tunnel.realm,
            owner=tag,
            device=device,
            mtu=tunnel.mtu,
            kind=int(tunnel.kind),
            flags=(self._endpoint["ENDPOINT_IPV6"] if tunnel.local.family is Family.IPV6 else 0)
            | (self._endpoint["ENDPOINT_CHECKSUM"] if tunnel.checksum else 0),
            local=tunnel.local.key_octets,
            remote=tunnel.remote.key_octets,
            made_for=tunnel.mtu,
        )

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
        place = self.place(other, image.address)
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

    def time(self, second: int) -> float:
        """A second of CLOCK_BOOTTIME as seconds since 1970."""
        return second + self._offset

    def standing(self, endpoint: bytes, *, registered: bool, mtu: int) -> bytes:
        """What ``endpoints`` holds now.

        Args:
            endpoint: What it holds as long as its owner has not registered.
            registered: Whether its other end is an owner who has.
            mtu: Largest packet that its way carries; not more than it was made for.
        """
        record = self._record["endpoint"]
        flags = record.number(endpoint, "flags") | self._endpoint["ENDPOINT_REGISTERED"] * registered
        return record.replace(endpoint, flags=flags, mtu=min(mtu, record.number(endpoint, "made_for")))

    def plain(self, endpoint: bytes) -> bytes:
        """What ``endpoints`` would hold if its owner had not registered and its way carried what it was made for."""
        if self.is_crossing(endpoint):
            return endpoint
        record = self._record["endpoint"]
        flags = record.number(endpoint, "flags") & ~self._endpoint["ENDPOINT_REGISTERED"]
        return record.replace(endpoint, flags=flags, mtu=record.number(endpoint, "made_for"))

    def meant(self, prefix: Prefix) -> dict[int, int]:
        """Which bits of which words of ``meant`` stand for a prefix."""
        if prefix.length <= 8:
            return dict.fromkeys(range(MEANT_BITS // 64), (1 << 64) - 1)
        first = int.from_bytes(prefix.address.key_octets[:3], "big")
        words: dict[int, int] = {}
        for block in range(first, first + (1 << max(24 - prefix.length, 0))):
            bit = (block ^ block >> 8) % MEANT_BITS
            words[bit // 64] = words.get(bit // 64, 0) | 1 << bit % 64
        return words

    def address(
        self,
        first_slice: int | None,
        shift: int,
        *,
        held: bool,
        cookies: bool = False,
        claimed: Claimed = Claimed.NOTHING,
        spis: tuple[int, int] = (0, 0),
    ) -> bytes:
        """What ``addresses`` holds.

        Args:
            first_slice: Number of the address's first slice; None: it has none, every port is in ``by_demux``.
            shift: Ports of a slice, as a power of two.
            held: Whether a binding holds anything of it.
            cookies: Whether the reference plane learns cookies there.
            claimed: What a pool claims of the SPIs ...
            spis: ... from the first to the last.
        """
        flags = self._address["ADDRESS_COOKIES"] if cookies else 0
        if claimed is not Claimed.NOTHING:
            flags |= self._address["ADDRESS_SPIS_CLAIMED" if claimed is Claimed.ALL else "ADDRESS_SPIS_SEVERAL"]
        return self._record["address"].pack(
            first_slice=_UNSLICED if first_slice is None else first_slice,
            slice_shift=shift,
            held=int(held),
            flags=flags,
            spi_first=spis[0],
            spi_last=spis[1],
        )

    def first_slice(self, address: bytes) -> int | None:
        """The first slice in what ``addresses`` holds."""
        first = self._record["address"].number(address, "first_slice")
        return None if first == _UNSLICED else first

    def binding(
        self, standing: Standing, family: Family, *, claimed: bool, port: bool = False, in_slice: bool = False
    ) -> bytes:
        """What ``by_prefix``, ``by_spi`` and ``by_demux`` hold.

        Args:
            standing: Who has it.
            family: Of the local address.
            claimed: Whether a pool claims it.
            port: Whether it is a port; ``in_slice``, of a slice that the binding holds whole.
            in_slice: See ``port``.
        """
        flags = self._binding["BINDING_CLAIMED"] if claimed else 0
        if not standing.endpoint:
            return self._record["binding"].pack(flags=flags)
        flags |= self._binding["BINDING_PORT"] * port | self._binding["BINDING_SLICE"] * in_slice
        flags |= self._binding["BINDING_ASK"] * standing.ask
        flags |= self._binding["BINDING_ROUTE"] * standing.route
        remote, length, address = standing.remote, 0, bytes(16)
        if remote.admit is Admit.CONTACTED:
            flags |= self._binding["BINDING_CONTACTED"]
        if remote.port is not None:
            flags |= self._binding["BINDING_REMOTE_PORT"]
        if remote.network is not None:
            flags |= self._binding["BINDING_REMOTE_NETWORK"]
            length = remote.network.length if remote.network.family is family else _REMOTE_NEVER
            address = remote.network.address.key_octets
        return self._record["binding"].pack(
            endpoint=standing.endpoint,
            deadline=self.deadline(standing.expires_at),
            flags=flags,
            remote_port=remote.port or 0,
            remote_length=length,
            remote=address,
        )

    def path_key(self, realm: int, local: Address, remote: Address, protocol: int, spi: int) -> bytes:
        """The key of ``paths``."""
        return self._record["path_key"].pack(
            realm=realm, local=local.key_octets, remote=remote.key_octets, protocol=protocol, spi=spi
        )

    def path(self, tag: int) -> bytes:
        """What ``paths`` holds."""
        return self._record["path"].pack(owner=tag)

    def path_tag(self, path: bytes) -> int:
        """The tag in what ``paths`` holds."""
        return self._record["path"].number(path, "owner")

    def second(self, now: float) -> int:
        """A time as whole seconds of CLOCK_BOOTTIME, as the program counts epochs by."""
        return max(math.floor(now - self._offset), 0)

    def word(self, standing: Standing, *, claimed: bool) -> int:
        """A slice that is held whole, or by nobody."""
        word = self._slice["SLICE_CLAIMED"] if claimed else 0
        if standing.endpoint:
            word |= self.deadline(standing.expires_at) << 32 | standing.endpoint << 8
            if standing.remote.admit is Admit.CONTACTED:
                word |= self._slice["SLICE_CONTACTED"]
        return word

    def split(self, *, claimed: bool) -> int:
        """A slice whose ports are in ``by_demux``."""
        return self._slice["SLICE_SPLIT"] | (self._slice["SLICE_CLAIMED"] if claimed else 0)
