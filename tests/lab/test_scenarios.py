# SPDX-License-Identifier: BSD-3-Clause
"""Every scenario, as a person runs it: by the program, on real packets and real programs."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from isthmus.lab import uml
from isthmus.lab.ipsec import missing
from isthmus.lab.node import wait_until
from isthmus.lab.scenarios import SCENARIOS, incoming_ike, ipsec, ipv6_remote
from lab.machine import PLAINLY, ROOT, Machine, environment, isthmus

NOBODY = 65534


def judged(done: subprocess.CompletedProcess[str], name: str) -> None:
    """The object has the form that every scenario has, and all checks hold."""
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert result.keys() == {"scenario", "ok", "checks"}
    assert result["scenario"] == name
    assert result["checks"]
    for check in result["checks"]:
        assert check.keys() == {"name", "ok", "detail"}
    failed = [f"{check['name']}: {check['detail']}" for check in result["checks"] if not check["ok"]]
    assert not failed, "\n".join(failed)
    assert result["ok"] is True
    assert done.returncode == 0


AT_ONCE = 3
"""Scenarios wait for timers more than they compute, and do not know of each other."""


def lacking(name: str) -> str:
    """What a scenario needs and this machine has not."""
    if name == ipv6_remote.NAME:
        return uml.missing()
    return missing() if name in (ipsec.NAME, incoming_ike.NAME) else ""


@pytest.fixture(scope="module")
def played(request) -> dict[str, subprocess.CompletedProcess[str]]:
    """Every scenario that was asked for, several at a time; then nothing is left of them."""
    asked = [item.callspec.params["name"] for item in request.session.items if item.originalname == "test_scenario"]
    asked = [name for name in asked if not lacking(name)]
    before = Machine.now()
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        # The long ones first, so that none of them runs on alone at the end.
        order = sorted(
            asked,
            key=lambda name: (
                name not in {"ipsec", "paths", "discovery", "stock-programs", "ipae-programs", "milestones", "cut-over"}
            ),
        )
        running = {name: pool.submit(isthmus, "lab", "run", name, "--json", seconds=240) for name in order}
    wait_until(lambda: not Machine.now().since(before), 5, every=0.2)
    assert Machine.now().since(before) == {}
    return {name: future.result() for name, future in running.items()}


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(played, name):
    if lacks := lacking(name):
        pytest.skip(lacks)
    judged(played[name], name)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
def test_two_hosts_on_the_reference_plane():
    judged(isthmus("lab", "run", "two-hosts", "--plane", "reference", "--json", seconds=100), "two-hosts")


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("name", ["ipv6-lease", "narrow", "sites"])
def test_what_depends_on_the_way_out_on_the_reference_plane(name):
    """Here the machine routes what a plane sends, and not the plane itself."""
    judged(isthmus("lab", "run", name, "--plane", "reference", "--json", seconds=100), name)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
def test_two_hosts_without_root():
    """A user who may do nothing runs the same, on the reference plane, in a user namespace.

    Root is needed only to become somebody else, and to show the tree where that user can read it.
    """
    with readable_tree() as place:
        words = [str(place / Path(sys.executable).relative_to(ROOT)), "-m", "isthmus"]
        done = as_nobody(place, *words, "lab", "run", "two-hosts", "--json")
    assert "not root" in done.stderr
    judged(done, "two-hosts")


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_without_root_nothing_is_left_after_a_signal(number):
    user = ["setpriv", f"--reuid={NOBODY + 1}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
    with readable_tree() as place:
        words = [*user, str(place / Path(sys.executable).relative_to(ROOT)), "-m", "isthmus", "lab", "run", "two-hosts"]
        inner = f"mount --bind {shlex.quote(str(ROOT))} {place} && cd {place} && exec {shlex.join(words)}"
        running = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", inner],
            env={**environment(), "PYTHONPATH": f"{place}/src", "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert wait_until(lambda: len(processes_of(NOBODY + 1)) >= 5, 30)
            running.send_signal(number)
            assert running.wait(timeout=30) != 0
            assert wait_until(lambda: not processes_of(NOBODY + 1), 10), processes_of(NOBODY + 1)
        finally:
            for pid in processes_of(NOBODY + 1):
                os.kill(pid, signal.SIGKILL)


def processes_of(user: int) -> list[int]:
    """The processes that run as a user, also those inside of its namespaces."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if entry.stat().st_uid == user and "Z" not in (entry / "stat").read_text().rpartition(")")[2].split()[0]:
                found.append(int(entry.name))
    return found


@pytest.mark.root
@pytest.mark.usefixtures("nothing_left")
def test_without_root_what_needs_it_says_so():
    with readable_tree() as place:
        words = [str(place / Path(sys.executable).relative_to(ROOT)), "-m", "isthmus"]
        done = as_nobody(place, *words, "lab", "run", "stock-programs")
        assert done.returncode == 2
        assert "needs root" in done.stderr
        done = as_nobody(place, *words, "lab", "up", "two-hosts")
        assert done.returncode == 2
        assert "needs root" in done.stderr


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_scenario_that_is_interrupted_leaves_nothing(number):
    running = subprocess.Popen(
        [*PLAINLY, sys.executable, "-m", "isthmus", "lab", "run", "two-hosts"],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert wait_until(lambda: Path("/run/isthmus/lab/two-hosts/gateway/run/gateway.sock").exists(), 20)
    running.send_signal(number)
    assert running.wait(timeout=60) != 0


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
def test_up_shell_down():
    try:
        done = isthmus("lab", "up", "two-hosts")
        assert done.returncode == 0, done.stderr
        page = isthmus(
            "lab", "shell", "two-hosts/host-a", "--", "curl", "--silent", "--max-time", "5", "http://192.156.136.22/"
        )
        assert page.stdout.startswith("You are 149.112.240.55 port "), page.stderr
        assert isthmus("lab", "shell", "no-such-node").returncode == 2
        again = isthmus("lab", "up", "two-hosts")
        assert again.returncode == 2
        assert "stands already" in again.stderr
    finally:
        assert isthmus("lab", "down", "two-hosts").returncode == 0


def readable_tree() -> tempfile.TemporaryDirectory[str]:
    """An empty directory that anybody may enter, for the tree to be mounted on."""
    if not Path(sys.executable).is_relative_to(ROOT):
        pytest.skip("the interpreter is not in the tree, which is all that is shown to the other user")
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed (util-linux)")
    return _Place(prefix="isthmus-lab-", dir="/tmp")


class _Place(tempfile.TemporaryDirectory):
    def __enter__(self) -> Path:
        Path(self.name).chmod(0o755)
        return Path(self.name)


def as_nobody(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command without any privilege, in a mount namespace where the tree is at ``place``."""
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all", *words]
    inner = f"mount --bind {shlex.quote(str(ROOT))} {place} && cd {place} && exec {shlex.join(user)}"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", inner],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**environment(), "PYTHONPATH": f"{place}/src", "HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
    )
    if "Permission denied" in done.stderr and not done.stdout:
        pytest.skip(f"the tree is not readable for other users: {done.stderr.strip()[-200:]}")
    return done
