# SPDX-License-Identifier: BSD-3-Clause
"""Sites of IPv4 that are cut over one at a time, in any order, and back, without a flag day (seed IPAE 8, 8.1).

Three sites around a router that knows IPv4 only, one host in each that is never touched::

    host-p --- border-p ---+--- middle ---+--- border-q --- host-q
                                          +--- border-r --- host-r

A border router begins as a router of IPv4. To cut its site over, isthmus is started on it with a mapping table of the
sites that have been cut over before; then the tables of those are told of the new one. Between the two, packets to the
new site are still IPv4 and those from it SIP already.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from isthmus.address import Address, Prefix
from isthmus.lab.capture import EVERYWHERE, Capture, capturing
from isthmus.lab.lab import Lab
from isthmus.lab.lasting import Connection, connected
from isthmus.lab.node import Node, wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.topology import OPEN_FORWARDING, Network, NodePlan, wire
from isthmus.lab.traffic import check_ping, check_sums
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.sip.header import SipView
from isthmus.wire.sip.ipae import PROTOCOL

NAME = "cut-over"
MIDDLE = "middle"
_TTL = 61
"What is left of 64 after two border routers and the middle, whichever way a packet goes."
_FORWARDING = OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site with its border router and one host that knows IPv4 only."""

    name: str
    sip: str
    network: str
    host: str
    inside: str
    "The border router's address in the site."
    outside: str
    "And towards the middle."
    middle: str
    "The middle's, towards it."

    @property
    def border(self) -> str:
        """Its border router, as a node."""
        return f"border-{self.name}"

    @property
    def node(self) -> str:
        """Its host, as a node."""
        return f"host-{self.name}"


SITES = tuple(
    Site(
        name=name,
        sip=sip,
        network=f"{net}.0/24",
        host=f"{net}.1",
        inside=f"{net}.254",
        outside=f"128.{at}.1.1",
        middle=f"128.{at}.1.2",
    )
    for at, (name, sip, net) in enumerate(
        (("p", "1.213.77.5", "192.3.4"), ("q", "1.2.2.8", "201.5.7"), ("r", "1.3.1.1", "198.1.3")), 1
    )
)
P, Q, R = SITES
ORDERS = ((P, Q, R), (R, P, Q))
"""Those that are played here; a test walks all of four sites in memory (tests/ipae/test_cut_over.py)."""
PAIRS = tuple(itertools.combinations(SITES, 2))


def network() -> Network:
    """A star of three."""
    nodes = [NodePlan(name=MIDDLE, routes=tuple(_fallback(each) for each in SITES), sysctls=_FORWARDING)]
    cables = []
    for site in SITES:
        nodes.append(NodePlan(name=site.border, routes=(f"default via {site.middle}",), sysctls=_FORWARDING))
        nodes.append(NodePlan(name=site.node, routes=(f"default via {site.inside}",)))
        cables.append(wire((site.border, "lan0", f"{site.inside}/24"), (site.node, "eth0", f"{site.host}/24")))
        cables.append(wire((site.border, "net0", f"{site.outside}/24"), (MIDDLE, site.name, f"{site.middle}/24")))
    return Network(name=NAME, nodes=tuple(nodes), cables=tuple(cables))


def _fallback(site: Site) -> str:
    """The IPv4 route to a site, which is there until nobody needs it."""
    return f"{site.network} via {site.outside}"


# --- a border router --------------------------------------------------------------------------


def table(site: Site, done: Sequence[Site]) -> str:
    """The mapping table of a site: those others that have been cut over."""
    return "".join(f"{each.network}  c{each.sip}\n" for each in done if each is not site)


def configuration(site: Site, node: Node, setting: Setting) -> str:
    """What ``isthmus up`` reads; the routes of SIP are there from the beginning, as nothing goes by them unmapped."""
    routes = "".join(
        f'[[border.route]]\nto = "{each.sip}"\nvia = {{ ipae = "{each.outside}", realm = "net" }}\n\n'
        for each in SITES
        if each is not site
    )
    return f"""\
[isthmus]
name = "{node.name}"
run = "{node.run_directory}"
plane = "{setting.plane}"

[[realm]]
name = "site"
interface = "lan0"
site = "{site.sip}"

[[realm]]
name = "net"
interface = "net0"

[border]
address = "{site.sip}/{site.inside}"
milestone = "I"

{routes}\
[border.mapping]
file = "{node.directory / "map.txt"}"
"""


def _begin(lab: Lab, site: Site, done: Sequence[Site], setting: Setting) -> None:
    node = lab[site.border]
    _write(node, site, done)
    node.up(configuration(site, node, setting))


def _apply(lab: Lab, done: Sequence[Site], told: Sequence[Site]) -> None:
    """Let border routers know who has been cut over."""
    for site in told:
        _write(lab[site.border], site, done)
        lab[site.border].isthmus("map", "apply")


def _write(node: Node, site: Site, done: Sequence[Site]) -> None:
    node.directory.mkdir(parents=True, exist_ok=True)
    path = node.directory / "map.txt"
    draft = path.with_suffix(".new")
    draft.write_text(table(site, done), encoding="ascii")
    draft.replace(path)


# --- the play ---------------------------------------------------------------------------------


def start(_lab: Lab, _setting: Setting) -> None:
    """Begin with IPv4 and nothing else."""


def play(lab: Lab, setting: Setting) -> Iterator[Check]:
    """Cut everybody over, go back, and again in another order; a TCP connection of each pair lasts all the time."""
    with contextlib.ExitStack() as open_:
        talks = [
            open_.enter_context(connected(f"{one.name}-{other.name}", lab[one.node], lab[other.node], other.host))
            for one, other in PAIRS
        ]
        yield from _everybody(lab, talks, {}, "nobody has been cut over")
        first, second = ORDERS
        yield from _forward(lab, setting, first, talks)
        yield from _back(lab, first[::-1], talks)
        yield from _forward(lab, setting, second, talks)
        yield from _without_fallback(lab, talks)
        yield check_sums(*(lab[each.node] for each in SITES))


def _forward(lab: Lab, setting: Setting, order: Sequence[Site], talks: Sequence[Connection]) -> Iterator[Check]:
    done: list[Site] = []
    tables: dict[Site, list[Site]] = {}
    for site in order:
        others, done = list(done), [*done, site]
        _begin(lab, site, others, setting)
        tables[site] = others
        if others:
            yield from _everybody(lab, talks, tables, f"{site.name} translates, {_names(others)} not to it yet")
        _apply(lab, done, others)
        tables |= {each: [other for other in done if other is not each] for each in done}
        yield from _everybody(lab, talks, tables, f"{_names(done)} cut over")


def _back(lab: Lab, order: Sequence[Site], talks: Sequence[Connection]) -> Iterator[Check]:
    """Take a site out of the tables of the others, and only then the translation from it."""
    left = list(order)
    tables: dict[Site, list[Site]] = {each: [other for other in left if other is not each] for each in left}
    for site in order:
        left.remove(site)
        _apply(lab, left, left)
        tables |= {each: [other for other in left if other is not each] for each in left}
        lab[site.border].daemons["isthmus"].stop()
        del tables[site]
        yield from _everybody(lab, talks, tables, f"{site.name} is IPv4 again")


def _without_fallback(lab: Lab, talks: Sequence[Connection]) -> Iterator[Check]:
    """When all have been cut over the middle need not know the networks of any site (seed IPAE 8.1)."""
    all_ = {each: [other for other in SITES if other is not each] for each in SITES}
    for site in SITES:
        lab[MIDDLE].run("ip", "route", "del", *_fallback(site).split())
    yield from _everybody(lab, talks, all_, "the middle has no route to any site")
    for one, other in PAIRS:
        yield check_ping(lab[one.node], other.host, f"{one.name} to {other.name}", ttl=_TTL)


def _names(sites: Sequence[Site]) -> str:
    return " and ".join(each.name for each in sites)


def _everybody(lab: Lab, talks: Sequence[Connection], tables: dict[Site, list[Site]], when: str) -> Iterator[Check]:
    """Every pair still talks, and each direction goes as the tables say."""
    with capturing(lab[MIDDLE], EVERYWHERE) as capture:
        found = [each.goes_on(when) for each in talks]
        expected = {_way(one, other, tables) for pair in PAIRS for one, other in (pair, pair[::-1])}
        wait_until(lambda: _seen(capture) >= expected, 5)
    seen = _seen(capture)
    ok = all(each.ok for each in found) and seen == expected
    said = "; ".join(each.detail for each in found if not each.ok) or ", ".join(sorted(seen))
    yield Check(f"every pair talks: {when}", ok, said)


def _way(one: Site, other: Site, tables: dict[Site, list[Site]]) -> str:
    kind = "SIP" if other in tables.get(one, ()) else "IPv4"
    return f"{one.name} to {other.name} in {kind}"


def _seen(capture: Capture) -> set[str]:
    """In what the packets between each two sites have been seen in the middle."""
    found = set()
    for each in tuple(capture.packets):
        view = Ipv4View.parse(each.octets)
        kind, ends = "IPv4", (view.src, view.dst)
        if view.protocol == PROTOCOL:
            inner = SipView.parse(view.payload)
            kind, ends = "SIP", (inner.src.low, inner.dst.low)
        one, other = map(_site, ends)
        if one and other:
            found.add(f"{one} to {other} in {kind}")
    return found


def _site(address: Address) -> str:
    return next((each.name for each in SITES if address in Prefix.parse(each.network)), "")


SCENARIO = Scenario(
    name=NAME,
    title="Three IPv4 sites are cut over one at a time, in any order, and back; every pair goes on talking",
    shows=("seed IPAE 8", "seed IPAE 8.1", "seed IPAE 5.1"),
    network=network(),
    start=start,
    play=play,
    root=True,
)
