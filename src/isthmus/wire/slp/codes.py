# SPDX-License-Identifier: BSD-3-Clause
"""The numbers of SLPv2 (RFC 2608 §7, §8, §13)."""

from __future__ import annotations

import enum

PORT = 427
"""UDP and TCP (RFC 2608 §6.1)."""
GROUP = "239.255.255.253"
"""The SVRLOC multicast group (RFC 2608 §6.1)."""
VERSION = 2
LARGEST_DATAGRAM = 1400
"""Octets of a message that fits into a datagram everywhere (RFC 2608 §6.2, CONFIG_MTU)."""
DEFAULT_SCOPE = "DEFAULT"
"""The scope of who has none configured (RFC 2608 §11)."""
DIRECTORY_AGENT = "service:directory-agent"
SERVICE_AGENT = "service:service-agent"


class Function(enum.IntEnum):
    """What a message is (RFC 2608 §8, Function-ID)."""

    SRV_RQST = 1
    SRV_RPLY = 2
    SRV_REG = 3
    SRV_DEREG = 4
    SRV_ACK = 5
    ATTR_RQST = 6
    ATTR_RPLY = 7
    DA_ADVERT = 8
    SRV_TYPE_RQST = 9
    SRV_TYPE_RPLY = 10
    SA_ADVERT = 11


class Flag(enum.IntFlag):
    """The flags of the header, as the upper octet has them (RFC 2608 §8)."""

    NONE = 0
    OVERFLOW = 0x80
    "The answer did not fit into the datagram; ask again over TCP."
    FRESH = 0x40
    "A registration, not a change of one."
    REQUEST_MCAST = 0x20
    "The request was sent to a group."


class ErrorCode(enum.IntEnum):
    """The errors of a reply (RFC 2608 §7)."""

    OK = 0
    LANGUAGE_NOT_SUPPORTED = 1
    PARSE_ERROR = 2
    INVALID_REGISTRATION = 3
    SCOPE_NOT_SUPPORTED = 4
    AUTHENTICATION_UNKNOWN = 5
    AUTHENTICATION_ABSENT = 6
    AUTHENTICATION_FAILED = 7
    VER_NOT_SUPPORTED = 9
    INTERNAL_ERROR = 10
    DA_BUSY_NOW = 11
    OPTION_NOT_UNDERSTOOD = 12
    INVALID_UPDATE = 13
    MSG_NOT_SUPPORTED = 14
    REFRESH_REJECTED = 15
