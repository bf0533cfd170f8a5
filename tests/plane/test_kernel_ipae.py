# SPDX-License-Identifier: BSD-3-Clause
"""What the kernel plane keeps for IPAE: mappings, the ring, the state of ways; across restarts, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
import pytest

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner
from isthmus.border.crossing import Crossing, Encapsulation, Translate, Way
from isthmus.border.effect import Bind, Ending, Remap, Unbind
from isthmus.border.mapping import Mapping
from isthmus.border.realm import Border, Node, Realm, TunnelEnd
from isthmus.border.selector import Selector
from isthmus.border.verdict import Reason
from isthmus.plane import Programmable
from isthmus.plane.kernel import KernelPlane
from isthmus.plane.reference.ring import LOOKED_AHEAD, SLOTS
from isthmus.plane.reference.ways import Condition
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.sip.header import SipView
from isthmus.wire.transport import Protocol
from plane.fixture import NOW, Outcome
from plane.kernel_under_test import PINS, SIZES, KernelUnderTest

SITE, NET, SIP = 1, 2, 3
OWN, OTHER = Prefix.parse_sip("1.213.77.5/32"), Prefix.parse_sip("c1.2.2.8/32")
HERE, THERE, PEER = (Address.parse(each) for each in ("128.1.1.1", "201.5.7.250", "128.2.1.2"))
MILLION = 1_000_000
MOST_OCTETS = 128 << 20
"Of a mapping of a million networks in the kernel."

kernel = KernelUnderTest()
pytestmark = pytest.mark.root
_T = TypeVar("_T")


@pytest.fixture(scope="module", autouse=True)
def _kernel_is_available() -> None:
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)


def border(*, ipae: bool = True) -> Border:
    sip = (Realm(number=SIP, name="sip", family=Family.SIP),) if ipae else ()
    return Border(
        realms=(
            Realm(number=SITE, name="site", sip=SIP if ipae else None, site=OWN if ipae else None, mtu=1500),
            Realm(number=NET, name="net", sip=SIP if ipae else None, mtu=1500),
            *sip,
        ),
        tunnel_ends=(TunnelEnd(realm=NET, address=HERE, leads_to=SIP),) if ipae else (),
        nodes=(Node(realm=SIP, address=Address.parse_sip("1.213.77.5/192.3.4.254")),) if ipae else (),
    )


def bind(realm: int, prefix: Prefix, crossing: Crossing) -> Bind:
    key = BindingKey(Owner(realm, prefix.address), prefix.length)
    binding = Binding(key=key, selectors=(Selector(realm=realm, local=prefix),), crossing=crossing)
    return Bind(binding=binding, lease=Lease(client_id=0, method=Method.RSA_IP, granted_at=0.0, expires_at=FOREVER))


TO_ANY = bind(SIP, Prefix(Address(Family.SIP, 0), 0), Encapsulation(realm=NET, local=HERE, remote=PEER))
GATEWAY = bind(SIP, Prefix.parse_sip("c1.213.77.5/32"), Translate(realm=SITE, image=Prefix.parse("0.0.0.0/0")))
ROUTES: tuple[Bind, ...] = (TO_ANY, GATEWAY)


def remap(*rows: tuple[str, str]) -> Remap:
    mapping = Mapping.of([(Prefix.parse(prefix), Prefix.parse_sip(image)) for prefix, image in rows])
    return Remap(realm=SITE, sip=SIP, mapping=mapping)


MAPPED = remap(("201.5.7.0/24", "c1.2.2.8/32"))


def within(
    work: Callable[[KernelPlane], _T], effects: Iterable[Programmable] | None = ROUTES, *, afresh: bool = True
) -> _T:
    """Do something with a plane; not ``afresh``: what the one before has left is still there."""

    def inside() -> _T:
        plane = kernel.open(border(), NOW)
        try:
            if afresh:
                plane.reconcile(())
            if effects is not None:
                plane.reconcile(effects)
            return work(plane)
        finally:
            plane.close()

    return kernel.bench().do(inside)


def packet(destination: Address, *, ttl: int = 64) -> bytes:
    """UDP from a host of the site."""
    payload = bytes.fromhex("0007000800080000")
    source = Address.parse("192.3.4.1")
    header = Ipv4Header(
        total_length=28, identification=1, df=True, ttl=ttl, protocol=Protocol.UDP, src=source, dst=destination
    )
    return header.emit() + payload


def sent(plane: KernelPlane, destination: Address, *, ttl: int = 64) -> Outcome:
    return kernel.one(plane, border(), SITE, packet(destination, ttl=ttl))


def stands_for(plane: KernelPlane, destination: Address) -> Address | None:
    """Whom the program takes an IPv4 address for."""
    found = sent(plane, destination)
    if found[1] is not Reason.TRANSLATED_TO_SIP:
        return None
    assert found[3] is not None
    return SipView.parse(found[3][20:]).dst


# --- mappings -------------------------------------------------------------------------------


@pytest.mark.rfc("ipae", "5.1")
def test_a_million_networks_are_looked_up_as_the_mapping_says() -> None:
    rng = np.random.default_rng(8)
    lengths = rng.choice(np.array([16, 20, 22, 23, 24, 28], np.uint8), MILLION, p=[0.02, 0.05, 0.1, 0.1, 0.7, 0.03])
    masks = (np.uint64(0xFFFFFFFF) << (np.uint64(32) - lengths)).astype(np.uint32)
    numbers = rng.integers(0x01000000, 0x7EFFFFFF, MILLION, np.uint32) & masks
    keys = np.unique(numbers.astype(np.uint64) << np.uint64(6) | lengths)
    uppers = rng.integers(0x81000000, 0xFE000000, len(keys), np.uint32)
    mapping = Mapping.from_arrays((keys >> np.uint64(6)).astype(np.uint32), (keys & 63).astype(np.uint8), uppers)
    asked = [Address(Family.IPV4, int(each)) for each in rng.integers(0x01000000, 0x7EFFFFFF, 300, np.uint32)]

    def look(plane: KernelPlane) -> list[Address | None]:
        assert plane.mapping_octets < MOST_OCTETS
        return [stands_for(plane, each) for each in asked]

    found = within(look, [*ROUTES, Remap(realm=SITE, sip=SIP, mapping=mapping)])
    images = [mapping.lookup(each) for each in asked]
    expected = [
        image and Address.of_halves(image.address.upper, each) for image, each in zip(images, asked, strict=True)
    ]
    assert found == expected
    assert any(expected)
    within(lambda _plane: None)


def test_a_mapping_outlives_the_process_and_only_what_differs_is_written() -> None:
    first = [*ROUTES, remap(("201.5.7.0/24", "c1.2.2.8/32"), ("201.6.0.0/16", "c1.2.2.9/32"))]
    within(lambda _plane: None, first)
    left = within(lambda plane: stands_for(plane, THERE), None, afresh=False)
    assert left == Address.of_halves(OTHER.address.upper, THERE)
    second = [*ROUTES, remap(("201.5.7.0/24", "c1.2.2.8/32"), ("201.5.7.250/32", "1.2.2.8/32"))]

    def look(plane: KernelPlane) -> list[Address | None]:
        return [stands_for(plane, Address.parse(each)) for each in ("201.5.7.250", "201.5.7.249", "201.6.1.1")]

    one, other, gone = within(look, second, afresh=False)
    assert str(one) == "1.2.2.8/201.5.7.250"
    assert str(other) == "c1.2.2.8/201.5.7.249"
    assert gone is None
    assert within(lambda plane: plane.mapping_octets, ROUTES, afresh=False) == 0


def test_a_mapping_that_outgrows_its_chunks_gets_new_ones() -> None:
    rows = [(f"201.{at >> 8}.{at & 255}.128/25", "c1.2.2.8/32") for at in range(300)]

    def work(plane: KernelPlane) -> list[Address | None]:
        plane.apply([remap(rows[0])])
        before = plane.mapping_octets
        plane.apply([remap(*rows)])
        assert plane.mapping_octets > before
        plane.apply([remap(*rows[1:])])
        return [stands_for(plane, Address.parse(each)) for each in ("201.1.43.129", "201.0.0.129", "201.0.1.5")]

    found, gone, never = within(work)
    assert str(found) == "c1.2.2.8/201.1.43.129"
    assert gone is None
    assert never is None


def test_what_is_bound_by_itself_comes_before_the_mapping() -> None:
    alias = bind(SITE, Prefix.of(THERE), Translate(realm=SIP, image=Prefix.of(Address.parse_sip("1.9.9.9/10.0.0.7"))))

    def work(plane: KernelPlane) -> list[str]:
        seen = [str(stands_for(plane, THERE))]
        plane.apply([Unbind(key=alias.binding.key, ending=Ending.FREED)])
        return [*seen, str(stands_for(plane, THERE))]

    found = within(work, [*ROUTES, alias, remap(("201.5.7.0/24", "c1.2.2.8/32"))])
    assert found == ["1.9.9.9/10.0.0.7", "c1.2.2.8/201.5.7.250"]


# --- short ways, when bindings change -----------------------------------------------------------


def site_prefix(upper: str, length: int, low: str = "0.0.0.0") -> Prefix:
    return Prefix(Address.parse_sip(f"{upper}/{low}"), length)


def through(prefix: Prefix, remote: str) -> Bind:
    return bind(SIP, prefix, Encapsulation(realm=NET, local=HERE, remote=Address.parse(remote)))


def goes_to(plane: KernelPlane, destination: Address) -> str:
    """The next IPAE system of a datagram."""
    found = sent(plane, destination)
    assert found[3] is not None
    return str(Address.from_octets(found[3][16:20]))


@pytest.mark.rfc("8507", "4.2")
def test_a_change_of_routes_counts_for_the_next_packet() -> None:
    site, host = through(site_prefix("c1.2.2.8", 32), "128.2.1.3"), site_prefix("c1.2.2.8", 64, str(THERE))

    def work(plane: KernelPlane) -> list[str]:
        seen = [goes_to(plane, THERE)]
        for step in (
            site,
            through(site.binding.selectors[0].local, "128.2.1.4"),
            through(host, "128.2.1.5"),
            Unbind(key=through(host, "128.2.1.5").binding.key, ending=Ending.FREED),
            Unbind(key=site.binding.key, ending=Ending.FREED),
        ):
            plane.apply([step])
            seen += [goes_to(plane, THERE), goes_to(plane, Address.parse("201.5.7.251"))]
        plane.reconcile([GATEWAY, through(site_prefix("0.0.0.0", 0), "128.2.1.6"), MAPPED])
        return [*seen, goes_to(plane, THERE)]

    found = within(work, [*ROUTES, MAPPED])
    ends = [2, 3, 3, 4, 4, 5, 4, 4, 4, 2, 2, 6]
    assert found == [f"128.2.1.{end}" for end in ends]


@pytest.mark.rfc("ipae", "5.1")
def test_a_change_of_who_one_is_in_sip_counts_for_the_next_packet() -> None:
    alias = bind(SIP, site_prefix("1.7.7.7", 64, "10.0.0.9"), Translate(realm=SITE, image=Prefix.parse("192.3.4.1/32")))

    def work(plane: KernelPlane) -> list[str]:
        seen = [known_as(plane)]
        for step in (
            alias,
            Unbind(key=alias.binding.key, ending=Ending.FREED),
            Unbind(key=GATEWAY.binding.key, ending=Ending.FREED),
            GATEWAY,
        ):
            plane.apply([step])
            seen.append(known_as(plane))
        return seen

    own = "c1.213.77.5/192.3.4.1"
    assert within(work, [*ROUTES, MAPPED]) == [own, "1.7.7.7/10.0.0.9", own, "NO_IMAGE", own]


def known_as(plane: KernelPlane) -> str:
    """By which SIP address the host of ``packet`` sends."""
    found = sent(plane, THERE)
    if found[1] is not Reason.TRANSLATED_TO_SIP:
        return found[1].name
    assert found[3] is not None
    return str(SipView.parse(found[3][20:]).src)


# --- the ring, and ways ---------------------------------------------------------------------


@pytest.mark.rfc("ipae", "4.3")
def test_the_ring_shows_what_the_program_sent() -> None:
    def work(plane: KernelPlane) -> None:
        numbers = []
        for _ in range(3):
            found = sent(plane, THERE)
            assert found[3] is not None
            numbers.append(int.from_bytes(found[3][4:6], "big"))
        ring = plane.ring
        assert numbers == [0, 1, 2]
        assert ring.number() == 3
        assert ring.put(PEER, b"x" * 100, now=NOW) == 4
        kept = ring.find(1, now=NOW)
        assert kept is not None
        assert kept.destination == PEER
        assert kept.octets == found[3][20:]
        again = ring.find(4, now=NOW)
        assert again is not None
        assert again.octets == b"x" * 64
        assert ring.find(3, now=NOW) is None
        assert ring.find(1, now=NOW + 11) is None
        assert ring.has_sent_to(PEER, now=NOW)
        assert not ring.has_sent_to(HERE, now=NOW)
        assert not ring.has_sent_to(PEER, now=NOW + 12)
        assert sent(plane, THERE)[3][4:6] == b"\0\5"  # type: ignore[index]
        assert not ring.is_overrun(now=NOW)
        for _ in range(SLOTS - LOOKED_AHEAD):
            ring.number()
        assert ring.is_overrun(now=NOW)
        assert not ring.is_overrun(now=NOW + 12)

    within(work, [*ROUTES, remap(("201.5.7.0/24", "c1.2.2.8/32"))])


@pytest.mark.rfc("ipae", "4.3")
@pytest.mark.parametrize(
    ("known", "ttl", "goes"),
    [
        (Condition(), 64, True),
        (Condition(mtu=600), 64, True),
        (Condition(down=HERE), 64, False),
        (Condition(hops=5), 6, True),
        (Condition(hops=5), 5, False),
    ],
)
def test_what_is_known_of_a_way_is_left_to_who_can_say_so(known: Condition, ttl: int, goes: bool) -> None:
    def work(plane: KernelPlane) -> list[Reason]:
        plane.condition(Way(NET, HERE, PEER), known)
        seen = [sent(plane, THERE, ttl=ttl)[1]]
        plane.condition(Way(NET, HERE, PEER), None)
        return [*seen, sent(plane, THERE, ttl=ttl)[1]]

    found = within(work, [*ROUTES, remap(("201.5.7.0/24", "c1.2.2.8/32"))])
    assert found == [Reason.TRANSLATED_TO_SIP if goes else Reason.PUNTED, Reason.TRANSLATED_TO_SIP]


def test_who_speaks_no_sip_has_nothing_of_it() -> None:
    def inside() -> tuple[bool, int]:
        plane = kernel.open(border(ipae=False), NOW)
        try:
            return plane.program is plane._loaded.programs["border"], plane.mapping_octets
        finally:
            plane.close()

    assert kernel.bench().do(inside) == (True, 0)


def test_its_program_is_loaded_when_there_is_sip_and_goes_with_it() -> None:
    pin = PINS.with_name(f"{PINS.name}-programs")

    def inside() -> list[tuple[bool, set[str], bool]]:
        found = []
        for speaks in (False, True, True, False, True):
            plane = KernelPlane(border(ipae=speaks), pin=pin, boot_offset=0.0, links=kernel.bench().links, sizes=SIZES)
            program = plane.program is plane._loaded.programs["ipae" if speaks else "border"]
            found.append((program, set(plane._loaded.programs), plane.adopted))
            plane.close()
        plane = KernelPlane(border(ipae=True), pin=pin, boot_offset=0.0, links=kernel.bench().links, sizes=SIZES)
        plane.destroy()
        return found

    both = {"border", "ipae"}
    assert kernel.bench().do(inside) == [
        (True, {"border"}, False),
        (True, both, True),
        (True, both, True),
        (True, {"border"}, True),
        (True, both, True),
    ]
