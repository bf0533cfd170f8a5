# SPDX-License-Identifier: BSD-3-Clause
"""Unmodified programs reach a SIP-only host by its name (seed IPAE 6.1, 6.2; spec 8).

::

    site 1.213.77.5, 192.3.4.0/24                    IPv4           site 1.2.2.8, SIP alone
    old   .1   IPv4 only, asks the border's DNS                     host-d  201.5.7.250
    new   .7   IPAE host, IPv6 sockets             door --- far ---
    quad  .9   IPAE host, IPv4 sockets          .2                  site 1.9.9.9, SIP alone
    names .53  a nameserver of 1987, plus AA records                pure    10.0.0.7
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from isthmus.address import Address
from isthmus.checksum import PseudoHeader
from isthmus.lab import stock
from isthmus.lab.browser import PACKAGE as BROWSER
from isthmus.lab.browser import browse
from isthmus.lab.capture import IPV4, IPV6, Capture, capturing
from isthmus.lab.hops import socket_address
from isthmus.lab.lab import Lab
from isthmus.lab.nameserver import PACKAGE as NAMESERVER
from isthmus.lab.nameserver import host_record, start_nameserver, zone
from isthmus.lab.node import Node, wait_until
from isthmus.lab.privilege import missing_tools
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.topology import OPEN_FORWARDING, LabError, Network, NodePlan, wire
from isthmus.lab.traffic import check_carried, check_ping, check_sums, check_tcp, check_udp, checksum_errors
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.ipv6 import Ipv6View
from isthmus.wire.sip.header import SipView
from isthmus.wire.sip.pseudo import fits, transport_rule
from isthmus.wire.transport import Protocol

NAME = "ipae-programs"
DEVICE = "sip0"
HOST_D = "host-d.example"
_SITE, _THERE, _HILL = "1.213.77.5", "1.2.2.8", "1.9.9.9"
_AT_ONCE = 4
"Hosts whose programs run at the same time."
_IPERF_PORT = 5201
_PAGE = 20_000
"Octets of what is fetched while everything is captured."
_ALIASES = ["100.64.0.0/10"]
_SPOILT = "100.64.0.9"
"An alias for ``new`` whose words add up to something else than they should."
_FORWARDING = OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"}
_SOCKETS = OPEN_FORWARDING | {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Client:
    """A host whose programs call ``host-d.example``."""

    name: str
    what: str
    sip: str
    "By which SIP address the far end knows it."
    asks: str
    "Whom its programs ask for names."
    told: str
    "Which address of host-d they use."
    device: str
    "Through which interface they send."
    ethertype: int

    @property
    def seen(self) -> str:
        """By which address programs of host-d know it."""
        return str(socket_address(Address.parse_sip(self.sip), _D))


_D = Address.parse_sip(f"{_THERE}/201.5.7.250")
_FULL = "fd49:5041:4500:6d74:102:208:c905:7fa"
_CLIENTS = (
    _Client(
        name="old",
        what="IPv4-only host",
        sip=f"c{_SITE}/192.3.4.1",
        asks="192.3.4.2",
        told="100.64.108.191",
        device="lan0",
        ethertype=IPV4,
    ),
    _Client(
        name="new",
        what="IPAE host, IPv6 sockets",
        sip=f"{_SITE}/192.3.4.7",
        asks="127.0.0.53",
        told=_FULL,
        device=DEVICE,
        ethertype=IPV6,
    ),
    _Client(
        name="quad",
        what="IPAE host, IPv4 sockets",
        sip=f"{_SITE}/192.3.4.9",
        asks="127.0.0.53",
        told="100.64.190.163",
        device=DEVICE,
        ethertype=IPV4,
    ),
    _Client(
        name="pure",
        what="SIP host",
        sip=f"{_HILL}/10.0.0.7",
        asks="127.0.0.53",
        told=_FULL,
        device=DEVICE,
        ethertype=IPV6,
    ),
)


# --- the network ----------------------------------------------------------------------------


def _network() -> Network:
    local = {"old": "192.3.4.1", "new": "192.3.4.7", "quad": "192.3.4.9", "names": "192.3.4.53"}
    lan = [wire(("lan", f"to-{name}"), (name, "lan0", f"{address}/24")) for name, address in local.items()]
    hosts = (
        NodePlan(name=name, routes=("default via 192.3.4.2",), sysctls=_SOCKETS if name == "new" else OPEN_FORWARDING)
        for name in local
    )
    return Network(
        name=NAME,
        nodes=(
            NodePlan(name="lan", segment=True),
            *hosts,
            NodePlan(name="door", sysctls=_FORWARDING),
            NodePlan(name="far", sysctls=_FORWARDING),
            NodePlan(name="host-d", sysctls=_SOCKETS),
            NodePlan(name="pure", sysctls=_SOCKETS),
        ),
        cables=(
            *lan,
            wire(("lan", "to-door"), ("door", "lan0", "192.3.4.2/24")),
            wire(("door", "net0", "128.1.1.1/24"), ("far", "net0", "128.1.1.2/24")),
            wire(("far", "valley0", "201.5.7.9/24"), ("host-d", "lan0", "201.5.7.250/24")),
            wire(("far", "hill0", "10.0.0.1/24"), ("pure", "lan0", "10.0.0.7/24")),
        ),
    )


_DOOR = f"""\
[[realm]]
name = "lan"
interface = "lan0"
site = "{_SITE}"

[[realm]]
name = "net"
interface = "net0"

[border]
address = "{_SITE}/192.3.4.2"
tunnel_ends = ["192.3.4.2", "128.1.1.1"]
milestone = "R"

[[border.route]]
to = "{_SITE}"
c = "0"
via = {{ ipae = "implicit", realm = "lan" }}

[[border.route]]
to = "default"
via = {{ ipae = "128.1.1.2" }}

[border.alias]
pools = {json.dumps(_ALIASES)}

[[border.alias.fixed]]
alias = "{_SPOILT}"
address = "{_SITE}/192.3.4.7"
residue = "any"

[border.dns]
listen = "192.3.4.2"
upstream = "192.3.4.53"
"""
_FAR = f"""\
[[realm]]
name = "net"
interface = "net0"

[[realm]]
name = "valley"
interface = "valley0"
site = "{_THERE}"

[[realm]]
name = "hill"
interface = "hill0"
site = "{_HILL}"

[border]
address = "{_THERE}/201.5.7.9"
tunnel_ends = ["128.1.1.2"]
milestone = "R"

[[border.route]]
to = "{_THERE}"
c = "0"
via = {{ native = "valley" }}

[[border.route]]
to = "{_HILL}"
c = "0"
via = {{ native = "hill" }}

[[border.route]]
to = "{_SITE}"
c = "any"
via = {{ ipae = "128.1.1.1" }}
"""


def _host(address: str, border: str, upstream: str | None, *more: str) -> str:
    """The configuration of a host."""
    lines = [
        '[[realm]]\nname = "link"\ninterface = "lan0"\n',
        f'[node]\naddress = "{address}"\nnear = "link"\nborder = "{border}"\ndevice = "{DEVICE}"',
        *more,
    ]
    if upstream is not None:
        lines.append(f'\n[node.dns]\nlisten = "127.0.0.53"\nupstream = "{upstream}"')
    return "\n".join((*lines, ""))


_CONFIGURATIONS = {
    "door": _DOOR,
    "far": _FAR,
    "host-d": _host(str(_D), "201.5.7.9", None, 'profile = "sip-only"'),
    "new": _host(f"{_SITE}/192.3.4.7", "192.3.4.2", "192.3.4.53"),
    "quad": _host(
        f"{_SITE}/192.3.4.9",
        "192.3.4.2",
        "192.3.4.53",
        'sockets = "ipv4"',
        f"\n[node.alias]\npools = {json.dumps(_ALIASES)}",
    ),
    # It has no IPv4: its DNS server asks over SIP, a nameserver that has IPv4 alone.
    "pure": _host(f"{_HILL}/10.0.0.7", "10.0.0.1", f"c{_SITE}/192.3.4.53", 'profile = "sip-only"'),
}


def start(lab: Lab, setting: Setting) -> None:
    """Start the nameserver, isthmus wherever it belongs, and the stock servers of host-d."""
    if missing := missing_tools(*stock.PACKAGES, NAMESERVER, BROWSER):
        raise LabError(missing)
    lines = (
        host_record("host-d", str(_D)),
        *(host_record(each.name, each.sip) for each in _CLIENTS if each.name != "old"),
        "old A 192.3.4.1",
    )
    start_nameserver(lab["names"], "192.3.4.53", {"example.": zone("example.", lines)})
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda name: _up(lab[name], setting), _CONFIGURATIONS))
    host = lab["host-d"]
    stock.start_web(host, ipv6=True)
    stock.start_web(lab["new"], ipv6=True)
    stock.start_sshd(host, _keys(lab))
    for at in range(len(_CLIENTS)):
        words = ("iperf3", "--server", "--forceflush", "--port", str(_IPERF_PORT + at))
        host.start(f"iperf3-{at}", *words, ready="Server listening")


def _up(node: Node, setting: Setting) -> None:
    general = f'[isthmus]\nname = "{node.name}"\nrun = "{node.run_directory}"\nplane = "{setting.plane}"\n\n'
    node.up(general + _CONFIGURATIONS[node.name])


def _keys(lab: Lab) -> Path:
    return lab.record.directory / "keys"


# --- the play -------------------------------------------------------------------------------


def play(lab: Lab, setting: Setting) -> Iterator[Check]:
    """Run everything at each host; then an alias that spoils checksums."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for checks in pool.map(lambda client: list(_programs(lab, client)), _CLIENTS):
            yield from checks
    for client in _CLIENTS:
        yield _seen_on_the_way(lab, client)
    yield check_sums(*(lab[name] for name in ("host-d", "names", *(each.name for each in _CLIENTS))))
    if setting.plane != "reference":
        yield check_carried(*(lab[name] for name in _CONFIGURATIONS))
    yield from _wrong_residue(lab)


def _names(lab: Lab, client: _Client) -> Check:
    """What DNS tells of a host that has an AA record alone."""
    told = stock.look_up(lab[client.name], client.asks, HOST_D)
    uses = "AAAA" if client.ethertype == IPV6 else "A"
    return Check(f"{client.what}: names", told[uses] == [client.told], f"{HOST_D} is {told}")


def _by_name(lab: Lab, client: _Client, *command: str) -> CompletedProcess[str]:
    return stock.by_name(lab[client.name], client.asks, *command)


def _programs(lab: Lab, client: _Client) -> Iterator[Check]:
    """Run everything at one host."""
    who, seen = client.what, client.seen
    yield _names(lab, client)
    done = _by_name(lab, client, *stock.fetch(f"http://{HOST_D}/"))
    yield Check(f"{who}: curl", done.stdout.startswith(f"You are {seen} port"), stock.words(done))
    done = _by_name(lab, client, *stock.ssh(_keys(lab), HOST_D, 'echo "$SSH_CONNECTION"'))
    yield Check(f"{who}: ssh", done.stdout.startswith(f"{seen} "), stock.words(done))
    yield from _iperf3(lab, client)
    done = _by_name(lab, client, *browse(lab[client.name], f"http://{HOST_D}/browser"))
    yield Check(f"{who}: browser", f"You are {seen} port" in done.stdout, stock.words(done))
    yield check_tcp(lab[client.name], client.told, who)
    yield check_udp(lab[client.name], client.told, who)
    yield check_ping(lab[client.name], client.told, who, ttl=63 if client.name == "pure" else 62)


def _iperf3(lab: Lab, client: _Client) -> Iterator[Check]:
    for name, options in (
        ("iperf3 TCP", ("--bytes", "1M")),
        ("iperf3 TCP back", ("--bytes", "1M", "--reverse")),
        ("iperf3 UDP", ("--udp", "--bytes", "200K", "--bitrate", "4M")),
    ):
        port = str(_IPERF_PORT + _CLIENTS.index(client))
        done = _by_name(lab, client, "iperf3", "--client", HOST_D, "--port", port, "--json", *options)
        try:
            end: dict[str, Any] = json.loads(done.stdout)["end"]
            octets = (end["sum_received"] if "sum_received" in end else end["sum"])["bytes"]
        except (ValueError, KeyError):
            octets = 0
        yield Check(f"{client.what}: {name}", octets > 100_000, f"{octets} octets" if octets else stock.words(done))


# --- captures -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Segment:
    """One TCP segment with the addresses it had at one place."""

    source: Address
    destination: Address
    octets: bytes

    @property
    def fits(self) -> bool:
        """Whether the checksum in it is right by the rule of SIP (spec 5.1)."""
        rule = transport_rule(self.source, self.destination)
        ends = {"src": self.source, "dst": self.destination}
        return fits(rule, **ends, payload_type=Protocol.TCP, octets=self.octets)


def _segments(capture: Capture) -> list[_Segment]:
    """The TCP segments to and from port 80 in a capture, out of whatever they are in."""
    found = [_segment(each.octets) for each in capture.packets]
    return [each for each in found if each is not None and 80 in _ports(each.octets)]


def _ports(octets: bytes) -> tuple[int, int]:
    return int.from_bytes(octets[:2], "big"), int.from_bytes(octets[2:4], "big")


def _segment(packet: bytes) -> _Segment | None:
    view: Ipv4View | Ipv6View | SipView
    if packet[0] >> 4 == 4:
        view = Ipv4View.parse(packet)
        if view.protocol == 41:
            return _segment(bytes(view.payload))
        kind = view.protocol
    elif int.from_bytes(packet[4:6], "big") + 24 == len(packet):
        view = SipView.parse(packet)
        kind = view.payload_type
    else:
        view = Ipv6View.parse(packet)
        kind = view.next_header
    return _Segment(view.src, view.dst, bytes(view.payload)) if kind == Protocol.TCP else None


def _seen_on_the_way(lab: Lab, client: _Client) -> Check:
    """Fetch a page, and compare what the program's kernel sent with what passed every link and came to the other's."""
    places = [(client.name, client.device, client.ethertype), ("host-d", "lan0", IPV4), ("host-d", DEVICE, IPV6)]
    if client.name != "pure":
        places.insert(1, ("far", "net0", IPV4))
    with contextlib.ExitStack() as open_:
        captures = [
            open_.enter_context(capturing(lab[node], interface, ethertypes=(kind,))) for node, interface, kind in places
        ]
        url = f"http://{HOST_D}/octets/{_PAGE}"
        done = _by_name(lab, client, *stock.fetch(url, "--output", "/dev/null", "--write-out", "%{size_download}"))
        wait_until(lambda: len({len(_segments(each)) for each in captures}) == 1, 2)
    seen = [_segments(each) for each in captures]
    kinds = sorted(each.octets for each in seen[0])
    untouched = all(sorted(each.octets for each in place) == kinds for place in seen)
    mine = Address.parse_sip(client.sip)
    sip = [each for place in seen[1:-1] for each in place]
    addresses = all({each.source, each.destination} == {mine, _D} for each in sip)
    right = all(each.fits for each in sip)
    rule = transport_rule(mine, _D)
    return Check(
        f"{client.what}: 64 bits on every link, and nobody touches the transport",
        ok=done.stdout == str(_PAGE) and bool(kinds) and untouched and addresses and right,
        detail=f"{len(kinds)} segments between {mine} and {_D}, the same at {len(places)} places: {untouched}; "
        f"checksums right by the {'compatible' if rule is PseudoHeader.COMPATIBLE else 'full'} rule: {right}",
    )


def _wrong_residue(lab: Lab) -> Iterator[Check]:
    """An alias that was bound on purpose although its words do not add up: ICMP gets through, nothing else does."""
    old, new = lab["old"], lab["new"]
    yield check_ping(old, _SPOILT, "an alias of the wrong residue")
    before = checksum_errors(new)["TcpInCsumErrors"]
    with capturing(new, DEVICE, ethertypes=(IPV6,)) as capture:
        done = old.run("curl", "--silent", "--max-time", "2.5", f"http://{_SPOILT}/", check=False)
        wait_until(lambda: _counted(new) - before == _calls(capture), 2)
    sent, counted = _calls(capture), _counted(new) - before
    yield Check(
        "an alias of the wrong residue: every SYN is a checksum error to the kernel that receives it",
        ok=done.returncode == 28 and sent == counted > 1,
        detail=f"{sent} SYN, {counted} TcpInCsumErrors, curl: {stock.words(done)}",
    )


def _counted(node: Node) -> int:
    return checksum_errors(node)["TcpInCsumErrors"]


def _calls(capture: Capture) -> int:
    return sum(each.octets[13] & 0x02 != 0 for each in _segments(capture))


SCENARIO = Scenario(
    name=NAME,
    title="curl, ssh, iperf3 and a browser reach a SIP-only host by name, from hosts of every kind",
    shows=("seed IPAE 3.4", "seed IPAE 4.5", "seed IPAE 6.1", "seed IPAE 6.2"),
    network=_network(),
    start=start,
    play=play,
    root=True,
)
