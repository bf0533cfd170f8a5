# SPDX-License-Identifier: BSD-3-Clause
"""What concerns every test."""

import os

from hypothesis import HealthCheck, settings

# No test judges time: a machine that others keep busy is slow.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
# Where a change is judged (CI is set) the same tree gives the same verdict; everywhere else each run looks at
# other examples, and what it finds becomes a test of its own.
settings.register_profile("judged", parent=settings.get_profile("untimed"), derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("judged")


def pytest_collection_modifyitems(config, items):
    """Where processes share the tests out by module, the slow modules come first, so that none runs on alone at the end."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("root")}
        items.sort(key=lambda item: item.path not in slow)
