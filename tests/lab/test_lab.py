# SPDX-License-Identifier: BSD-3-Clause
"""Networks are built and taken away, whatever happens."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus.lab.lab import Lab, records, standing
from isthmus.lab.node import wait_until
from isthmus.lab.scenario import Check, Scenario, Setting, play
from isthmus.lab.scenarios import SCENARIOS
from isthmus.lab.topology import Cable, End, LabError, Network, NodePlan, run_in
from lab.machine import LABS, PLAINLY, ROOT, environment, isthmus

SMALL = Network(
    name="test-small",
    nodes=(NodePlan(name="a"), NodePlan(name="wire", segment=True), NodePlan(name="b")),
    cables=(
        Cable(End(node="a", interface="eth0", addresses=("10.0.0.1/24",)), End(node="wire", interface="a")),
        Cable(
            End(node="b", interface="eth0", addresses=("10.0.0.2/24",), offload=False), End(node="wire", interface="b")
        ),
    ),
)
KEEPER = """
import sys, time
sys.path.insert(0, {tests!r})
from lab.test_lab import SMALL
from isthmus.lab.lab import standing
with standing(SMALL) as lab:
    lab["a"].start("sleep", "sleep", "300")
    print("up", flush=True)
    time.sleep(300)
"""


def test_list_says_what_each_scenario_shows():
    done = isthmus("lab", "list", "--json")
    entries = json.loads(done.stdout)
    assert [entry["name"] for entry in entries] == list(SCENARIOS)
    for entry in entries:
        assert entry.keys() == {"name", "title", "shows"}
        assert entry["title"]
        assert entry["shows"]
        assert all(clause.startswith(("seed ", "RFC ")) for clause in entry["shows"])


def test_an_unknown_scenario_is_named_with_those_there_are():
    done = isthmus("lab", "run", "no-such-thing")
    assert done.returncode == 2
    assert "no-such-thing" in done.stderr
    assert "two-hosts" in done.stderr


def test_a_cable_to_nowhere_is_refused():
    with pytest.raises(ValueError, match="no node"):
        Network(
            name="x",
            nodes=(NodePlan(name="a"),),
            cables=(Cable(End(node="a", interface="eth0"), End(node="b", interface="eth0")),),
        )


def test_two_nodes_of_one_name_are_refused():
    with pytest.raises(ValueError, match="share a name"):
        Network(name="x", nodes=(NodePlan(name="a"), NodePlan(name="a")), cables=())


@pytest.mark.root
@pytest.mark.usefixtures("nothing_left")
def test_a_network_carries_packets():
    with standing(SMALL) as lab, lab["a"].udp_socket() as sender, lab["b"].udp_socket() as receiver:
        receiver.bind(("10.0.0.2", 9999))
        receiver.settimeout(5)
        sender.sendto(b"hello", ("10.0.0.2", 9999))
        assert receiver.recv(100) == b"hello"


@pytest.mark.root
@pytest.mark.usefixtures("nothing_left")
def test_offload_is_as_declared():
    with standing(SMALL) as lab:
        assert "tx-checksumming: off" in run_in(lab["b"].namespace, ["ethtool", "-k", "eth0"])
        assert "tx-checksumming: on" in run_in(lab["a"].namespace, ["ethtool", "-k", "eth0"])


@pytest.mark.root
@pytest.mark.usefixtures("nothing_left")
def test_nothing_is_left_after_an_exception():
    def fail() -> None:
        with standing(SMALL) as lab:
            lab["a"].start("sleep", "sleep", "300")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()


@pytest.mark.root
@pytest.mark.usefixtures("nothing_left")
def test_nothing_is_left_when_the_network_cannot_be_built():
    wrong = Network(name="test-wrong", nodes=(NodePlan(name="a", routes=("10.9.0.0/16 via 10.8.0.1",)),), cables=())
    with pytest.raises(LabError, match="route add"), standing(wrong):
        pass


@pytest.mark.root
@pytest.mark.usefixtures("nothing_left")
def test_a_failing_play_is_a_check_that_is_not_ok():
    def start(lab: Lab, _setting: Setting) -> None:
        lab["a"].start("talker", "sh", "-c", "echo something is wrong; sleep 300")

    def steps(lab: Lab, _setting: Setting):
        yield Check("first", ok=True, detail="")
        wait_until(lambda: bool(lab.logs()), 15)
        raise LabError("it broke")

    scenario = Scenario(name="test-small", title="", shows=("RFC 1",), network=SMALL, start=start, play=steps)
    result = play(scenario, Setting())
    assert not result.ok
    assert [check.ok for check in result.checks] == [True, False]
    assert result.checks[1].detail == "it broke"
    assert "something is wrong" in result.logs
    assert result.entry().keys() == {"scenario", "ok", "checks"}


@pytest.mark.root
@pytest.mark.usefixtures("nothing_left")
def test_a_daemon_that_is_not_ready_shows_what_it_said():
    with standing(SMALL) as lab:
        with pytest.raises(LabError, match=r"(?s)exit code 3 before it was ready.*no such luck"):
            lab["a"].start("broken", "sh", "-c", "echo no such luck; exit 3", ready="ready")
        with pytest.raises(LabError, match="not ready within"):
            lab["a"].start("silent", "sleep", "300", ready="ready", seconds=0.2)


@pytest.mark.root
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_is_left_after_a_signal(number):
    with keeper() as process:
        process.send_signal(number)
        assert process.wait(timeout=30) != 0


@pytest.mark.root
@pytest.mark.usefixtures("nothing_left")
def test_lab_down_removes_what_a_killed_lab_left():
    with keeper() as process:
        process.kill()
        process.wait(timeout=10)
        assert Path("/run/netns/ist-test-small-a").exists()
        done = isthmus("lab", "down", "test-small")
        assert done.returncode == 0, done.stderr
        assert "test-small is gone" in done.stdout


@pytest.mark.root
@pytest.mark.usefixtures("nothing_left")
def test_the_next_lab_of_that_name_removes_what_a_killed_one_left():
    with keeper() as process:
        process.kill()
        process.wait(timeout=10)
        with standing(SMALL) as lab:
            assert lab["a"].run("true").returncode == 0


@pytest.mark.root
@pytest.mark.usefixtures("nothing_left")
def test_a_lab_in_use_is_let_alone():
    with keeper() as process:
        with pytest.raises(LabError, match=f"stands already.*{process.pid}"), standing(SMALL):
            pass
        done = isthmus("lab", "down", "test-small")
        assert done.returncode == 2
        assert str(process.pid) in done.stderr
        assert Path("/run/netns/ist-test-small-a").exists()
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.root
@pytest.mark.usefixtures("nothing_left")
def test_a_process_that_got_the_id_of_one_of_ours_is_let_alone():
    with standing(SMALL) as lab:
        stranger = subprocess.Popen(["sleep", "300"])
        lab.record.processes.append((stranger.pid, 12345))
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


@contextlib.contextmanager
def keeper():
    """A process of its own that keeps a network."""
    process = subprocess.Popen(
        [*PLAINLY, sys.executable, "-c", KEEPER.format(tests=str(ROOT / "tests"))],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert any(record.name == "test-small" and record.maker == process.pid for record in records())
        assert (LABS / "test-small" / "lab.json").exists()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
