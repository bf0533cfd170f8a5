# SPDX-License-Identifier: BSD-3-Clause
"""The numbers of RSIP (RFC 3103 §8, §9, §14; RFC 3104 §6, appendix B; IANA "RSIP Parameters").

A code that is not listed here stays an ``int`` and survives a round trip; ``known``
turns a number into a member where there is one.
"""

from __future__ import annotations

import enum
from typing import TypeVar

PORT = 4555
"Port of the gateway, TCP and UDP (RFC 3103 §12)."

VERSION = 1
"The only version (RFC 3103 §9)."


class MessageType(enum.IntEnum):
    """The second octet of every message (RFC 3103 §9; RFC 3104 §6.2). 18 to 21 and 24 to 240 are unassigned."""

    ERROR_RESPONSE = 1
    REGISTER_REQUEST = 2
    REGISTER_RESPONSE = 3
    DE_REGISTER_REQUEST = 4
    DE_REGISTER_RESPONSE = 5
    ASSIGN_REQUEST_RSA_IP = 6
    ASSIGN_RESPONSE_RSA_IP = 7
    ASSIGN_REQUEST_RSAP_IP = 8
    ASSIGN_RESPONSE_RSAP_IP = 9
    EXTEND_REQUEST = 10
    EXTEND_RESPONSE = 11
    FREE_REQUEST = 12
    FREE_RESPONSE = 13
    QUERY_REQUEST = 14
    QUERY_RESPONSE = 15
    LISTEN_REQUEST = 16
    LISTEN_RESPONSE = 17
    ASSIGN_REQUEST_RSIPSEC = 22
    ASSIGN_RESPONSE_RSIPSEC = 23
    # An extension under private-use numbers: the LISTEN_RSIP_IKE that the seed paper sketches (section 4.1).
    LISTEN_REQUEST_RSIP_IKE = 241
    LISTEN_RESPONSE_RSIP_IKE = 242

    @property
    def is_request(self) -> bool:
        """Whether a host sends it; all others are sent by a gateway (RFC 3103 §9)."""
        return "_REQUEST" in self.name


class ParameterType(enum.IntEnum):
    """The first octet of every parameter (RFC 3103 §8; RFC 3104 §6.2). 241 to 255 are for private use."""

    ADDRESS = 1
    PORTS = 2
    LEASE_TIME = 3
    CLIENT_ID = 4
    BIND_ID = 5
    TUNNEL_TYPE = 6
    RSIP_METHOD = 7
    ERROR = 8
    FLOW_POLICY = 9
    INDICATOR = 10
    MESSAGE_COUNTER = 11
    VENDOR_SPECIFIC = 12
    SPI = 22
    IKE_IDENTITY = 241
    "Ours, for LISTEN_REQUEST_RSIP_IKE (seed RSIP 4.1)."


class AddressType(enum.IntEnum):
    """What kind of address an Address parameter holds (RFC 3103 §8.1)."""

    IPV4 = 1
    IPV4_NETMASK = 2
    IPV6 = 3
    FQDN = 4


class TunnelType(enum.IntEnum):
    """How packets cross between host and gateway (RFC 3103 §8.6)."""

    IP_IP = 1
    GRE = 2
    L2TP = 3


class Method(enum.IntEnum):
    """What is leased: an address, an address and ports, or an address and SPIs (RFC 3103 §8.7; RFC 3104 §6)."""

    RSA_IP = 1
    RSAP_IP = 2
    RSIPSEC = 3


class LocalPolicy(enum.IntEnum):
    """Local flow policy: how much of the local side a binding pins down (RFC 3103 §7.1, §8.9)."""

    MACRO = 1
    MICRO = 2


class RemotePolicy(enum.IntEnum):
    """Remote flow policy: how much of the remote side a binding pins down (RFC 3103 §7.2, §8.9)."""

    MACRO = 1
    MICRO = 2
    NONE = 3


class QueryIndicator(enum.IntEnum):
    """What a query tuple is about (RFC 3103 §8.10, §9.14.1, §9.15.1).

    A request says only ADDRESS or NETWORK; a response says also where it is, with the same two numbers for local.
    """

    LOCAL_ADDRESS = 1
    LOCAL_NETWORK = 2
    REMOTE_ADDRESS = 3
    REMOTE_NETWORK = 4
    ADDRESS = 1
    NETWORK = 2


class ErrorCode(enum.IntEnum):
    """Why something was refused (RFC 3103 §14; RFC 3104 appendix B), with one sentence each."""

    meaning: str

    def __new__(cls, number: int, meaning: str) -> ErrorCode:
        """Make a member of a number and a sentence."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.meaning = meaning
        return member

    UNKNOWN_ERROR = 101, "An error that no other code fits."
    USE_TCP = 102, "The request came over UDP and the gateway serves TCP only."
    FLOW_POLICY_VIOLATION = 103, "The addresses and ports are not detailed enough for the host's flow policy."
    INTERNAL_SERVER_ERROR = 104, "The gateway's RSIP server has a fault that it cannot recover from."
    MESSAGE_COUNTER_REQUIRED = 105, "A message over UDP lacks its message counter."
    UNSUPPORTED_RSIP_VERSION = 106, "The version of the message is not supported."
    MISSING_PARAM = 201, "A required parameter is absent."
    DUPLICATE_PARAM = 202, "A parameter is repeated that may occur once only."
    EXTRA_PARAM = 203, "A parameter does not belong in this message."
    ILLEGAL_PARAM = 204, "The type of a parameter is unknown."
    BAD_PARAM = 205, "A parameter is malformed."
    ILLEGAL_MESSAGE = 206, "The type of the message is unknown."
    BAD_MESSAGE = 207, "The message is malformed and cannot be parsed."
    UNSUPPORTED_MESSAGE = 208, "The message is optional and the gateway does not support it."
    REGISTER_FIRST = 301, "The host is not registered."
    ALREADY_REGISTERED = 302, "The host is registered already, with the client ID given."
    ALREADY_UNREGISTERED = 303, "The host is deregistered already."
    REGISTRATION_DENIED = 304, "Policy refuses the registration."
    BAD_CLIENT_ID = 305, "The client ID is not this host's."
    BAD_BIND_ID = 306, "The bind ID is not one of this host's."
    BAD_TUNNEL_TYPE = 307, "The tunnel type is unsupported or not allowed."
    LOCAL_ADDR_UNAVAILABLE = 308, "No local address can be allocated now; retry later."
    LOCAL_ADDRPORT_UNAVAILABLE = 309, "No local ports of the requested number can be allocated now; retry later."
    LOCAL_ADDR_INUSE = 310, "The requested local address is used by somebody else."
    LOCAL_ADDRPORT_INUSE = 311, "The requested local address and ports are used by somebody else."
    LOCAL_ADDR_UNALLOWED = 312, "Policy forbids the local address, or a packet used one that is not leased."
    LOCAL_ADDRPORT_UNALLOWED = 313, "Policy forbids the local ports, or a packet used one that is not leased."
    REMOTE_ADDR_UNALLOWED = 314, "The remote address is not allowed."
    REMOTE_ADDRPORT_UNALLOWED = 315, "The remote address and port are not allowed."
    IPSEC_UNALLOWED = 401, "The host may not use IPsec through this gateway."
    IPSEC_SPI_UNAVAILABLE = 402, "No SPI can be allocated."
    IPSEC_SPI_INUSE = 403, "The requested SPI is taken at that address."


_Code = TypeVar("_Code", bound=enum.IntEnum)


def known(codes: type[_Code], number: int) -> _Code | int:
    """Return the member with that number, or the number itself if it has none."""
    try:
        return codes(number)
    except ValueError:
        return number
