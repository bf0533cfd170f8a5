# SPDX-License-Identifier: BSD-3-Clause
"""The five scenarios of seed IPAE 3.4, the way back of 3.4.5, and the example of section 7: every hop, octet for octet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isthmus.address import Address
from isthmus.border.crossing import neutral
from isthmus.border.verdict import Forward, Reason
from isthmus.plane.reference import ReferencePlane
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.ipv6 import Ipv6Header, Ipv6View
from plane.sip_nodes import (
    D_HOST,
    D_SITE,
    DEVICE,
    FAR,
    LINK,
    NOW,
    O_HOST,
    O_SITE,
    PC,
    PF,
    SIP,
    SITE,
    SOCKETS,
    System,
    sip,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ipae.json").read_text())
SCENARIOS = VECTORS["scenarios_tcp"] + VECTORS["scenarios_udp"]
Taken = tuple[System, int, int | None]
"""An IPAE system, the realm that the packet comes in, and the link of native SIP."""


def _entry(first: int, image: str) -> System:
    """The border of O's site, where IPv4 becomes SIP."""
    return (
        System(site=O_SITE, ends=((SITE, "192.3.4.2"), (FAR, "128.1.1.1")), first=first)
        .gateway(O_SITE)
        .mapping({"201.5.7.0/24": image})
    )


def _transit(first: int = 0) -> System:
    return System(ends=((FAR, "128.2.1.2"), (SITE, "10.0.0.3")), first=first)


NODES: dict[tuple[str, int], Callable[[], Taken]] = {
    ("3.4.1", 2): lambda: (
        _entry(0x1001, f"c{D_SITE}").encapsulate([f"c{D_SITE}"], FAR, "128.1.1.1", "128.2.1.2"),
        SITE,
        None,
    ),
    ("3.4.1", 4): lambda: (
        System(site=D_SITE, ends=((FAR, "128.2.1.2"),), first=0x3001)
        .gateway(D_SITE)
        .encapsulate([f"c{O_SITE}"], FAR, "128.2.1.2", "128.1.1.1"),
        FAR,
        None,
    ),
    ("3.4.2", 4): lambda: (_transit(0x3001).encapsulate([D_SITE], SITE, "10.0.0.3", None), FAR, None),
    ("3.4.3", 3): lambda: (
        _entry(0x2001, D_SITE).encapsulate([D_SITE], FAR, "128.2.1.1", "10.0.0.3"),
        SITE,
        None,
    ),
    ("3.4.3", 5): lambda: (
        System(ends=((FAR, "10.0.0.3"), (SITE, "201.5.7.9")), first=0x4001)
        .encapsulate([D_SITE], SITE, "201.5.7.9", None)
        .encapsulate([f"c{O_SITE}"], FAR, "10.0.0.3", "128.2.1.1"),
        FAR,
        None,
    ),
    ("3.4.4", 4): lambda: (_transit().native([D_SITE], LINK, None), FAR, None),
    ("3.4.4", 5): lambda: (System().native([D_SITE], LINK, None), SIP, LINK),
    ("3.4.5", 3): lambda: (_entry(0, D_SITE).native([D_SITE], LINK, None), SITE, None),
    ("3.4.5", 4): lambda: (System().native([D_SITE], LINK, None), SIP, LINK),
    ("3.4.5R", 2): lambda: (System().native([f"c{O_SITE}"], LINK, None), SIP, LINK),
    ("3.4.5R", 3): lambda: (
        System(site=O_SITE, first=0x2001, realms={LINK: {"site": None}}).gateway(O_SITE),
        SIP,
        LINK,
    ),
    ("section", 3): lambda: (
        System(ends=((FAR, "128.1.1.2"), (SITE, "10.0.0.3")), first=0x5001).encapsulate(
            [D_SITE], SITE, "10.0.0.3", None
        ),
        FAR,
        None,
    ),
}


def _ip_only(packet: bytes) -> bytes:
    """What a router of IPv4 only does to a packet."""
    octets = bytearray(packet)
    Ipv4View.parse(octets).ttl -= 1
    return bytes(octets)


def _forwarded(plane: ReferencePlane, realm: int, packet: bytes, link: int | None) -> Forward:
    verdict = plane.process(realm, packet, now=NOW, link=link)
    assert isinstance(verdict, Forward), verdict
    return verdict


@pytest.mark.rfc("ipae", "3.4")
@pytest.mark.rfc("ipae", "5.1")
@pytest.mark.rfc("ipae", "5.2")
@pytest.mark.rfc("ipae", "5.3")
@pytest.mark.rfc("ipae", "6.3")
@pytest.mark.rfc("8507", "3")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: f"{each['scenario']} {each['transport']}")
def test_every_hop_of_a_scenario(scenario: dict[str, Any]) -> None:
    name, hops = scenario["scenario"].split()[0], scenario["hops"]
    before = bytes.fromhex(hops[0]["hex"])
    for hop in hops[1:]:
        system = NODES.get((name, hop["hop"]))
        expected = bytes.fromhex(hop["hex"])
        if system is None:
            assert "(IP" in hop["link"].split(" -> ")[0], hop["link"]
            found = _ip_only(before)
        else:
            made, realm, link = system()
            (found,) = _forwarded(made.plane(), realm, before, link).packets
        assert found.hex() == expected.hex(), hop["link"]
        before = expected


def _host(address: str, far: str, first: int = 0) -> System:
    """An IPAE host whose programs use IPv6 sockets."""
    return System(ends=((SITE, far),), nodes=(address,), first=first, site=address.split("/", maxsplit=1)[0]).sockets(
        address
    )


@pytest.mark.rfc("ipae", "3.4")
@pytest.mark.rfc("ipae", "6.1")
@pytest.mark.parametrize(
    "scenario",
    [each for each in SCENARIOS if not each["src_sip"].startswith("c") and each["scenario"].split()[0] != "3.4.5R"],
    ids=lambda each: f"{each['scenario']} {each['transport']}",
)
def test_an_unmodified_program_sends_the_first_hop(scenario: dict[str, Any]) -> None:
    """What its kernel writes for IPv6 is right for SIP without a change (spec 8.2)."""
    remote = {"3.4.2": "128.2.1.2", "3.4.4": "128.2.1.2", "section": "128.1.1.2"}[scenario["scenario"].split()[0]]
    system = _host(scenario["src_sip"], O_HOST, 1).encapsulate([D_SITE], SITE, O_HOST, remote)
    segment = bytes.fromhex(scenario["transport_segment"])
    src, dst = sip(scenario["src_sip"]), sip(scenario["dst_sip"])
    packet = _ipv6(scenario, segment, src, dst)
    forward = _forwarded(system.plane(), SOCKETS, packet, None)
    assert forward.reason is Reason.TRANSLATED_TO_SIP
    assert [each.hex() for each in forward.packets] == [scenario["hops"][0]["hex"]]


def _ipv6(scenario: dict[str, Any], segment: bytes, src: Address, dst: Address) -> bytes:
    compatible = src.c_bit or dst.c_bit
    ends = [
        neutral(PC, each) if compatible else Address(PF.family, PF.address.number | each.number) for each in (src, dst)
    ]
    number = 6 if scenario["transport"] == "TCP" else 17
    header = Ipv6Header(payload_length=len(segment), next_header=number, hop_limit=64, src=ends[0], dst=ends[1])
    return header.emit() + segment


@pytest.mark.rfc("ipae", "3.4")
@pytest.mark.parametrize(
    "scenario",
    [each for each in SCENARIOS if not each["dst_sip"].startswith("c")],
    ids=lambda each: f"{each['scenario']} {each['transport']}",
)
def test_an_unmodified_program_receives_the_last_hop(scenario: dict[str, Any]) -> None:
    last = bytes.fromhex(scenario["hops"][-1]["hex"])
    system = _host(scenario["dst_sip"], D_HOST)
    outer = scenario["hops"][-1]["stack"][0]
    if outer["header"] == "IPv4":
        realm, link = SITE, None
        system.encapsulate([O_SITE, f"c{O_SITE}"], SITE, D_HOST, outer["src"])
    else:
        realm, link = SIP, SITE
    forward = _forwarded(system.plane(), realm, last, link)
    assert (forward.reason, forward.device) == (Reason.TRANSLATED_FROM_SIP, DEVICE)
    view = Ipv6View.parse(forward.packets[0])
    assert view.hop_limit == scenario["hop_limit_or_ttl_delivered"]
    segment = bytes.fromhex(scenario["transport_segment"])
    src, dst = sip(scenario["src_sip"]), sip(scenario["dst_sip"])
    assert bytes(view.header)[8:] + bytes(view.payload) == _ipv6(scenario, segment, src, dst)[8:]
