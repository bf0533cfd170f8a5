# SPDX-License-Identifier: BSD-3-Clause
"""The parameters of RSIP messages (RFC 3103 §8; RFC 3104 §6.2).

On the wire a parameter is a type (8 bits), the length of its value (16 bits) and the
value. Each class here is one type: ``parse`` reads a value, ``emit`` gives it back octet
for octet, and the constructor refuses what the RFC does not allow (``ValueError``).
The table ``PARAMETERS`` at the foot says which type is which class.

Values that stand alone are positional: ``ClientId(5)``. A class whose RFC name is also
the name of something else has the prefix Rsip, as the RFC does for RSIP Method.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from isthmus.wire.rsip.codes import (
    ErrorCode,
    LocalPolicy,
    Method,
    ParameterType,
    QueryIndicator,
    RemotePolicy,
    TunnelType,
    known,
)
from isthmus.wire.rsip.resource import Ports, RsipAddress, Spi
from isthmus.wire.rsip.value import NumberParameter, Parameter

if TYPE_CHECKING:
    import enum

__all__ = [
    "PARAMETERS",
    "BindId",
    "ClientId",
    "Error",
    "FlowPolicy",
    "IkeIdentity",
    "Indicator",
    "LeaseTime",
    "MessageCounter",
    "Parameter",
    "Ports",
    "RsipAddress",
    "RsipMethod",
    "RsipTunnelType",
    "Spi",
    "UnknownParameter",
    "VendorSpecific",
    "number_of",
]

_IDENTITY_OCTETS = 1024
"""Longest identification data of IKE, in octets: distinguished names stay below."""


@dataclass(frozen=True, slots=True)
class LeaseTime(NumberParameter):
    """Lease Time: seconds that a registration or a binding lasts (RFC 3103 §8.3)."""


@dataclass(frozen=True, slots=True)
class ClientId(NumberParameter):
    """Client ID: the gateway's number for a registered host (RFC 3103 §8.4)."""


@dataclass(frozen=True, slots=True)
class BindId(NumberParameter):
    """Bind ID: the gateway's number for one binding of a host (RFC 3103 §8.5)."""


@dataclass(frozen=True, slots=True)
class RsipTunnelType(NumberParameter):
    """Tunnel Type (RFC 3103 §8.6)."""

    width: ClassVar[int] = 1
    codes: ClassVar[type[enum.IntEnum] | None] = TunnelType


@dataclass(frozen=True, slots=True)
class RsipMethod(NumberParameter):
    """RSIP Method (RFC 3103 §8.7)."""

    width: ClassVar[int] = 1
    codes: ClassVar[type[enum.IntEnum] | None] = Method


@dataclass(frozen=True, slots=True)
class Error(NumberParameter):
    """Error: why the gateway refuses (RFC 3103 §8.8)."""

    width: ClassVar[int] = 2
    codes: ClassVar[type[enum.IntEnum] | None] = ErrorCode


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowPolicy(Parameter):
    """Flow Policy: how much detail a binding must give (RFC 3103 §8.9)."""

    local: LocalPolicy | int
    remote: RemotePolicy | int

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        if not (0 <= self.local <= 0xFF and 0 <= self.remote <= 0xFF):
            raise ValueError(f"flow policy {self.local}/{self.remote} does not fit in 8 bits each")

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read a value."""
        if len(octets) != 2:
            raise ValueError(f"length {len(octets)}, must be 2")
        return cls(local=known(LocalPolicy, octets[0]), remote=known(RemotePolicy, octets[1]))

    def emit(self) -> bytes:
        """Give the value as octets."""
        return bytes((self.local, self.remote))


@dataclass(frozen=True, slots=True)
class Indicator(Parameter):
    """Indicator: what the addresses after it are (RFC 3103 §8.10)."""

    value: QueryIndicator | int
    width: int = 2
    "Width on the wire, 1 or 2."
    # Deviation: RFC 3103 §8.10 makes it two octets, §9.14.1 and §9.15.1 one. Two are sent, both are understood.

    def __post_init__(self) -> None:
        """Refuse other widths, and what does not fit."""
        if self.width not in (1, 2) or not 0 <= self.value < 1 << 8 * self.width:
            raise ValueError(f"indicator {self.value} in {self.width} octets")

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read a value."""
        if len(octets) not in (1, 2):
            raise ValueError(f"length {len(octets)}, must be 2 (or 1)")
        return cls(known(QueryIndicator, int.from_bytes(octets, "big")), width=len(octets))

    def __int__(self) -> int:
        return int(self.value)

    def emit(self) -> bytes:
        """Give the value as octets."""
        return self.value.to_bytes(self.width, "big")


@dataclass(frozen=True, slots=True)
class MessageCounter(NumberParameter):
    """Message Counter: pairs request and response over UDP; 0 is unsolicited (RFC 3103 §8.11, §10.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorSpecific(Parameter):
    """Vendor Specific (RFC 3103 §8.12)."""

    vendor_id: int
    subtype: int
    value: bytes = b""

    def __post_init__(self) -> None:
        """Refuse what does not fit."""
        if not (0 <= self.vendor_id <= 0xFFFF and 0 <= self.subtype <= 0xFFFF):
            raise ValueError(f"vendor {self.vendor_id}, subtype {self.subtype} do not fit in 16 bits each")

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read a value."""
        if len(octets) < 4:
            raise ValueError(f"length {len(octets)}, must be at least 4")
        vendor_id, subtype = struct.unpack_from("!HH", octets)
        return cls(vendor_id=vendor_id, subtype=subtype, value=octets[4:])

    def emit(self) -> bytes:
        """Give the value as octets."""
        return struct.pack("!HH", self.vendor_id, self.subtype) + self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeIdentity(Parameter):
    """IKE Identity, an extension of ours: who calls with IKE (seed RSIP 4.1).

    ID Type (8 bits) and Identification Data as the initiator's ID payload has them (RFC 2408 §3.8; RFC 2407 §4.6.2).
    """

    kind: int
    "1 an IPv4 address, 2 an FQDN, 3 a user FQDN, 11 a key ID, …"
    data: bytes

    def __post_init__(self) -> None:
        """Refuse what does not fit, and an identity of nobody."""
        if not 0 < self.kind <= 0xFF:
            raise ValueError(f"ID type {self.kind} is not within 1..255")
        if not 1 <= len(self.data) <= _IDENTITY_OCTETS:
            raise ValueError(f"identification data of {len(self.data)} octets, must be 1 to {_IDENTITY_OCTETS}")

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read a value."""
        if len(octets) < 2:
            raise ValueError(f"length {len(octets)}, must be at least 2")
        return cls(kind=octets[0], data=octets[1:])

    def emit(self) -> bytes:
        """Give the value as octets."""
        return bytes((self.kind,)) + self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownParameter(Parameter):
    """A parameter of a type that is not in the table; kept as it came."""

    type: int
    value: bytes = b""

    def __post_init__(self) -> None:
        """Refuse a type that does not fit, or that is known."""
        if not 0 <= self.type <= 0xFF or self.type in PARAMETERS:
            raise ValueError(f"{self.type} is no unknown type")

    def emit(self) -> bytes:
        """Give the value as octets."""
        return self.value


PARAMETERS: dict[int, type[Parameter]] = {
    ParameterType.ADDRESS: RsipAddress,
    ParameterType.PORTS: Ports,
    ParameterType.LEASE_TIME: LeaseTime,
    ParameterType.CLIENT_ID: ClientId,
    ParameterType.BIND_ID: BindId,
    ParameterType.TUNNEL_TYPE: RsipTunnelType,
    ParameterType.RSIP_METHOD: RsipMethod,
    ParameterType.ERROR: Error,
    ParameterType.FLOW_POLICY: FlowPolicy,
    ParameterType.INDICATOR: Indicator,
    ParameterType.MESSAGE_COUNTER: MessageCounter,
    ParameterType.VENDOR_SPECIFIC: VendorSpecific,
    ParameterType.SPI: Spi,
    ParameterType.IKE_IDENTITY: IkeIdentity,
}
"""Which type is which class; there is no other list (RFC 3103 §8; RFC 3104 §6.2; 241 is ours)."""

_NUMBERS: dict[type[Parameter], int] = {parameter: int(number) for number, parameter in PARAMETERS.items()}


def number_of(parameter: Parameter) -> int:
    """Return the type that the parameter has on the wire."""
    return parameter.type if isinstance(parameter, UnknownParameter) else _NUMBERS[type(parameter)]
