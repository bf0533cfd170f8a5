# SPDX-License-Identifier: BSD-3-Clause
"""Very many folded hosts whose time is up: ended as they are, a few at a time, beside everything else that goes on.

A part is read from the store, taken out of the plane, and handed to the store; while that writes it, the next parts
follow. Hosts are told when it is written. Between two parts the event loop does what else there is to do, so nobody
waits longer than for one part here, and for ``UNDER_WAY`` of them in the store.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from isthmus.address import Address, Family
from isthmus.border.binding import Owner
from isthmus.daemon.clock import Clock
from isthmus.daemon.messages import Message, log
from isthmus.errors import PlaneError, StoreError
from isthmus.plane import Plane
from isthmus.rsip.ended import Farewells
from isthmus.rsip.folding import Lapsed
from isthmus.rsip.gateway import Gateway
from isthmus.store import Lapsing, LapsingMark, LeaseStore

LAPSED_AT_ONCE = 512
"""How many hosts are a part."""
WORTH_WHILE = 256
"""If fewer have run out, they are recalled and end one by one."""
UNDER_WAY = 2


@dataclass(slots=True, kw_only=True)
class _Pass:
    """From the first to the last of those whose time was up when it began."""

    gateway: Gateway
    before: float
    found: Lapsing | None
    "The part that is next, if it is read already."
    after: LapsingMark | None = None
    bindings: int = 0
    hosts: int = 0


class Lapses:
    """Ends what folded hosts hold of one gateway."""

    def __init__(
        self,
        *,
        store: LeaseStore,
        plane: Plane,
        clock: Clock,
        recall: Callable[[Gateway, list[Owner]], None],
        tell: Callable[[Farewells], None],
        wake: Callable[[], None],
    ) -> None:
        """Put the parts together.

        Args:
            store: What knows all hosts.
            plane: What moves packets.
            clock: Seconds since 1970.
            recall: Recalls hosts of which the store does not know all, so that they end by themselves.
            tell: Sends messages.
            wake: Called when all is done, or something has failed.
        """
        self._store, self._plane, self._clock = store, plane, clock
        self._recall, self._tell, self._wake = recall, tell, wake
        self._pass: _Pass | None = None
        self._under_way: deque[tuple[Future[None], Gateway, Lapsed]] = deque()
        self._begun, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._failed: StoreError | PlaneError | None = None

    @property
    def active(self) -> bool:
        """Whether it has begun and is not done: until then the store may say of what has ended that it stands."""
        return not self._idle.is_set() or self._failed is not None

    @property
    def failed(self) -> StoreError | PlaneError | None:
        """Why the store or the plane has not ended something; nothing is done any more before ``reset``."""
        return self._failed

    def begin(self, gateway: Gateway, *, now: float) -> bool:
        """Begin, if very many have run out; whether it has.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        before = math.nextafter(now, math.inf)  # What ends now has ended.
        found = self._store.lapsing(gateway.realm_near, before=before, limit=LAPSED_AT_ONCE)
        if len(found.hosts.address) < WORTH_WHILE or not gateway.folding.can_lapse(found.hosts):
            return False
        self._pass = _Pass(gateway=gateway, before=before, found=found)
        self._idle.clear()
        self._begun.set()
        return True

    async def drain(self) -> None:
        """Begin nothing more, and wait until nothing is under way."""
        self._pass = None
        await self._idle.wait()

    def reset(self) -> None:
        """Go on after a failure, when nothing is under way, with a gateway that was made anew."""
        self._pass, self._failed = None, None

    async def run(self) -> None:
        """End what has run out, whenever that is asked for."""
        try:
            while True:
                await self._begun.wait()
                self._begun.clear()
                await self._run_pass()
                self._idle.set()
                self._wake()
        finally:
            self._idle.set()

    async def _run_pass(self) -> None:
        while self._pass is not None or self._under_way:
            if self._pass is None or len(self._under_way) >= UNDER_WAY:
                await self._finish()
            else:
                self._take_part(self._pass)
                # What has come meanwhile has its turn.
                await asyncio.sleep(0)

    def _take_part(self, over: _Pass) -> None:
        """End one part; when there is no more, the pass is over."""
        gateway, now = over.gateway, self._clock.now()
        try:
            found = over.found or self._store.lapsing(
                gateway.realm_near, before=over.before, limit=LAPSED_AT_ONCE, after=over.after
            )
            over.found, over.after = None, found.after
            lapsed = gateway.folding.lapse(found.hosts, found.leases, now=now)
            if lapsed is not None:
                self._plane.apply((lapsed.effect,))
                self._under_way.append((self._store.submit((lapsed.effect,), now=now), gateway, lapsed))
                over.bindings += sum(map(len, lapsed.effect.leases))
                over.hosts += len(lapsed.effect.hosts.address)
            # Of whom the store does not know all cannot lapse, and must not stay before the others.
            gone = found.hosts.at(found.hosts.gone)
            left = gone.address[gateway.folding.are_folded(gone.near, gone.address)].tolist()
            if left:
                self._recall(gateway, [Owner(gone.near, Address(Family.IPV4, each)) for each in left])
        except (StoreError, PlaneError) as error:
            self._fail(error)
            return
        if over.after is None:
            self._pass = None
            log(Message.LAPSED, bindings=over.bindings, hosts=over.hosts)

    async def _finish(self) -> None:
        """Wait for the oldest part, and tell its hosts."""
        written, gateway, lapsed = self._under_way.popleft()
        try:
            await asyncio.wrap_future(written)
        except StoreError as error:
            self._fail(error)
            return
        gateway.folding.settle(lapsed.ended)
        for each in lapsed.farewells:
            self._tell(each)

    def _fail(self, error: StoreError | PlaneError) -> None:
        self._pass = None
        self._failed = self._failed or error
        self._wake()
