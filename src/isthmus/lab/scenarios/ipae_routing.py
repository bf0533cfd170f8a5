# SPDX-License-Identifier: BSD-3-Clause
"""Three border routers in a triangle whose SIP routes come from BIRD; a link fails, and heals (spec 6.5).

BIRD speaks Babel on links of SIP alone, with prefixes of IPv6 that carry SIP prefixes, and writes what it has chosen
into a table of the kernel that no rule leads to. There isthmus reads it. The link between a and b is a segment that
stops to carry without anybody's interface going down: nobody knows but by Babel.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

from isthmus.address import Address
from isthmus.lab.bird import TABLE, birdc, carried, entered, learned_routes, start_bird
from isthmus.lab.capture import Capture, capturing
from isthmus.lab.lab import Lab
from isthmus.lab.node import Node, wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.topology import OPEN_FORWARDING, LabError, Network, NodePlan, wire
from isthmus.lab.traffic import check_ping
from isthmus.wire.transport import Protocol

NAME = "ipae-routing"
BETWEEN = "between"
"""The segment that a and b share."""
_CONVERGED_SECONDS = 30.0
_ATTEMPTS = 3
_OCTETS = 8000
_ECHO_PORT = 7
_FRAGMENT = 44
"Payload type of the fragmentation header."


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A site with its border router, and one host that knows IPv4 only."""

    name: str
    site: str
    network: str
    host: str
    gateway: str
    neighbours: tuple[tuple[str, str], ...]
    "The other routers, and our address on the link to each; the interface is called like the router, with 0."


A = Place(
    name="a",
    site="1.213.77.5",
    network="192.3.4.0/24",
    host="192.3.4.1",
    gateway="192.3.4.2",
    neighbours=(("b", "128.1.2.1"), ("c", "128.1.3.1")),
)
B = Place(
    name="b",
    site="1.2.2.8",
    network="201.5.7.0/24",
    host="201.5.7.250",
    gateway="201.5.7.9",
    neighbours=(("a", "128.1.2.2"), ("c", "128.2.3.2")),
)
C = Place(
    name="c",
    site="1.3.1.1",
    network="198.1.3.0/24",
    host="198.1.3.1",
    gateway="198.1.3.9",
    neighbours=(("a", "128.1.3.3"), ("b", "128.2.3.3")),
)
PLACES = (A, B, C)
STOLEN = f"{A.site}/192.3.4.0/56"
"""What c says it has, and a knows better."""
_DIRECT, _AROUND = "directly", "around by c"


def network() -> Network:
    """The triangle, a host behind each corner, and a segment in the middle of one side."""
    nodes = [NodePlan(name=BETWEEN, segment=True)]
    cables = []
    for place in PLACES:
        nodes.append(NodePlan(name=place.name, sysctls=_sysctls(place)))
        nodes.append(NodePlan(name=f"host-{place.name}", routes=(f"default via {place.gateway}",)))
        lan = (place.name, "lan0", f"{place.gateway}/24")
        cables.append(wire(lan, (f"host-{place.name}", "eth0", f"{place.host}/24")))
    cables += [
        wire(_end(A, "b"), (BETWEEN, "a")),
        wire(_end(B, "a"), (BETWEEN, "b")),
        wire(_end(A, "c"), _end(C, "a")),
        wire(_end(B, "c"), _end(C, "b")),
    ]
    return Network(name=NAME, nodes=tuple(nodes), cables=tuple(cables))


def _end(place: Place, other: str) -> tuple[str, ...]:
    address = dict(place.neighbours)[other]
    return place.name, f"{other}0", f"{address}/24", f"fe80::{address}/64"


def _sysctls(place: Place) -> dict[str, str]:
    """IPv4 is forwarded, IPv6 is not; the one link-local address of a link is ours (``addr_gen_mode`` none)."""
    sysctls = {**OPEN_FORWARDING, "net.ipv4.ip_forward": "1", "net.ipv6.conf.all.disable_ipv6": "0"}
    sysctls["net.ipv6.conf.default.disable_ipv6"] = "0"
    for other, _ in place.neighbours:
        conf = f"net.ipv6.conf.{other}0"
        sysctls |= {f"{conf}.addr_gen_mode": "1", f"{conf}.accept_dad": "0"}
    return sysctls


# --- the daemons ------------------------------------------------------------------------------


def start(lab: Lab, setting: Setting) -> None:
    """Start BIRD and isthmus at every corner."""
    for place in PLACES:
        start_bird(lab[place.name], place.gateway, _bird(place), learned="source = RTS_BABEL")
    for place in PLACES:
        lab[place.name].up(_configuration(place, lab[place.name], setting))


def _bird(place: Place) -> str:
    links = ", ".join(f'"{other}0"' for other, _ in place.neighbours)
    return f"""\
protocol static own {{ ipv6; route {carried(place.site)} unreachable; }}
protocol static theft {{ disabled; ipv6; route {carried(STOLEN)} unreachable; }}
protocol babel sip {{
  ipv6 {{ import all; export where source = RTS_STATIC || source = RTS_BABEL; }};
  interface {links} {{ type wired; hello interval 200 ms; update interval 2 s; }};
}}
"""


def _configuration(place: Place, node: Node, setting: Setting) -> str:
    others = [each for each in PLACES if each is not place]
    path = node.directory / "map.txt"
    path.write_text("".join(f"{each.network}  c{each.site}\n" for each in others), encoding="ascii")
    links = "".join(f'[[realm]]\nname = "to-{other}"\ninterface = "{other}0"\n\n' for other, _ in place.neighbours)
    return f"""\
[isthmus]
name = "{node.name}"
run = "{node.run_directory}"
plane = "{setting.plane}"

[[realm]]
name = "site"
interface = "lan0"
site = "{place.site}"

{links}\
[border]
address = "{place.site}/{place.gateway}"

[border.learn]
table = {TABLE}
protocols = ["bird"]

[border.mapping]
file = "{path}"
"""


# --- the play ---------------------------------------------------------------------------------


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Look at the routes, then take the link between a and b away from under a connection, and give it back."""
    yield from _routes(lab)
    yield _nothing_by_ipv6(lab["a"])
    yield from _reach(lab, _DIRECT)
    yield check_ping(lab["host-a"], C.host, "a to c", ttl=62)
    with _Connection(lab["host-a"], lab["host-b"], B.host) as connection:
        yield connection.check("a TCP connection from a to b")
        lab[BETWEEN].run("ip", "link", "set", "br0", "down")
        yield connection.check("it goes on when the link between them fails")
        yield from _reach(lab, _AROUND)
        lab[BETWEEN].run("ip", "link", "set", "br0", "up")
        yield from _reach(lab, _DIRECT)
        yield connection.check("it goes on when the link heals")
    yield from _theft(lab)


def _expected(place: Place, *, around: bool = False) -> dict[str, tuple[str, str]]:
    """What it should have entered."""
    found: dict[str, tuple[str, str]] = {}
    for other in PLACES:
        if other is not place:
            by = C if around and {place.name, other.name} == {"a", "b"} else other
            address = dict(by.neighbours)[place.name]
            found[str(carried(other.site))] = str(Address.parse(f"fe80::{address}")), f"{by.name}0"
    return found


def _way(lab: Lab, way: str) -> Check:
    """Wait until BIRD has found a way between a and b, at both."""
    wanted = {place.name: _expected(place, around=way == _AROUND) for place in (A, B)}
    wait_until(lambda: all(entered(lab[name]) == each for name, each in wanted.items()), _CONVERGED_SECONDS)
    seen = {name: entered(lab[name]) for name in wanted}
    return Check(f"BIRD leads from a to b and back {way}", seen == wanted, "; ".join(map(str, seen.values())))


def _routes(lab: Lab) -> Iterator[Check]:
    """Every router knows the way to the sites of the others, from BIRD to isthmus."""
    tables = {place.name: _expected(place) for place in PLACES}
    wait_until(lambda: all(entered(lab[name]) == each for name, each in tables.items()), _CONVERGED_SECONDS)
    for place in PLACES:
        expected: dict[str, str] = {}
        for other in (each for each in PLACES if each is not place):
            way = f"native to-{other.name} neighbour {dict(other.neighbours)[place.name]}"
            expected |= {f"{other.site}/32": way, f"c{other.site}/32": way}
        node = lab[place.name]
        wait_until(lambda: learned_routes(node) == expected, 10)  # noqa: B023 - called at once
        seen = learned_routes(node)
        yield Check(
            f"{place.name} has learned the way to the other sites",
            seen == expected,
            "; ".join(f"{to} by {via}" for to, via in seen.items()),
        )


def _nothing_by_ipv6(node: Node) -> Check:
    """The kernel itself knows no way to what BIRD has entered."""
    there = str(carried(f"{B.site}/{B.host}").address)
    done = node.run("ip", "-6", "route", "get", there, check=False)
    return Check("the kernel has no IPv6 route to what the table carries", done.returncode != 0, done.stderr.strip())


def _reach(lab: Lab, way: str) -> Iterator[Check]:
    """Ping from a to b, and look which way the packets go; where Babel misses its hellos for want of time, again."""
    for _ in range(_ATTEMPTS):
        led = _way(lab, way)
        checks = _pinged(lab, way)
        if all(each.ok for each in checks):
            break
    yield led
    yield from checks


def _pinged(lab: Lab, way: str) -> tuple[Check, Check]:
    with capturing(lab[BETWEEN], "a") as direct, capturing(lab["c"], "a0") as around:
        pinged = check_ping(lab["host-a"], B.host, f"a to b {way}", ttl=62 if way == _DIRECT else 61)
    seen = len(_echoes(direct)), len(_echoes(around))
    ok = seen == ((6, 0) if way == _DIRECT else (0, 6))
    detail = f"three pings and their answers: {seen[0]} SIP packets between a and b, {seen[1]} between a and c"
    return pinged, Check(f"packets from a to b go {way}", ok, detail)


def _echoes(capture: Capture) -> list[bytes]:
    """The SIP packets with ICMP between a's host and b's; answers may be fragmented, and have a header that says so."""
    ends = {Address.parse_sip(f"c{place.site}/{place.host}").octets for place in (A, B)}
    packets = [each.octets for each in capture.packets if each.octets[0] >> 4 == 6]
    between = [each for each in packets if {each[8:16], each[16:24]} == ends]
    return [each for each in between if (each[30] if each[6] == _FRAGMENT else each[6]) == Protocol.ICMP]


class _Connection:
    """One TCP connection between two hosts that stays while the network changes."""

    def __init__(self, client: Node, server: Node, address: str) -> None:
        listening = server.inside(lambda: socket.create_server(("", _ECHO_PORT)))
        with listening:
            listening.settimeout(20)
            try:
                self._client = client.inside(lambda: socket.create_connection((address, _ECHO_PORT), timeout=20))
                self._server = listening.accept()[0]
            except OSError as error:
                raise LabError(f"no TCP connection to {address}: {error}") from error
        self._ends = self._client, self._server
        for end in self._ends:
            end.settimeout(_CONVERGED_SECONDS)

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            end.close()

    def check(self, name: str) -> Check:
        """Send octets there and back."""
        sent = bytes(n % 251 for n in range(_OCTETS))
        try:
            self._client.sendall(sent)
            there = _read(self._server, len(sent))
            self._server.sendall(there)
            back = _read(self._client, len(sent))
        except OSError as error:
            return Check(name, ok=False, detail=str(error))
        return Check(name, ok=back == sent, detail=f"{len(there)} octets there and {len(back)} back")


def _read(end: socket.socket, octets: int) -> bytes:
    found = b""
    while len(found) < octets and (more := end.recv(octets - len(found))):
        found += more
    return found


def _theft(lab: Lab) -> Iterator[Check]:
    """Let c tell of a's own network: a does not believe it (spec 9.4)."""
    before = len(entered(lab["a"]))
    birdc(lab["c"], "enable", "theft")
    wait_until(lambda: len(entered(lab["a"])) > before, _CONVERGED_SECONDS)
    wait_until(lambda: _refused(lab["a"]) != {}, 10)
    refused, rows = _refused(lab["a"]), learned_routes(lab["a"])
    ok = list(refused) == [STOLEN] and len(rows) == 4 and STOLEN not in rows
    yield Check("a does not learn from c where a's own network is", ok, f"refused: {refused}")
    birdc(lab["c"], "disable", "theft")


def _refused(node: Node) -> dict[str, str]:
    return {row["sip"]: row["because"] for row in node.isthmus("routes", "--refused")}


SCENARIO = Scenario(
    name=NAME,
    title="BIRD finds the way between three border routers; a link fails and heals",
    shows=("seed IPAE 4.4", "seed IPAE 6.3"),
    network=network(),
    start=start,
    play=play,
    root=True,
)
