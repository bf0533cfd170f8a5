# SPDX-License-Identifier: BSD-3-Clause
"""The names that others build on."""

import subprocess
import sys

import pytest

import isthmus


def test_every_public_name_can_be_had():
    for name in isthmus.__all__:
        assert getattr(isthmus, name).__name__ == name
    with pytest.raises(AttributeError, match="BorderRouter"):
        _ = isthmus.BorderRouter


def test_the_core_comes_without_sockets_or_loops():
    code = "import sys; from isthmus import Gateway, Host; print({'asyncio', 'socket', 'sqlite3', 'pyroute2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
