# SPDX-License-Identifier: BSD-3-Clause
"""Devices: where a leased address lives (docs/data-plane.md, "Devices").

A device is a veth pair ``NAME``/``NAMEp`` with one MAC address for both ends and no ARP. The
plane has ``NAMEp``. ``NAME`` carries the leased address as a /32, the tunnel's MTU, and a
route; it stays in the host's own namespace, or is moved into one made for a program.

ARP must never answer for a leased address (RFC 3102 §3.1): the devices do none, and the
near interface is told to answer for its own addresses only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

from isthmus.address import Address, Prefix
from isthmus.daemon import shared_address
from isthmus.daemon.offloop import off_loop
from isthmus.errors import Unsupported
from isthmus.plane.link import pair

CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000
_MAIN = 254
"""The routing table that a program's namespace has its default route in."""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A veth pair that exists."""

    name: str
    "The end with the address."

    @property
    def plane_end(self) -> str:
        """The end that the plane reads and writes."""
        return f"{self.name}p"


@off_loop
def create(name: str, *, mtu: int) -> Device:
    """Make the pair in the current network namespace; what has its name already is replaced.

    Raises:
        PlaneError: the kernel refuses; says what is missing.
    """
    pair.create(name, mtu=mtu)
    for end in (name, f"{name}p"):
        prepare(end)
    return Device(name=name)


def prepare(interface: str) -> None:
    """Keep IPv6 of the machine's own off a device, and let answers to any peer in."""
    write_sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "1")
    write_sysctl(f"net/ipv4/conf/{interface}/rp_filter", "0")


@off_loop
def remove(device: Device) -> None:
    """Remove the pair; one that is gone is no error."""
    pair.remove(device.plane_end)


@off_loop
def configure(
    device: Device,
    address: Address,
    routes: Iterable[Prefix],
    *,
    mtu: int,
    shared: bool = True,
    namespace: str | None = None,
) -> None:
    """Give the device its leased address and the routes that lead through it.

    Args:
        device: The pair.
        address: The leased address.
        routes: Destinations reached from it.
        mtu: Of the tunnel, in octets: the routes announce it, so that TCP's MSS fits.
        shared: Whether others have ports of the address, too, and are to be reached there.
        namespace: Where ``NAME`` is now; None: here.
    """
    with inside(namespace) if namespace else contextlib.nullcontext(), IPRoute() as links:
        index = links.link_lookup(ifname=device.name)[0]
        links.link("set", index=index, state="up", arp=False, mtu=mtu)
        links.addr("replace", index=index, address=str(address), prefixlen=32)
        for route in routes:
            links.route(
                "replace",
                dst=str(route),
                oif=index,
                prefsrc=str(address),
                scope=253,
                metrics={"mtu": mtu, "advmss": mtu - 40},
            )
        if shared:
            shared_address.lead_out(links, {address: _MAIN})


@off_loop
def make_namespace(name: str, device: Device, *, inner: str) -> None:
    """Make a network namespace, with loopback, and move ``NAME`` into it, where it is called ``inner``.

    Raises:
        Unsupported: network namespaces cannot be made.
    """
    done = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise Unsupported("a network namespace", remedy=f"run as root ({done.stderr.strip()})")
    with inside(name):
        write_sysctl("net/ipv6/conf/default/disable_ipv6", "1")
    with IPRoute() as links:
        index = links.link_lookup(ifname=device.name)[0]
        links.link("set", index=index, net_ns_fd=name)
    with inside(name), IPRoute() as links:
        links.link("set", index=links.link_lookup(ifname="lo")[0], state="up")
        index = links.link_lookup(ifname=device.name)[0]
        links.link("set", index=index, state="down")
        links.link("set", index=index, ifname=inner)


@off_loop
def remove_namespace(name: str) -> None:
    """Remove a namespace and what is in it; one that is gone is no error."""
    subprocess.run(["ip", "netns", "delete", name], check=False, timeout=30, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Run the body in another network namespace; for this thread only."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(namespace)
        yield
    finally:
        _setns(here)
        os.close(here)


def enter(namespace: str) -> None:
    """Move this thread into a network namespace."""
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _setns(there)
    finally:
        os.close(there)


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def use_resolver(path: Path) -> None:
    """In a child about to become a program: let /etc/resolv.conf be another file, for it alone."""
    if _libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    private, bind = 0x40000 | 0x4000, 0x1000
    _libc.mount(None, b"/", None, private, None)
    if _libc.mount(str(path).encode(), b"/etc/resolv.conf", None, bind, None):
        raise OSError(ctypes.get_errno(), "mount over /etc/resolv.conf")


def answer_arp_for_own_only(interface: str) -> None:
    """Keep an interface from answering ARP for addresses of other devices (RFC 3102 §3.1)."""
    write_sysctl(f"net/ipv4/conf/{interface}/arp_ignore", "1")


def write_sysctl(name: str, value: str) -> None:
    """Set a sysctl; one that this kernel does not have is no error."""
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/sys", name).write_text(value, encoding="ascii")


def ports_in_use(pid: int) -> int:
    """How many different local TCP and UDP ports the namespace of a process uses."""
    used: set[str] = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
            used |= {line.split()[1].rpartition(":")[2] for line in lines}
    return len(used)
