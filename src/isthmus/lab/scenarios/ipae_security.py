# SPDX-License-Identifier: BSD-3-Clause
"""What borders of SIP sites do not let through, while they go on with their work (spec 9.4).

::

    v4  192.3.4.1 ─┐                       stranger 128.9.9.9
                   ├─ west ── 128.1.1 ─────── core ─────── 128.2.1 ── east ── dest 201.5.7.250
    sip 192.3.4.3 ─┘

Site 1.213.77.5 is on the left, 1.2.2.8 on the right. The stranger can send IPAE datagrams to ``west`` like anybody.
The borders do not agree where site 1.9.9.9 is: each takes it to be behind the other.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from isthmus.address import Address
from isthmus.border.verdict import Reason
from isthmus.lab.capture import capturing
from isthmus.lab.configuration import general, mapping, realm, route, table
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS, Daemon, wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.stock import start_web
from isthmus.lab.topology import OPEN_FORWARDING, LabError, Network, NodePlan, wire
from isthmus.lab.traffic import check_sums, check_tcp
from isthmus.wire.icmp import Unreachable, fragmentation_needed, unreachable
from isthmus.wire.ipv4 import Ipv4Header
from isthmus.wire.sip.header import SipHeader
from isthmus.wire.sip.ipae import PROTOCOL
from isthmus.wire.sip.option import SOURCE_ROUTE, SourceRoute
from isthmus.wire.transport import Protocol

NAME = "ipae-security"
FLOOD = 300
ERRORS_A_SECOND = 10
"""How many one system is told (spec 6.4); as many again may come at once."""
_HERE, _THERE, _NOWHERE = "1.213.77.5", "1.2.2.8", "1.9.9.9"
_V4, _SIP, _NEAR, _DEST, _STRANGER = "192.3.4.1", "192.3.4.3", "192.3.4.9", "201.5.7.250", "128.9.9.9"
_WEST, _EAST = "128.1.1.1", "128.2.1.2"
_BEYOND = "99.1.0.1"
_FORWARDING = OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"}
_SPOOFED = b"spoofed"
_UDP = struct.pack("!HHHH", 49152, 9, 8 + len(_SPOOFED), 0) + _SPOOFED


def network() -> Network:
    """Two sites, what is between them, and somebody there."""
    return Network(
        name=NAME,
        nodes=(
            NodePlan(name="v4", routes=(f"default via {_NEAR}",)),
            NodePlan(name="sip"),
            NodePlan(name="lan", segment=True),
            NodePlan(name="west", routes=("default via 128.1.1.2",), sysctls=_FORWARDING),
            NodePlan(
                name="core",
                routes=("192.3.4.0/24 via 128.1.1.1", "201.5.7.0/24 via 128.2.1.2"),
                sysctls=_FORWARDING,
            ),
            NodePlan(name="stranger", routes=("default via 128.9.9.1",)),
            NodePlan(name="east", routes=("default via 128.2.1.1",), sysctls=_FORWARDING),
            NodePlan(name="dest", routes=("default via 201.5.7.9",)),
        ),
        cables=(
            wire(("v4", "eth0", f"{_V4}/24"), ("lan", "v4")),
            wire(("sip", "eth0", f"{_SIP}/24"), ("lan", "sip")),
            wire(("west", "lan0", f"{_NEAR}/24"), ("lan", "west")),
            wire(("west", "wan0", f"{_WEST}/24"), ("core", "left0", "128.1.1.2/24")),
            wire(("core", "right0", "128.2.1.1/24"), ("east", "wan0", f"{_EAST}/24")),
            wire(("core", "aside0", "128.9.9.1/24"), ("stranger", "eth0", f"{_STRANGER}/24")),
            wire(("east", "lan0", "201.5.7.9/24"), ("dest", "eth0", f"{_DEST}/24")),
        ),
    )


# --- configuration ----------------------------------------------------------------------------


def _border(lab: Lab, setting: Setting, name: str, networks: str) -> str:
    west, node = name == "west", lab[name]
    site, other = (_HERE, _THERE) if west else (_THERE, _HERE)
    near, end, remote = (_NEAR, _WEST, _EAST) if west else ("201.5.7.9", _EAST, _WEST)
    parts = [
        general(node, setting),
        realm("lan", "lan0", site),
        realm("cloud", "wan0"),
        table("[border]", address=f"{site}/{near}", tunnel_ends=[end]),
        mapping(node, networks, "lan"),
        route(site, "1", translate="lan"),
        route(site, "0", native="lan"),
        route(other, ipae=remote, realm="cloud"),
        route(_NOWHERE, ipae=remote, realm="cloud"),
        route("default", ipae="implicit", realm="cloud"),
    ]
    return "".join(parts)


_TO_EAST = f"201.5.7.0/24 c{_THERE}\n99.1.0.0/16 c{_NOWHERE}\n"
_TO_WEST = f"192.3.4.0/24 c{_HERE}\n"
_OWN_ELSEWHERE = f"192.3.0.0/16 c{_THERE}\n"
"A table that would send what is for west's own site to east."


def start(lab: Lab, setting: Setting) -> None:
    """Start the borders, the SIP-only host and a server."""
    host = general(lab["sip"], setting) + realm("link", "eth0", _HERE)
    host += table("[node]", address=f"{_HERE}/{_SIP}", profile="sip-only", near="link", border=_NEAR)
    texts = {
        "west": _border(lab, setting, "west", _TO_EAST),
        "east": _border(lab, setting, "east", _TO_WEST),
        "sip": host,
    }
    with ThreadPoolExecutor(len(texts)) as pool:
        list(pool.map(lambda name: lab[name].up(texts[name]), texts))
    start_web(lab["dest"], ipv6=False)


# --- what is refused --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Misuse:
    """A packet that must not get through."""

    what: str
    reason: Reason
    packet: bytes
    "What the stranger sends to west."
    protocol: int = PROTOCOL


def sip(src: str, dst: str, payload: bytes = _UDP, kind: int = Protocol.UDP, hop_limit: int = 64) -> bytes:
    """Write a SIP packet."""
    header = SipHeader(
        payload_length=len(payload),
        payload_type=kind,
        hop_limit=hop_limit,
        src=Address.parse_sip(src),
        dst=Address.parse_sip(dst),
    )
    return header.emit() + payload


def misuses() -> tuple[Misuse, ...]:
    """What a stranger can try; his own SIP address is above board."""
    own, victim, honest = f"{_HERE}/{_SIP}", f"c{_HERE}/{_V4}", f"1.7.7.7/{_STRANGER}"
    route = SourceRoute(addresses=(Address.parse_sip(victim),), next_address=0, payload_type=Protocol.UDP)
    nested = sip(honest, victim, sip(honest, victim), PROTOCOL)
    return (
        Misuse(
            what="a source within the site, from outside",
            reason=Reason.SITE_SOURCE_OUTSIDE,
            packet=sip(own, victim),
        ),
        Misuse(
            what="a source of another site, not by its tunnel",
            reason=Reason.WRONG_WAY,
            packet=sip(f"c{_THERE}/{_DEST}", victim),
        ),
        Misuse(
            what="a source route of a stranger",
            reason=Reason.SOURCE_ROUTE,
            packet=sip(honest, f"{_HERE}/{_NEAR}", route.emit() + _UDP, SOURCE_ROUTE),
        ),
        Misuse(
            what="a group",
            reason=Reason.FORBIDDEN_SIP_ADDRESS,
            packet=sip(honest, "7F0E:0000:0000:0005"),
        ),
        Misuse(what="IPAE within IPAE", reason=Reason.NOT_SIP, packet=nested),
        Misuse(what="a datagram longer than its packet", reason=Reason.NOT_SIP, packet=sip(own, victim) + bytes(4)),
        Misuse(
            what="an error about what was never sent",
            reason=Reason.FORGED_ERROR,
            packet=fragmentation_needed(_never_sent("128.44.4.4"), 600),
            protocol=Protocol.ICMP,
        ),
        Misuse(
            what="an error about the tunnel in use, by guess",
            reason=Reason.FORGED_ERROR,
            packet=unreachable(_never_sent(_EAST)[:28], Unreachable.HOST),
            protocol=Protocol.ICMP,
        ),
    )


def _never_sent(end: str) -> bytes:
    """The beginning of a datagram that west did not send to an IPAE system, as an error quotes it."""
    packet = sip(f"c{_HERE}/{_V4}", f"c{_THERE}/{_DEST}", bytes(1400))
    header = Ipv4Header(
        total_length=20 + len(packet),
        identification=60_000,
        df=True,
        ttl=60,
        protocol=PROTOCOL,
        src=Address.parse(_WEST),
        dst=Address.parse(end),
    )
    return header.emit() + packet[:64]


# --- play -------------------------------------------------------------------------------------


def play(lab: Lab, setting: Setting) -> Iterator[Check]:
    """Do everything that is forbidden, while a ping runs that must not notice."""
    ping = lab["v4"].start("ping", "ping", "-n", "-i", "0.2", "-W", "2", _DEST, ready="64 bytes")
    with capturing(lab["v4"], "eth0") as near, capturing(lab["dest"], "eth0") as far:
        yield from _refused(lab)
        yield from _loop(lab)
        yield _not_allowed(lab)
        yield _ipv6_passes(lab)
        yield from _own_network(lab)
        yield from _flood(lab)
        yield check_tcp(lab["v4"], _DEST, "meanwhile")
        leaked = [each for each in (*near.packets, *far.packets) if _SPOOFED in each.octets]
    yield Check("nothing of it reached a host", not leaked, f"{len(leaked)} packets seen there")
    yield _uninterrupted(ping)
    yield check_sums(lab["v4"], lab["dest"])
    yield _refused_at_start(lab, setting)


def _uninterrupted(ping: Daemon) -> Check:
    """Every request up to the last answer was answered."""
    ping.process.send_signal(signal.SIGINT)
    ping.process.wait(timeout=10)
    said = ping.log.read_text(encoding="utf-8")
    seen = [int(each) for each in re.findall(r"bytes from .* icmp_seq=(\d+) ", said)]
    ok = len(seen) > 1 and seen == list(range(1, len(seen) + 1))
    return Check("a ping that runs meanwhile loses nothing", ok, f"{len(seen)} answers, the last to {max(seen)}")


def _counts(lab: Lab, name: str = "west") -> Counter[str]:
    return Counter(lab[name].isthmus("counters"))


def _refused(lab: Lab) -> Iterator[Check]:
    """Each is dropped, counted by its own counter, and explained."""
    tried = misuses()
    wanted = Counter(each.reason.name for each in tried)
    before = _counts(lab)
    for each in tried:
        lab["stranger"].send_raw(each.protocol, _WEST, each.packet)
    counted: Counter[str] = Counter()

    def all_counted() -> bool:
        counted.clear()
        counted.update(_counts(lab) - before)
        return all(counted[name] >= number for name, number in wanted.items())

    wait_until(all_counted, 5)
    known = {each["name"] for each in json.loads(lab["v4"].run(*ISTHMUS, "explain", "--json").stdout)}
    for each in tried:
        name = each.reason.name
        ok = counted[name] == wanted[name] and name in known
        yield Check(f"{each.what}: dropped, counted, explained", ok, f"{name} counted {counted[name]}")
    ways = lab["west"].isthmus("tunnels")
    yield Check("forged errors taught nothing", not ways, str(ways))


def _loop(lab: Lab) -> Iterator[Check]:
    """Two borders that each take the other for the way: the second does not send back (spec 9.4)."""
    before = _counts(lab, "east")["LOOP"]
    lab["v4"].run("ping", "-n", "-c", "1", "-W", "0.3", _BEYOND, check=False)
    wait_until(lambda: _counts(lab, "east")["LOOP"] > before, 5)
    counted = _counts(lab, "east")["LOOP"] - before
    yield Check("a packet between two borders that disagree goes once, and not back", counted == 1, f"LOOP {counted}")


def _not_allowed(lab: Lab) -> Check:
    """An IPv4 packet comes to a SIP-only host."""
    before = _counts(lab, "sip")["NOT_ALLOWED_HERE"]
    done = lab["v4"].run("ping", "-n", "-c", "1", "-W", "0.3", _SIP, check=False)
    wait_until(lambda: _counts(lab, "sip")["NOT_ALLOWED_HERE"] > before, 5)
    counted = _counts(lab, "sip")["NOT_ALLOWED_HERE"] - before
    ok = counted == 1 and "100% packet loss" in done.stdout
    return Check("an IPv4 packet to a SIP-only host is refused", ok, f"NOT_ALLOWED_HERE counted {counted}")


def _ipv6_passes(lab: Lab) -> Check:
    """Protocol 41 is IPv6's today: by its lengths it is known, and left to the machine (spec 9.2)."""
    packet = struct.pack("!IHBB", 6 << 28, len(_UDP), 59, 64) + bytes(15) + b"\1" + bytes(15) + b"\1" + _UDP
    with lab["west"].inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, PROTOCOL)) as machine:
        machine.settimeout(5)
        lab["stranger"].send_raw(PROTOCOL, _WEST, packet)
        try:
            seen = machine.recv(65535)[20:]
        except TimeoutError:
            seen = b""
    return Check("IPv6 in IPv4 comes to the machine as it is", seen == packet, f"{len(seen)} octets")


def _own_network(lab: Lab) -> Iterator[Check]:
    """A table that maps our own network elsewhere is refused whole, and the one that stands stays (spec 9.4)."""
    west = lab["west"]
    path = west.directory / "own.txt"
    path.write_text(_OWN_ELSEWHERE + _TO_EAST, encoding="ascii")
    done = west.run(*ISTHMUS, "map", "apply", str(path), "--socket", str(west.socket_path), check=False)
    ok = done.returncode != 0 and _V4.rpartition(".")[0] in done.stderr
    yield Check("map apply refuses a table with our own network", ok, " ".join(done.stderr.split())[:200])
    found = west.isthmus("map", "show", _DEST)[0]["found"]
    yield Check("and the table stays", found is not None and found["prefix"] == "201.5.7.0/24", str(found))


def _flood(lab: Lab) -> Iterator[Check]:
    """A stranger asks for more errors than he is told."""
    before, began = _counts(lab), time.monotonic()
    packet = sip(f"1.7.7.7/{_STRANGER}", f"c{_HERE}/{_V4}", hop_limit=1)
    lab["stranger"].send_raw(PROTOCOL, _WEST, *[packet] * FLOOD)
    after: Counter[str] = Counter()

    def all_counted() -> bool:
        after.clear()
        after.update(_counts(lab) - before)
        return after["REPLIED"] + after["RELAY_LIMIT"] >= FLOOD

    wait_until(all_counted, 10)
    told, silent = after["REPLIED"], after["RELAY_LIMIT"]
    most = ERRORS_A_SECOND * (2 + time.monotonic() - began)
    ok = told + silent == FLOOD and 0 < told <= most
    text = f"{told} answers, RELAY_LIMIT counted {silent}, of {FLOOD}"
    yield Check("a flood is counted whole and answered at a limited rate", ok, text)


def _refused_at_start(lab: Lab, setting: Setting) -> Check:
    """A border whose file has such a table does not start."""
    lab["west"].daemons["isthmus"].stop()
    said = "it started"
    try:
        lab["west"].up(_border(lab, setting, "west", _OWN_ELSEWHERE))
    except LabError as error:
        said = str(error)
    return Check("a border with such a table does not start", "192.3.0.0/16" in said, " ".join(said.split())[-300:])


SCENARIO = Scenario(
    name=NAME,
    title="Spoofed sources, loops, forged errors and floods at the borders of SIP sites are refused and counted",
    shows=("seed IPAE 4.3", "seed IPAE 5.1", "seed IPAE 5.3", "RFC 8507 4.3", "RFC 8507 6", "RFC 1812 4.3.2.8"),
    network=network(),
    start=start,
    play=play,
    root=True,
)
