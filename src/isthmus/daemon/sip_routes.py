# SPDX-License-Identifier: BSD-3-Clause
"""SIP routes that a routing daemon enters into a table of the kernel, as bindings of the plane.

The daemon speaks with its neighbours of IPv6 prefixes that carry SIP prefixes (``ipae.routing``), and writes what it
has chosen into a table that no rule leads to: the kernel itself forwards nothing by it. Here the table is read, and
what follows from it is bound and unbound like anything else. A routing daemon takes a route away and enters another
one in its place; both come to one change of the plane, because changes are gathered for a moment.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from isthmus.address import Prefix
from isthmus.border.binding import Binding
from isthmus.border.crossing import IPAE_OVERHEAD, Crossing
from isthmus.border.effect import Bind, Unbind
from isthmus.daemon.clock import Clock
from isthmus.daemon.config import Config, LearnSection
from isthmus.daemon.kernel_routes import KernelRoutes
from isthmus.daemon.messages import Message, log
from isthmus.daemon.sip_terms import Surroundings
from isthmus.errors import PlaneError
from isthmus.ipae.border_router import Route
from isthmus.ipae.routing import Learned, Link, Policy, Refusal, changes, learn, sip_prefix
from isthmus.plane import Programmable

SETTLE_SECONDS = 0.02
"""How long changes are gathered: a routing daemon replaces a route within this time."""
SHARE = 10
"""After a change of a large table we rest for so many times as long as it took: packets have their turn."""
AGAIN_SECONDS = 1.0
"""After a plane or the kernel has refused."""
_NAMED = 20
"Prefixes that one line of the log names."


class Plane(Protocol):
    """What of a plane is needed here."""

    def apply(self, effects: Iterable[Programmable]) -> None:
        """Carry out effects."""


class SipRoutes:
    """Keeps the plane's SIP routes what a table of the kernel says.

    Args:
        section: What is learned.
        config: The realms of the file.
        around: Their interfaces.
        standing: The routes of the configuration, and what follows from it.
        clock: Seconds since 1970.

    Raises:
        PlaneError: the kernel does not tell of its routes.
    """

    def __init__(
        self, section: LearnSection, config: Config, around: Surroundings, standing: Sequence[Route], clock: Clock
    ) -> None:
        self._sip = config.sip_number
        self._clock = clock
        self._policy = Policy(
            full=section.full,
            protocols=frozenset(section.protocols),
            sites=tuple(each.site for each in config.realm if each.site is not None),
            configured=frozenset(each.to for each in standing),
            most=section.most,
        )
        self._links = {
            each.interface: Link(
                realm=config.realm_number(each.name),
                site=each.site,
                ends=_ends(around, each.name) if each.name in section.ipae else (),
                mtu=around.mtus[each.name] - IPAE_OVERHEAD,
            )
            for each in config.realm
        }
        self._table = KernelRoutes(section.table)
        self._plane: Plane | None = None
        self._bound: dict[Prefix, Crossing] = {}
        self._learned = Learned()
        self._later: asyncio.TimerHandle | None = None
        self._changes = 0
        self._rests_until = 0.0
        self._table_read = True
        self._failed = ""

    def read(self) -> tuple[Bind, ...]:
        """Read the table before there is a plane.

        Returns:
            What the plane is to start with.

        Raises:
            PlaneError: the kernel does not give the table.
        """
        self._table.read_whole()
        self._learned = self._learn()
        self._bound = dict(self._learned.routes)
        self._tell(Learned(), {})
        return tuple(each for each in self._effects({}, self._bound) if isinstance(each, Bind))

    def start(self, plane: Plane) -> None:
        """Follow the table from within the running event loop.

        Args:
            plane: Has what ``read`` returned.
        """
        self._plane = plane
        asyncio.get_running_loop().add_reader(self._table, self._news)

    def _news(self) -> None:
        try:
            changed = self._table.read_news()
        except PlaneError as error:
            self._fail(error)
            self._table_read, changed = False, True
        if changed and self._later is None:
            delay = max(SETTLE_SECONDS, self._rests_until - self._clock.now())
            self._later = asyncio.get_running_loop().call_later(delay, self._follow)

    def _follow(self) -> None:
        """Let the plane have what the table says now; try again later if it cannot be done."""
        self._later = None
        began = self._clock.now()
        assert self._plane is not None
        try:
            if not self._table_read:
                self._table.read_whole()
                self._table_read = True
            learned = self._learn()
            effects = self._effects(self._bound, learned.routes)
            self._plane.apply(effects)
        except PlaneError as error:
            self._fail(error)
            self._later = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._follow)
            return
        before, bound = self._learned, self._bound
        self._learned, self._bound, self._failed = learned, dict(learned.routes), ""
        self._changes += len(effects)
        self._tell(before, bound)
        took = self._clock.now() - began
        self._rests_until = began + took * (1 + SHARE)

    def _fail(self, error: PlaneError) -> None:
        if str(error) != self._failed:
            log(Message.ROUTES_FAILED, error=str(error))
        self._failed = str(error)

    def _learn(self) -> Learned:
        indexes = {name: index for index, name in socket.if_nameindex()}
        links = {indexes[name]: link for name, link in self._links.items() if name in indexes}
        return learn(self._table.routes, links, self._policy)

    def _effects(
        self, before: Mapping[Prefix, Crossing], after: Mapping[Prefix, Crossing]
    ) -> tuple[Bind | Unbind, ...]:
        return changes(before, after, sip=self._sip, now=self._clock.now())

    def _tell(self, before: Learned, bound: Mapping[Prefix, Crossing]) -> None:
        """Log what is different."""
        here = self._bound
        learned = [str(each) for each, crossing in here.items() if bound.get(each) != crossing]
        gone = [str(each) for each in bound if each not in here]
        if learned or gone:
            log(
                Message.ROUTES_LEARNED,
                learned=learned[:_NAMED],
                withdrawn=gone[:_NAMED],
                changes=len(learned) + len(gone),
                routes=len(here),
            )
        for why, prefixes in self._learned.refused.items():
            if why.is_wrong and prefixes != before.refused.get(why):
                names = [str(each) for each in prefixes[:_NAMED]]
                log(Message.ROUTES_REFUSED, because=str(why), means=why.sentence, routes=names, count=len(prefixes))

    def owns(self, binding: Binding) -> bool:
        """Whether a binding is a learned route."""
        return binding.realm == self._sip and binding.selectors[0].local in self._bound

    def describe(self) -> dict[str, Any]:
        """What has been learned, for JSON."""
        return {
            "routes": len(self._bound),
            "refused": {str(why): len(prefixes) for why, prefixes in _in_order(self._learned.refused)},
            "changes": self._changes,
            "overruns": self._table.overruns,
        }

    def refused_rows(self) -> list[dict[str, str]]:
        """The routes of the table that are not used, and why, for JSON."""
        return [
            {"route": str(each), "sip": str(sip_prefix(each, self._policy.full) or ""), "because": why.sentence}
            for why, prefixes in _in_order(self._learned.refused)
            for each in prefixes
        ]

    def stop(self) -> None:
        """Stop following."""
        if self._later is not None:
            self._later.cancel()
        if self._plane is not None:
            asyncio.get_running_loop().remove_reader(self._table)
        self._table.close()


def _in_order(refused: Mapping[Refusal, list[Prefix]]) -> list[tuple[Refusal, list[Prefix]]]:
    order = list(Refusal)
    return sorted(refused.items(), key=lambda each: order.index(each[0]))


def _ends(around: Surroundings, realm: str) -> tuple[tuple[Any, Prefix], ...]:
    """Our addresses in a realm, for IPAE."""
    return tuple((each.address, each.network) for each in around.addresses[realm])
