# SPDX-License-Identifier: BSD-3-Clause
"""A host without RSIP beside one with it, on one gateway and one public address (seed RSIP 4)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from isthmus.address import Address, Prefix
from isthmus.border.ranges import Ranges
from isthmus.lab import figure
from isthmus.lab.capture import Capture, capturing
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS, wait_until
from isthmus.lab.privilege import missing_tools
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.scenarios import two_hosts
from isthmus.lab.topology import LabError

NAME = "nat-beside"
LEASING, TRANSLATED = "host-a", "host-b"
NAT_PORTS = Ranges(((20000, 29999),))
_CONNECTIONS = 40
_PRIVATE = Prefix.parse("10.0.0.0/8")
_TABLE = "isthmus_nat_gateway"


def start(lab: Lab, setting: Setting) -> None:
    """Start the server, a gateway that leases and translates, and one host that leases."""
    if missing := missing_tools("nftables"):
        raise LabError(missing)
    two_hosts.start_server(lab)
    lines = f"""
[gateway.nat]
address = "{figure.SHARED}"
ports = "{NAT_PORTS}"
networks = ["10.0.0.0/24"]
"""
    lab["gateway"].up(figure.gateway_configuration(lab, setting, more=lines))
    lab[LEASING].up(figure.host_configuration(lab, setting, LEASING))
    if not wait_until(lambda: two_hosts.holds_lease(lab, LEASING), 10, every=0.1):
        raise LabError(f"{LEASING} got no lease within 10 seconds")


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Both at once; then the rules are broken in three ways, and each is found."""
    with capturing(lab["server"], "eth0") as seen:
        yield from _both_at_once(lab)
        yield from _translated_traffic(lab)
    yield _nothing_private(seen)
    yield Check("nothing else uses what is leased", *_clean(lab))
    yield from _foreign_rule(lab)
    yield from _lost_rule(lab)
    yield from _ephemeral_ports(lab)
    yield Check("in the end all is as it was", *_clean(lab))


def _both_at_once(lab: Lab) -> Iterator[Check]:
    before = len(two_hosts.requests(lab))
    pages = two_hosts.fetch_at_once(lab)
    for host, (code, page) in pages.items():
        yield Check(f"{host} fetches the page", code == 0, f"curl ended with {code}: {page.strip()}")
    seen = two_hosts.requests(lab)[before:]
    peers = sorted({str(each["peer"]) for each in seen})
    yield Check("the server saw one public address", peers == [figure.SHARED], ", ".join(peers) or "nobody")
    leased = two_hosts.leased_ports(lab).get(figure.HOSTS[LEASING], Ranges(()))
    for host, ports in ((LEASING, leased), (TRANSLATED, NAT_PORTS)):
        used = [int(each["port"]) for each in seen if str(each["path"]).endswith(host)]
        ok = bool(used) and all(port in ports for port in used)
        yield Check(f"{host} was seen with a port of {ports}", ok, f"ports {used}")


def _translated_traffic(lab: Lab) -> Iterator[Check]:
    before = len(two_hosts.requests(lab))
    url = f"http://{figure.SERVER}/nat"
    script = (
        f"for i in $(seq {_CONNECTIONS}); do curl --silent --max-time 10 --output /dev/null {url} || echo no & done"
    )
    done = lab[TRANSLATED].run("sh", "-c", f"{script}; wait", check=False, seconds=30)
    ports = {int(each["port"]) for each in two_hosts.requests(lab)[before:] if each["path"] == "/nat"}
    ok = not done.stdout and len(ports) == _CONNECTIONS and all(port in NAT_PORTS for port in ports)
    detail = f"{len(ports)} ports, {min(ports, default=0)} to {max(ports, default=0)}"
    yield Check(f"{_CONNECTIONS} connections of {TRANSLATED} at once keep to {NAT_PORTS}", ok, detail)
    done = lab[TRANSLATED].run("ping", "-c", "2", "-i", "0.2", "-W", "2", figure.SERVER, check=False)
    yield Check(f"{TRANSLATED} pings the server", done.returncode == 0, " ".join(done.stdout.split()[-12:]))


def _nothing_private(seen: Capture) -> Check:
    sources = {Address.from_octets(each.octets[12:16]) for each in seen.packets if each.octets[0] >> 4 == 4}
    private = sorted(str(each) for each in sources if each in _PRIVATE)
    detail = ", ".join(private) or f"{len(seen.packets)} packets, sources {', '.join(map(str, sorted(sources)))}"
    return Check("no private address is on the public link", not private and bool(sources), detail)


def _faults(lab: Lab) -> list[dict[str, Any]]:
    node = lab["gateway"]
    path = str(node.directory / "isthmus.toml")
    done = node.run(*ISTHMUS, "nat", "check", path, "--json", check=False)
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise LabError(f"isthmus nat check --json printed no JSON: {done.stdout!r} {done.stderr.strip()}") from error
    if done.returncode != bool(answer["faults"]):
        raise LabError(f"isthmus nat check ended with {done.returncode} and found {answer['faults']}")
    found: list[dict[str, Any]] = answer["faults"]
    return found


def _clean(lab: Lab) -> tuple[bool, str]:
    found = _faults(lab)
    return not found, "; ".join(str(each["what"]) for each in found) or "isthmus nat check finds nothing"


def _finds(lab: Lab, name: str, words: str) -> Check:
    found = _faults(lab)
    fitting = [each for each in found if words in each["what"]]
    shown = f"{fitting[0]['what']} → {fitting[0]['remedy']}" if fitting else f"found {found}"
    return Check(f"isthmus nat check finds {name}", bool(fitting), shown)


def _foreign_rule(lab: Lab) -> Iterator[Check]:
    """A rule as one finds it everywhere, and before ours: it translates to ports that are leased."""
    leased = two_hosts.leased_ports(lab)[figure.HOSTS[LEASING]]
    rule = f"meta l4proto {{ tcp, udp }} oifname wan0 masquerade to :{leased}"
    chain = "{ type nat hook postrouting priority 90; policy accept; }"
    gateway = lab["gateway"]
    gateway.run("nft", f"add table ip home; add chain ip home out {chain}; add rule ip home out {rule}")
    done = lab[TRANSLATED].run("curl", "--silent", "--max-time", "3", f"http://{figure.SERVER}/wrong", check=False)
    yield Check(
        f"with a rule that translates to leased ports {TRANSLATED} is cut off",
        done.returncode != 0,
        f"curl ended with {done.returncode}: what came back for the port went to who holds its lease",
    )
    yield _finds(lab, "that rule", "may masquerade")
    done = lab[LEASING].run("curl", "--silent", "--max-time", "5", f"http://{figure.SERVER}/right", check=False)
    yield Check(f"{LEASING} is not hurt by it", done.returncode == 0, f"curl ended with {done.returncode}")
    gateway.run("nft", "delete table ip home")


def _lost_rule(lab: Lab) -> Iterator[Check]:
    gateway = lab["gateway"]
    gateway.run("nft", "flush", "chain", "ip", _TABLE, "translate")
    yield _finds(lab, "a rule that is missing", f"{_TABLE} lacks")
    path = str(gateway.directory / "isthmus.toml")
    gateway.run(*ISTHMUS, "nat", "apply", path)
    done = lab[TRANSLATED].run("curl", "--silent", "--max-time", "5", f"http://{figure.SERVER}/again", check=False)
    yield Check("isthmus nat apply puts it back", done.returncode == 0, f"curl ended with {done.returncode}")


def _ephemeral_ports(lab: Lab) -> Iterator[Check]:
    """The gateway's own programs must not draw what is leased; the remedy that is printed is one."""
    gateway = lab["gateway"]
    gateway.run("sh", "-c", "echo 15000 60999 > /proc/sys/net/ipv4/ip_local_port_range")
    yield _finds(lab, "ephemeral ports that are leased", "programs of this machine may draw port 15000-19999")
    gateway.run("sh", "-c", "echo 10000-19999 > /proc/sys/net/ipv4/ip_local_reserved_ports")


SCENARIO = Scenario(
    name=NAME,
    title="A host behind NAT and one with a lease share an address and a server; wrong rules are found",
    shows=("seed RSIP 4", "RFC 3102 4.3"),
    network=figure.network(NAME, (LEASING, TRANSLATED), plain=(TRANSLATED,)),
    start=start,
    play=play,
)
