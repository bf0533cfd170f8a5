# SPDX-License-Identifier: BSD-3-Clause
"""Entries into rows, one after another or by the hundred, for whatever speaks the SQL of ``store.sql``.

Connections, transactions and the disk are the business of the store that owns the ledger.

A batch is written by statement, not by effect: entries are gathered into a ``Round`` as long as the order of its
steps (end, dismiss, admit, bind, answer, extend) does to the tables what their own order would; the next round begins
where it would not. Constraints speak where a row does not fit: then the transaction is to be taken back, and the batch
is written entry by entry, which says what is wrong or puts it right.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from isthmus.border.effect import Ending
from isthmus.border.selector import Kind
from isthmus.errors import Conflict
from isthmus.store import DEPARTED_SECONDS, plain_sql, sql
from isthmus.store.entry import BIND, PLAIN, PLAIN_REALMS, REGISTER, Entry, Odd, Plain, as_odd
from isthmus.store.round import Host, Key, Round

Row = tuple[Any, ...]


class Unfit(Exception):
    """A row of a round does not fit: take the transaction back and write entry by entry."""


class Ledger:
    """The tables of one store, inside a transaction that somebody else begins and ends."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        """Use a cursor.

        Args:
            cursor: Runs statements; what it had to say before is lost.
        """
        self._cursor = cursor
        self._ways: dict[Row, int] = {}

    def forget(self) -> None:
        """Take word that a transaction was taken back."""
        self._ways.clear()

    def write(self, batch: Sequence[Entry], *, now: float) -> None:
        """Write a batch by statement.

        Raises:
            Unfit: take the transaction back, and ``write_each``.
        """
        gathered = Round()
        try:
            for entry in batch:
                if gathered.add(entry):
                    continue
                self._write_round(gathered, now)
                gathered = Round()
                if not gathered.add(entry):
                    self._bind(Odd._make(entry), None, now)
            self._write_round(gathered, now)
        except (sqlite3.IntegrityError, Conflict) as error:
            raise Unfit from error
        self._execute(sql.PRUNE, (now - DEPARTED_SECONDS,))

    def write_each(self, batch: Sequence[Entry], *, now: float) -> None:
        """Write a batch entry by entry.

        Raises:
            Conflict: see ``LeaseStore.commit``; the transaction must be taken back.
        """
        for entry in batch:
            if entry[0] == BIND:
                self._bind(Odd._make(entry), None, now)
            elif entry[0] == PLAIN:
                plain = Plain._make(entry)
                self._bind(as_odd(plain), plain, now)
            else:
                if entry[0] == REGISTER:
                    self._check_client(*entry[1:4])
                gathered = Round()
                gathered.add(entry)
                self._write_round(gathered, now)
        self._execute(sql.PRUNE, (now - DEPARTED_SECONDS,))

    def _write_round(self, it: Round, now: float) -> None:
        if it.ended:
            self._end(it.ended, now)
        if it.dismissed:
            self._dismiss(it.dismissed, now)
        if it.admitted:
            self._cursor.executemany(sql.REGISTER, it.admitted.values())
            if self._row(sql.ANY_ANSWER):
                self._cursor.executemany(sql.ARRIVE, it.admitted.keys())
        if it.binds:
            self._bind_plain(it.binds)
        if it.changed:
            self._cursor.executemany(sql.UPDATE_HOST, [(*change, *owner) for owner, change in it.changed.items()])
        if it.answered:
            self._answer(it.answered, now)
        if it.farewells:
            rows = [(*owner, *said, now) for owner, said in it.farewells.items()]
            self._cursor.executemany(sql.REMEMBER, rows)
        if it.extended:
            rows = [(at, realm, _number(address), bind_id) for (realm, address, bind_id), at in it.extended.items()]
            self._cursor.executemany(plain_sql.EXTEND, rows)
            if self._row(sql.ANY_BINDING):
                self._cursor.executemany(sql.EXTEND, [(at, *key) for key, at in it.extended.items()])

    def _end(self, ended: dict[Key, str], now: float) -> None:
        keys = [(realm, _number(address), bind_id) for realm, address, bind_id in ended]
        endings = zip(ended.values(), keys, strict=True)
        self._cursor.executemany(plain_sql.END, [(now, ending, *key) for ending, key in endings])
        self._cursor.executemany(plain_sql.DELETE, keys)
        if self._row(sql.ANY_BINDING):
            for key, ending in ended.items():
                held = self._held_tenure(key)
                if held is not None:
                    self._end_tenure(held, ending, now)

    def _dismiss(self, dismissed: dict[Host, str], now: float) -> None:
        freed = [owner for owner, ending in dismissed.items() if ending == Ending.FREED.value]
        if freed:
            self._cursor.executemany(sql.KEEP, [(now, *owner) for owner in freed])
        if self._row(sql.ANY_ANSWER):
            self._cursor.executemany(sql.DEPART, [(now, *owner, *owner) for owner in freed])
            forgotten = [owner for owner, ending in dismissed.items() if ending != Ending.FREED.value]
            self._cursor.executemany(sql.FORGET, [(*owner, *owner) for owner in forgotten])
        self._cursor.executemany(sql.DEREGISTER, dismissed.keys())

    def _answer(self, answered: dict[Host, list[Any]], now: float) -> None:
        rows = [(*change, *owner) for owner, change in answered.items()]
        if self._cursor.executemany(sql.ANSWER_HOST, rows).rowcount == len(rows):
            return
        for owner, (_, _, *said) in answered.items():
            if not self._row(sql.HOST, owner):
                self._execute(sql.REMEMBER, (*owner, *said, now))

    def _bind_plain(self, binds: Sequence[Entry]) -> None:
        number = self._grant(len(binds)) - len(binds)
        rows = []
        for number, entry in enumerate(binds, number + 1):  # noqa: B020 - numbers follow one another
            _, place, last, near, owner, bind_id, client_id, method, way, granted_at, expires_at, _ = entry
            scale = (last - place).bit_length()
            way = self._way(way)
            rows.append(
                (place, last, near, owner, bind_id, client_id, method, way, granted_at, expires_at, scale, number)
            )
        if self._row(sql.ANY_BINDING):
            for each in map(Plain._make, binds):
                odd = as_odd(each)
                self._check_free(odd)
                if self._held_tenure((each.near, each.owner_address, each.bind_id)) is not None:
                    raise Unfit
        if self._cursor.executemany(plain_sql.BIND, rows).rowcount != len(rows):
            raise Unfit

    def _bind(self, odd: Odd, plain: Plain | None, now: float) -> None:
        """Make one binding stand, whatever stands in its place.

        Args:
            odd: The binding.
            plain: The same, if it is plain: it becomes a row of ``plain``, unless its tenure began as another one.
            now: Seconds since 1970.
        """
        key = (odd.owner_realm, odd.owner_address, odd.bind_id)
        grant = (odd.client_id, odd.realm, odd.address, odd.length, *odd.resource, odd.granted_at)
        number, goes_on = self._replace_plain(key, grant, now), False
        before = self._held_tenure(key)
        if before is not None and before[1:-1] == grant:
            number, goes_on = before.number, True
            self._execute(sql.UNBIND, (number,))
            self._execute(sql.RENEW_TENURE, (odd.method, odd.expires_at, number))
        elif before is not None:
            self._end_tenure(before, _ending(before.expires_at, now), now)
        self._check_free(odd)
        number = number or self._grant(1)
        if plain is not None and not goes_on:
            way, scale = self._way(plain.way), (plain.last - plain.place).bit_length()
            row = (*plain[1:8], way, plain.granted_at, plain.expires_at, scale, number)
            self._execute(plain_sql.BIND, row)
        else:
            self._enter(odd, number, goes_on=goes_on)
        self._execute(sql.UPDATE_HOST, (odd.bind_id, None, *key[:2]))

    def _replace_plain(self, key: Key, grant: Row, now: float) -> int:
        """Take away the plain lease of a key; returns its number if it is the same grant, else 0."""
        realm, address, bind_id = key
        numbers = (realm, _number(address), bind_id)
        rows = self._row(plain_sql.HELD, numbers)
        if not rows:
            return 0
        held = plain_sql.PlainRow._make(rows[0])
        same = grant == held.grant
        if not same:
            self._execute(plain_sql.END, (now, _ending(held.expires_at, now), *numbers))
        self._execute(plain_sql.DELETE, numbers)
        return held.number if same else 0

    def _enter(self, odd: Odd, number: int, *, goes_on: bool) -> None:
        """Write a binding that is free to stand, with its tenure if that does not go on."""
        place = (odd.address, odd.length)
        if not goes_on:
            whose = (odd.owner_realm, odd.owner_address, odd.bind_id, odd.client_id, odd.method)
            times = (odd.granted_at, odd.expires_at)
            self._execute(sql.BEGIN_TENURE, (number, *whose, odd.realm, *place, *odd.resource, *times))
            for kind, first, last in odd.spans:
                scale = (last - first).bit_length()
                self._execute(sql.ADD_RANGE, (number, *place, kind, scale, first, last))
        self._execute(sql.BIND, (number, *odd.tunnel))
        for ordinal, selector in enumerate(odd.selectors):
            self._execute(sql.ADD_SELECTOR, (number, ordinal, *selector))
        for span in odd.spans:
            self._execute(sql.ADD_HOLDING, (odd.realm, *place, *span, number))

    def _check_free(self, odd: Odd) -> None:
        place = (odd.realm, odd.address, odd.length)
        for text, spans in odd.wanted:
            for kind, first, last in spans:
                below = self._row(sql.HOLDER, (*place, kind, last))
                if below and below[0][0] >= first:
                    raise Conflict(text)
                if kind == Kind.PORT and len(odd.address) == 4 and odd.realm < PLAIN_REALMS:
                    start = odd.realm << 48 | _number(odd.address) << 16
                    below = self._row(plain_sql.HOLDER, (start | last,))
                    if below and below[0][0] >= start | first:
                        raise Conflict(text)

    def _check_client(self, realm: int, address: bytes, client_id: int) -> None:
        found = self._row(sql.CLIENT, (client_id,))
        if found and found[0] != (realm, address):
            raise Conflict(f"client ID {client_id}")

    def _held_tenure(self, key: Key) -> sql.HeldTenure | None:
        rows = self._row(sql.HELD_TENURE, key)
        return sql.HeldTenure._make(rows[0]) if rows else None

    def _end_tenure(self, held: sql.HeldTenure, ending: str, now: float) -> None:
        ended_at = max(held.granted_at, min(now, held.expires_at))
        self._execute(sql.END_TENURE, (ended_at, ending, held.number))
        self._execute(sql.UNBIND, (held.number,))

    def _grant(self, count: int) -> int:
        """Take numbers for tenures; returns the last of them."""
        ((last,),) = self._row(sql.GRANT, (count,))
        return int(last)

    def _way(self, way: Row) -> int:
        """The number of what tunnels have in common."""
        known = self._ways.get(way)
        if known is None:
            self._ways = {tuple(columns): number for number, *columns in self._row(plain_sql.WAYS)}
            known = self._ways.get(way)
        if known is None:
            ((known,),) = self._row(plain_sql.ADD_WAY, way)
            self._ways[way] = known
        return known

    def _execute(self, statement: str, values: Row) -> None:
        self._cursor.execute(statement, values)

    def _row(self, statement: str, values: Row = ()) -> list[Row]:
        """Run what answers with one row or none, to its end: a statement half read keeps a commit waiting."""
        return self._cursor.execute(statement, values).fetchall()


def _number(address: bytes) -> int:
    """An IPv4 address as a number; of others one that no IPv4 address has."""
    return int.from_bytes(address, "big") if len(address) == 4 else -1


def _ending(expires_at: float, now: float) -> str:
    return (Ending.EXPIRED if expires_at <= now else Ending.REVOKED).value
