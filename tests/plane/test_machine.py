# SPDX-License-Identifier: BSD-3-Clause
"""The reference plane on a machine: ports, rules, devices, real IP stacks around them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pyroute2 import netns
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from isthmus.border.effect import Bind, Unbind
from isthmus.border.realm import End
from isthmus.border.verdict import Reason
from isthmus.errors import PlaneError, Unsupported
from isthmus.plane.link import pair
from isthmus.plane.link.packet import ETH_P_ALL, ETH_P_IP, Ipv6Sender, TransmitPort
from isthmus.plane.link.port import PuntPort
from isthmus.plane.link.userspace import UserspacePlane
from plane.fixture import NOW, build, scene, stage

HERE = Path(__file__).parent
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make network namespaces")
NFT = pytest.mark.skipif(shutil.which("nft") is None, reason="needs the nft program")
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{HERE.parent.parent / 'src'}:{HERE.parent}"}


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=30)


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Run the body in a namespace; sockets made in it stay there."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        netns.setns(name)
        yield
    finally:
        netns.setns(here)
        os.close(here)


@NFT
@pytest.mark.root
@ROOT
def test_a_gateway_forwards_exactly_what_the_plane_decided() -> None:
    exercise("unshare", "--net")


@NFT
@pytest.mark.skipif(
    subprocess.run(["unshare", "-Urn", "true"], capture_output=True, check=False).returncode != 0,
    reason="this machine allows no user namespaces",
)
def test_so_does_one_that_is_root_of_a_user_namespace_only() -> None:
    exercise("unshare", "--user", "--map-root-user", "--net")


def exercise(*way: str) -> None:
    words = [*way, sys.executable, str(HERE / "one_namespace.py")]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.fixture
def namespaces() -> Iterator[dict[str, str]]:
    """app (a program's own) - host - gateway - server; removed whatever happens."""
    suffix = secrets.token_hex(3)
    names = {role: f"ist-{role}-{suffix}" for role in ("app", "host", "gateway", "server")}
    try:
        for name in names.values():
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=30, check=False)


def wire(names: dict[str, str], one: str, other: str, addresses: tuple[str, str]) -> None:
    """Join two namespaces; each end is called after what it leads to."""
    # Were both ends of one index, the kernel would take a second to see a carrier.
    first, second = (("name", other, "index", "10"), ("name", one, "index", "11", "netns", names[other]))
    run("ip", "-n", names[one], "link", "add", *first, "type", "veth", "peer", *second)
    for role, device, address in ((one, other, addresses[0]), (other, one, addresses[1])):
        run("ip", "-n", names[role], "addr", "add", address, "dev", device)
        run("ip", "-n", names[role], "link", "set", device, "up")


def build_figure(names: dict[str, str]) -> None:
    """Figure 1, with a program whose leased address is in a namespace of its own."""
    wire(names, "host", "gateway", ("10.0.0.4/24", "10.0.0.1/24"))
    wire(names, "gateway", "server", ("149.112.240.55/24", "149.112.240.1/24"))
    run("ip", "-n", names["gateway"], "route", "add", "default", "via", "149.112.240.1")
    run("ip", "-n", names["server"], "addr", "add", "192.156.136.22/32", "dev", "lo")
    both = ("address", "02:00:00:00:00:07")
    pair = ("type", "veth", "peer", "name", "rsip0p", *both)
    run("ip", "-n", names["host"], "link", "add", "rsip0", "mtu", "1480", *both, *pair)
    run("ip", "-n", names["host"], "link", "set", "rsip0p", "arp", "off", "up")
    run("ip", "-n", names["host"], "link", "set", "rsip0", "netns", names["app"])
    run("ip", "-n", names["app"], "addr", "add", "149.112.240.55/32", "dev", "rsip0")
    run("ip", "-n", names["app"], "link", "set", "rsip0", "arp", "off", "mtu", "1480", "up")
    run("ip", "-n", names["app"], "route", "add", "default", "dev", "rsip0", "src", "149.112.240.55")
    # A host that forwards would route a program's packets on, untunnelled, were the device not sealed.
    run("ip", "netns", "exec", names["host"], "sysctl", "-qw", "net.ipv4.ip_forward=1")
    run("ip", "-n", names["host"], "route", "add", "default", "via", "10.0.0.1")


def open_planes(names: dict[str, str]) -> tuple[UserspacePlane, UserspacePlane]:
    planes = []
    for role, interfaces in (("gateway", {1: "host", 2: "server"}), ("host", {1: "gateway", 2: None})):
        border, effects = stage(scene(role))
        border = replace(
            border, realms=tuple(replace(each, interface=interfaces[each.number]) for each in border.realms)
        )
        with inside(names[role]):
            plane = UserspacePlane.alone(border, "istp")
            at_host = border.realm(2).end is End.HOST
            for each in effects:
                effect = each
                if at_host and isinstance(each, Bind):
                    effect = replace(each, binding=replace(each.binding, device=f"{each.binding.device}p"))
                plane.apply((effect,))
        planes.append(plane)
    return planes[0], planes[1]


@pytest.fixture
def figure(namespaces: dict[str, str]) -> Iterator[tuple[dict[str, str], UserspacePlane, UserspacePlane]]:
    """Figure 1 with both planes served by one thread."""
    build_figure(namespaces)
    gateway, host = open_planes(namespaces)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            for plane in (gateway, host):
                for port in select.select(plane.ports(), [], [], 0)[0]:
                    plane.service(port, now=NOW)
            select.select([*gateway.ports(), *host.ports()], [], [], 0.02)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield namespaces, gateway, host
    finally:
        stop.set()
        thread.join(10)
        for role, plane in (("gateway", gateway), ("host", host)):
            with inside(namespaces[role]):
                plane.close()


def make(name: str, kind: int, address: tuple[str, int]) -> socket.socket:
    with inside(name):
        made = socket.socket(socket.AF_INET, kind)
    made.settimeout(10)
    made.bind(address)
    return made


def taken(watch: socket.socket) -> Iterator[bytes]:
    """The IPv4 packets that have arrived at a packet socket."""
    outgoing = 4
    with contextlib.suppress(BlockingIOError):
        while True:
            packet, (_interface, protocol, kind, *_rest) = watch.recvfrom(65535)
            if protocol == 0x0800 and kind != outgoing:
                yield packet


def read_all(stream: socket.socket) -> bytes:
    parts = []
    while part := stream.recv(65536):
        parts.append(part)
    return b"".join(parts)


@NFT
@pytest.mark.root
@ROOT
def test_programs_of_a_host_and_a_server_speak_through_leased_ports(
    figure: tuple[dict[str, str], UserspacePlane, UserspacePlane],
) -> None:
    names, gateway, host = figure
    with inside(names["gateway"]):
        watch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        watch.bind(("host", ETH_P_ALL))
    with contextlib.closing(watch):
        udp(names)
        seen = [(packet[9], packet[12:16]) for packet in taken(watch)]
    assert seen == [(4, bytes((10, 0, 0, 4)))], "one packet, tunnelled; the host has not routed a copy"
    tcp(names)
    for plane in (gateway, host):
        counters = plane.counters()
        assert counters[Reason.FORWARDED_OUTWARD] > 100
        assert counters[Reason.FORWARDED_INWARD] > 100
        wrong = {reason.name: count for reason, count in counters.items() if reason.is_drop and count}
        assert wrong == {}
    with inside(names["host"]):
        host.apply([Unbind(key=entry.binding.key, ending="freed") for entry in list(host.reference.table)])  # type: ignore[arg-type]
    assert len(host.ports()) == 1, "the device is let go of with its last binding"


def udp(names: dict[str, str]) -> None:
    with (
        contextlib.closing(make(names["server"], socket.SOCK_DGRAM, ("192.156.136.22", 53))) as server,
        contextlib.closing(make(names["app"], socket.SOCK_DGRAM, ("149.112.240.55", 10000))) as client,
    ):
        client.sendto(b"who am I?", ("192.156.136.22", 53))
        question, sender = server.recvfrom(2000)
        assert (question, sender) == (b"who am I?", ("149.112.240.55", 10000)), "nothing was translated"
        server.sendto(b"you", sender)
        assert client.recv(2000) == b"you"
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(2000)


def tcp(names: dict[str, str]) -> None:
    """Half a megabyte each way: segments are cut and summed on the way, and arrive whole."""
    data = secrets.token_bytes(500_000)
    with (
        contextlib.closing(make(names["server"], socket.SOCK_STREAM, ("192.156.136.22", 8080))) as listener,
        contextlib.closing(make(names["app"], socket.SOCK_STREAM, ("149.112.240.55", 10001))) as client,
    ):
        listener.listen()
        client.connect(("192.156.136.22", 8080))
        accepted, peer = listener.accept()
        accepted.settimeout(20)
        assert peer == ("149.112.240.55", 10001)
        with accepted:
            for source, sink in ((client, accepted), (accepted, client)):
                received: list[bytes] = []
                reader = threading.Thread(target=lambda into=received, end=sink: into.append(read_all(end)))
                reader.start()
                source.sendall(data)
                source.shutdown(socket.SHUT_WR)
                reader.join(30)
                assert [hashlib.sha256(each).hexdigest() for each in received] == [hashlib.sha256(data).hexdigest()]


@pytest.mark.root
@ROOT
def test_a_machine_with_a_strict_source_filter_is_refused(namespaces: dict[str, str]) -> None:
    name = namespaces["gateway"]
    run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1")
    with inside(name), pytest.raises(Unsupported, match="rp_filter"):
        PuntPort("istport")
    with inside(name):
        assert [each for _index, each in socket.if_nameindex() if each.startswith("ist")] == []


@pytest.mark.root
@ROOT
def test_a_port_replaces_what_a_crash_left_and_survives_its_own_end(namespaces: dict[str, str]) -> None:
    with inside(namespaces["gateway"]):
        first = PuntPort("istport")
        second = PuntPort("istport")
        assert first.vanished
        assert not second.vanished
        assert first.receive() is None
        assert not first.send(bytes(20))
        assert second.index == socket.if_nametoindex("istport")
        first.close()
        assert not second.vanished, "what is not ours any more is not removed"
        second.close()
        second.close()
        assert second.vanished


@pytest.mark.root
@ROOT
def test_a_device_that_another_reads_is_written_to(namespaces: dict[str, str]) -> None:
    with inside(namespaces["gateway"]):
        pair.create("istdev", mtu=1480)
        try:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP)) as program:
                # Not IPv6: the kernel announces itself there, at times before the packet comes.
                program.bind(("istdev", ETH_P_IP))
                port = TransmitPort("istdevp")
                packet = build({"ipv4": "192.156.136.22 -> 149.112.240.55", "udp": "53 -> 10000"})
                assert port.send(packet)
                assert program.recv(2048)[14:] == packet
                assert not port.vanished
        finally:
            pair.remove("istdev")
        assert port.vanished
        assert not port.send(packet)
        port.close()
        with pytest.raises(PlaneError, match="no interface"):
            TransmitPort("istdevp")


@pytest.mark.root
@ROOT
def test_what_goes_into_a_tunnel_over_ipv6_leaves_by_the_machines_routes(namespaces: dict[str, str]) -> None:
    with inside(namespaces["gateway"]):
        run("sh", "-c", "for each in all default; do echo 0 > /proc/sys/net/ipv6/conf/$each/disable_ipv6; done")
        run("ip", "link", "add", "near6", "type", "veth", "peer", "name", "near6x")
        try:
            for end in ("near6", "near6x"):
                run("sh", "-c", f"echo 0 > /proc/sys/net/ipv6/conf/{end}/disable_ipv6")
                run("ip", "link", "set", end, "up")
            run("ip", "address", "add", "2001:db8::1/64", "dev", "near6", "nodad")
            run("ip", "neighbour", "add", "2001:db8::4", "lladdr", "02:00:00:00:00:09", "dev", "near6")
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as wire:
                wire.bind(("near6x", ETH_P_ALL))
                wire.settimeout(5)
                inner = build({"ipv4": "192.156.136.22 -> 149.112.240.55", "udp": "53 -> 10000"})
                outer = IPv6(src="2001:db8::1", dst="2001:db8::4", nh=4, hlim=64) / Raw(inner)
                sender = Ipv6Sender()
                assert sender.send(bytes(outer))
                frames = iter(lambda: wire.recv(2048), b"")
                assert next(each[14:] for each in frames if each[20:21] == b"\x04") == bytes(outer)
                sender.close()
        finally:
            run("ip", "link", "del", "near6")
