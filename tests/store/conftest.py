# SPDX-License-Identifier: BSD-3-Clause
"""The contract's asserts explain themselves like those of the tests; and where a store of SQLite is."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("store.contract", "store.contract_of_recall", "store.audit")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "leases.db"
