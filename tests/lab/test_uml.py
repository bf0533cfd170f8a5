# SPDX-License-Identifier: BSD-3-Clause
"""User Mode Linux guests: they boot, do as told, and are gone afterwards; and what strongSwan is told in them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus.border.ranges import Ranges
from isthmus.lab import strongswan, uml
from isthmus.lab.lab import standing
from isthmus.lab.node import wait_until
from isthmus.lab.scenario import Setting, play
from isthmus.lab.scenarios import incoming_ike, ipsec
from isthmus.lab.topology import Cable, End, LabError, Network, NodePlan
from isthmus.lab.uml import Plug
from lab.machine import PLAINLY, ROOT, environment, isthmus

SMALL = Network(
    name="test-guest",
    nodes=(NodePlan(name="outside"), NodePlan(name="guests")),
    cables=(
        Cable(
            End(node="outside", interface="eth0", addresses=("10.0.0.1/24",), offload=False),
            End(node="guests", interface="inside", offload=False),
        ),
        uml.management("guests"),
    ),
)
PLUGS = (Plug(machine="inside", interface="inside", address="10.0.0.2/24"),)
KEEPER = """
import sys, time
sys.path.insert(0, {tests!r})
from lab.test_uml import PLUGS, SMALL
from isthmus.lab import uml
from isthmus.lab.lab import standing
with standing(SMALL) as lab:
    uml.boot(lab["guests"], PLUGS)
    print("up", flush=True)
    time.sleep(300)
"""
needs_uml = pytest.mark.skipif(bool(uml.missing()), reason=uml.missing())


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
@needs_uml
def test_a_guest_does_as_it_is_told():
    with standing(SMALL) as lab:
        machine = uml.boot(lab["guests"], PLUGS, ("ipip",))["inside"]
        assert machine.run("uname", "-r").stdout.strip() in _kernels()
        with pytest.raises(LabError, match=r"inside: sh -c exit 3: exit code 3"):
            machine.run("sh", "-c", "exit 3")
        with pytest.raises(LabError, match=r"did not end within 0\.5 seconds"):
            machine.run("sleep", "60", seconds=0.5)
        with pytest.raises(LabError, match="there is no machine 'nobody'"):
            uml.Machine("nobody", lab["guests"]).run("true")
        with pytest.raises(LabError, match=r"(?s)ended with exit code 4.*no such luck"):
            machine.start("broken", "sh", "-c", "echo no such luck; exit 4", ready="ready")
        machine.write("/run/there/file", "octets")
        assert machine.run("cat", "/run/there/file").stdout == "octets"
        assert not Path("/run/there").exists()
        assert machine.run("touch", "/etc/written", check=False).returncode != 0
        machine.ip("link add tunnel type ipip local 10.0.0.2 remote 10.0.0.1")
        machine.start("server", "python3", "-m", "http.server", "80", "--directory", "/run/there", ready="Serving")
        page = lab["outside"].run("curl", "--silent", "--max-time", "5", "http://10.0.0.2/file")
        assert page.stdout == "octets"
        assert "GET /file" in machine.said("server", until="GET")
        machine.stop("server")
        assert lab["outside"].run("curl", "--silent", "http://10.0.0.2/file", check=False).returncode != 0


def _kernels() -> list[str]:
    return [each.name for each in Path("/usr/lib/uml/modules").iterdir()]


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@needs_uml
def test_nothing_is_left_of_a_guest_after_a_signal(number):
    process = subprocess.Popen(
        [*PLAINLY, sys.executable, "-c", KEEPER.format(tests=str(ROOT / "tests"))],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "up\n"
        assert _guests()
        process.send_signal(number)
        process.wait(timeout=30)
        if number == signal.SIGKILL:
            assert _guests()
            done = isthmus("lab", "down", "test-guest")
            assert done.returncode == 0, done.stderr
        assert wait_until(lambda: not _guests(), 15)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _guests() -> list[str]:
    """The processes of guests of this lab."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if uml.KERNEL in line and f"/{SMALL.name}/" in line:
                found.append(line)
    return found


@pytest.mark.root
@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("scenario", [ipsec.SCENARIO, incoming_ike.SCENARIO], ids=lambda each: each.name)
def test_what_is_not_installed_is_named_with_its_remedy(scenario, monkeypatch):
    monkeypatch.setattr(uml, "KERNEL", "no-such.uml")
    monkeypatch.setattr(strongswan, "_CHARON", "/no/such/charon")
    result = play(scenario, Setting())
    assert not result.ok
    (check,) = result.checks
    assert "apt-get install user-mode-linux" in check.detail
    assert "apt-get install strongswan-charon strongswan-swanctl" in check.detail


def test_port_selectors_are_aligned_blocks():
    """A kernel policy masks ports: 10000-10063 as one selector would become 9984-10111, and swallow others' ports."""
    selectors = strongswan.selectors("192.0.2.1", Ranges.of((10000, 10063), 7))
    udp = [each for each in selectors if "[17/" in each]
    assert udp == [
        "192.0.2.1/32[17/7-7]",
        "192.0.2.1/32[17/10000-10015]",
        "192.0.2.1/32[17/10016-10047]",
        "192.0.2.1/32[17/10048-10063]",
    ]
    assert [each.replace("[17/", "[6/") for each in udp] == [each for each in selectors if "[6/" in each]
    assert strongswan.selectors("192.0.2.1", Ranges.of((0, 65535)))[0] == "192.0.2.1/32[6/0-65535]"


def test_charon_is_told_what_was_leased():
    text = strongswan.Daemon(port=10000, port_nat_t=10001, spis=(0x10000, 0x1000F)).text()
    for line in ("port = 10000", "port_nat_t = 10001", "spi_min = 0x10000", "spi_max = 0x1000f"):
        assert f"\n {line}\n" in text
    stock = strongswan.Daemon().text()
    assert "port" not in stock
    assert "spi_" not in stock
