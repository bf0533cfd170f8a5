# SPDX-License-Identifier: BSD-3-Clause
"""Identities of IKE initiators, as numbers that a table can hold (seed RSIP 4.1; an extension)."""

from __future__ import annotations

import hashlib


def identity_value(kind: int, data: bytes) -> int:
    """The value of an identity in a selector of kind IDENTITY.

    Args:
        kind: The ID type octet (RFC 2407 §4.6.2.1): 1 an IPv4 address, 2 an FQDN, 3 a user FQDN, 11 a key ID, …
        data: The identification data.

    Returns:
        The first 8 octets of a BLAKE2b digest of both, as a number, most significant octet first.
    """
    return int.from_bytes(hashlib.blake2b(bytes((kind,)) + data, digest_size=8).digest(), "big")
