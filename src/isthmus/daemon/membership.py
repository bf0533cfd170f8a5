# SPDX-License-Identifier: BSD-3-Clause
"""Which hosts of the near link listen to which group: the router's half of IGMP (RFC 3376 §6; RFC 4605 §4).

No I/O and no clock. Members are kept by their private address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from isthmus.address import Address, Prefix
from isthmus.wire.igmp import Membership

ROBUSTNESS = 2
"""How many of our queries, or of their answers, may be lost, less one (RFC 3376 §8.1)."""
RESPONSE_SECONDS = 10.0
"""How long hosts may take to answer a general query (§8.3)."""
LAST_MEMBER_SECONDS = 1.0
"""And one about a group that somebody left (§8.8)."""
MOST_GROUPS = 1024
MOST_GROUPS_OF_ONE = 128
"""Who joins more is not heard about them: one host must not have all the groups there can be."""
MOST_MEMBERS = 4096

_LINK_LOCAL = Prefix.parse("224.0.0.0/24")
"""Never forwarded (RFC 5771 §4)."""


class Members:
    """The listeners of one link.

    Args:
        groups: The groups that are carried at all.
        query_seconds: Between two general queries.
    """

    def __init__(self, groups: Iterable[Prefix], *, query_seconds: float) -> None:
        self._groups = tuple(groups)
        self.interval_seconds = ROBUSTNESS * query_seconds + RESPONSE_SECONDS
        "How long a member stays that says nothing more (RFC 3376 §8.4)."
        self._until: dict[Address, dict[Address, float]] = {}
        self._groups_of: Counter[Address] = Counter()

    def is_carried(self, group: Address) -> bool:
        """Whether a group is forwarded if somebody listens."""
        return group not in _LINK_LOCAL and any(group in prefix for prefix in self._groups)

    def __contains__(self, group: Address) -> bool:
        """Whether anybody listens to a group."""
        return group in self._until

    def __iter__(self) -> Iterator[tuple[Address, tuple[Address, ...]]]:
        """The groups with their members."""
        for group, members in sorted(self._until.items()):
            yield group, tuple(sorted(members))

    def hear(self, member: Address, said: Iterable[Membership], *, now: float) -> list[Address]:
        """Take a report; returns the groups about which has to be asked whether anybody is left.

        Who has left stays a member until the answer is due: another report may have been lost,
        and version 2 lets one host answer for all (RFC 3376 §6.4.2).
        """
        left = []
        for each in said:
            if not self.is_carried(each.group):
                continue
            if each.wanted:
                self._enter(member, each.group, now + self.interval_seconds)
            elif each.group in self._until:
                # Version 1 and 2 hosts fall silent when they hear another's report: ask all, keep none for long.
                soon = now + ROBUSTNESS * LAST_MEMBER_SECONDS
                members = self._until[each.group]
                for other, until in members.items():
                    members[other] = min(until, soon)
                left.append(each.group)
        return left

    def _enter(self, member: Address, group: Address, until: float) -> None:
        members = self._until.get(group, {})
        if member not in members:
            if self._groups_of[member] >= MOST_GROUPS_OF_ONE or len(members) >= MOST_MEMBERS:
                return
            if group not in self._until and len(self._until) >= MOST_GROUPS:
                return
            self._groups_of[member] += 1
        members[member] = until
        self._until[group] = members

    def expire(self, *, now: float) -> None:
        """Forget who said nothing for too long."""
        for group in list(self._until):
            members = self._until[group]
            for member in [each for each, until in members.items() if until <= now]:
                del members[member]
                self._groups_of[member] -= 1
                if not self._groups_of[member]:
                    del self._groups_of[member]
            if not members:
                del self._until[group]
