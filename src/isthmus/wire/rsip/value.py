# SPDX-License-Identifier: BSD-3-Clause
"""What every parameter can do, and the parameters that are just a number (RFC 3103 §8)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar, Self

from isthmus.wire.rsip.codes import known


@dataclass(frozen=True, slots=True)
class Parameter:
    """Any parameter."""

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read a value.

        Raises:
            ValueError: the octets are no value of this parameter.
        """
        raise NotImplementedError

    def emit(self) -> bytes:
        """Give the value as octets, without type and length."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class NumberParameter(Parameter):
    """A parameter that is one number of fixed width."""

    value: int
    width: ClassVar[int] = 4
    codes: ClassVar[type[enum.IntEnum] | None] = None

    def __post_init__(self) -> None:
        """Refuse what does not fit, and make a known code a member of its enumeration."""
        if not 0 <= self.value < 1 << 8 * self.width:
            raise ValueError(f"{type(self).__name__} {self.value} does not fit in {8 * self.width} bits")
        if self.codes is not None:
            object.__setattr__(self, "value", known(self.codes, self.value))

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read a value."""
        if len(octets) != cls.width:
            raise ValueError(f"length {len(octets)}, must be {cls.width}")
        return cls(int.from_bytes(octets, "big"))

    def emit(self) -> bytes:
        """Give the value as octets."""
        return self.value.to_bytes(self.width, "big")

    def __int__(self) -> int:
        return int(self.value)

    def __str__(self) -> str:
        """The number, or the name it has."""
        return self.value.name if isinstance(self.value, enum.IntEnum) else str(self.value)
