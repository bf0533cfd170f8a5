# SPDX-License-Identifier: BSD-3-Clause
"""A small link among routers that know IPv4 only, in the way of IPAE datagrams (seed IPAE 4.3; spec 3.5, 6.4).

::

    v4-a   192.3.4.1 ─┐                                                            ┌─ v4-b   201.5.7.250
    ipae-a 192.3.4.2 ─┼─ west ── 128.1.1 ── modern ── 1400 octets ── old ── 128.2.1 ── east
    sip-a  192.3.4.3 ─┘                                                            └─ ipae-b 201.5.7.251

Site 1.213.77.5 is on the left, 1.2.2.8 on the right. ``modern`` is Linux and quotes 528 octets of what it cannot send
on; ``old`` is a router of 1992, which quotes eight and names no MTU. What goes to the right is too large for the one,
what goes to the left for the other. The IPAE hosts tunnel to each other by themselves; for the others the borders do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from isthmus.address import Address
from isthmus.lab.capture import capturing
from isthmus.lab.configuration import general, mapping, realm, route, table
from isthmus.lab.hops import socket_address
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.stock import fetch, start_web, words
from isthmus.lab.topology import OPEN_FORWARDING, Network, NodePlan, wire
from isthmus.lab.traffic import check_sums, check_tcp, check_traceroute, check_udp, url

NAME = "ipae-mtu"
NARROW = 1400
PLATEAU = 1006
"What 1400 octets are found to be where no MTU is named (RFC 1191 §7.1)."
TINY = 500
"Octets that are not enough for an IPAE datagram with the smallest SIP packet that everybody may send."
OCTETS, FEW_OCTETS = 300_001, 60_001
_HERE, _THERE = "1.213.77.5", "1.2.2.8"
_V4_A, _IPAE_A, _SIP_A = "192.3.4.1", "192.3.4.2", "192.3.4.3"
_V4_B, _IPAE_B = "201.5.7.250", "201.5.7.251"
_WEST, _EAST = "128.1.1.1", "128.2.1.2"
_HOSTS, _SERVERS = ("v4-a", "ipae-a", "sip-a", "v4-b", "ipae-b"), ("v4-b", "ipae-b")
_BORDERS = "west", "east"
_IPAE = 41
_REFUSED = 7
"What curl says if it was told that it cannot connect; 28 if it was told nothing."
_IPV6 = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}
_FORWARDING = OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"}
_PATIENT = {"net.ipv4.icmp_ratelimit": "0"}
"A router that answers each probe."


def _programs(address: str, other: str) -> str:
    """The address by which programs at ``other`` know a SIP system, both given by their low 32 bits."""
    ends = (Address.parse_sip(f"{_HERE if low.startswith('192') else _THERE}/{low}") for low in (address, other))
    return str(socket_address(*ends))


_PEER = _programs(_IPAE_B, _IPAE_A)
"By which ipae-a knows ipae-b."


def network() -> Network:
    """Two sites and the cloud between them."""
    hosts = tuple(
        NodePlan(name=name, routes=(f"default via {border}",), sysctls=OPEN_FORWARDING | _IPV6)
        for name, border in (
            ("v4-a", "192.3.4.9"), ("ipae-a", "192.3.4.9"), ("sip-a", "192.3.4.9"),
            ("v4-b", "201.5.7.9"), ("ipae-b", "201.5.7.9"),
        )
    )  # fmt: skip
    routers = (
        NodePlan(name="west", routes=("default via 128.1.1.2",), sysctls=_FORWARDING),
        NodePlan(
            name="modern",
            routes=("192.3.4.0/24 via 128.1.1.1", "default via 128.3.1.2"),
            sysctls=_FORWARDING | _PATIENT,
        ),
        NodePlan(name="old", routes=("201.5.7.0/24 via 128.2.1.2", "default via 128.3.1.1"), sysctls=OPEN_FORWARDING),
        NodePlan(name="east", routes=("default via 128.2.1.1",), sysctls=_FORWARDING),
    )
    lans = (NodePlan(name="lan-a", segment=True), NodePlan(name="lan-b", segment=True))
    return Network(
        name=NAME,
        nodes=(*hosts, *routers, *lans),
        cables=(
            wire(("v4-a", "eth0", f"{_V4_A}/24"), ("lan-a", "v4-a")),
            wire(("ipae-a", "eth0", f"{_IPAE_A}/24"), ("lan-a", "ipae-a")),
            wire(("sip-a", "eth0", f"{_SIP_A}/24"), ("lan-a", "sip-a")),
            wire(("west", "lan0", "192.3.4.9/24"), ("lan-a", "west")),
            wire(("west", "wan0", f"{_WEST}/24"), ("modern", "left0", "128.1.1.2/24")),
            wire(("modern", "right0", "128.3.1.1/24"), ("old", "left0", "128.3.1.2/24"), mtu=NARROW),
            wire(("old", "right0", "128.2.1.1/24"), ("east", "wan0", f"{_EAST}/24")),
            wire(("east", "lan0", "201.5.7.9/24"), ("lan-b", "east")),
            wire(("v4-b", "eth0", f"{_V4_B}/24"), ("lan-b", "v4-b")),
            wire(("ipae-b", "eth0", f"{_IPAE_B}/24"), ("lan-b", "ipae-b")),
        ),
    )


# --- configuration ----------------------------------------------------------------------------


def _border(lab: Lab, setting: Setting, name: str, layers: list[int]) -> str:
    """A border that relays by some layers of spec 6.4 only."""
    west, node = name == "west", lab[name]
    site, other = (_HERE, _THERE) if west else (_THERE, _HERE)
    near, end, remote = ("192.3.4.9", _WEST, _EAST) if west else ("201.5.7.9", _EAST, _WEST)
    parts = [
        general(node, setting),
        realm("lan", "lan0", site),
        realm("cloud", "wan0"),
        table("[border]", address=f"{site}/{near}", tunnel_ends=[near, end]),
        mapping(node, f"{'201.5.7.0/24' if west else '192.3.4.0/24'} c{other}\n", "lan"),
        table("[border.rules]", relay_layers=layers),
        route(site, "1", translate="lan"),
        route(site, "0", ipae="implicit", realm="lan"),
        route(f"{_HERE}/{_SIP_A}/64", native="lan") if west else "",
        route(other, ipae=remote, realm="cloud"),
    ]
    return "".join(parts)


def _host(lab: Lab, setting: Setting, name: str, address: str, profile: str) -> str:
    left = address.startswith(_HERE)
    parts = [
        general(lab[name], setting),
        realm("link", "eth0", _HERE if left else _THERE),
        table(
            "[node]",
            address=address,
            profile=profile,
            near="link",
            border="192.3.4.9" if left else "201.5.7.9",
            implicit_scope="any" if profile == "ipae" else None,
        ),
        # The SIP-only host of the other site does not take IPAE datagrams; its border does.
        "" if left else route(f"{_HERE}/{_SIP_A}/64", of="node", ipae="201.5.7.9"),
    ]
    return "".join(parts)


def start(lab: Lab, setting: Setting) -> None:
    """Start the old router, the borders, the hosts and their servers."""
    lab["old"].start("router", ISTHMUS[0], "-m", "isthmus.lab.old_router", "left0", "right0", ready="ready")
    texts = {
        "west": _border(lab, setting, "west", [1, 2]),
        "east": _border(lab, setting, "east", [2]),
        "ipae-a": _host(lab, setting, "ipae-a", f"{_HERE}/{_IPAE_A}", "ipae"),
        "ipae-b": _host(lab, setting, "ipae-b", f"{_THERE}/{_IPAE_B}", "ipae"),
        "sip-a": _host(lab, setting, "sip-a", f"{_HERE}/{_SIP_A}", "sip-only"),
    }
    _up(lab, texts)
    for name in _SERVERS:
        start_web(lab[name], ipv6=True)


def _up(lab: Lab, texts: dict[str, str]) -> None:
    with ThreadPoolExecutor(len(texts)) as pool:
        list(pool.map(lambda name: lab[name].up(texts[name]), texts))


# --- play -------------------------------------------------------------------------------------


def play(lab: Lab, setting: Setting) -> Iterator[Check]:
    """Large segments both ways by every layer; then small datagrams, a traced route, and an end that is gone."""
    relayed = Counter[str]()
    for pair in _PAIRS:
        yield from _both_ways(lab, pair, relayed)
    yield check_traceroute(lab["v4-a"], _V4_B, "IPv4 hosts", 5)
    yield check_traceroute(lab["ipae-a"], _PEER, "IPAE hosts", 5)
    with ThreadPoolExecutor(len(_BORDERS)) as pool:
        list(pool.map(lambda name: lab[name].daemons["isthmus"].stop(), _BORDERS))
    _up(lab, {name: _border(lab, setting, name, [3]) for name in _BORDERS})
    yield from _soft_state(lab)
    yield from _smaller(lab)
    yield from _gone(lab)
    yield check_sums(*(lab[name] for name in _HOSTS))


@dataclass(frozen=True, slots=True)
class _Pair:
    """Who talks, and who hears of the small link on the way to the right and on the way to the left."""

    who: str
    host: str
    server: str
    right: str
    left: str


_PAIRS = (
    _Pair("IPv4 hosts", "v4-a", _V4_B, "west", "east"),
    _Pair("IPAE hosts", "ipae-a", _PEER, "ipae-a", "ipae-b"),
    _Pair("a SIP host", "sip-a", _programs(_IPAE_B, _SIP_A), "west", "east"),
)


def _both_ways(lab: Lab, pair: _Pair, before: Counter[str]) -> Iterator[Check]:
    """Send more than the small link carries, and see who was told, and how it was known whom to tell.

    Args:
        lab: The network.
        pair: Who sends and fetches.
        before: How many errors each system has relayed up to now.
    """
    with capturing(lab["modern"], "right0") as narrow:
        yield from _transfer(lab, pair)
    sizes = [len(each.octets) for each in narrow.packets]
    text = f"{len(sizes)} packets, {max(sizes, default=0)} octets at most"
    yield Check(f"{pair.who}: all fits the small link", PLATEAU < max(sizes, default=0) <= NARROW, text)
    for name, how in ((pair.right, "what they quote"), (pair.left, "their identification")):
        counted = lab[name].isthmus("counters")["RELAYED"]
        text = f"RELAYED counted {counted - before[name]}"
        yield Check(f"{pair.who}: {name} relays errors by {how}", counted > before[name], text)
        before[name] = counted


def _transfer(lab: Lab, pair: _Pair, how: str = "", octets: int = OCTETS) -> Iterator[Check]:
    """Send with curl, and fetch; what either end learns does not serve the other."""
    _forget(lab)
    who = pair.who + how
    command = f"head -c {octets} /dev/zero | " + " ".join(fetch(f"'{url(pair.server)}'", "--data-binary", "@-"))
    done = lab[pair.host].run("sh", "-c", command, check=False, seconds=40)
    yield Check(f"{who}: {octets} octets by TCP", done.stdout.startswith(f"{octets} octets"), words(done))
    _forget(lab)
    yield check_tcp(lab[pair.host], pair.server, f"{who}, back", octets)


def _forget(lab: Lab) -> None:
    """Have the hosts' kernels forget path MTUs, by which each also says what it wants to receive."""
    for name in _HOSTS:
        lab[name].run("sh", "-c", "ip -4 route flush cache; ip -6 route flush cache")


def _soft_state(lab: Lab) -> Iterator[Check]:
    """Nobody is told of his own packet now: the next that is too large is answered (spec 6.4, layer 3)."""
    yield from _transfer(lab, _PAIRS[0], " by soft state")
    for name, mtu in (("west", NARROW), ("east", PLATEAU)):
        ways = lab[name].isthmus("tunnels")
        counts = lab[name].isthmus("counters")
        ok = [each["mtu"] for each in ways] == [mtu] and not counts["RELAYED"] and counts["REPLIED"] > 0
        text = f"{ways}; RELAYED counted {counts['RELAYED']}, REPLIED {counts['REPLIED']}"
        yield Check(f"{name} answers from what it knows of its way: {mtu} octets", ok, text)
    yield _small_datagrams(lab, "IPv4 hosts")
    said = [
        lab["v4-a"].run("ping", "-n", "-c", "1", "-W", "0.5", "-t", ttl, _V4_B, check=False).stdout for ttl in "232"
    ]
    yield Check(
        "a router within the tunnel that was heard of is named to the next who does not get further",
        "From 128.1.1.2" in said[-1] and "Time to live exceeded" in said[-1],
        " ".join(said[-1].split())[:200],
    )


def _small_datagrams(lab: Lab, who: str) -> Check:
    """UDP that may be fragmented, up to what one Ethernet frame carries, and beyond."""
    sizes, what = (500, 1000, 1372, 1400, 1472, 4000), "datagrams without DF are cut, and arrive"
    return check_udp(lab["v4-a"], _V4_B, who, sizes, df=False, tries=3, what=what)


def _smaller(lab: Lab) -> Iterator[Check]:
    """A link that carries no whole SIP packet of 576 octets: IPv4 cuts the datagrams then (spec 3.5)."""
    for node, interface in (("modern", "right0"), ("old", "left0")):
        lab[node].run("ip", "link", "set", interface, "mtu", str(TINY))
    with capturing(lab["modern"], "right0") as narrow:
        for pair in _PAIRS:
            yield from _transfer(lab, pair, f", {TINY} octets", FEW_OCTETS)
    parts = [len(each.octets) for each in narrow.packets if each.octets[6] & 0x20 and each.octets[9] == _IPAE]
    text = f"{len(parts)} first fragments of datagrams, {max(parts, default=0)} octets at most"
    yield Check("routers cut what is smaller than every SIP link carries", len(parts) > 0, text)
    ways = [(each["remote"], each["mtu"]) for each in lab["sip-a"].isthmus("tunnels")]
    ok = ways == [(f"{_THERE}/{_IPAE_B}", 576)]
    yield Check("a host remembers to whom what IPv6 may always send is too large, and cuts it", ok, str(ways))


def _gone(lab: Lab) -> Iterator[Check]:
    """The other end of a tunnel is not there any more: nobody waits for a timeout (spec 6.4)."""
    lab["modern"].run("ip", "route", "add", "unreachable", f"{_EAST}/32")
    lab["modern"].run("ip", "route", "add", "unreachable", f"{_IPAE_B}/32")
    for host, server, teller in (("ipae-a", _PEER, "ipae-a"), ("v4-a", _V4_B, "west")):
        done = lab[host].run(*fetch(url(server)), check=False)
        yield Check(f"{host} is told that nobody is there", done.returncode == _REFUSED, words(done))
        # A host gives up at the first error; the next to call is told without a packet's leaving.
        again = lab[host].run(*fetch(url(server)), check=False)
        down = [each["down"] for each in lab[teller].isthmus("tunnels") if each["down"]]
        ok = again.returncode == _REFUSED and down == ["128.1.1.2"]
        yield Check(f"{teller} knows who said so", ok, f"{down}; {words(again)}")


SCENARIO = Scenario(
    name=NAME,
    title="A small link among IPv4 routers between two SIP sites: whoever sends too much is told, by three layers",
    shows=("seed IPAE 4.3", "seed IPAE 5.2", "RFC 792", "RFC 1191 4", "RFC 1191 7.1", "RFC 8507 5", "RFC 8507 7"),
    network=network(),
    start=start,
    play=play,
    root=True,
)
