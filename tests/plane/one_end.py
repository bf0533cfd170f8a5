# SPDX-License-Identifier: BSD-3-Clause
"""The daemon of one end of ``test_kernel_real``: run as a script it makes or takes over the plane, and goes.

A file of its own, since it starts a hundred times: it needs no pytest.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Register
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, End, Realm, TunnelEnd
from isthmus.border.selector import Kind, Selector
from isthmus.plane import Programmable
from isthmus.plane.kernel import KernelPlane

PRIVATE, PUBLIC = 1, 2
GATEWAY, HOST = Address.parse("10.0.0.1"), Address.parse("10.0.0.4")
GATEWAY6, HOST6 = Address.parse("fd00::1"), Address.parse("fd00::4")
MTU = 1456
"Fits into every kind of tunnel."
SHARED = Address.parse("192.0.2.55")
WHOLE = Address.parse("192.0.2.56")
PORTS = Ranges.of((10000, 10063))


def offset() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Way:
    """A tunnel type, over a family."""

    kind: TunnelKind
    family: Family

    @property
    def name(self) -> str:
        return f"{self.kind.name}-{self.family.name}"

    @classmethod
    def named(cls, name: str) -> Way:
        kind, family = name.split("-")
        return cls(TunnelKind[kind], Family[family])

    def ends(self, end: End) -> tuple[Address, Address]:
        """Ours and theirs."""
        both = (GATEWAY, HOST) if self.family is Family.IPV4 else (GATEWAY6, HOST6)
        return both if end is End.GATEWAY else both[::-1]


PLAIN = Way(TunnelKind.IPIP, Family.IPV4)


def border(end: End, way: Way) -> Border:
    ours, _ = way.ends(end)
    claims = (Selector(realm=PUBLIC, local=Prefix.of(SHARED), kind=Kind.PORT, values=Ranges.of((10000, 20000))),)
    return Border(
        realms=(Realm(number=PRIVATE, name="private", family=way.family), Realm(number=PUBLIC, name="public", end=end)),
        tunnel_ends=(TunnelEnd(realm=PRIVATE, address=ours, leads_to=PUBLIC),),
        claims=(*claims, Selector(realm=PUBLIC, local=Prefix.of(WHOLE))) if end is End.GATEWAY else (),
    )


def effects(end: End, way: Way, expires_at: float, *, devices: bool = True) -> list[Programmable]:
    """App a has ports of a shared address, app b an address whole."""
    ours, theirs = way.ends(end)
    owner = Owner(PRIVATE, theirs)
    lease = Lease(client_id=1, method=Method.RSAP_IP, granted_at=time.time(), expires_at=expires_at)
    given: list[Programmable] = [Register(registration=Registration(owner=owner, client_id=1, expires_at=expires_at))]
    selectors = (
        Selector(realm=PUBLIC, local=Prefix.of(SHARED), kind=Kind.PORT, values=PORTS),
        Selector(realm=PUBLIC, local=Prefix.of(WHOLE)),
    )
    for number, (selector, device) in enumerate(zip(selectors, ("ap0p", "bp0p"), strict=True), 1):
        binding = Binding(
            key=BindingKey(owner, number),
            selectors=(selector,),
            crossing=Tunnel(realm=PRIVATE, local=ours, remote=theirs, kind=way.kind, mtu=MTU),
            device=device if end is End.HOST and devices else None,
        )
        given.append(Bind(binding=binding, lease=lease))
    return given


def serve(end: End, pin: Path, way: Way, *, seconds: float, what: str) -> dict[str, object]:
    plane = KernelPlane(border(end, way), pin=pin, boot_offset=offset())
    given = effects(end, way, time.time() + seconds, devices=what != "local")
    if what == "destroy":
        plane.destroy()
        return {}
    if what != "look":
        plane.reconcile(given[:1] if what == "without" else given)
        port = "pt1" if what == "port" else None
        refused = [plane.attach(PRIVATE, "hn0" if end is End.HOST else "gn0", punt=port, xdp=what == "xdp")]
        if end is End.GATEWAY:
            refused.append(plane.attach(PUBLIC, "gp0", punt="pt0", xdp=what == "xdp"))
        assert not any(refused), refused
    told = {
        "adopted": plane.adopted,
        "replaced": plane.replaced,
        "counters": {reason.name: count for reason, count in plane.counters().items() if count},
        "events": [each.reason.name for each in plane.events()],
    }
    plane.close()
    return told


def main() -> None:
    end, pin, way, seconds, what = sys.argv[1:]
    print(json.dumps(serve(End[end], Path(pin), Way.named(way), seconds=float(seconds), what=what)))


if __name__ == "__main__":
    main()
