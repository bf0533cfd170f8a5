# SPDX-License-Identifier: BSD-3-Clause
"""What runs while the network under it is changed: a TCP connection that is in use all the time, and a ping."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator

from isthmus.lab.node import Node, wait_until
from isthmus.lab.scenario import Check
from isthmus.lab.topology import LabError

PORT = 4646
"""Where the servers of these connections listen."""
_PATIENCE_SECONDS = 60.0
"For a connection to come about, or to go on after a change: TCP's own timers count."
_TCP_RTO_MAX_MS, _AGAIN_MILLISECONDS = 44, 1000
"How long TCP waits at most before it sends again; kernels before 6.15 double the time as they like."
_GIVE_UP_MILLISECONDS = 120_000
"Not a number of attempts, which are soon made: machines that are started again may be slow."
_ROUND_OCTETS = 1000
_PAUSE_SECONDS = 0.05
_ROUNDS = 3
"So many show that it goes on."
_PING_SECONDS = 0.1


class Connection:
    """A TCP connection between two machines; octets go there and back until it ends, and have to be the same.

    Args:
        name: What it is, in checks.
        client: Who calls.
        server: Who is called.
        address: By which address, IPv4 or IPv6.
        source_port: From which port; 0: any.

    Raises:
        LabError: it does not come about.
    """

    def __init__(self, name: str, client: Node, server: Node, address: str, *, source_port: int = 0) -> None:
        self.name = name
        self.rounds = 0
        self.problem = ""
        family, anywhere = (socket.AF_INET6, "::") if ":" in address else (socket.AF_INET, "")
        listening = server.inside(lambda: socket.create_server((anywhere, PORT), family=family))
        with listening:
            listening.settimeout(_PATIENCE_SECONDS)
            try:
                self._client = client.inside(
                    lambda: socket.create_connection((address, PORT), _PATIENCE_SECONDS, (anywhere, source_port))
                )
                self._server, self.peer = listening.accept()
            except (OSError, LabError) as error:
                raise LabError(f"{name}: no TCP connection from {client.name} to {address}: {error}") from error
        self._over = threading.Event()
        for end in (self._client, self._server):
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _GIVE_UP_MILLISECONDS)
            with contextlib.suppress(OSError):
                end.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, _AGAIN_MILLISECONDS)
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._call, self._answer)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        try:
            for number in itertools.count():
                sent = bytes((number + at) % 251 for at in range(_ROUND_OCTETS))
                self._client.sendall(sent)
                if (back := _read(self._client, _ROUND_OCTETS)) != sent:
                    raise OSError(f"{len(back)} octets came back, not those that were sent")
                self.rounds += 1
                if self._over.wait(_PAUSE_SECONDS):
                    return
        except OSError as error:
            self.problem = self.problem or str(error)

    def _answer(self) -> None:
        try:
            while octets := self._server.recv(65536):
                self._server.sendall(octets)
        except OSError as error:
            self.problem = self.problem or str(error)

    def goes_on(self, when: str) -> Check:
        """Check that octets go there and back now."""
        before = self.rounds
        wait_until(lambda: self.rounds >= before + _ROUNDS or bool(self.problem), _PATIENCE_SECONDS)
        detail = self.problem or f"{self.rounds * _ROUND_OCTETS} octets there and back so far"
        return Check(f"{self.name} goes on: {when}", ok=self.rounds >= before + _ROUNDS, detail=detail)

    def close(self) -> None:
        """End it."""
        self._over.set()
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._client.close()
        self._server.close()


def _read(end: socket.socket, octets: int) -> bytes:
    found = b""
    while len(found) < octets and (more := end.recv(octets - len(found))):
        found += more
    return found


@contextlib.contextmanager
def connected(name: str, client: Node, server: Node, address: str, *, source_port: int = 0) -> Iterator[Connection]:
    """Keep a connection for as long as the block lasts."""
    connection = Connection(name, client, server, address, source_port=source_port)
    try:
        yield connection
    finally:
        connection.close()


class Ping:
    """A ping that runs until it is ended.

    Args:
        name: What it is, in checks.
        node: Who sends.
        address: To whom.
    """

    def __init__(self, name: str, node: Node, address: str) -> None:
        self.name = name
        self._daemon = node.start(f"ping-{address}", "ping", "-n", "-i", str(_PING_SECONDS), address)

    @property
    def said(self) -> str:
        """Everything that it has printed."""
        return self._daemon.log.read_text(encoding="utf-8", errors="replace")

    @property
    def answers(self) -> int:
        """How many answers have come."""
        return self.said.count(" bytes from ")

    def goes_on(self, when: str) -> Check:
        """Check that answers come now."""
        before = self.answers
        ok = wait_until(lambda: self.answers >= before + _ROUNDS, _PATIENCE_SECONDS)
        return Check(f"{self.name} goes on: {when}", ok, f"{self.answers} answers so far")

    def hears(self, words: str, when: str) -> Check:
        """Check that it is told something from now on, and gets no answers any more."""
        before = self.said.count(words)
        told = wait_until(lambda: self.said.count(words) >= before + _ROUNDS, _PATIENCE_SECONDS)
        answers = self.answers
        ok = told and self.said.rstrip().rpartition("\n")[2].find(words) >= 0
        last = self.said.rstrip().rpartition("\n")[2]
        return Check(f"{self.name} is told {words!r}: {when}", ok, f"{answers} answers, then: {last}")

    def stop(self) -> None:
        """End it."""
        self._daemon.stop()


@contextlib.contextmanager
def pinging(name: str, node: Node, address: str) -> Iterator[Ping]:
    """Ping for as long as the block lasts."""
    ping = Ping(name, node, address)
    try:
        yield ping
    finally:
        ping.stop()
