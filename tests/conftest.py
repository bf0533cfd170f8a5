# SPDX-License-Identifier: BSD-3-Clause
"""What concerns every test."""

import os

from hypothesis import settings

# Where a change is judged (CI is set) the same tree gives the same verdict; everywhere else each run looks at
# other examples, and what it finds becomes a test of its own.
settings.register_profile("judged", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("judged")
