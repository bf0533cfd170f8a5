# SPDX-License-Identifier: BSD-3-Clause
"""Route dumps: which networks there are, who originates them, and through whom.

Two forms, each also compressed by gzip or bzip2:

* MRT, TABLE_DUMP_V2 (RFC 6396 §4.3), read by mrtparse;
* text, a route a line: ``prefix origin-as [path]``, where the path, if any, is of AS numbers
  and ends with the origin. Empty lines and what follows ``#`` mean nothing.

A prefix may come many times, by different paths. Of IPv6 routes and of the default route
nothing is taken.
"""

from __future__ import annotations

import bz2
import gzip
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from isthmus.address import Family, Prefix
from isthmus.errors import ConfigError, Unsupported

UNKNOWN = 0
"""The provider where no path says it; AS 0 is nobody's (RFC 7607)."""

_TABLE_DUMP_V2 = 13
_AS_PATH = 2
_AS_SEQUENCE = 2
_RIB_IPV4_UNICAST = ((_TABLE_DUMP_V2, 2), (_TABLE_DUMP_V2, 8))
"""Type and subtype, without and with ADD-PATH (RFC 8050 §4)."""


@dataclass(slots=True)
class Dump:
    """Prefixes with the ways in which they were seen."""

    ways: dict[tuple[int, int], tuple[tuple[int, int], ...]] = field(default_factory=dict)
    """Number and length of a prefix to its pairs of origin and provider: the AS before the origin."""

    def add(self, number: int, length: int, path: Sequence[int]) -> None:
        """Add a route; its path ends with the origin, and repetitions in it mean nothing (prepending)."""
        origin = path[-1]
        provider = next((each for each in reversed(path) if each != origin), UNKNOWN)
        known = self.ways.get((number, length), ())
        if (origin, provider) not in known:
            self.ways[number, length] = (*known, (origin, provider))


def read_dump(path: Path) -> Dump:
    """Read a route dump of either form.

    Raises:
        ConfigError: it is of neither, or has no IPv4 route; says in which line, or why.
        Unsupported: it is MRT, and mrtparse is not installed.
        OSError: it cannot be read.
    """
    with _opened(path) as octets:
        try:
            head = octets.peek(6)[:6]
            if int.from_bytes(head[4:6], "big") == _TABLE_DUMP_V2:
                dump = _read_mrt(path, octets)
            else:
                with io.TextIOWrapper(octets, encoding="utf-8") as lines:
                    dump = _read_text(path, lines)
        except (EOFError, gzip.BadGzipFile) as error:
            raise ConfigError(str(path), key="", reason=f"the compressed file is broken: {error}") from error
    if not dump.ways:
        raise ConfigError(str(path), key="", reason="there is no IPv4 route in it")
    return dump


def read_registry(path: Path) -> dict[range, str]:
    """Read whose country each AS number is delegated to, from a "delegated" file of an address registry.

    Lines are ``registry|country|asn|first|count|date|status``; those of addresses and sums are passed over.

    Returns:
        Ranges of AS numbers to two letters.

    Raises:
        ConfigError: a line of AS numbers that is none, or no such line.
        OSError: it cannot be read.
    """
    found = {}
    for at, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        fields = line.split("|")
        if len(fields) < 7 or fields[2] != "asn" or not fields[1].strip():
            continue
        try:
            first, count = int(fields[3]), int(fields[4])
        except ValueError as error:
            raise ConfigError(str(path), key=f"line {at}", reason=f"{line!r} names no AS numbers") from error
        found[range(first, first + count)] = fields[1]
    if not found:
        raise ConfigError(str(path), key="", reason="no line says registry|country|asn|first|count|date|status")
    return found


def _opened(path: Path) -> io.BufferedReader:
    with path.open("rb") as file:
        magic = file.read(3)
    match magic[:2], magic:
        case (b"\x1f\x8b", _):
            return io.BufferedReader(cast("Any", gzip.open(path)))
        case (_, b"BZh"):
            return io.BufferedReader(cast("Any", bz2.open(path)))
    return path.open("rb")


def _read_text(path: Path, lines: Iterable[str]) -> Dump:
    dump = Dump()
    try:
        for at, line in enumerate(lines, start=1):
            words = line.partition("#")[0].split()
            if words:
                try:
                    _add_line(dump, words)
                except ValueError as error:
                    raise ConfigError(str(path), key=f"line {at}", reason=str(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), key="", reason="neither MRT (TABLE_DUMP_V2) nor text") from error
    return dump


def _add_line(dump: Dump, words: Sequence[str]) -> None:
    if len(words) < 2:
        raise ValueError(f"{words[0]!r} has no origin; write: prefix origin-as [path]")
    prefix = Prefix.parse(words[0])
    origin, *path = [_system(word) for word in words[1:] if not word.startswith("{")]
    if path and path[-1] != origin:
        raise ValueError(f"the path ends with AS {path[-1]} and not with the origin, AS {origin}")
    if prefix.family is Family.IPV4 and prefix.length:
        dump.add(prefix.address.number, prefix.length, path or [origin])


def _system(word: str) -> int:
    digits = word.upper().removeprefix("AS")
    if not digits.isascii() or not digits.isdecimal() or not 0 < int(digits) < 1 << 32:
        raise ValueError(f"{word!r} is no AS number")
    return int(digits)


def _read_mrt(path: Path, octets: IO[bytes]) -> Dump:
    try:
        import mrtparse
    except ImportError as error:
        remedy = "pip install 'isthmus[mrt]', or give the dump as text: prefix origin-as [path]"
        raise Unsupported("reading MRT", remedy=remedy) from error
    dump = Dump()
    for record in _records(path, mrtparse.Reader(octets)):
        kind = (next(iter(record.data["type"])), next(iter(record.data["subtype"])))
        if kind not in _RIB_IPV4_UNICAST or not record.data["length"]:
            continue
        prefix = Prefix.parse(f"{record.data['prefix']}/{record.data['length']}")  # checked by mrtparse
        for systems in _paths(record.data["rib_entries"]):
            dump.add(prefix.address.number, prefix.length, systems)
    return dump


def _records(path: Path, reader: Iterator[Any]) -> Iterator[Any]:
    """Give the records of a dump that mrtparse understands, and stop at the first that it does not."""
    at = 0
    while True:
        at += 1
        try:
            record = next(reader, None)
        except Exception as error:
            # Octets without a meaning reach its tables of names, and raise whatever comes of that.
            reason = f"mrtparse does not understand it: {type(error).__name__} {error}"
            raise ConfigError(str(path), key=f"record {at}", reason=reason) from error
        if record is None:
            return
        if record.err is not None:
            raise ConfigError(str(path), key=f"record {at}", reason=record.err_msg)
        yield record


# Silent: nobody says who originates a path that ends with an AS_SET; what stands before it is taken.
def _paths(entries: Sequence[Any]) -> Iterator[list[int]]:
    """Give the AS paths of a RIB entry that have an origin."""
    for entry in entries:
        for attribute in entry["path_attributes"]:
            if _AS_PATH in attribute["type"]:
                sequences = [part["value"] for part in attribute["value"] if _AS_SEQUENCE in part["type"]]
                if systems := [int(each) for part in sequences for each in part]:
                    yield systems
