# SPDX-License-Identifier: BSD-3-Clause
"""Offloads of interfaces, turned off for as long as packets are translated there (spec 2.7).

A card, or a veth pair in its place, may merge segments on the way in and leave checksums to be filled in on the way
out. Neither is right for a packet that gets another header on the way: merged, it is too long for what it
becomes, and an open checksum is filled in by a rule for the header that it no longer has.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946
_MERGING = {"receive merging": (0x2B, 0x2C)}
"""ETHTOOL_GGRO, _SGRO."""
_SENDING = {"checksums": (0x16, 0x17), "segmentation": (0x23, 0x24), "TCP segmentation": (0x1E, 0x1F)}
"""ETHTOOL_GTXCSUM and _STXCSUM, _GGSO and _SGSO, _GTSO and _STSO."""


class Features:
    """What was turned off, and where."""

    def __init__(self) -> None:
        self._off: list[tuple[str, int]] = []

    def turn_off(self, interface: str, *, sending: bool = False) -> None:
        """Turn off the merging of what is received; what an interface cannot do is off already.

        Args:
            interface: Which.
            sending: Whether open checksums and segments of what is sent, too: on devices of programs.
        """
        for read, write in (_MERGING | (_SENDING if sending else {})).values():
            if _ethtool(interface, read, 0):
                _ethtool(interface, write, 0)
                self._off.append((interface, write))

    def restore(self) -> None:
        """Turn on again what was on; an interface that is gone is no error."""
        while self._off:
            interface, write = self._off.pop()
            _ethtool(interface, write, 1)


def merges(interface: str) -> bool:
    """Whether an interface merges what it receives."""
    return bool(_ethtool(interface, _MERGING["receive merging"][0], 0))


def _ethtool(interface: str, command: int, value: int) -> int | None:
    """Read or write one feature; None where that is not possible."""
    words = array.array("I", (command, value))
    request = struct.pack("16sP", interface.encode(), words.buffer_info()[0]).ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCETHTOOL, request)
        except OSError:
            return None
    return words[1]
