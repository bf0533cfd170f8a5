# SPDX-License-Identifier: BSD-3-Clause
"""A real authoritative nameserver (knot) of the lab, with the records that IPAE adds (spec 6.3).

It knows them as records of unknown types, like any server that was never told of SIP (RFC 3597).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import dns.rdatatype

from isthmus.address import Address
from isthmus.ipae.records import HOST, emit_host, unknown_type_text
from isthmus.lab.node import Node, wait_until
from isthmus.lab.topology import LabError

PACKAGE = "knot"
_PATIENCE_SECONDS = 20.0
_CONFIGURATION = """\
server:
  rundir: "{folder}"
  listen: {address}@53
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
log:
  - target: stderr
    any: warning
database:
  storage: "{folder}"
acl:
  - id: anybody
    address: 0.0.0.0/0
    action: transfer
template:
  - id: default
    storage: "{folder}"
    file: "%s.zone"
    zonefile-sync: -1
    journal-content: none
    acl: anybody
zone:
"""


def host_record(name: str, address: str) -> str:
    """A line of a zone file: the AA record of a host.

    Args:
        name: Below the zone's name, or absolute.
        address: Its SIP address, in any notation of spec 2.3.
    """
    rdata = unknown_type_text(emit_host(Address.parse_sip(address)))
    return f"{name} {dns.rdatatype.to_text(HOST)} {rdata}"


def zone(name: str, lines: Iterable[str], *, serial: int = 1, server: str = "ns.invalid.") -> str:
    """A zone file.

    Args:
        name: The zone's, absolute.
        lines: Its records.
        serial: Of this version.
        server: Name of the nameserver.
    """
    head = (f"$ORIGIN {name}", "$TTL 60", f"@ SOA {server} hostmaster ({serial} 60 15 180 60)", f"@ NS {server}")
    return "\n".join((*head, *lines, ""))


def start_nameserver(node: Node, address: str, zones: Mapping[str, str]) -> None:
    """Start knot at an address of a node and wait until it answers for every zone.

    Args:
        node: Where.
        address: IPv4.
        zones: Zone files by the zones' names.

    Raises:
        LabError: it does not.
    """
    folder = node.directory / "knot"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zones.items():
        zone_file(folder, name).write_text(text, encoding="ascii")
    configuration = folder / "knot.conf"
    domains = "".join(f"  - domain: {name}\n" for name in zones)
    configuration.write_text(_CONFIGURATION.format(folder=folder, address=address) + domains, encoding="ascii")
    daemon = node.start("knot", "/usr/sbin/knotd", "-c", str(configuration))
    for name in zones:
        if not wait_until(lambda name=name: _serves(node, address, name), _PATIENCE_SECONDS):  # type: ignore[misc]
            raise LabError(f"{node.name}: knot does not serve {name}\n{daemon.tail()}")


def zone_file(folder: Path, name: str) -> Path:
    """Where knot reads a zone from."""
    return folder / f"{name.rstrip('.')}.zone"


def _serves(node: Node, address: str, name: str) -> bool:
    asked: Sequence[str] = ("dig", "+short", "+tries=1", "+time=1", f"@{address}", name, "SOA")
    done = node.run(*asked, check=False)
    return done.returncode == 0 and bool(done.stdout.strip())
