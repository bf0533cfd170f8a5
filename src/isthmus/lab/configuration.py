# SPDX-License-Identifier: BSD-3-Clause
"""Pieces of the files that ``isthmus up`` reads, for systems that speak SIP."""

from __future__ import annotations

import json

from isthmus.lab.node import Node
from isthmus.lab.scenario import Setting


def table(title: str, **keys: object) -> str:
    """A table: its title, with brackets, and its keys; what is None is left out."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items() if value is not None]
    return "\n".join((title, *lines, "", ""))


def general(node: Node, setting: Setting) -> str:
    """``[isthmus]`` of a node."""
    return table("[isthmus]", name=node.name, run=str(node.run_directory), plane=setting.plane)


def realm(name: str, interface: str, site: str | None = None) -> str:
    """``[[realm]]``, of IPv4; ``site`` is the SIP site whose IPv4 it is."""
    return table("[[realm]]", name=name, interface=interface, site=site)


def route(to: str, c: str = "any", *, of: str = "border", **via: str) -> str:
    """``[[border.route]]``, or ``[[node.route]]``: which SIP destinations go which way."""
    inside = ", ".join(f"{key} = {json.dumps(value)}" for key, value in via.items())
    return f'[[{of}.route]]\nto = "{to}"\nc = "{c}"\nvia = {{ {inside} }}\n\n'


def mapping(node: Node, text: str, realm_name: str) -> str:
    """``[border.mapping]``, with a table that is written into the node's directory."""
    node.directory.mkdir(parents=True, exist_ok=True)
    path = node.directory / "map.txt"
    path.write_text(text, encoding="ascii")
    return table("[border.mapping]", file=str(path), realm=realm_name)
