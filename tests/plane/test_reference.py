# SPDX-License-Identifier: BSD-3-Clause
"""What holds for every packet, and the reference plane's own edges."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address, Prefix
from isthmus.border.binding import Binding, BindingKey, Lease, Method, Owner
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Deregister, Ending, Extend, Prolong, Unbind
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, Realm, TunnelEnd
from isthmus.border.selector import Kind, Selector
from isthmus.border.verdict import Drop, Forward, Hold, Pass, Reason, Reply
from isthmus.checksum import checksum
from isthmus.errors import PlaneError
from isthmus.plane.reference import ContactedPeers, ReferencePlane
from isthmus.plane.reference.contact import EPOCH_SECONDS, KEPT_EPOCHS
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from plane.fixture import NOW, build, load, scene, stage

PRIVATE, PUBLIC = 1, 2
HOST = Owner(PRIVATE, Address.parse("10.0.0.4"))
IN = {"ipv4": "192.156.136.22 -> 149.112.240.55", "tcp": "80 -> 10000"}
OUT = {
    "outer": {"ipv4": "10.0.0.4 -> 10.0.0.1"},
    "ipv4": "149.112.240.55 -> 192.156.136.22",
    "tcp": "10000 -> 80",
}
POISON = b"\xba\xdc\x0f\xfe" * 16


def gateway(**options: object) -> ReferencePlane:
    border, effects = stage(scene("gateway"))
    plane = ReferencePlane(border, **options)  # type: ignore[arg-type]
    plane.apply(effects)
    return plane


def host() -> ReferencePlane:
    border, effects = stage(scene("host"))
    plane = ReferencePlane(border)
    plane.apply(effects)
    return plane


def bind(
    *, owner: Owner = HOST, bind_id: int = 50, ports: str = "15000-15007", kind: TunnelKind = TunnelKind.IPIP
) -> Bind:
    return Bind(
        binding=Binding(
            key=BindingKey(owner, bind_id),
            selectors=(
                Selector(
                    realm=PUBLIC,
                    local=Prefix.parse("149.112.240.55"),
                    kind=Kind.PORT,
                    values=Ranges.parse(ports),
                ),
            ),
            crossing=Tunnel(realm=PRIVATE, local=Address.parse("10.0.0.1"), remote=owner.address, kind=kind, mtu=1476),
        ),
        lease=Lease(client_id=1, method=Method.RSAP_IP, granted_at=NOW, expires_at=NOW + 60),
    )


@st.composite
def packets(draw: st.DrawFn, src: str, dst: str, src_port: int | None = None, dst_port: int | None = None) -> bytes:
    """TCP and UDP packets with any octets in them, any header fields that are not ours, and options."""
    ports = [src_port, dst_port]
    numbers = [draw(st.integers(0, 0xFFFF)) if port is None else port for port in ports]
    rest = draw(st.binary(max_size=200))
    content = b"".join(number.to_bytes(2, "big") for number in numbers) + rest
    options = draw(st.integers(0, 10).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words)))
    header = Ipv4Header(
        tos=draw(st.integers(0, 255)),
        total_length=20 + len(options) + len(content),
        identification=draw(st.integers(0, 0xFFFF)),
        reserved=draw(st.booleans()),
        df=draw(st.booleans()),
        ttl=draw(st.integers(2, 255)),
        protocol=draw(st.sampled_from([6, 17])),
        src=Address.parse(src),
        dst=Address.parse(dst),
        options=options,
    )
    return header.emit() + content


INWARD = packets("192.156.136.22", "149.112.240.55", dst_port=10003)
OUTWARD = packets("149.112.240.55", "192.156.136.22", src_port=10003)


def same_but_for_one_hop(before: bytes, after: bytes, *, hops: int = 1, port: int | None = None) -> None:
    """The two are the same; with a port of its own the second may have an identification out of the port's block."""
    start = (before[0] & 15) * 4
    assert after[start:] == before[start:], "transport and data are untouched"
    changed = [at for at in range(start) if before[at] != after[at]]
    renumbered = port is not None and not before[6] & 0x40
    assert set(changed) <= {8, 10, 11} | ({4, 5} if renumbered else set()), "only TTL and checksum differ"
    if renumbered:
        assert int.from_bytes(after[4:6], "big") == port
    assert after[8] == before[8] - hops
    assert checksum(after[:start]) == 0


@pytest.mark.rfc("2003", "3.1")
@given(packet=INWARD)
def test_inward_changes_ttl_and_nothing_else(packet: bytes) -> None:
    verdict = gateway().process(PUBLIC, packet, now=NOW)
    assert isinstance(verdict, Forward)
    (outer,) = verdict.packets
    assert len(outer) == len(packet) + 20
    view = Ipv4View.parse(outer)
    assert (view.checksum_ok, view.ttl, view.df, view.identification) == (True, 64, True, 0)
    assert view.tos == packet[1]
    same_but_for_one_hop(packet, outer[20:])


@pytest.mark.rfc("3102", "2")
@given(packet=OUTWARD)
def test_host_and_gateway_are_mirror_images(packet: bytes) -> None:
    """A program's packet arrives in the public realm as it was, one hop older; and its answer comes back."""
    sent = host().process(PUBLIC, packet, now=NOW)
    assert isinstance(sent, Forward)
    assert (sent.realm, sent.reason) == (PRIVATE, Reason.FORWARDED_OUTWARD)
    left = gateway().process(PRIVATE, sent.packets[0], now=NOW)
    assert isinstance(left, Forward)
    assert (left.realm, left.reason) == (PUBLIC, Reason.FORWARDED_OUTWARD)
    same_but_for_one_hop(packet, left.packets[0], port=10003)


@pytest.mark.rfc("3102", "3.1")
@given(packet=INWARD)
def test_what_comes_from_outside_reaches_the_program(packet: bytes) -> None:
    taken = gateway().process(PUBLIC, packet, now=NOW)
    assert isinstance(taken, Forward)
    given_ = host().process(PRIVATE, taken.packets[0], now=NOW)
    assert isinstance(given_, Forward)
    assert (given_.realm, given_.device) == (PUBLIC, "rsip0")
    same_but_for_one_hop(packet, given_.packets[0])


@pytest.mark.rfc("6040", "4.2")
@given(packet=OUTWARD, marks=st.integers(0, 3))
def test_congestion_marks_change_nothing_but_ecn(packet: bytes, marks: int) -> None:
    outer = Ipv4Header(
        tos=marks,
        total_length=20 + len(packet),
        protocol=4,
        src=HOST.address,
        dst=Address.parse("10.0.0.1"),
    )
    verdict = gateway().process(PRIVATE, outer.emit() + packet, now=NOW)
    if marks == 3 and not packet[1] & 3:
        assert verdict == Drop(Reason.MALFORMED)
        return
    assert isinstance(verdict, Forward)
    (after,) = verdict.packets
    assert after[1] >> 2 == packet[1] >> 2
    restored = bytearray(after)
    Ipv4View.parse(restored).tos = packet[1]
    same_but_for_one_hop(packet, bytes(restored), port=10003)


@given(octets=st.binary(max_size=120), realm=st.sampled_from([0, PRIVATE, PUBLIC, 99]))
def test_no_octets_raise(octets: bytes, realm: int) -> None:
    for plane in (gateway(), host()):
        plane.process(realm, octets, now=NOW)
        assert sum(plane.counters().values()) == 1


@given(data=st.data())
def test_no_damage_raises(data: st.DataObject) -> None:
    """Fixtures with some octets replaced, and cut: the parsers' corners are nearer from here."""
    fixture = data.draw(st.sampled_from(FIXTURES))
    realm, packet = fixture.packets[-1]
    octets = bytearray(packet)
    for at, value in data.draw(
        st.dictionaries(st.integers(0, max(len(octets) - 1, 0)), st.integers(0, 255), max_size=3)
    ).items():
        if octets:
            octets[at] = value
    octets = octets[: data.draw(st.integers(0, len(octets)))]
    plane = ReferencePlane(fixture.border)
    plane.apply(fixture.effects)
    for each in fixture.packets[:-1]:
        plane.process(*each, now=NOW)
    plane.process(realm, bytes(octets), now=NOW)
    assert sum(plane.counters().values()) == len(fixture.packets)


FIXTURES = load()


def length_of(packet: bytes) -> int:
    """How long a packet says it is; more than anything where it does not say."""
    if packet[:1] and packet[0] >> 4 == 6:
        return 40 + int.from_bytes(packet[4:6], "big")
    said = int.from_bytes(packet[2:4], "big")
    return said if said >= 20 else 1 << 16


@pytest.mark.rfc("791", "3.1")
@pytest.mark.parametrize(
    "fixture",
    [each for each in FIXTURES if len(each.packets) == 1 and length_of(each.packets[0][1]) <= len(each.packets[0][1])],
    ids=str,
)
def test_poison_behind_a_packet_never_gets_out(fixture: object) -> None:
    """The packet lies in a larger buffer that is full of something else: not an octet of it may leave."""
    ((realm, packet),) = fixture.packets  # type: ignore[attr-defined]
    length = length_of(packet)
    planes = [ReferencePlane(fixture.border) for _ in range(2)]  # type: ignore[attr-defined]
    for plane in planes:
        plane.apply(fixture.effects)  # type: ignore[attr-defined]
    clean, poisoned = (
        plane.process(realm, octets, now=NOW)
        for plane, octets in zip(planes, (packet[:length], packet[:length] + POISON), strict=True)
    )
    assert poisoned == clean
    sent = {Forward: lambda each: each.packets, Reply: lambda each: (each.packet,)}.get(type(poisoned), lambda _: ())(
        poisoned
    )
    assert all(POISON[:4] not in octets for octets in sent)


def test_gre_encapsulates_where_a_binding_says_so() -> None:
    plane = gateway()
    plane.apply([bind(kind=TunnelKind.GRE)])
    packet = build({**IN, "tcp": "80 -> 15000"})
    verdict = plane.process(PUBLIC, packet, now=NOW)
    assert isinstance(verdict, Forward)
    outer = verdict.packets[0]
    assert (outer[9], outer[20:24], len(outer)) == (47, b"\0\0\x08\0", len(packet) + 24)
    same_but_for_one_hop(packet, outer[24:])


def test_contacts_last_for_120_epochs() -> None:
    peers, local, peer = ContactedPeers(), Address.parse("149.112.240.55"), Address.parse("192.156.136.22")
    start = 1000 * EPOCH_SECONDS
    peers.note(HOST, local, peer, now=start + 63.9)
    assert peers.knows(HOST, local, peer, now=start + KEPT_EPOCHS * EPOCH_SECONDS + 63.9)
    assert not peers.knows(HOST, local, peer, now=start + (KEPT_EPOCHS + 1) * EPOCH_SECONDS)
    assert not peers.knows(HOST, peer, local, now=start)


def test_contacts_forget_the_longest_silent_first() -> None:
    peers, local = ContactedPeers(capacity=2), Address.parse("149.112.240.55")
    first, second, third = (Address.parse(f"192.0.2.{at}") for at in (1, 2, 3))
    for peer in (first, second, first, third):
        peers.note(HOST, local, peer, now=NOW)
    assert [peers.knows(HOST, local, peer, now=NOW) for peer in (first, second, third)] == [True, False, True]
    assert len(peers) == 2


def test_a_contact_expires_on_the_plane() -> None:
    fixture = next(each for each in FIXTURES if each.name == "one that was does, by any port")
    plane = ReferencePlane(fixture.border)
    plane.apply(fixture.effects)
    plane.apply(Extend(key=entry.binding.key, expires_at=NOW + 1e6) for entry in plane.table)
    (realm, first), (back, second) = fixture.packets
    plane.process(realm, first, now=NOW)
    assert isinstance(plane.process(back, second, now=NOW + 7680), Forward)
    assert plane.process(back, second, now=NOW + 7744) == Drop(Reason.NOT_CONTACTED)


def test_effects_are_followed_at_once() -> None:
    plane, packet = gateway(), build({**IN, "tcp": "80 -> 15000"})
    key = BindingKey(HOST, 50)
    assert plane.process(PUBLIC, packet, now=NOW) == Drop(Reason.NO_BINDING)
    plane.apply([bind()])
    assert isinstance(plane.process(PUBLIC, packet, now=NOW), Forward)
    assert plane.process(PUBLIC, packet, now=NOW + 60) == Drop(Reason.LEASE_EXPIRED)
    plane.apply([Extend(key=key, expires_at=NOW + 120), Prolong(owner=HOST, expires_at=NOW + 120)])
    assert isinstance(plane.process(PUBLIC, packet, now=NOW + 60), Forward)
    plane.apply([Unbind(key=key, ending=Ending.FREED), Unbind(key=key, ending=Ending.FREED)])
    assert plane.process(PUBLIC, packet, now=NOW) == Drop(Reason.NO_BINDING)
    plane.apply([Deregister(owner=HOST, ending=Ending.FREED)])
    assert plane.process(PRIVATE, build(OUT), now=NOW).reason is Reason.UNREGISTERED  # type: ignore[union-attr]


def test_an_unbound_address_passes_again() -> None:
    plane = ReferencePlane(replace(stage(scene("gateway"))[0], claims=()))
    fragment = build({**IN, "size": 100, "part": [0, 40]})
    assert plane.process(PUBLIC, fragment, now=NOW) == Pass()
    plane.apply([bind(), bind()])
    assert plane.process(PUBLIC, fragment, now=NOW) == Hold()
    plane.apply([Unbind(key=BindingKey(HOST, 50), ending=Ending.FREED)])
    assert plane.process(PUBLIC, fragment, now=NOW) == Pass()


def test_a_prefix_binding_is_found_for_a_fragment() -> None:
    plane = ReferencePlane(replace(stage(scene("gateway"))[0], claims=()))
    effect = bind()
    site = replace(
        effect,
        binding=replace(effect.binding, selectors=(Selector(realm=PUBLIC, local=Prefix.parse("149.112.240.0/24")),)),
    )
    plane.apply([site])
    assert plane.process(PUBLIC, build({**IN, "size": 100, "part": [0, 40]}), now=NOW) == Hold()
    assert isinstance(plane.process(PUBLIC, build(IN), now=NOW), Forward)


def test_what_is_held_cannot_be_bound_again() -> None:
    plane = gateway()
    with pytest.raises(PlaneError, match=r"149\.112\.240\.55"):
        plane.apply([bind(ports="10015-10016")])
    assert isinstance(plane.process(PUBLIC, build(IN), now=NOW), Forward)


@pytest.mark.rfc("2473", "3.1")
def test_tunnels_over_ipv6_are_taken() -> None:
    plane, effect = gateway(), bind()
    crossing = Tunnel(realm=PRIVATE, local=Address.parse("fd00::1"), remote=Address.parse("fd00::4"), mtu=1440)
    plane.apply([replace(effect, binding=replace(effect.binding, crossing=crossing))])
    packet = build({**IN, "tcp": "80 -> 15000"})
    verdict = plane.process(PUBLIC, packet, now=NOW)
    assert isinstance(verdict, Forward)
    same_but_for_one_hop(packet, verdict.packets[0][40:])


def test_a_tunnel_end_must_join_realms_that_exist() -> None:
    end = TunnelEnd(realm=PRIVATE, address=Address.parse("10.0.0.1"), leads_to=7)
    with pytest.raises(PlaneError, match=r"10\.0\.0\.1"):
        ReferencePlane(Border(realms=(Realm(number=PRIVATE, name="private"),), tunnel_ends=(end,)))


def test_violations_are_told_once_and_the_oldest_go_first() -> None:
    plane = gateway()
    spoofed = build({**OUT, "tcp": "10016 -> 80"})
    plane.process(PRIVATE, spoofed, now=NOW)
    (violation,) = plane.events()
    assert (violation.reason, violation.owner, violation.tunnel_kind) == (
        Reason.SOURCE_PORT_NOT_LEASED,
        HOST,
        TunnelKind.IPIP,
    )
    assert violation.flow is not None
    assert violation.flow.text == "149.112.240.55:10016 <> 192.156.136.22:80"
    assert plane.events() == []
    for _ in range(5000):
        plane.process(PRIVATE, spoofed, now=NOW)
    assert len(plane.events()) == 4096
    plane.close()


def test_unregistered_is_told_without_a_flow() -> None:
    plane = gateway()
    plane.process(PRIVATE, build({**OUT, "outer": {"ipv4": "10.0.0.99 -> 10.0.0.1", "tunnel": "gre"}}), now=NOW)
    (violation,) = plane.events()
    assert (violation.reason, violation.flow, violation.tunnel_kind) == (Reason.UNREGISTERED, None, TunnelKind.GRE)
