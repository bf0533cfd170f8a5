# SPDX-License-Identifier: BSD-3-Clause
"""Mapping files: a whole mapping table as text, accepted whole or refused whole (seed IPAE 5.1, 8.1; spec 6.3).

One entry a line, an IPv4 prefix and the upper half that stands above its addresses::

    serial 2026112201
    129.144.0.0/16    c20.4.0.3     # or 148.4.0.3, or 9404:3
    192.9.5.0/24      c1.213.77.5
    192.9.5.2/32      1.213.77.5    # speaks SIP itself: C is 0

``serial`` numbers the version as a zone's SOA does. ``digest`` and 64 hex digits, if given, must be the
digest of the entries: a file that was cut off on its way is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from isthmus.address import Address, Family, Prefix, parse_upper, upper_text
from isthmus.border.mapping import C_BIT, Mapping, Words, beyond, reserved
from isthmus.errors import IsthmusError

SPECIAL = tuple(map(Prefix.parse, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4")))
"""IPv4 addresses that no site has: this network, loopback, multicast, reserved (spec 2.2)."""

_SHOWN = 20
"""So many faults go into the message of one error."""


@dataclass(frozen=True, slots=True)
class OwnNetwork:
    """IPv4 addresses behind this border: nobody else may have them (spec 9.4)."""

    prefix: Prefix
    site: Prefix | None = None
    "The SIP /32 of the site, C bit 0: the only one that the addresses may be mapped to. None: to none."


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a table."""

    at: int | str
    "The line of a file, or where else: the name of a DNS record."
    reason: str

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return f"line {self.at}" if isinstance(self.at, int) else self.at

    def __str__(self) -> str:
        """Place and reason."""
        return f"{self.place}: {self.reason}"


class MappingRefused(IsthmusError):
    """A mapping table that is wrong; the one that stands goes on to.

    Args:
        source: The file or zone.
        faults: All that is wrong with it, in order.
    """

    def __init__(self, source: str, faults: Sequence[Fault]) -> None:
        shown = [f"{source}: {each}" for each in faults[:_SHOWN]]
        if len(faults) > _SHOWN:
            shown.append(f"{source}: and {len(faults) - _SHOWN} more faults")
        super().__init__("\n".join(shown))
        self.source = source
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping with its version."""

    mapping: Mapping
    serial: int | None = None
    "0 to 2^32 - 1, as a zone's SOA has it; None: the file does not say."


@dataclass(slots=True)
class Rows:
    """Entries as they come in, not looked at yet; four columns of one length."""

    numbers: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    uppers: list[int] = field(default_factory=list)
    places: list[int | str] = field(default_factory=list)
    "Where each stood: the line of a file, or a name."


def accept(rows: Rows, *, source: str, own: Iterable[OwnNetwork] = (), faults: Iterable[Fault] = ()) -> Mapping:
    """Make a mapping of entries if nothing at all is wrong with them: the one check, for files and for the DNS.

    Refused are bits beyond a prefix length, countries 0 and 127, addresses that no site has, one prefix with two
    images, and own networks mapped to another site (spec 9.4).

    Args:
        rows: The entries.
        source: The file or zone, for the error.
        own: The networks behind this border.
        faults: What was found while reading.

    Raises:
        MappingRefused: with every fault.
    """
    found = list(faults)
    numbers = np.array(rows.numbers, np.uint32)
    lengths = np.array(rows.lengths, np.uint8)
    uppers = np.array(rows.uppers, np.uint32)
    for wrong, reason in (
        (beyond(numbers, lengths) != 0, "has bits set beyond its length"),
        (reserved(uppers), "is mapped to country 0 or 127, which are no site's (RFC 8507 §4.3, §4.4)"),
    ):
        found += [_fault(rows, at, reason) for at in np.flatnonzero(wrong).tolist()]
    for at, before in _twice(numbers, lengths, uppers):
        earlier = rows.places[before]
        where = f"on line {earlier}" if isinstance(earlier, int) else f"at {earlier}"
        now, then = upper_text(rows.uppers[at]), upper_text(rows.uppers[before])
        found.append(_fault(rows, at, f"is mapped to {now}, but to {then} {where}"))
    ends = numbers.astype(np.int64) + (np.int64(1) << (32 - lengths.astype(np.int64)))
    for special in SPECIAL:
        for at in _overlapping(numbers, ends, special):
            found.append(_fault(rows, at, f"has addresses of {special}, which no site has"))
    for network in own:
        for at in _overlapping(numbers, ends, network.prefix):
            if network.site is None or (rows.uppers[at] & ~C_BIT) != network.site.address.upper:
                elsewhere = f"is mapped to {upper_text(rows.uppers[at])}, but {network.prefix} is here"
                found.append(_fault(rows, at, elsewhere + (f", at {network.site}" if network.site else "")))
    if found:
        raise MappingRefused(source, sorted(found, key=lambda each: each.at if isinstance(each.at, int) else 0))
    return Mapping.from_arrays(numbers, lengths, uppers)


def _fault(rows: Rows, at: int, reason: str) -> Fault:
    return Fault(rows.places[at], f"{Address(Family.IPV4, rows.numbers[at])}/{rows.lengths[at]} {reason}")


def _twice(numbers: Words, lengths: NDArray[np.uint8], uppers: Words) -> Iterator[tuple[int, int]]:
    """Each entry with the prefix of an earlier one and another image, and that earlier one."""
    keys = numbers.astype(np.uint64) << np.uint64(6) | lengths
    order = np.argsort(keys, kind="stable")
    again = (keys[order][1:] == keys[order][:-1]) & (uppers[order][1:] != uppers[order][:-1])
    yield from zip(order[1:][again].tolist(), order[:-1][again].tolist(), strict=True)


def _overlapping(numbers: Words, ends: NDArray[np.int64], prefix: Prefix) -> list[int]:
    """Indexes of the entries that have an address of a prefix."""
    first = prefix.address.number
    found: list[int] = np.flatnonzero((numbers < first + (1 << (32 - prefix.length))) & (ends > first)).tolist()
    return found


def parse(octets: bytes, *, source: str = "the mapping", own: Iterable[OwnNetwork] = ()) -> Table:
    """Read a mapping file.

    Args:
        octets: All of it, UTF-8.
        source: Its name, for the error.
        own: The networks behind this border.

    Raises:
        MappingRefused: with every fault and its line.
    """
    rows, faults, said = Rows(), _Faults(), _Said()
    try:
        text = octets.decode()
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise MappingRefused(source, [Fault(line, "is no text: not UTF-8")]) from error
    known: dict[str, int] = {}
    for line, content in enumerate(text.split("\n"), 1):
        words = (content.partition("#")[0] if "#" in content else content).split()
        if not words:
            continue
        try:
            prefix, upper = words
            address, length = prefix.split("/")
            a, b, c, d = address.split(".")
            number = _OCTETS[a] << 24 | _OCTETS[b] << 16 | _OCTETS[c] << 8 | _OCTETS[d]
            if upper not in known:
                known[upper] = parse_upper(upper)
            rows.lengths.append(_LENGTHS[length])
        except (ValueError, KeyError):
            if reason := said.header(words) if words[0] in _HEADERS else _explain(words):
                faults.append(Fault(line, reason))
        else:
            rows.numbers.append(number)
            rows.uppers.append(known[upper])
            rows.places.append(line)
    mapping = accept(rows, source=source, own=own, faults=faults)
    if said.digest not in {None, mapping.digest}:
        raise MappingRefused(
            source, [Fault("digest", f"the file says {said.digest}, its entries have {mapping.digest}")]
        )
    return Table(mapping, said.serial)


def emit(table: Table) -> str:
    """Write a mapping file: serial, digest, and the entries in order."""
    head = [] if table.serial is None else [f"serial {table.serial}"]
    head.append(f"digest {table.mapping.digest}")
    return "\n".join(
        [*head, *(f"{prefix!s:<18} {upper_text(image.address.upper)}" for prefix, image in table.mapping), ""]
    )


def combine(*mappings: Mapping) -> Mapping:
    """Put mappings together; where several have the same prefix, the first of them counts."""
    numbers, lengths, uppers = (
        np.concatenate(columns)
        for columns in zip(*((each.numbers, each.lengths, each.uppers) for each in mappings), strict=True)
    )
    keys = numbers.astype(np.uint64) << np.uint64(6) | lengths
    order = np.argsort(keys, kind="stable")
    first = np.ones(len(keys), np.bool_)
    first[1:] = keys[order][1:] != keys[order][:-1]
    chosen = order[first]
    return Mapping.from_arrays(numbers[chosen], lengths[chosen], uppers[chosen])


def is_newer(serial: int, than: int) -> bool:
    """Compare serial numbers in the arithmetic of RFC 1982 §3.2, in which they go round."""
    return 0 < (serial - than) % (1 << 32) < 1 << 31


_OCTETS = {str(number): number for number in range(256)}
_LENGTHS = {str(number): number for number in range(33)}
_HEADERS = {"serial", "digest"}
_Faults = list[Fault]


@dataclass(slots=True)
class _Said:
    """What the lines say that are no entries."""

    serial: int | None = None
    digest: str | None = None

    def header(self, words: Sequence[str]) -> str:
        """Take such a line; what is wrong with it, or ""."""
        match words:
            case ["serial", number] if (
                number.isascii() and number.isdigit() and len(number) < 11 and int(number) < 1 << 32
            ):
                again, self.serial = self.serial is not None, int(number)
            case ["digest", digits] if len(digits) == 64 and not set(digits.lower()) - set("0123456789abcdef"):
                again, self.digest = self.digest is not None, digits.lower()
            case ["serial", *_]:
                return "a serial is one number of 0 to 4294967295"
            case _:
                return "a digest is 64 hex digits"
        return f"there is a {words[0]} already" if again else ""


def _explain(words: Sequence[str]) -> str:
    """Say what is wrong with a line that is no entry."""
    if len(words) != 2:
        return f"{' '.join(words)[:80]!r} is not an IPv4 prefix and an upper half, as in 129.144.0.0/16 c1.213.77.5"
    address, slash, length = words[0].partition("/")
    if not slash:
        return f"{words[0]!r} has no length: write {words[0]}/32 for one address"
    if len(parts := address.split(".")) != 4 or any(each not in _OCTETS for each in parts):
        return f"{address!r} is no IPv4 address"
    if length not in _LENGTHS:
        return f"/{length} is no prefix length of IPv4: 0 to 32"
    return f"{words[1]!r} is no upper half, such as c1.213.77.5, 129.213.77.5 or 81D5:4D05"
