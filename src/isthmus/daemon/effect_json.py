# SPDX-License-Identifier: BSD-3-Clause
"""Effects and violations as JSON, for a plane that is not in this process.

Each effect is an object with one key, its class: ``{"Unbind": {"key": …, "ending": "freed"}}``.
Enumerations are their numbers, addresses their family and number.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter, ValidationError

from isthmus.border.effect import Bind, Deregister, Extend, Prolong, Register, Unbind
from isthmus.border.realm import Border
from isthmus.border.verdict import Violation
from isthmus.errors import PlaneError
from isthmus.plane import Programmable

_EFFECTS: dict[str, TypeAdapter[Any]] = {
    each.__name__: TypeAdapter(each) for each in (Register, Deregister, Bind, Extend, Prolong, Unbind)
}
_VIOLATION = TypeAdapter(Violation)
_BORDER = TypeAdapter(Border)


def effects_to_json(effects: Iterable[Programmable]) -> list[dict[str, Any]]:
    """Effects as values that ``json`` can write."""
    return [{type(each).__name__: _EFFECTS[type(each).__name__].dump_python(each, mode="json")} for each in effects]


def effects_from_json(values: Iterable[dict[str, Any]]) -> list[Programmable]:
    """The effects again.

    Raises:
        PlaneError: a value is no effect.
    """
    effects: list[Programmable] = []
    for each in values:
        ((name, value),) = each.items()
        if name not in _EFFECTS:
            raise PlaneError(f"{name!r} is no effect that a plane understands")
        effects.append(_read(_EFFECTS[name], value, name))
    return effects


def violations_to_json(violations: Iterable[Violation]) -> list[Any]:
    """Violations as values that ``json`` can write."""
    return [_VIOLATION.dump_python(each, mode="json") for each in violations]


def violations_from_json(values: Iterable[Any]) -> list[Violation]:
    """The violations again."""
    return [_read(_VIOLATION, each, "violation") for each in values]


def border_to_json(border: Border) -> Any:
    """A border as a value that ``json`` can write."""
    return _BORDER.dump_python(border, mode="json")


def border_from_json(value: Any) -> Border:
    """The border again."""
    border: Border = _read(_BORDER, value, "border")
    return border


def _read(adapter: TypeAdapter[Any], value: Any, name: str) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise PlaneError(f"not a {name}: {error.errors()[0]['msg']}") from error
