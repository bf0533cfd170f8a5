# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing IKE as far as a border reads it: header, chain of payloads, the identity of who opens a conversation."""

from __future__ import annotations

from fuzz.promise import stays_within
from isthmus.errors import WireError
from isthmus.wire import ike


def repair(octets: bytes) -> bytes:
    """Make the length right."""
    return octets if len(octets) < ike.HEADER_OCTETS else octets[:24] + len(octets).to_bytes(4, "big") + octets[28:]


def check(octets: bytes) -> None:
    """Read a message all the ways that a border does."""
    cookie = ike.initiator_cookie(octets)
    assert cookie is None or (cookie == octets[:8] and any(cookie))
    try:
        header = ike.IkeHeader.parse(octets)
    except WireError as error:
        stays_within(error, octets)
        _no_identity(octets)
        return
    assert header.emit() == octets[: ike.HEADER_OCTETS]
    read = 0
    try:
        for _, body in ike.payloads(octets, header):
            read += 4 + len(body)
    except WireError as error:
        stays_within(error, octets)
    assert read <= header.length - ike.HEADER_OCTETS
    try:
        found = ike.opening_identity(octets)
    except WireError as error:
        stays_within(error, octets)
        return
    if found is not None:
        assert header.exchange_type == ike.AGGRESSIVE
        assert found[1] in octets


def _no_identity(octets: bytes) -> None:
    try:
        found = ike.opening_identity(octets)
    except WireError:
        return
    raise AssertionError(f"{found} of a message without a header")
