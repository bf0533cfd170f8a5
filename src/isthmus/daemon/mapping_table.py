# SPDX-License-Identifier: BSD-3-Clause
"""The mapping table of one IPv4 realm: where it comes from, and the one way it reaches the plane.

Three sources, the earlier before the later where both have a prefix: the mapping file, a copy of a mapping zone,
and answers to single questions. Whatever changes, the whole table is made anew beside the one that stands,
checked, and programmed in its place; if anything fails, the one that stands stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.border.mapping import Difference, Mapping
from isthmus.daemon.control import Connection, ControlError, Handler
from isthmus.errors import ConfigError
from isthmus.ipae.mapping import OwnNetwork, Table, combine, parse

LARGEST = 1 << 29
"""Longest mapping file in octets: some 20 million entries."""

Apply = Callable[[Mapping], Awaitable[None]]
"""Programs a mapping in place of the one before (the effect ``Remap``), and returns when it counts."""


def read_table(path: Path, own: Iterable[OwnNetwork] = ()) -> Table:
    """Read a mapping file: what the daemon does at its start and on ``isthmus map apply``, and ``isthmus map check``.

    Raises:
        ConfigError: it cannot be read.
        MappingRefused: something is wrong in it.
    """
    try:
        with path.open("rb") as file:
            octets = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(str(path), key="", reason=error.strerror or str(error)) from error
    if len(octets) > LARGEST:
        raise ConfigError(str(path), key="", reason=f"longer than {LARGEST} octets")
    return parse(octets, source=str(path), own=own)


@dataclass(frozen=True, slots=True)
class Origin:
    """One source of entries."""

    mapping: Mapping
    name: str
    "A file, or a zone."
    serial: int | None = None


_NOTHING = Origin(Mapping.of(), "")


class MappingTable:
    """Keeps the mapping of one realm.

    Args:
        realm: Name of the IPv4 realm.
        apply: Programs a mapping.
        own: The networks behind this border.
        path: The mapping file of the configuration; None: there is none.
    """

    def __init__(self, realm: str, apply: Apply, *, own: Iterable[OwnNetwork] = (), path: Path | None = None) -> None:
        self.realm = realm
        self.own = tuple(own)
        self.mapping = Mapping.of()
        "What the plane has."
        self.dns: Callable[[], dict[str, Any]] | None = None
        "Says how the zone is followed, if one is."
        self._apply = apply
        self._path = path
        self._file = self._zone = self._answers = _NOTHING
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Read the file and program what is in it.

        Raises:
            ConfigError: it cannot be read.
            MappingRefused: something is wrong in it.
        """
        if self._path is not None:
            await self.reload()

    async def reload(self, path: Path | None = None) -> dict[str, Any]:
        """Read the mapping file, or another in its place, and program it whole or not at all.

        Args:
            path: The other file; the configured one is read again at the next start.

        Returns:
            What ``isthmus map apply`` prints: ``describe`` and how many entries were added, removed and changed.

        Raises:
            ConfigError: there is none, or it cannot be read.
            MappingRefused: something is wrong in it.
        """
        chosen = path or self._path
        if chosen is None:
            raise ConfigError(self.realm, key="", reason="no mapping file is configured; name one")
        async with self._turn:
            table = await asyncio.to_thread(read_table, chosen, self.own)
            origin = Origin(table.mapping, str(chosen), table.serial)
            difference = await self._replace(origin, self._zone, self._answers)
        counts = {
            "added": len(difference.added),
            "removed": len(difference.removed),
            "changed": len(difference.after),
        }
        return self.describe() | counts

    async def set_zone(self, mapping: Mapping, zone: str, serial: int | None) -> Difference:
        """Take a new copy of the mapping zone, checked."""
        async with self._turn:
            return await self._replace(self._file, Origin(mapping, zone, serial), self._answers)

    async def set_answers(self, mapping: Mapping, zone: str) -> Difference:
        """Take what single questions have found, checked."""
        async with self._turn:
            return await self._replace(self._file, self._zone, Origin(mapping, zone))

    async def _replace(self, file: Origin, zone: Origin, answers: Origin) -> Difference:
        parts = [each.mapping for each in (file, zone, answers) if len(each.mapping)]
        whole, difference = await asyncio.to_thread(_put_together, parts, self.mapping)
        if difference:
            await self._apply(whole)
        self.mapping, self._file, self._zone, self._answers = whole, file, zone, answers
        return difference

    def describe(self) -> dict[str, Any]:
        """What the table is and where it came from, for JSON."""
        row: dict[str, Any] = {
            "realm": self.realm,
            "entries": len(self.mapping),
            "digest": self.mapping.digest,
            "octets": self.mapping.octets,
            "sources": [
                {"name": each.name, "serial": each.serial, "entries": len(each.mapping)}
                for each in (self._file, self._zone, self._answers)
                if each is not _NOTHING
            ],
        }
        return row if self.dns is None else row | {"dns": self.dns()}


def _put_together(parts: list[Mapping], before: Mapping) -> tuple[Mapping, Difference]:
    """What takes long with a million entries, for a thread of its own; spans are what a plane asks for first."""
    match parts:
        case []:
            whole = Mapping.of()
        case [only]:
            whole = only
        case _:
            whole = combine(*parts)
    assert len(whole.spans.starts)
    return whole, before.diff(whole)


def remap_handler(tables: Dictionary[str, MappingTable]) -> Handler:
    """Make the handler of the control verb ``remap``.

    ``{"do": "remap"}`` reads the mapping file again. ``"path"``, absolute, names another; ``"realm"`` the realm,
    which may be missing where only one has a table. The result is that of ``MappingTable.reload``.

    Args:
        tables: By the name of the realm.
    """

    async def remap(request: dict[str, Any], _connection: Connection) -> dict[str, Any]:
        path = request.get("path")
        if path is not None and not Path(path).is_absolute():
            raise ControlError(f"{path}: not an absolute path, and the daemon has a working directory of its own")
        return await _table(tables, request.get("realm")).reload(None if path is None else Path(path))

    return remap


def mappings_handler(tables: Dictionary[str, MappingTable]) -> Handler:
    """Make the handler of the control verb ``mappings``: ``describe`` of every table, and the image of ``"lookup"``.

    ``"lookup"`` is an IPv4 address; with it each table says the entry that decides about it, or null.

    Args:
        tables: By the name of the realm.
    """

    async def mappings(request: dict[str, Any], _connection: Connection) -> list[dict[str, Any]]:
        from isthmus.address import Address

        asked = request.get("lookup")
        address = None if asked is None else Address.parse(asked)
        rows = []
        for table in tables.values():
            row = table.describe()
            if address is not None:
                found = table.mapping.lookup_entry(address)
                row["found"] = found and {"prefix": str(found.prefix), "image": str(found.image)}
            rows.append(row)
        return rows

    return mappings


def _table(tables: Dictionary[str, MappingTable], realm: str | None) -> MappingTable:
    known = ", ".join(tables)
    if not tables:
        raise ControlError("no realm of this daemon has a mapping table")
    if realm is None and len(tables) > 1:
        raise ControlError(f"several realms have a mapping table: choose one of {known} with --realm")
    if realm is not None and realm not in tables:
        raise ControlError(f"realm {realm} has no mapping table; these have: {known}")
    return tables[realm] if realm is not None else next(iter(tables.values()))
