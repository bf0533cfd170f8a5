# SPDX-License-Identifier: BSD-3-Clause
"""A batch that is written in part, for want of room or of time: nobody has more than he was given."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from isthmus.address import Address, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Owner, Registration
from isthmus.border.crossing import Tunnel
from isthmus.border.effect import Bind, Deregister, Ending, Extend, Register, Unbind
from isthmus.border.plain import unnamed
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, Realm, TunnelEnd
from isthmus.border.selector import Kind, Selector
from isthmus.border.verdict import Reason
from isthmus.errors import PlaneError
from isthmus.plane.kernel import KernelPlane, Sizes
from isthmus.plane.kernel.blocks import Blocks
from isthmus.plane.kernel.briefs import Briefs
from isthmus.plane.kernel.direct import DIRECT
from isthmus.plane.kernel.loader import Map
from plane.fixture import NOW, build
from plane.kernel_under_test import KernelUnderTest, whole_second

kernel = KernelUnderTest()
pytestmark = pytest.mark.root

PRIVATE, PUBLIC = 1, 2
GATEWAY, HOST, OTHER = Address.parse("10.0.0.1"), Address.parse("10.0.0.4"), Address.parse("10.0.0.9")
SHARED = Prefix.of(Address.parse("149.112.240.55"))
BORDER = Border(
    realms=(Realm(number=PRIVATE, name="private"), Realm(number=PUBLIC, name="public")),
    tunnel_ends=(TunnelEnd(realm=PRIVATE, address=GATEWAY, leads_to=PUBLIC),),
    claims=(Selector(realm=PUBLIC, local=SHARED, kind=Kind.PORT, values=Ranges.of((1024, 65535))),),
)
OUTWARD = build(
    {
        "ipv4": "149.112.240.55 -> 192.156.136.22",
        "tcp": "1030 -> 80",
        "outer": {"ipv4": "10.0.0.4 -> 10.0.0.1"},
    }
)


@pytest.fixture(scope="module", autouse=True)
def _kernel_is_available() -> None:
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)


def bind(owner: Owner, port: int, *, bind_id: int = 1) -> Bind:
    """A plain lease of one slice."""
    selector = Selector(realm=PUBLIC, local=SHARED, kind=Kind.PORT, values=Ranges.of((port, port + 63)))
    tunnel = Tunnel(realm=owner.realm, local=GATEWAY, remote=owner.address, mtu=1480)
    binding = Binding(key=BindingKey(owner, bind_id), selectors=(selector,), crossing=tunnel)
    return Bind(binding=binding, lease=unnamed(NOW + 900))


LEASE = bind(Owner(PRIVATE, HOST), 1024)


def with_plane(work: Callable[[KernelPlane], None], sizes: Sizes) -> None:
    """A plane for the host with its plain lease, and for nobody else."""

    def inside() -> None:
        kernel.bench().links.forget()
        plane = KernelPlane(BORDER, pin=None, boot_offset=NOW - whole_second(), links=kernel.bench().links, sizes=sizes)
        try:
            for realm in (PRIVATE, PUBLIC):
                plane.attach(realm, f"realm {realm}", punt=f"realm {realm}")
            plane.apply([register(HOST), LEASE])
            assert decision(plane) is Reason.FORWARDED_OUTWARD
            assert any(word & DIRECT for word in plane._words)
            work(plane)
        finally:
            plane.close()

    kernel.bench().do(inside)


def decision(plane: KernelPlane) -> Reason:
    reason = kernel.one(plane, BORDER, PRIVATE, OUTWARD)[1]
    assert isinstance(reason, Reason)
    return reason


def register(address: Address) -> Register:
    return Register(registration=Registration(owner=Owner(PRIVATE, address), client_id=9, expires_at=FOREVER))


ENOUGH = Sizes(slices=1 << 14, endpoints=8, owners=1)
"But for owners."


def test_what_ends_in_a_batch_that_does_not_fit_has_ended() -> None:
    key = LEASE.binding.key

    def work(plane: KernelPlane) -> None:
        steps = {
            Extend(key=key, expires_at=NOW - 1): Reason.LEASE_EXPIRED,
            Extend(key=key, expires_at=NOW + 900): Reason.FORWARDED_OUTWARD,
            Deregister(owner=key.owner, ending=Ending.REVOKED): Reason.UNREGISTERED,
            register(HOST): Reason.FORWARDED_OUTWARD,
            Unbind(key=key, ending=Ending.REVOKED): Reason.SOURCE_ADDRESS_NOT_LEASED,
        }
        for effect, reason in steps.items():
            with pytest.raises(PlaneError, match="owners"):
                plane.apply([effect, register(OTHER)])
            assert decision(plane) is reason

    with_plane(work, ENOUGH)


def test_without_an_endpoint_for_it_nothing_has_changed() -> None:
    """Who is dismissed, and whose way is narrow, needs one of his own."""
    owner, way = LEASE.binding.key.owner, LEASE.binding.tunnel.way

    def work(plane: KernelPlane) -> None:
        with pytest.raises(PlaneError, match="endpoints"):
            plane.apply([Deregister(owner=owner, ending=Ending.REVOKED)])
        assert plane.table().is_registered(owner)
        with pytest.raises(PlaneError, match="endpoints"):
            plane.limit(way, 600)
        assert decision(plane) is Reason.FORWARDED_OUTWARD
        plane.apply([Unbind(key=LEASE.binding.key, ending=Ending.FREED), LEASE])
        assert any(word & DIRECT for word in plane._words)
        assert decision(plane) is Reason.FORWARDED_OUTWARD
        plane.apply([Unbind(key=LEASE.binding.key, ending=Ending.FREED), Deregister(owner=owner, ending=Ending.FREED)])
        assert decision(plane) is Reason.UNREGISTERED
        assert not list(plane._maps["owners"].items())

    with_plane(work, Sizes(slices=1 << 14, endpoints=1))


class Killed(BaseException):
    """In the place of a signal."""


OTHERS = Owner(PRIVATE, Address.parse("11.0.0.4"))
"With the same last 24 bits."


def sent_by(address: Address) -> bytes:
    outer = {"ipv4": f"{address} -> {GATEWAY}"}
    return build({"ipv4": "149.112.240.55 -> 192.156.136.22", "tcp": "1030 -> 80", "outer": outer})


@pytest.mark.parametrize("writes", range(14))
def test_who_is_killed_between_two_writes_leaves_a_slice_to_one_host(
    writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, inward = LEASE.binding.key.owner, build({"ipv4": "192.156.136.22 -> 149.112.240.55", "tcp": "80 -> 1030"})
    moved = bind(OTHERS, 1024)
    batch = [
        Unbind(key=LEASE.binding.key, ending=Ending.REVOKED),
        Deregister(owner=owner, ending=Ending.REVOKED),
        register(OTHERS.address),
        moved,
    ]
    left = [writes]

    def counted(what: Callable[..., object]) -> Callable[..., object]:
        def work(*arguments: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return what(*arguments)

        return work

    def decided(plane: KernelPlane) -> tuple[bool, bool]:
        sent = (kernel.one(plane, BORDER, PRIVATE, sent_by(each))[0] for each in (HOST, OTHERS.address))
        first, second = (each == "forward" for each in sent)
        found, _, _, octets = kernel.one(plane, BORDER, PUBLIC, inward)
        if found == "forward":
            assert octets is not None
            assert octets[16:20] == (owner if first else OTHERS).address.octets
        return first, second

    def inside() -> None:
        plane = kernel.open(BORDER, NOW)
        plane.reconcile([register(HOST), LEASE])
        with monkeypatch.context() as patch:
            told = ("forget", "tell")
            for kind, names in ((Map, ("put", "put_octets", "remove", "remove_all")), (Briefs, told), (Blocks, told)):
                for name in names:
                    patch.setattr(kind, name, counted(getattr(kind, name)))
            with contextlib.suppress(Killed):
                plane.apply(batch)
        plane.close()
        plane = kernel.open(BORDER, NOW)
        try:
            assert plane.adopted
            assert decided(plane) != (True, True)
            plane.reconcile([register(OTHERS.address), moved])
            assert decided(plane) == (False, True)
        finally:
            plane.close()

    kernel.bench().do(inside)
