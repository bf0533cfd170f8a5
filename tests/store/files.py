# SPDX-License-Identifier: BSD-3-Clause
"""Stores of SQLite in files: one with something in it, and what a wrong one complains of."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from isthmus.errors import StoreUnavailable
from isthmus.store.sqlite import SqliteStore
from store.contract import EVER
from store.material import ANNA, bind, ports, unbind


def filled(path: Path, count: int = 200) -> None:
    with closing(SqliteStore(path)) as store:
        store.commit([bind(ANNA, ports(str(n)), bind_id=n) for n in range(1, count + 1)], now=100.0)
        store.commit([unbind(ANNA, n) for n in range(1, count // 2)], now=200.0)


def refused(path: Path) -> str:
    """What opening and reading a store complains of."""
    with pytest.raises(StoreUnavailable) as caught, closing(SqliteStore(path, wait_seconds=0.05)) as store:
        store.load(rested_since=EVER)
    assert str(caught.value).startswith(f"{path}: cannot ")
    return str(caught.value)
