# SPDX-License-Identifier: BSD-3-Clause
"""One end forgets: host and gateway reboot, datagrams come twice or late, the counter wraps (RFC 3103 §10)."""

from __future__ import annotations

from collections.abc import Iterator

from isthmus.border.ranges import Ranges
from isthmus.lab import figure
from isthmus.lab.lab import Lab
from isthmus.lab.node import Node, wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import two_hosts
from isthmus.wire.rsip.codes import ErrorCode
from isthmus.wire.rsip.message import (
    DeregisterRequest,
    ErrorResponse,
    Message,
    QueryRequest,
    RegisterRequest,
    RegisterResponse,
    emit,
    parse,
)
from isthmus.wire.rsip.parameter import ClientId, MessageCounter

NAME = "loss-of-state"
THIRD = "host-c"
_HOSTS = (*figure.HOSTS, THIRD)
_LAST = (1 << 32) - 1


def start(lab: Lab, setting: Setting) -> None:
    """Start Figure 1 with a gateway that keeps its leases in memory only; host-c has no daemon."""
    two_hosts.start_server(lab)
    lab["gateway"].up(_gateway(lab, setting))
    for host in figure.HOSTS:
        lab[host].up(figure.host_configuration(lab, setting, host))
        wait_until(lambda: two_hosts.holds_lease(lab, host), 10, every=0.1)  # noqa: B023 - called at once


def _gateway(lab: Lab, setting: Setting, more: str = "") -> str:
    return figure.gateway_configuration(lab, setting, state="memory:", more=more)


def play(lab: Lab, setting: Setting) -> Iterator[Check]:
    """Let the host forget, then the gateway; then speak to the gateway as a bad network would."""
    yield from _host_reboots(lab, setting)
    yield from _gateway_reboots(lab, setting)
    yield from _bad_network(lab["host-c"])
    yield from _tcp_only(lab, setting)


def _host_reboots(lab: Lab, setting: Setting) -> Iterator[Check]:
    """RFC 3103 §10.2.1: 302 with the old Client ID, which the host deregisters at once."""
    before, client = _held(lab, "host-a"), _client(lab, "host-a")
    lab["host-a"].daemons["isthmus"].kill()
    lab["host-a"].up(figure.host_configuration(lab, setting, "host-a"))
    again = wait_until(lambda: two_hosts.holds_lease(lab, "host-a"), 10, every=0.1)
    after = _held(lab, "host-a")
    yield Check("a host that has rebooted gets a lease again", again, f"ports {before}, then {after}")
    ok = bool(after) and not after.overlaps(before) and _client(lab, "host-a") != client
    yield Check("under a new Client ID; the old ports rest", ok, f"client {client}, then {_client(lab, 'host-a')}")
    yield _page(lab, "host-a", "and its programs go on")


def _gateway_reboots(lab: Lab, setting: Setting) -> Iterator[Check]:
    """RFC 3103 §10.2.2: everything is lost; the first packet of a host is answered with 301."""
    before = {host: _held(lab, host) for host in figure.HOSTS}
    lab["gateway"].daemons["isthmus"].kill()
    lab["gateway"].up(_gateway(lab, setting))
    yield Check("a gateway without a store has forgotten everything", not lab["gateway"].isthmus("leases"), "no leases")
    for host in figure.HOSTS:
        wait_until(lambda: _page(lab, host, "").ok, 20, every=0.5)  # noqa: B023 - called at once
        yield _page(lab, host, f"{host} finds out, registers, and its programs go on")
    after = {host: _held(lab, host) for host in figure.HOSTS}
    text = ", ".join(f"{host} {after[host]}" for host in figure.HOSTS)
    yield Check("with the very ports that they had", bool(after["host-a"]) and after == before, text)


def _held(lab: Lab, host: str) -> Ranges:
    return two_hosts.leased_ports(lab).get(figure.HOSTS[host], Ranges(()))


def _client(lab: Lab, host: str) -> int:
    rows = [row for row in lab["gateway"].isthmus("leases") if row["host"] == figure.HOSTS[host]]
    return int(rows[0]["client_id"]) if rows else 0


def _page(lab: Lab, host: str, name: str) -> Check:
    words = ("curl", "--silent", "--show-error", "--max-time", "2", f"http://{figure.SERVER}/")
    done = lab[host].run(*words, check=False)
    return Check(name, done.stdout.startswith(f"You are {figure.SHARED}"), (done.stdout or done.stderr).strip())


# --- datagrams, one by one ------------------------------------------------------------------


class _Talk:
    """A UDP socket at the gateway's port, and what came back."""

    def __init__(self, node: Node) -> None:
        self._socket = node.udp_socket()
        self._socket.connect((figure.GATEWAY_NEAR, figure.CONTROL_PORT))

    def ask(self, message: Message, seconds: float = 2.0) -> bytes:
        """Send; returns what was answered, or nothing."""
        self._socket.settimeout(seconds)
        self._socket.send(emit(message))
        try:
            return self._socket.recv(2048)
        except TimeoutError:
            return b""

    def close(self) -> None:
        """Close."""
        self._socket.close()


def _bad_network(node: Node) -> Iterator[Check]:
    talk = _Talk(node)
    try:
        register = RegisterRequest(message_counter=MessageCounter(1))
        first, second = talk.ask(register), talk.ask(register)
        answer = parse(first)
        ok = isinstance(answer, RegisterResponse) and first == second
        yield Check(
            "a datagram that comes twice gets the same answer and does nothing", ok, f"{len(first)} octets, twice"
        )
        if not isinstance(answer, RegisterResponse):
            return
        client = answer.client_id
        talk.ask(QueryRequest(client_id=client, message_counter=MessageCounter(2)))
        late = talk.ask(QueryRequest(client_id=client, message_counter=MessageCounter(1)), 0.7)
        yield Check("a datagram that comes late gets none", not late, f"{len(late)} octets")
        other = talk.ask(QueryRequest(client_id=ClientId(client.value ^ 1), message_counter=MessageCounter(3)))
        yield Check("another's Client ID: error 305", *_error(other, ErrorCode.BAD_CLIENT_ID))
        talk.ask(DeregisterRequest(client_id=client, message_counter=MessageCounter(4)))
        gone = talk.ask(QueryRequest(client_id=client, message_counter=MessageCounter(5)))
        yield Check("after DE-REGISTER: error 301", *_error(gone, ErrorCode.REGISTER_FIRST))
    finally:
        talk.close()
    yield _wrap(node)


def _wrap(node: Node) -> Check:
    """RFC 3103 §10.1: 0 is never used, not even then."""
    talk = _Talk(node)
    try:
        answers = [parse(talk.ask(RegisterRequest(message_counter=MessageCounter(_LAST - 1))))]
        client = answers[0].client_id if isinstance(answers[0], RegisterResponse) else ClientId(0)
        for counter in (_LAST, 1):
            octets = talk.ask(QueryRequest(client_id=client, message_counter=MessageCounter(counter)))
            answers += [parse(octets)] if octets else []
        octets = talk.ask(DeregisterRequest(client_id=client, message_counter=MessageCounter(2)))
        answers += [parse(octets)] if octets else []
    finally:
        talk.close()
    counters = [each.message_counter.value for each in answers if each.message_counter is not None]
    ok = counters == [_LAST - 1, _LAST, 1, 2] and not any(isinstance(each, ErrorResponse) for each in answers)
    return Check("after 4294967295 the counter goes on with 1", ok, f"answered: {counters}")


def _error(octets: bytes, code: ErrorCode) -> tuple[bool, str]:
    answer = parse(octets, strict=False) if octets else None
    if isinstance(answer, ErrorResponse):
        return answer.error.value == code, f"ERROR_RESPONSE {int(answer.error.value)}"
    return False, f"answered {answer}"


def _tcp_only(lab: Lab, setting: Setting) -> Iterator[Check]:
    """RFC 3103 §5, §14: TCP is what a gateway must speak, and it may speak nothing else."""
    for name in ("host-b", "gateway"):
        lab[name].daemons["isthmus"].stop()
    lab["gateway"].up(_gateway(lab, setting, more='transports = ["tcp"]'))
    talk = _Talk(lab["host-c"])
    try:
        octets = talk.ask(RegisterRequest(message_counter=MessageCounter(1)))
    finally:
        talk.close()
    yield Check("UDP to a gateway that speaks TCP only: error 102", *_error(octets, ErrorCode.USE_TCP))
    text = figure.host_configuration(lab, setting, "host-b")
    lab["host-b"].up(text.replace("[host]\n", '[host]\ntransport = "tcp"\n'))
    wait_until(lambda: two_hosts.holds_lease(lab, "host-b"), 10, every=0.1)
    yield _page(lab, "host-b", "and a host that speaks TCP gets its lease there")


SCENARIO = Scenario(
    name=NAME,
    title="Host and gateway reboot, datagrams come twice and late, and everything finds itself again",
    shows=("RFC 3103 10.1", "RFC 3103 10.2.1", "RFC 3103 10.2.2", "RFC 3103 5", "RFC 3102 6.1"),
    network=figure.network(NAME, _HOSTS),
    start=start,
    play=play,
)
