# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing ICMP messages and the packets that they quote."""

from __future__ import annotations

from fuzz.promise import stays_within
from isthmus.address import Address
from isthmus.checksum import checksum, pseudo_header
from isthmus.errors import WireError
from isthmus.plane.reference.classify import icmp_ends
from isthmus.plane.reference.path_mtu import too_big
from isthmus.wire.icmp import IcmpMessage, IcmpView
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View
from isthmus.wire.ipv6 import Ipv6Header
from isthmus.wire.transport import Protocol, icmp_identifier

_SRC, _DST = Address.parse("192.156.136.22"), Address.parse("149.112.240.55")
_SRC6, _DST6 = Address.parse("2001:db8::9"), Address.parse("2001:db8::1")
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
    _from_a_tunnel(header.emit() + octets, octets)


def _from_a_tunnel(packet: bytes, octets: bytes) -> None:
    """See it as an error about an outer packet: by one, and over IPv6 by the same octets."""
    error = too_big(1, Ipv4View.parse(packet), packet)
    assert error is None or error.way.local == _DST
    header = Ipv6Header(payload_length=len(octets), next_header=Protocol.ICMPV6, src=_SRC6, dst=_DST6)
    start = pseudo_header(_SRC6.octets, _DST6.octets, Protocol.ICMPV6, len(octets))
    blank = octets[:2] + bytes(2) + octets[4:]
    error = too_big(1, None, header.emit() + blank[:2] + checksum(blank, start).to_bytes(2, "big") + blank[4:])
    assert error is None or error.way.local == _DST6
