# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing the decoder: whatever a packet is, it can be shown on a line, as a tree and as JSON."""

from __future__ import annotations

import json

from isthmus.wire import text

RUNS = 1_000


def check(octets: bytes) -> None:
    """Show octets as a packet and as a message."""
    for line in (text.line(octets), text.rsip_line(octets)):
        assert "\n" not in line
    text.tree(octets)
    text.rsip_tree(octets)
    json.dumps(text.to_dict(octets))
    json.dumps(text.rsip_to_dict(octets))
