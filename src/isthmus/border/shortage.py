# SPDX-License-Identifier: BSD-3-Clause
"""Why a pool says no."""

from __future__ import annotations

import enum

from isthmus.errors import IsthmusError


class Shortage(enum.Enum):
    """Why a pool says no."""

    ADDRESS_NOT_OURS = "the address is not in the pool, or not to be had in this way"
    ADDRESS_IN_USE = "the address is held by somebody else, or resting"
    PORTS_NOT_OURS = "some of the ports are not in the pool"
    PORTS_IN_USE = "some of the ports are held by somebody else, or resting"
    NO_ADDRESS = "no address is free"
    NO_PORTS = "no address has that many ports free"
    SPI_NOT_OURS = "some of the SPIs are not in the pool"
    SPI_IN_USE = "some of the SPIs are held by somebody else, or resting"
    NO_SPI = "no address has that many SPIs free"
    IDENTITY_IN_USE = "the IKE initiator is listened for by somebody else"
    QUOTA = "the host holds as much as it may"


class PoolError(IsthmusError):
    """The pool cannot give what was asked for; nothing was changed."""

    def __init__(self, shortage: Shortage) -> None:
        super().__init__(shortage.value)
        self.shortage = shortage


_ORDER = (
    Shortage.NO_PORTS,
    Shortage.PORTS_NOT_OURS,
    Shortage.PORTS_IN_USE,
    Shortage.NO_SPI,
    Shortage.SPI_NOT_OURS,
    Shortage.SPI_IN_USE,
    Shortage.IDENTITY_IN_USE,
)


def graver(one: Shortage | None, other: Shortage) -> Shortage:
    """Of what several addresses say, that of the one which came closest to giving it."""
    return other if one is None or _ORDER.index(other) > _ORDER.index(one) else one
