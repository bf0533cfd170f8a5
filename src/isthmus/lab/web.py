# SPDX-License-Identifier: BSD-3-Clause
"""A small server for the lab: pages over HTTP, echoes over UDP, and a log of who asked.

``python -m isthmus.lab.web LOG [::]`` serves port 80 and UDP port 7 of its namespace; with ``::`` both are
served over IPv6 as well. ``/`` is a page that tells who the server saw; ``/octets/N`` is N octets; what is
posted is answered with its length and SHA-256. Each request is one JSON line in LOG.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HTTP_PORT = 80
ECHO_PORT = 7
_LONGEST_PAUSE = 30
_CHUNK = bytes(range(256)) * 256


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log_path = Path("/dev/null")
    log_lock = threading.Lock()

    @property
    def _peer(self) -> tuple[str, int]:
        """Who asks; an IPv4 address is one also where a socket of IPv6 has taken the call."""
        return self.client_address[0].removeprefix("::ffff:"), self.client_address[1]

    def do_GET(self) -> None:
        """Serve a page, or as many octets as asked for."""
        peer, port = self._peer
        note(self.log_path, kind="http", peer=peer, port=port, path=self.path)
        path = self.path.partition("?")[0]
        wanted, pause = path.partition("/octets/")[2], path.partition("/seconds/")[2]
        time.sleep(min(int(pause), _LONGEST_PAUSE) if pause.isdigit() else 0)
        body = f"You are {peer} port {port}.\n".encode()
        length = int(wanted) if wanted.isdigit() else len(body)
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream" if wanted else "text/plain")
        self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()
        if not wanted:
            self.wfile.write(body)
        while wanted and length > 0:
            self.wfile.write(_CHUNK[: min(length, len(_CHUNK))])
            length -= len(_CHUNK)
        self.close_connection = True

    def do_POST(self) -> None:
        """Take what is sent and say what came."""
        peer, port = self._peer
        note(self.log_path, kind="http", peer=peer, port=port, path=self.path)
        digest, left = hashlib.sha256(), int(self.headers.get("Content-Length", 0))
        while left > 0 and (octets := self.rfile.read(min(left, len(_CHUNK)))):
            digest.update(octets)
            left -= len(octets)
        body = f"{self.headers.get('Content-Length')} octets, sha256 {digest.hexdigest()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: ``note`` has."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True


class _DualServer(_Server):
    address_family = socket.AF_INET6


def note(log_path: Path, **what: object) -> None:
    """Append one line to the log."""
    with _Handler.log_lock, log_path.open("a", encoding="utf-8") as log:
        log.write(json.dumps({"at": time.time(), **what}) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read what a server has noted."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return []


def _echo(path: Path, address: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as echo:
        echo.bind((address, ECHO_PORT))
        while True:
            octets, where = echo.recvfrom(65535)
            peer = where[0].removeprefix("::ffff:")
            note(path, kind="udp", peer=peer, port=where[1], path=f"{len(octets)} octets")
            with contextlib.suppress(OSError):
                echo.sendto(octets, where)


def serve(path: Path, address: str = "") -> None:
    """Serve until the process is ended; at ``::`` over IPv6 and IPv4."""
    _Handler.log_path = path
    threading.Thread(target=_echo, args=(path, address), daemon=True).start()
    server = (_DualServer if ":" in address else _Server)((address, HTTP_PORT), _Handler)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), *sys.argv[2:3])
