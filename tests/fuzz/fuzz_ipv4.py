# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing the IPv4 header: a view that reads without fault, or a WireError; what is read can be written again."""

from __future__ import annotations

from fuzz.promise import stays_within
from isthmus.errors import WireError
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View

_PROPERTIES = [name for name, each in vars(Ipv4View).items() if isinstance(each, property)]


def check(octets: bytes) -> None:
    """Read a packet as a whole one and as a quoted one, and edit it."""
    for quoted in (False, True):
        try:
            view = Ipv4View.parse(octets, quoted=quoted)
        except WireError as error:
            stays_within(error, octets)
            continue
        for name in _PROPERTIES:
            getattr(view, name)
        assert len(view.header) + len(view.payload) == min(view.total_length, len(octets))
        assert quoted or view.total_length <= len(octets)
        assert Ipv4Header.parse(octets, quoted=quoted).emit() == bytes(view.header)
        _edit(octets, quoted=quoted)


def _edit(octets: bytes, *, quoted: bool) -> None:
    """An edit changes its field and the checksum, and keeps a right checksum right and a wrong one wrong."""
    buffer = bytearray(octets)
    view = Ipv4View.parse(buffer, quoted=quoted)
    right = view.checksum_ok
    view.ttl ^= 0x55
    view.tos ^= 0x2A
    assert view.checksum_ok == right
    assert buffer[2:8] == octets[2:8]
    assert buffer[9] == octets[9]
    assert buffer[12:] == octets[12:]
