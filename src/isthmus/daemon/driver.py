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
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from isthmus.border.binding import BindingKey, Owner
from isthmus.border.effect import Bind, Deregister, Peer, Plan, Register, Remember, Send, Unbind, in_order
from isthmus.border.verdict import Reason, Violation
from isthmus.daemon.clock import Clock
from isthmus.daemon.messages import Message, log
from isthmus.daemon.misuses import Misuses
from isthmus.errors import IsthmusError, PlaneError, StoreError, WireError
from isthmus.plane import Plane
from isthmus.rsip.gateway import Gateway
from isthmus.store import LeaseStore
from isthmus.wire.rsip.codes import ErrorCode
from isthmus.wire.rsip.message import ErrorResponse, emit, parse
from isthmus.wire.rsip.parameter import Error

REST_MARGIN = 3600.0
"""How far back resting resources are read from the store, in seconds; more than any rest."""
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
    ) -> None:
        """Put the parts together; nothing runs yet.

        Args:
            make_gateway: Makes a gateway that knows nothing; called again after a failure of store or plane.
            store: Where leases are kept.
            plane: What moves packets.
            clock: Seconds since 1970.
            send: Sends one control message.
        """
        self._make_gateway = make_gateway
        self._store = store
        self._plane = plane
        self._clock = clock
        self._send = send
        self._wake = asyncio.Event()
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self.gateway = make_gateway()
        self._refused: Counter[ErrorCode | str] = Counter()
        self._misuses = Misuses()
        # What was programmed by the end of the last batch.
        self._standing: set[BindingKey] = set()
        self.batches = 0
        self.granted = 0

    @property
    def refusals(self) -> Counter[ErrorCode | str]:
        """How many control messages were not served, and why; see ``Gateway.refusals``."""
        return self._refused + self.gateway.refusals

    def restore(self) -> tuple[Register | Bind, ...]:
        """Read the store back into the gateway; returns what the plane should hold."""
        now = self._clock.now()
        kept = self._store.load(rested_since=now - REST_MARGIN)
        self._refused = self.refusals
        self.gateway = self._make_gateway()
        held = [(each.binding, each.lease) for each in kept.bindings]
        self._standing = {binding.key for binding, _ in held}
        self.gateway.restore(kept.registrations, held, kept.answers, kept.resting, now=now)
        if kept.registrations:
            log(Message.RESTORED, hosts=len(kept.registrations), bindings=len(held))
        standing: list[Register | Bind] = [Register(registration=each) for each in kept.registrations]
        return (*standing, *(Bind(binding=binding, lease=lease) for binding, lease in held))

    def datagram(self, data: bytes, peer: Peer) -> None:
        """Take one datagram."""
        self.gateway.receive_datagram(data, peer, now=self._clock.now())
        self._wake.set()

    def message(self, data: bytes, peer: Peer) -> None:
        """Take one message of a TCP connection."""
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
        for alike in counted.values():
            self._misuses.add(alike[0], len(alike))
            self.gateway.report(alike[0], now=self._clock.now())
        self._wake.set()

    def nudge(self) -> None:
        """Look at the gateway again: something was asked of it directly."""
        self._wake.set()

    async def run(self) -> None:
        """Carry out effects until cancelled."""
        while True:
            await self._wait()
            self._wake.clear()
            self.gateway.handle_timer(now=self._clock.now())
            effects = self.gateway.next_effects()
            if effects:
                await self._carry_out(in_order(effects))

    async def _wait(self) -> None:
        timer = self.gateway.get_timer()
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
                loop, now = asyncio.get_running_loop(), self._clock.now()
                await loop.run_in_executor(self._disk, lambda: self._store.commit(plan.persist, now=now))
            durable = True
            self._program(plan)
        except (StoreError, PlaneError) as error:
            log(Message.STORE_FAILED if isinstance(error, StoreError) else Message.PLANE_FAILED, error=str(error))
            if durable:
                self._take_back(plan)
            self._begin_again(plan)
            await asyncio.sleep(AFTER_FAILURE_SECONDS)
            return
        for each in plan.answer:
            self._send(each.data, each.peer)
        _note(plan)

    def _program(self, plan: Plan) -> None:
        self._plane.apply(plan.program)
        self._standing.difference_update(each.key for each in plan.unprogram if isinstance(each, Unbind))
        bound = [each.binding.key for each in plan.program if isinstance(each, Bind)]
        self._standing.update(bound)
        self.granted += len(bound)

    def _take_back(self, plan: Plan) -> None:
        """What is durable but cannot be programmed was never granted: end it in plane and store.

        What stood before stands on: a binding that has lent ports to a new one gets them back. A copy of a request
        that was answered 104 is answered 104.
        """
        before = self._standing
        new = [e.binding.key for e in plan.program if isinstance(e, Bind) and e.binding.key not in before]
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
            for key in new:
                self.gateway.revoke(key, now=now)
            back = in_order(self.gateway.next_effects())
            # A plane that is away or refuses has none of it; should it have some, it refuses who is given it next.
            try:
                self._plane.apply(back.unprogram)
            except PlaneError as error:
                log(Message.PLANE_FAILED, error=str(error))
            self._store.commit((*back.persist, *forgotten), now=now)
        except IsthmusError as error:
            log(Message.STORE_FAILED, error=str(error))

    def _begin_again(self, plan: Plan) -> None:
        """After a failure the store is what is true: rebuild the gateway from it, and say 104 to who waits."""
        try:
            standing = self.restore()
            self._plane.apply(standing)
        except IsthmusError as error:
            log(Message.STORE_FAILED, error=str(error))
        for each in plan.answer:
            if not _is_unasked(each):
                self._send(_internal_error(each), each.peer)

    def stop(self) -> None:
        """Let the disk thread finish."""
        self._misuses.close()
        self._disk.shutdown(wait=True)


def _is_unasked(message: Send) -> bool:
    """Whether nobody waits for a message: it tells of an end, and goes out when that has come (RFC 3103 §10.1)."""
    counter = parse(message.data).message_counter
    return counter is not None and counter.value == 0


def _internal_error(answer: Send) -> bytes:
    """ERROR_RESPONSE 104 in place of an answer that must not be sent (RFC 3103 §10.4)."""
    counter = parse(answer.data).message_counter
    return emit(ErrorResponse(error=Error(ErrorCode.INTERNAL_SERVER_ERROR), message_counter=counter))


def _note(plan: Plan) -> None:
    for effect in plan.persist:
        match effect:
            case Register():
                log(Message.REGISTERED, host=str(effect.registration.owner), client_id=effect.registration.client_id)
            case Bind():
                selectors = "; ".join(str(each) for each in effect.binding.selectors)
                log(Message.BOUND, binding=str(effect.binding.key), holds=selectors)
            case Unbind():
                log(Message.UNBOUND, binding=str(effect.key), ending=effect.ending.value)
            case Deregister():
                log(Message.DEREGISTERED, host=str(effect.owner), ending=effect.ending.value)
            case _:
                pass
