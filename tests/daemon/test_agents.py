# SPDX-License-Identifier: BSD-3-Clause
"""Gateway and host daemons with each other, in the seed's Figure 1, when things go wrong."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus.daemon.control import call
from isthmus.lab import figure
from isthmus.lab.lab import standing
from isthmus.lab.node import wait_until
from isthmus.lab.scenario import Setting
from isthmus.lab.topology import LabError

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root"),
]
HERE = (sys.executable, "-m", "isthmus")
AUTO = Setting(plane="auto")


@pytest.fixture
def lab():
    with standing(figure.network(f"t{secrets.token_hex(3)}", hosts=("host-a",))) as made:
        yield made


def up(lab, *, lease=True, transport="udp", state=None, more=""):
    lab["gateway"].up(figure.gateway_configuration(lab, AUTO, state=state, more=more))
    host(lab, lease=lease, transport=transport)


def host(lab, *, lease=True, transport="udp"):
    text = figure.host_configuration(lab, AUTO, "host-a", lease=lease, ports=16)
    lab["host-a"].up(text.replace('near = "private"\n', f'near = "private"\ntransport = "{transport}"\n'))


def leases(lab):
    return lab["gateway"].isthmus("leases")


def held(lab):
    return call(lab["host-a"].socket_path, {"do": "host"})


def interfaces(node):
    return {line.split(": ")[1].partition("@")[0] for line in node.run("ip", "-o", "link").stdout.splitlines()}


def program(lab, *words, check=True):
    return lab["host-a"].run(*HERE, "run", "--socket", str(lab["host-a"].socket_path), *words, check=check)


@pytest.mark.rfc("3102", "1.2")
@pytest.mark.rfc("3102", "3.3")
@pytest.mark.rfc("3103", "3")
@pytest.mark.rfc("3103", "5")
def test_over_tcp_leases_are_held_and_the_registration_outlives_the_connection(lab):
    up(lab, transport="tcp")
    assert wait_until(lambda: len(held(lab)["leases"]) == 1, 10)
    before = leases(lab)
    lab["gateway"].daemons["isthmus"].kill()
    lab["gateway"].up(figure.gateway_configuration(lab, AUTO))
    assert leases(lab) == before
    assert wait_until(lambda: program(lab, "--", "true", check=False).returncode == 0, 15)
    assert leases(lab) == before, "what the program held is given back, the rest stands"


@pytest.mark.rfc("3103", "10.2.2")
def test_a_gateway_that_forgot_everything_is_registered_with_again(lab):
    up(lab, state="memory:")
    assert wait_until(lambda: len(leases(lab)) == 1, 10)
    first = leases(lab)[0]
    lab["gateway"].daemons["isthmus"].stop()
    lab["gateway"].up(figure.gateway_configuration(lab, AUTO, state="memory:"))
    assert leases(lab) == []
    assert program(lab, "--", "true").returncode == 0, "301 makes the host deregister, register and ask again"
    again = leases(lab)
    assert [row["host"] for row in again] == [first["host"]]
    assert again[0]["client_id"] != first["client_id"]
    assert held(lab)["leases"][0]["ports"] == again[0]["ports"]


@pytest.mark.rfc("3103", "10.2.1")
def test_a_host_that_was_killed_gets_rid_of_its_former_self(lab):
    up(lab)
    assert wait_until(lambda: len(leases(lab)) == 1, 10)
    first = leases(lab)[0]
    lab["host-a"].daemons["isthmus"].kill()
    host(lab)
    assert wait_until(lambda: [row["client_id"] for row in leases(lab)] not in ([], [first["client_id"]]), 10)
    assert len(leases(lab)) == 1
    assert leases(lab)[0]["ports"] != first["ports"], "what it had rests first"


def test_a_revoked_lease_ends_at_once_and_what_the_configuration_wants_is_asked_for_again(lab):
    up(lab)
    assert wait_until(lambda: len(leases(lab)) == 1, 10)
    first = leases(lab)[0]
    call(lab["gateway"].socket_path, {"do": "revoke", "host": first["host"], "bind_id": first["bind_id"]})
    assert wait_until(lambda: first not in leases(lab), 15)
    assert wait_until(lambda: len(leases(lab)) == 1, 10)
    assert wait_until(lambda: [row["ports"] for row in held(lab)["leases"]] == [leases(lab)[0]["ports"]], 15)
    past = lab["gateway"].run(
        *HERE, "who-had", f"{figure.SHARED}:{first['ports'].split('-')[0]}", "--json",
        "--socket", str(lab["gateway"].socket_path),
    )  # fmt: skip
    assert json.loads(past.stdout)[0]["ending"] == "revoked"


def test_a_host_waits_for_a_gateway_that_is_not_there_yet(lab):
    host(lab)
    assert held(lab)["leases"] == []
    lab["gateway"].up(figure.gateway_configuration(lab, AUTO))
    assert wait_until(lambda: len(held(lab)["leases"]) == 1, 30)


def test_a_lease_that_cannot_be_made_real_is_given_back_and_asked_for_again(lab):
    lab["host-a"].run("ip", "link", "add", "rsip0p", "type", "bridge")
    up(lab)
    assert wait_until(lambda: "PLANE_FAILED" in lab["host-a"].daemons["isthmus"].tail(), 10)
    assert wait_until(lambda: leases(lab) == [], 15)
    lab["host-a"].run("ip", "link", "delete", "rsip0p")
    assert wait_until(lambda: len(held(lab)["leases"]) == 1, 10)


def test_a_program_on_a_whole_address_has_every_port(lab):
    up(lab, lease=False)
    shown = program(lab, "--whole", "--show", "--", "cat", "/proc/sys/net/ipv4/ip_local_port_range")
    assert "149.112.240." in shown.stderr
    assert shown.stdout.split() == ["32768", "60999"]
    assert leases(lab) == []


@pytest.mark.rfc("3102", "3.1")
def test_a_program_draws_its_ports_from_the_lease_and_has_the_tunnels_mtu(lab):
    up(lab, lease=False)
    script = "cat /proc/sys/net/ipv4/ip_local_port_range; ip route show default; ip -4 -o addr show dev rsip0"
    shown = program(lab, "--ports", "32", "--show", "--", "sh", "-c", script)
    first, last = shown.stderr.split()[-1].split("-")
    assert int(last) - int(first) == 31
    assert shown.stdout.split()[:2] == [first, last]
    assert "mtu 1480" in shown.stdout
    assert f"inet {figure.SHARED}/32" in shown.stdout


def test_without_a_daemon_run_brings_its_own_and_leaves_nothing(lab):
    lab["gateway"].up(figure.gateway_configuration(lab, AUTO))
    script = "ip netns identify; exit 7"
    done = lab["host-a"].run(*HERE, "run", "--gateway", figure.GATEWAY_NEAR, "--", "sh", "-c", script, check=False)
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith("isthmus-"), "the program was in a namespace of its own"
    assert leases(lab) == []
    assert not Path("/run/netns", done.stdout.strip()).exists()
    assert interfaces(lab["host-a"]) == {"lo", "eth0"}
    assert "isthmus-run-" not in subprocess.run(["mount"], capture_output=True, text=True, check=True).stdout


def test_a_second_agent_on_the_interface_is_refused_and_the_first_goes_on(lab):
    up(lab)
    assert wait_until(lambda: len(held(lab)["leases"]) == 1, 10)
    before = held(lab)["leases"]
    refused = lab["host-a"].run(*HERE, "run", "--gateway", figure.GATEWAY_NEAR, "--", "true", check=False)
    assert refused.returncode == 2
    assert "serves interface 'eth0'" in refused.stderr
    assert held(lab)["leases"] == before
    program(lab, "--", "ping", "-c", "1", "-W", "5", figure.SERVER)


def test_from_another_network_namespace_run_is_refused(lab):
    up(lab, lease=False)
    socket = str(lab["host-a"].socket_path)
    refused = lab["gateway"].run(*HERE, "run", "--socket", socket, "--", "true", check=False)
    assert refused.returncode == 2
    assert "another network namespace" in refused.stderr


ASKING = """
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.settimeout(5)
for line in sys.stdin:
    end.sendto(b"x", (sys.argv[1], 5353))
    print(len(end.recv(10)), flush=True)
"""
ECHO = """
import socket
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.bind(("0.0.0.0", 5353))
print("ready", flush=True)
while True:
    data, peer = end.recvfrom(2048)
    end.sendto(data, peer)
"""


def test_the_host_hears_that_a_programs_device_has_moved_into_its_namespace(lab):
    """Then packets for the program no longer go by the transmit side of the end that the host has."""
    up(lab, lease=False)
    lab["server"].start("echo", sys.executable, "-c", ECHO, ready="ready")
    words = (*HERE, "run", "--socket", str(lab["host-a"].socket_path), "--", sys.executable, "-c", ASKING)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}

    def transmitted_for_an_answer():
        before = transmitted(lab["host-a"])
        program.stdin.write("\n")
        program.stdin.flush()
        assert program.stdout.readline() == "1\n"
        return transmitted(lab["host-a"]) - before

    with subprocess.Popen(lab["host-a"].command(*words, figure.SERVER), **pipes) as program:
        try:
            assert wait_until(lambda: transmitted_for_an_answer() == 0, 15)
        finally:
            program.stdin.close()
            program.wait(timeout=10)


def transmitted(node):
    """Packets sent into devices of programs."""
    shown = json.loads(node.run("ip", "-j", "-s", "link").stdout)
    ends = [each for each in shown if each["ifname"].startswith("ist") and each.get("link_netnsid") is not None]
    return sum(each["stats64"]["tx"]["packets"] for each in ends)


def test_a_program_that_there_is_not_is_said_and_the_lease_given_back(lab):
    up(lab, lease=False)
    socket = str(lab["host-a"].socket_path)
    done = lab["host-a"].run(*HERE, "run", "--socket", socket, "--", "/no/such/program", check=False)
    assert done.returncode == 127
    assert done.stderr.strip() == "isthmus: /no/such/program: No such file or directory"
    assert wait_until(lambda: leases(lab) == [], 10)


def test_what_a_killed_run_left_is_removed_by_the_next_and_one_that_runs_is_let_alone(lab):
    up(lab, lease=False)
    socket = str(lab["host-a"].socket_path)
    words = (*HERE, "run", "--socket", socket, "--", "sh", "-c", "ip netns identify; exec sleep 60")
    first = lab["host-a"].start("first", *words, ready="isthmus-")
    killed = Path("/run/netns", first.tail().split()[-1])
    assert killed.exists()
    first.process.kill()
    first.process.wait(timeout=10)
    second = lab["host-a"].start("second", *words, ready="isthmus-")
    assert not killed.exists()
    program(lab, "--", "true")
    assert Path("/run/netns", second.tail().split()[-1]).exists(), "the second one's"


def test_a_gateway_that_does_not_answer_is_said_plainly(lab):
    with pytest.raises(LabError, match=r"does not answer|did not answer|no answer|not registered"):
        lab["host-a"].run(*HERE, "run", "--gateway", figure.GATEWAY_NEAR, "--", "true", seconds=60)


@pytest.mark.rfc("3102", "3.1")
def test_no_arp_for_a_leased_address(lab):
    up(lab)
    assert wait_until(lambda: len(held(lab)["leases"]) == 1, 10)
    asked = lab["gateway"].run("sh", "-c", f"ip route add {figure.SHARED}/32 dev lan0 table 77 2>/dev/null; "
                               f"arping -c 2 -w 3 -I lan0 {figure.SHARED} 2>&1 || true")  # fmt: skip
    settings = lab["host-a"].run("cat", "/proc/sys/net/ipv4/conf/eth0/arp_ignore").stdout.strip()
    assert settings == "1"
    assert "reply from" not in asked.stdout.lower()


def test_a_wrong_configuration_changes_nothing(lab):
    node = lab["gateway"]
    path = node.directory / "wrong.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(figure.gateway_configuration(lab, AUTO).replace("10000-19999", "10000-99999"), encoding="utf-8")
    links = node.run("ip", "-o", "link").stdout
    done = node.run(*HERE, "up", str(path), check=False)
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert "gateway.pool[0].ports" in done.stderr
    assert "Traceback" not in done.stderr
    assert node.run("ip", "-o", "link").stdout == links
    path.write_text(figure.gateway_configuration(lab, AUTO).replace('"wan0"', '"wan7"'), encoding="utf-8")
    done = node.run(*HERE, "up", str(path), check=False)
    assert done.returncode == 2
    assert "wan7" in done.stderr
    assert "Traceback" not in done.stderr
    assert node.run("ip", "-o", "link").stdout == links, "a start that fails takes back what it made"


@pytest.mark.rfc("3102", "3.1")
def test_the_machines_programs_draw_from_its_lease_and_get_back_what_they_had(lab):
    sysctls = ["cat", *(f"/proc/sys/net/ipv4/ip_{each}" for each in ("local_port_range", "local_reserved_ports"))]
    before = lab["host-a"].run(*sysctls).stdout
    up(lab)
    assert wait_until(lambda: len(held(lab)["leases"]) == 1, 10)
    first, last = held(lab)["leases"][0]["ports"].split("-")
    assert wait_until(lambda: lab["host-a"].run(*sysctls).stdout.split() == [first, last], 15)
    lab["host-a"].daemons["isthmus"].kill()
    host(lab)
    assert wait_until(lambda: len(held(lab)["leases"]) == 1, 10)
    lab["host-a"].daemons["isthmus"].stop()
    assert lab["host-a"].run(*sysctls).stdout == before, "also after a daemon was killed in between"


@pytest.mark.rfc("3103", "10.2.2")
def test_packets_to_a_gateway_that_forgot_everything_bring_the_lease_back(lab):
    up(lab, state="memory:")
    assert wait_until(lambda: len(held(lab)["leases"]) == 1, 10)
    first = held(lab)["client_id"]
    lab["gateway"].daemons["isthmus"].stop()
    lab["gateway"].up(figure.gateway_configuration(lab, AUTO, state="memory:"))

    def knock():
        lab["host-a"].run("bash", "-c", f"echo > /dev/udp/{figure.SERVER}/9", check=False)
        return len(leases(lab)) == 1

    assert wait_until(knock, 15, every=0.5), "301 at RSIP's own port makes the host ask, and register again"
    assert wait_until(lambda: held(lab)["client_id"] not in (0, first), 15)
