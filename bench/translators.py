# SPDX-License-Identifier: BSD-3-Clause
"""Two translators in the gateway of ``networks.network``: isthmus between IPv4 and SIP, tayga between IPv4 and IPv6."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pyroute2 import NetNS
from pyroute2.netlink.exceptions import NetlinkError

import frames
import libbpf
import packets
from border_router import OTHER, OWN, known_as
from isthmus.lab import figure
from isthmus.lab.lab import Lab
from isthmus.lab.node import Daemon, wait_until
from isthmus.lab.topology import LabError

INTO, OUT = "from IPv4", "to IPv4"
DIRECTIONS = (INTO, OUT)
NATIVE, DATAGRAM, TAYGA, FORWARD, BARE = "isthmus", "isthmus by datagrams", "tayga", "forwarding", "bare redirection"
WAYS = (NATIVE, DATAGRAM, TAYGA, FORWARD, BARE)
NET6, HOST6, PEER6 = "2001:db8:3::", "2001:db8:1::", "2001:db8:2::"
_HERE = Path(__file__).parent
_DEVICE = "nat64"
_INGRESS = 0xFFFFFFF2

Pair = tuple[str, str]
"""The IPv4 addresses of a host of the site and of its peer elsewhere."""


def unavailable() -> str | None:
    """Why tayga cannot be measured; None: it can."""
    if shutil.which("tayga", path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
        return "tayga is not installed (Debian: apt-get install tayga)"
    return None if Path("/dev/net/tun").exists() else "there is no /dev/net/tun, which tayga needs"


def pairs(number: int) -> list[Pair]:
    """So many hosts, each with a peer of its own."""
    return [(f"10.1.{at >> 8}.{at & 255}", f"198.18.{at >> 8}.{at & 255}") for at in range(number)]


def _ipv6(network: str, address: str) -> str:
    """The IPv6 address that stands for an IPv4 address."""
    return str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(network)) + int(ipaddress.IPv4Address(address))))


def _ports(at: int) -> tuple[int, int]:
    return 1024 + at % 60000, 7


def _plain(src: str, dst: str, at: int) -> bytes:
    ends = socket.inet_aton(src), socket.inet_aton(dst)
    return frames.ipv4(*ends, frames.datagram(*ends, _ports(at)))


def _back(host: str, peer: str, at: int) -> bytes:
    return _plain(peer, host, at)


def _sip(host: str, peer: str, at: int) -> bytes:
    transport = frames.datagram(socket.inet_aton(peer), socket.inet_aton(host), _ports(at))
    return frames.sip(known_as(OTHER, peer), known_as(OWN, host), transport)


def _tayga(host: str, peer: str, at: int) -> bytes:
    ends = (socket.inet_pton(socket.AF_INET6, _ipv6(*each)) for each in ((PEER6, peer), (HOST6, host)))
    src, dst = ends
    return frames.ipv6(src, dst, frames.datagram(src, dst, _ports(at)))


def _ipae(host: str, peer: str, at: int) -> bytes:
    outer = socket.inet_aton("10.0.0.4"), socket.inet_aton(figure.GATEWAY_NEAR)
    return frames.ipae(*outer, _sip(host, peer, at))


def traffic(way: str, direction: str, number: int) -> tuple[str, list[bytes]]:
    """EtherType and packets of so many pairs, as they come to the gateway."""
    if direction == INTO:
        return "0800", [_plain(*pair, at) for at, pair in enumerate(pairs(number))]
    made: Callable[[str, str, int], bytes] = {
        NATIVE: _sip,
        DATAGRAM: _ipae,
        TAYGA: _tayga,
        FORWARD: _back,
        BARE: _back,
    }[way]
    return "86dd" if way == TAYGA else "0800", [made(*pair, at) for at, pair in enumerate(pairs(number))]


def prepare(lab: Lab) -> int:
    """Both families are forwarded, all neighbours known; returns the thread that receives."""
    gateway = lab["gateway"]
    beyond = packets.mac(lab["server"], "eth0")
    gateway.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    gateway.run("ip", "-6", "addr", "add", f"{NET6}1/64", "dev", "wan0", "nodad")
    gateway.run("ip", "neigh", "replace", f"{NET6}2", "lladdr", beyond, "dev", "wan0", "nud", "permanent")
    thread = packets.prepare(lab)
    # Hosts are behind lan0 in networks.network; what comes out of the gateway comes out by wan0 both ways.
    gateway.run("ip", "route", "replace", "10.1.0.0/16", "via", figure.SERVER, "dev", "wan0", "onlink")
    return thread


@contextlib.contextmanager
def standing(lab: Lab, way: str, direction: str, number: int, object_path: Path) -> Iterator[Daemon | None]:
    """Let the gateway translate one way, and clear it again; its process, if the packets go through one."""
    if way == FORWARD:
        yield None
    elif way == BARE:
        with _bare(lab, object_path):
            yield None
    elif way == TAYGA:
        with _tayga_standing(lab, direction, number) as daemon:
            yield daemon
    else:
        gateway = lab["gateway"]
        near, far = ("lan0", "wan0") if direction == INTO else ("wan0", "lan0")
        local, neighbour = (figure.SHARED, figure.SERVER) if direction == INTO else (figure.GATEWAY_NEAR, "10.0.0.4")
        words = [sys.executable, str(_HERE / "border_router.py"), near, far]
        kind = "datagram" if way == DATAGRAM else "native"
        daemon = gateway.start("router", *words, kind, local, neighbour, ready="ready", seconds=60)
        try:
            yield None
        finally:
            gateway.daemons.pop("router").stop()
            if daemon.process.returncode not in (0, -15):
                raise LabError(f"the border router failed\n{daemon.tail()}")


@contextlib.contextmanager
def _bare(lab: Lab, object_path: Path) -> Iterator[None]:
    """Send whatever comes in at lan0 out by wan0 and look at none of it."""
    loaded = libbpf.BpfObject(object_path)
    with NetNS(lab["gateway"].namespace, flags=0) as links:
        near, far = (links.link_lookup(ifname=each)[0] for each in ("lan0", "wan0"))
        libbpf.update(loaded.map("setups"), 0, frames.SETUP.pack(0, 0, 0, 0, 0, far))
        with contextlib.suppress(NetlinkError):
            links.tc("add", "clsact", index=near)
        words = {"index": near, "parent": _INGRESS, "prio": 60000}
        program = loaded.program("through")
        links.tc("add-filter", "bpf", fd=program, name="bench-through", classid=1, direct_action=True, **words)
        try:
            yield
        finally:
            links.tc("del-filter", **words)


@contextlib.contextmanager
def _tayga_standing(lab: Lab, direction: str, number: int) -> Iterator[Daemon]:
    gateway = lab["gateway"]
    path = gateway.directory / "tayga.conf"
    hosts, peers = zip(*pairs(number), strict=True)
    lines = [f"tun-device {_DEVICE}", "ipv4-addr 192.0.2.1", "ipv6-addr 2001:db8:9::1", f"data-dir {gateway.directory}"]
    for network, addresses in ((HOST6, hosts), (PEER6, peers)):
        lines += [f"map {each} {_ipv6(network, each)}" for each in addresses]
    gateway.directory.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    gateway.run("tayga", "-c", str(path), "--mktun")
    try:
        gateway.run("ip", "link", "set", _DEVICE, "up")
        if direction == INTO:
            _route(lab, "198.18.0.0/16", _DEVICE)
            _route(lab, f"{PEER6}/64", "wan0", "via", f"{NET6}2")
        else:
            _route(lab, f"{HOST6}/64", _DEVICE)
        daemon = gateway.start("tayga", "tayga", "-c", str(path), "--nodetach")
        os.sched_setaffinity(daemon.pid, {packets.GATEWAY_CPU})
        if not wait_until(lambda: "NO-CARRIER" not in gateway.run("ip", "link", "show", _DEVICE).stdout, 5):
            raise LabError(f"tayga did not begin\n{daemon.tail()}")
        try:
            yield daemon
        finally:
            gateway.daemons.pop("tayga").stop()
    finally:
        gateway.run("ip", "link", "delete", _DEVICE, check=False)
        gateway.run("ip", "route", "delete", f"{PEER6}/64", check=False)


def _route(lab: Lab, prefix: str, device: str, *more: str) -> None:
    lab["gateway"].run("ip", "route", "replace", prefix, *more, "dev", device)
