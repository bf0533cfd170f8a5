# SPDX-License-Identifier: BSD-3-Clause
"""ICMP identifiers of a host's programs (RFC 3102 §6.2).

A leased port is an ICMP identifier as well, and only leased ones come back. But a program that
sends an echo request does not ask which identifiers are leased: it takes its process number or a random
one. So a host translates at its own end of the tunnel, where it is the source itself: out with a
leased value that nobody uses, back with the program's own.

The kernel plane punts ICMP queries at a host's end; it has no such memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from isthmus.address import Address
from isthmus.checksum import update
from isthmus.wire.icmp import HEADER_OCTETS
from isthmus.wire.ipv4 import Ipv4View

LIFETIME_SECONDS = 60.0
MOST = 1 << 14
_CHECKSUM, _IDENTIFIER = 2, 4
"Where they are in a message, in octets."


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Who asks whom, in the terms of a host."""

    realm: int
    local: Address
    identifier: int
    "As the program chose it."
    device: str | None
    remote: Address


_Place = tuple[int, Address, Address, int]
"Realm, local address, remote address, value given."


class Identifiers:
    """Which leased value each program was given, for each peer."""

    def __init__(self) -> None:
        self._values: dict[Program, int] = {}
        # In the order of the last use.
        self._programs: dict[_Place, tuple[Program, float]] = {}
        self._own: dict[tuple[int, Address, int], float] = {}

    def __len__(self) -> int:
        """How many are given."""
        return len(self._programs)

    def give(self, program: Program, held: Iterable[int], *, now: float) -> int | None:
        """Give a program a value, the same as before if it has one.

        Args:
            program: Who asks.
            held: The leased values that it may be given.
            now: Seconds since 1970.

        Returns:
            None if all of them are in use toward this peer.
        """
        self._forget(now)
        value, allowed = self._values.get(program), sorted(held, reverse=True)
        if value is None or value not in allowed:
            value = next((each for each in allowed if self._is_free(program, each)), None)
        if value is None:
            return None
        self._note(program, value, now)
        return value

    def use(self, realm: int, local: Address, value: int, *, now: float) -> None:
        """A program uses a held value by itself: it is given to nobody else."""
        self._forget(now)
        self._own.pop((realm, local, value), None)
        self._own[realm, local, value] = now

    def is_given(self, realm: int, local: Address, remote: Address, value: int, *, now: float) -> bool:
        """Whether a value is somebody's toward a peer."""
        self._forget(now)
        return (realm, local, remote, value) in self._programs

    def program(self, realm: int, local: Address, remote: Address, value: int, *, now: float) -> Program | None:
        """Who was given a value toward a peer: what comes back is his."""
        self._forget(now)
        found = self._programs.get((realm, local, remote, value))
        if found is None:
            return None
        self._note(found[0], value, now)
        return found[0]

    def _is_free(self, program: Program, value: int) -> bool:
        given = (program.realm, program.local, program.remote, value) in self._programs
        return not given and (program.realm, program.local, value) not in self._own

    def _note(self, program: Program, value: int, now: float) -> None:
        before = self._values.pop(program, None)
        if before is not None:
            del self._programs[self._place(program, before)]
        if len(self._programs) >= MOST:
            self._remove(next(iter(self._programs)))
        self._values[program] = value
        self._programs[self._place(program, value)] = (program, now)

    def _forget(self, now: float) -> None:
        """Forget what was used last a minute ago."""
        while self._programs:
            place, (_, used) = next(iter(self._programs.items()))
            if used + LIFETIME_SECONDS > now:
                break
            self._remove(place)
        while self._own:
            own, used = next(iter(self._own.items()))
            if used + LIFETIME_SECONDS > now:
                break
            del self._own[own]

    def _remove(self, place: _Place) -> None:
        program, _ = self._programs.pop(place)
        del self._values[program]

    @staticmethod
    def _place(program: Program, value: int) -> _Place:
        return program.realm, program.local, program.remote, value


def with_identifier(packet: Ipv4View, value: int) -> bytes:
    """Copy an ICMP query with another identifier, its checksum amended (RFC 1624 §3)."""
    octets = bytearray(packet.octets)
    _exchange(octets, len(packet.header), value)
    return bytes(octets)


def with_quoted_identifier(packet: Ipv4View, value: int) -> bytes:
    """Copy an ICMP error that quotes a query, with another identifier there, both checksums amended (RFC 1624 §3)."""
    octets = bytearray(packet.octets)
    start = len(packet.header)
    quoted = start + HEADER_OCTETS
    at = quoted + (octets[quoted] & 0xF) * 4
    for place, before, after in _exchange(octets, at, value):
        # A word of the message is two octets of it that begin at an even place, as these do.
        assert (place - start) % 2 == 0
        _amend(octets, start + _CHECKSUM, before, after)
    return bytes(octets)


def _exchange(octets: bytearray, at: int, value: int) -> list[tuple[int, int, int]]:
    """Write an identifier into the message that begins somewhere; say which words changed: place, before, after."""
    places = (at + _CHECKSUM, at + _IDENTIFIER)
    before = [int.from_bytes(octets[place : place + 2], "big") for place in places]
    _amend(octets, places[0], before[1], value)
    octets[places[1] : places[1] + 2] = value.to_bytes(2, "big")
    after = [int.from_bytes(octets[place : place + 2], "big") for place in places]
    return list(zip(places, before, after, strict=True))


def _amend(octets: bytearray, at: int, before: int, after: int) -> None:
    found = int.from_bytes(octets[at : at + 2], "big")
    octets[at : at + 2] = update(found, before, after).to_bytes(2, "big")
