# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing what arrives at an IPAE host: a packet of one format or a WireError, and what is found is what was asked for."""

from __future__ import annotations

from isthmus.address import Address
from isthmus.errors import WireError
from isthmus.ipae.addressing import Format
from isthmus.ipae.connection import Connection, ConnectionTable, Hint
from isthmus.ipae.reception import read_quote, receive
from isthmus.wire.ipv4 import Ipv4View

RUNS = 6_000
LOW = (1 << 32) - 1
OWN, PEER = Address.parse_sip("1.2.2.8/201.5.7.250"), Address.parse_sip("1.213.77.5/192.3.4.1")


def repair(octets: bytes) -> bytes:
    """Make the checksum of an IPv4 header right."""
    try:
        view = Ipv4View.parse(bytearray(octets))
    except WireError:
        return octets
    view.fix_checksum()
    return bytes(view.octets) + octets[view.total_length :]


def table() -> ConnectionTable:
    """A host that is connected with a SIP host, with its twin of C = 1, and with one that has the same low 32 bits."""
    made = ConnectionTable([OWN])
    for remote in (PEER, PEER.with_c_bit(c_bit=True), Address.of_halves(0x05060007, PEER.low)):
        made.open(
            protocol=6, local=OWN, local_port=7, remote=remote, remote_port=49152, packet_format=Format.SIP
        )  # fmt: skip
    return made


def fits(connection: Connection, local: Address, remote: Address, *, compatible: bool) -> bool:
    """Whether a connection is between these two, as far as the packet's class tells them apart."""
    mask = LOW if compatible else -1
    pairs = ((connection.local, local), (connection.remote, remote))
    return all(mine.number & mask == its.number & mask for mine, its in pairs)


def check(octets: bytes) -> None:
    """Receive it, look it up, and read it as a quote."""
    connections = table()
    try:
        segment = receive(octets).segment()
    except WireError:
        segment = None
    if segment is not None:
        found = connections.received(segment)
        if isinstance(found, Connection):
            assert fits(found, segment.local, segment.remote, compatible=segment.compatible)
        assert isinstance(receive(octets).checksum_fits, bool)
    quote = read_quote(octets)
    if quote is not None:
        about = connections.quoted(quote)
        for each in about.connections if isinstance(about, Hint) else ():
            assert each.remote.low.number == quote.destination.number & LOW
