# SPDX-License-Identifier: BSD-3-Clause
"""The short ways of the kernel plane: each answers what a longer one would, or leaves it to that."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Owner, Registration
from isthmus.border.effect import Bind, Deregister, Ending, Register
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, Node, Realm, TunnelEnd
from isthmus.border.verdict import Reason
from isthmus.errors import Unsupported
from isthmus.plane import Programmable
from isthmus.plane.kernel import KernelPlane, own, pinned
from isthmus.plane.kernel.image import Image
from isthmus.plane.kernel.maps import MEANT_BITS, REALMS
from plane.fixture import NOW, Fixture, load, scene, stage
from plane.kernel_under_test import ETHERNET, OBJECT, KernelUnderTest, context
from plane.octets import build
from plane.planes import KernelWithReference
from plane.test_equivalence import scenes
from plane.test_kernel_image import OWNER, bind, codec, image, simple
from plane.test_kernel_plane import OUTWARD, one, with_plane

BPF = Path(__file__).parents[2] / "bpf"
kernel = KernelUnderTest()
pytestmark = pytest.mark.skipif(not OBJECT.exists(), reason="needs the objects: make -C bpf")


@pytest.fixture(scope="module")
def by_calls(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The program that finds nothing in the linear part of a buffer, and so reads and writes by calls."""
    target = tmp_path_factory.mktemp("by_calls") / "border.o"
    made = subprocess.check_output(["make", "-n", "-B", "-C", str(BPF)], text=True, timeout=20)
    words = next(line for line in made.splitlines() if "border_tc.bpf.c" in line).split()
    words[words.index("-o") + 1] = str(target)
    subprocess.run([*words, "-DLINEAR_MOST=0"], cwd=BPF, check=True, timeout=60)
    return target.read_bytes()


@pytest.mark.root
@pytest.mark.parametrize("fixture", load(), ids=str)
def test_what_is_not_in_the_linear_part_is_read_all_the_same(
    fixture: Fixture, by_calls: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setattr(pinned, "_object", lambda: by_calls)
    plane = KernelWithReference(kernel)
    found = plane.run(fixture.border, fixture.effects, fixture.packets, NOW, waits=fixture.waits)[-1]
    assert fixture.comparable(found) == fixture.comparable(fixture.expected)


# --- meant ------------------------------------------------------------------------------------


def may_be_meant(words: dict[bytes, bytes], address: Address) -> bool:
    """What lookup.h does."""
    block = int.from_bytes(address.key_octets[:3], "big")
    bit = (block ^ block >> 8) % MEANT_BITS
    word = words.get((bit // 64).to_bytes(4, sys.byteorder), bytes(8))
    return bool(int.from_bytes(word, sys.byteorder) >> bit % 64 & 1)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(scene=scenes())
def test_whatever_is_held_or_claimed_may_be_meant_before_it_is(scene: tuple[Border, list[Programmable]]) -> None:
    border, effects = scene
    made = image(border)
    for effect in effects:
        made.apply(effect)
    seen: dict[bytes, bytes] = {}
    for table, key, value in made.changes():
        if table == "meant":
            seen[key] = value or b""
        elif table in {"addresses", "by_prefix"} and value is not None:
            place = key if table == "addresses" else key[4:]
            assert may_be_meant(seen, Address.parse(".".join(map(str, place[4:8])))), table


@pytest.mark.parametrize("prefix", ["198.18.0.0/15", "203.0.113.0/24", "10.0.0.0/8", "0.0.0.0/0", "192.0.2.55/32"])
def test_every_address_of_a_prefix_may_be_meant(prefix: str) -> None:
    made = image(simple())
    made.apply(bind(None, local=Prefix.parse(prefix)))
    parsed = Prefix.parse(prefix)
    first, size = parsed.address.number, 1 << (32 - parsed.length)
    for number in {first, first + size - 1, *range(first, first + size, max(size // 999, 1))}:
        assert may_be_meant(made.tables["meant"], Address(parsed.address.family, number))


def test_few_others_may_be() -> None:
    made = image(simple())
    made.apply(bind(None, local=Prefix.parse("203.0.113.0/24")))
    assert not may_be_meant(made.tables["meant"], Address.parse("203.0.112.1"))
    assert sum(int.from_bytes(word, sys.byteorder).bit_count() for word in made.tables["meant"].values()) == 1


# --- registered -------------------------------------------------------------------------------


def flags(made: Image) -> list[int]:
    """Of every endpoint that there is."""
    record = codec()._record["endpoint"]
    return [record.number(value, "flags") for value in made.tables["endpoints"].values()]


def register(owner: Owner) -> Register:
    return Register(registration=Registration(owner=owner, client_id=1, expires_at=FOREVER))


def test_endpoints_say_whether_their_owner_has_registered() -> None:
    made = image(simple())
    made.apply(bind(Ranges.of((64, 127))))
    assert flags(made) == [0]
    made.apply(register(OWNER))
    assert flags(made) == [1]
    made.apply(bind(Ranges.of((128, 191)), bind_id=2, near="10.0.0.9"))
    assert flags(made) == [1, 1]
    made.apply(Deregister(owner=OWNER, ending=Ending.FREED))
    assert flags(made) == [0, 0]


def test_an_endpoint_elsewhere_says_nothing_of_its_owner() -> None:
    made = image(simple())
    effect = bind(Ranges.of((64, 127)))
    made.apply(register(OWNER))
    crossing = replace(effect.binding.crossing, remote=Address.parse("10.0.0.200"))
    made.apply(replace(effect, binding=replace(effect.binding, crossing=crossing)))
    assert flags(made) == [0]


@pytest.mark.root
def test_a_sender_is_unregistered_from_the_next_packet_on() -> None:
    border, effects = stage(scene("gateway"))
    sender = next(each.binding.key.owner for each in effects if isinstance(each, Bind))
    sender = sender._replace(address=Address.parse("10.0.0.4"))

    def work(plane: KernelPlane) -> None:
        plane.reconcile(effects)
        assert one(plane, border, "private", OUTWARD)[1] is Reason.FORWARDED_OUTWARD
        plane.apply([Deregister(owner=sender, ending=Ending.FREED)])
        assert one(plane, border, "private", OUTWARD)[1] is Reason.UNREGISTERED
        plane.apply([register(sender)])
        assert one(plane, border, "private", OUTWARD)[1] is Reason.FORWARDED_OUTWARD

    with_pinned(border, work)


# --- interfaces and realms --------------------------------------------------------------------


def with_pinned(border: Border, work: Callable[[KernelPlane], None]) -> None:
    """A plane over pinned maps, in the thread that has the interfaces."""
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)

    def inside() -> None:
        plane = kernel.open(border, NOW)
        try:
            work(plane)
        finally:
            plane.close()

    kernel.bench().do(inside)


@pytest.mark.root
def test_every_tunnel_end_is_one_and_a_restart_without_it_forgets_it() -> None:
    border, effects = stage(scene("gateway"))
    first = border.tunnel_ends[0]
    other = TunnelEnd(realm=first.realm, address=Address.parse("10.0.0.99"), leads_to=first.leads_to)
    elsewhere = {**OUTWARD, "outer": {"ipv4": "10.0.0.4 -> 10.0.0.99"}}

    def ways(expected: tuple[Reason, Reason]) -> Callable[[KernelPlane], None]:
        def work(plane: KernelPlane) -> None:
            plane.reconcile(effects)
            found = tuple(one(plane, border, "private", each)[1] for each in (OUTWARD, elsewhere))
            assert found == expected

        return work

    forwarded, passed = Reason.FORWARDED_OUTWARD, Reason.PASSED
    with_pinned(replace(border, tunnel_ends=(first, other)), ways((forwarded, forwarded)))
    with_pinned(replace(border, tunnel_ends=(other, first)), ways((forwarded, forwarded)))
    with_pinned(border, ways((forwarded, passed)))
    with_pinned(replace(border, tunnel_ends=(other,)), ways((passed, forwarded)))
    with_pinned(replace(border, tunnel_ends=()), ways((passed, passed)))
    with_pinned(border, ways((forwarded, passed)))


@pytest.mark.root
def test_a_realm_in_the_place_of_another_has_not_its_addresses() -> None:
    """Until it is reconciled the words are the other's, and so is the run that leads to them."""
    border, effects = stage(scene("gateway"))
    public = next(each for each in border.realms if each.name == "public")
    instead = replace(public, number=public.number + REALMS)
    with_pinned(border, lambda plane: plane.reconcile(effects))

    def work(plane: KernelPlane) -> None:
        assert plane.adopted
        held = plane._maps["realms"].get(plane._codec.realm_key(instead.number))
        assert held is not None
        assert plane._codec.number_of_realm(held) == instead.number
        assert plane._codec.run_of(held) is None

    realms = tuple(instead if each is public else each for each in border.realms)
    with_pinned(replace(border, realms=realms, tunnel_ends=(), claims=()), work)


def test_realms_that_cannot_be_told_apart_are_refused() -> None:
    realms = (Realm(number=1, name="a"), Realm(number=1025, name="b"))
    with pytest.raises(Unsupported, match="realms 1 and 1025"):
        KernelPlane(Border(realms=realms), pin=None, boot_offset=0.0)


# --- our own addresses ------------------------------------------------------------------------


def test_every_one_of_our_own_addresses_is_looked_up() -> None:
    border = Border(
        realms=(
            Realm(number=1, name="site", sip=3, site=Prefix.parse_sip("1.213.77.5/32")),
            Realm(number=2, name="net", sip=3),
            Realm(number=3, name="sip", family=Family.SIP),
        ),
        tunnel_ends=tuple(TunnelEnd(realm=2, address=Address.parse(f"128.1.1.{at}"), leads_to=3) for at in range(1, 9)),
        nodes=tuple(Node(realm=3, address=Address.parse_sip(f"1.213.77.5/192.3.4.{at}")) for at in range(1, 4)),
    )
    ends, nodes, sites = struct.unpack("=3Q", own.bits(border))
    tables = image(border).tables
    for table, known, at in (("sip_ends", ends, 4), ("nodes", nodes, 8), ("sites", sites, 0)):
        assert tables[table]
        for key in tables[table]:
            number = int.from_bytes(key[at : at + 4], "big")
            assert known >> ((number * own.OWN_FACTOR & 0xFFFFFFFF) >> 26) & 1
    assert nodes.bit_count() <= 3


# --- next hops --------------------------------------------------------------------------------

_A_FEW_TICKS = 0.05
_FAR = "ist1"


def ip(*commands: str) -> None:
    for each in commands:
        subprocess.run(["ip", *each.split()], check=True, timeout=20)


@pytest.mark.root
def test_a_next_hop_is_remembered_no_longer_than_a_tick() -> None:
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)
    border, effects = stage(scene("gateway"))
    packet = ETHERNET + build(dict(OUTWARD))

    def to(plane: KernelPlane) -> str:
        found = kernel.bench().links.find("realm 1")
        assert found is not None
        return plane.program.test_run(packet, context(found.index)).packet[:6].hex(":")

    def work(plane: KernelPlane) -> None:
        plane.apply(effects)
        subprocess.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True, timeout=20)
        neighbour = f"neigh replace 198.51.100.9 dev {_FAR} lladdr"
        ip(f"addr add 198.51.100.1/24 dev {_FAR}", f"{neighbour} 02:00:00:00:00:0a")
        ip(f"route add 192.156.136.0/24 via 198.51.100.9 dev {_FAR}")
        try:
            assert [to(plane) for _ in range(3)] == ["02:00:00:00:00:0a"] * 3
            ip(f"{neighbour} 02:00:00:00:00:0b")
            time.sleep(_A_FEW_TICKS)
            assert [to(plane) for _ in range(3)] == ["02:00:00:00:00:0b"] * 3
        finally:
            ip(f"route flush dev {_FAR}", f"neigh flush dev {_FAR}", f"addr flush dev {_FAR}")

    with_plane(border, work)
