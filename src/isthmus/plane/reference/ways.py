# SPDX-License-Identifier: BSD-3-Clause
"""What is known of the ways between IPAE systems: the soft state of each (seed IPAE 4.3; spec 6.4, layer 3).

The routers between two IPAE systems know IPv4 only, and their errors come to the system that put a packet into IPv4.
What they say is true for the next packet, too: how large it may be, that the other end cannot be reached, that so
many hops are not enough. The next packet that would meet the same fate is answered here, at once.

No time passes in here: whoever asks says what time it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from isthmus.address import Address
from isthmus.border.crossing import Way

MTU_SECONDS = 600.0
"""How long a way is taken to be narrow (RFC 1191 §6.3)."""
STATE_SECONDS = 30.0
"""How long one is taken to be down, or to have so many hops."""
TRY_SECONDS = 1.0
"""How often a packet is sent to a system that has said itself that it takes no IPAE: it may be starting again."""
MOST_WAYS = 4096
"""Implicit tunnels make as many ways as there are destinations; the oldest go first."""


@dataclass(slots=True, kw_only=True)
class Condition:
    """The state of one way, as ``isthmus tunnels`` shows it and the kernel plane is told it."""

    mtu: int | None = None
    """Largest outer packet, in octets; None: as its interface. Of a way between two SIP addresses, the first of them
    ours: the largest SIP packet, where that is less than programs can be told of."""
    mtu_until: float = 0.0
    "Seconds since 1970."
    down: Address | None = None
    "Who said that the other end cannot be reached; None: nobody."
    down_until: float = 0.0
    try_at: float = 0.0
    "When a packet may be sent all the same."
    hops: int = 0
    "So many hops were not enough, at least."
    hops_until: float = 0.0
    routers: dict[int, Address] = field(default_factory=dict)
    "Who was there after so many hops."

    @property
    def until(self) -> float:
        """When the last of it is forgotten."""
        return max(self.ends)

    @property
    def ends(self) -> tuple[float, float, float]:
        """When each of MTU, reachability and length is forgotten."""
        return self.mtu_until, self.down_until, self.hops_until

    def expire(self, now: float) -> bool:
        """Forget what is over; say whether that was anything."""
        before = (self.mtu, self.down, self.hops)
        if self.mtu_until <= now:
            self.mtu = None
        if self.down_until <= now:
            self.down = None
        if self.hops_until <= now:
            self.hops = 0
            self.routers.clear()
        return before != (self.mtu, self.down, self.hops)


class Ways:
    """The soft state of all ways."""

    def __init__(self) -> None:
        self._known: dict[Way, Condition] = {}
        self._changed: set[Way] = set()
        # Asked after every few packets, and thousands of ways may be known.
        self._soonest = math.inf
        "Nothing is forgotten before."

    def condition(self, way: Way, *, now: float) -> Condition:
        """What is known of a way; nothing, if nothing is."""
        found = self._known.get(way)
        if found is None:
            return Condition()
        if found.expire(now):
            self._changed.add(way)
        return found

    def narrow(self, way: Way, mtu: int, *, now: float) -> None:
        """A router cannot send more than this on, in octets of the outer packet; only a smaller MTU is learned."""
        found = self.condition(way, now=now)
        if found.mtu is None or mtu < found.mtu:
            self._learn(way, mtu=mtu, mtu_until=now + MTU_SECONDS)

    def lose(self, way: Way, reporter: Address, *, now: float) -> None:
        """A router cannot reach the other end, or the other end takes no IPAE."""
        self._learn(way, down=reporter, down_until=now + STATE_SECONDS, try_at=now + TRY_SECONDS)

    def tries(self, way: Way, *, now: float) -> bool:
        """Whether this packet is to find out if the other end, which took no IPAE, takes it by now.

        It would say at once that it does not, and ``lose`` is called again. If it says nothing for a second, the way
        is not down any more.
        """
        found = self.condition(way, now=now)
        if found.down != way.remote or now < found.try_at:
            return False
        found.try_at = found.down_until = min(found.down_until, now + TRY_SECONDS)
        self._soonest = min(self._soonest, found.down_until)
        return True

    def lengthen(self, way: Way, hops: int, reporter: Address, *, now: float) -> None:
        """A packet that had so many hops left ended at a router."""
        found = self.condition(way, now=now)
        routers = {**found.routers, hops: reporter}
        self._learn(way, hops=max(found.hops, hops), routers=routers, hops_until=now + STATE_SECONDS)

    def forget(self, concerns: Callable[[Way], bool]) -> None:
        """Forget ways, because the routes have changed."""
        for way in [each for each in self._known if concerns(each)]:
            del self._known[way]
            self._changed.add(way)

    def all(self, *, now: float) -> list[tuple[Way, Condition]]:
        """Every way of which something is known."""
        self._expire(now)
        return sorted(self._known.items(), key=lambda each: each[0])

    def changes(self, *, now: float) -> list[tuple[Way, Condition | None]]:
        """Ways of which something else is known than at the last call; None: nothing any more."""
        self._expire(now)
        changed, self._changed = sorted(self._changed), set()
        return [(way, self._known.get(way)) for way in changed]

    def _learn(self, way: Way, **what: object) -> None:
        found = self._known.pop(way, None) or Condition()
        for name, value in what.items():
            setattr(found, name, value)
        if len(self._known) >= MOST_WAYS:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._changed.add(oldest)
        self._known[way] = found
        self._changed.add(way)
        self._soonest = min(self._soonest, *(end for end in found.ends if end))

    def _expire(self, now: float) -> None:
        if now < self._soonest:
            return
        for way, found in list(self._known.items()):
            if found.expire(now):
                self._changed.add(way)
            if found.until <= now:
                del self._known[way]
        self._soonest = min((end for each in self._known.values() for end in each.ends if end > now), default=math.inf)
