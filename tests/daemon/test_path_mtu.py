# SPDX-License-Identifier: BSD-3-Clause
"""What errors from within tunnels teach the slow path the fast one is told, and told again when it is forgotten."""

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ADDRESS = "02:00:00:00:00:01"
CONFIGURATION = """\
[isthmus]
run = "{run}"
plane = "{plane}"

[[realm]]
name = "private"
interface = "near0"

[[realm]]
name = "public"
interface = "far0"

[gateway]
near = "private"
realm = "public"
address = "10.0.0.1"

[[gateway.pool]]
address = "149.112.240.55"
ports = "10000-19999"
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")
@pytest.mark.parametrize("kind", ["kernel", "reference"])
def test_a_daemon_tells_its_fast_path_and_forgets_by_itself(tmp_path, kind):
    words = ["unshare", "--net", "--mount", sys.executable, __file__, str(tmp_path / secrets.token_hex(3)), kind]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    learned = {"known": 1, "kernel": [1380]} if kind == "kernel" else {"known": 1, "kernel": []}
    forgotten = {"known": 0, "kernel": [1480]} if kind == "kernel" else {"known": 0, "kernel": []}
    assert found == [learned, forgotten]
    assert "WAY_NARROW" in done.stdout + done.stderr


def main(run, kind):
    from isthmus.daemon import config, terms
    from isthmus.daemon.clock import Clock
    from isthmus.daemon.planes import MachinePlane
    from isthmus.plane.reference import path_mtu
    from plane.fixture import build, scene, stage

    lines = [f"link add {name} address {ADDRESS} type veth peer name {name}x" for name in ("near0", "far0")]
    lines += [f"link set {name} up" for name in ("near0", "far0", "near0x", "far0x")]
    lines += ["address add 10.0.0.1/24 dev near0"]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("0")
    file = Path(f"{run}.toml")
    file.write_text(CONFIGURATION.format(run=run, plane=kind))
    path_mtu.LIFETIME_SECONDS = 2.0

    async def look():
        settings, clock = config.load(file), Clock()
        made = MachinePlane(settings, terms.border(settings), clock)
        try:
            first = stage(scene("gateway"))[1]
            binding = next(each for each in first if type(each).__name__ == "Bind")
            made.reconcile([replace(binding, lease=replace(binding.lease, expires_at=clock.now() + 1000))])
            made.start(lambda _violations: None)
            send(build)
            return [await until(made, known=known) for known in (1, 0)]
        finally:
            made.destroy()

    print(json.dumps(asyncio.run(look())))


def send(build):
    """An error of a router in the near realm, from the other end of the wire."""
    quoted = {"ipv4": "192.156.136.22 -> 149.112.240.55", "tcp": "80 -> 10000", "size": 1480}
    outer = {"ipv4": "10.0.0.9 -> 10.0.0.1", "too_big": 1400, "about": "10.0.0.1 -> 10.0.0.4"}
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("near0x", 0))
        wire.send(bytes.fromhex(ADDRESS.replace(":", "")) + bytes(6) + b"\x08\x00" + build(quoted | {"outer": outer}))


async def until(made, *, known):
    """What both paths have learned, when the slow one knows of so many ways."""
    async with asyncio.timeout(20):
        while len(made._slow.reference.memory.path_mtus) != known:  # noqa: ASYNC110 - nobody sets an event
            await asyncio.sleep(0.05)
    return seen(made)


def seen(made):
    values = []
    if made.kind == "kernel":
        record = made._fast._codec._record["endpoint"]
        values = [record.number(value, "mtu") for _, value in made._fast._maps["endpoints"].items() if any(value)]
    return {"known": len(made._slow.reference.memory.path_mtus), "kernel": values}


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    main(*sys.argv[1:])
