# SPDX-License-Identifier: BSD-3-Clause
"""ICMP through leased ports: ping, traceroute, errors, and path MTU discovery both ways (RFC 3102 §6.2).

::

    host-a 10.0.0.4 ─┐                                  ┌── 198.51.100.22 peer
                     lan ── 10.0.0.1 gateway ── .1 isp ─┤
    host-b 10.0.0.5 ─┘        149.112.240.55            └─ 1280 octets ─ border ── 192.156.136.22 server
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

from isthmus.address import Address
from isthmus.border.ranges import Ranges
from isthmus.lab import figure
from isthmus.lab.capture import Capture, capturing
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS, Node, wait_until
from isthmus.lab.privilege import missing_tools
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import two_hosts
from isthmus.lab.topology import OPEN_FORWARDING, LabError, Network, NodePlan, wire
from isthmus.wire import icmp
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.transport import Protocol, emit_udp

NAME = "paths"
ISP, BORDER, PEER = "149.112.240.1", "203.0.113.2", "198.51.100.22"
NARROW = 1280
_PACKAGES = ("iputils-ping", "traceroute", "iperf3", "openssl")
_HELLO_OCTETS = 1900
_CLOSED_PORT = 9
_HOSTS = tuple(figure.HOSTS)


def network() -> Network:
    """Figure 1 with an Internet behind it that has routers, and one narrow link."""
    forwarding = OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"}
    nodes = (
        NodePlan(
            name="gateway", routes=(f"{ISP} dev wan0 src {figure.SHARED}", f"default via {ISP}"), sysctls=forwarding
        ),
        NodePlan(name="isp", routes=(f"{figure.SHARED} dev eth0", f"{figure.FAR} via {BORDER}"), sysctls=forwarding),
        NodePlan(name="border", routes=("default via 203.0.113.1",), sysctls=forwarding),
        NodePlan(name="server", routes=("default via 192.156.136.1",)),
        NodePlan(name="peer", routes=("default via 198.51.100.1",)),
        NodePlan(name="lan", segment=True),
        *(NodePlan(name=host, sysctls=OPEN_FORWARDING) for host in _HOSTS),
    )
    cables = (
        wire(("gateway", "lan0", f"{figure.GATEWAY_NEAR}/24"), ("lan", "gateway")),
        wire(("gateway", "wan0", f"{figure.SHARED}/32"), ("isp", "eth0", f"{ISP}/24")),
        wire(("isp", "eth1", "203.0.113.1/24"), ("border", "eth0", f"{BORDER}/24"), mtu=NARROW),
        wire(("isp", "eth2", "198.51.100.1/24"), ("peer", "eth0", f"{PEER}/24")),
        wire(("border", "eth1", "192.156.136.1/24"), ("server", "eth0", f"{figure.SERVER}/24")),
        *(wire((host, "eth0", f"{address}/24"), ("lan", host)) for host, address in figure.HOSTS.items()),
    )
    return Network(name=NAME, nodes=nodes, cables=cables)


def start(lab: Lab, setting: Setting) -> None:
    """Start the servers, the gateway, and agents that hold nothing yet."""
    if missing := missing_tools(*_PACKAGES):
        raise LabError(missing)
    two_hosts.start_server(lab)
    lab["server"].start("iperf3", "iperf3", "--server", "--forceflush", ready="Server listening")
    _start_tls(lab["server"])
    lab["gateway"].up(figure.gateway_configuration(lab, setting))
    for host in _HOSTS:
        lab[host].up(figure.host_configuration(lab, setting, host, lease=False))


def _start_tls(server: Node) -> None:
    key, certificate = server.directory / "tls.key", server.directory / "tls.pem"
    server.directory.mkdir(parents=True, exist_ok=True)
    subject = ("-subj", "/CN=server.example", "-days", "2", "-nodes")
    server.run(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", *subject, "-keyout", str(key), "-out", str(certificate)
    )
    words = ("-accept", "443", "-key", str(key), "-cert", str(certificate), "-www")
    server.start("tls", "openssl", "s_server", *words, ready="ACCEPT")


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Ask, trace, provoke errors, and send what is too large."""
    yield from _ping(lab)
    yield from _traceroute(lab)
    yield from _requests_from_outside(lab)
    yield from _errors(lab)
    yield from _path_mtu(lab)


def run(lab: Lab, host: str, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a program on leased ports."""
    words = (*ISTHMUS, "run", "--socket", str(lab[host].socket_path), *options, "--", *command)
    return lab[host].run(*words, check=False, seconds=40)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What a program said, on one line."""
    text = " ".join((done.stdout.strip() or done.stderr.strip()).split())
    return f"exit code {done.returncode}: {text[-240:]}"


# --- queries of a host ----------------------------------------------------------------------


def _ping(lab: Lab) -> Iterator[Check]:
    done = run(lab, "host-a", "ping", "-n", "-c", "3", "-i", "0.2", "-W", "3", figure.SERVER)
    yield Check("ping through a lease", done.returncode == 0 and " 3 received" in done.stdout, said(done))
    pinging = (("host-a", "host-a"), ("host-b", "host-b"), ("another program of host-a", "host-a"))
    with capturing(lab["server"], "eth0") as far:
        running = {who: _start_ping(lab, host) for who, host in pinging}
        answers = {who: _communicate(process) for who, process in running.items()}
    for who, (code, text, _) in answers.items():
        name = f"{who} pings with identifier 7 while the others do too"
        yield Check(name, code == 0 and " 5 received" in text, text[-160:])
    held = [Ranges.parse(shown.split(f"{figure.SHARED} ")[1].split()[0]) for _, _, shown in answers.values()]
    used = sorted({identifier for identifier in map(_echo_identifier, far.packets) if identifier is not None})
    ok = len(used) == len(pinging) and all(any(each in ports for ports in held) for each in used)
    detail = f"{used}, leased {', '.join(map(str, held))}"
    yield Check("the identifiers on the wire are leased ports", ok, detail)


def _start_ping(lab: Lab, host: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        lab[host].command(
            *(*ISTHMUS, "run", "--show", "--socket", str(lab[host].socket_path), "--"),
            *("ping", "-n", "-e", "7", "-c", "5", "-i", "0.3", "-W", "3", figure.SERVER),
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def _communicate(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        text, shown = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    return process.returncode, " ".join(text.split()), shown


def _echo_identifier(packet: Any) -> int | None:
    octets = packet.octets
    start_of_icmp = (octets[0] & 0xF) * 4
    if octets[9] != Protocol.ICMP or octets[start_of_icmp] != icmp.IcmpType.ECHO:
        return None
    return int.from_bytes(octets[start_of_icmp + 4 : start_of_icmp + 6], "big")


def _traceroute(lab: Lab) -> Iterator[Check]:
    """Each router on the way tells of itself, the gateway first: by the address at which tunnels end."""
    way = (figure.GATEWAY_NEAR, ISP, BORDER, figure.SERVER)
    for name, options in (("UDP", ()), ("ICMP", ("-I",))):
        done = run(lab, "host-a", "traceroute", "-n", "-q", "1", "-w", "3", "-m", "8", *options, figure.SERVER)
        hops = [line.split()[1] for line in done.stdout.splitlines()[1:] if len(line.split()) > 1]
        yield Check(f"traceroute by {name} shows the way", tuple(hops) == way, " ".join(hops) or said(done))


# --- the other way --------------------------------------------------------------------------


def _requests_from_outside(lab: Lab) -> Iterator[Check]:
    """RFC 3102 §6.2: the gateway's own to answer, and never passed on."""
    with capturing(lab["lan"], "gateway") as near:
        done = lab["server"].run("ping", "-n", "-c", "3", "-i", "0.2", "-W", "3", figure.SHARED, check=False)
    inside = [packet for packet in near.packets if _carries_icmp(packet.octets)]
    ok = done.returncode == 0 and not inside
    yield Check(
        "a ping from outside is answered by the gateway and goes no further",
        ok,
        f"{len(inside)} seen inside; {said(done)}",
    )


def _carries_icmp(octets: bytes) -> bool:
    header = (octets[0] & 0xF) * 4
    return octets[9] == Protocol.IPIP and octets[header + 9] == Protocol.ICMP


# --- errors ---------------------------------------------------------------------------------

_REFUSED = """\
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.connect((sys.argv[1], int(sys.argv[2])))
    udp.settimeout(5)
    udp.send(b"anybody there?")
    try:
        udp.recv(100)
    except ConnectionRefusedError:
        print("refused")
"""

_CALLED_BACK = """\
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.connect((sys.argv[1], int(sys.argv[2])))
    udp.send(b"call me")
time.sleep(5)
"""

_CALLS_BACK = """\
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.bind(("", int(sys.argv[1])))
    udp.settimeout(15)
    print("ready", flush=True)
    octets, peer = udp.recvfrom(100)
    udp.connect(peer)
    udp.settimeout(0.5)
    for _ in range(10):
        try:
            udp.send(b"you called")
            udp.recv(100)
        except ConnectionRefusedError:
            print("refused", flush=True)
            break
        except TimeoutError:
            pass
"""


def _errors(lab: Lab) -> Iterator[Check]:
    done = run(lab, "host-a", ISTHMUS[0], "-c", _REFUSED, figure.SERVER, str(_CLOSED_PORT))
    yield Check("an error from the server reaches the program it concerns", "refused" in done.stdout, said(done))
    caller = lab["server"].start("caller", ISTHMUS[0], "-c", _CALLS_BACK, "7777", ready="ready")
    run(lab, "host-b", ISTHMUS[0], "-c", _CALLED_BACK, figure.SERVER, "7777")
    wait_until(lambda: caller.process.poll() is not None, 20)
    yield Check(
        "an error of the host's own stack reaches the server", "refused" in caller.tail(), caller.tail().strip()
    )
    before = _count(lab, "FORGED_QUOTE")
    _forge(lab["server"])
    forged = _count(lab, "FORGED_QUOTE") - before
    yield Check("an error that quotes another's packet is dropped", forged == 1, f"FORGED_QUOTE counted {forged}")


def _forge(node: Node) -> None:
    """Send "host unreachable" to the shared address about a packet that another address would have sent."""
    src, dst = Address.parse("149.112.240.66"), Address.parse(figure.SERVER)
    datagram = emit_udp(src=src, dst=dst, src_port=10000, dst_port=53, payload=b"never sent")
    quote = Ipv4Header(total_length=20 + len(datagram), protocol=Protocol.UDP, src=src, dst=dst).emit() + datagram
    message = icmp.time_exceeded(quote[:28])
    node.send_raw(Protocol.ICMP, figure.SHARED, message)


def _count(lab: Lab, reason: str) -> int:
    return int(lab["gateway"].isthmus("counters").get(reason, 0))


# --- what is too large ----------------------------------------------------------------------

_LARGE = """\
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.setsockopt(socket.IPPROTO_IP, 10, 2)
    udp.bind(("", 7778))
    udp.settimeout(15)
    print("ready", flush=True)
    octets, peer = udp.recvfrom(100)
    udp.connect(peer)
    for _ in range(5):
        try:
            udp.send(bytes(1472))
        except OSError:
            break
        time.sleep(0.3)
    print("path", udp.getsockopt(socket.IPPROTO_IP, 14), flush=True)
"""


def _path_mtu(lab: Lab) -> Iterator[Check]:
    for name, options in (("up", ()), ("down", ("--reverse",))):
        with capturing(lab["isp"], "eth1") as narrow:
            done = run(lab, "host-a", "iperf3", "--client", figure.SERVER, "--time", "1", "--json", *options)
        largest = max((len(packet.octets) for packet in narrow.packets), default=0)
        yield Check(
            f"TCP {name} by a link of {NARROW} octets",
            _transferred(done, largest),
            f"largest packet there {largest}; {'done' if done.returncode == 0 else said(done)}",
        )
    yield _hello(lab)
    peer = lab["peer"].start("large", ISTHMUS[0], "-c", _LARGE, ready="ready")
    run(lab, "host-b", ISTHMUS[0], "-c", _CALLED_BACK, PEER, "7778")
    wait_until(lambda: peer.process.poll() is not None, 20)
    yield Check("a peer learns how much the tunnel carries", "path 1480" in peer.tail(), peer.tail().strip())


def _transferred(done: subprocess.CompletedProcess[str], largest: int) -> bool:
    try:
        octets = json.loads(done.stdout)["end"]["sum_received"]["bytes"]
    except (ValueError, KeyError):
        return False
    return done.returncode == 0 and octets >= 300 << 10 and 1000 < largest <= NARROW


def _hello(lab: Lab) -> Check:
    """A TLS greeting of the size that post-quantum keys make: where path MTU discovery fails, it is what gets lost."""
    protocols = ",".join(f"isthmus-lab-protocol-{number:04d}" for number in range(70))
    words = (
        "openssl",
        "s_client",
        "-connect",
        f"{figure.SERVER}:443",
        "-alpn",
        protocols,
        "-servername",
        "server.example",
    )
    with capturing(lab["server"], "eth0") as far:
        done = run(lab, "host-a", "timeout", "15", *words)
    octets = _largest_hello(far)
    ok = "BEGIN CERTIFICATE" in done.stdout and octets >= _HELLO_OCTETS
    return Check(f"a ClientHello of {octets} octets gets its answer", ok, "handshake done" if ok else said(done))


def _largest_hello(capture: Capture) -> int:
    """Octets of the handshake message that a client began with, by its own length field."""
    for packet in capture.packets:
        octets = packet.octets
        tcp = (octets[0] & 0xF) * 4
        if octets[9] != Protocol.TCP or int.from_bytes(octets[tcp + 2 : tcp + 4], "big") != 443:
            continue
        data = octets[tcp + (octets[tcp + 12] >> 4) * 4 :]
        if data[:1] == b"\x16" and data[5:6] == b"\x01":
            return int.from_bytes(data[6:9], "big") + 4
    return 0


SCENARIO = Scenario(
    name=NAME,
    title="Ping, traceroute, ICMP errors and path MTU discovery work through leased ports, and no error is misled",
    shows=("RFC 3102 6.2", "RFC 3102 6.3", "RFC 1191 4", "RFC 1812 5.3.1", "RFC 2003 5.1"),
    network=network(),
    start=start,
    play=play,
    root=True,
)
