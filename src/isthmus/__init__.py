# SPDX-License-Identifier: BSD-3-Clause
"""isthmus joins address realms: RSIP leases bindings, IPAE derives them from an address.

The public names, loaded when they are first asked for: the model (``Realm``, ``Selector``,
``Tunnel``, ``Binding``, ``Lease``, ``BindingTable``), the two ends of RSIP without any I/O
(``Gateway``, ``Host``), and the readable data plane (``ReferencePlane``).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isthmus.border.binding import Binding, Lease
    from isthmus.border.crossing import Tunnel
    from isthmus.border.realm import Realm
    from isthmus.border.selector import Selector
    from isthmus.border.table import BindingTable
    from isthmus.plane.reference import ReferencePlane
    from isthmus.rsip.gateway import Gateway
    from isthmus.rsip.host import Host

__all__ = ["Binding", "BindingTable", "Gateway", "Host", "Lease", "Realm", "ReferencePlane", "Selector", "Tunnel"]

_HOMES = {
    "Binding": "isthmus.border.binding",
    "BindingTable": "isthmus.border.table",
    "Gateway": "isthmus.rsip.gateway",
    "Host": "isthmus.rsip.host",
    "Lease": "isthmus.border.binding",
    "Realm": "isthmus.border.realm",
    "ReferencePlane": "isthmus.plane.reference",
    "Selector": "isthmus.border.selector",
    "Tunnel": "isthmus.border.crossing",
}


def __getattr__(name: str) -> object:
    """Load a public name (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'isthmus' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
