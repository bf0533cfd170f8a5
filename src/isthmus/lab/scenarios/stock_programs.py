# SPDX-License-Identifier: BSD-3-Clause
"""Stock programs on leased ports, through ``isthmus run``: none of them knows."""

from __future__ import annotations

import getpass
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isthmus.lab import figure, stock
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.privilege import missing_tools
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import two_hosts
from isthmus.lab.topology import LabError

NAME = "stock-programs"
HOST = "host-a"
_HOST_NAME = "www.lab.example"
_STEP = 16
_CONNECTIONS = 48


def start(lab: Lab, setting: Setting) -> None:
    """Start the servers, the gateway, and a host agent that holds nothing yet."""
    if missing := missing_tools(*stock.PACKAGES):
        raise LabError(missing)
    two_hosts.start_server(lab)
    server = lab["server"]
    stock.start_sshd(server, _keys(lab))
    server.start("iperf3", "iperf3", "--server", "--forceflush", ready="Server listening")
    stock.start_names(server, figure.SERVER, {_HOST_NAME: (figure.SERVER,)})
    lab["gateway"].up(figure.gateway_configuration(lab, setting))
    lab[HOST].up(figure.host_configuration(lab, setting, HOST, lease=False))


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Run them one after the other; then one that needs more ports than it has."""
    yield _curl(lab)
    yield from _ssh(lab)
    for name, options in (
        ("iperf3 TCP up", ()),
        ("iperf3 TCP down", ("--reverse",)),
        ("iperf3 UDP up", ("--udp", "--bitrate", "50M")),
        ("iperf3 UDP down", ("--udp", "--bitrate", "50M", "--reverse")),
    ):
        yield _iperf3(lab, name, options)
    yield from _dig(lab)
    yield from _many(lab)
    given_back = wait_until(lambda: not two_hosts.leased_ports(lab), 5, every=0.3)
    yield Check("what was leased is given back", given_back, f"{two_hosts.leased_ports(lab) or 'nothing'} is held")


def through(lab: Lab, *command: str, options: tuple[str, ...] = ()) -> list[str]:
    """A command line that runs a program by ``isthmus run`` on the host."""
    return [*ISTHMUS, "run", "--socket", str(lab[HOST].socket_path), *options, "--", *command]


def _run(lab: Lab, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return lab[HOST].run(*through(lab, *command, options=options), check=False, seconds=30)


def _words(done: subprocess.CompletedProcess[str]) -> str:
    text = " ".join((done.stdout.strip() or done.stderr.strip()).split())
    return f"exit code {done.returncode}: {text[:200]}"


def _curl(lab: Lab) -> Check:
    done = _run(lab, "curl", "--silent", "--show-error", "--max-time", "10", f"http://{figure.SERVER}/curl")
    return Check("curl", done.returncode == 0 and f"You are {figure.SHARED}" in done.stdout, _words(done))


def _keys(lab: Lab) -> Path:
    return lab.record.directory / "keys"


def _ssh(lab: Lab) -> Iterator[Check]:
    directory = lab["server"].directory
    done = _run(lab, *stock.ssh(_keys(lab), figure.SERVER, 'echo "$SSH_CONNECTION"'))
    yield Check("ssh", done.returncode == 0 and done.stdout.startswith(figure.SHARED), _words(done))
    original, copy = directory / "original", directory / "copy"
    original.write_bytes(bytes(range(256)) * 16384)
    there = f"{getpass.getuser()}@{figure.SERVER}:{original}"
    done = _run(lab, "scp", "-q", *stock.ssh_options(_keys(lab)), there, str(copy))
    same = copy.exists() and copy.read_bytes() == original.read_bytes()
    yield Check("scp of 4 MiB", done.returncode == 0 and same, _words(done) if done.returncode else "the same octets")


def _iperf3(lab: Lab, name: str, options: tuple[str, ...]) -> Check:
    done = _run(lab, "iperf3", "--client", figure.SERVER, "--time", "2", "--json", *options)
    try:
        end: dict[str, Any] = json.loads(done.stdout)["end"]
        total = end["sum_received"] if "sum_received" in end else end["sum"]
        rate, lost = total["bits_per_second"] / 1e6, total.get("lost_percent", 0.0)
    except (ValueError, KeyError):
        return Check(name, ok=False, detail=_words(done))
    return Check(name, done.returncode == 0 and rate > 1 and lost < 50, f"{rate:.0f} Mbit/s, {lost:.1f} % lost")


def _dig(lab: Lab) -> Iterator[Check]:
    for name, words, options in (
        ("dig", ("dig", "+short", "+tries=2", "+time=3", f"@{figure.SERVER}", _HOST_NAME), ()),
        ("dig by --dns", ("dig", "+short", "+tries=2", "+time=3", _HOST_NAME), ("--dns", figure.SERVER)),
    ):
        done = _run(lab, *words, options=options)
        yield Check(name, done.returncode == 0 and done.stdout.strip() == figure.SERVER, _words(done))


def _many(lab: Lab) -> Iterator[Check]:
    """Open more connections at once than ports were leased, as fast as a busy program might."""
    url = f"http://{figure.SERVER}/many/seconds/5"
    fetch = f"curl --silent --show-error --max-time 20 --output /dev/null {url}?$i || echo failed"
    script = f"for i in $(seq {_CONNECTIONS}); do {{ {fetch}; }} & sleep 0.05; done; wait"
    running = subprocess.Popen(
        lab[HOST].command(*through(lab, "sh", "-c", script, options=("--ports", str(_STEP)))),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    most = 0
    try:
        while running.poll() is None:
            most = max(most, sum(len(ports) for ports in two_hosts.leased_ports(lab).values()))
        said, _ = running.communicate(timeout=30)
    finally:
        running.kill()
        running.wait()
    seen = {request["port"] for request in two_hosts.requests(lab) if request["path"].startswith("/many")}
    name = f"{_CONNECTIONS} connections at once on a lease of {_STEP} ports"
    yield Check(name, running.returncode == 0 and not said, said.strip()[:300] or f"{len(seen)} source ports seen")
    yield Check("more ports were asked for", most >= _CONNECTIONS, f"{most} ports held at the most")


SCENARIO = Scenario(
    name=NAME,
    title="curl, ssh, scp, iperf3 and dig run unmodified on leased ports, and get more when these run short",
    shows=("RFC 3102 3.1", "RFC 3103 9.8", "RFC 3103 9.12", "seed RSIP 3.2"),
    network=figure.network(NAME, (HOST,), offload=True),
    start=start,
    play=play,
    root=True,
)
