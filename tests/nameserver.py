# SPDX-License-Identifier: BSD-3-Clause
"""A real nameserver (knot) on loopback, for tests that speak to one."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import pytest

KNOTD = shutil.which("knotd", path="/usr/sbin:/usr/bin:/sbin:/bin")


class Nameserver:
    """Serves zones of text until it is stopped.

    Args:
        folder: Where it keeps its files; a short path, for its control socket.
        zones: Name to text.
        key: Name and base64 secret of the TSIG key (hmac-sha256) that transfers need; None: they need none.
    """

    def __init__(self, folder: Path, zones: dict[str, str], *, key: tuple[str, str] | None = None):
        self.folder = folder
        self.zones = zones
        self.address = "127.0.0.1"
        self.port = free_port()
        self._process = None
        signed = f'key:\n  - id: "{key[0]}"\n    algorithm: hmac-sha256\n    secret: "{key[1]}"\n' if key else ""
        who = f'    key: "{key[0]}"\n' if key else "    address: 127.0.0.1\n"
        self._configuration = folder / "knot.conf"
        self._configuration.write_text(
            f'server:\n  listen: 127.0.0.1@{self.port}\n  rundir: "{folder}"\n'
            "  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n"
            f'log:\n  - target: stderr\n    any: warning\ndatabase:\n  storage: "{folder}"\n{signed}'
            f"acl:\n  - id: transfer\n{who}    action: transfer\n"
            f'template:\n  - id: default\n    storage: "{folder}"\n    file: "%s.zone"\n    acl: transfer\n'
            "    zonefile-load: difference\n    journal-content: changes\n    zonefile-sync: -1\n"
            "zone:\n" + "".join(f"  - domain: {name}\n" for name in zones)
        )
        for name, text in zones.items():
            self._file(name).write_text(text)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name.rstrip('.')}.zone"

    def start(self) -> None:
        """Start, and wait until it answers."""
        with (self.folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [KNOTD, "-c", str(self._configuration)], stdout=subprocess.DEVNULL, stderr=log
            )
        for name in self.zones:
            self._until(lambda name=name: self.serial(name) is not None)

    def serial(self, name: str) -> int | None:
        """The serial number that it serves a zone with; None: it does not answer."""
        with contextlib.suppress(dns.exception.DNSException, OSError):
            answer = dns.query.udp(dns.message.make_query(name, "SOA"), self.address, timeout=0.1, port=self.port)
            return answer.answer[0][0].serial if answer.answer else None
        return None

    def change(self, name: str, text: str) -> None:
        """Serve another version of a zone, with a higher serial."""
        before = self.serial(name)
        self._file(name).write_text(text)
        self._process.send_signal(signal.SIGHUP)
        self._until(lambda: self.serial(name) not in (before, None))

    def _until(self, so):
        end = time.monotonic() + 20
        while not so():
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, (self.folder / "log").read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def free_port() -> int:
    """A port of loopback that is free for UDP and TCP."""
    for _ in range(50):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                tcp.bind(("127.0.0.1", udp.getsockname()[1]))
                return udp.getsockname()[1]
    raise RuntimeError("no port is free")


needs_knot = pytest.mark.skipif(KNOTD is None, reason="knot is not installed")
