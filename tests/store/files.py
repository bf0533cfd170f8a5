# SPDX-License-Identifier: BSD-3-Clause
"""Stores of SQLite in files: one with something in it, and what a wrong one complains of."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from isthmus.border.binding import Owner
from isthmus.errors import StoreUnavailable
from isthmus.store.sqlite import SqliteStore
from store.factory import EVER
from store.material import ANNA, PUBLIC, bind, ports, unbind


def filled(path: Path, count: int = 200, owner: Owner = ANNA, realm: int = PUBLIC) -> None:
    """Leases of one port each, half of them ended; of a realm beyond 2^15 they are not kept as plain ones."""
    with closing(SqliteStore(path)) as store:
        store.commit([bind(owner, ports(str(n), realm=realm), bind_id=n) for n in range(1, count + 1)], now=100.0)
        store.commit([unbind(owner, n) for n in range(1, count // 2)], now=200.0)


def refused(path: Path) -> str:
    """What opening and reading a store complains of."""
    with pytest.raises(StoreUnavailable) as caught, closing(SqliteStore(path, wait_seconds=0.05)) as store:
        store.load(rested_since=EVER)
    assert str(caught.value).startswith(f"{path}: cannot ")
    return str(caught.value)
