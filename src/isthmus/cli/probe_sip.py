# SPDX-License-Identifier: BSD-3-Clause
"""What a border router or node of IPAE needs of the machine."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.cli.finding import Finding, missing, ok, warn
from isthmus.errors import ConfigError, IsthmusError

if TYPE_CHECKING:
    from isthmus.address import Address
    from isthmus.daemon.config import Config

_SMALLEST_LINK = 1284
"""What carries the smallest IPv6 packet as an IPAE datagram: 1280, less 16, and 20 more (spec 3.5)."""


def findings(config: Config) -> Iterator[Finding]:
    """Look at addresses, offloads, IPv6 sockets and the mapping file."""
    yield from _addresses(config)
    from isthmus.daemon import config as configuration
    from isthmus.daemon.link_address import is_there

    for each in config.realm:
        if is_there(each.interface):
            yield _merging(each.interface)
    dns = next((each.dns for each in (config.border, config.node) if each is not None), None)
    if dns is not None:
        yield _name_server(configuration.address(dns.listen), dns.port)
    if config.node is not None:
        yield from _programs(config)
    if config.border is not None and config.border.mapping is not None:
        yield from _mapping(config)


def _addresses(config: Config) -> Iterator[Finding]:
    from isthmus.daemon.sip_terms import Surroundings, border_router, node

    around = Surroundings.of(config)
    name = "border" if config.border is not None else "node"
    try:
        terms = border_router(config, around) if config.border is not None else node(config, around, "sip0p")
    except ConfigError as error:
        yield missing(f"{name} addresses", str(error), "give the interface that address, or correct the file")
        return
    ends = ", ".join(str(each.address) for each in terms.border.tunnel_ends)
    yield ok(f"{name} addresses", f"IPAE datagrams come to {ends}" if ends else "no IPAE datagrams come here")


def _name_server(address: Address, port: int) -> Finding:
    from isthmus.daemon.synthesis_server import problem_of, remedy_of

    name, problem = f"dns {address}", problem_of(address, port)
    if problem is None:
        return ok(name, f"port {port} can be listened on")
    if problem.errno == errno.EADDRINUSE:
        return warn(name, f"port {port} is in use", "nothing, if this isthmus runs; else let the other server end")
    return missing(name, f"port {port}: {remedy_of(problem)}", "correct the configuration, or give what is lacking")


def _merging(interface: str) -> Finding:
    from isthmus.plane.link.features import merges

    state = "is on, and is turned off while isthmus runs" if merges(interface) else "is off"
    return ok(f"merging {interface}", f"receive merging (GRO) {state}")


def _programs(config: Config) -> Iterator[Finding]:
    from isthmus.daemon.sip_terms import Surroundings, device_mtu

    assert config.node is not None
    around = Surroundings.of(config)
    link = around.mtus[config.node.near]
    name = f"device {config.node.device}"
    if config.node.sockets == "ipv6" and not Path("/proc/sys/net/ipv6").exists():
        yield missing(name, "this kernel has no IPv6", 'write sockets = "ipv4" and [node.alias]')
    elif link < _SMALLEST_LINK:
        remedy = f"let the link carry {_SMALLEST_LINK}"
        yield warn(name, f"the link carries {link}: what fills an IPv6 packet of 1280 is sent in fragments", remedy)
    else:
        yield ok(name, f"programs' packets have up to {device_mtu(config, around)} octets on a link of {link}")


def _mapping(config: Config) -> Iterator[Finding]:
    from isthmus.daemon.mapping_table import read_table
    from isthmus.daemon.sip_terms import Surroundings, own_networks

    assert config.border is not None
    assert config.border.mapping is not None
    path = config.border.mapping.file
    if path is None:
        return
    try:
        table = read_table(path, own_networks(config, Surroundings.of(config)))
    except IsthmusError as error:
        remedy = f"isthmus map check {path}" if path.exists() else "write it (docs/mapping.md), or an empty one"
        yield missing("mapping", str(error).splitlines()[0], remedy)
    else:
        count = len(table.mapping)
        yield ok("mapping", f"{path} has {count} {'entry' if count == 1 else 'entries'}")
