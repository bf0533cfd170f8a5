# SPDX-License-Identifier: BSD-3-Clause
"""Random packets around a border with a SIP realm: mostly good ones, some lies, some damaged."""

from __future__ import annotations

import random
import struct
from typing import Any

from isthmus.border.realm import Border
from plane import sip_octets
from plane.sip_nodes import FAR, SITE, SOCKETS

HOSTS = [
    "192.3.4.1",
    "192.3.4.2",
    "192.3.4.9",
    "192.3.4.77",
    "201.5.7.250",
    "203.0.113.9",
    "10.0.0.7",
    "100.64.108.191",
]
OUTER = ["192.3.4.9", "192.3.4.2", "128.1.1.1", "128.2.1.2", "128.1.1.7", "201.5.7.250", "203.0.113.9", "128.66.6.6"]
UPPERS = ["1.213.77.5", "c1.213.77.5", "1.2.2.8", "c1.2.2.8", "1.2.2.75", "9.9.9.9"]
SPECIAL = [
    "0.0.0.0/0.0.0.0",
    "0.0.0.0/0.0.0.1",
    "127.14.0.0/0.0.0.5",
    "127.2.0.0/0.0.0.1",
    "c1.2.2.8/127.0.0.1",
    "1.213.77.5/224.0.0.1",
]
NUMBERS = [6, 6, 6, 17, 17, 17, 1, 1, 132, 50, 2, 41]


class Packets:
    """A source of packets for one border."""

    def __init__(self, seed: int, border: Border, *, sockets: bool) -> None:
        self._rng = random.Random(seed)
        self._has_sockets = sockets
        self._nodes = [str(each.address) for each in border.nodes] or ["1.213.77.5/192.3.4.2"]

    def make(self) -> tuple[int, bytes]:
        """A realm, and a packet that arrives in it."""
        rng = self._rng
        kinds = [self._native, self._native, self._datagram, self._datagram, self._ipv4, self._ipv4, self._error]
        realm, packet = rng.choice(kinds + [self._sockets] * 3 * self._has_sockets)()
        if rng.random() < 0.08:
            octets = bytearray(packet)
            octets[rng.randrange(len(octets))] ^= 1 << rng.randrange(8)
            packet = bytes(octets)
        if rng.random() < 0.04:
            packet += bytes(rng.randrange(1, 9))
        if rng.random() < 0.04:
            packet = packet[: max(40, rng.randrange(len(packet) + 1))]
        return realm, packet

    def _native(self) -> tuple[int, bytes]:
        return self._rng.choice([SITE, FAR]), self._sip()

    def _datagram(self) -> tuple[int, bytes]:
        inner = self._sip()
        rng = self._rng
        if rng.random() < 0.05:
            inner += bytes(rng.choice([4, 16]))
        if rng.random() < 0.4:
            return FAR, self._header(41, inner, "128.2.1.2", "128.1.1.1")
        if rng.random() < 0.5:
            return SITE, self._header(41, inner, ".".join(map(str, inner[12:16])), "192.3.4.2")
        ends = rng.choice(OUTER), rng.choice(["192.3.4.2", "128.1.1.1", "128.1.1.1", rng.choice(OUTER)])
        return (FAR if ends[1].startswith("128") else rng.choice([SITE, FAR])), self._header(41, inner, *ends)

    def _ipv4(self) -> tuple[int, bytes]:
        rng = self._rng
        src = rng.choice([*["192.3.4.1", "192.3.4.9"] * 4, *HOSTS])
        dst = rng.choice([*["201.5.7.250", "203.0.113.9", "100.64.108.191"] * 4, *HOSTS])
        number = rng.choice(NUMBERS)
        return rng.choice([SITE] * 6 + [FAR]), self._header(number, self._transport(number), src, dst)

    def _error(self) -> tuple[int, bytes]:
        """About an IPAE datagram, as if we had sent it."""
        rng = self._rng
        quoted = self._header(41, self._sip(), "128.1.1.1", rng.choice(["128.2.1.2", "128.2.1.2", "128.1.1.9"]))
        kind, code = rng.choice([(3, 1), (3, 2), (3, 4), (11, 0), (12, 0), (5, 1)])
        content = bytes((kind, code, 0, 0)) + struct.pack("!HH", 0, rng.choice([0, 300, 1000, 1400]))
        content += quoted[: rng.choice([20, 28, 44, 48, 100, 548])]
        found = ~sip_octets.words(content) & 0xFFFF
        return FAR, self._header(1, content[:2] + struct.pack("!H", found) + content[4:], "128.1.1.5", "128.1.1.1")

    def _sockets(self) -> tuple[int, bytes]:
        rng = self._rng
        node = rng.choice(self._nodes) if rng.random() < 0.8 else self._address()
        spec: dict[str, Any] = {"sockets": f"{node} -> {self._address()}", "hop": self._hops()}
        number = rng.choice([6, 6, 17, 17, 58, 132, 60])
        if rng.random() < 0.1:
            spec["frag"] = {"id": rng.getrandbits(32), "at": rng.choice([0, 8, 552]), "more": rng.random() < 0.5}
        body = rng.randbytes(self._size())
        if number == 58:
            kind = rng.choice([128, 128, 129, 135, 1])
            return SOCKETS, sip_octets.sockets(spec, 58, bytes((kind, 0, 0, 0)) + bytes(4) + body)
        return SOCKETS, sip_octets.sockets(spec, number, self._bare(number) + body)

    # --- pieces ---------------------------------------------------------------------------

    def _sip(self) -> bytes:
        rng = self._rng
        src = self._address() if rng.random() < 0.9 else rng.choice(SPECIAL)
        dst = self._address() if rng.random() < 0.9 else rng.choice(SPECIAL + self._nodes)
        if rng.random() < 0.15:
            dst = rng.choice(self._nodes)
        spec: dict[str, Any] = {
            "sip": f"{src} -> {dst}",
            "hop": self._hops(),
            "reserved": rng.choice([0, 0, 0, 0xABCDEF1]),
        }
        if rng.random() < 0.08:
            spec["frag"] = {"id": rng.getrandbits(32), "at": rng.choice([0, 0, 8, 552]), "more": rng.random() < 0.5}
        if rng.random() < 0.06:
            stops = [self._address() for _ in range(rng.randrange(3))]
            spec["route"] = {"stops": stops, "next": rng.randrange(4)}
            if rng.random() < 0.4:
                spec["sip"] = f"{src} -> {rng.choice(self._nodes)}"
        if rng.random() < 0.03:
            spec["wrong"] = rng.choice(["sum", "version", "long"])
        if rng.random() < 0.05:
            spec["zero_checksum"] = True
        number = rng.choice(NUMBERS)
        if number == 1:
            return sip_octets.sip(spec, 1, self._message())
        return sip_octets.sip(spec, number, self._bare(number) + rng.randbytes(self._size()))

    def _address(self) -> str:
        return f"{self._rng.choice(UPPERS)}/{self._rng.choice(HOSTS)}"

    def _hops(self) -> int:
        return self._rng.choice([64, 64, 63, 255, 2, 2, 1, 0, 30])

    def _size(self) -> int:
        return self._rng.choice([0, 1, 5, 40, 40, 41, 500, 900, 1380, 1420, 1440, 1460, 1500])

    def _bare(self, number: int) -> bytes:
        ports = struct.pack("!HH", self._rng.choice([49152, 53]), self._rng.choice([7, 80]))
        if number == 6:
            return ports + struct.pack("!IIHHHH", 1, 2, 0x5018, 8192, 0, 0)
        return ports + bytes(4)

    def _message(self) -> bytes:
        rng = self._rng
        if rng.random() < 0.75:
            return bytes((rng.choice([8, 8, 0]), 0, 0, 0)) + struct.pack("!HH", 7, 1) + rng.randbytes(self._size())
        quote = self._sip()[: rng.choice([8, 24, 32, 200])] if rng.random() < 0.5 else self._ipv4()[1][:60]
        return (
            bytes((rng.choice([3, 3, 11, 12, 5, 13]), rng.choice([0, 1, 3, 4]), 0, 0))
            + struct.pack("!HH", 0, 1000)
            + quote
        )

    def _transport(self, number: int) -> bytes:
        # Nobody who translates looks at a checksum but that of ICMP: any will do.
        if number != 1:
            return self._bare(number) + self._rng.randbytes(self._size())
        content = self._message()
        found = ~sip_octets.words(content) & 0xFFFF
        return content[:2] + struct.pack("!H", found) + content[4:]

    def _header(self, number: int, content: bytes, src: str, dst: str) -> bytes:
        rng = self._rng
        place = rng.choice([0x4000] * 7 + [0, 0, 0x2000, 0x0045])
        options = rng.choice([b""] * 12 + [b"\1\1\1\0", b"\x83\x07\x04" + bytes((203, 0, 113, 77)) + b"\0"])
        words = (0x45 + len(options) // 4, rng.choice([0, 0, 184]), 20 + len(options) + len(content))
        start = struct.pack("!BBHHHBB", *words, rng.getrandbits(16), place, self._hops(), number)
        rest = b"".join(bytes(map(int, each.split("."))) for each in (src, dst)) + options
        found = ~sip_octets.words(start + b"\0\0" + rest) & 0xFFFF
        found ^= 1 if rng.random() < 0.02 else 0
        return start + struct.pack("!H", found) + rest + content
