# SPDX-License-Identifier: BSD-3-Clause
"""Flow policies: what a host must say beforehand, and what happens when it does something else (RFC 3103 §7, §10.4).

host-a may talk to anybody, host-b to the one address that it named, host-c to the one address and port.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from isthmus.address import Address
from isthmus.border.verdict import Reason
from isthmus.lab import figure
from isthmus.lab.capture import Capture, capturing
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import two_hosts
from isthmus.lab.scenarios.spoofing import errors_seen
from isthmus.lab.topology import LabError
from isthmus.lab.web import ECHO_PORT, HTTP_PORT
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.rsip.codes import ErrorCode
from isthmus.wire.transport import Protocol, emit_udp

NAME = "policies"
_HOSTS = {"host-a": "10.0.0.4", "host-b": "10.0.0.5", "host-c": "10.0.0.6"}
_OTHER = "192.156.136.99"
_RULES = """
[[gateway.client]]
network = "10.0.0.4/32"

[[gateway.client]]
network = "10.0.0.5/32"
remote_policy = "macro"

[[gateway.client]]
network = "10.0.0.6/32"
local_policy = "micro"
remote_policy = "micro"
"""
_LEASES = {
    "host-a": "ports = 64",
    "host-b": f'ports = 64\nremote = "{figure.SERVER}"\nephemeral = true',
    "host-c": f'ports = 1\nremote = "{figure.SERVER}"\nremote_port = {HTTP_PORT}\nephemeral = true',
}


def start(lab: Lab, setting: Setting) -> None:
    """Start the server, which has two addresses, a gateway with a rule for each host, and the hosts."""
    lab["server"].run("ip", "address", "add", f"{_OTHER}/24", "dev", "eth0")
    two_hosts.start_server(lab)
    lab["gateway"].up(figure.gateway_configuration(lab, setting) + _RULES)
    for host, lease in _LEASES.items():
        text = figure.host_configuration(lab, setting, host, ports=64)
        lab[host].up(text.replace("ports = 64", lease))
    for host in _HOSTS:
        if not wait_until(lambda: two_hosts.holds_lease(lab, host), 10, every=0.1):  # noqa: B023 - called at once
            raise LabError(f"{host} got no lease within 10 seconds")


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Do what was said; then something else, by honest programs and past them."""
    yield from _what_was_said(lab)
    yield from _too_little_said(lab)
    ports = {host: two_hosts.leased_ports(lab)[address].pairs[0][0] for host, address in _HOSTS.items()}
    for misuse in _misuses(ports):
        yield from _try(lab, misuse)
    yield from _from_others(lab, ports)


def _what_was_said(lab: Lab) -> Iterator[Check]:
    for host in _HOSTS:
        done = _curl(lab, host, figure.SERVER)
        yield Check(f"{host} talks to whom it named", done.startswith("You are"), done)
    yield Check("host-a talks to another as well", _curl(lab, "host-a", _OTHER).startswith("You are"), _OTHER)
    for host in ("host-b", "host-c"):
        said = _curl(lab, host, _OTHER)
        yield Check(f"{host} does not: its own plane stops it", not said.startswith("You are"), said)


def _curl(lab: Lab, host: str, address: str) -> str:
    words = ("curl", "--silent", "--show-error", "--max-time", "3", f"http://{address}/")
    done = lab[host].run(*words, check=False)
    return (done.stdout or done.stderr).strip()


def _too_little_said(lab: Lab) -> Iterator[Check]:
    """RFC 3103 §7.2: the request itself must name the peer (103)."""
    for host in ("host-b", "host-c"):
        words = (*ISTHMUS, "run", "--socket", str(lab[host].socket_path), "--ports", "1", "--", "true")
        done = lab[host].run(*words, check=False)
        code = int(ErrorCode.FLOW_POLICY_VIOLATION)
        said = done.stderr.strip()
        yield Check(
            f"{host} asks without naming anybody: error {code}", done.returncode == 2 and str(code) in said, said
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Misuse:
    """A packet into the tunnel, past the host's plane."""

    host: str
    what: str
    port: int
    remote: str
    remote_port: int
    reason: Reason


def _misuses(ports: dict[str, int]) -> tuple[_Misuse, ...]:
    address, port = Reason.REMOTE_ADDRESS_NOT_ALLOWED, Reason.REMOTE_PORT_NOT_ALLOWED
    macro, micro = ports["host-b"], ports["host-c"]
    return (
        _Misuse(host="host-b", what="another address", port=macro, remote=_OTHER, remote_port=80, reason=address),
        _Misuse(host="host-c", what="another address", port=micro, remote=_OTHER, remote_port=80, reason=address),
        _Misuse(
            host="host-c", what="another port", port=micro, remote=figure.SERVER, remote_port=ECHO_PORT, reason=port
        ),
    )


def _packet(misuse: _Misuse) -> bytes:
    src, dst = Address.parse(figure.SHARED), Address.parse(misuse.remote)
    datagram = emit_udp(src=src, dst=dst, src_port=misuse.port, dst_port=misuse.remote_port, payload=b"not allowed")
    return Ipv4Header(total_length=20 + len(datagram), protocol=Protocol.UDP, src=src, dst=dst).emit() + datagram


def _try(lab: Lab, misuse: _Misuse) -> Iterator[Check]:
    """A gateway does not rely on its hosts: it drops, counts, and says so."""
    code, name = misuse.reason.rsip_code, misuse.reason.name
    before = _count(lab, misuse.reason)
    with capturing(lab["lan"], misuse.host) as near, capturing(lab["server"], "eth0") as far:
        lab[misuse.host].send_raw(Protocol.IPIP, figure.GATEWAY_NEAR, _packet(misuse))
        wait_until(lambda: bool(errors_seen(near)), 3)
    counted = _count(lab, misuse.reason) - before
    told = _codes(near)
    leaked = sum(packet.octets.endswith(b"not allowed") for packet in far.packets)
    ok = counted == 1 and told == [code] and not leaked
    detail = f"{name} counted {counted}, ERROR_RESPONSE {told}, {leaked} seen at the server"
    yield Check(f"{misuse.host} writes to {misuse.what}: dropped and answered with error {code}", ok, detail)


def _codes(capture: Capture) -> list[int]:
    return [int(message.error.value) for _, message in errors_seen(capture)]


_SEND_UDP = """\
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    udp.bind((sys.argv[1], 4000))
    udp.sendto(b"from outside", (sys.argv[2], int(sys.argv[3])))
"""


def _from_others(lab: Lab, ports: dict[str, int]) -> Iterator[Check]:
    """The policy holds in both directions (RFC 3103 §7.2)."""
    for host, source, reason in (
        ("host-b", _OTHER, Reason.REMOTE_ADDRESS_NOT_ALLOWED),
        ("host-c", figure.SERVER, Reason.REMOTE_PORT_NOT_ALLOWED),
    ):
        before = _count(lab, reason)
        with capturing(lab["lan"], host) as near:
            lab["server"].run(ISTHMUS[0], "-c", _SEND_UDP, source, figure.SHARED, str(ports[host]))
            wait_until(lambda: _count(lab, reason) > before, 3, every=0.2)  # noqa: B023 - called at once
        passed = sum(packet.octets.endswith(b"from outside") for packet in near.packets)
        counted = _count(lab, reason) - before
        yield Check(
            f"and {source} port 4000 does not reach {host}",
            counted == 1 and not passed,
            f"{reason.name} counted {counted}",
        )


def _count(lab: Lab, reason: Reason) -> int:
    return int(lab["gateway"].isthmus("counters").get(reason.name, 0))


SCENARIO = Scenario(
    name=NAME,
    title="Flow policies hold in both directions, and who breaks them is told",
    shows=("RFC 3103 7.1", "RFC 3103 7.2", "RFC 3103 8.9", "RFC 3103 10.4", "RFC 3103 14"),
    network=figure.network(NAME, tuple(_HOSTS)),
    start=start,
    play=play,
)
