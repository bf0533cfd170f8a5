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
from dataclasses import dataclass, replace

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.realm import End
from isthmus.border.selector import Admit, Remote
from isthmus.errors import AbiMismatch
from isthmus.plane.kernel.btf import Types
from isthmus.plane.kernel.peer import AWAY
from isthmus.plane.kernel.sip_maps import SipCodec

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
    "wide_key",
    "path_key",
    "path",
    "brief",
    "block",
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
    "group_words",
    "group6_key",
    "gateway",
    "followed",
    "about",
)
"""What user space and program must agree about."""

REALMS = 1024
NEAR_INTERFACES = 1024
MEANT_BITS = 1 << 16
"""As in abi.h; tests/test_abi.py compares them."""
NOWHERE = 0x7FFFFFFF
"""An interface index that no interface has: of a device that has vanished."""
_FOREVER = 0xFFFFFFFF
_UNSLICED = 0xFFFFFFFF
_REMOTE_NEVER = 255
_LAST_24 = 0xFFFFFF
_REALM_BITS = 32
_OWNER_BITS = 64
_PLACE = struct.Struct("!I16s")
_IPV4_PLACE = struct.Struct("!II12x")
_HOLDING = struct.Struct("=Q20sI")
_OWNER = struct.Struct("=QII")


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


@dataclass(frozen=True, slots=True)
class AddressRun:
    """Consecutive addresses of a realm whose slices are consecutive."""

    address: int
    "The first."
    length: int
    first_slice: int
    "Of the first."
    shift: int
    "Ports of a slice, as a power of two."


class Claimed(enum.Enum):
    """What pools claim of an address's SPIs."""

    NOTHING = 0
    ALL = 1
    "From the first to the last."
    SOME = 2


class Codec(SipCodec):
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
        # Written for each lease; the record is the judge of their layouts.
        probe = bytes(range(16))
        quick: dict[str, tuple[bytes, dict[str, int | bytes]]] = {
            "place": (_PLACE.pack(1, probe), {"realm": 1, "address": probe}),
            "holding_key": (_HOLDING.pack(2, bytes(20), 0), {"owner": 2}),
            "owner": (_OWNER.pack(2, 1, 0), {"tag": 2, "registered": 1}),
        }
        for name, (octets, values) in quick.items():
            if octets != self._record[name].pack(**values):
                raise AbiMismatch(f"struct {name} is not laid out as this version of isthmus writes it")
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
        if address.family is Family.IPV4:
            return _IPV4_PLACE.pack(realm, address.number)
        return _PLACE.pack(realm, address.key_octets)

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

    def holding(self, tag: int, place: bytes) -> bytes:
        """The key of ``holdings``."""
        return _HOLDING.pack(tag, place, 0)

    def wide_key(self, tag: int, realm: int, prefix: Prefix) -> bytes:
        """The key of ``wide_holdings``."""
        return self._record["wide_key"].pack(
            length=_OWNER_BITS + _REALM_BITS + prefix.length,
            owner_upper=tag >> 32,
            owner_lower=tag & 0xFFFFFFFF,
            place=self.place(realm, prefix.address),
        )

    def interface(
        self, realm: int, end: End, index: int, *, bare: bool, family: Family, address: bytes = bytes(6)
    ) -> bytes:
        """What ``interfaces`` and ``near_interfaces`` hold; ``address`` is that of the link."""
        flags = self._interface["INTERFACE_BARE"] if bare else 0
        if family is not Family.IPV4:
            flags |= self._interface["INTERFACE_TUNNELS_ONLY"]
        return self._record["interface"].pack(realm=realm, end=int(end), flags=flags, link_address=address, index=index)

    def with_peer(self, interface: bytes, peer: int) -> bytes:
        """What ``interfaces`` holds of a device, with where its other end is: its index, ``AWAY``, or 0."""
        record, away = self._record["interface"], self._interface["INTERFACE_PEER_AWAY"]
        flags = record.number(interface, "flags") & ~away | away * (peer == AWAY)
        return record.replace(interface, flags=flags, peer=max(peer, 0))

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

    def near_key(self, index: int) -> bytes:
        """The key of ``near_interfaces``."""
        return self.number(index % NEAR_INTERFACES)

    def index_of(self, interface: bytes) -> int:
        """The index in what ``near_interfaces`` holds."""
        return self._record["interface"].number(interface, "index")

    def realm(self, number: int, interface: int, punt: int, mtu: int, *, ipae: bool, xdp: bool = False) -> bytes:
        """What ``realms`` holds."""
        flags = self._realm["REALM_IPAE"] * ipae | self._realm["REALM_XDP"] * xdp
        return self._record["realm"].pack(number=number, interface=interface, punt=punt, mtu=mtu, flags=flags)

    def with_run(self, realm: bytes, run: AddressRun | None) -> bytes:
        """What ``realms`` holds, with another run of addresses."""
        run = run or AddressRun(0, 0, 0, 0)
        return self._record["realm"].replace(
            realm, run_address=run.address, run_length=run.length, run_slice=run.first_slice, run_shift=run.shift
        )

    def run_of(self, realm: bytes) -> AddressRun | None:
        """The run in what ``realms`` holds."""
        names = ("run_address", "run_length", "run_slice", "run_shift")
        found = AddressRun(*(self._record["realm"].number(realm, name) for name in names))
        return found if found.length else None

    def number_of_realm(self, realm: bytes) -> int:
        """The number in what ``realms`` holds."""
        return self._record["realm"].number(realm, "number")

    def port_of(self, realm: bytes) -> int:
        """The interface index of the port in what ``realms`` holds."""
        return self._record["realm"].number(realm, "punt")

    def tunnel_end(self, leads_to: int, end: End) -> bytes:
        """What ``tunnel_ends`` holds."""
        return self._record["tunnel_end"].pack(leads_to=leads_to, end=int(end))

    def owner(self, tag: int, *, registered: bool) -> bytes:
        """What ``owners`` holds."""
        return _OWNER.pack(tag, registered, 0)

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

    def template(self, tunnel: Tunnel, tag: int) -> bytes:
        """What ``endpoints`` holds of tunnels to all who have registered and whose addresses differ in 24 bits only.

        Args:
            tunnel: To any of them.
            tag: His, who holds it.
        """
        family, number = tunnel.remote
        first = replace(tunnel, remote=Address(family, number & ~_LAST_24))
        return self.standing(self.endpoint(first, tag & ~_LAST_24, 0), registered=True, mtu=tunnel.mtu)

    def tunnel(self, endpoint: bytes, remote: Address) -> Tunnel:
        """The tunnel that an endpoint is, or (of a template) would be to this address."""
        number = self._record["endpoint"].number
        found = self._record["endpoint"].unpack(endpoint)
        local = found["local"]
        assert isinstance(local, bytes)
        return Tunnel(
            realm=number(endpoint, "realm"),
            local=Address.from_octets(local[: remote.family.bits // 8]),
            remote=remote,
            kind=TunnelKind(number(endpoint, "kind")),
            mtu=number(endpoint, "made_for"),
        )

    def owner_of(self, endpoint: bytes) -> int:
        """The owner's tag in what ``endpoints`` holds."""
        return self._record["endpoint"].number(endpoint, "owner")

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

    def half_word(self, *, endpoint: int) -> int:
        """The lower half of the word of a slice whose holder has an endpoint."""
        return self._slice["SLICE_CLAIMED"] | endpoint << 8

    def direct(self, *, template: int, owner: int) -> int:
        """The lower half of a direct word.

        Args:
            template: Number of the endpoint.
            owner: The holder's tag, or address.
        """
        return (
            self._slice["SLICE_CLAIMED"] | self._slice["SLICE_DIRECT"] | (template - 1) << 4 | (owner & _LAST_24) << 8
        )

    def split(self, *, claimed: bool) -> int:
        """A slice whose ports are in ``by_demux``."""
        return self._slice["SLICE_SPLIT"] | (self._slice["SLICE_CLAIMED"] if claimed else 0)
