# SPDX-License-Identifier: BSD-3-Clause
"""Predicates: LDAPv3 search filters over attributes (RFC 2608 §8.1, RFC 2254 §4).

::

    filter = "(" ( "&" 1*filter | "|" 1*filter | "!" filter | item ) ")"
    item   = tag ( "=" | "~=" | ">=" | "<=" ) value         "*" in the value of "=": anything; alone: it is there

A value is compared as what the attribute's value is: an integer with an integer, a boolean
with a boolean, anything else without regard to case and white space.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from isthmus.errors import Malformed
from isthmus.wire.slp.attribute import Attribute, Value, get, parse_value
from isthmus.wire.slp.text import fold, like, unescape

DEEPEST = 16
"""Filters inside of filters."""
LONGEST = 2048
"""Octets of a predicate; RFC 2608 allows 65,535, and matching takes longer the longer they are."""


@dataclass(frozen=True, slots=True)
class Item:
    """One comparison."""

    tag: str
    operator: str
    "One of ``= ~= >= <=``."
    text: str
    "The value as it stands, with its escapes."


@dataclass(frozen=True, slots=True)
class Both:
    """All of them hold."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one of them holds."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Neither:
    """It does not hold."""

    filter: Filter


Filter: TypeAlias = Item | Both | Either | Neither


def parse(text: str) -> Filter | None:
    """Read a predicate; an empty one is None and holds always.

    Raises:
        Malformed: it is no filter, too long, or nested too deep.
    """
    text = text.strip()
    if not text:
        return None
    if len(text) > LONGEST:
        raise Malformed("predicate", at=0, problem=f"{len(text)} characters, more than {LONGEST}")
    found, at = _filter(text, 0, 1)
    if at != len(text):
        raise Malformed("predicate", at=at, problem="something stands behind the filter")
    return found


def _filter(text: str, at: int, depth: int) -> tuple[Filter, int]:
    if depth > DEEPEST:
        raise Malformed("predicate", at=at, problem=f"more than {DEEPEST} filters inside of each other")
    if text[at : at + 1] != "(":
        raise Malformed("predicate", at=at, problem="a filter begins with '('")
    at = _skip(text, at + 1)
    kind = text[at : at + 1]
    found: Filter
    if kind and kind in "&|!":
        filters: list[Filter] = []
        at = _skip(text, at + 1)
        while text[at : at + 1] == "(":
            inner, at = _filter(text, at, depth + 1)
            filters.append(inner)
            at = _skip(text, at)
        if not filters or (kind == "!" and len(filters) > 1):
            raise Malformed("predicate", at=at, problem=f"{kind!r} has {len(filters)} filters")
        found = Neither(filters[0]) if kind == "!" else Both(tuple(filters)) if kind == "&" else Either(tuple(filters))
    else:
        stop = text.find(")", at)
        stop = len(text) if stop < 0 else stop
        found, at = _item(text[at:stop], at), stop
    if text[at : at + 1] != ")":
        raise Malformed("predicate", at=at, problem="a bracket is not closed")
    return found, at + 1


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] == " ":
        at += 1
    return at


def _item(text: str, at: int) -> Item:
    left, equals, value = text.partition("=")
    if not equals:
        raise Malformed("predicate", at=at, problem=f"{text[:40]!r} compares nothing")
    operator = "="
    if left[-1:] and left[-1] in "~<>":
        left, operator = left[:-1], f"{left[-1]}="
    tag = left.strip()
    if not tag or any(each in "(,!<>~*" for each in tag):
        raise Malformed("predicate", at=at, problem=f"{tag[:40]!r} is no attribute")
    if any(each in "(,!<>=~" for each in value):
        raise Malformed("predicate", at=at, problem=f"{value[:40]!r} has a reserved character that is not escaped")
    if "*" in value and operator != "=":
        raise Malformed("predicate", at=at, problem=f"{value[:40]!r} has an asterisk, which only = can have")
    unescape(value, "predicate")
    if "*" not in value:
        parse_value(value)
    return Item(unescape(tag, "predicate"), operator, value.strip())


def matches(wanted: Filter | None, attributes: Iterable[Attribute]) -> bool:
    """Say whether a service with these attributes is one that is asked for.

    An attribute that is not there makes each comparison with it false (RFC 2608 §8.1).
    """
    attributes = tuple(attributes)
    match wanted:
        case None:
            return True
        case Both(filters):
            return all(matches(each, attributes) for each in filters)
        case Either(filters):
            return any(matches(each, attributes) for each in filters)
        case Neither(inner):
            return not matches(inner, attributes)
        case Item():
            values = get(attributes, wanted.tag)
            if values is None:
                return False
            if wanted.operator == "=" and wanted.text == "*":
                return True
            return any(_holds(value, wanted) for value in values)


def _holds(value: Value, wanted: Item) -> bool:
    if "*" in wanted.text:
        if not isinstance(value, str):
            return False
        return like(value, [unescape(part, "predicate") for part in wanted.text.split("*")])
    asked = parse_value(wanted.text)
    if isinstance(value, str):
        # What is a string there is compared as one, whatever it looks like here.
        return _ordered(fold(value), fold(unescape(wanted.text, "predicate")), wanted.operator)
    if isinstance(value, bool) or isinstance(asked, bool) or isinstance(value, bytes):
        return wanted.operator in ("=", "~=") and type(value) is type(asked) and value == asked
    return isinstance(asked, int) and _ordered(value, asked, wanted.operator)


def _ordered(left: str | int, right: str | int, operator: str) -> bool:
    if operator == ">=":
        return left >= right  # type: ignore[operator]
    if operator == "<=":
        return left <= right  # type: ignore[operator]
    return left == right
