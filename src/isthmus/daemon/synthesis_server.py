# SPDX-License-Identifier: BSD-3-Clause
"""The DNS server that synthesises answers (spec 8.4): sockets, an upstream resolver, limits; no rule of IPAE in it.

A question that comes becomes one to three upstream, each from a socket of its own with a random port and identifier
(RFC 5452 §9), asked at the same time. What ``Synthesiser`` makes of the answers is sent after its effects have been
carried out: whoever hears of an alias can use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from isthmus.address import Address, Family, Prefix
from isthmus.daemon.listener import Listener
from isthmus.daemon.messages import Message, log
from isthmus.errors import ConfigError, IsthmusError
from isthmus.ipae.alias import AliasEffect
from isthmus.ipae.synthesis import PAYLOAD_OCTETS, Question, Synthesiser, respond
from isthmus.rsip.rate import RateLimit

PORT = 53
_SMALLEST_PAYLOAD = 512
_LARGEST_MESSAGE = 65535
_HEADER_OCTETS = 12
_QR = 0x80
_TRIES = 2
_IDLE_SECONDS = 10.0
"How long a TCP client may be silent (RFC 7766 §6.2.3 asks for seconds)."
_BINDING_TRIES = 8
_BACKLOG = 100
_REMEDIES = {
    errno.EADDRINUSE: "; is another name server running?",
    errno.EADDRNOTAVAIL: "; no interface has the address",
    errno.EACCES: "; ports below 1024 need CAP_NET_BIND_SERVICE",
}
_WARNINGS_PER_SECOND = 1 / 60
_TRANSFERS = frozenset({dns.rdatatype.AXFR, dns.rdatatype.IXFR})


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A resolver that does the work."""

    address: Address
    port: int = PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Who may ask, and how much one client, and all of them."""

    clients: tuple[Prefix, ...] = ()
    "Whose questions are looked at; none: everybody's. Strangers use such a server against others (RFC 5358)."
    per_second: float | None = 50.0
    "Questions of one client address on average; None: no limit."
    burst: float = 100.0
    "And at once."
    at_once: int = 512
    "Questions under way, of all clients; what comes above that is dropped, and asked again."
    connections: int = 64
    "TCP connections."
    upstream_seconds: float = 2.0
    "How long an upstream resolver has for one answer; each is asked twice."


class SynthesisServer:
    """Answers on UDP and TCP, out of what a resolver upstream says."""

    def __init__(
        self,
        synthesiser: Synthesiser,
        *,
        upstreams: Sequence[Upstream],
        now: Callable[[], float],
        carry_out: Callable[[tuple[AliasEffect, ...]], Awaitable[None]],
        limits: ServerLimits | None = None,
    ) -> None:
        """Make a server that does not listen yet.

        Args:
            synthesiser: What makes the answers.
            upstreams: Whom to ask, the first first.
            now: The clock, in seconds since 1970.
            carry_out: Has effects done; an ``IsthmusError`` of it makes the answer SERVFAIL.
            limits: How much may be asked.
        """
        self._synthesiser = synthesiser
        self._upstreams = tuple(upstreams)
        self._now = now
        self._carry_out = carry_out
        self._limits = limits or ServerLimits()
        self._rate = RateLimit(self._limits.per_second, burst=self._limits.burst)
        self._warned = RateLimit(_WARNINGS_PER_SECOND)
        self._in_turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._udp: asyncio.DatagramTransport | None = None
        self._listener: Listener | None = None
        self._closed = asyncio.Event()
        self.counters: Counter[str] = Counter()
        "What has happened how often: questions, answers by rcode, what was dropped and why, aliases that were missing."

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._listener is not None
        return int(self._listener.socket.getsockname()[1])

    async def start(self, address: Address, *, port: int = PORT) -> None:
        """Listen on UDP and TCP.

        Args:
            address: Ours.
            port: 0: any that both have free.

        Raises:
            ConfigError: the address is not ours or the port is taken.
        """
        try:
            udp, listening = _sockets(address, port)
        except OSError as error:
            reason = f"cannot listen on {address} port {port}: {remedy_of(error)}"
            raise ConfigError("", key="dns.listen", reason=reason) from error
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp)
        self._listener = Listener(listening, self._let_in)

    async def stop(self) -> None:
        """Listen no more, and answer nothing that is under way."""
        if self._listener is None or self._udp is None:
            return
        self._listener.close()
        self._udp.close()
        tasks = [*self._tasks, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, self._closed.wait(), return_exceptions=True)

    def datagram(self, data: bytes, peer: tuple[str, int]) -> None:
        """Take one datagram."""
        if not self._serves(peer[0]):
            self.counters["no client"] += 1
        elif not self._rate.allow(peer[0], now=self._now()):
            self.counters["rate limited"] += 1
        elif len(self._tasks) >= self._limits.at_once:
            self.counters["too many at once"] += 1
        else:
            self._begin(self._answer_datagram(data, peer), self._tasks)

    def _serves(self, peer: str) -> bool:
        allowed = self._limits.clients
        return not allowed or any(Address.parse(peer) in each for each in allowed)

    def _begin(self, work: Coroutine[None, None, None], tasks: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    async def _answer_datagram(self, data: bytes, peer: tuple[str, int]) -> None:
        answer = await self.respond(data, largest=None)
        if answer is not None and self._udp is not None and not self._udp.is_closing():
            self._udp.sendto(answer, peer)

    def _let_in(self, accepted: socket.socket, where: tuple[str, int]) -> None:
        peer = where[0]
        accepted.setblocking(False)
        if not self._serves(peer):
            self.counters["no client"] += 1
            accepted.close()
            return
        if len(self._connections) >= self._limits.connections:
            self.counters["too many connections"] += 1
            accepted.close()
            return
        task = self._begin(self._converse(accepted, peer), self._connections)
        task.add_done_callback(lambda _: accepted.close())

    async def _converse(self, connection: socket.socket, peer: str) -> None:
        """Serve one TCP connection, one question after the other (RFC 7766)."""
        with contextlib.suppress(OSError, EOFError):  # TimeoutError is an OSError
            while True:
                async with asyncio.timeout(_IDLE_SECONDS):
                    data = await _read(connection, int.from_bytes(await _read(connection, 2), "big"))
                if not self._rate.allow(peer, now=self._now()):
                    self.counters["rate limited"] += 1
                    return
                answer = await self.respond(data, largest=_LARGEST_MESSAGE)
                if answer is None:
                    return
                async with asyncio.timeout(_IDLE_SECONDS):
                    loop = asyncio.get_running_loop()
                    await loop.sock_sendall(connection, len(answer).to_bytes(2, "big") + answer)

    def closed(self) -> None:
        """The datagram socket is."""
        self._closed.set()

    async def respond(self, data: bytes, *, largest: int | None) -> bytes | None:
        """Make the answer to one message.

        Args:
            data: The message.
            largest: Longest answer in octets; None: over UDP, what the client says that it takes, and 1232 at most.

        Returns:
            None: it deserves no answer.
        """
        if len(data) < _HEADER_OCTETS or data[2] & _QR:
            self.counters["no question"] += 1
            return None
        self.counters["questions"] += 1
        try:
            query = dns.message.from_wire(data)
        except (dns.exception.DNSException, ValueError):
            return self._sent(_formerr(data), _SMALLEST_PAYLOAD)
        if largest is None:
            payload = query.payload if query.edns >= 0 else _SMALLEST_PAYLOAD
            largest = min(max(payload, _SMALLEST_PAYLOAD), PAYLOAD_OCTETS)
        refused = _refusal(query)
        if refused is not None:
            return self._sent(respond(query, rcode=refused), largest)
        return self._sent(await self._synthesise(query), largest)

    async def _synthesise(self, query: dns.message.Message) -> dns.message.Message:
        heard = await asyncio.gather(*(self._ask(each, query) for each in self._synthesiser.questions(query)))
        # In turn: nobody may hear of an alias that another question has leased and that is not carried out yet.
        async with self._in_turn:
            answer = self._synthesiser.answer(query, heard, now=self._now())
            if answer.overflow is not None:
                self.counters["no alias left"] += 1
                if self._warned.allow("", now=self._now()):
                    free_in = round(answer.overflow.free_at - self._now())
                    log(Message.ALIASES_EXHAUSTED, name=str(query.question[0].name), free_in_seconds=free_in)
            if answer.effects:
                try:
                    await self._carry_out(answer.effects)
                except IsthmusError as error:
                    self.counters["not carried out"] += 1
                    if self._warned.allow("", now=self._now()):
                        log(Message.ALIAS_NOT_BOUND, problem=str(error))
                    assert self._synthesiser.aliases is not None
                    self._synthesiser.aliases.withdraw(answer.effects, now=self._now())
                    return respond(query, rcode=dns.rcode.SERVFAIL)
        return answer.message

    async def _ask(self, question: Question, query: dns.message.Message) -> dns.message.Message | None:
        """Ask upstream; None: nobody has answered with anything that can be used."""
        asking = dns.message.make_query(question.name, question.rdtype, use_edns=0, payload=PAYLOAD_OCTETS)
        if question.as_asked:
            asking.flags |= query.flags & (dns.flags.CD | dns.flags.AD)
            asking.want_dnssec(bool(query.ednsflags & dns.flags.DO))
        failed: dns.message.Message | None = None
        for upstream in self._upstreams * _TRIES:
            try:
                heard = await self._exchange(asking, upstream)
            except (dns.exception.DNSException, OSError, EOFError, ValueError):
                self.counters["upstream failures"] += 1
                continue
            if heard.rcode() >= dns.rcode.BADVERS:  # of EDNS, and not for a client that may have none
                continue
            if heard.rcode() not in (dns.rcode.SERVFAIL, dns.rcode.REFUSED):
                return heard
            failed = heard
        return failed

    async def _exchange(self, asking: dns.message.Message, upstream: Upstream) -> dns.message.Message:
        heard, by_tcp = await dns.asyncquery.udp_with_fallback(
            asking,
            str(upstream.address),
            timeout=self._limits.upstream_seconds,
            port=upstream.port,
            ignore_unexpected=True,
            ignore_errors=True,
        )
        self.counters["upstream by TCP"] += by_tcp
        return heard

    def _sent(self, message: dns.message.Message, largest: int) -> bytes:
        self.counters[dns.rcode.to_text(message.rcode())] += 1
        wire = message.to_wire(max_size=largest, prefer_truncation=True)
        self.counters["truncated"] += bool(wire[2] & 0x02)
        return wire


class _Datagrams(asyncio.DatagramProtocol):
    """Hands datagrams on."""

    def __init__(self, server: SynthesisServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.datagram(data, addr)

    def error_received(self, exc: Exception) -> None:
        """An ICMP error about an earlier answer; nobody waits for it."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._server.closed()


def problem_of(address: Address, port: int) -> OSError | None:
    """What is in the way of listening here, for ``isthmus doctor``; None: nothing."""
    try:
        for each in _sockets(address, port):
            each.close()
    except OSError as error:
        return error
    return None


def remedy_of(error: OSError) -> str:
    """What stands behind an error of listening."""
    return f"{error.strerror}{_REMEDIES.get(error.errno or 0, '')}"


def _sockets(address: Address, port: int) -> tuple[socket.socket, socket.socket]:
    """Bind UDP and TCP to one port.

    Raises:
        OSError: the address is not ours or the port is taken.
    """
    family = socket.AF_INET if address.family is Family.IPV4 else socket.AF_INET6
    for left in reversed(range(1 if port else _BINDING_TRIES)):
        udp, tcp = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_STREAM)
        try:
            udp.setblocking(False)
            udp.bind((str(address), port))
            tcp.setblocking(False)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((str(address), udp.getsockname()[1]))
            tcp.listen(_BACKLOG)
        except OSError:
            udp.close()
            tcp.close()
            if not left:
                raise
        else:
            return udp, tcp
    raise AssertionError


async def _read(connection: socket.socket, octets: int) -> bytes:
    """Read exactly so many octets.

    Raises:
        EOFError: the client hangs up before.
    """
    data = b""
    while len(data) < octets:
        piece = await asyncio.get_running_loop().sock_recv(connection, octets - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def _refusal(query: dns.message.Message) -> dns.rcode.Rcode | None:
    """Why a message is not even passed on; None: it is a question of one resolver's client."""
    if query.edns > 0:
        return dns.rcode.BADVERS
    if query.opcode() != dns.opcode.QUERY:
        return dns.rcode.NOTIMP
    if len(query.question) != 1:
        return dns.rcode.FORMERR
    (asked,) = query.question
    if asked.rdclass != dns.rdataclass.IN or asked.rdtype in _TRANSFERS:
        return dns.rcode.REFUSED
    return None


def _formerr(data: bytes) -> dns.message.Message:
    """An answer to what cannot be read: its identifier, and that."""
    response = dns.message.Message(id=int.from_bytes(data[:2], "big"))
    response.flags = dns.flags.QR | dns.flags.RA
    response.set_rcode(dns.rcode.FORMERR)
    return response
