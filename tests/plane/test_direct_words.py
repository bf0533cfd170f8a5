# SPDX-License-Identifier: BSD-3-Clause
"""Words that say themselves whose a slice is: nobody is taken for another who has as much of his address in common."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Register
from isthmus.border.plain import unnamed
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, Realm, TunnelEnd
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.border.verdict import Reason
from isthmus.plane.kernel import KernelPlane
from isthmus.plane.kernel.direct import DIRECT
from plane.fixture import NOW, build
from plane.kernel_under_test import KernelUnderTest
from plane.xdp_under_test import XdpUnderTest

EAST, PUBLIC, WEST = 1, 2, 3
SHARED = Address.parse("198.51.100.7")
ENDS = {Family.IPV4: Address.parse("192.0.2.1"), Family.IPV6: Address.parse("2001:db8::1")}
PEER = "203.0.113.9"
BORDER = Border(
    realms=(
        Realm(number=EAST, name="east"),
        Realm(number=PUBLIC, name="public"),
        Realm(number=WEST, name="west"),
    ),
    tunnel_ends=tuple(
        TunnelEnd(realm=realm, address=end, leads_to=PUBLIC) for realm in (EAST, WEST) for end in ENDS.values()
    ),
    claims=(Selector(realm=PUBLIC, local=Prefix.of(SHARED), kind=Kind.PORT, values=Ranges.of((1024, 65535))),),
)
HOSTS = [
    (Owner(EAST, Address.parse("10.0.0.4")), TunnelKind.IPIP),
    (Owner(EAST, Address.parse("11.0.0.4")), TunnelKind.IPIP),
    (Owner(EAST, Address.parse("10.0.1.4")), TunnelKind.IPIP),
    (Owner(WEST, Address.parse("10.0.0.4")), TunnelKind.IPIP),
    (Owner(EAST, Address.parse("12.0.0.4")), TunnelKind.GRE),
    (Owner(WEST, Address.parse("10.0.0.0")), TunnelKind.IPIP),
    (Owner(EAST, Address.parse("2001:db8::a00:4")), TunnelKind.IPIP),
    (Owner(EAST, Address.parse("2001:db8::b00:4")), TunnelKind.IPIP),
    (Owner(EAST, Address.parse("2001:db8::b01:4")), TunnelKind.GRE),
    (Owner(WEST, Address.parse("2001:db8::a00:4")), TunnelKind.IPIP),
    (Owner(WEST, Address.parse("2001:db8:0:1::a00:4")), TunnelKind.IPIP),
    (Owner(WEST, Address.parse("2001:db8::c00:0")), TunnelKind.IPIP),
]
"""The same last 24 bits, the same bits before, the same address in two realms, another type, nothing in the last bits."""
kernels = KernelUnderTest(), XdpUnderTest()
pytestmark = pytest.mark.root


def port(nth: int) -> int:
    return 1024 + 64 * nth


def effects() -> list[Register | Bind]:
    given: list[Register | Bind] = []
    for nth, (owner, kind) in enumerate(HOSTS):
        given.append(Register(registration=Registration(owner=owner, client_id=nth, expires_at=FOREVER)))
        selector = Selector(
            realm=PUBLIC,
            local=Prefix.of(SHARED),
            kind=Kind.PORT,
            values=Ranges.of((port(nth), port(nth) + 63)),
            remote=Remote(admit=Admit.CONTACTED),
        )
        end = ENDS[owner.address.family]
        tunnel = Tunnel(realm=owner.realm, local=end, remote=owner.address, kind=kind, mtu=1400)
        binding = Binding(key=BindingKey(owner, 1), selectors=(selector,), crossing=tunnel)
        given.append(Bind(binding=binding, lease=unnamed(NOW + 900)))
    return given


def outward(owner: Owner, kind: TunnelKind, source: int, peer: str = PEER) -> bytes:
    family = owner.address.family
    outer: dict[str, object] = {family.name.lower(): f"{owner.address} -> {ENDS[family]}"}
    if kind is TunnelKind.GRE:
        outer["tunnel"] = "gre"
    return build({"ipv4": f"{SHARED} -> {peer}", "tcp": f"{source} -> 80", "outer": outer})


def in_plane(kernel: KernelUnderTest, work: Callable[[KernelPlane], None]) -> None:
    if (reason := kernel.available()) is not None:
        pytest.skip(reason)

    def inside() -> None:
        plane = kernel.open(BORDER, NOW)
        try:
            plane.reconcile(effects())
            assert sum(1 for word in plane._words if word & DIRECT) == len(HOSTS)
            work(plane)
        finally:
            plane.close()

    kernel.bench().do(inside)


@pytest.mark.parametrize("kernel", kernels, ids=lambda each: each.name)
def test_each_sends_from_its_own_slice_only(kernel: KernelUnderTest) -> None:
    def work(plane: KernelPlane) -> None:
        for who, (owner, kind) in enumerate(HOSTS):
            for whose in range(len(HOSTS)):
                reason = kernel.one(plane, BORDER, owner.realm, outward(owner, kind, port(whose)))[1]
                right = Reason.FORWARDED_OUTWARD if who == whose else Reason.SOURCE_PORT_NOT_LEASED
                assert reason is right, (owner, whose)
            other = TunnelKind.IPIP if kind is TunnelKind.GRE else TunnelKind.GRE
            wrong = kernel.one(plane, BORDER, owner.realm, outward(owner, other, port(who)))[1]
            assert wrong is Reason.WRONG_TUNNEL_TYPE
        for realm, strangers in (
            (WEST, ("11.0.0.4", "10.0.1.4", "2001:db8::b00:4", "2001:db8::a00:0")),
            (EAST, ("13.0.0.4", "10.0.0.0", "2001:db8::c00:4", "2001:db8::a00:5", "2001:db9::a00:4", "2001:db8::")),
        ):
            for stranger in strangers:
                for nth in range(len(HOSTS)):
                    packet = outward(Owner(realm, Address.parse(stranger)), TunnelKind.IPIP, port(nth))
                    assert kernel.one(plane, BORDER, realm, packet)[1] is Reason.UNREGISTERED, (stranger, nth)

    in_plane(kernel, work)


@pytest.mark.parametrize("kernel", kernels, ids=lambda each: each.name)
def test_each_hears_whom_it_has_written_to_and_nobody_else_hears_that(kernel: KernelUnderTest) -> None:
    def work(plane: KernelPlane) -> None:
        for nth, (owner, kind) in enumerate(HOSTS):
            inward = build({"ipv4": f"{PEER} -> {SHARED}", "tcp": f"80 -> {port(nth)}"})
            assert kernel.one(plane, BORDER, PUBLIC, inward)[1] is Reason.NOT_CONTACTED, owner
            kernel.one(plane, BORDER, owner.realm, outward(owner, kind, port(nth)))
            found, reason, into, octets = kernel.one(plane, BORDER, PUBLIC, inward)
            assert (found, reason, into) == ("forward", Reason.FORWARDED_INWARD, owner.realm)
            assert octets is not None
            over_ipv6 = owner.address.family is Family.IPV6
            assert (octets[24:40] if over_ipv6 else octets[16:20]) == owner.address.octets
            assert octets[6 if over_ipv6 else 9] == (47 if kind is TunnelKind.GRE else 4)

    in_plane(kernel, work)
