# SPDX-License-Identifier: BSD-3-Clause
"""isthmus doctor: what it finds is so, and it changes nothing."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.program import FIGURE_1, ROOT, process, refused, run
from isthmus.cli import doctor, probe
from isthmus.cli.finding import Status, missing, ok

ENOUGH = [
    ok(name, "")
    for name in (*doctor.KERNEL_NEEDS, *doctor.REFERENCE_NEEDS, "CAP_BPF", "CAP_PERFMON", "user-namespaces")
]


@pytest.fixture(scope="module")
def report():
    ended = process("doctor", "--json")
    assert ended.returncode in (0, 1), ended.stderr
    return ended.returncode, json.loads(ended.stdout)


def machine():
    """What a probe could leave behind."""
    links = sorted(each.name for each in Path("/sys/class/net").iterdir())
    modules = (
        sorted(line.split()[0] for line in Path("/proc/modules").read_text().splitlines())
        if Path("/proc/modules").exists()
        else []
    )
    rules = (
        subprocess.run(["nft", "list", "ruleset"], capture_output=True, check=False).stdout
        if shutil.which("nft")
        else b""
    )
    return [each for each in links if each.startswith("isthmus")], modules, b"table ip isthmus " in rules


def test_every_finding_has_a_status_and_what_is_not_well_has_a_remedy(report):
    status, said = report
    assert said["ok"] == (status == 0)
    assert set(said["planes"]) == {"kernel", "reference"}
    names = [each["name"] for each in said["findings"]]
    assert len(names) == len(set(names))
    for each in said["findings"]:
        assert each["status"] in {"OK", "WARN", "MISSING"}
        assert each["detail"]
        assert bool(each["remedy"]) == (each["status"] != "OK"), each


def test_what_it_says_is_so(report):
    found = {each["name"]: each for each in report[1]["findings"]}
    assert platform.release() in found["kernel"]["detail"]
    assert (found["btf"]["status"] == "OK") == Path("/sys/kernel/btf/vmlinux").exists()
    assert (found["ip_forward"]["status"] == "OK") == (Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1")
    if os.geteuid() == 0 and "veth" in found:
        assert found["veth"]["status"] == "OK", "the lab builds on it"


def test_the_verifiers_budget_is_said_of_every_program(report):
    found = {each["name"]: each for each in report[1]["findings"]}
    if found["programs"]["status"] != "OK":
        pytest.skip("no programs can be loaded here")
    programs = {(each["hook"], each["program"]): each for each in report[1]["programs"]}
    assert set(programs) == {(hook, name) for hook in ("tc", "xdp") for name in ("border", "ipae")}
    for (hook, name), each in programs.items():
        assert 0 < each["instructions"] < 500_000
        assert each["seconds"] > 0
        assert f"{each['instructions']:,} of 1,000,000" in found[f"verifier {hook}/{name}"]["detail"]


def test_nothing_is_changed():
    before = machine()
    run("doctor", "--json")
    assert machine() == before


@pytest.mark.parametrize("words", [[], ["net:[1]", "more"], ["somewhere"], ["HERE"]])
def test_the_part_that_makes_devices_refuses_to_run_where_we_are(words):
    here = str(Path("/proc/self/ns/net").readlink())
    words = [here if each == "HERE" else each for each in words]
    command = [sys.executable, "-m", "isthmus.cli.probe_namespace", *words]
    before = machine()
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}
    )
    assert ended.returncode == 1
    assert "use 'isthmus doctor'" in ended.stderr
    assert machine() == before


def test_the_verdict_is_that_of_the_findings():
    kernel, reference = doctor.verdict(ENOUGH)
    assert (kernel.status, reference.status) == (Status.OK, Status.OK)
    for name in doctor.KERNEL_NEEDS:
        lacking = [missing(each.name, "", "") if each.name == name else each for each in ENOUGH]
        assert doctor.verdict(lacking)[0].status is Status.MISSING
    without = [each for each in ENOUGH if each.name != "CAP_BPF"]
    assert "CAP_BPF" in doctor.verdict(without)[0].detail
    assert doctor.verdict([*without, ok("CAP_SYS_ADMIN", "")])[0].status is Status.OK


def test_without_privileges_the_python_plane_runs_in_a_user_namespace():
    poor = [missing(each.name, "", "") if each.name.startswith("CAP_") else each for each in ENOUGH]
    kernel, reference = doctor.verdict(poor)
    assert kernel.status is Status.MISSING
    assert reference.status is Status.WARN
    assert "user namespace" in reference.detail
    poorer = [each for each in poor if each.name != "user-namespaces"]
    assert doctor.verdict(poorer)[1].status is Status.MISSING


def test_what_could_not_be_tried_counts_as_missing():
    assert doctor.verdict([each for each in ENOUGH if each.name != "veth"])[0].status is Status.MISSING
    assert doctor.verdict([each for each in ENOUGH if each.name != "packet-socket"])[1].status is Status.MISSING


def test_the_exit_status_is_1_if_no_plane_can_run(monkeypatch):
    monkeypatch.setattr(doctor, "machine", lambda: [missing("kernel", "none", "get one")])
    result = run("doctor")
    assert result.exit_code == 1
    assert "MISSING kernel" in result.stdout
    assert "→ get one" in result.stdout
    assert json.loads(run("doctor", "--json").stdout)["ok"] is False


def test_a_configuration_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "machine", lambda: ENOUGH)
    monkeypatch.setattr(probe, "mtu", {"eth1": 1400, "eth0": 1500}.get)
    config = tmp_path / "gateway.toml"
    config.write_text(FIGURE_1.replace("[gateway]\n", "[gateway]\ntunnel_mtu = 1480\n"))
    result = run("doctor", config)
    assert "1400 is too small for gateway.tunnel_mtu = 1480" in result.stdout
    assert "set gateway.tunnel_mtu = 1380" in result.stdout
    assert "ip address add 10.0.0.1" in result.stdout
    assert result.exit_code == 1
    assert json.loads(run("doctor", "--json", config).stdout)["ok"] is False
    monkeypatch.setattr(probe, "mtu", {"eth1": 1500}.get)
    result = run("doctor", config)
    assert "1500 carries gateway.tunnel_mtu = 1480" in result.stdout
    assert "interface eth0" in result.stdout
    assert "is not there" in result.stdout


def test_a_wrong_configuration_is_refused(tmp_path):
    assert "cannot be read" in refused("doctor", tmp_path / "nothing.toml")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_without_root_it_says_what_is_missing():
    command = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
        sys.executable,
        "-m",
        "isthmus",
        "doctor",
    ]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    if "Permission denied" in ended.stderr or "No module named isthmus" in ended.stderr:
        pytest.skip("the sources cannot be read by others")
    assert "Traceback" not in ended.stderr
    assert "MISSING CAP_NET_ADMIN" in ended.stdout
    assert "MISSING plane kernel" in ended.stdout
    assert ended.returncode == (1 if "MISSING plane reference" in ended.stdout else 0)
