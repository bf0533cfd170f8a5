# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing DHCP answers: a value or a WireError, and the options in them too."""

from __future__ import annotations

from fuzz.promise import stays_within
from isthmus.errors import WireError
from isthmus.wire import dhcp

_COOKIE_AT = 236


def repair(octets: bytes) -> bytes:
    """Put the magic cookie where it belongs."""
    if len(octets) < _COOKIE_AT + len(dhcp.COOKIE):
        return octets
    return octets[:_COOKIE_AT] + dhcp.COOKIE + octets[_COOKIE_AT + len(dhcp.COOKIE) :]


def check(octets: bytes) -> None:
    """Read a message, and every option as each of the things that options can be."""
    try:
        message = dhcp.DhcpMessage.parse(octets)
    except WireError as error:
        stays_within(error, octets)
        return
    assert len(message.hardware) <= 16
    assert sum(map(len, message.options.values())) <= len(octets)
    assert message.message_type is None or 0 <= message.message_type <= 255
    for value in message.options.values():
        for read in (dhcp.addresses, dhcp.slp_scopes, dhcp.slp_directory_agents):
            try:
                read(value)
            except WireError as error:
                stays_within(error, value)
