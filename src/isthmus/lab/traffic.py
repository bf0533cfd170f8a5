# SPDX-License-Identifier: BSD-3-Clause
"""What stock programs send between two hosts of a scenario, and what their kernels think of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from isthmus.lab.node import ISTHMUS, Node
from isthmus.lab.scenario import Check
from isthmus.lab.stock import fetch, words

OCTETS = 300_001
DATAGRAMS = (1, 100, 512, 1000, 1400, 4000)
"""Octets of UDP; the largest has to be cut."""

_ECHO = """\
import json, socket, sys
family, where = socket.getaddrinfo(sys.argv[1], 7, type=socket.SOCK_DGRAM)[0][::4]
back = []
df, tries, *sizes = map(int, sys.argv[2:])
with socket.socket(family, socket.SOCK_DGRAM) as udp:
    if not df:
        udp.setsockopt(socket.IPPROTO_IP, 10, 0)
    udp.settimeout(2)
    udp.connect(where)
    for size in sizes:
        sent = bytes(n % 251 for n in range(size))
        for _ in range(tries):
            udp.send(sent)
            try:
                if udp.recv(65535) == sent:
                    back.append(size)
                    break
            except OSError:
                pass
print(json.dumps(back))
"""
_ERRORS = ("TcpInCsumErrors", "UdpInCsumErrors", "IcmpInCsumErrors", "Udp6InCsumErrors", "Icmp6InCsumErrors")
_CARRIED = ("FORWARDED_SIP", "TRANSLATED_TO_SIP", "TRANSLATED_FROM_SIP")


def url(address: str, path: str = "/", port: int = 80) -> str:
    """The URL of a server at an address of either family."""
    return f"http://{f'[{address}]' if ':' in address else address}:{port}{path}"


def check_tcp(node: Node, address: str, who: str, octets: int = OCTETS) -> Check:
    """Fetch some octets with curl."""
    quietly = ("--output", "/dev/null", "--write-out", "%{size_download}")
    done = node.run(*fetch(url(address, f"/octets/{octets}"), *quietly), check=False, seconds=40)
    return Check(f"{who}: {octets} octets by TCP", done.stdout == str(octets), words(done))


def check_udp(
    node: Node,
    address: str,
    who: str,
    sizes: Iterable[int] = DATAGRAMS,
    *,
    df: bool = True,
    tries: int = 2,
    what: str | None = None,
) -> Check:
    """Have datagrams of several sizes echoed.

    Args:
        node: Who sends.
        address: Where the echo is.
        who: Begins the name of the check.
        sizes: In octets.
        df: Whether IPv4 forbids fragments.
        tries: How often each may be sent.
        what: Ends the name of the check, if it is to say more than how many sizes.
    """
    wanted = list(sizes)
    words = (address, str(int(df)), str(tries), *map(str, wanted))
    done = node.run(ISTHMUS[0], "-c", _ECHO, *words, check=False, seconds=60)
    back = json.loads(done.stdout) if done.returncode == 0 else []
    name = f"{who}: {what or f'{len(wanted)} sizes of UDP'}"
    return Check(name, back == wanted, f"{back} of {wanted} came back {done.stderr[-200:]}")


def check_ping(node: Node, address: str, who: str, *, ttl: int | None = None) -> Check:
    """Ping; the answers come with this TTL."""
    done = node.run("ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", address, check=False)
    ok = " 0% packet loss" in done.stdout and (ttl is None or f"ttl={ttl} " in done.stdout)
    lines = [line for line in done.stdout.splitlines() if "ttl=" in line or "packet loss" in line]
    return Check(f"{who}: ping" + (f", answers with TTL {ttl}" if ttl else ""), ok, " / ".join(lines) or words(done))


def check_traceroute(node: Node, address: str, who: str, hops: int) -> Check:
    """Trace the route: every router answers, the one within a tunnel that knows IPv4 only as well."""
    done = node.run("traceroute", "-n", "-q", "2", "-w", "2", "-m", "12", address, check=False, seconds=60)
    lines = [line.split()[1:2] for line in done.stdout.splitlines()[1:]]
    seen = [each[0] if each else "?" for each in lines]
    ok = len(seen) == hops and seen[-1] == address and "*" not in seen
    return Check(f"{who}: traceroute sees {hops} hops", ok, " ".join(seen) or words(done))


def checksum_errors(node: Node) -> dict[str, int]:
    """How often the kernel of a machine refused a transport checksum, by counter."""
    done = node.run("nstat", "-asz", *_ERRORS)
    counted = (line.split() for line in done.stdout.splitlines() if not line.startswith("#"))
    return {name: int(value) for name, value, *_ in counted}


def check_sums(*nodes: Node) -> Check:
    """No kernel has counted a wrong checksum."""
    counted = {node.name: {name: n for name, n in checksum_errors(node).items() if n} for node in nodes}
    return Check("no kernel counted a wrong checksum", not any(counted.values()), str(counted))


def check_carried(*nodes: Node) -> Check:
    """What the kernel plane does itself it has not left to Python."""
    counted = {node.name: node.isthmus("counters") for node in nodes}
    seen = {
        name: (sum(known.get(each, 0) for each in _CARRIED), known.get("PUNTED", 0)) for name, known in counted.items()
    }
    ok = all(punted < went_on / 2 for went_on, punted in seen.values() if went_on)
    text = ", ".join(f"{name} {went_on} went on, {punted} punted" for name, (went_on, punted) in seen.items())
    return Check("the kernel carried it by itself", ok and any(n for n, _ in seen.values()), text)


def all_of(node: Node, address: str, who: str) -> Iterator[Check]:
    """TCP, UDP and ping to one address."""
    yield check_tcp(node, address, who)
    yield check_udp(node, address, who)
    yield check_ping(node, address, who)
