# SPDX-License-Identifier: BSD-3-Clause
"""Strings of SLPv2: UTF-8, escapes, lists, and what counts as the same (RFC 2608 §5, §6.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from isthmus.errors import Malformed

RESERVED = frozenset("(),\\!<=>~") | {chr(code) for code in (*range(0x20), 0x7F)}
"""Must be escaped wherever a string stands (RFC 2608 §5)."""
_ESCAPE = re.compile(r"\\(..?)?", re.DOTALL)
_HEX = re.compile(r"[0-9A-Fa-f]{2}")
_SPACE = re.compile(r"\s+")


def escape(text: str, more: str = "") -> str:
    """Escape the reserved characters of a string, and ``more`` (RFC 2608 §5)."""
    return "".join(f"\\{ord(each):02x}" if each in RESERVED or each in more else each for each in text)


def unescape(text: str, field: str) -> str:
    r"""Undo ``escape``: ``\2c`` becomes a comma.

    Raises:
        Malformed: a backslash has no two hexadecimal digits behind it.
    """

    def character(match: re.Match[str]) -> str:
        digits = match[1] or ""
        if not _HEX.fullmatch(digits):
            raise Malformed(field, at=match.start(), problem=f"escape {match[0]!r} is no backslash and two digits")
        return chr(int(digits, 16))

    return _ESCAPE.sub(character, text)


def fold(text: str) -> str:
    """What two strings have in common that are the same: case and white space count for nothing (RFC 2608 §6.4)."""
    return _SPACE.sub(" ", text.strip()).casefold()


def like(text: str, parts: Sequence[str]) -> bool:
    """Whether a string consists of these parts, in this order, with anything between them (RFC 2608 §6.4)."""
    text, (first, *others) = fold(text), [fold(part) for part in parts]
    if not others:
        return text == first
    *inner, last = others
    at, stop = len(first), len(text) - len(last)
    if at > stop or not text.startswith(first) or not text.endswith(last):
        return False
    for part in inner:
        found = text.find(part, at, stop)
        if found < 0:
            return False
        at = found + len(part)
    return True


def split(text: str, field: str) -> tuple[str, ...]:
    """Read a list of strings, separated by commas; empty ones are left out (RFC 2608 §6.4.1).

    Raises:
        Malformed: an escape is wrong.
    """
    return tuple(unescape(item.strip(), field) for item in text.split(",") if item.strip())


def join(items: Iterable[str]) -> str:
    """Write a list of strings."""
    return ",".join(escape(item) for item in items)


def decode(octets: bytes, field: str, at: int) -> str:
    """Read UTF-8.

    Raises:
        Malformed: it is not.
    """
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(field, at=at + error.start, problem="is not UTF-8") from error
