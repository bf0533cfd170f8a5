# SPDX-License-Identifier: BSD-3-Clause
r"""Attribute lists: ``(tunnel-type=IP-IP,GRE),(load=17),keyword`` (RFC 2608 §5).

A value is an integer, a boolean, opaque octets (``\FF`` in front) or a string. SLP has no
mark for a string, so a string that looks like one of the others is read as that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from isthmus.errors import Malformed
from isthmus.wire.slp.text import escape, fold, like, unescape

Value: TypeAlias = bool | int | str | bytes

_INTEGER = re.compile(r"-?[0-9]{1,10}")
_OPAQUE = re.compile(r"(?:\\[0-9A-Fa-f]{2})+")
_TAG = re.compile(r"[^(),\\!<=>~*_\x00-\x1f\x7f]+(?:\\[0-9A-Fa-f]{2}[^(),\\!<=>~*_\x00-\x1f\x7f]*)*")


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute; a keyword has no values."""

    tag: str
    values: tuple[Value, ...] = ()


Attributes: TypeAlias = tuple[Attribute, ...]


def parse(text: str) -> Attributes:
    """Read an attribute list; an empty one has none.

    Raises:
        Malformed: it follows no rule of RFC 2608 §5.
    """
    found: list[Attribute] = []
    at = 0
    while at < len(text):
        if text[at] == "(":
            stop = text.find(")", at)
            if stop < 0:
                raise Malformed("attr-list", at=at, problem="a bracket is not closed")
            tag, equals, values = text[at + 1 : stop].partition("=")
            if not equals:
                raise Malformed("attr-list", at=at, problem="an attribute in brackets has no '='")
            items = tuple(parse_value(each) for each in values.split(","))
            stop += 1
        else:
            stop = text.find(",", at)
            stop = len(text) if stop < 0 else stop
            tag, items = text[at:stop], ()
        found.append(Attribute(_tag(tag, at), items))
        if stop < len(text) and (text[stop] != "," or stop + 1 == len(text)):
            raise Malformed("attr-list", at=stop, problem="attributes are separated by a comma")
        at = stop + 1
    return tuple(found)


def _tag(text: str, at: int) -> str:
    text = text.strip()
    if not _TAG.fullmatch(text):
        raise Malformed("attr-tag", at=at, problem=f"{text[:40]!r} is no tag")
    return unescape(text, "attr-tag")


def parse_value(text: str) -> Value:
    """Read one value, of whichever type it looks like.

    Raises:
        Malformed: an escape is wrong, or a reserved character stands unescaped.
    """
    text = text.strip()
    if _INTEGER.fullmatch(text) and -(1 << 31) <= int(text) < 1 << 31:
        return int(text)
    if fold(text) in ("true", "false"):
        return fold(text) == "true"
    if text[:3].upper() == "\\FF":
        if not _OPAQUE.fullmatch(text):
            raise Malformed("attr-val", at=0, problem=f"{text[:40]!r} is not opaque: every octet must be escaped")
        return bytes.fromhex(text[3:].replace("\\", ""))
    if any(each in "()=!<>~" for each in text):
        raise Malformed("attr-val", at=0, problem=f"{text[:40]!r} has a reserved character that is not escaped")
    return unescape(text, "attr-val")


def emit(attributes: Iterable[Attribute]) -> str:
    """Write an attribute list."""
    return ",".join(
        f"({escape(each.tag, '*_')}={','.join(emit_value(value) for value in each.values)})"
        if each.values
        else escape(each.tag, "*_")
        for each in attributes
    )


def emit_value(value: Value) -> str:
    """Write one value."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case bytes():
            return "\\ff" + "".join(f"\\{octet:02x}" for octet in value)
        case str():
            return escape(value)


def get(attributes: Iterable[Attribute], tag: str) -> tuple[Value, ...] | None:
    """The values of an attribute; None if there is none of that name."""
    wanted = fold(tag)
    return next((each.values for each in attributes if fold(each.tag) == wanted), None)


def select(attributes: Attributes, tags: Sequence[str]) -> Attributes:
    """The attributes that a tag list asks for: all if it is empty; ``*`` stands for anything (RFC 2608 §10.3)."""
    if not tags:
        return attributes
    return tuple(each for each in attributes if any(like(each.tag, tag.split("*")) for tag in tags))
