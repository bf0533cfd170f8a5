# SPDX-License-Identifier: BSD-3-Clause
"""How the contract makes stores."""

from __future__ import annotations

from typing import Protocol

from isthmus.store import LeaseStore

EVER = 0.0
"""Early enough for ``rested_since``."""


class Factory(Protocol):
    """Makes one store, and makes it again from what it kept."""

    def open(self) -> LeaseStore: ...

    def reopen(self) -> LeaseStore: ...
