# SPDX-License-Identifier: BSD-3-Clause
"""The two planes agree: random tables, random packets, the same verdict, reason and octets.

Tables are Hypothesis's, so that a failure shrinks. Packets are good ones, damaged: most of them hit a
binding, and most of the damage is where a header says something that has to be checked. Where the reference plane replies, or may reply and
must not, the kernel plane punts; everything else is compared octet for octet.
"""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.address import Address, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Deregister, Ending, Extend, Register, Unbind
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, End, Realm, TunnelEnd
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.border.verdict import Reason
from isthmus.checksum import checksum
from isthmus.errors import PlaneError
from isthmus.plane import Programmable
from isthmus.plane.reference import ReferencePlane
from plane.fixture import NOW, Outcome
from plane.kernel_under_test import KernelUnderTest
from plane.planes import ReferenceUnderTest

PRIVATE, PUBLIC = 7, 9
GATEWAYS = [Address.parse("10.0.0.1"), Address.parse("10.0.0.2")]
HOSTS = [Address.parse(f"10.0.0.{at}") for at in (4, 5, 6)]
SHARED = [Address.parse("149.112.240.55"), Address.parse("149.112.240.56")]
WHOLE = [Address.parse("149.112.241.1"), Address.parse("149.112.241.2"), Address.parse("149.112.241.130")]
PEERS = [Address.parse("192.156.136.22"), Address.parse("192.156.136.23"), Address.parse("8.8.8.8")]
STRANGE = [Address.parse(text) for text in ("127.0.0.1", "224.0.0.5", "255.255.255.255", "0.1.2.3", "149.112.240.9")]
PORTS = [0, 9, 63, 64, 65, 80, 95, 127, 128, 1000, 65535]
SPIS = [256, 257, 300, 1 << 31]
MTUS = [68, 100, 576, 1480]
SHIMS = [
    b"\0\0\x08\0",
    b"\x80\0\x08\0\0\0\0\0",
    b"\0\x08\x08\0",
    b"\0\x01\x08\0",
    b"\x20\0\x08\0key!",
    b"\0\0\x86\xdd",
    b"\x80\0\x08\0",
    b"\0\0",
]
"GRE headers, most of them wrong."
CAN_REPLY = {Reason.TTL_EXCEEDED, Reason.TOO_BIG}

kernel = KernelUnderTest()
pytestmark = pytest.mark.root


@pytest.fixture(scope="module", autouse=True)
def _kernel_is_available() -> None:
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)


# --- tables ---------------------------------------------------------------------------------


def _ranges() -> st.SearchStrategy[Ranges]:
    pair = st.tuples(st.sampled_from(PORTS), st.sampled_from([0, 1, 31, 63, 64, 900])).map(
        lambda drawn: (drawn[0], min(drawn[0] + drawn[1], 65535))
    )
    return st.lists(pair, min_size=1, max_size=3).map(lambda pairs: Ranges.of(*pairs))


def _remotes() -> st.SearchStrategy[Remote]:
    networks = st.sampled_from(
        ["192.156.136.22/32", "192.156.136.0/24", "0.0.0.0/0", "8.0.0.0/5", "2001:db8::/32"]
    ).map(Prefix.parse)
    return st.one_of(
        st.just(Remote()),
        st.just(Remote(admit=Admit.CONTACTED)),
        st.builds(
            Remote,
            network=st.one_of(st.none(), networks),
            port=st.one_of(st.none(), st.sampled_from([80, 64, 1000])),
            admit=st.sampled_from(Admit),
        ),
    )


@st.composite
def _selectors(draw: st.DrawFn) -> tuple[Selector, ...]:
    if draw(st.integers(0, 3)) == 0:
        text = draw(
            st.sampled_from([str(each) for each in WHOLE] + ["149.112.241.0/25", "149.112.240.0/23", "0.0.0.0/0"])
        )
        return (Selector(realm=PUBLIC, local=Prefix.parse(text), remote=draw(_remotes())),)
    local = Prefix.of(draw(st.sampled_from(SHARED + WHOLE[:1])))
    ports = Selector(realm=PUBLIC, local=local, kind=Kind.PORT, values=draw(_ranges()), remote=draw(_remotes()))
    spis = Ranges.of(*draw(st.lists(st.sampled_from(SPIS), min_size=1, max_size=2)))
    both = (ports, Selector(realm=PUBLIC, local=local, kind=Kind.SPI, values=spis, remote=draw(_remotes())))
    return both[:1] if draw(st.booleans()) else both


@st.composite
def _binds(draw: st.DrawFn, owners: list[Address], local: list[Address]) -> Bind:
    owner = Owner(PRIVATE, draw(st.sampled_from(owners)))
    tunnel = Tunnel(
        realm=PRIVATE,
        local=draw(st.sampled_from(local)),
        remote=owner.address,
        kind=draw(st.sampled_from([TunnelKind.IPIP] * 3 + [TunnelKind.GRE])),
        mtu=draw(st.sampled_from(MTUS)),
    )
    binding = Binding(key=BindingKey(owner, draw(st.integers(1, 4))), selectors=draw(_selectors()), crossing=tunnel)
    return Bind(
        binding=binding, lease=_lease(draw(st.sampled_from([NOW + 900] * 8 + [NOW, NOW - 0.5, NOW - 5000, FOREVER])))
    )


def _lease(expires_at: float) -> Lease:
    return Lease(client_id=1, method=Method.RSAP_IP, granted_at=NOW - 60, expires_at=expires_at)


@st.composite
def _effects(draw: st.DrawFn, owners: list[Address], local: list[Address]) -> list[Programmable]:
    effects: list[Programmable] = [
        Register(registration=Registration(owner=Owner(PRIVATE, each), client_id=1, expires_at=FOREVER))
        for each in owners
    ]
    keys = st.builds(BindingKey, st.builds(Owner, st.just(PRIVATE), st.sampled_from(owners)), st.integers(1, 4))
    effects += draw(
        st.lists(
            st.one_of(
                *[_binds(owners, local)] * 5,
                st.builds(Unbind, key=keys, ending=st.just(Ending.FREED)),
                st.builds(Extend, key=keys, expires_at=st.sampled_from([NOW + 900, NOW - 1])),
                st.builds(
                    Deregister,
                    owner=st.builds(Owner, st.just(PRIVATE), st.sampled_from(owners[1:] or owners)),
                    ending=st.just(Ending.EXPIRED),
                ),
            ),
            min_size=1,
            max_size=8,
        )
    )
    return effects


@st.composite
def _claims(draw: st.DrawFn) -> tuple[Selector, ...]:
    claims = [
        Selector(realm=PUBLIC, local=Prefix.of(each), kind=Kind.PORT, values=draw(_ranges()))
        for each in draw(st.lists(st.sampled_from(SHARED), unique=True))
    ]
    if claims and draw(st.booleans()):
        claims.append(replace(claims[0], kind=Kind.SPI, values=Ranges.of((256, 1 << 16))))
    texts = st.sampled_from(["149.112.241.0/24", "149.112.241.2/32", "149.112.240.0/22"])
    claims += [
        Selector(realm=PUBLIC, local=Prefix.parse(each)) for each in draw(st.lists(texts, unique=True, max_size=2))
    ]
    return tuple(claims)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Border, list[Programmable]]:
    end = draw(st.sampled_from([End.GATEWAY, End.GATEWAY, End.HOST]))
    at_gateway = end is End.GATEWAY
    ours, theirs = (GATEWAYS, HOSTS) if at_gateway else (HOSTS[:1], GATEWAYS)
    border = Border(
        realms=(Realm(number=PRIVATE, name="private"), Realm(number=PUBLIC, name="public", end=end)),
        tunnel_ends=tuple(TunnelEnd(realm=PRIVATE, address=each, leads_to=PUBLIC) for each in ours),
        claims=draw(_claims()) if at_gateway else (),
        slice_size=draw(st.sampled_from([64, 64, 64, 32])),
    )
    reference, possible = ReferencePlane(border), []
    for effect in draw(_effects(theirs, ours)):
        try:
            reference.apply((effect,))
        except PlaneError:
            continue
        possible.append(effect)
    return border, possible


# --- packets --------------------------------------------------------------------------------


class Packets:
    """Good packets for a table, damaged; from a seed, so that there can be many."""

    def __init__(self, seed: int, border: Border, table: list[Programmable]) -> None:
        self._rng = random.Random(seed)
        self._border = border
        self._binds = [each.binding for each in table if isinstance(each, Bind)]
        self._at_gateway = border.realm(PUBLIC).end is End.GATEWAY

    def make(self) -> tuple[int, bytes]:
        """A packet and the realm that it arrives in."""
        if self._one_in(2):
            return PRIVATE, self._tunnelled()
        packet, _ = self._plain(outward=not self._at_gateway)
        if self._one_in(10) and packet:
            at = self._rng.randrange(min(len(packet), 60))
            packet = packet[:at] + bytes([self._rng.randrange(256)]) + packet[at + 1 :]
        return (PRIVATE if self._one_in(30) else PUBLIC), packet

    def _one_in(self, number: int) -> bool:
        return self._rng.randrange(number) == 0

    def _local(self) -> tuple[Address, int, Binding | None]:
        """A local address and value that are likely held, and by what."""
        choose = self._rng.choice
        if not self._binds or self._one_in(12):
            return choose(SHARED + WHOLE + STRANGE), choose(PORTS), None
        binding = choose(self._binds)
        selector = choose(binding.selectors)
        address, value = selector.address, choose(PORTS)
        if selector.kind is None:
            address = choose([*(each for each in (*SHARED, *WHOLE) if each in selector.local), address])
        else:
            first, last = choose(selector.values.pairs)
            value = choose([first, last, (first + last) // 2, first, last, first - 1, last + 1])
            value = min(max(value, 0), selector.kind.limit - 1)
        return address, value, binding

    def _fields(self, size: int) -> dict[str, int]:
        """What a header says; mostly what it should."""
        choose = self._rng.choice
        fields = {"ttl": 64, "tos": choose([0, 0, 0, 1, 2, 2, 3, 0xB8, 0xBB])}
        damage = self._rng.randrange(40)
        if damage <= 2:
            fields["ttl"] = choose([0, 1, 2, 255])
        elif damage == 3:
            fields["fragment"] = choose([0x2000, 0x0001, 0x2001, 0x1FFF, 0x8000])
        elif damage <= 5:
            fields["words"] = choose([6, 7, 10, 15, 4, 0])
        elif damage == 6:
            fields["flip"] = choose([1, 0xFFFF, 0x8000])
        elif damage <= 8:
            fields["total"] = max(1, 20 + size + choose([-1, -4, -8, -12, 1, 4, 1000, -size, -size - 1]))
        elif damage == 9:
            fields["version"] = choose([0, 5, 6, 15])
        if self._one_in(2) and "fragment" not in fields:
            fields["fragment"] = 0x4000
        return fields

    def _transport(self, sides: tuple[int, int], ends: tuple[Address, Address]) -> tuple[int, bytes]:
        """Protocol and transport: the values of source and destination, and their addresses."""
        choose = self._rng.choice
        data = bytes(choose([0, 0, 1, 12, 40, 41, 48, 72, 73, 80, 81, 548, 549, 1451, 1452, 1453, 1472]))
        source, destination = (each & 0xFFFF for each in sides)
        which = self._rng.randrange(12)
        if which <= 3:
            return 6, struct.pack("!HHIIHHHH", source, destination, 1, 2, 0x5018, 100, 0, 0) + data
        if which <= 5:
            return 17, struct.pack("!HHHH", source, destination, 8 + len(data), 0) + data
        if which == 6:
            kind = choose([0, 0, 0, 8, 13, 14, 15, 16, 17, 18, 5, 9, 10, 42])
            return 1, _icmp(kind, struct.pack("!HH", choose([source, destination]), 1), data)
        if which <= 8:
            spi = choose([*SPIS, sides[0], sides[1], sides[0], sides[1]]) & 0xFFFFFFFF
            return choose([(50, struct.pack("!II", spi, 1)), (51, struct.pack("!BBHII", 6, 4, 0, spi, 1))])
        if which == 9:
            return choose([89, 132, 4, 47, 255]), b"something else" + data
        return 1, self._error(sides, ends)

    def _error(self, sides: tuple[int, int], ends: tuple[Address, Address]) -> bytes:
        """An ICMP error of a packet that went the other way."""
        choose = self._rng.choice
        source, destination = (each & 0xFFFF for each in sides)
        protocol = choose([6, 6, 17, 17, 1, 50, 132])
        quoted = struct.pack("!HHHH", destination, source, 8, 0) + b"more"
        if protocol == 1:
            quoted = _icmp(choose([8, 0, 3, 5]), struct.pack("!HH", choose([source, destination]), 1), b"")
        quoted = quoted[: choose([8, 8, 8, 12, 4, 3, 0])]
        src = choose(SHARED + PEERS) if self._one_in(8) else ends[1]
        dst = choose(SHARED + PEERS) if self._one_in(8) else ends[0]
        quote = _header(src, dst, protocol, quoted, **self._fields(len(quoted)))
        return _icmp(choose([3, 3, 11, 12, 4, 5]), bytes(4), quote[: choose([len(quote)] * 8 + [10, 20, 22])])

    def _plain(self, *, outward: bool) -> tuple[bytes, Binding | None]:
        """A packet whose source (outward) or destination is likely held, and by what."""
        choose = self._rng.choice
        local, value, binding = self._local()
        remote, port = choose(PEERS * 4 + STRANGE), choose([80, 80, 64, 1000, 65535])
        if self._one_in(5):  # host to host, around one gateway
            remote, port, _ = self._local()
        ends, sides = ((local, remote), (value, port)) if outward else ((remote, local), (port, value))
        protocol, transport = self._transport(sides, ends)
        if protocol == 1 and self._one_in(5):  # an error that is not its quote's
            ends = choose([(choose(SHARED + WHOLE + PEERS), ends[1]), (ends[0], choose(SHARED + WHOLE))])
        packet = _header(*ends, protocol, transport, **self._fields(len(transport)))
        if self._one_in(25):
            packet = packet[: self._rng.randrange(len(packet) + 1)]
        return packet + b"\xee" * choose([0, 0, 0, 1, 6, 46]), binding

    def _tunnelled(self) -> bytes:
        choose = self._rng.choice
        packet, binding = self._plain(outward=self._at_gateway)
        known = [each.crossing.remote for each in self._binds] or HOSTS
        sender = binding.crossing.remote if binding is not None else choose(known)
        if self._one_in(12):
            sender = choose([*known, *HOSTS, *GATEWAYS, PEERS[0]])
        end = PEERS[0] if self._one_in(40) else choose([each.address for each in self._border.tunnel_ends])
        shim = b"\0\0\x08\0" if binding is not None and binding.crossing.kind is TunnelKind.GRE else b""
        if self._one_in(12):
            shim = choose([b"", *SHIMS])
        protocol = choose([4, 47, 17]) if self._one_in(40) else 47 if shim else 4
        content = shim + packet
        return _header(sender, end, protocol, content, **self._fields(len(content)))


def _icmp(kind: int, rest: bytes, body: bytes) -> bytes:
    blank = struct.pack("!BBH", kind, 0, 0) + rest + body
    return blank[:2] + checksum(blank).to_bytes(2, "big") + blank[4:]


def _header(src: Address, dst: Address, protocol: int, payload: bytes, **fields: int) -> bytes:
    words = fields.get("words", 5)
    header = bytearray(
        struct.pack(
            "!BBHHHBBH",
            fields.get("version", 4) << 4 | words,
            fields.get("tos", 0),
            (fields.get("total", 0) or (max(words, 5) * 4 + len(payload))) & 0xFFFF,
            fields.get("identification", 0x1234),
            fields.get("fragment", 0),
            fields.get("ttl", 64),
            protocol,
            0,
        )
        + src.octets
        + dst.octets
        + b"\x01" * (max(words - 5, 0) * 4)
    )
    right = checksum(bytes(header))
    header[10:12] = (right ^ fields.get("flip", 0)).to_bytes(2, "big")
    return bytes(header) + payload


# --- the property ---------------------------------------------------------------------------

seen: Counter[str] = Counter()
"Packets by reason: what the property has really looked at."
PACKETS = 50
EXAMPLES = int(os.environ.get("ISTHMUS_EXAMPLES", "300"))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(scene=scenes(), seed=st.integers(0, 1 << 32), at_once=st.booleans())
def test_the_two_planes_agree(scene: tuple[Border, list[Programmable]], seed: int, *, at_once: bool) -> None:
    border, effects = scene
    packets = Packets(seed, border, effects)
    arriving = [packets.make() for _ in range(PACKETS)]
    reference = ReferenceUnderTest()
    expected = reference.run(border, effects, arriving, NOW)
    found = kernel.run(border, effects, arriving, NOW, at_once=at_once)
    for (realm, packet), right, one in zip(arriving, expected, found, strict=True):
        seen[right[1].name] += 1
        assert _same(right, one), f"realm {realm}, {packet.hex()}: reference {_show(right)}, kernel {_show(one)}"
    assert kernel.violations() == reference.violations()


def _same(right: Outcome, found: Outcome) -> bool:
    if found[0] == "punt":
        return right[0] == "reply" or (right[0] == "drop" and right[1] in CAN_REPLY)
    return right == found


def _show(outcome: Outcome) -> str:
    kind, reason, realm, packet = outcome
    return f"{kind} {reason.name} {realm} {packet.hex() if packet is not None else ''}"


def test_the_packets_reach_nearly_every_reason() -> None:
    if not seen:
        pytest.skip("the property has not run")
    missing = {each.name for each in Reason} - set(seen) - {"PUNTED", "REPLIED", "NO_ROUTE"}
    assert not missing, f"never reached: {sorted(missing)}; {seen}"
