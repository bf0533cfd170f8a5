# SPDX-License-Identifier: BSD-3-Clause
"""Where mapping tables come from: a file, and a zone of a real nameserver (seed IPAE 5.1, 8.1; spec 6.3).

::

    v4 192.3.4.1, .5.1, .6.1 ─── west ─── 128.1.1 ─── east ─── dest 201.5.7.250, .8.250
       site 1.213.77.5         a file       │        a zone       site 1.2.2.8
                                        names 128.1.1.53

From milestone R on nothing crosses that is not mapped, so what a table has is what can be reached.
"""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dns.exception
import dns.message

from isthmus.ipae.records import NETWORK
from isthmus.lab.capture import Capture, capturing
from isthmus.lab.lab import Lab
from isthmus.lab.nameserver import PACKAGE, start_nameserver, zone_file
from isthmus.lab.node import ISTHMUS, Daemon, Node, wait_until
from isthmus.lab.privilege import missing_tools
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.topology import OPEN_FORWARDING, LabError, Network, NodePlan, wire
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.transport import Protocol

NAME = "ipae-mapping"
WEST_SITE, EAST_SITE = "1.213.77.5", "1.2.2.8"
ZONE = "map.example."
_NAMES, _WEST, _EAST = "128.1.1.53", "128.1.1.1", "128.1.1.3"
_DEST, _DEST_TOO = "201.5.7.250", "201.5.8.250"
_FIRST, _SECOND, _THIRD = "192.3.4.1", "192.3.5.1", "192.3.6.1"
_NOBODY = ("192.3.9.9", "192.3.10.9")
_FORWARDING = OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"}
_PATIENCE_SECONDS = 15.0
_DNS_PORT = 53

_TABLE = (f"201.5.7.0/24  c{EAST_SITE}",)
_MORE = (f"201.5.0.0/16  c{EAST_SITE}", f"201.5.7.250/32  c{EAST_SITE}")
_WRONG = (*_TABLE, "192.3.0.0/16  c1.9.9.9", "201.5.8.0/33  c1.2.2.8")
"""An own network mapped elsewhere, and a line that is no entry."""
_COMPLETE = (*_TABLE, f"201.5.8.0/24  c{EAST_SITE}")


def network() -> Network:
    """Two sites, a network between them, and the nameserver in there."""
    both = {host: [f"{host}/24" for host in has] for host, has in _HAS.items()}
    inside = {host: [f"{host.rpartition('.')[0]}.9/24" for host in has] for host, has in _HAS.items()}
    return Network(
        name=NAME,
        nodes=(
            NodePlan(name="v4", routes=("default via 192.3.4.9",)),
            NodePlan(name="west", sysctls=_FORWARDING),
            NodePlan(name="core", segment=True),
            NodePlan(name="names"),
            NodePlan(name="east", sysctls=_FORWARDING),
            NodePlan(name="dest", routes=("default via 201.5.7.9",)),
        ),
        cables=(
            wire(("v4", "eth0", *both["v4"]), ("west", "lan0", *inside["v4"])),
            wire(("west", "wan0", f"{_WEST}/24"), ("core", "west")),
            wire(("names", "eth0", f"{_NAMES}/24"), ("core", "names")),
            wire(("east", "wan0", f"{_EAST}/24"), ("core", "east")),
            wire(("east", "lan0", *inside["dest"]), ("dest", "eth0", *both["dest"])),
        ),
    )


_HAS = {"v4": (_FIRST, _SECOND, _THIRD), "dest": (_DEST, _DEST_TOO)}


# --- what is configured -----------------------------------------------------------------------


def _configuration(lab: Lab, setting: Setting, name: str, mapping: str) -> str:
    site, other, end = (WEST_SITE, EAST_SITE, _EAST) if name == "west" else (EAST_SITE, WEST_SITE, _WEST)
    return f"""\
[isthmus]
name = "{name}"
run = "{lab[name].run_directory}"
plane = "{setting.plane}"
[[realm]]
name = "site"
interface = "lan0"
site = "{site}"
[[realm]]
name = "core"
interface = "wan0"
[border]
milestone = "R"
[[border.route]]
to = "{other}"
via = {{ ipae = "{end}" }}
[border.mapping]
{mapping}
"""


def start(lab: Lab, setting: Setting) -> None:
    """Serve the zone, and start both borders."""
    if missing := missing_tools(PACKAGE, "bind9-dnsutils", "iputils-ping"):
        raise LabError(missing)
    _write_table(lab["west"], *_TABLE)
    start_nameserver(lab["names"], _NAMES, {ZONE: _zone_text(lab, 1, f"192.3.4.0/24 c{WEST_SITE}")})
    sources = {
        "west": f'file = "{_table_of(lab["west"])}"',
        "east": f'dns = {{ zone = "{ZONE}", server = "{_NAMES}" }}',
    }
    with ThreadPoolExecutor(len(sources)) as pool:
        list(pool.map(lambda name: lab[name].up(_configuration(lab, setting, name, sources[name])), sources))


def _table_of(node: Node) -> str:
    return str(node.directory / "sites.map")


def _write_table(node: Node, *lines: str, name: str = "sites.map") -> str:
    """Write a mapping file beside the one that is there, rename it over that, and return its name."""
    node.directory.mkdir(parents=True, exist_ok=True)
    path = node.directory / name
    new = path.with_suffix(".new")
    new.write_text("\n".join((*lines, "")), encoding="ascii")
    new.replace(path)
    return str(path)


def _zone_text(lab: Lab, serial: int, *lines: str) -> str:
    """A mapping file as a zone, by the command that makes one; its SOA record has it looked at every second."""
    node = lab["names"]
    table = _write_table(node, f"serial {serial}", *lines, name="zone.map")
    text = node.run(*ISTHMUS, "map", "zone", table, "--origin", ZONE, "--server", "ns.invalid.", "--ttl", "60").stdout
    return re.sub(rf"\({serial} \d+ \d+ ", f"({serial} 1 1 ", text, count=1)


def _serve(lab: Lab, serial: int, *lines: str) -> None:
    """Let the nameserver have another version of the zone."""
    node = lab["names"]
    zone_file(node.directory / "knot", ZONE).write_text(_zone_text(lab, serial, *lines), encoding="ascii")
    os.kill(node.daemons["knot"].pid, signal.SIGHUP)


# --- what must hold: the file -----------------------------------------------------------------


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Change the file, rightly and wrongly; change the zone, rightly and wrongly; end the nameserver."""
    yield _hears(lab["east"], "the zone is fetched at the start", '"serial": 1,')
    yield from _file(lab)
    with capturing(lab["names"], "eth0") as seen:
        yield from _zone(lab)
        yield from _questions(lab, seen)
        yield from _unreachable(lab, seen)


def _file(lab: Lab) -> Iterator[Check]:
    west = lab["west"]
    yield _reached(lab, "v4", _DEST, "by the first file")
    yield _told(lab, "v4", _DEST_TOO, "Destination Net Unknown", "not mapped")
    first, more = _write_table(west, *_TABLE, name="first.map"), _write_table(west, *_MORE, name="more.map")
    shown = west.run(*ISTHMUS, "map", "diff", first, more).stdout.splitlines()
    wanted = [f"+ 201.5.0.0/16 c{EAST_SITE}", f"- 201.5.7.0/24 c{EAST_SITE}", f"+ 201.5.7.250/32 c{EAST_SITE}"]
    yield Check("map diff shows what another file changes", sorted(shown) == sorted(wanted), "; ".join(shown))
    yield _exchanged(lab, more, first)
    yield from _refused(lab)
    _write_table(west, *_COMPLETE)
    yield _hears(west, "a new file is found without being told", f'"entries": {len(_COMPLETE)},')
    yield _reached(lab, "v4", _DEST_TOO, "by the new file")


def _exchanged(lab: Lab, *files: str) -> Check:
    """Exchange the whole table again and again while packets need it; the last of the files is what stays."""
    west, applied = lab["west"], 0
    ping = lab["v4"].start("ping", "ping", "-n", "-i", "0.02", _DEST)
    wait_until(lambda: bool(_answers(ping)), _PATIENCE_SECONDS)
    for file in files * 2:
        answer = west.isthmus("map", "apply", file)
        applied += bool(answer["added"] and answer["removed"])
    before = len(_answers(ping))
    wait_until(lambda: len(_answers(ping)) > before + 2, _PATIENCE_SECONDS)
    ping.stop()
    answers = _answers(ping)
    ok = applied == 4 and len(answers) > before and answers == list(range(1, len(answers) + 1))
    text = f"exchanged {applied} times; {len(answers)} of {answers[-1] if answers else 0} packets answered"
    return Check("map apply exchanges the table under the packets, and none is lost", ok, text)


def _answers(ping: Daemon) -> list[int]:
    """Numbers of the packets that were answered."""
    said = ping.log.read_text(encoding="utf-8", errors="replace")
    return [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=\d+ time=", said)]


def _refused(lab: Lab) -> Iterator[Check]:
    """A file with anything wrong in it: nothing of it counts."""
    west = lab["west"]
    wrong = _write_table(west, *_WRONG, name="wrong.map")
    own = ("--own", "192.3.4.0/24", "--site", WEST_SITE)
    check = west.run(*ISTHMUS, "map", "check", wrong, *own, check=False)
    named = check.returncode == 1 and "192.3.4.0/24" in check.stdout and "/33" in check.stdout
    yield Check("map check names every fault, own networks mapped elsewhere among them", named, _joined(check.stdout))
    done = west.run(*ISTHMUS, "map", "apply", wrong, "--socket", str(west.socket_path), check=False)
    yield Check("map apply refuses it", done.returncode != 0, _joined(done.stdout + done.stderr))
    yield _hears(
        west, "in place of the right one it is refused", f'"source": "{_write_table(west, *_WRONG)}", "problem"'
    )
    after = _table(west)
    origins = [Path(each["name"]).name for each in after["sources"]]
    yield Check("whole: the old table stays", (after["entries"], origins) == (1, ["first.map"]), _sources(after))
    yield _reached(lab, "v4", _DEST, "by the old table")


# --- what must hold: the zone -----------------------------------------------------------------


def _zone(lab: Lab) -> Iterator[Check]:
    east = lab["east"]
    yield _reached(lab, "dest", _FIRST, "by the copy of the zone")
    _serve(lab, 2, f"192.3.4.0/24 c{WEST_SITE}", f"192.3.5.0/24 c{WEST_SITE}")
    yield _hears(east, "a new serial number is seen, and the zone fetched again", '"serial": 2,')
    yield _reached(lab, "dest", _SECOND, "by the new copy")
    lines = (f"192.3.{net}.0/24 c{WEST_SITE}" for net in (4, 5, 6))
    _serve(lab, 3, *lines, "201.5.0.0/16 c1.9.9.9")
    refused = wait_until(lambda: "MAPPING_REFUSED" in _log(east), _PATIENCE_SECONDS)
    why = next((line for line in _log(east).splitlines() if "MAPPING_REFUSED" in line), "nothing")
    row = _table(east)
    ok = refused and "201.5.7.0/24" in why and row["dns"]["serial"] == 2
    yield Check("a zone that maps own networks elsewhere is refused whole", ok, f"{_sources(row)}; {why}")


def _questions(lab: Lab, seen: Capture) -> Iterator[Check]:
    """What the copy does not have is asked for, and packets wait for the answer."""
    east = lab["east"]
    done = lab["dest"].run("ping", "-n", "-c", "3", "-i", "0.02", "-W", "3", _THIRD, check=False)
    counted = _table(east)["dns"]["missed"]
    yield Check(
        "what the copy lacks is asked for, and the packet that was first waits",
        " 3 received" in done.stdout and counted["held"] >= 1,
        f"{_joined(done.stdout.rpartition('---')[2])}; {counted}",
    )
    wait_until(lambda: _asked(seen).total() >= 4, 2)
    yield Check("four questions, one for each number of octets", len(_asked(seen)) == 4, _listed(_asked(seen)))
    yield _told(lab, "dest", _NOBODY[0], "Destination Host Unreachable", "nobody has it")
    wait_until(lambda: _asked(seen).total() >= 8, 2)
    before = _asked(seen)
    yield _told(lab, "dest", _NOBODY[0], "Destination Host Unreachable", "again")
    after = _asked(seen)
    yield Check("that there is none is remembered: nobody is asked again", after == before, _listed(after - before))


def _unreachable(lab: Lab, seen: Capture) -> Iterator[Check]:
    """Without a nameserver everything known goes on."""
    fetched = _fetched(seen)
    yield Check("each new serial number was fetched once, and none besides", len(fetched) == 2, f"{len(fetched)} times")
    lab["names"].daemons["knot"].kill()
    yield _hears(lab["east"], "that the nameserver is gone is told", "MAPPING_UNREACHABLE")
    yield _reached(lab, "dest", _SECOND, "by the copy, without a nameserver")
    yield _reached(lab, "dest", _THIRD, "by the answer, without a nameserver")
    yield _told(lab, "dest", _NOBODY[1], "Destination Host Unreachable", "nobody can be asked")


# --- what was seen ----------------------------------------------------------------------------


def _reached(lab: Lab, host: str, address: str, how: str) -> Check:
    done = lab[host].run("ping", "-n", "-c", "2", "-i", "0.02", "-W", "3", address, check=False)
    ok = " 2 received" in done.stdout and "ttl=62 " in done.stdout
    return Check(f"{host} reaches {address}: {how}", ok, _joined(done.stdout.partition("\n")[2]))


def _told(lab: Lab, host: str, address: str, words: str, why: str) -> Check:
    done = lab[host].run("ping", "-n", "-c", "1", "-W", "3", address, check=False)
    return Check(
        f"{host} is told that {address} is not to be reached: {why}", words in done.stdout, _joined(done.stdout)
    )


def _table(node: Node) -> dict[str, Any]:
    row: dict[str, Any] = node.isthmus("map", "show")[0]
    return row


def _hears(node: Node, name: str, words: str) -> Check:
    """Wait until a daemon has logged something about its table."""

    def lines() -> list[str]:
        return [line for line in _log(node).splitlines() if words in line and '"MAPPING_' in line]

    wait_until(lambda: bool(lines()), _PATIENCE_SECONDS)
    return Check(name, bool(lines()), lines()[0] if lines() else f"nothing about {words}")


def _sources(row: dict[str, Any]) -> str:
    parts = (f"{each['entries']} from {each['name']}, serial {each['serial']}" for each in row["sources"])
    return f"{row['entries']} entries, {row['digest'][:8]}: {'; '.join(parts)}"


def _log(node: Node) -> str:
    return node.daemons["isthmus"].log.read_text(encoding="utf-8", errors="replace")


def _joined(text: str) -> str:
    return " ".join(text.split())[:300]


def _asked(seen: Capture) -> Counter[str]:
    """About which networks the nameserver was asked, by name."""
    names: Counter[str] = Counter()
    for each in tuple(seen.packets):
        view = Ipv4View.parse(each.octets)
        if view.protocol != Protocol.UDP or int.from_bytes(view.payload[2:4], "big") != _DNS_PORT:
            continue
        try:
            question = dns.message.from_wire(bytes(view.payload[8:])).question[0]
        except (dns.exception.DNSException, IndexError):
            continue
        if question.rdtype == NETWORK:
            names[str(question.name)] += 1
    return names


def _fetched(seen: Capture) -> set[bytes]:
    """The ports from which the nameserver was asked for a zone: transfers go by TCP (RFC 5936 §4.1)."""
    views = (Ipv4View.parse(each.octets) for each in tuple(seen.packets))
    segments = (bytes(each.payload) for each in views if each.protocol == Protocol.TCP)
    return {each[:2] for each in segments if int.from_bytes(each[2:4], "big") == _DNS_PORT}


def _listed(asked: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(asked.items())) or "nothing"


SCENARIO = Scenario(
    name=NAME,
    title="A mapping table from a file, and one from the DNS; changed, refused, asked for, and kept",
    shows=("seed IPAE 5.1", "seed IPAE 8.1"),
    network=network(),
    start=start,
    play=play,
    root=True,
)
