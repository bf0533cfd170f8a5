# SPDX-License-Identifier: BSD-3-Clause
"""An edge network of IPv6 alone: two hosts share one public IPv4 address, and IPv4 is there in tunnels only.

::

    host-a 2001:db8::4 ──┐
                         lan ── 2001:db8::1 gateway 149.112.240.55 ── 192.156.136.22 server
    host-b 2001:db8::5 ──┘
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from subprocess import CompletedProcess

from isthmus.border.ranges import Ranges
from isthmus.lab import edge, figure, stock
from isthmus.lab.capture import IPV4, IPV6, Capture, capturing
from isthmus.lab.edge import Carried
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS
from isthmus.lab.privilege import missing_tools
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import ipv6_local, two_hosts
from isthmus.lab.scenarios.ipv6_local import HOSTS6, keys
from isthmus.lab.stock import by_name
from isthmus.lab.topology import LabError
from isthmus.lab.web import ECHO_PORT

NAME = "ipv6-lease"
_MTU = 1500 - 40
_LARGEST_ECHO = _MTU - 28
_TRANSFER = 300_000
_LARGE_DATAGRAM = 4000


def start(lab: Lab, setting: Setting) -> None:
    """Start the servers and the names, then the gateway and both hosts."""
    if missing := missing_tools(*stock.PACKAGES):
        raise LabError(missing)
    server = lab["server"]
    stock.start_web(server, ipv6=False)
    stock.start_sshd(server, keys(lab))
    for at, host in enumerate(HOSTS6):
        port = str(5201 + at)
        server.start(f"iperf3-{host}", "iperf3", "--server", "--forceflush", "--port", port, ready="Server listening")
    stock.start_names(lab["gateway"], edge.GATEWAY6, {edge.FAR_NAME: (figure.SERVER,)})
    lab["gateway"].up(edge.gateway_configuration(lab, setting, edge.GATEWAY6))
    edge.start_hosts(lab, {host: edge.host_configuration(lab, setting, host, ("0.0.0.0/0",)) for host in HOSTS6})


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Run the same programs on both hosts at once, and look at both sides of the gateway."""
    held = two_hosts.leased_ports(lab)
    yield from _leased(lab, held)
    with capturing(lab["lan"], "gateway", ethertypes=(IPV4, IPV6)) as near, capturing(lab["server"], "eth0") as far:
        for name, outcome in _programs(lab):
            yield from _judge(name, outcome)
    yield from _on_the_wires(near, far)
    yield from _whom_the_server_saw(lab, held)
    yield from _path_mtu(lab)


def _leased(lab: Lab, held: dict[str, Ranges]) -> Iterator[Check]:
    for host, address in HOSTS6.items():
        rows = json.loads(lab[host].run("ip", "-json", "-4", "address", "show").stdout)
        own = {each["local"] for row in rows for each in row["addr_info"]} - {"127.0.0.1"}
        ok = bool(held.get(address)) and own == {figure.SHARED}
        text = f"{address} holds {', '.join(own)} ports {held.get(address, 'none')}"
        yield Check(f"{host} has no IPv4 address but the leased one", ok, text)
    one, other = (held.get(address, Ranges(())) for address in HOSTS6.values())
    yield Check("both hold ports of one address", bool(one) and bool(other) and not one.overlaps(other), figure.SHARED)


# --- programs ---------------------------------------------------------------------------------

_Outcome = dict[str, tuple[CompletedProcess[str], bool]]


def _programs(lab: Lab) -> Iterator[tuple[str, _Outcome]]:
    """Run each program on both hosts at the same time, by name; what is said, and whether it is right."""
    page = stock.fetch(f"http://{edge.FAR_NAME}/octets/{_TRANSFER}", "--output", "/dev/null")
    page += ["--write-out", "%{size_download} %{local_ip}"]
    yield "curl", _on_both(lab, page, f"{_TRANSFER} {figure.SHARED}")
    ssh = stock.ssh(keys(lab), edge.FAR_NAME, 'echo "$SSH_CONNECTION"')
    yield "ssh", _on_both(lab, ssh, f"{figure.SHARED} ")
    ping = ["ping", "-n", "-c", "3", "-i", "0.2", "-W", "3", edge.FAR_NAME]
    yield "ping", _on_both(lab, ping, "3 received")
    # As slow as this, so that the captures hold it all.
    iperf3 = ["iperf3", "--client", edge.FAR_NAME, "--time", "1", "--connect-timeout", "5000", "--bitrate", "10M"]
    yield "iperf3 TCP", _on_both(lab, iperf3, "iperf Done.")
    yield "iperf3 UDP down", _on_both(lab, [*iperf3, "--reverse", "--udp"], "iperf Done.")


def _on_both(lab: Lab, command: list[str], expected: str) -> _Outcome:
    def of_host(at: int, host: str) -> CompletedProcess[str]:
        more = ["--port", str(5201 + at)] if command[0] == "iperf3" else []
        return by_name(lab[host], edge.GATEWAY6, *command, *more)

    with ThreadPoolExecutor(len(HOSTS6)) as pool:
        ended = pool.map(of_host, range(len(HOSTS6)), HOSTS6)
        return {host: (done, expected in done.stdout) for host, done in zip(HOSTS6, ended, strict=True)}


def _judge(name: str, outcome: _Outcome) -> Iterator[Check]:
    for host, (done, right) in outcome.items():
        said = stock.words(done) if done.returncode or name in {"curl", "ssh"} else _end_of(done.stdout)
        yield Check(f"{host}: {name}", done.returncode == 0 and right, said)


def _end_of(text: str) -> str:
    """The line with the result of ping or iperf3."""
    lines = [line for line in text.splitlines() if "received" in line or "receiver" in line]
    return " ".join(lines[-1].split()) if lines else text[-100:]


# --- what was on the wires --------------------------------------------------------------------


def _on_the_wires(near: Capture, far: Capture) -> Iterator[Check]:
    counted = edge.tally(near.packets)
    ok = not counted[Carried.IPV4] and counted[Carried.IPV4_IN_IPV6] > 100 and not near.missed
    yield Check("no IPv4 packet is in the edge network outside of a tunnel", ok, edge.told(counted))
    largest = max((len(packet.octets) for packet in near.packets), default=0)
    yield Check("packets fill the link and no more", largest == 1500, f"the largest has {largest} octets")
    counted = edge.tally(far.packets)
    yield Check("the server's side has plain IPv4 only", edge.payload(counted) == {Carried.IPV4}, edge.told(counted))


def _whom_the_server_saw(lab: Lab, held: dict[str, Ranges]) -> Iterator[Check]:
    seen = two_hosts.requests(lab)
    owners = {host for host, address in HOSTS6.items() for row in seen if row["port"] in held.get(address, Ranges(()))}
    ok = {row["peer"] for row in seen} == {figure.SHARED} and owners == set(HOSTS6)
    ports = ", ".join(str(row["port"]) for row in seen)
    yield Check("the server saw one address, with ports of both leases", ok, f"{figure.SHARED} ports {ports}")


# --- path MTU ---------------------------------------------------------------------------------

_WHOLE = """\
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.bind(("", 9))
    print("ready", flush=True)
    octets, peer = udp.recvfrom(65535)
    udp.connect(peer)
    udp.setsockopt(socket.IPPROTO_IP, 10, 2)
    udp.settimeout(0.5)
    udp.send(bytes(1472))
    for _ in range(10):
        try:
            udp.recv(10)
        except OSError as error:
            pass
        mtu = udp.getsockopt(socket.IPPROTO_IP, 14)
        if mtu < 1500:
            break
    print("mtu", mtu, flush=True)
    udp.send(b"end")
"""
"""Answers a datagram with one that fills the server's link and may not be cut; says what ICMP then told."""

_CALL = """\
import socket, sys
size = int(sys.argv[3])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.setsockopt(socket.IPPROTO_IP, 10, 0)
    udp.settimeout(6)
    udp.connect((sys.argv[1], int(sys.argv[2])))
    udp.send(bytes(size))
    print(len(udp.recv(65535)))
"""


def _path_mtu(lab: Lab) -> Iterator[Check]:
    """Both directions know that IPv6's header of 40 octets is on the way."""
    link = json.loads(lab["host-a"].run("ip", "-json", "link", "show", "rsip0").stdout)[0]
    yield Check("the host's device knows the tunnel's MTU", link["mtu"] == _MTU, f"MTU {link['mtu']}")
    ping = ("ping", "-n", "-M", "do", "-c", "1", "-W", "3")
    whole = lab["host-a"].run(*ping, "-s", str(_LARGEST_ECHO), figure.SERVER, check=False)
    more = lab["host-a"].run(*ping, "-s", str(_LARGEST_ECHO + 1), figure.SERVER, check=False)
    ok = whole.returncode == 0 and more.returncode != 0
    text = f"{_MTU} octets: {_end_of(whole.stdout)}; one more: {stock.words(more)[-60:]}"
    yield Check("outward: what fits goes whole, and not one octet more", ok, text)
    server = lab["server"].start("whole", ISTHMUS[0], "-c", _WHOLE, ready="ready")
    lab["host-a"].run(ISTHMUS[0], "-c", _CALL, figure.SERVER, "9", "10", check=False)
    said = server.tail().rpartition("mtu ")[2].strip()
    yield Check("inward: the server is told by ICMP", said == str(_MTU), f"path MTU {said}")
    words = (ISTHMUS[0], "-c", _CALL, figure.SERVER, str(ECHO_PORT), str(_LARGE_DATAGRAM))
    done = lab["host-b"].run(*words, check=False)
    ok = done.returncode == 0 and done.stdout.strip() == str(_LARGE_DATAGRAM)
    yield Check("a datagram that may be cut comes whole, both ways", ok, f"{stock.words(done)} octets echoed")


SCENARIO = Scenario(
    name=NAME,
    title="Two hosts of an IPv6-only network share one IPv4 address: what DSTM could not",
    shows=("seed RSIP 4.3", "RFC 3103 8.1", "RFC 2473 3", "RFC 2473 7.2", "RFC 1191 3"),
    network=ipv6_local.network(NAME, ipv4=False),
    start=start,
    play=play,
    root=True,
)
