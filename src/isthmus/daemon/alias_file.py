# SPDX-License-Identifier: BSD-3-Clause
"""Aliases that outlive the daemon: without them the connections that go by them would end with it (spec 8.3).

One line for each, ``REALM ALIAS ADDRESS UNTIL``, the last in seconds since 1970. What the file says is believed as far
as the pools of the configuration allow it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from isthmus.address import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One alias as the file has it."""

    realm: int
    alias: Address
    peer: Address
    until: float
    "Seconds since 1970."


class AliasFile:
    """The file of one daemon.

    Args:
        path: Where it is, or is to be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Iterator[Kept]:
        """What was kept; lines that cannot be read are left out, since an alias that is lost is given again."""
        try:
            lines = self._path.read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):
            return
        for line in lines:
            try:
                realm, alias, peer, until = line.split()
                yield Kept(
                    realm=int(realm), alias=Address.parse(alias), peer=Address.parse_sip(peer), until=float(until)
                )
            except ValueError:
                continue

    def write(self, kept: Iterable[Kept]) -> None:
        """Keep this instead, whole or not at all; nothing: there is no file.

        Raises:
            OSError: it cannot be written.
        """
        lines = [f"{each.realm} {each.alias} {each.peer} {each.until:.3f}\n" for each in kept]
        if not lines:
            self._path.unlink(missing_ok=True)
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(".new")
        beside.write_text("".join(lines), encoding="ascii")
        beside.replace(self._path)
