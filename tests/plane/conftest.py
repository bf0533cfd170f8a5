# SPDX-License-Identifier: BSD-3-Clause
"""Modules whose names end in ``_test`` and that hold no tests of their own."""

collect_ignore = ["kernel_under_test.py", "xdp_under_test.py"]
