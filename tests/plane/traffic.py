# SPDX-License-Identifier: BSD-3-Clause
"""Packets for random tables: good ones, damaged, from a seed."""

from __future__ import annotations

import random
import struct

from isthmus.address import Address, Family
from isthmus.border.binding import Binding
from isthmus.border.crossing import TunnelKind
from isthmus.border.effect import Bind
from isthmus.border.realm import Border, End
from isthmus.border.selector import Kind
from isthmus.checksum import checksum, pseudo_header
from isthmus.plane import Programmable
from isthmus.plane.reference.tunnel import encapsulate
from isthmus.wire.ipv4 import Ipv4Header

PRIVATE, PUBLIC = 7, 9
GATEWAYS = [Address.parse(text) for text in ("10.0.0.1", "10.0.0.2", "fd00::1")]
HOSTS = [Address.parse(text) for text in ("10.0.0.4", "10.0.0.5", "10.0.0.6", "fd00::4", "fd00::5")]
SHARED = [Address.parse("149.112.240.55"), Address.parse("149.112.240.56")]
WHOLE = [Address.parse("149.112.241.1"), Address.parse("149.112.241.2"), Address.parse("149.112.241.130")]
PEERS = [Address.parse("192.156.136.22"), Address.parse("192.156.136.23"), Address.parse("8.8.8.8")]
STRANGE = [
    Address.parse(text)
    for text in ("127.0.0.1", "224.0.0.5", "239.1.2.3", "255.255.255.255", "0.1.2.3", "149.112.240.9")
]
PORTS = [0, 9, 63, 64, 65, 80, 95, 127, 128, 500, 1000, 65535]
SPIS = [256, 257, 300, 1 << 31]
MTUS = [68, 100, 576, 1440]
COOKIES = [b"cookie 1", b"cookie 2", b"cookie 3", bytes(8)]
IDENTITIES = [b"a.example", b"b.example"]
SHIMS = [
    b"\0\0\x08\0",
    b"\x80\0\x08\0\0\0\0\0",
    b"\0\x08\x08\0",
    b"\0\x01\x08\0",
    b"\x20\0\x08\0key!",
    b"\0\0\x86\xdd",
    b"\x80\0\x08\0",
    b"\0\0",
]
"GRE headers, most of them wrong."


class Packets:
    """Good packets for a table, damaged; from a seed, so that there can be many."""

    def __init__(self, seed: int, border: Border, table: list[Programmable]) -> None:
        self._rng = random.Random(seed)
        self._border = border
        self._binds = [each.binding for each in table if isinstance(each, Bind)]
        self._at_gateway = border.realm(PUBLIC).end is End.GATEWAY

    def make(self) -> tuple[int, bytes]:
        """A packet and the realm that it arrives in."""
        if self._one_in(16):
            return PRIVATE, self._too_big()
        if self._one_in(2):
            return PRIVATE, self._tunnelled()
        packet, _ = self._plain(outward=not self._at_gateway)
        if self._one_in(10) and packet:
            at = self._rng.randrange(min(len(packet), 60))
            packet = packet[:at] + bytes([self._rng.randrange(256)]) + packet[at + 1 :]
        return (PRIVATE if self._one_in(30) else PUBLIC), packet

    def _one_in(self, number: int) -> bool:
        return self._rng.randrange(number) == 0

    def _local(self) -> tuple[Address, int, Binding | None]:
        """A local address and value that are likely held, and by what."""
        choose = self._rng.choice
        if not self._binds or self._one_in(12):
            return choose(SHARED + WHOLE + STRANGE), choose(PORTS), None
        binding = choose(self._binds)
        selector = choose(binding.selectors)
        address, value = selector.address, choose(PORTS)
        if selector.kind is None:
            address = choose([*(each for each in (*SHARED, *WHOLE) if each in selector.local), address])
        elif selector.kind in {Kind.COOKIE, Kind.IDENTITY}:
            value = 500
        else:
            first, last = choose(selector.values.pairs)
            value = choose([first, last, (first + last) // 2, first, last, first - 1, last + 1])
            value = min(max(value, 0), selector.kind.limit - 1)
        return address, value, binding

    def _fields(self, size: int) -> dict[str, int]:
        """What a header says; mostly what it should."""
        choose = self._rng.choice
        fields = {"ttl": 64, "tos": choose([0, 0, 0, 1, 2, 2, 3, 0xB8, 0xBB])}
        damage = self._rng.randrange(40)
        if damage <= 2:
            fields["ttl"] = choose([0, 1, 2, 255])
        elif damage == 3:
            fields["fragment"] = choose([0x2000, 0x0001, 0x2001, 0x1FFF, 0x8000])
        elif damage <= 5:
            fields["words"] = choose([6, 7, 10, 15, 4, 0])
        elif damage == 6:
            fields["flip"] = choose([1, 0xFFFF, 0x8000])
        elif damage <= 8:
            fields["total"] = max(1, 20 + size + choose([-1, -4, -8, -12, 1, 4, 1000, -size, -size - 1]))
        elif damage == 9:
            fields["version"] = choose([0, 5, 6, 15])
        if self._one_in(2) and "fragment" not in fields:
            fields["fragment"] = 0x4000
        return fields

    def _transport(self, sides: tuple[int, int], ends: tuple[Address, Address]) -> tuple[int, bytes]:
        """Protocol and transport: the values of source and destination, and their addresses."""
        choose = self._rng.choice
        data = bytes(choose([0, 0, 1, 12, 40, 41, 48, 72, 73, 80, 81, 548, 549, 1451, 1452, 1453, 1472]))
        source, destination = (each & 0xFFFF for each in sides)
        which = self._rng.randrange(12)
        if which <= 3:
            return 6, struct.pack("!HHIIHHHH", source, destination, 1, 2, 0x5018, 100, 0, 0) + data
        if which <= 5:
            if 500 in sides:
                data = self._ike()
            return 17, struct.pack("!HHHH", source, destination, 8 + len(data), 0) + data
        if which == 6:
            kind = choose([0, 0, 0, 8, 13, 14, 15, 16, 17, 18, 5, 9, 10, 42])
            return 1, _icmp(kind, struct.pack("!HH", choose([source, destination]), 1), data)
        if which <= 8:
            spi = choose([*SPIS, sides[0], sides[1], sides[0], sides[1]]) & 0xFFFFFFFF
            return choose([(50, struct.pack("!II", spi, 1)), (51, struct.pack("!BBHII", 6, 4, 0, spi, 1))])
        if which == 9:
            return choose([89, 132, 4, 47, 255]), b"something else" + data
        return 1, self._error(sides, ends)

    def _ike(self) -> bytes:
        """An IKE message, now and then one that opens a conversation in aggressive mode."""
        choose = self._rng.choice
        identity = b"\x02\0\0\0" + choose(IDENTITIES)
        payload = struct.pack("!BBH", 0, 0, 4 + len(identity)) + identity
        first, exchange = choose([(5, 4), (5, 4), (1, 2), (33, 34)])
        head = choose(COOKIES) + choose([bytes(8), b"response"]) + bytes((first, 0x10, exchange, 0)) + bytes(4)
        message = head + struct.pack("!I", 28 + len(payload)) + payload
        return message[: choose([len(message)] * 6 + [7, 8, 20])]

    def _error(self, sides: tuple[int, int], ends: tuple[Address, Address]) -> bytes:
        """An ICMP error of a packet that went the other way."""
        choose = self._rng.choice
        source, destination = (each & 0xFFFF for each in sides)
        protocol = choose([6, 6, 17, 17, 1, 50, 50, 51, 132])
        quoted = struct.pack("!HHHH", destination, source, 8, 0) + choose([b"more", choose(COOKIES), self._ike()])
        if protocol == 50:
            quoted = struct.pack("!I", choose([*SPIS, *sides]) & 0xFFFFFFFF) + quoted[:4]
        if protocol == 51:
            quoted = struct.pack("!II", 4, choose([*SPIS, *sides]) & 0xFFFFFFFF)
        if protocol == 1:
            quoted = _icmp(choose([8, 0, 3, 5]), struct.pack("!HH", choose([source, destination]), 1), b"")
        quoted = quoted[: choose([8, 8, 8, 16, 64, 12, 4, 3, 0])]
        src = choose(SHARED + PEERS) if self._one_in(8) else ends[1]
        dst = choose(SHARED + PEERS) if self._one_in(8) else ends[0]
        quote = _header(src, dst, protocol, quoted, **self._fields(len(quoted)))
        return _icmp(choose([3, 3, 11, 12, 4, 5]), bytes(4), quote[: choose([len(quote)] * 8 + [10, 20, 22])])

    def _plain(self, *, outward: bool) -> tuple[bytes, Binding | None]:
        """A packet whose source (outward) or destination is likely held, and by what."""
        choose = self._rng.choice
        local, value, binding = self._local()
        remote, port = choose(PEERS * 4 + STRANGE), choose([80, 80, 64, 1000, 65535])
        if self._one_in(5):  # host to host, around one gateway
            remote, port, _ = self._local()
        ends, sides = ((local, remote), (value, port)) if outward else ((remote, local), (port, value))
        protocol, transport = self._transport(sides, ends)
        if protocol == 1 and self._one_in(5):  # an error that is not its quote's
            ends = choose([(choose(SHARED + WHOLE + PEERS), ends[1]), (ends[0], choose(SHARED + WHOLE))])
        packet = _header(*ends, protocol, transport, **self._fields(len(transport)))
        if self._one_in(25):
            packet = packet[: self._rng.randrange(len(packet) + 1)]
        return packet + b"\xee" * choose([0, 0, 0, 1, 6, 46]), binding

    def _tunnelled(self) -> bytes:
        choose = self._rng.choice
        packet, binding = self._plain(outward=self._at_gateway)
        known = [each.crossing.remote for each in self._binds] or HOSTS
        sender = binding.crossing.remote if binding is not None else choose(known)
        if self._one_in(12):
            sender = choose([*known, *HOSTS, *GATEWAYS, PEERS[0]])
        ends = [each.address for each in self._border.tunnel_ends if each.address.family is sender.family]
        end = choose([*ends, *GATEWAYS]) if self._one_in(40) else choose(ends)
        if end.family is not sender.family:
            end = ends[0]
        shim = b"\0\0\x08\0" if binding is not None and binding.crossing.kind is TunnelKind.GRE else b""
        if self._one_in(12):
            shim = choose([b"", *SHIMS])
        if shim[:1] == b"\x80" and self._one_in(2):
            blank = b"\x80\0\x08\0\0\0\0\0" + packet
            shim = blank[:4] + checksum(blank).to_bytes(2, "big") + b"\0\0"
        protocol = choose([4, 47, 17]) if self._one_in(40) else 47 if shim else 4
        content = shim + packet
        if sender.family is Family.IPV6:
            return self._over_ipv6(sender, end, protocol, content)
        return _header(sender, end, protocol, content, **self._fields(len(content)))

    def _too_big(self) -> bytes:
        """An error from within a tunnel: what we sent there was too large."""
        choose = self._rng.choice
        inner, binding = self._plain(outward=not self._at_gateway)
        if binding is None:
            return self._tunnelled()
        tunnel = binding.crossing
        head = Ipv4Header(
            total_length=choose([1300, 1440, 1441]),
            protocol=17,
            src=Address.from_octets(inner[12:16]) if len(inner) >= 20 else PEERS[0],
            dst=Address.from_octets(inner[16:20]) if len(inner) >= 20 else SHARED[0],
        )
        inner = head.emit() + bytes(head.total_length - 20)
        outer = encapsulate(inner, tunnel)[: choose([548, 548, 64, 28])]
        router, mtu = choose([*PEERS, *HOSTS, *GATEWAYS]), choose([0, 500, 576, 600, 1000, 1280, 1300, 1400, 2000])
        if tunnel.local.family is Family.IPV6:
            content = struct.pack("!BBHI", choose([2, 2, 2, 1]), 0, 0, mtu) + outer
            sum_ = checksum(content, pseudo_header(tunnel.remote.octets, tunnel.local.octets, 58, len(content)))
            content = content[:2] + sum_.to_bytes(2, "big") + content[4:]
            return self._over_ipv6(tunnel.remote, tunnel.local, 58, content)
        source = router if router.family is Family.IPV4 else tunnel.remote
        message = _icmp(3, struct.pack("!HH", 0, mtu), outer, code=choose([4, 4, 4, 1]))
        return _header(source, tunnel.local, 1, message, **self._fields(len(message)))

    def _over_ipv6(self, src: Address, dst: Address, protocol: int, content: bytes) -> bytes:
        choose = self._rng.choice
        if self._one_in(12):
            fragment = struct.pack("!BBHI", protocol, 0, choose([0, 1, 8, 9]), 77)
            limit = bytes((protocol, 0, 4, 1, 4, 1, 0, 0))
            protocol, header = choose([(60, limit), (0, limit), (44, fragment), (43, limit), (60, limit[:2])])
            content = header + content
        tos = choose([0, 0, 0, 1, 2, 2, 3, 0xB8, 0xBB])
        length = len(content) + (choose([-1, -8, 1, 1000]) if self._one_in(15) else 0)
        word = choose([4, 5]) << 28 if self._one_in(50) else 6 << 28
        head = struct.pack("!IHBB", word | tos << 20, max(length, 0), protocol, choose([64, 1, 0, 255]))
        return head + src.octets + dst.octets + content + b"\xee" * choose([0, 0, 0, 3])


def _icmp(kind: int, rest: bytes, body: bytes, *, code: int = 0) -> bytes:
    blank = struct.pack("!BBH", kind, code, 0) + rest + body
    return blank[:2] + checksum(blank).to_bytes(2, "big") + blank[4:]


def _header(src: Address, dst: Address, protocol: int, payload: bytes, **fields: int) -> bytes:
    words = fields.get("words", 5)
    header = bytearray(
        struct.pack(
            "!BBHHHBBH",
            fields.get("version", 4) << 4 | words,
            fields.get("tos", 0),
            (fields.get("total", 0) or (max(words, 5) * 4 + len(payload))) & 0xFFFF,
            fields.get("identification", 0x1234),
            fields.get("fragment", 0),
            fields.get("ttl", 64),
            protocol,
            0,
        )
        + src.octets
        + dst.octets
        + b"\x01" * (max(words - 5, 0) * 4)
    )
    right = checksum(bytes(header))
    header[10:12] = (right ^ fields.get("flip", 0)).to_bytes(2, "big")
    return bytes(header) + payload
