# SPDX-License-Identifier: BSD-3-Clause
"""A gateway behind a gateway: what it leases out it has leased itself (RFC 3102 §4.2).

The machine runs two daemons. One is a host at the parent gateway: it holds addresses and ports and keeps
them renewed. The other is this gateway; its far realm is the host's device, and its pool lies
within what the host holds. It asks the host by its control socket, again and again, so that
nothing is ever leased for longer than the parent has leased it (RFC 3102 §4.2.1: MUST NOT), and what
the parent takes back is taken back from the children at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from isthmus.address import Address
from isthmus.border.ranges import Ranges, merge
from isthmus.border.selector import Kind, Selector
from isthmus.daemon.clock import Clock
from isthmus.daemon.messages import Message, log
from isthmus.errors import ConfigError

ASK_SECONDS = 1.0
WAIT_SECONDS = 20.0
_LINE_LIMIT = 1 << 20


class Parent:
    """What a host daemon of this machine holds.

    Args:
        path: Its control socket.
        claims: What the gateway leases out.
        clock: Seconds since 1970.
    """

    def __init__(self, path: Path, claims: Iterable[Selector], clock: Clock) -> None:
        self._path = path
        self._claims = tuple(claims)
        self._clock = clock
        self._until: dict[Address, float] = {}

    def until(self, address: Address, now: float) -> float:
        """When the parent's lease of an address ends; now, where nothing is held of it."""
        return self._until.get(address, now)

    async def start(self) -> None:
        """Wait until the host holds what is to be leased out.

        Raises:
            ConfigError: it does not; says what is missing.
        """
        missing = "its host daemon does not answer"
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while True:
                    with contextlib.suppress(OSError, ValueError):
                        missing = self._take(await self._ask())
                        if not missing:
                            return
                    await asyncio.sleep(ASK_SECONDS / 4)
        except TimeoutError:
            reason = f"{self._path}: {missing} after {WAIT_SECONDS:.0f} seconds; see 'isthmus leases' there"
            raise ConfigError("gateway", key="parent.socket", reason=reason) from None

    async def run(self, lost: Callable[[Address], None]) -> None:
        """Keep looking, until cancelled.

        Args:
            lost: Told of each address that the parent has taken back.
        """
        while True:
            await asyncio.sleep(ASK_SECONDS)
            before = set(self._until)
            try:
                self._take(await self._ask())
            except (OSError, ValueError):
                # The host daemon is away: what it had until its deadlines is ours until then.
                now = self._clock.now()
                self._until = {address: until for address, until in self._until.items() if until > now}
            for address in sorted(before - set(self._until)):
                log(Message.PARENT_LOST, address=str(address))
                lost(address)

    async def _ask(self) -> list[dict[str, Any]]:
        reader, writer = await asyncio.open_unix_connection(str(self._path), limit=_LINE_LIMIT)
        try:
            writer.write(b'{"do": "leases"}\n')
            await writer.drain()
            answer = json.loads(await asyncio.wait_for(reader.readline(), 5.0))
        finally:
            writer.close()
        if not answer.get("ok"):
            raise ValueError(str(answer.get("error")))
        rows: list[dict[str, Any]] = answer["result"]
        return rows

    def _take(self, rows: Iterable[dict[str, Any]]) -> str:
        """Note what is held; returns what of the claims is missing, in words."""
        held: dict[tuple[Address, Kind], list[Ranges]] = {}
        whole: set[Address] = set()
        until: dict[Address, float] = {}
        for row in rows:
            address = Address.parse(row["address"])
            if row["ports"] is None and row.get("spis") is None:
                whole.add(address)
            for kind, text in ((Kind.PORT, row["ports"]), (Kind.SPI, row.get("spis"))):
                if text:
                    held.setdefault((address, kind), []).append(Ranges.parse(text))
            until[address] = min(until.get(address, row["expires_at"]), row["expires_at"])
        missing = [claim for claim in self._claims if not _is_held(claim, whole, held)]
        gone = {each for claim in missing for each in claim.local if claim.kind is not None or each not in whole}
        self._until = {address: end for address, end in until.items() if address not in gone}
        return f"{missing[0]} is not held" if missing else ""


def _is_held(claim: Selector, whole: set[Address], held: dict[tuple[Address, Kind], list[Ranges]]) -> bool:
    """Whether the parent has leased to us all that a claim says, or the addresses whole."""
    if claim.kind not in (None, Kind.PORT, Kind.SPI) or all(address in whole for address in claim.local):
        return True
    return claim.kind is not None and merge(held.get((claim.address, claim.kind), ())).covers(claim.values)
