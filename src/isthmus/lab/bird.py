# SPDX-License-Identifier: BSD-3-Clause
"""Stock BIRD in the machines of a lab: SIP prefixes carried as IPv6 prefixes, into a table of the kernel."""

from __future__ import annotations

import json

from isthmus.address import Address, Family, Prefix
from isthmus.lab.hops import FULL
from isthmus.lab.node import Node
from isthmus.lab.privilege import missing_tools
from isthmus.lab.topology import LabError

TABLE = 4641
"""The table that BIRD writes to and isthmus reads, unless their configurations say another."""
_PATH = "/usr/sbin/"


def carried(prefix: str) -> Prefix:
    """The IPv6 prefix that carries a SIP prefix."""
    found = Prefix.parse_sip(prefix)
    return Prefix(Address(Family.IPV6, FULL.address.number | found.address.number), 64 + found.length)


def start_bird(node: Node, router_id: str, configuration: str, *, learned: str) -> None:
    """Start BIRD with protocols of its own.

    Args:
        node: Where.
        router_id: Any IPv4 address of it.
        configuration: Its protocols, but those that every BIRD has here.
        learned: Which routes it enters into the table, as a condition of a filter.

    Raises:
        LabError: there is no BIRD.
    """
    if missing := missing_tools("bird2"):
        raise LabError(missing)
    node.directory.mkdir(parents=True, exist_ok=True)
    path = node.directory / "bird.conf"
    text = f"""\
router id {router_id};
log stderr all;
protocol device {{ }}
{configuration}
protocol kernel {{
  kernel table {TABLE};
  ipv6 {{ import none; export where {learned}; }};
}}
"""
    path.write_text(text, encoding="ascii")
    node.start("bird", f"{_PATH}bird", "-f", "-c", str(path), "-s", str(node.directory / "bird.ctl"))


def birdc(node: Node, *words: str) -> None:
    """Tell BIRD something."""
    node.run(f"{_PATH}birdc", "-s", str(node.directory / "bird.ctl"), *words)


def entered(node: Node) -> dict[str, tuple[str, str]]:
    """What BIRD has entered with a next system: address and interface of that, by IPv6 prefix."""
    done = node.run("ip", "-json", "-6", "route", "show", "table", str(TABLE), check=False)
    found = json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else []
    return {each["dst"]: (each["gateway"], each["dev"]) for each in found if "gateway" in each}


def learned_routes(node: Node) -> dict[str, str]:
    """What isthmus has learned from it: ways by SIP prefix, as ``isthmus routes`` shows them."""
    return {row["to"]: row["via"] for row in node.isthmus("routes") if row["learned"]}
