# SPDX-License-Identifier: BSD-3-Clause
"""Accepting connections in our own event loop.

Not asyncio's own server: between accepting and serving it has connections that nobody can hang up on.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

_RETRY_SECONDS = 1.0


class Listener:
    """Hands on each connection that a listening socket accepts, until it is closed.

    Args:
        listening: The socket, bound and listening; closed with this.
        let_in: Takes a connection, which is its own to close, and the peer's address.
    """

    def __init__(self, listening: socket.socket, let_in: Callable[[socket.socket, Any], None]) -> None:
        listening.setblocking(False)
        self.socket = listening
        self._take = let_in
        self._retry: asyncio.TimerHandle | None = None
        self._listen()

    def _listen(self) -> None:
        asyncio.get_running_loop().add_reader(self.socket, self._accept)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            accepted, peer = self.socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor is left; others give theirs back in time
            loop.remove_reader(self.socket)
            self._retry = loop.call_later(_RETRY_SECONDS, self._listen)
            return
        self._take(accepted, peer)

    def close(self) -> None:
        """Listen no more."""
        if self._retry is not None:
            self._retry.cancel()
        asyncio.get_running_loop().remove_reader(self.socket)
        self.socket.close()
