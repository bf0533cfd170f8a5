# SPDX-License-Identifier: BSD-3-Clause
"""The driver of a gateway: carries effects out, in the order of ``border.effect``.

    persist → program → answer          for what begins
    unprogram → persist → answer        for what ends

Everything that arrives while one batch is being written to the disk becomes the next
batch: one transaction, and one flush, for many leases (group commit). No answer leaves
before its batch is durable and programmed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from isthmus.address import Address
from isthmus.border.binding import BindingKey, Owner
from isthmus.border.effect import Bind, Deregister, Lapse, Peer, Plan, Register, Remember, Send, Unbind, in_order
from isthmus.border.verdict import Reason, Violation
from isthmus.daemon.arrivals import Arrivals
from isthmus.daemon.clock import Clock
from isthmus.daemon.lapses import Lapses
from isthmus.daemon.messages import Message, log, log_all
from isthmus.daemon.misuses import Misuses
from isthmus.daemon.recall import HOSTS_AT_HAND, Recall
from isthmus.daemon.restored import ReadAhead, Restored, read, restore
from isthmus.errors import IsthmusError, PlaneError, StoreError, WireError
from isthmus.plane import Plane
from isthmus.rsip.ended import Farewells
from isthmus.rsip.gateway import Gateway
from isthmus.store import DEPARTED_SECONDS, LeaseStore
from isthmus.wire.rsip.codes import ErrorCode
from isthmus.wire.rsip.message import ErrorResponse, emit, parse
from isthmus.wire.rsip.parameter import Error

SERVED_AT_ONCE = 256
"""Datagrams that one turn of the event loop serves."""
AFTER_FAILURE_SECONDS = 0.5
"""How long to do nothing after store or plane have failed: what has run out meanwhile is due again at once."""


class GatewayDriver:
    """Joins a ``Gateway`` to a store, a plane and sockets."""

    def __init__(
        self,
        *,
        make_gateway: Callable[[], Gateway],
        store: LeaseStore,
        plane: Plane,
        clock: Clock,
        send: Callable[[bytes, Peer], None],
        keep: int = HOSTS_AT_HAND,
        ahead: ReadAhead | None = None,
        say: Callable[[Farewells], None] | None = None,
    ) -> None:
        """Put the parts together; nothing runs yet.

        Args:
            make_gateway: Makes a gateway that knows nothing; called again after a failure of store or plane.
            store: Where leases are kept.
            plane: What moves packets.
            clock: Seconds since 1970.
            send: Sends one control message.
            keep: How many hosts may be in memory; of the others the store knows.
            ahead: Has begun to read the store for the first ``restore``.
            say: Sends very many messages; None: ``send`` does.
        """
        self._ahead = ahead
        self._make_gateway = make_gateway
        self._store = store
        self._plane = plane
        self._clock = clock
        self._send = send
        self._wake = asyncio.Event()
        self.gateway = make_gateway()
        self._keep = keep
        self._lapses = Lapses(
            store=store,
            plane=plane,
            clock=clock,
            recall=self._recall_some,
            tell=self._say_each if say is None else say,
            wake=self._wake.set,
        )
        self._recall = Recall(store, keep=keep, lapses=self._lapses)
        self._refused: Counter[ErrorCode | str] = Counter()
        self._arrivals = Arrivals()
        self._unsaid: Plan | None = None
        "A batch that is durable and programmed, and not yet answered."
        self._serving = False
        "Whether a turn of the event loop is asked for to serve more datagrams."
        self._misuses = Misuses()
        self.batches = 0
        self.granted = 0

    @property
    def refusals(self) -> Counter[ErrorCode | str]:
        """How many control messages were not served, and why; see ``Gateway.refusals``."""
        return self._refused + self._arrivals.refused + self.gateway.refusals

    def restore(self) -> Restored:
        """Read the store back into the gateway; returns what the plane should hold.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        now = self._clock.now()
        gateway = self._make_gateway()
        since = now - max(gateway.rest_seconds, DEPARTED_SECONDS)
        ahead, self._ahead = self._ahead, None
        kept = read(self._store, since=since, keep=self._keep) if ahead is None else ahead.take()
        restored = restore(gateway, kept, now=now)
        hosts, bindings = kept.counts
        self._refused += self.gateway.refusals
        self.gateway = gateway
        self._lapses.reset()
        self._recall.begin()
        if hosts:
            log(Message.RESTORED, hosts=hosts, bindings=bindings)
        return restored

    def datagram(self, data: bytes, peer: Peer) -> None:
        """Take one datagram."""
        self.datagrams(((data, peer),))

    def datagrams(self, received: Sequence[tuple[bytes, Peer]]) -> None:
        """Take the datagrams that came together; of very many the first now, the others in the turns that follow."""
        self._arrivals.add(received, now=self._clock.now())
        if not self._serving:
            self._serve()

    def _serve(self) -> None:
        some = self._arrivals.take(SERVED_AT_ONCE)
        if self._have({peer.owner for _, peer in some}):
            receive, now = self.gateway.receive_datagram, self._clock.now()
            for data, peer in some:
                receive(data, peer, now=now)
        self._wake.set()
        self._serving = len(self._arrivals) > 0
        if self._serving:
            asyncio.get_running_loop().call_soon(self._serve)

    def message(self, data: bytes, peer: Peer) -> None:
        """Take one message of a TCP connection."""
        if self._have((peer.owner,)):
            self.gateway.receive_message(data, peer, now=self._clock.now())
            self._wake.set()

    def broken(self, error: WireError, peer: Peer) -> None:
        """Take word that a TCP stream cannot be cut any more."""
        self.gateway.receive_broken_stream(error, peer, now=self._clock.now())
        self._wake.set()

    def lost(self, peer: Peer) -> None:
        """Take word that a TCP connection ended."""
        self.gateway.connection_lost(peer)

    def violations(self, events: Iterable[Violation]) -> None:
        """Take misuses that the plane saw: of as many alike as there are, one is reported to their host, and logged."""
        counted: dict[tuple[Owner, Reason], list[Violation]] = {}
        for each in events:
            counted.setdefault((each.owner, each.reason), []).append(each)
        here = self._have({owner for owner, _ in counted})
        for alike in counted.values():
            self._misuses.add(alike[0], len(alike))
            if here:
                self.gateway.report(alike[0], now=self._clock.now())
        self._wake.set()

    def _have(self, owners: Iterable[Owner]) -> bool:
        """Have hosts at hand before anything concerns them; False if the store cannot be read."""
        try:
            self._recall.need(self.gateway, owners, now=self._clock.now())
        except StoreError as error:
            log(Message.STORE_FAILED, error=str(error))
            return False
        return True

    # What the operator does

    def holders(self, address: Address, port: int | None = None) -> tuple[BindingKey, ...]:
        """Who holds a leased address, or a port of it; see ``Gateway.holders``.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        folding = self.gateway.folding
        stored = self._store.holders(address, port) if len(folding) else ()
        return (*self.gateway.holders(address, port=port), *(key for key in stored if key.owner in folding))

    def held_by(self, owner: Owner) -> tuple[BindingKey, ...]:
        """What a host holds.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        self._recall.need(self.gateway, (owner,), now=self._clock.now())
        return self.gateway.held_by(owner)

    def revoke(self, keys: Iterable[BindingKey]) -> list[BindingKey]:
        """End bindings and tell their hosts; returns those that stood.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        keys, now = tuple(keys), self._clock.now()
        self._recall.need(self.gateway, {key.owner for key in keys}, now=now)
        self._wake.set()
        return [key for key in keys if self.gateway.revoke(key, now=now)]

    def dismiss(self, owner: Owner) -> bool:
        """End a registration and what is held under it, and tell the host; False if there is none.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        now = self._clock.now()
        self._recall.need(self.gateway, (owner,), now=now)
        self._wake.set()
        return self.gateway.dismiss(owner, now=now)

    def nudge(self) -> None:
        """Look at the gateway again: something was asked of it directly."""
        self._wake.set()

    async def run(self) -> None:
        """Carry out effects until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._lapses.run())
            await self._run()

    async def _run(self) -> None:
        while True:
            await self._wait()
            self._wake.clear()
            if self._lapses.failed is not None:
                self._say()
                _log_failed(self._lapses.failed)
                await self._lapses.drain()
                await self._begin_again()
                await asyncio.sleep(AFTER_FAILURE_SECONDS)
            now = self._clock.now()
            self._look(now)
            self.gateway.handle_timer(now=now)
            effects = self.gateway.next_effects()
            self._arrivals.begin()
            if effects:
                await self._carry_out(in_order(effects))
            else:
                self._say()
                self._arrivals.answered()
            if not self._wake.is_set():
                self._say()
            self._recall.fold(self.gateway)

    def _look(self, now: float) -> None:
        try:
            self._recall.look(self.gateway, now=now)
        except StoreError as error:
            self._recall.pause(until=now + AFTER_FAILURE_SECONDS)
            log(Message.STORE_FAILED, error=str(error))

    async def _wait(self) -> None:
        if self._wake.is_set():
            return
        timers = (self.gateway.get_timer(), self._recall.timer(self.gateway))
        timer = min((each for each in timers if each is not None), default=None)
        seconds = None if timer is None else max(0.0, timer - self._clock.now())
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _carry_out(self, plan: Plan) -> None:
        self.batches += 1
        durable = False
        try:
            self._plane.apply(plan.unprogram)
            if plan.persist:
                written = self._store.submit(plan.persist, now=self._clock.now())
                self._say()
                await asyncio.wrap_future(written)
            self._say()
            durable = True
            self._program(plan)
        except (StoreError, PlaneError) as error:
            self._say()
            _log_failed(error)
            await self._lapses.drain()
            if durable:
                self._take_back(plan)
            self._say_failed(plan)
            self._arrivals.answered()
            await self._begin_again()
            await asyncio.sleep(AFTER_FAILURE_SECONDS)
            return
        self._unsaid = plan

    def _say(self) -> None:
        """Send the answers of the batch that was carried out last, unless that has been done.

        Where another batch waits it is given to the store first, which has then something to do meanwhile.
        """
        plan, self._unsaid = self._unsaid, None
        if plan is not None:
            for each in plan.answer:
                self._send(each.data, each.peer)
            self._arrivals.answered()
            log_all(_lines(plan))

    def _program(self, plan: Plan) -> None:
        self._plane.apply(plan.program)
        self.granted += sum(isinstance(each, Bind) for each in plan.program)

    def _take_back(self, plan: Plan) -> None:
        """What is durable but cannot be programmed was never granted: end it in plane and store.

        What stood before stands on: a binding that has lent ports to a new one gets them back. A copy of a request
        that was answered 104 is answered 104.
        """
        new = list(_begun(plan))
        owners = {key.owner for key in new}
        answers = {(each.peer.owner, each.data): each for each in plan.answer}
        forgotten = [
            replace(each, answer=_internal_error(answers[each.owner, each.answer]))
            for each in plan.persist
            if isinstance(each, Remember) and each.owner in owners and (each.owner, each.answer) in answers
        ]
        try:
            self.restore()
            now = self._clock.now()
            self.revoke(new)
            back = in_order(self.gateway.next_effects())
            # A plane that is away or refuses has none of it; should it have some, it refuses who is given it next.
            try:
                self._plane.apply(back.unprogram)
            except PlaneError as error:
                log(Message.PLANE_FAILED, error=str(error))
            self._store.commit((*back.persist, *forgotten), now=now)
        except IsthmusError as error:
            log(Message.STORE_FAILED, error=str(error))

    def _say_failed(self, plan: Plan) -> None:
        for each in plan.answer:
            if not _is_unasked(each):
                self._send(_internal_error(each), each.peer)

    def _recall_some(self, gateway: Gateway, owners: Sequence[Owner]) -> None:
        self._recall.need(gateway, owners, now=self._clock.now())
        self._wake.set()

    def _say_each(self, farewells: Farewells) -> None:
        for data, peer in farewells.each():
            self._send(data, peer)

    async def _begin_again(self) -> None:
        """After a failure the store is what is true: rebuild the gateway from it, as soon as it can be read.

        The gateway that was knows more than is true, so of what it would do and say nothing is done and said.
        """
        restored: Restored | None = None
        while restored is None:
            self.gateway.next_effects()
            try:
                restored = self.restore()
            except StoreError as error:
                log(Message.STORE_FAILED, error=str(error))
                await asyncio.sleep(AFTER_FAILURE_SECONDS)
        try:
            restored.hand_to(self._plane)
        except PlaneError as error:
            log(Message.PLANE_FAILED, error=str(error))

    def stop(self) -> None:
        """Log nothing more."""
        self._misuses.close()


def _log_failed(error: StoreError | PlaneError) -> None:
    log(Message.STORE_FAILED if isinstance(error, StoreError) else Message.PLANE_FAILED, error=str(error))


def _begun(plan: Plan) -> dict[BindingKey, None]:
    """The bindings of a batch that did not stand before it and were to stand after it."""
    stood: dict[BindingKey, bool] = {}
    for each in plan.persist:
        if isinstance(each, Bind):
            stood.setdefault(each.binding.key, each.renewed)
        elif isinstance(each, Unbind):
            stood.pop(each.key, None)
    return {e.binding.key: None for e in plan.program if isinstance(e, Bind) and not stood[e.binding.key]}


def _is_unasked(message: Send) -> bool:
    """Whether nobody waits for a message: it tells of an end, and goes out when that has come (RFC 3103 §10.1)."""
    counter = parse(message.data).message_counter
    return counter is not None and counter.value == 0


def _internal_error(answer: Send) -> bytes:
    """ERROR_RESPONSE 104 in place of an answer that must not be sent (RFC 3103 §10.4)."""
    counter = parse(answer.data).message_counter
    return emit(ErrorResponse(error=Error(ErrorCode.INTERNAL_SERVER_ERROR), message_counter=counter))


def _lines(plan: Plan) -> Iterator[tuple[Message, dict[str, str | int]]]:
    """What the log says of a batch."""
    for effect in plan.persist:
        match effect:
            case Remember():
                pass
            case Register():
                registration = effect.registration
                yield Message.REGISTERED, {"host": str(registration.owner), "client_id": registration.client_id}
            case Bind():
                selectors = "; ".join(map(str, effect.binding.selectors))
                yield Message.BOUND, {"binding": str(effect.binding.key), "holds": selectors}
            case Unbind():
                yield Message.UNBOUND, {"binding": str(effect.key), "ending": effect.ending.value}
            case Lapse():
                yield Message.LAPSED, {"bindings": sum(map(len, effect.leases)), "hosts": len(effect.hosts.address)}
            case Deregister():
                yield Message.DEREGISTERED, {"host": str(effect.owner), "ending": effect.ending.value}
            case _:
                pass
