# SPDX-License-Identifier: BSD-3-Clause
"""Entries gathered by what is done with them, as long as their order allows it."""

from __future__ import annotations

from typing import Any

from isthmus.store.entry import BIND, DEREGISTER, EXTEND, PLAIN, PROLONG, REGISTER, REMEMBER, UNBIND, Entry

Host = tuple[int, bytes]
"""Realm and address."""
Key = tuple[int, bytes, int]
"""Realm, address and Bind ID."""

_CLIENT_ID, _DEADLINE, _LAST_BIND_ID, _SAID = 2, 3, 6, slice(7, 11)
_NOTHING_SAID = (None, None, None, None)


class Round:
    """What is written step by step, in the order of the attributes."""

    __slots__ = ("admitted", "answered", "binds", "bound", "changed", "dismissed", "ended", "extended", "farewells")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.ended: dict[Key, str] = {}
        "Bindings, with their endings."
        self.dismissed: dict[Host, str] = {}
        "Hosts, with their endings."
        self.admitted: dict[Host, list[Any]] = {}
        "Rows of ``host``."
        self.binds: list[Entry] = []
        "Plain leases."
        self.bound: set[Key] = set()
        "Their keys."
        self.changed: dict[Host, list[Any]] = {}
        "Of hosts that were registered before: the highest Bind ID given, and the deadline or None."
        self.answered: dict[Host, list[Any]] = {}
        "The same, and the last answer, of hosts that have one."
        self.farewells: dict[Host, Entry] = {}
        "The last answers to hosts dismissed in this round."
        self.extended: dict[Key, float] = {}
        "Deadlines of bindings."

    def add(self, entry: Entry) -> bool:
        """Take an entry; False if the order forbids it: then it begins the next round, where BIND stands alone."""
        sort = entry[0]
        if sort == REMEMBER:
            return self._remember((entry[1], entry[2]), entry[3:])
        if sort == PLAIN:
            return self._bind(entry)
        if sort == PROLONG:
            self._change((entry[1], entry[2]), 0, entry[3])
            return True
        if sort == REGISTER:
            return self._register(entry)
        if sort == UNBIND:
            return self._unbind(entry[1:4], entry[4])
        if sort == DEREGISTER:
            return self._deregister((entry[1], entry[2]), entry[3])
        if sort == EXTEND:
            self.extended[entry[1:4]] = entry[4]
            return True
        assert sort == BIND, sort
        return False

    def _unbind(self, key: Key, ending: str) -> bool:
        # What is bound later in the round may take the place of what is ended, never the other way round.
        if self.binds or key in self.extended:
            return False
        self.ended.setdefault(key, ending)
        return True

    def _deregister(self, owner: Host, ending: str) -> bool:
        if self.admitted or owner in self.changed or owner in self.answered or owner in self.dismissed:
            return False
        self.dismissed[owner] = ending
        return True

    def _register(self, entry: Entry) -> bool:
        owner = (entry[1], entry[2])
        for noted in (self.admitted, self.changed, self.answered, self.farewells):
            if owner in noted:
                return False
        self.admitted[owner] = [*entry[1:], *_NOTHING_SAID]
        return True

    def _bind(self, entry: Entry) -> bool:
        near, bind_id, address = entry[3], entry[5], entry[11]
        key = (near, address, bind_id)
        if key in self.bound or key in self.extended:
            return False
        self.bound.add(key)
        self.binds.append(entry)
        self._change((near, address), bind_id, None)
        return True

    def _change(self, owner: Host, bind_id: int, deadline: float | None) -> None:
        row = self.admitted.get(owner)
        if row is not None:
            row[_LAST_BIND_ID] = max(row[_LAST_BIND_ID], bind_id)
            if deadline is not None:
                row[_DEADLINE] = deadline
            return
        if owner in self.dismissed:
            return
        change = self.answered.get(owner) or self.changed.setdefault(owner, [0, None])
        change[0] = max(change[0], bind_id)
        if deadline is not None:
            change[1] = deadline

    def _remember(self, owner: Host, said: Entry) -> bool:
        row = self.admitted.get(owner)
        if row is not None:
            row[_SAID] = said
        elif owner in self.dismissed:
            self.farewells[owner] = said
        else:
            before = self.answered.get(owner) or self.changed.pop(owner, None) or (0, None)
            self.answered[owner] = [*before[:2], *said]
        return True
