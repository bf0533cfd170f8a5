# SPDX-License-Identifier: BSD-3-Clause
"""NAT beside RSIP on one gateway and one address (seed RSIP 4).

Hosts that do not speak RSIP go out by the kernel's translation, to ports that no pool has. Two things
could go wrong, and both are looked for: somebody else's rule that translates to leased ports, and
programs of the gateway itself that draw ephemeral ports which are leased: what comes back for such a port
goes to the holder of its lease.

The table is written in the language of ``nft``::

    leased     prerouting, raw   packets of leased addresses and ports are not tracked
    only       forward           private sources leave by what can be translated, or not at all
    translate  postrouting, nat  TCP and UDP to the ports, ICMP queries to the same numbers as identifiers
"""

from __future__ import annotations

import contextlib
import json
import shlex
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from isthmus.border.ranges import Ranges
from isthmus.daemon.config import Config
from isthmus.daemon.config.gateway import IKE_PORT, GatewaySection
from isthmus.daemon.offloop import off_loop
from isthmus.daemon.terms import section
from isthmus.errors import PlaneError, Unsupported

_EVERY_PORT = Ranges(((1, 65535),))
_NFT_SECONDS = 30
_PROC = Path("/proc/sys/net/ipv4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong, and what to do."""

    what: str
    remedy: str


def table_name(config: Config) -> str:
    """What our table is called."""
    return f"isthmus_nat_{config.isthmus.name}"


def ruleset(config: Config) -> str:
    """The table that a configuration wants, as ``nft -f`` reads it; it replaces what stands in one transaction.

    Raises:
        ControlError: the configuration has no ``[gateway]``.
    """
    gateway = section(config)
    table = table_name(config)
    remove = f"table ip {table}\ndelete table ip {table}\n"
    if gateway.nat is None:
        return remove
    nat = gateway.nat
    far = next(each.interface for each in config.realm if each.name == gateway.realm)
    private = f'oifname "{far}" ip saddr {{ {", ".join(map(str, nat.networks))} }}'
    to = f"{nat.address}:{nat.ports}"
    chains = (
        ("leased", "filter hook prerouting priority raw", _untracked(gateway)),
        (
            "only",
            "filter hook forward priority filter",
            [f"{private} meta l4proto != {{ icmp, tcp, udp }} counter drop"],
        ),
        (
            "translate",
            "nat hook postrouting priority srcnat",
            [f"{private} meta l4proto {{ tcp, udp }} snat to {to}", f"{private} ip protocol icmp snat to {to}"],
        ),
    )
    text = [f"{remove}table ip {table} {{"]
    for name, hook, rules in chains:
        text += [f"  chain {name} {{", f"    type {hook}; policy accept;", *(f"    {rule}" for rule in rules), "  }"]
    return "\n".join([*text, "}", ""])


def _untracked(gateway: GatewaySection) -> list[str]:
    """What is leased has nothing to do with connection tracking."""
    rules = []
    for pool in gateway.pool:
        for side, port in (("saddr", "sport"), ("daddr", "dport")):
            if pool.prefix is not None:
                rules.append(f"ip {side} {pool.prefix} notrack")
                continue
            ports = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in leased_ports(gateway, pool.address).pairs)
            if ports:  # none, where an address is for IPsec only
                rules.append(f"ip {side} {pool.address} meta l4proto {{ tcp, udp }} th {port} {{ {ports} }} notrack")
            if pool.spis is not None:
                rules.append(f"ip {side} {pool.address} meta l4proto {{ esp, ah }} notrack")
    return rules


def leased_ports(gateway: GatewaySection, address: IPv4Address | None) -> Ranges:
    """The ports of an address that may be leased."""
    for pool in gateway.pool:
        if pool.prefix is not None and address is not None and address in pool.prefix:
            return _EVERY_PORT
        if pool.address == address:
            return (pool.ports or Ranges(())) | (Ranges.of(IKE_PORT) if pool.ike else Ranges(()))
    return Ranges(())


def apply(config: Config) -> None:
    """Make the kernel have the table that is wanted, or none where nothing is.

    Raises:
        Unsupported: there is no ``nft``, or the kernel refuses.
    """
    _nft("-f", "-", text=ruleset(config))


def remove(config: Config) -> None:
    """Take our table away; one that is not there is no error.

    Raises:
        Unsupported: there is no ``nft``, or the kernel refuses.
    """
    table = table_name(config)
    _nft("-f", "-", text=f"table ip {table}\ndelete table ip {table}\n")


def standing(config: Config) -> str:
    """Our table as the kernel has it, without counters; empty if there is none."""
    done = _run(["nft", "--stateless", "list", "table", "ip", table_name(config)])
    return done.stdout if done.returncode == 0 else ""


def wanted(config: Config) -> str:
    """The same of what is wanted, as this kernel would say it: it is tried in a network namespace of its own."""
    table = shlex.quote(table_name(config))
    script = f"nft -f - && nft --stateless list table ip {table}"
    done = _run(["unshare", "--net", "sh", "-c", script], ruleset(config))
    if done.returncode:
        raise Unsupported("a network namespace to try rules in", remedy=f"run as root ({_first_line(done.stderr)})")
    return done.stdout


def faults(config: Config) -> Iterator[Fault]:
    """Whatever is not as it should be: our table, rules of others, ports that programs of this machine draw.

    Raises:
        Unsupported: there is no ``nft``, or it may not be asked.
    """
    gateway = section(config)
    far = next(each.interface for each in config.realm if each.name == gateway.realm)
    own = addresses_of(far)
    yield from ephemeral_faults(gateway, own)
    yield from foreign_rules(config, far, own)
    if gateway.nat is None:
        if standing(config):
            what = f"the table {table_name(config)} stands, and the configuration has no [gateway.nat]"
            yield Fault(what=what, remedy="isthmus nat remove CONFIG")
        return
    if _setting("ip_forward") != "1":
        yield Fault(what="this machine does not route", remedy="sysctl -w net.ipv4.ip_forward=1")
    yield from _table_faults(config)


def faults_found(config: Config) -> tuple[Fault, ...]:
    """The same for a daemon, as far as it can be looked for and we understand what ``nft`` says."""
    found: list[Fault] = []
    with contextlib.suppress(PlaneError, ValueError, KeyError, TypeError):
        found.extend(faults(config))
    return tuple(found)


def _table_faults(config: Config) -> Iterator[Fault]:
    have, want = standing(config), wanted(config)
    if have == want:
        return
    if not have:
        yield Fault(what=f"the table {table_name(config)} is not there", remedy="isthmus nat apply CONFIG")
        return
    missing = [line.strip() for line in want.splitlines() if line not in have.splitlines()]
    foreign = [line.strip() for line in have.splitlines() if line not in want.splitlines()]
    for line in missing:
        yield Fault(what=f"{table_name(config)} lacks: {line}", remedy="isthmus nat apply CONFIG")
    for line in foreign:
        yield Fault(
            what=f"{table_name(config)} has what does not belong there: {line}", remedy="isthmus nat apply CONFIG"
        )
    if not missing and not foreign:
        yield Fault(what=f"the rules of {table_name(config)} are in another order", remedy="isthmus nat apply CONFIG")


def foreign_rules(config: Config, far: str, own: frozenset[IPv4Address]) -> Iterator[Fault]:
    """Rules of other tables that may translate to a port that is leased."""
    gateway = section(config)
    for entry in _listed():
        rule = entry.get("rule")
        if rule is None or rule["table"] == table_name(config) or rule["family"] not in ("ip", "inet"):
            continue
        for found, addresses, ports in _translations(rule, own):
            if not _leaves_by(rule, far):
                continue
            for address in addresses:
                both = _common(ports, leased_ports(gateway, address))
                if both:
                    yield Fault(
                        what=f"a rule of table {rule['family']} {rule['table']}, chain {rule['chain']}, may {found} to"
                        f" {address} port {both}, which is leased",
                        remedy=f"nft delete rule {rule['family']} {rule['table']} {rule['chain']} handle"
                        f" {rule['handle']}, and let [gateway.nat] do it",
                    )


def _translations(
    rule: dict[str, Any], own: frozenset[IPv4Address]
) -> Iterator[tuple[str, frozenset[IPv4Address], Ranges]]:
    """What a rule may make of a source: how, which addresses, which ports."""
    for statement in rule.get("expr", ()):
        if "masquerade" in statement:
            yield "masquerade", own, _ports_of(statement["masquerade"])
        elif "snat" in statement:
            yield "translate", _addresses_in(statement["snat"] or {}), _ports_of(statement["snat"])
        elif "xt" in statement:
            yield "translate (a rule of iptables)", own, _EVERY_PORT


def _addresses_in(statement: dict[str, Any]) -> frozenset[IPv4Address]:
    value = statement.get("addr")
    try:
        if isinstance(value, str):
            return frozenset({IPv4Address(value)})
        if isinstance(value, dict) and "range" in value:
            first, last = (int(IPv4Address(each)) for each in value["range"])
            return frozenset(IPv4Address(each) for each in range(first, min(last, first + 65535) + 1))
        if isinstance(value, dict) and "prefix" in value:
            return frozenset(IPv4Network(f"{value['prefix']['addr']}/{value['prefix']['len']}"))
    except ValueError:
        pass
    return frozenset()


def _ports_of(statement: dict[str, Any] | None) -> Ranges:
    value = (statement or {}).get("port")
    if isinstance(value, int):
        return Ranges.of(value)
    if isinstance(value, dict) and "range" in value:
        return Ranges.of((value["range"][0], value["range"][1]))
    return _EVERY_PORT


def _leaves_by(rule: dict[str, Any], far: str) -> bool:
    """Whether a rule may see packets that leave by an interface."""
    for statement in rule["expr"]:
        match = statement.get("match", {})
        if match.get("left") == {"meta": {"key": "oifname"}} and isinstance(match.get("right"), str):
            return bool((match["op"] == "==") is (match["right"] == far))
    return True


def _listed() -> list[dict[str, Any]]:
    listed = _nft("--json", "list", "ruleset")
    entries: list[dict[str, Any]] = json.loads(listed or '{"nftables": []}')["nftables"]
    return entries


def ephemeral_faults(gateway: GatewaySection, own: frozenset[IPv4Address]) -> Iterator[Fault]:
    """Ephemeral ports of this machine's own programs that are leased (``ip_local_port_range``)."""
    first, last = (int(word) for word in (_setting("ip_local_port_range") or "32768 60999").split())
    reserved_text = _setting("ip_local_reserved_ports") or ""
    reserved = Ranges.parse(reserved_text) if reserved_text else Ranges(())
    drawn = Ranges.of((first, last)) - reserved
    for pool in gateway.pool:
        if pool.address is None or pool.address not in own:
            continue
        both = _common(drawn, leased_ports(gateway, pool.address))
        if both:
            yield Fault(
                what=f"programs of this machine may draw port {both} of its address {pool.address}, which is leased",
                remedy=f'sysctl -w net.ipv4.ip_local_reserved_ports="{reserved | both}" (and write it into'
                " /etc/sysctl.d)",
            )


def _common(one: Ranges, other: Ranges) -> Ranges:
    return one - (one - other)


@off_loop
def addresses_of(interface: str) -> frozenset[IPv4Address]:
    """The IPv4 addresses of an interface; none if there is no such interface."""
    with IPRoute() as links:
        found = links.link_lookup(ifname=interface)
        if not found:
            return frozenset()
        return frozenset(
            IPv4Address(each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS"))
            for each in links.get_addr(family=socket.AF_INET, index=found[0])
        )


def _setting(name: str) -> str | None:
    try:
        return (_PROC / name).read_text(encoding="ascii").strip()
    except OSError:
        return None


def _nft(*words: str, text: str = "") -> str:
    done = _run(["nft", *words], text)
    if done.returncode:
        raise Unsupported("rules of nftables", remedy=f"nft says: {_first_line(done.stderr)}")
    return done.stdout


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing"])[0]


def _run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=_NFT_SECONDS, check=False)
    except FileNotFoundError as error:
        raise Unsupported(command[0], remedy="apt-get install nftables util-linux") from error
    except subprocess.TimeoutExpired as error:
        raise PlaneError(f"{command[0]} did not come back within {_NFT_SECONDS} seconds") from error
