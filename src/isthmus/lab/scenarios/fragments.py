# SPDX-License-Identifier: BSD-3-Clause
"""Fragments through leased ports, and two hosts behind one address that talk to each other (RFC 3102 §6.3, §6.7)."""

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
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import two_hosts
from isthmus.lab.scenarios.paths import said
from isthmus.lab.web import ECHO_PORT
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.transport import Protocol, emit_udp

NAME = "fragments"
_LARGE = 4000
_ROUNDS = 20
_HOSTS = tuple(figure.HOSTS)


def start(lab: Lab, setting: Setting) -> None:
    """Start the server, the gateway, and both hosts with leases of their own."""
    two_hosts.start(lab, setting)


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Send what has to be cut, in good order and in bad; then from host to host."""
    held = {host: two_hosts.leased_ports(lab)[address] for host, address in figure.HOSTS.items()}
    yield from _large_datagrams(lab, held)
    yield from _out_of_order(lab, held["host-a"])
    yield from _overlapping(lab, held["host-a"])
    yield from _flood(lab, held["host-a"])
    yield from _host_to_host(lab)


# --- large datagrams ------------------------------------------------------------------------

_ECHO = """\
import os, socket, sys
answered = 0
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.setsockopt(socket.IPPROTO_IP, 10, 0)
    udp.settimeout(2)
    udp.connect((sys.argv[1], int(sys.argv[2])))
    for _ in range(int(sys.argv[4])):
        octets = os.urandom(int(sys.argv[3]))
        udp.send(octets)
        try:
            answered += udp.recv(65535) == octets
        except TimeoutError:
            pass
print("answered", answered)
"""


def _large_datagrams(lab: Lab, held: dict[str, Ranges]) -> Iterator[Check]:
    """Both hosts at once: each has its own datagrams back, and nobody's identifications are another's."""
    words = (ISTHMUS[0], "-c", _ECHO, figure.SERVER, str(ECHO_PORT), str(_LARGE), str(_ROUNDS))
    with capturing(lab["server"], "eth0") as far:
        running = {host: _start(lab, host, *words) for host in _HOSTS}
        answers = {host: _end(process) for host, process in running.items()}
    for host, (code, text) in answers.items():
        ok = code == 0 and f"answered {_ROUNDS}" in text
        yield Check(f"{host}: datagrams of {_LARGE} octets, in fragments, come back whole", ok, text.strip()[-200:])
    used = _identifications(far)
    ok = len(used) > 1 and all(
        sum(each in ports for ports in held.values()) == 1
        for identifications in used.values()
        for each in identifications
    )
    owners = [{host for host in _HOSTS for each in used[port] if each in held[host]} for port in used]
    apart = all(len(owner) == 1 for owner in owners) and len({next(iter(owner)) for owner in owners if owner}) == len(
        _HOSTS
    )
    shown = "; ".join(f"port {port}: {sorted(found)[:4]}..." for port, found in sorted(used.items()))
    yield Check("each host's identifications are of its own lease", ok and apart, shown)


def _start(lab: Lab, host: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        lab[host].command(*words),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def _end(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str]:
    try:
        text, _ = process.communicate(timeout=seconds)
    finally:
        process.kill()
        process.wait()
    return process.returncode, text


def _identifications(capture: Capture) -> dict[int, set[int]]:
    """Identifications of fragmented datagrams from the shared address, by the source port of their first fragment."""
    found: dict[int, set[int]] = {}
    for packet in capture.packets:
        octets = packet.octets
        place = int.from_bytes(octets[6:8], "big")
        if (
            octets[12:16] == Address.parse(figure.SHARED).octets
            and place & 0x3FFF == 0x2000
            and octets[9] == Protocol.UDP
        ):
            port = int.from_bytes(octets[20:22], "big")
            found.setdefault(port, set()).add(int.from_bytes(octets[4:6], "big"))
    return found


# --- fragments as an attacker, or a bad network, sends them ------------------------------------

_WAITS = """\
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.bind((sys.argv[1], int(sys.argv[2])))
    udp.sendto(b"here I am", (sys.argv[3], 7))
    udp.settimeout(10)
    print("ready", flush=True)
    while True:
        octets = udp.recv(65535)
        if len(octets) > 100:
            print("got", len(octets), sum(octets) % 65521, flush=True)
            break
"""

_SENDS = """\
import json, socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
    for packet in json.load(sys.stdin):
        raw.sendto(bytes.fromhex(packet), (sys.argv[1], 0))
"""


def _datagram(port: int, size: int) -> bytes:
    src, dst = Address.parse(figure.SERVER), Address.parse(figure.SHARED)
    payload = bytes(at * 7 % 251 for at in range(size))
    return emit_udp(src=src, dst=dst, src_port=ECHO_PORT, dst_port=port, payload=payload)


def _cut(datagram: bytes, identification: int, *spans: tuple[int, int]) -> list[bytes]:
    """Fragments of a datagram from the server to the shared address, by first and last octet."""
    src, dst = Address.parse(figure.SERVER), Address.parse(figure.SHARED)
    found = []
    for first, end in spans:
        header = Ipv4Header(
            total_length=20 + end - first,
            identification=identification,
            mf=end < len(datagram),
            fragment_offset=first // 8,
            ttl=64,
            protocol=Protocol.UDP,
            src=src,
            dst=dst,
        )
        found.append(header.emit() + datagram[first:end])
    return found


def _send(lab: Lab, packets: list[bytes]) -> None:
    done = subprocess.run(
        lab["server"].command(ISTHMUS[0], "-c", _SENDS, figure.SHARED),
        input=json.dumps([packet.hex() for packet in packets]),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)


def _out_of_order(lab: Lab, held: Ranges) -> Iterator[Check]:
    port = held.pairs[0][1]
    datagram = _datagram(port, 4000)
    program = lab["host-a"].start(
        "waits", ISTHMUS[0], "-c", _WAITS, figure.SHARED, str(port), figure.SERVER, ready="ready"
    )
    _send(lab, _cut(datagram, 0xFFFE, (3200, 4008), (2400, 3200), (1200, 2400), (0, 1200)))
    arrived = wait_until(lambda: "got 4000" in program.tail(), 5)
    program.stop()
    expected = f"got 4000 {sum(datagram[8:]) % 65521}"
    yield Check(
        "fragments in the wrong order arrive as one datagram",
        arrived and expected in program.tail(),
        program.tail().strip(),
    )


def _overlapping(lab: Lab, held: Ranges) -> Iterator[Check]:
    before, forwarded = _count(lab, "FRAGMENT_OVERLAP"), _count(lab, "FORWARDED_INWARD")
    _send(lab, _cut(_datagram(held.pairs[0][1], 4000), 0x8001, (0, 1200), (1192, 2400), (2400, 3200), (3200, 4008)))
    wait_until(lambda: _count(lab, "FRAGMENT_OVERLAP") > before, 3, every=0.2)
    counted, passed = _count(lab, "FRAGMENT_OVERLAP") - before, _count(lab, "FORWARDED_INWARD") - forwarded
    yield Check(
        "fragments that overlap are discarded",
        counted > 0 and not passed,
        f"FRAGMENT_OVERLAP {counted}, forwarded {passed}",
    )


def _flood(lab: Lab, held: Ranges) -> Iterator[Check]:
    """Many beginnings and no end: memory is bounded, and honest fragments of others still get through."""
    before = _count(lab, "FRAGMENT_LIMIT")
    datagram = _datagram(held.pairs[0][1], 4000)
    _send(lab, [packet for number in range(300) for packet in _cut(datagram, number, (0, 1200))])
    wait_until(lambda: _count(lab, "FRAGMENT_LIMIT") > before, 5, every=0.2)
    counted = _count(lab, "FRAGMENT_LIMIT") - before
    yield Check("what one source may leave waiting is limited", counted > 0, f"FRAGMENT_LIMIT counted {counted} of 300")
    words = (ISTHMUS[0], "-c", _ECHO, figure.SERVER, str(ECHO_PORT), "1200", "3")
    code, text = _end(_start(lab, "host-b", *words))
    yield Check("and whole packets are not concerned", code == 0 and "answered 3" in text, text.strip())


# --- from host to host ------------------------------------------------------------------------

_MEETS = """\
import os, socket, sys
mine, other, size = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.setsockopt(socket.IPPROTO_IP, 10, 0)
    udp.bind((sys.argv[1], mine))
    udp.settimeout(0.3)
    heard = 0
    for _ in range(30):
        udp.sendto(bytes(size), (sys.argv[1], other))
        try:
            octets, peer = udp.recvfrom(65535)
            heard += len(octets) == size and peer[1] == other
        except OSError:
            pass
    print("heard", heard)
"""

_SERVES = """\
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"You are {self.client_address[0]} port {self.client_address[1]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("", int(sys.argv[1])), Page)
print("ready", flush=True)
server.serve_forever()
"""


def _host_to_host(lab: Lab) -> Iterator[Check]:
    """Both behind one address, so that source and destination address are the same (RFC 3102 §6.7)."""
    held = {host: two_hosts.leased_ports(lab)[address].pairs[0] for host, address in figure.HOSTS.items()}
    ports = {host: first + 1 for host, (first, _last) in held.items()}
    for name, size in (("UDP", 100), (f"fragments of {_LARGE} octets", _LARGE)):
        running = [
            _start(lab, host, ISTHMUS[0], "-c", _MEETS, figure.SHARED, str(ports[host]), str(ports[other]), str(size))
            for host, other in (_HOSTS, _HOSTS[::-1])
        ]
        texts = [_end(process)[1].strip() for process in running]
        ok = all(text.startswith("heard ") and int(text.split()[1]) > 5 for text in texts)
        yield Check(f"host to host by their leased ports: {name}", ok, "; ".join(texts)[-300:])
    yield _tcp(lab)
    yield _refused(lab, ports["host-a"] + 1, held["host-b"][0] + 9)


def _tcp(lab: Lab) -> Check:
    """A server on host-b listens for everybody (LISTEN); host-a is one of them."""
    words = (
        *ISTHMUS,
        "run",
        "--listen",
        "18080",
        "--socket",
        str(lab["host-b"].socket_path),
        "--",
        ISTHMUS[0],
        "-c",
        _SERVES,
        "18080",
    )
    server = lab["host-b"].start("page", *words, ready="ready")
    done = lab["host-a"].run(
        "curl", "--silent", "--show-error", "--max-time", "10", f"http://{figure.SHARED}:18080/", check=False
    )
    server.stop()
    return Check("host to host by their leased ports: TCP", f"You are {figure.SHARED}" in done.stdout, said(done))


_REFUSED = """\
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.bind((sys.argv[1], int(sys.argv[2])))
    udp.connect((sys.argv[1], int(sys.argv[3])))
    udp.settimeout(2)
    udp.send(b"anybody there?")
    try:
        udp.recv(100)
    except ConnectionRefusedError:
        print("refused")
"""

_CONTACTS = """\
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.bind((sys.argv[1], int(sys.argv[2])))
    udp.sendto(b"hello", (sys.argv[1], int(sys.argv[3])))
"""


def _refused(lab: Lab, mine: int, closed: int) -> Check:
    """An ICMP error turned round at the gateway: the other host's stack says that nobody listens."""
    lab["host-b"].run(ISTHMUS[0], "-c", _CONTACTS, figure.SHARED, str(closed), str(mine), check=False)
    done = lab["host-a"].run(ISTHMUS[0], "-c", _REFUSED, figure.SHARED, str(mine), str(closed), check=False)
    return Check("host to host by their leased ports: ICMP errors", "refused" in done.stdout, said(done))


def _count(lab: Lab, reason: str) -> int:
    counters: dict[str, Any] = lab["gateway"].isthmus("counters")
    return int(counters.get(reason, 0))


SCENARIO = Scenario(
    name=NAME,
    title="Fragments are put together and cut again; two hosts behind one address talk to each other",
    shows=("RFC 3102 3.1", "RFC 3102 6.3", "RFC 3102 6.7", "RFC 1858 3", "RFC 6864 4"),
    network=figure.network(NAME),
    start=start,
    play=play,
    root=True,
)
