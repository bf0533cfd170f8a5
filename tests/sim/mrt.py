# SPDX-License-Identifier: BSD-3-Clause
"""Writes route dumps as RFC 6396 §4.3 lays them out: TABLE_DUMP_V2, from octets, not from the reader's library."""

from __future__ import annotations

import ipaddress
import struct

TABLE_DUMP_V2, PEER_INDEX_TABLE, RIB_IPV4_UNICAST, RIB_IPV6_UNICAST = 13, 1, 2, 4
AS_SET, AS_SEQUENCE = 1, 2


def dump(routes):
    """A dump of ``(prefix, paths)``; a path is a list of numbers, and sets of numbers."""
    peers = struct.pack("!4sHH", bytes(4), 0, 1) + struct.pack("!B4s4sI", 2, bytes(4), bytes(4), 64500)
    records = [_record(PEER_INDEX_TABLE, peers)]
    for sequence, (prefix, paths) in enumerate(routes):
        network = ipaddress.ip_network(prefix)
        octets = network.network_address.packed[: (network.prefixlen + 7) // 8]
        entries = b"".join(_entry(path) for path in paths)
        body = struct.pack("!IB", sequence, network.prefixlen) + octets + struct.pack("!H", len(paths)) + entries
        records.append(_record(RIB_IPV4_UNICAST if network.version == 4 else RIB_IPV6_UNICAST, body))
    return b"".join(records)


def _record(subtype, body):
    return struct.pack("!IHHI", 1_700_000_000, TABLE_DUMP_V2, subtype, len(body)) + body


def _entry(path):
    segments, run = [], []
    for each in [*path, None]:
        if isinstance(each, int):
            run.append(each)
            continue
        if run:
            segments.append(_segment(AS_SEQUENCE, run))
            run = []
        if each is not None:
            segments.append(_segment(AS_SET, sorted(each)))
    value = b"".join(segments)
    attributes = bytes((0x40, 1, 1, 0)) + bytes((0x50, 2)) + struct.pack("!H", len(value)) + value
    return struct.pack("!HIH", 0, 1_700_000_000, len(attributes)) + attributes


def _segment(kind, numbers):
    return struct.pack(f"!BB{len(numbers)}I", kind, len(numbers), *numbers)
