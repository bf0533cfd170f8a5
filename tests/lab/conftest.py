# SPDX-License-Identifier: BSD-3-Clause
"""The lab's tests need a machine to change; what they leave behind is looked for after each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isthmus.lab.node import wait_until
from lab.machine import ROOT, Machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root") and ROOT / "tests" / "lab" in Path(item.fspath).parents:
            item.add_marker(pytest.mark.skip(reason="needs root: it makes network namespaces"))


@pytest.fixture
def nothing_left():
    """Compare the machine before and after."""
    before = Machine.now()
    yield
    # The kernel lets go of a namespace's links a little later.
    wait_until(lambda: not Machine.now().since(before), 5, every=0.2)
    assert Machine.now().since(before) == {}
