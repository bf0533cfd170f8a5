# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing the IPv6 header, as the outer header of a tunnel: a view or a WireError, and the same octets again."""

from __future__ import annotations

from fuzz.promise import stays_within
from isthmus.errors import WireError
from isthmus.wire.ipv6 import FRAGMENT_OCTETS, HEADER_OCTETS, FragmentHeader, Ipv6Header, Ipv6View, carried

_PROPERTIES = [name for name, each in vars(Ipv6View).items() if isinstance(each, property)]


def check(octets: bytes) -> None:
    """Read a packet as a whole one and as a quoted one, and edit it."""
    for quoted in (False, True):
        try:
            view = Ipv6View.parse(octets, quoted=quoted)
        except WireError as error:
            stays_within(error, octets)
            continue
        for name in _PROPERTIES:
            getattr(view, name)
        assert len(view.payload) == min(view.payload_length, len(octets) - HEADER_OCTETS)
        assert Ipv6Header.parse(octets, quoted=quoted).emit() == bytes(view.header)
        _look_behind(view)
        buffer = bytearray(octets)
        edited = Ipv6View.parse(buffer, quoted=quoted)
        edited.traffic_class ^= 0x5A
        edited.hop_limit ^= 0x33
        assert edited.flow_label == view.flow_label
        assert buffer[4:7] == octets[4:7]
        assert buffer[8:] == octets[8:]


def _look_behind(view: Ipv6View) -> None:
    """Whatever options there are, they end within the packet."""
    try:
        inside = carried(view)
    except WireError as error:
        stays_within(error, view.octets)
        return
    assert bytes(view.payload).endswith(bytes(inside.payload))
    assert inside.fragment is None or inside.fragment.is_fragment
    if len(view.payload) >= FRAGMENT_OCTETS:
        assert FragmentHeader.parse(view.payload).emit() == bytes(view.payload[:FRAGMENT_OCTETS])
