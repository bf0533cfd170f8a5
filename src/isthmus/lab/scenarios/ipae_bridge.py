# SPDX-License-Identifier: BSD-3-Clause
"""RSIP and IPAE in one: two hosts 10.0.0.7 lease ports of one public address, each by the way that it has.

::

    site 1.2.2.8                                                    site 1.9.9.9, IPv4 as of old
    sip 10.0.0.7 ─── SIP only ─ gateway ─ 128.1.1 ─── other ─────────── host 10.0.0.7
                            201.5.7.9  └── www 128.1.1.80, which knows IPv4 only

``gateway`` is a border router and an RSIP gateway. To RSIP both hosts are what IPAE makes of them: one of the site, and
an alias. The one has its tunnel in SIP packets, the other's becomes such on its way; RSIP knows of neither.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from isthmus.border.ranges import Ranges
from isthmus.lab.capture import Captured, capturing
from isthmus.lab.lab import Lab
from isthmus.lab.node import wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.stock import fetch, requests_of, start_web, words
from isthmus.lab.topology import OPEN_FORWARDING, LabError, Network, NodePlan, wire
from isthmus.lab.traffic import all_of, check_sums, url
from isthmus.lab.web import read_log
from isthmus.wire.sip.header import VERSION, SipView
from isthmus.wire.transport import Protocol

NAME = "ipae-bridge"
SITE, OTHER_SITE = "1.2.2.8", "1.9.9.9"
TWIN = "10.0.0.7"
"""The IPv4 address of the one host, and the low half of the other's."""
GATEWAY = "201.5.7.9"
"""Where RSIP is spoken: an address of the first site that the second does not have, too."""
LEASED, SERVER = "128.1.1.77", "128.1.1.80"
_BORDER, _OTHER = "128.1.1.3", "128.1.1.9"
_FORWARDING = OPEN_FORWARDING | {"net.ipv4.ip_forward": "1"}
_PUBLISHED = {"sip": 20080, "host": 20081}
_PORTS = 16


def network() -> Network:
    """Two sites with a border router each, and a server between them."""
    return Network(
        name=NAME,
        nodes=(
            NodePlan(name="sip", sysctls=OPEN_FORWARDING),
            NodePlan(name="gateway", sysctls=_FORWARDING),
            NodePlan(name="internet", segment=True),
            NodePlan(name="www"),
            NodePlan(name="other", sysctls=_FORWARDING),
            NodePlan(name="host", routes=("default via 10.0.0.1",), sysctls=OPEN_FORWARDING),
        ),
        cables=(
            wire(("sip", "eth0"), ("gateway", "lan0", "10.0.0.1/8", f"{GATEWAY}/32")),
            wire(("gateway", "wan0", f"{_BORDER}/24"), ("internet", "gateway")),
            wire(("www", "eth0", f"{SERVER}/24"), ("internet", "www")),
            wire(("other", "wan0", f"{_OTHER}/24"), ("internet", "other")),
            wire(("other", "lan0", "10.0.0.1/8"), ("host", "eth0", f"{TWIN}/8")),
        ),
    )


# --- what is configured -----------------------------------------------------------------------


def _general(lab: Lab, setting: Setting, name: str) -> str:
    return f'[isthmus]\nname = "{name}"\nrun = "{lab[name].run_directory}"\nplane = "{setting.plane}"\n'


def _realms(site: str) -> str:
    return f"""
[[realm]]
name = "site"
interface = "lan0"
site = "{site}"
[[realm]]
name = "internet"
interface = "wan0"
"""


def gateway_configuration(lab: Lab, setting: Setting) -> str:
    """A border router that leases an address of the Internet to whoever reaches it, by whichever way."""
    return f"""{_general(lab, setting, "gateway")}{_realms(SITE)}
[border]
address = "{SITE}/10.0.0.1"
hosts = ["{SITE}/{TWIN}"]
milestone = "R"
[[border.route]]
to = "{SITE}"
c = 0
via = {{ native = "site" }}
[[border.route]]
to = "{OTHER_SITE}"
via = {{ ipae = "{_OTHER}" }}
[border.alias]
pools = ["100.64.0.0/16"]

[gateway]
near = "site"
realm = "internet"
address = "{GATEWAY}"
[[gateway.pool]]
address = "{LEASED}"
ports = "20000-20999"
"""


def other_configuration(lab: Lab, setting: Setting) -> str:
    """A border router whose site learns of one address elsewhere: the gateway's."""
    node = lab["other"]
    node.directory.mkdir(parents=True, exist_ok=True)
    table = node.directory / "map.txt"
    table.write_text(f"{GATEWAY}/32 c{SITE}\n", encoding="ascii")
    return f"""{_general(lab, setting, "other")}{_realms(OTHER_SITE)}
[border]
address = "{OTHER_SITE}/10.0.0.1"
milestone = "R"
[[border.route]]
to = "{SITE}"
via = {{ ipae = "{_BORDER}" }}
[border.mapping]
file = "{table}"
"""


def sip_configuration(lab: Lab, setting: Setting) -> str:
    """A SIP-only host whose programs have IPv4 sockets, and which leases by one of them."""
    return f"""{_general(lab, setting, "sip")}
[[realm]]
name = "link"
interface = "eth0"
[[realm]]
name = "programs"
interface = "sip0"
[node]
address = "{SITE}/{TWIN}"
profile = "sip-only"
near = "link"
border = "10.0.0.1"
device = "sip0"
sockets = "ipv4"
peers = ["c{SITE}/{GATEWAY}"]
[node.alias]
pools = ["100.65.0.0/16"]
{_leases("programs", "sip")}"""


def host_configuration(lab: Lab, setting: Setting) -> str:
    """A host that has never heard of SIP."""
    return f"""{_general(lab, setting, "host")}
[[realm]]
name = "site"
interface = "eth0"
{_leases("site", "host")}"""


def _leases(near: str, name: str) -> str:
    return f"""[host]
near = "{near}"
gateway = "{GATEWAY}"
[[host.lease]]
ports = {_PORTS}
routes = ["128.1.1.0/24"]
[[host.lease]]
ports = "{_PUBLISHED[name]}"
listen = true
"""


def start(lab: Lab, setting: Setting) -> None:
    """Start the borders, then the hosts, and wait until each has its leases."""
    start_web(lab["www"], ipv6=False)
    _start(lab, {"gateway": gateway_configuration(lab, setting), "other": other_configuration(lab, setting)})
    _start(lab, {"sip": sip_configuration(lab, setting), "host": host_configuration(lab, setting)})
    for name, port in _PUBLISHED.items():
        pages = lab[name].directory / "pages"
        pages.mkdir()
        (pages / "index.html").write_text(f"a page of {name}\n", encoding="ascii")
        page = (sys.executable, "-m", "http.server", str(port), "--directory", str(pages))
        lab[name].start("page", *page, ready="Serving HTTP")
    for name in _PUBLISHED:
        if not wait_until(lambda: len(_held(lab, name)) == 2, 15, every=0.1):  # noqa: B023 - called at once
            raise LabError(f"{name} did not get its leases within 15 seconds\n{lab[name].daemons['isthmus'].tail()}")


def _start(lab: Lab, configurations: Mapping[str, str]) -> None:
    """Start several daemons at the same time."""
    with ThreadPoolExecutor(len(configurations)) as pool:
        list(pool.map(lambda name: lab[name].up(configurations[name]), configurations))


# --- what must hold ---------------------------------------------------------------------------


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Two hosts of one address lease of one address, call from it, and are called there."""
    yield from _leased(lab)
    for name in _PUBLISHED:
        yield from _calls(lab, name)
        yield from all_of(lab[name], SERVER, f"{name} to the server")
        yield _is_called(lab, "www", SERVER, name)
    yield _is_called(lab, "sip", LEASED, "host")
    yield _is_called(lab, "host", LEASED, "sip")
    yield check_sums(*(lab[name] for name in ("sip", "host", "www")))


def _held(lab: Lab, name: str) -> list[dict[str, Any]]:
    return list(lab[name].isthmus("leases"))


def _leased(lab: Lab) -> Iterator[Check]:
    rows = lab["gateway"].isthmus("leases")
    known = {row["alias"]: row["address"] for row in lab["gateway"].isthmus("routes", "--aliases")}
    text = ", ".join(f"{row['host']} has {row['address']} {row['ports']}" for row in rows)
    both = {row["address"] for row in rows} == {LEASED} and len(rows) == 4
    yield Check("both hosts hold ports of one public address", both, text)
    twin = f"c{OTHER_SITE}/{TWIN}"
    hosts = {known.get(row["host"], f"{SITE}/{row['host']}") for row in rows}
    ok = hosts == {f"{SITE}/{TWIN}", twin}
    yield Check(f"the gateway tells the two {TWIN} apart", ok, f"{text}; aliases: {known}")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What passed two links while a host called."""

    near: list[Captured]
    far: list[Captured]


def _calls(lab: Lab, name: str) -> Iterator[Check]:
    """Stock curl; what it takes for its own address is what the server sees."""
    with capturing(lab[name], "eth0") as near, capturing(lab["www"], "eth0") as far:
        done = lab[name].run(
            *fetch(url(SERVER, f"/from-{name}"), "--write-out", "%{local_ip} %{local_port}"), check=False
        )
    page, _, local = done.stdout.rpartition("\n")
    address, _, port = local.partition(" ")
    held = Ranges(()) if not port.isdigit() else Ranges.parse(next(row["ports"] for row in _held(lab, name)))
    told = [
        f"{row['peer']} {row['port']}" for row in read_log(requests_of(lab["www"])) if row["path"] == f"/from-{name}"
    ]
    ok = page == f"You are {address} port {port}." and told == [local] and address == LEASED
    yield Check(
        f"{name}: the server sees the address and port that curl has",
        ok,
        f"curl: {local}; server: {page or words(done)}",
    )
    yield Check(f"{name}: it is one of those leased", port.isdigit() and int(port) in held, f"{port} of {held}")
    yield from _on_the_wire(name, _Seen(near.packets, far.packets))


def _on_the_wire(name: str, seen: _Seen) -> Iterator[Check]:
    """No NAT: what leaves the host inside of its tunnel is what the server gets, octet for octet."""
    sip = [each.octets for each in seen.near if each.octets[0] >> 4 == VERSION]
    plain = [each.octets for each in seen.near if each.octets[0] >> 4 == 4]
    inner = [each[24:] for each in sip if SipView.parse(each).payload_type == Protocol.IPIP]
    inner += [each[20:] for each in plain if each[9] == Protocol.IPIP]
    text = f"{len(sip)} SIP packets and {len(plain)} of IPv4, {len(inner)} with an IPv4 packet inside"
    alone = bool(sip) and not plain if name == "sip" else bool(plain) and not sip
    kind = "SIP and nothing else" if name == "sip" else "IPv4 and nothing else"
    yield Check(f"{name}: {kind} on its link", alone and bool(inner), text)
    sent, got = ({_end_to_end(each) for each in packets} for packets in (inner, [each.octets for each in seen.far]))
    common = len(sent & got)
    yield Check(
        f"{name}: nothing but the TTL changes between host and server",
        sent <= got,
        f"{common} of {len(sent)} packets the same",
    )


def _end_to_end(packet: bytes) -> bytes:
    """An IPv4 packet without TTL and header checksum."""
    return packet[:8] + packet[9:10] + packet[12:]


def _is_called(lab: Lab, caller: str, address: str, name: str) -> Check:
    """A stock server at a leased port, and who it thinks has called."""
    done = lab[caller].run(*fetch(url(LEASED, f"/?by-{caller}", _PUBLISHED[name])), check=False)
    log = lab[name].daemons["page"].log
    wait_until(lambda: f"by-{caller}" in log.read_text(encoding="utf-8"), 2)
    line = next((each for each in log.read_text(encoding="utf-8").splitlines() if f"by-{caller}" in each), "nobody")
    ok = done.stdout == f"a page of {name}\n" and line.startswith(f"{address} ")
    return Check(
        f"{name} is called by {caller} at {LEASED}:{_PUBLISHED[name]}", ok, f"{words(done)}; {name} saw {line}"
    )


SCENARIO = Scenario(
    name=NAME,
    title="Two hosts 10.0.0.7, one of SIP only and one of another site, lease ports of one public address",
    shows=("seed IPAE 6.3", "seed RSIP 4.2", "RFC 3102 4.1", "RFC 3102 6.7"),
    network=network(),
    start=start,
    play=play,
    root=True,
)
