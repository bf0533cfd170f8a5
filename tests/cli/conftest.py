# SPDX-License-Identifier: BSD-3-Clause
"""A daemon that answers what it is told to."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class FakeDaemon:
    """Listens on a control socket and answers from a table."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: dict[str, Any] = {}
        self.requests: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, client.makefile("rwb") as file:
                for line in file:
                    request = json.loads(line)
                    self.requests.append(request)
                    result = self.results.get(request["do"])
                    answer = {"ok": True, "result": result} if result is not None else {"ok": False, "error": "cannot"}
                    file.write(json.dumps(answer).encode() + b"\n")
                    file.flush()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    with tempfile.TemporaryDirectory(prefix="isthmus") as folder:
        fake = FakeDaemon(Path(folder) / "isthmus.sock")
        yield fake
        fake.close()
