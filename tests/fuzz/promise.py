# SPDX-License-Identifier: BSD-3-Clause
"""A promise that every parser makes."""

from __future__ import annotations

from isthmus.errors import WireError


def stays_within(error: WireError, octets: bytes | memoryview) -> None:
    """An error names a place inside of what was read, or its end."""
    if not 0 <= error.at <= len(octets):
        raise AssertionError(f"{error}, of {len(octets)} octets") from error
