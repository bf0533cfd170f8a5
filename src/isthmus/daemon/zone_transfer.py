# SPDX-License-Identifier: BSD-3-Clause
"""Fetching a zone from a nameserver (AXFR, RFC 5936; IXFR, RFC 1995), signed or not.

dnspython reads and understands the messages. What it does not do is take them from the server faster than
it understands them, and a server hangs up on who reads too slowly: so here they are taken at once, and understood
one after the other in a thread of their own.
"""

from __future__ import annotations

import asyncio
from typing import Any

import dns.message
import dns.rdatatype
import dns.xfr

from isthmus.address import Address
from isthmus.ipae.zone_records import ZoneRecords

LARGEST = 1 << 28
"""So many octets of a transfer wait to be understood: some ten million records."""
_SILENCE = 10.0
"""Seconds between two messages."""


async def transfer(server: tuple[Address, int], content: ZoneRecords, query: dns.message.QueryMessage) -> None:
    """Bring the content of a zone up to date.

    Args:
        server: Address and port.
        content: Empty, or the version that the query names. Changed only if all of the transfer has come and is right.
        query: As ``dns.xfr.make_query`` makes it, signed or not.

    Raises:
        DNSException, ValueError: refused, malformed, or not signed as it should be.
        OSError, EOFError: no connection, or it ended early.
        TimeoutError: the server fell silent.
    """
    async with asyncio.timeout(_SILENCE):
        reader, writer = await asyncio.open_connection(str(server[0]), server[1], limit=LARGEST)
    try:
        wire = query.to_wire()
        writer.write(len(wire).to_bytes(2, "big") + wire)
        serial = dns.xfr.extract_serial_from_query(query)
        with dns.xfr.Inbound(content, query.question[0].rdtype, serial) as inbound:
            reading = _Reading(query, content, inbound)
            done = False
            while not done:
                async with asyncio.timeout(_SILENCE):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    octets = await reader.readexactly(length)
                done = await asyncio.to_thread(reading.receive, octets)
    finally:
        writer.close()


class _Reading:
    """One transfer, message by message."""

    def __init__(self, query: dns.message.QueryMessage, content: ZoneRecords, inbound: dns.xfr.Inbound) -> None:
        self._query = query
        self._origin = content.from_wire_origin()
        self._inbound = inbound
        self._signature: Any = None
        self._first = True

    def receive(self, octets: bytes) -> bool:
        """Take a message; whether it was the last."""
        message = dns.message.from_wire(
            octets,
            keyring=self._query.keyring,
            request_mac=self._query.mac,
            xfr=True,
            origin=self._origin,
            tsig_ctx=self._signature,
            multi=True,
            one_rr_per_rrset=self._query.question[0].rdtype == dns.rdatatype.IXFR,
        )
        if not self._query.is_response(message, xfr_continuation=not self._first):
            raise ValueError("this is no answer to the question")
        self._first = False
        done = self._inbound.process_message(message)
        self._signature = message.tsig_ctx
        return done
