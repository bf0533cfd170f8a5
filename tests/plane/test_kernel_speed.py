# SPDX-License-Identifier: BSD-3-Clause
"""What a packet and a lease cost in the kernel plane; figures, no assertions about them.

``bpf/bench/pingpong.bpf.c`` sends a packet of 46 octets inward and outward again in one run; see there. Run with
``pytest -s -m slow tests/plane/test_kernel_speed.py``; with ``ISTHMUS_FIGURES=1`` also with 100,000 leases.
"""

from __future__ import annotations

import os
import struct
import subprocess
import time
from pathlib import Path

import pytest

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel
from isthmus.border.effect import Bind, Ending, Register, Unbind
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, Realm, TunnelEnd
from isthmus.border.selector import Kind, Selector
from isthmus.plane import Programmable
from isthmus.plane.kernel import KernelPlane, pinned
from plane.kernel_under_test import ETHERNET, KernelUnderTest, context

BPF = Path(__file__).parents[2] / "bpf"
PRIVATE, PUBLIC = 1, 2
FIRST_ADDRESS, FIRST_HOST, FIRST_PORT = 0xC0000200, 0x0A000002, 1024
PORTS, PER_ADDRESS = 64, 1000
RUNS = 1_000_000
LEASES, SEED, DONE, INWARD, OUTWARD, CLOCK, FAILED = range(7)

kernel = KernelUnderTest()
pytestmark = [pytest.mark.root, pytest.mark.slow]


def address(number: int) -> Address:
    return Address(Family.IPV4, number)


def lease(number: int) -> list[Programmable]:
    owner = Owner(PRIVATE, address(FIRST_HOST + number))
    first = FIRST_PORT + number % PER_ADDRESS * PORTS
    local = Prefix.of(address(FIRST_ADDRESS + number // PER_ADDRESS))
    selector = Selector(realm=PUBLIC, local=local, kind=Kind.PORT, values=Ranges.of((first, first + PORTS - 1)))
    tunnel = Tunnel(realm=PRIVATE, local=address(0x0A000001), remote=owner.address)
    granted = Lease(client_id=1, method=Method.RSAP_IP, granted_at=time.time(), expires_at=FOREVER)
    registration = Registration(owner=owner, client_id=1, expires_at=FOREVER)
    binding = Binding(key=BindingKey(owner, 1), selectors=(selector,), crossing=tunnel)
    return [Register(registration=registration), Bind(binding=binding, lease=granted)]


def border(leases: int) -> Border:
    addresses = (address(FIRST_ADDRESS + number) for number in range((leases - 1) // PER_ADDRESS + 1))
    return Border(
        realms=(Realm(number=PRIVATE, name="private"), Realm(number=PUBLIC, name="public")),
        tunnel_ends=(TunnelEnd(realm=PRIVATE, address=address(0x0A000001), leads_to=PUBLIC),),
        claims=tuple(
            Selector(realm=PUBLIC, local=Prefix.of(each), kind=Kind.PORT, values=Ranges.of((1024, 65535)))
            for each in addresses
        ),
    )


def routes() -> None:
    """Everything has a route and a neighbour, as on a gateway that has been running for a while."""
    for at, (near, via) in enumerate((("10.0.0.1/8", "10.255.255.254"), ("198.51.100.1/24", "198.51.100.9"))):
        for command in (
            f"addr replace {near} dev ist{at}",
            f"neigh replace {via} lladdr 02:00:00:00:00:02 dev ist{at}",
            f"route replace {'10.0.0.0/8' if at == 0 else 'default'} via {via} dev ist{at} onlink",
        ):
            subprocess.run(["ip", *command.split()], check=True, timeout=20)
    subprocess.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True, timeout=20)


def no_routes() -> None:
    """The bench's other tests know of no neighbours."""
    for at in (0, 1):
        for what in ("route", "neigh", "addr"):
            subprocess.run(["ip", what, "flush", "dev", f"ist{at}"], check=True, timeout=20, stderr=subprocess.DEVNULL)


def cells(plane: KernelPlane) -> list[int]:
    bench = plane._maps["bench"]
    return [struct.unpack("=Q", bench.get(struct.pack("=I", at)) or bytes(8))[0] for at in range(7)]


def measure(plane: KernelPlane, leases: int) -> tuple[float, float]:
    bench = plane._maps["bench"]
    for at, value in ((LEASES, leases), (SEED, 88172645463325252), *((at, 0) for at in range(DONE, FAILED + 1))):
        bench.put(struct.pack("=I", at), struct.pack("=Q", value))
    plane._loaded.program.test_run(ETHERNET + bytes.fromhex("4500002e") + bytes(42), context(1), repeat=RUNS)
    found = cells(plane)
    assert (found[DONE], found[FAILED]) == (RUNS, 0)
    clock = found[CLOCK] / RUNS
    return found[INWARD] / RUNS - clock, found[OUTWARD] / RUNS - clock


@pytest.mark.parametrize("leases", [1, 1000, *([100_000] if os.environ.get("ISTHMUS_FIGURES") else [])])
def test_figures(leases: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)
    subprocess.run(["make", "-s", "-C", str(BPF), "bench/pingpong.bpf.o"], check=True, timeout=60)
    monkeypatch.setattr(pinned, "_object", (BPF / "bench/pingpong.bpf.o").read_bytes)
    effects = [effect for number in range(leases) for effect in lease(number)]

    def inside() -> None:
        kernel.bench().links.forget()
        routes()
        started = time.perf_counter()
        plane = KernelPlane(border(leases), pin=None, boot_offset=0.0, links=kernel.bench().links)
        try:
            made = time.perf_counter() - started
            for realm in (PRIVATE, PUBLIC):
                plane.attach(realm, f"realm {realm}")
            started = time.perf_counter()
            plane.apply(effects)
            applied = time.perf_counter() - started
            best = [min(side) for side in zip(*(measure(plane, leases) for _ in range(3)), strict=True)]
            started = time.perf_counter()
            plane.reconcile(effects)
            reconciled = time.perf_counter() - started
            plane.apply([Unbind(key=BindingKey(Owner(PRIVATE, address(FIRST_HOST)), 1), ending=Ending.FREED)])
        finally:
            plane.close()
            no_routes()
        print(
            f"\n{leases} leases: inward {best[0]:.0f} ns, outward {best[1]:.0f} ns a packet; loaded in {made:.2f} s, "
            f"applied in {applied:.2f} s ({leases / applied:.0f} leases/s), reconciled in {reconciled:.2f} s"
        )

    kernel.bench().do(inside)
