# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing UDP and TCP headers, and what classification reads of every transport."""

from __future__ import annotations

from fuzz.promise import stays_within
from isthmus.address import Address
from isthmus.errors import WireError
from isthmus.wire.transport import TcpHeader, UdpHeader, icmp_identifier, ports, spi, transport_checksum

_SRC, _DST = Address.parse("192.156.136.22"), Address.parse("149.112.240.55")


def check(octets: bytes) -> None:
    """Read octets as any transport there is."""
    for header in (UdpHeader, TcpHeader):
        try:
            read = header.parse(octets)
        except WireError as error:
            stays_within(error, octets)
        else:
            written = read.emit()
            assert written == octets[: len(written)]
    for protocol in (0, 1, 6, 17, 33, 50, 51, 132, 136, 255):
        pair, index = ports(protocol, octets), spi(protocol, octets)
        assert pair is None or index is None
        assert pair is None or all(0 <= each <= 0xFFFF for each in pair)
        assert index is None or 0 <= index < 1 << 32
        transport_checksum(src=_SRC, dst=_DST, protocol=protocol, octets=octets)
    icmp_identifier(octets)
