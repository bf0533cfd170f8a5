# SPDX-License-Identifier: BSD-3-Clause
"""The contract's asserts explain themselves like those of the tests."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("store.contract", "store.audit")
