# SPDX-License-Identifier: BSD-3-Clause
"""Two border routers learn the way to each other's site by BGP, over IPv4 and through a router that knows IPv4 only.

BGP speaks of IPv6 prefixes that carry SIP prefixes; what follows are IPAE's tunnels, and no IPv6 packet goes anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from isthmus.lab import chain as row
from isthmus.lab.bird import birdc, carried, entered, learned_routes, start_bird
from isthmus.lab.capture import IPV4, IPV6, capturing
from isthmus.lab.chain import Chain, Kind, Link, Station
from isthmus.lab.lab import Lab
from isthmus.lab.node import wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.stock import start_web
from isthmus.lab.traffic import check_ping, check_sums, check_tcp

NAME = "ipae-bgp"
_CONVERGED_SECONDS = 30.0
_IPAE = 41


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """One border router, as BGP knows it."""

    name: str
    number: int
    "Of its autonomous system."
    site: str
    end: str
    "Its IPv4 address, at which BGP and tunnels end."
    realm: str
    "The realm between the two, at its side."

    @property
    def next_hop(self) -> str:
        """The IPv6 address that carries its SIP address."""
        return str(carried(f"{self.site}/{self.end}").address)


LEFT = Border(name="a", number=65001, site="1.213.77.5", end="128.1.1.1", realm="right")
RIGHT = Border(name="b", number=65002, site="1.2.2.8", end="128.2.1.2", realm="left")
CHAIN = Chain(
    name=NAME,
    stations=(
        Station(name="host-a", kind=Kind.IPV4_HOST),
        Station(name="a", kind=Kind.BORDER, sites={"left": LEFT.site}, mapping=(f"201.5.7.0/24  c{RIGHT.site}",)),
        Station(name="r", kind=Kind.IP_ROUTER),
        Station(name="b", kind=Kind.BORDER, sites={"right": RIGHT.site}, mapping=(f"192.3.4.0/24  c{LEFT.site}",)),
        Station(name="host-b", kind=Kind.IPV4_HOST),
    ),
    links=(
        Link(left="192.3.4.1", right="192.3.4.2"),
        Link(left=LEFT.end, right="128.1.1.2"),
        Link(left="128.2.1.1", right=RIGHT.end),
        Link(left="201.5.7.9", right="201.5.7.250"),
    ),
)


def start(lab: Lab, setting: Setting) -> None:
    """Start BIRD and isthmus at both borders, and the web server."""
    for border, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
        start_bird(lab[border.name], border.end, _bird(border, other), learned='source = RTS_BGP || proto = "tunnels"')
    for at, station in enumerate(CHAIN.stations):
        if station.kind is Kind.BORDER:
            realm = (LEFT if station.name == LEFT.name else RIGHT).realm
            learn = f'[border.learn]\nprotocols = ["bird"]\nipae = ["{realm}"]\n'
            lab[station.name].up(row.border_configuration(CHAIN, at, lab, setting) + learn)
    start_web(lab["host-b"], ipv6=False)


def _bird(border: Border, other: Border) -> str:
    return f"""\
protocol static own {{ ipv6; route {carried(border.site)} unreachable; }}
protocol static tunnels {{ ipv6; route {other.next_hop}/128 via "{border.realm}0"; }}
protocol bgp peer {{
  local {border.end} as {border.number};
  neighbor {other.end} as {other.number};
  multihop;
  connect delay time 1;
  connect retry time 1;
  error wait time 1, 2;
  ipv6 {{ import all; export where proto = "own"; next hop address {border.next_hop}; }};
}}
"""


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Look at what was learned and at what is on the wire; then let one site withdraw."""
    for border, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
        node = lab[border.name]
        wanted = {str(carried(other.site)): (other.next_hop, f"{border.realm}0")}
        wait_until(lambda: entered(node) == wanted, _CONVERGED_SECONDS)  # noqa: B023 - called at once
        way = f"ipae {other.end} by {border.realm} from {border.end}"
        expected = {f"{other.site}/32": way, f"c{other.site}/32": way}
        wait_until(lambda: learned_routes(node) == expected, 10)  # noqa: B023 - called at once
        seen = learned_routes(node)
        yield Check(f"{border.name} has learned the way to the other site", seen == expected, str(seen))
    there = CHAIN.address(CHAIN.hosts[1])
    with capturing(lab["r"], "left0", ethertypes=(IPV4, IPV6)) as link:
        yield check_ping(lab["host-a"], there, "from site to site", ttl=61)
        yield check_tcp(lab["host-a"], there, "from site to site")
    packets = [each.octets for each in link.packets]
    ipae = sum(each[0] >> 4 == 4 and each[9] == _IPAE for each in packets)
    others = [each for each in packets if each[0] >> 4 == 6 and not _of_the_link(each)]
    detail = f"{ipae} IPAE datagrams, {len(others)} of SIP itself or of IPv6"
    yield Check("all of it inside of IPv4, and no IPv6", ipae > 100 and not others, detail)
    yield check_sums(lab["host-a"], lab["host-b"])
    birdc(lab["b"], "disable", "peer")
    wait_until(lambda: not entered(lab["a"]), _CONVERGED_SECONDS)
    wait_until(lambda: not learned_routes(lab["a"]), 10)
    done = lab["host-a"].run("ping", "-n", "-c", "1", "-W", "2", there, check=False)
    ok = "Destination Host Unreachable" in done.stdout and not learned_routes(lab["a"])
    yield Check("without BGP there is no way, and hosts are told", ok, " ".join(done.stdout.split())[:200])


def _of_the_link(packet: bytes) -> bool:
    """Whether it is what kernels say on every link of IPv6, from a link-local address or none."""
    return packet[8:10] == b"\xfe\x80" or not any(packet[8:24])


SCENARIO = Scenario(
    name=NAME,
    title="Two border routers find each other's site by BGP, and tunnel through IPv4",
    shows=("seed IPAE 4.4", "seed IPAE 6.3"),
    network=CHAIN.network(),
    start=start,
    play=play,
    root=True,
)
