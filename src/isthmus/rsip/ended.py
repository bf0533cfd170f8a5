# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway says unasked to hosts over UDP when something of theirs has run out, made from a pattern.

Very many leases may run out at once, and of these messages only the numbers differ: they are made as columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isthmus.address import Address, Family
from isthmus.border.effect import Peer
from isthmus.rsip.request import UNASKED
from isthmus.wire.rsip.message import DeregisterResponse, FreeResponse
from isthmus.wire.rsip.parameter import BindId, ClientId
from isthmus.wire.rsip.template import Template

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from isthmus.border.plain import LapsingHosts

_CLIENT, _BINDING = ClientId(1), BindId(1)
_REGISTRATION = Template(DeregisterResponse(client_id=_CLIENT, message_counter=UNASKED), _CLIENT)
_BOUND = Template(FreeResponse(client_id=_CLIENT, bind_id=_BINDING, message_counter=UNASKED), _CLIENT, _BINDING)
_ALL_ONES = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Farewells:
    """Messages as long as one another to IPv4 hosts of one realm."""

    near: int
    "Number of the realm."
    address: NDArray[np.uint32]
    "To whom."
    port: NDArray[np.uint16]
    octets: NDArray[np.uint8]
    "A row for each."

    def each(self) -> Iterator[tuple[bytes, Peer]]:
        """One by one."""
        for row, address, port in zip(self.octets, self.address.tolist(), self.port.tolist(), strict=True):
            yield row.tobytes(), Peer(self.near, Address(Family.IPV4, address), port)


def farewells(hosts: LapsingHosts, bind_ids: NDArray[np.uint32] | None = None) -> Farewells:
    """FREE_RESPONSE for bindings (RFC 3103 §9.13), DE-REGISTER_RESPONSE for registrations (§9.5.3), counter 0.

    Args:
        hosts: Whose they were.
        bind_ids: What has ended, in the same order; None: the registrations.
    """
    ids = hosts.client_id
    octets = _filled(_REGISTRATION, [ids]) if bind_ids is None else _filled(_BOUND, [ids, bind_ids])
    return Farewells(near=hosts.near, address=hosts.address, port=hosts.port, octets=octets)


def _filled(template: Template, columns: list[NDArray[np.uint32]]) -> NDArray[np.uint8]:
    """A template with the numbers of each row in its places."""
    import numpy as np

    blank = np.frombuffer(template.fill(*(0 for _ in columns)), np.uint8)
    rows = np.tile(blank, (len(columns[0]), 1))
    for at, column in enumerate(columns):
        marked = template.fill(*(_ALL_ONES if at == other else 0 for other in range(len(columns))))
        places = np.flatnonzero(np.frombuffer(marked, np.uint8) != blank)
        rows[:, places] = column.astype(">u4").view(np.uint8).reshape(-1, len(places))
    return rows
