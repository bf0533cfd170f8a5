# SPDX-License-Identifier: BSD-3-Clause
"""The two planes agree about SIP: random routes and mappings, random packets, the same verdict, reason and octets.

As ``test_equivalence``: behind the kernel plane there is a reference plane, both share the ring, and what is punted must be
something that ``docs/data-plane.md`` lists. Identifications that a border makes up are not compared.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.address import Address, Prefix
from isthmus.border.crossing import Encapsulation, Native, Translate
from isthmus.border.effect import Bind
from isthmus.border.realm import Border, Foreign, Unmapped
from isthmus.border.rules import Rules
from isthmus.border.verdict import Reason
from isthmus.plane import Programmable
from isthmus.plane.reference import ReferencePlane
from plane.fixture import NOW, Outcome
from plane.fixture_sip import without_identification
from plane.kernel_under_test import KernelUnderTest
from plane.planes import ReferenceUnderTest, arrive, hand_on, outcome
from plane.sip_nodes import FAR, O_SITE, SIP, SITE, System, ip, sip, upper
from plane.traffic_sip import Packets
from plane.xdp_under_test import XdpUnderTest

kernel, before_kernel = KernelUnderTest(), XdpUnderTest()
"TC alone, and XDP before it."
pytestmark = pytest.mark.root

PACKETS = 50
EXAMPLES = int(os.environ.get("ISTHMUS_EXAMPLES", "50"))
seen: Counter[str] = Counter()
"Packets by reason: what the property has really looked at."


@pytest.fixture(scope="module", autouse=True)
def _kernel_is_available() -> None:
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)


# --- scenes ---------------------------------------------------------------------------------


@st.composite
def _crossings(draw: st.DrawFn) -> Encapsulation | Native:
    if draw(st.booleans()):
        neighbour = draw(st.sampled_from([None, "128.1.1.7"]))
        return Native(realm=draw(st.sampled_from([SITE, FAR])), neighbour=ip(neighbour) if neighbour else None)
    realm, local, remotes = draw(
        st.sampled_from([(SITE, "192.3.4.2", [None, "192.3.4.200"]), (FAR, "128.1.1.1", ["128.2.1.2", None])])
    )
    remote = draw(st.sampled_from(remotes))
    mtu = draw(st.sampled_from([1480, 1480, 1000, 580]))
    return Encapsulation(realm=realm, local=ip(local), remote=ip(remote) if remote else None, mtu=mtu)


PREFIXES = [
    *(f"{each}/32" for each in ("1.213.77.5", "1.2.2.8", "c1.2.2.8", "1.2.2.75", "9.9.9.9")),
    "1/8",
    "1.2/16",
    "1.2.2.8/201.5.7.0/56",
    "1.213.77.5/192.3.4.77",
    "1.2.2.75/203.0.113.8/61",
]


@dataclass(frozen=True)
class Scene:
    """A border and what is bound at it."""

    border: Border
    effects: list[Programmable]
    sockets: bool


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    is_host = draw(st.integers(0, 3)) == 0
    site: dict[str, Any] = {
        "unmapped": draw(st.sampled_from([Unmapped.PASS, *Unmapped])),
        "foreign": draw(st.sampled_from([Foreign.LOW, *Foreign])),
        "mtu": draw(st.sampled_from([1500, 1500, 1000])),
    }
    node = f"{O_SITE}/192.3.4.2"
    nodes = draw(st.sampled_from([(node,), (node,), (), (node, f"{O_SITE}/192.3.4.9")]))
    far: dict[str, Any] = {"mtu": draw(st.sampled_from([1500, 1500, 600]))}
    two_sites = draw(st.integers(0, 2)) == 0
    if two_sites:
        # From milestone R on a border router may have two sites, whose IPv4 addresses are the same.
        far |= {"site": upper("1.2.2.75"), "foreign": draw(st.sampled_from(Foreign))}
        far["unmapped"] = draw(st.sampled_from(Unmapped))
    system = System(
        site=O_SITE if draw(st.integers(0, 4)) else None,
        ends=((SITE, "192.3.4.2"), (FAR, "128.1.1.1")),
        nodes=nodes,
        realms={SITE: site, FAR: far},
        rules=Rules(site_tunnels=draw(st.booleans())),
    )
    for text in draw(st.lists(st.sampled_from(PREFIXES), unique=True, min_size=2)):
        prefix = Prefix.parse_sip(text)
        system.bind(SIP, prefix, draw(_crossings()))
    if draw(st.integers(0, 4)):
        system.gateway(O_SITE)
    if two_sites and draw(st.booleans()):
        system.gateway("1.2.2.75", FAR)
        system.mapping({"192.3.4.0/25": f"c{O_SITE}", "201.5.7.0/24": "c1.2.2.8"}, FAR)
    if draw(st.integers(0, 3)):
        system.mapping({"201.5.7.0/24": "c1.2.2.8", "203.0.113.0/24": "1.2.2.75", "192.3.4.0/24": f"c{O_SITE}"})
    if draw(st.booleans()):
        peer = sip(draw(st.sampled_from(["1.2.2.8/201.5.7.250", "1.2.2.75/203.0.113.9"])))
        system.bind(SITE, Prefix.parse("100.64.108.191/32"), Translate(realm=SIP, image=Prefix.of(peer)))
    if draw(st.integers(0, 5)) == 0:
        image = Translate(realm=SIP, image=upper("c9.9.9.9"))
        system.bind(SITE, Prefix.parse(draw(st.sampled_from(["10.0.0.0/8", "203.0.113.0/28", "0.0.0.0/0"]))), image)
    sockets = is_host or draw(st.integers(0, 3)) == 0
    if sockets:
        system.sockets(node)
    return Scene(system.border(), system.effects, sockets)


# --- the property ---------------------------------------------------------------------------


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(scene=scenes(), seed=st.integers(0, 1 << 32), at_once=st.booleans(), xdp=st.booleans())
def test_the_two_planes_agree_about_sip(scene: Scene, seed: int, *, at_once: bool, xdp: bool) -> None:
    border, effects = scene.border, scene.effects
    packets = Packets(seed, border, sockets=scene.sockets)
    arriving = [packets.make() for _ in range(PACKETS)]
    expected = ReferenceUnderTest().run(border, effects, arriving, NOW)
    under = before_kernel if xdp else kernel
    found, punted = _by_both(under, border, effects, arriving, at_once=at_once)
    seen["AT_XDP"] += sum(not each for each in before_kernel.passed) if xdp else 0
    for at, ((realm, packet), right, one) in enumerate(zip(arriving, expected, found, strict=True)):
        seen[right[1].name] += 1
        what = f"realm {realm}, {packet.hex()}: reference {_show(right)}, kernel {_show(one)}"
        assert _compared(right) == _compared(one), f"{what}{', punted' * (at in punted)}"
        if at in punted:
            seen["PUNTED"] += 1
            assert _is_slow(packet, right) or _begins_again(scene, right), (
                f"punted, though the contract does not say so: {what}"
            )


def _by_both(
    under: KernelUnderTest,
    border: Border,
    effects: list[Programmable],
    packets: list[tuple[int, bytes]],
    *,
    at_once: bool,
) -> tuple[list[Outcome], set[int]]:
    """What the kernel plane and the reference plane behind it make of packets, and which were punted."""

    def work() -> tuple[list[Outcome], set[int]]:
        fast = under.open(border, NOW)
        try:
            fast.reconcile(effects if at_once else ())
            fast.apply(() if at_once else effects)
            slow = ReferencePlane(border, fast.contacts, fast.paths, fast.ring)
            slow.apply(effects)
            outcomes, punted = [], set()
            before, counted = fast.counters(), Counter[Reason]()
            for at, (realm, packet) in enumerate(packets):
                hand_on(slow, fast, NOW)
                found = under.one(fast, border, realm, packet)
                counted[found[1]] += 1
                if found[0] == "punt":
                    punted.add(at)
                    found = outcome(arrive(slow, border, realm, packet, NOW))
                outcomes.append(found)
            after = fast.counters()
            assert {each: after[each] - before[each] for each in Reason if after[each] != before[each]} == counted
            return outcomes, punted
        finally:
            fast.close()

    return under.bench().do(work)


def _compared(verdict: Outcome) -> Outcome:
    kind, reason, realm, packet = verdict
    return kind, reason, realm, None if packet is None else without_identification(packet)


SLOW = {
    Reason.TTL_EXCEEDED,
    Reason.TOO_BIG,
    Reason.REPLIED,
    Reason.NOT_FOR_US,
    Reason.RELAYED,
    Reason.RELAY_LIMIT,
    Reason.FORGED_ERROR,
    Reason.TUNNEL_DOWN,
    Reason.SOURCE_ROUTE,
    Reason.NO_ROUTE,
    Reason.UNMAPPED,
    Reason.NO_IMAGE,
}


def _is_slow(packet: bytes, right: Outcome) -> bool:
    """Whether the contract lets the kernel plane leave a packet to the reference plane."""
    kind, reason, _, out = right
    if kind in {"reply", "hold"} or reason in SLOW:
        return True
    if out is not None and len(without_identification(out)) > _octets(out):
        return True  # in several pieces
    return _asks(packet)


def _begins_again(scene: Scene, right: Outcome) -> bool:
    """Whether what goes out into an IPv4 realm is, by its destination, for an end or a binding of ours there."""
    _, _, realm, out = right
    if out is None or out[0] >> 4 != 4:
        return False
    address = Address.from_octets(out[16:20])
    bound = [each.binding.selectors[0] for each in scene.effects if isinstance(each, Bind)]
    return any(each.realm == realm and address in each.local for each in bound) or any(
        end.realm == realm and end.address == address for end in scene.border.tunnel_ends
    )


def _octets(packet: bytes) -> int:
    at, more = (2, 0) if packet[0] >> 4 == 4 else (4, 24)
    length = int.from_bytes(packet[at : at + 2], "big") + more
    # An IPv6 packet of a program has 16 octets more in front of the same payload length.
    return len(packet) if length == len(packet) - 16 else length


def _asks(packet: bytes) -> bool:
    """Whether it has a fragment, an option, ICMP other than echo, DF 0 on its way into SIP, or UDP without a checksum."""
    if packet[0] >> 4 == 4:
        size = (packet[0] & 15) * 4
        place = int.from_bytes(packet[6:8], "big")
        if size > 20 or place & 0x3FFF:
            return True
        if packet[9] == 41:
            return _asks_sip(packet[size:])
        return not place & 0x4000 or (packet[9] == 1 and packet[size] not in {0, 8})
    return _asks_sip(packet)


def _asks_sip(packet: bytes) -> bool:
    if len(packet) < 24:
        return False
    for size in (24, 40):  # of SIP, and of an IPv6 socket
        content = packet[size:]
        if packet[6] in {43, 44} or (packet[6] in {1, 58} and content[:1] not in {b"\0", b"\x08", b"\x80", b"\x81"}):
            return True
        if packet[6] == 17 and content[6:8] == b"\0\0":
            return True
    return False


def _show(verdict: Outcome) -> str:
    kind, reason, realm, packet = verdict
    return f"{kind} {reason.name} {realm} {packet.hex() if packet is not None else ''}"


OFTEN = {
    Reason.FORWARDED_SIP,
    Reason.TRANSLATED_TO_SIP,
    Reason.TRANSLATED_FROM_SIP,
    Reason.FORBIDDEN_SIP_ADDRESS,
    Reason.SITE_SOURCE_OUTSIDE,
    Reason.WRONG_WAY,
    Reason.NO_IMAGE,
    Reason.NOT_SIP,
    Reason.FORGED_ERROR,
}
"What a few thousand packets meet many times; the fixtures meet everything."


def test_the_packets_reach_what_sip_has_reasons_for() -> None:
    if not seen:
        pytest.skip("the property has not run")
    missing = {each.name for each in OFTEN} - set(seen)
    assert not missing, f"never reached: {sorted(missing)}; {seen}"
    assert seen["AT_XDP"], "XDP leaves everything to TC"
