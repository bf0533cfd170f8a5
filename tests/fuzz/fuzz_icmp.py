# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing ICMP messages and the packets that they quote."""

from __future__ import annotations

from fuzz.promise import stays_within
from isthmus.address import Address
from isthmus.checksum import checksum
from isthmus.errors import WireError
from isthmus.plane.reference.classify import icmp_ends
from isthmus.wire.icmp import IcmpMessage, IcmpView
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.transport import Protocol, icmp_identifier

_SRC, _DST = Address.parse("192.156.136.22"), Address.parse("149.112.240.55")
_PROPERTIES = [name for name, each in vars(IcmpView).items() if isinstance(each, property)]


def repair(octets: bytes) -> bytes:
    """Make the checksum right."""
    if len(octets) < 8:
        return octets
    blank = octets[:2] + bytes(2) + octets[4:]
    return blank[:2] + checksum(blank).to_bytes(2, "big") + blank[4:]


def check(octets: bytes) -> None:
    """Read a message, what it quotes, and who it concerns."""
    icmp_identifier(octets)
    try:
        view = IcmpView.parse(octets)
    except WireError as error:
        stays_within(error, octets)
        return
    for name in _PROPERTIES:
        getattr(view, name)
    assert IcmpMessage.parse(octets).emit() == octets
    try:
        quoted = view.quoted()
    except WireError as error:
        stays_within(error, octets)
    else:
        assert len(quoted.payload) >= min(8, quoted.total_length - len(quoted.header))
    header = Ipv4Header(total_length=20 + len(octets), protocol=Protocol.ICMP, src=_SRC, dst=_DST)
    both = icmp_ends(Ipv4View.parse(header.emit() + octets))
    assert both.quoted or (both.src, both.dst) == (_SRC, _DST)
    assert not (both.quoted and both.is_request)
