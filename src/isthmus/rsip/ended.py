# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway says unasked to hosts over UDP when something of theirs has run out, made from a pattern.

Very many leases may run out at once, and of these messages only the numbers differ.
"""

from __future__ import annotations

from isthmus.rsip.request import UNASKED
from isthmus.wire.rsip.message import DeregisterResponse, FreeResponse
from isthmus.wire.rsip.parameter import BindId, ClientId
from isthmus.wire.rsip.template import Template

_CLIENT, _BINDING = ClientId(1), BindId(1)
_REGISTRATION = Template(DeregisterResponse(client_id=_CLIENT, message_counter=UNASKED), _CLIENT)
_BOUND = Template(FreeResponse(client_id=_CLIENT, bind_id=_BINDING, message_counter=UNASKED), _CLIENT, _BINDING)


def ended_message(client_id: int, bind_id: int | None) -> bytes:
    """FREE_RESPONSE for a binding (RFC 3103 §9.13), DE-REGISTER_RESPONSE for a registration (§9.5.3), counter 0.

    Args:
        client_id: The host's.
        bind_id: None: the registration has ended.
    """
    return _REGISTRATION.fill(client_id) if bind_id is None else _BOUND.fill(client_id, bind_id)
