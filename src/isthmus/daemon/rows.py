# SPDX-License-Identifier: BSD-3-Clause
"""Leases and history as the control socket and the command line show them; times in seconds since 1970."""

from __future__ import annotations

from typing import Any

from isthmus.border.selector import Kind
from isthmus.store import Held, Tenure


def lease_row(held: Held) -> dict[str, Any]:
    """What is held now.

    ``ports`` and ``spis`` are None where there are none; with neither, and no ``ike``, the address is held whole.
    ``ike``: a share of port 500, by IKE's cookies; ``identity``: the hash of the initiator that is listened for;
    ``admits``: whom it hears from at its ports, or at all: contacted peers, or anyone.
    """
    binding, lease = held.binding, held.lease
    # Ports that are lent to a binding which listens on them are of this lease as well.
    values = {each.kind: str(each.values | each.lent) for each in binding.selectors}
    ports = next((each for each in binding.selectors if each.kind is Kind.PORT), binding.selectors[0])
    identities = [each for each in binding.selectors if each.kind is Kind.IDENTITY]
    return {
        "client_id": lease.client_id,
        "host": str(binding.key.owner),
        "bind_id": binding.key.bind_id,
        "address": str(binding.address),
        "ports": values.get(Kind.PORT),
        "spis": values.get(Kind.SPI),
        "ike": Kind.COOKIE in values,
        "identity": next((f"{each.values.pairs[0][0]:016x}" for each in identities), None),
        "admits": ports.remote.admit.name.lower(),
        "method": lease.method.name,
        "tunnel": binding.tunnel.kind.name,
        "granted_at": lease.granted_at,
        "expires_at": lease.expires_at,
    }


def tenure_row(tenure: Tenure) -> dict[str, Any]:
    """What was held, from when to when."""
    resource = tenure.resource
    return {
        "host": str(tenure.key.owner),
        "client_id": tenure.client_id,
        "bind_id": tenure.key.bind_id,
        "address": str(resource.address),
        "ports": str(resource.ports) if resource.ports is not None else None,
        "granted_at": tenure.granted_at,
        "ended_at": tenure.ended_at,
        "ending": tenure.ending.value if tenure.ending is not None else None,
        "expires_at": tenure.expires_at,
    }
