# SPDX-License-Identifier: BSD-3-Clause
"""A port that is two lists."""

from __future__ import annotations

from collections import deque


class MemoryPort:
    """What tests put in is received; what is sent, tests take out.

    Args:
        name: Any.
        capacity: How many sent packets fit, until tests take some out.
    """

    def __init__(self, name: str = "memory", capacity: int = 1024) -> None:
        self._name = name
        self._capacity = capacity
        self.waiting: deque[bytes] = deque()
        self.sent: list[tuple[bytes, bool]] = []
        self.closed = False
        self.native = False
        "Whether what is received is SIP; tests say so."

    @property
    def origin(self) -> str | None:
        """Nobody says."""
        return None

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    def fileno(self) -> int:
        """Say that there is nothing to wait on."""
        return -1

    def receive(self) -> bytes | None:
        """Take the next packet that a test put into ``waiting``."""
        return self.waiting.popleft() if self.waiting else None

    def send(self, packet: bytes, *, forwarded: bool = False) -> bool:
        """Keep a packet in ``sent``, as it is, with the flag."""
        if self.closed or len(self.sent) >= self._capacity:
            return False
        self.sent.append((packet, forwarded))
        return True

    def close(self) -> None:
        """Take nothing any more."""
        self.closed = True
