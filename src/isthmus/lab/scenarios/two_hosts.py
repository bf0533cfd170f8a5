# SPDX-License-Identifier: BSD-3-Clause
"""Two private hosts share one public address: the seed's Figure 1, without NAT."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

from isthmus.border.ranges import Ranges
from isthmus.lab import figure
from isthmus.lab.capture import Capture, capturing
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS, Node, wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.topology import LabError, without_offload
from isthmus.lab.web import ECHO_PORT, read_log
from isthmus.wire.transport import Protocol

NAME = "two-hosts"
_TTL, _PROTOCOL, _CHECKSUM = 8, 9, slice(10, 12)


def start(lab: Lab, setting: Setting, *, gateway_lines: str = "") -> None:
    """Start the server, the gateway and both hosts, and wait until each host has its lease."""
    start_server(lab)
    lab["gateway"].up(figure.gateway_configuration(lab, setting, more=gateway_lines))
    for host in figure.HOSTS:
        lab[host].up(figure.host_configuration(lab, setting, host))
    for host in figure.HOSTS:
        # A host is ready when it serves; whether the gateway gives it anything shows later.
        if not wait_until(lambda: holds_lease(lab, host), 10, every=0.1):  # noqa: B023 - called at once
            raise LabError(f"{host} got no lease within 10 seconds")
        without_offload(lab[host].namespace, "rsip0")


def start_server(lab: Lab) -> None:
    """Start the web server of Figure 1."""
    node = lab["server"]
    log = node.directory / "requests.jsonl"
    node.start("web", ISTHMUS[0], "-m", "isthmus.lab.web", str(log), ready="ready")


def holds_lease(lab: Lab, host: str) -> bool:
    """Whether a host has its lease in use: then its programs draw their ports from it (RFC 3102 §3.1)."""
    return bool(lab[host].isthmus("leases"))


def requests(lab: Lab) -> list[dict[str, Any]]:
    """What the server has seen."""
    return read_log(lab["server"].directory / "requests.jsonl")


def leased_ports(lab: Lab) -> dict[str, Ranges]:
    """The ports of the shared address by private address, as the gateway tells it.

    Raises:
        LabError: the gateway's answer makes no sense.
    """
    held: dict[str, Ranges] = {}
    for lease in lab["gateway"].isthmus("leases"):
        try:
            if lease["address"] == figure.SHARED and lease["ports"]:
                host = str(lease["host"])
                held[host] = held.get(host, Ranges(())) | Ranges.parse(str(lease["ports"]))
        except (KeyError, TypeError, ValueError) as error:
            raise LabError(f"isthmus leases --json: a row without address, ports or host: {lease!r}") from error
    return held


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Fetch from both hosts at once; then look at the very octets of one exchange of each protocol."""
    held = leased_ports(lab)
    for host, address in figure.HOSTS.items():
        ports = held.get(address)
        yield Check(f"{host} holds a lease", bool(ports), f"{address}: {figure.SHARED} ports {ports or 'none'}")
    before = len(requests(lab))
    pages = fetch_at_once(lab)
    for host, (code, page) in pages.items():
        yield Check(f"{host} fetches the page", code == 0, f"curl ended with {code}: {page.strip()}")
    seen = requests(lab)[before:]
    yield from _who_the_server_saw(held, pages, seen)
    yield from _untouched(lab, "TCP", Protocol.TCP)
    yield from _untouched(lab, "UDP", Protocol.UDP)
    yield Check("the gateway carried packets both ways", *forwarded(lab["gateway"].isthmus("counters")))


def fetch_at_once(lab: Lab, path: str = "/") -> dict[str, tuple[int, str]]:
    """Start stock curl on every host at the same time; returns exit codes and what it printed."""
    running = {
        host: subprocess.Popen(
            lab[host].command(
                "curl", "--silent", "--show-error", "--max-time", "10", f"http://{figure.SERVER}{path}?{host}"
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        for host in figure.HOSTS
    }
    pages = {}
    for host, process in running.items():
        try:
            page, _ = process.communicate(timeout=20)
        finally:
            process.kill()
        pages[host] = (process.returncode, page)
    return pages


def _who_the_server_saw(
    held: dict[str, Ranges], pages: dict[str, tuple[int, str]], seen: list[dict[str, Any]]
) -> Iterator[Check]:
    peers = sorted({str(request["peer"]) for request in seen})
    ok = peers == [figure.SHARED] and len(seen) == len(pages)
    yield Check("the server saw one public address", ok, f"{len(seen)} requests, from {', '.join(peers) or 'nobody'}")
    for host, address in figure.HOSTS.items():
        used = [int(request["port"]) for request in seen if request["path"].endswith(host)]
        ports = held.get(address, Ranges(()))
        ok = bool(used) and all(port in ports for port in used)
        yield Check(f"{host} was seen with ports of its own lease", ok, f"ports {used}, leased {ports}")


def _untouched(lab: Lab, name: str, protocol: Protocol) -> Iterator[Check]:
    """Compare one exchange as it passed the host's link and the server's."""
    host = "host-a"
    with capturing(lab["lan"], host) as near, capturing(lab["server"], "eth0") as far:
        exchange = _fetch if protocol == Protocol.TCP else _echo
        outcome = exchange(lab[host])
    inner = [packet for packet in map(_inner, near.packets) if packet and packet[_PROTOCOL] == protocol]
    plain = [packet.octets for packet in far.packets if packet.octets[_PROTOCOL] == protocol]
    yield _compare(f"{name}: the transport octets cross untouched", inner, plain, outcome, (near, far))


def _compare(
    name: str, inner: list[bytes], plain: list[bytes], outcome: str, captures: tuple[Capture, Capture]
) -> Check:
    """Pair packets by all that must be equal: what has no pair was changed, or is missing on one side."""
    near = sorted(map(_without_ttl, inner))
    far = sorted(map(_without_ttl, plain))
    changed = len([packet for packet in near if packet not in far]) + len(
        [packet for packet in far if packet not in near]
    )
    hops = {a[_TTL] - b[_TTL] for a in inner for b in plain if _without_ttl(a) == _without_ttl(b)}
    ok = bool(near) and near == far and hops <= {1, -1} and not any(capture.missed for capture in captures)
    detail = (
        f"{outcome}; {len(near)} packets in the tunnel, {len(far)} at the server, {changed} differ in more than"
        " TTL and IP header checksum"
    )
    return Check(name, ok, detail)


def _without_ttl(packet: bytes) -> bytes:
    octets = bytearray(packet)
    octets[_TTL] = 0
    octets[_CHECKSUM] = b"\0\0"
    return bytes(octets)


def _inner(packet: object) -> bytes | None:
    """What an IP-in-IP packet carries, up to its length; None for other packets."""
    octets = packet.octets  # type: ignore[attr-defined]
    if octets[_PROTOCOL] != Protocol.IPIP:
        return None
    return bytes(octets[(octets[0] & 0xF) * 4 : int.from_bytes(octets[2:4], "big")])


def _fetch(node: Node) -> str:
    done = node.run(
        "curl", "--silent", "--show-error", "--max-time", "10", f"http://{figure.SERVER}/octets/3000", check=False
    )
    return f"{len(done.stdout)} characters fetched" if done.returncode == 0 else f"curl failed: {done.stderr.strip()}"


def _echo(node: Node) -> str:
    with node.udp_socket() as udp:
        udp.settimeout(5)
        udp.connect((figure.SERVER, ECHO_PORT))
        udp.send(b"the octets of a datagram")
        try:
            return f"{len(udp.recv(2048))} octets echoed"
        except OSError as error:
            return f"no echo: {error}"


def forwarded(by_reason: dict[str, int]) -> tuple[bool, str]:
    """Judge the counters of a gateway: packets went both ways."""
    inward, outward = by_reason.get("FORWARDED_INWARD", 0), by_reason.get("FORWARDED_OUTWARD", 0)
    shown = ", ".join(f"{name} {count}" for name, count in sorted(by_reason.items()) if count)
    return inward > 0 and outward > 0, shown or "nothing counted"


SCENARIO = Scenario(
    name=NAME,
    title="Two private hosts share one public address, end to end, without NAT",
    shows=("seed Figure 1", "seed RSIP 3.2", "RFC 3102 3.1", "RFC 3103 9.3", "RFC 3103 9.8", "RFC 2003 3.1"),
    network=figure.network(NAME),
    start=start,
    play=play,
)
