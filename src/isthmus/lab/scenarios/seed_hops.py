# SPDX-License-Identifier: BSD-3-Clause
"""The five scenarios of the seed and its addressing example, hop by hop (seed IPAE 3.4.1 to 3.4.5, 7).

Addresses are those of section 7: O is 192.3.4.1 in site 1.213.77.5, D is 201.5.7.250 in site 1.2.2.8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from isthmus.address import Address
from isthmus.lab import chain as row
from isthmus.lab.chain import Chain, Kind, Link, Station
from isthmus.lab.configuration import route
from isthmus.lab.hops import Journey, check_journey, socket_address
from isthmus.lab.lab import Lab
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.stock import start_web
from isthmus.lab.traffic import all_of, check_carried, check_ping, check_sums, check_traceroute

_HERE, _THERE = "1.213.77.5", "1.2.2.8"
_O, _D = "192.3.4.1", "201.5.7.250"
_LEFT, _RIGHT = f"{_HERE}/{_O}", f"{_THERE}/{_D}"
_TO_C1 = f"201.5.7.0/24  c{_THERE}"
_TO_C0 = f"201.5.7.0/24  {_THERE}"
_FROM_C1 = f"192.3.4.0/24  c{_HERE}"

_FIRST = Link(left=_O, right="192.3.4.2")
_SECOND = Link(left="128.1.1.1", right="128.1.1.2")
_THIRD = Link(left="128.2.1.1", right="128.2.1.2")
_LAST = Link(left="201.5.7.9", right=_D)
_INNER = Link(left="10.0.0.3", right="10.1.2.3", length=8)


def _site(prefix: str, realm: str) -> tuple[str, str]:
    """Both ways of a border router into its own site: IPv4-only systems by translation, others by implicit tunnel."""
    return route(prefix, "1", translate=realm), route(prefix, "0", ipae="implicit", realm=realm)


def _tunnel(prefix: str, end: str, realm: str) -> str:
    return route(prefix, ipae=end, realm=realm)


_TRANSIT = Chain(
    name="ipae-transit",
    stations=(
        Station(name="origin", kind=Kind.IPV4_HOST),
        Station(
            name="r1",
            kind=Kind.BORDER,
            address=f"{_HERE}/192.3.4.2",
            sites={"left": _HERE},
            ways=(*_site(_HERE, "left"), _tunnel(_THERE, "128.2.1.2", "right")),
            mapping=(_TO_C1,),
        ),
        Station(name="r2", kind=Kind.IP_ROUTER),
        Station(
            name="r3",
            kind=Kind.BORDER,
            address=f"{_THERE}/10.1.2.3",
            sites={"right": _THERE},
            ways=(*_site(_THERE, "right"), _tunnel(_HERE, "128.1.1.1", "left")),
            mapping=(_FROM_C1,),
        ),
        Station(name="r4", kind=Kind.IP_ROUTER),
        Station(name="dest", kind=Kind.IPV4_HOST),
    ),
    links=(_FIRST, _SECOND, _THIRD, Link(left="10.1.2.3", right="10.1.2.4"), _LAST),
)
_HOSTS = Chain(
    name="ipae-hosts",
    stations=(
        Station(name="origin", kind=Kind.IPAE_HOST, address=_LEFT, border="128.2.1.2"),
        Station(name="r1", kind=Kind.IP_ROUTER),
        Station(name="r2", kind=Kind.IP_ROUTER),
        Station(
            name="r3",
            kind=Kind.BORDER,
            address=f"{_THERE}/10.0.0.3",
            sites={"right": _THERE},
            ways=(*_site(_THERE, "right"), route(_HERE, ipae="implicit", realm="left")),
        ),
        Station(name="r4", kind=Kind.IP_ROUTER),
        Station(name="dest", kind=Kind.IPAE_HOST, address=_RIGHT, border="10.0.0.3"),
    ),
    links=(_FIRST, _SECOND, _THIRD, _INNER, _LAST),
)
_MIXED = Chain(
    name="ipae-mixed",
    stations=(
        Station(name="origin", kind=Kind.IPV4_HOST),
        Station(name="r1", kind=Kind.IP_ROUTER),
        Station(
            name="r2",
            kind=Kind.BORDER,
            address=f"{_HERE}/128.1.1.2",
            sites={"left": _HERE},
            ways=(*_site(_HERE, "left"), _tunnel(_THERE, "10.0.0.3", "right")),
            mapping=(_TO_C0,),
        ),
        Station(name="r3", kind=Kind.IP_ROUTER),
        Station(
            name="r4",
            kind=Kind.BORDER,
            address=f"{_THERE}/201.5.7.9",
            sites={"right": _THERE},
            ways=(*_site(_THERE, "right"), _tunnel(_HERE, "128.2.1.1", "left")),
        ),
        Station(name="dest", kind=Kind.IPAE_HOST, address=_RIGHT, border="201.5.7.9"),
    ),
    links=(_FIRST, _SECOND, _THIRD, Link(left="10.1.2.3", right="10.0.0.3", length=8), _LAST),
)
_SIP_LINK = Link(left="10.0.0.3", right="10.1.2.3", length=8, sip_only=True)
_SIP_LAST = Link(left="201.5.7.9", right=_D, sip_only=True)
_TO_SIP = Chain(
    name="ipae-sip",
    stations=(
        Station(name="origin", kind=Kind.IPAE_HOST, address=_LEFT, border="128.2.1.2"),
        Station(name="r1", kind=Kind.IP_ROUTER),
        Station(name="r2", kind=Kind.IP_ROUTER),
        Station(
            name="r3",
            kind=Kind.BORDER,
            address=f"{_THERE}/10.0.0.3",
            sites={"right": _THERE},
            ways=(
                route(f"{_THERE}/201.5.7.0/56", native="right", neighbour="10.1.2.3"),
                route(_HERE, ipae="implicit", realm="left"),
            ),
        ),
        Station(
            name="r4",
            kind=Kind.SIP_ROUTER,
            address=f"{_THERE}/10.1.2.3",
            sites={"left": _THERE, "right": _THERE},
            ways=(
                route(f"{_THERE}/201.5.7.0/56", native="right"),
                route("default", native="left", neighbour="10.0.0.3"),
            ),
        ),
        Station(name="dest", kind=Kind.SIP_HOST, address=_RIGHT, border="201.5.7.9"),
    ),
    links=(_FIRST, _SECOND, _THIRD, _SIP_LINK, _SIP_LAST),
)
_IP_TO_SIP = Chain(
    name="ip-sip",
    stations=(
        Station(name="origin", kind=Kind.IPV4_HOST),
        Station(name="r1", kind=Kind.IP_ROUTER),
        Station(
            name="r2",
            kind=Kind.BORDER,
            address=f"{_HERE}/128.1.1.2",
            sites={"left": _HERE},
            ways=(*_site(_HERE, "left"), route(_THERE, native="right", neighbour="128.2.1.2")),
            mapping=(_TO_C0,),
        ),
        Station(
            name="r3",
            kind=Kind.SIP_ROUTER,
            address=f"{_THERE}/128.2.1.2",
            sites={"right": _THERE},
            ways=(route(_THERE, native="right"), route(_HERE, native="left", neighbour="128.2.1.1")),
        ),
        Station(name="dest", kind=Kind.SIP_HOST, address=_RIGHT, border="201.5.7.9"),
    ),
    links=(
        _FIRST,
        _SECOND,
        Link(left="128.2.1.1", right="128.2.1.2", sip_only=True),
        _SIP_LAST,
    ),
)
_ADDRESSES = Chain(
    name="ipae-addresses",
    stations=(
        Station(name="origin", kind=Kind.IPAE_HOST, address=_LEFT, border="128.1.1.2"),
        Station(name="ipa", kind=Kind.IP_ROUTER),
        Station(
            name="ipaex",
            kind=Kind.BORDER,
            address=f"{_THERE}/10.0.0.3",
            sites={"right": _THERE},
            ways=(*_site(_THERE, "right"), route(_HERE, ipae="implicit", realm="left")),
        ),
        Station(name="ipb", kind=Kind.IP_ROUTER),
        Station(name="dest", kind=Kind.IPAE_HOST, address=_RIGHT, border="10.0.0.3"),
    ),
    links=(_FIRST, _SECOND, _INNER, _LAST),
)


@dataclass(frozen=True, slots=True)
class _Story:
    """A row, and what the seed calls it."""

    chain: Chain
    vector: str
    title: str
    clause: str
    back: str | None = None
    "The journey of an answer, where one is computed."


_STORIES = (
    _Story(_TRANSIT, "3.4.1 transit only", "IPv4 hosts cross a SIP network that neither knows of", "3.4.1"),
    _Story(_HOSTS, "3.4.2 IPAE host to IPAE host", "IPAE hosts talk across routers that know IPv4 only", "3.4.2"),
    _Story(_MIXED, "3.4.3 IP host to IPAE host", "An IPv4 host reaches an IPAE host through two borders", "3.4.3"),
    _Story(_TO_SIP, "3.4.4 IPAE host to SIP host", "An IPAE host reaches a host that has SIP only", "3.4.4"),
    _Story(
        _IP_TO_SIP,
        "3.4.5 IP host to SIP host",
        "An IPv4 host reaches a host that has SIP only, and is answered",
        "3.4.5",
        "3.4.5R SIP host replies to IP host",
    ),
    _Story(_ADDRESSES, "section 7 example", "The addressing example, with its own addresses", "7"),
)


def _start(chain: Chain) -> Callable[[Lab, Setting], None]:
    def start(lab: Lab, setting: Setting) -> None:
        row.start(chain, lab, setting)
        for host in chain.hosts:
            start_web(lab[host.name], ipv6=True)

    return start


def _seen_from(chain: Chain, host: Station, other: Station, journey: Journey) -> str:
    """The address that programs of a host write to for the other."""
    if host.kind is Kind.IPV4_HOST:
        return chain.address(other)
    ends: tuple[Address, Address] = journey.ends
    mine, theirs = ends if host is chain.hosts[0] else ends[::-1]
    return str(socket_address(theirs, mine))


def _play(story: _Story) -> Callable[[Lab, Setting], Iterator[Check]]:
    chain = story.chain

    def play(lab: Lab, setting: Setting) -> Iterator[Check]:
        origin, dest = chain.hosts
        journey = Journey.of(story.vector, "tcp")
        there, back = _seen_from(chain, origin, dest, journey), _seen_from(chain, dest, origin, journey)
        yield check_ping(lab[origin.name], there, f"{origin.kind} to {dest.kind}", ttl=64 - len(chain.links) + 1)
        for transport in ("tcp", "udp"):
            yield check_journey(chain, lab, story.vector, transport)
            if story.back:
                yield check_journey(chain, lab, story.back, transport, back=True)
        yield from all_of(lab[origin.name], there, f"{origin.kind} to {dest.kind}")
        yield from all_of(lab[dest.name], back, "and back")
        yield check_traceroute(lab[origin.name], there, f"{origin.kind} to {dest.kind}", len(chain.links))
        yield check_sums(lab[origin.name], lab[dest.name])
        if setting.plane != "reference":
            yield check_carried(*(lab[each.name] for each in chain.stations if each.kind.has_sip))

    return play


SCENARIOS = tuple(
    Scenario(
        name=story.chain.name,
        title=story.title,
        shows=(f"seed IPAE {story.clause}", "seed IPAE 5.1", "seed IPAE 5.2", "seed IPAE 5.3"),
        network=story.chain.network(),
        start=_start(story.chain),
        play=_play(story),
        root=True,
    )
    for story in _STORIES
)
