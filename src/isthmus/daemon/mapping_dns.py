# SPDX-License-Identifier: BSD-3-Clause
"""Mapping entries from nameservers: zone transfers and single questions (seed IPAE 8.1; spec 6.3).

What to ask and what follows from an answer is decided in ``ipae/zone_copy.py`` and ``ipae/resolve.py``; here are
the sockets. Servers are addresses, never names, and are reached by the machine's own routes: nothing that
is looked up here is needed to look it up.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rdata
import dns.rdatatype
import dns.tsig
import dns.xfr

from isthmus.address import Address
from isthmus.border.mapping import Mapping
from isthmus.daemon.mapping_table import MappingTable
from isthmus.daemon.messages import Message, log
from isthmus.daemon.zone_transfer import transfer
from isthmus.errors import ConfigError, IsthmusError
from isthmus.ipae.mapping import MappingRefused, OwnNetwork
from isthmus.ipae.resolve import (
    FAILED,
    Ask,
    Changed,
    Distrusted,
    Forward,
    LookupRules,
    Outcome,
    Resolver,
    Unreachable,
    reply_of,
)
from isthmus.ipae.zone_copy import AskSerial, CopyRules, Fetch, Replace, Soa, ZoneCopy
from isthmus.ipae.zone_records import ZoneRecords

_PAYLOAD = 1232
"""Largest answer by UDP that is asked for, in octets."""
_AT_ONCE = 64
"""Sockets for single questions."""
_LATE = 64
"""Packets that come between an answer and the mapping that is made of it."""
_FAILURES = (dns.exception.DNSException, OSError, ValueError, EOFError)


Server = tuple[Address, int]
"""Address and port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsRules:
    """Where a mapping zone is, and how it is used."""

    zone: dns.name.Name
    "Absolute."
    servers: tuple[Server, ...]
    "The nameservers, in the order in which they are asked."
    transfer: bool = True
    "Whether a copy of the whole zone is kept."
    lookups: bool = False
    "Whether a nameserver is asked about a destination that is not mapped."
    key: dns.tsig.Key | None = None
    "Signs every question, and must have signed every answer (RFC 8945); None: nothing is signed."
    copy: CopyRules = field(default_factory=CopyRules)
    limits: LookupRules | None = None
    "Limits of lookups; zone, servers and own networks are filled in. None: the defaults."
    timeout: float = 0.4
    "Seconds for one question to one server; the packet that waits has one second."
    transfer_timeout: float = 600.0
    "Seconds for a whole transfer."


def read_key(path: Path) -> dns.tsig.Key:
    """Read a TSIG key from a file of one line, ``hmac-sha256:NAME:SECRET`` in Base64 (RFC 8945 §6).

    Raises:
        ConfigError: there is none.
    """
    try:
        algorithm, name, secret = path.read_text(encoding="ascii").strip().split(":")
        base64.b64decode(secret, validate=True)
        key = dns.tsig.Key(name, secret, algorithm)
        dns.tsig.get_context(key)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise ConfigError(str(path), key="", reason=error.strerror or str(error)) from error
    except (ValueError, dns.exception.DNSException, NotImplementedError) as error:
        reason = "is no TSIG key: one line like hmac-sha256:mapping.example:SECRET, the secret in Base64"
        raise ConfigError(str(path), key="", reason=reason) from error
    return key


class MappingDns:
    """Keeps a mapping table in step with a mapping zone, until ``run`` is cancelled.

    Args:
        rules: Where the zone is.
        table: What is kept in step.
        forward: Sends a packet once more through the plane, which has its mapping now.
        unreachable: Answers a packet with ICMP 3/1: there is no mapping, or no answer in time.
    """

    def __init__(
        self,
        rules: DnsRules,
        table: MappingTable,
        *,
        forward: Callable[[bytes], None],
        unreachable: Callable[[bytes], None],
    ) -> None:
        self._rules = rules
        self._table = table
        self._forward = forward
        self._unreachable = unreachable
        self._name = str(rules.zone)
        self._copy = ZoneCopy(rules.copy, now=time.monotonic()) if rules.transfer else None
        self._content: ZoneRecords | None = None
        "The records of our copy, for incremental transfers."
        self._resolver = Resolver(_limits(rules, table.own)) if rules.lookups else None
        self._late: list[tuple[Address, bytes]] = []
        "Packets whose answer is there, and not in the plane yet."
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets = asyncio.Semaphore(_AT_ONCE)
        table.dns = self.describe

    def miss(self, destination: Address, source: Address, packet: bytes) -> Outcome:
        """Take a packet for which the plane has no mapping (``Resolver.miss``)."""
        if self._resolver is None:
            return Outcome.UNREACHABLE
        outcome = self._resolver.miss(destination, source, packet, now=time.monotonic())
        self._wake.set()
        if outcome is not Outcome.FORWARD or self._table.mapping.lookup(destination) is not None:
            return outcome
        # What is known is being programmed. Sent through the plane now, the packet would come back here at once.
        if len(self._late) >= _LATE:
            return Outcome.CROWDED
        self._late.append((destination, packet))
        return Outcome.HELD

    def describe(self) -> dict[str, Any]:
        """The zone, the version of our copy, and what became of packets that missed; for JSON."""
        row: dict[str, Any] = {"zone": self._name, "serial": self._copy and self._copy.serial}
        if self._resolver is not None:
            row |= {"waiting": self._resolver.waiting, "remembered": len(self._resolver)}
            row |= {"missed": {each.value: count for each, count in self._resolver.counts.items()}}
        return row

    def look_now(self) -> None:
        """Ask for the zone's serial number at once."""
        if self._copy is not None:
            self._copy.look_now(time.monotonic())
            self._wake.set()

    async def run(self) -> None:
        """Ask, fetch and program, until cancelled."""
        try:
            while True:
                self._wake.clear()
                for machine in (self._copy, self._resolver):
                    if machine is not None and (at := machine.get_timer()) is not None and at <= time.monotonic():
                        machine.handle_timer(time.monotonic())
                await self._carry_out()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._wait()):
                        await self._wake.wait()
        finally:
            for each in self._tasks:
                each.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _wait(self) -> float | None:
        """For how many seconds nothing is due; None: until something is received."""
        timers = [each.get_timer() for each in (self._copy, self._resolver) if each is not None]
        due = [at for at in timers if at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    async def _carry_out(self) -> None:
        """Do what the two machines want, in their order; a mapping is programmed before its packets go."""
        for effect in [] if self._copy is None else self._copy.next_effects():
            match effect:
                case AskSerial():
                    self._start(self._ask_serial())
                case Fetch(have):
                    self._start(self._fetch(have))
                case Replace(mapping, serial):
                    await self._replace(mapping, serial)
        late, self._late = self._late, []
        effects = [] if self._resolver is None else self._resolver.next_effects()
        if self._resolver is not None and any(isinstance(each, Changed) for each in effects):
            await self._program(self._table.set_answers(self._resolver.mapping, self._name))
        for each in effects:
            match each:
                case Ask():
                    self._start(self._ask(each))
                case Forward(packets):
                    for packet in packets:
                        self._forward(packet)
                case Unreachable(packets):
                    for packet in packets:
                        self._unreachable(packet)
                case Distrusted(fault):
                    log(Message.MAPPING_REFUSED, source=self._name, problem=str(fault))
        for destination, packet in late:
            mapped = self._table.mapping.lookup(destination) is not None
            (self._forward if mapped else self._unreachable)(packet)

    async def _replace(self, mapping: Mapping, serial: int | None) -> None:
        if serial is None:
            log(Message.MAPPING_STALE, zone=self._name)
        done = await self._program(self._table.set_zone(mapping, self._name, serial))
        if done and self._resolver is not None:
            self._resolver.forget()
        if done and serial is not None:
            log(Message.MAPPING_CHANGED, source=self._name, serial=serial, entries=len(mapping))

    async def _program(self, change: Awaitable[Any]) -> bool:
        """Have the table changed; if the plane refuses, what it has stays, and the daemon goes on."""
        try:
            await change
        except IsthmusError as error:
            log(Message.MAPPING_REFUSED, source=self._name, problem=str(error))
            return False
        return True

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._wake.set())

    def _query(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> dns.message.QueryMessage:
        query = dns.message.make_query(name, rdtype, use_edns=0, payload=_PAYLOAD)
        query.flags = 0
        if self._rules.key is not None:
            query.use_tsig(self._rules.key)
        return query

    async def _exchange(
        self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, server: Server, seconds: float
    ) -> dns.message.Message:
        answer, _ = await dns.asyncquery.udp_with_fallback(
            self._query(name, rdtype),
            str(server[0]),
            timeout=seconds,
            port=server[1],
            ignore_errors=True,
            ignore_unexpected=True,
        )
        if self._rules.key is not None and not answer.had_tsig:
            raise ValueError("the answer is not signed")
        return answer

    async def _ask(self, asked: Ask) -> None:
        """Put a question to one server after the other until one says something of use."""
        assert self._resolver is not None
        reply, rdtype = FAILED, _limits(self._rules, ()).rdtype
        async with self._sockets:
            for server in self._rules.servers:
                with contextlib.suppress(*_FAILURES):
                    answer = await self._exchange(asked.name, rdtype, server, self._rules.timeout)
                    reply = reply_of(answer, asked, rdtype)
                if not reply.failed:
                    break
        self._resolver.receive(asked, reply, now=time.monotonic())

    async def _ask_serial(self) -> None:
        assert self._copy is not None
        problem: object = "no server"
        for server in self._rules.servers:
            try:
                answer = await self._exchange(self._rules.zone, dns.rdatatype.SOA, server, 5 * self._rules.timeout)
                for rrset in answer.answer:
                    if rrset.name == self._rules.zone and rrset.rdtype == dns.rdatatype.SOA:
                        soa: Any = rrset[0]
                        start = Soa(serial=soa.serial, refresh=soa.refresh, retry=soa.retry)
                        return self._copy.receive_soa(start, now=time.monotonic())
                problem = f"{server[0]} does not serve the zone"
            except _FAILURES as error:
                problem = f"{server[0]}: {str(error) or type(error).__name__}"
        log(Message.MAPPING_UNREACHABLE, zone=self._name, problem=str(problem))
        self._copy.failed(now=time.monotonic())
        return None

    async def _fetch(self, have: int | None) -> None:
        """Transfer the zone, and check it in a thread of its own: a large one takes long."""
        assert self._copy is not None
        problem: object = "no server"
        for server in self._rules.servers:
            try:
                async with asyncio.timeout(self._rules.transfer_timeout):
                    content = await self._transfer(server, have)
                mapping = await asyncio.to_thread(content.mapping, self._table.own)
                ttl = await asyncio.to_thread(content.least_ttl)
            except MappingRefused as error:
                log(Message.MAPPING_REFUSED, source=self._name, problem=str(error))
                return self._copy.refused(now=time.monotonic())
            except _FAILURES as error:
                problem = f"{server[0]}: {str(error) or type(error).__name__}"
            else:
                self._content = content
                now = time.monotonic()
                return self._copy.receive_zone(mapping, serial=content.serial or 0, ttl=float(ttl), now=now)
        log(Message.MAPPING_UNREACHABLE, zone=self._name, problem=str(problem))
        self._copy.failed(now=time.monotonic())
        return None

    async def _transfer(self, server: Server, have: int | None) -> ZoneRecords:
        content, self._content = self._content, None
        if content is None or have is None:
            content = ZoneRecords(self._rules.zone)
        query, _ = dns.xfr.make_query(content, serial=content.serial)
        if self._rules.key is not None:
            query.use_tsig(self._rules.key)
        await transfer(server, content, query)
        return content


def _limits(rules: DnsRules, own: tuple[OwnNetwork, ...]) -> LookupRules:
    """The limits with what is known besides."""
    servers = tuple(address for address, _ in rules.servers)
    return replace(rules.limits or LookupRules(zone=rules.zone), zone=rules.zone, servers=servers, own=own)
