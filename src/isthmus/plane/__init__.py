# SPDX-License-Identifier: BSD-3-Clause
"""Planes: they move packets by bindings. One contract, two makers of it.

``plane.reference`` says in Python what is right; ``plane.kernel`` does the same in eBPF
and hands what it should not do itself to the reference plane. ``docs/data-plane.md`` has
the path of a packet through both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from isthmus.border.effect import Bind, Deregister, Extend, Lapse, Prolong, Register, Remap, Unbind
from isthmus.border.plain import endings
from isthmus.border.verdict import Reason, Violation

Programmable = Register | Deregister | Bind | Extend | Prolong | Unbind | Remap
"""The effects that a plane understands."""
Planned = Programmable | Lapse
"""What a plane is told: the same, and very many ends in one."""


def one_by_one(effects: Iterable[Planned]) -> Iterator[Programmable]:
    """Effects with what a ``Lapse`` ends one by one, for who has no use for columns."""
    for effect in effects:
        if isinstance(effect, Lapse):
            yield from endings(effect)
        else:
            yield effect


class Plane(Protocol):
    """Whatever moves packets by bindings."""

    def apply(self, effects: Iterable[Planned]) -> None:
        """Carry out effects in order; when it returns, packets already follow them.

        Raises:
            PlaneError: the plane cannot; what was applied before the failing effect stands.
        """

    def counters(self) -> Mapping[Reason, int]:
        """Packets by reason, since the plane was made (or, if pinned, attached)."""

    def events(self) -> list[Violation]:
        """The violations seen since the last call, oldest first."""

    def close(self) -> None:
        """Let go of the plane. What is pinned goes on forwarding."""
