# SPDX-License-Identifier: BSD-3-Clause
"""IP identifications that no two hosts behind one address share (RFC 3102 §6.3; RFC 6864 §4).

Whoever puts fragments together tells packets apart by addresses, protocol and identification. Two
hosts behind one address do not know of each other's identifications; where they happen to use the same
one toward the same peer, pieces of one's packet may be completed with pieces of the other's. So a gateway
gives each port a block of identifications of its own.

Pairs with ``bpf/include/isthmus/identification.h``.
"""

from __future__ import annotations

from isthmus.border.ranges import Ranges
from isthmus.border.selector import Flow, Kind
from isthmus.plane.reference.classify import Ends
from isthmus.plane.reference.lookup import Found


def is_shared(found: Found, both: Ends) -> bool:
    """Whether others may send from the same address: TCP, UDP and ICMP queries of what is held by port.

    ESP and AH keep theirs, which AH protects (RFC 4302 §3.3.3.1.1.1); so does who holds an address whole.
    """
    return found.selector.kind is Kind.PORT and both.kind is Kind.PORT and not both.is_error


def of_sender(found: Found, flow: Flow, identification: int, slice_size: int) -> int:
    """The identification that a packet leaves with.

    Args:
        found: The binding of its sender, held by port.
        flow: What the packet says.
        identification: The one that it has.
        slice_size: Ports of an aligned slice, a power of two.

    Returns:
        One of the block of the slice around its port, if all of the slice is the sender's; else its port.
    """
    # Silent: RFC 3102 §6.3 wants identifications kept apart and does not say how.
    first = flow.value & ~(slice_size - 1)
    if found.selector.values.covers(Ranges.of((first, first + slice_size - 1))):
        return first | identification & (slice_size - 1)
    return flow.value
