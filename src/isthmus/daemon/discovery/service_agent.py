# SPDX-License-Identifier: BSD-3-Clause
"""The SLP service agent of a gateway: sockets, and directory agents (RFC 2608 §6, §12.2; RFC 3105 §4).

It listens on port 427 of the near interface, for the group and for its own address, over UDP
and TCP. Directory agents that are configured, or are heard, are told of the gateway again and
again, because its load changes (RFC 3105 §6).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from isthmus.address import Address
from isthmus.daemon.discovery.advertisement import Advertisement
from isthmus.daemon.discovery.near import NearInterface, datagrams, listener
from isthmus.daemon.discovery.template import share_scope
from isthmus.daemon.messages import Message as LogMessage
from isthmus.daemon.messages import log
from isthmus.errors import WireError
from isthmus.rsip.rate import RateLimit
from isthmus.wire.slp.codes import DIRECTORY_AGENT, GROUP, PORT, ErrorCode, Flag, Function
from isthmus.wire.slp.message import DaAdvert, Header, Message, SrvAck, SrvDeReg, SrvReg, SrvRqst, emit, parse
from isthmus.wire.slp.url import ServiceUrl

ANSWERS_PER_SECOND = 20.0
"""To one address; a forged source gets no more than this."""
_AT_ONCE = 64
_LARGEST = 65536
_STREAMS = 16
_STREAM_SECONDS = 30.0
_MOST_AGENTS = 8
"""Directory agents that are told; who floods the group with advertisements gets no further."""
_MOST_TASKS = 3 * _MOST_AGENTS
"""Tasks at a time: who lets agents come and go makes us send no more than this."""
_LOOK_SECONDS = 900.0
"""CONFIG_DA_FIND (RFC 2608 §13): how often to look for directory agents."""
_RETRY_SECONDS = (2.0, 4.0, 8.0)
"""CONFIG_RETRY, doubled until CONFIG_RETRY_MAX (RFC 2608 §6.3, §13)."""


@dataclass(slots=True)
class _DirectoryAgent:
    """One that is told."""

    configured: bool
    boot_timestamp: int = 0
    xid: int = 0
    "Of the registration that it has not acknowledged; 0: none."
    told: asyncio.Task[None] | None = None
    "What tells it at present: whoever advertises it again and again gets no more sent to it."


class ServiceAgent:
    """Answers for one gateway."""

    def __init__(
        self,
        near: NearInterface,
        advertisement: Advertisement,
        *,
        directory_agents: tuple[Address, ...] = (),
        refresh: float = 60.0,
        port: int = PORT,
    ) -> None:
        """Open the sockets.

        Args:
            near: Where it listens.
            advertisement: What it answers.
            directory_agents: Those that are told without being looked for.
            refresh: Seconds between two registrations with them.
            port: 427, except in tests.

        Raises:
            Unsupported: the port is taken, or may not be had.
        """
        self._advertisement = advertisement
        self._port = port
        self._refresh = refresh
        self._rate = RateLimit(ANSWERS_PER_SECOND, burst=ANSWERS_PER_SECOND)
        self._agents = {str(each): _DirectoryAgent(configured=True) for each in directory_agents}
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams = 0
        self._server: asyncio.Server | None = None
        with contextlib.ExitStack() as stack:
            self._own = stack.enter_context(datagrams(near, port))
            self._group = stack.enter_context(datagrams(near, port, group=GROUP))
            self._listener = stack.enter_context(listener(near, port))
            stack.pop_all()

    async def start(self) -> None:
        """Begin to answer, and look for directory agents."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._own, self._read, self._own, False)
        loop.add_reader(self._group, self._read, self._group, True)
        self._server = await asyncio.start_server(self._stream, sock=self._listener)
        self._spawn(self._look())
        self._spawn(self._keep_registered())

    def stop(self) -> None:
        """Tell directory agents that the service is gone, and close."""
        for address in self._agents:
            self._send(SrvDeReg(scopes=self._advertisement.scopes, url=self._advertisement.entry), address)
        for task in self._tasks:
            task.cancel()
        loop = asyncio.get_running_loop()
        for opened in (self._own, self._group):
            loop.remove_reader(opened)
            opened.close()
        if self._server is not None:
            self._server.close()
        self._listener.close()

    @property
    def directory_agents(self) -> tuple[str, ...]:
        """Those that are told."""
        return tuple(self._agents)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _tell(self, address: str, agent: _DirectoryAgent) -> None:
        if agent.told is not None and not agent.told.done():
            return
        if agent.configured or len(self._tasks) < _MOST_TASKS:
            agent.told = self._spawn(self._register(address))

    # --- requests ---------------------------------------------------------------------------

    def _read(self, opened: socket.socket, multicast: bool) -> None:
        now = asyncio.get_running_loop().time()
        for _ in range(_AT_ONCE):
            try:
                octets, peer = opened.recvfrom(_LARGEST)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error about an earlier answer
            if not self._rate.allow(peer[0], now=now):
                continue
            reply = self._advertisement.answer(octets, multicast=multicast)
            if reply is None:
                self._hear(octets, peer[0])
            else:
                with contextlib.suppress(OSError):
                    self._own.sendto(reply, peer)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests over TCP until the other end has enough (RFC 2608 §6.2)."""
        self._streams += 1
        try:
            while self._streams <= _STREAMS:
                async with asyncio.timeout(_STREAM_SECONDS):
                    start = await reader.readexactly(5)
                    length = int.from_bytes(start[2:], "big")
                    if not len(start) <= length <= _LARGEST:
                        return
                    octets = start + await reader.readexactly(length - len(start))
                    reply = self._advertisement.answer(octets, multicast=False, stream=True)
                    if reply is None:
                        return
                    writer.write(reply)
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self._streams -= 1
            writer.close()

    # --- directory agents -------------------------------------------------------------------

    def _send(self, body: SrvReg | SrvDeReg | SrvRqst, address: str, *, flags: Flag = Flag.NONE) -> int:
        xid = 1 + secrets.randbelow(0xFFFF)
        with contextlib.suppress(OSError):
            self._own.sendto(emit(Message(xid=xid, body=body, flags=flags)), (address, self._port))
        return xid

    async def _look(self) -> None:
        """Ask the group for directory agents (RFC 2608 §12.2.1); those there are answer to our own address."""
        request = SrvRqst(service_type=DIRECTORY_AGENT, scopes=self._advertisement.scopes)
        while True:
            for seconds in _RETRY_SECONDS:
                self._send(request, GROUP, flags=Flag.REQUEST_MCAST)
                await asyncio.sleep(seconds)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _keep_registered(self) -> None:
        while True:
            for address, agent in tuple(self._agents.items()):
                self._tell(address, agent)
            await asyncio.sleep(self._refresh)

    async def _register(self, address: str) -> None:
        """Register once, with repetitions until it is acknowledged."""
        for seconds in _RETRY_SECONDS:
            agent = self._agents.get(address)
            if agent is None:
                return
            agent.xid = self._send(self._advertisement.registration, address, flags=Flag.FRESH)
            xid = agent.xid
            await asyncio.sleep(seconds)
            if agent.xid != xid:
                return

    def _hear(self, octets: bytes, source: str) -> None:
        """Take note of what directory agents say."""
        try:
            if Header.parse(octets).function not in (Function.DA_ADVERT, Function.SRV_ACK):
                return
            message = parse(octets)
            if isinstance(message.body, DaAdvert):
                self._advertised(message.body, ServiceUrl.parse(message.body.url).host)
            elif isinstance(message.body, SrvAck):
                self._acknowledged(message, message.body, source)
        except WireError:
            return

    def _advertised(self, advert: DaAdvert, host: str) -> None:
        """Register with a directory agent that is new, or has been started again (RFC 2608 §12.2.2)."""
        known = self._agents.get(host)
        if advert.error or not share_scope(advert.scopes, self._advertisement.scopes):
            return
        if advert.boot_timestamp == 0:
            if known is not None and not known.configured:
                del self._agents[host]
            return
        if known is None:
            try:
                Address.parse(host)
            except ValueError:
                # Silent: a directory agent may give a name; it is not looked up, or anybody could make us ask the DNS.
                return
            if len(self._agents) >= _MOST_AGENTS:
                return
            known = self._agents[host] = _DirectoryAgent(configured=False)
        if known.boot_timestamp != advert.boot_timestamp:
            known.boot_timestamp = advert.boot_timestamp
            self._tell(host, known)

    def _acknowledged(self, message: Message, ack: SrvAck, source: str) -> None:
        agent = self._agents.get(source)
        if agent is None or agent.xid != message.xid:
            return
        agent.xid = 0
        if ack.error != ErrorCode.OK:
            log(LogMessage.SLP_REFUSED, agent=source, error=ack.error)
