# SPDX-License-Identifier: BSD-3-Clause
"""As much of DHCP as asking for parameters needs: DHCPINFORM and its DHCPACK (RFC 2131 §2, §4.4.3; RFC 2132).

::

    op 1 | htype 1 | hlen 1 | hops 1 | xid 4 | secs 2 | flags 2 | ciaddr 4 | yiaddr 4 | siaddr 4 | giaddr 4
    chaddr 16 | sname 64 | file 128 | magic cookie 4 | options
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from isthmus.address import Address, Family
from isthmus.errors import Malformed
from isthmus.wire.cursor import Reader, Writer
from isthmus.wire.slp.text import decode, split

SERVER_PORT = 67
CLIENT_PORT = 68
COOKIE = bytes((99, 130, 83, 99))
SITE_SPECIFIC = range(224, 255)
"""Options whose meaning a site may give itself (RFC 3942 §2)."""
_SMALLEST = 300
"""Octets of a message: BOOTP relays may throw away what is shorter (RFC 1542 §2.1)."""
_ETHERNET = 1
_CHADDR, _SNAME, _FILE = 16, 64, 128


class Op(enum.IntEnum):
    """Who speaks (RFC 2131 §2)."""

    BOOTREQUEST = 1
    BOOTREPLY = 2


class Option(enum.IntEnum):
    """The options that are known here (RFC 2132, RFC 2610)."""

    PAD = 0
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER_IDENTIFIER = 54
    PARAMETER_REQUEST_LIST = 55
    SLP_DIRECTORY_AGENT = 78
    SLP_SERVICE_SCOPE = 79
    END = 255


class MessageType(enum.IntEnum):
    """The messages that are known here (RFC 2132 §9.6)."""

    ACK = 5
    INFORM = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DhcpMessage:
    """A DHCP message."""

    op: int
    xid: int
    hardware: bytes
    "The client's hardware address: chaddr, as many octets as hlen says."
    client: Address = Address(Family.IPV4, 0)
    "ciaddr: the address that the client has."
    options: Mapping[int, bytes] = field(default_factory=dict)
    "By number; what was sent in pieces is put together (RFC 3396 §7)."

    @property
    def message_type(self) -> int | None:
        """Option 53; None where it is missing, or is not one octet."""
        value = self.options.get(Option.MESSAGE_TYPE, b"")
        return value[0] if len(value) == 1 else None

    @classmethod
    def inform(cls, *, xid: int, client: Address, hardware: bytes, options: tuple[int, ...]) -> Self:
        """Ask for options, having an address (RFC 2131 §4.4.3).

        Args:
            xid: Random, so that the answer is known by it.
            client: Our address.
            hardware: The interface's, 0 to 16 octets.
            options: The numbers asked for.
        """
        return cls(
            op=Op.BOOTREQUEST,
            xid=xid,
            hardware=hardware,
            client=client,
            options={
                Option.MESSAGE_TYPE: bytes((MessageType.INFORM,)),
                Option.PARAMETER_REQUEST_LIST: bytes(options),
            },
        )

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read a message.

        Raises:
            Truncated: it ends too early.
            Malformed: no DHCP message, or options that break RFC 2131 §4.1.
        """
        reader = Reader(octets)
        op = reader.u8("op")
        reader.u8("htype")
        length = reader.u8("hlen")
        if length > _CHADDR:
            raise Malformed("hlen", at=2, problem=f"{length}, more than the {_CHADDR} octets of chaddr")
        reader.u8("hops")
        xid = reader.u32("xid")
        reader.take(4, "secs and flags")
        client = Address.from_octets(reader.take(4, "ciaddr"))
        reader.take(12, "yiaddr, siaddr, giaddr")
        hardware = reader.take(_CHADDR, "chaddr")[:length]
        sname, file = reader.take(_SNAME, "sname"), reader.take(_FILE, "file")
        if reader.take(4, "magic cookie") != COOKIE:
            raise Malformed("magic cookie", at=reader.position - 4, problem="is not DHCP's")
        options: dict[int, bytes] = {}
        _options(reader.rest(), options)
        overload = options.get(Option.OVERLOAD, b"\0")
        if len(overload) != 1 or overload[0] > 3:
            raise Malformed("option overload", at=0, problem=f"{overload.hex()} is not 1, 2 or 3")
        # The file field first, then sname (RFC 3396 §5); neither may say overload again.
        for bit, area in ((1, file), (2, sname)):
            if overload[0] & bit:
                _options(area, options, overloaded=True)
        return cls(op=op, xid=xid, hardware=hardware, client=client, options=options)

    def emit(self) -> bytes:
        """Write the message.

        Raises:
            Malformed: an option is longer than 255 octets, or a field does not fit.
        """
        if len(self.hardware) > _CHADDR:
            raise Malformed("chaddr", at=28, problem=f"{len(self.hardware)} octets, more than {_CHADDR}")
        writer = Writer()
        for number, name in ((self.op, "op"), (_ETHERNET, "htype"), (len(self.hardware), "hlen"), (0, "hops")):
            writer.u8(number, name)
        writer.u32(self.xid, "xid")
        writer.octets(bytes(4))
        writer.octets(self.client.octets)
        writer.octets(bytes(12))
        writer.octets(self.hardware.ljust(_CHADDR, b"\0"))
        writer.octets(bytes(_SNAME + _FILE))
        writer.octets(COOKIE)
        for number, value in self.options.items():
            writer.u8(number, "option")
            writer.u8(len(value), "option length")
            writer.octets(value)
        writer.u8(Option.END, "option")
        return bytes(writer).ljust(_SMALLEST, b"\0")


def _options(octets: bytes, found: dict[int, bytes], *, overloaded: bool = False) -> None:
    reader = Reader(octets)
    while reader.left:
        number = reader.u8("option")
        if number == Option.PAD:
            continue
        if number == Option.END:
            return
        if overloaded and number == Option.OVERLOAD:
            raise Malformed("option overload", at=reader.position - 1, problem="stands in an overloaded field")
        value = reader.take(reader.u8("option length"), f"option {number}")
        found[number] = found.get(number, b"") + value


def addresses(value: bytes) -> tuple[Address, ...]:
    """Read an option that is a list of IPv4 addresses, the best first (RFC 2132 §3.5 has the form).

    Raises:
        Malformed: it is empty, or its length is no multiple of 4.
    """
    if not value or len(value) % 4:
        raise Malformed("addresses", at=0, problem=f"{len(value)} octets are no list of IPv4 addresses")
    return tuple(Address.from_octets(value[at : at + 4]) for at in range(0, len(value), 4))


def slp_scopes(value: bytes) -> tuple[str, ...]:
    """Read the SLP service scope option: an octet that says whether it is mandatory, and a list (RFC 2610 §4).

    Raises:
        Malformed: it is empty or no UTF-8.
    """
    if not value:
        raise Malformed("slp service scope", at=0, problem="the option is empty")
    return split(decode(value[1:], "slp service scope", 1), "slp service scope")


def slp_directory_agents(value: bytes) -> tuple[Address, ...]:
    """Read the SLP directory agent option: an octet that says whether it is mandatory, and addresses (RFC 2610 §3).

    Raises:
        Malformed: it is empty, or no list of addresses.
    """
    if not value:
        raise Malformed("slp directory agent", at=0, problem="the option is empty")
    return addresses(value[1:])
