# SPDX-License-Identifier: BSD-3-Clause
"""The gateway's daemon is killed in the middle of a download, and nothing is lost."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isthmus.lab import figure
from isthmus.lab.lab import Lab
from isthmus.lab.node import wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import two_hosts
from isthmus.lab.topology import LabError

NAME = "gateway-restart"
_DEAD_SECONDS = 3.0
_MIB = 1 << 20


def play(lab: Lab, setting: Setting) -> Iterator[Check]:
    """Download; kill; see whether it goes on; start again; compare."""
    size, rate = (12 * _MIB, _MIB + _MIB // 2) if setting.plane == "reference" else (96 * _MIB, 12 * _MIB)
    gateway, host = lab["gateway"], lab["host-a"]
    before = _held(gateway.isthmus("leases"))
    page = lab.record.directory / "download"
    url = f"http://{figure.SERVER}/octets/{size}"
    curl = [
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "40",
        "--limit-rate",
        str(rate),
        "--output",
        str(page),
        url,
    ]
    download = subprocess.Popen(
        host.command(*curl), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        if not wait_until(lambda: _size(page) > 2 * _MIB, 15):
            raise LabError(f"the download did not begin: {_size(page)} octets after 15 seconds")
        at_kill = _size(page)
        gateway.daemons["isthmus"].kill()
        time.sleep(_DEAD_SECONDS)
        while_dead = _size(page) - at_kill
        if gateway.plane == "kernel":
            yield Check(
                "packets flow while the daemon is dead",
                while_dead > 0,
                f"killed after {at_kill / _MIB:.1f} MiB; {while_dead / _MIB:.1f} MiB came in {_DEAD_SECONDS:g} seconds",
            )
        gateway.up(figure.gateway_configuration(lab, setting, more=_gateway_lines(setting)))
        _, complaint = download.communicate(timeout=60)
    except subprocess.TimeoutExpired as error:
        raise LabError("the download did not end within 60 seconds") from error
    finally:
        download.kill()
        download.wait()
    yield Check(
        "the download finishes, octet for octet",
        download.returncode == 0 and _digest(page) == _expected(size),
        complaint.strip() or f"{_size(page) / _MIB:.0f} MiB, curl ended with {download.returncode}",
    )
    yield from _nothing_lost(lab, before)


def _nothing_lost(lab: Lab, before: set[tuple[Any, ...]]) -> Iterator[Check]:
    """After the restart: the same leases, an answer about the past, and packets for everybody."""
    gateway = lab["gateway"]
    after = _held(gateway.isthmus("leases"))
    shown = "; ".join(f"{host} client {client} bind {bind}" for host, client, bind, *_ in sorted(after))
    yield Check("every lease is there, with the same client and bind IDs", bool(before) and after == before, shown)
    fetched = next(request for request in reversed(two_hosts.requests(lab)) if request["path"].startswith("/octets"))
    port = int(fetched["port"])
    holders = gateway.isthmus("who-had", f"{figure.SHARED}:{port}", "--at", str(fetched["at"]))
    yield Check(
        "who-had names the host that downloaded",
        [row["host"] for row in holders] == [figure.HOSTS["host-a"]],
        f"{figure.SHARED}:{port} was {', '.join(str(row['host']) for row in holders) or 'nobody'}",
    )
    for name, (code, text) in two_hosts.fetch_at_once(lab).items():
        yield Check(f"{name} fetches a page after the restart", code == 0, text.strip())


def _held(leases: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return {(row["host"], row["client_id"], row["bind_id"], row["address"], row["ports"]) for row in leases}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _expected(size: int) -> str:
    pattern = bytes(range(256)) * 4096
    digest = hashlib.sha256()
    for at in range(0, size, len(pattern)):
        digest.update(pattern[: min(len(pattern), size - at)])
    return digest.hexdigest()


def _start(lab: Lab, setting: Setting) -> None:
    two_hosts.start(lab, setting, gateway_lines=_gateway_lines(setting))


def _gateway_lines(setting: Setting) -> str:
    """Which peers a host has contacted is in the pinned maps; the reference plane forgets it with its process."""
    return 'admit = "anyone"\n' if setting.plane == "reference" else ""


SCENARIO = Scenario(
    name=NAME,
    title="The gateway's daemon is killed in the middle of a download; the download finishes and no lease is lost",
    shows=("RFC 3102 6.1", "RFC 3103 6", "RFC 3103 10.2"),
    network=figure.network(NAME),
    start=_start,
    play=play,
)
