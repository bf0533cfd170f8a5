# SPDX-License-Identifier: BSD-3-Clause
"""The store that specifies the others keeps the contract."""

from __future__ import annotations

import pytest

from isthmus.store import LeaseStore, open_store
from isthmus.store.memory import MemoryStore
from store.contract import StoreContract


class MemoryFactory:
    """One store; to reopen it is to go on with it."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    def open(self) -> LeaseStore:
        return self.store

    def reopen(self) -> LeaseStore:
        self.store.close()
        return self.store


class TestMemory(StoreContract):
    @pytest.fixture
    def factory(self) -> MemoryFactory:
        return MemoryFactory()


def test_its_url_names_it() -> None:
    assert isinstance(open_store("memory:"), MemoryStore)
