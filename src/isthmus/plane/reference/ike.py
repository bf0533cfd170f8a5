# SPDX-License-Identifier: BSD-3-Clause
"""IKE on port 500 of a shared address, by initiator cookies (RFC 3104 §6.1).

Many hosts behind one address cannot all hold UDP port 500, and some peers speak IKE on no other.
The first eight octets of a message are chosen at random by whoever opens the
conversation and stay in every message of it: they are learned from the first packet that a host sends,
and what comes back goes to whoever used them first.

A stranger who opens a conversation with a host behind the address is told apart by
the identity that he shows in aggressive mode (seed RSIP 4.1, an extension). Anybody can show it, and so a cookie
that the host has not answered takes no place of one that it uses.

The kernel plane punts what is for port 500 where cookies are learned; it has no such memory.
"""

from __future__ import annotations

from isthmus.address import Address
from isthmus.border.binding import Owner
from isthmus.border.identity import identity_value
from isthmus.errors import WireError
from isthmus.plane.reference.classify import Ends, Octets, Side
from isthmus.wire import ike
from isthmus.wire.transport import Protocol

LIFETIME_SECONDS = 86400.0
MOST_OF_ONE = 256
MOST_UNANSWERED = 64
"""Conversations that strangers have opened with a host and that it has not answered."""
_UDP_OCTETS = 8

_Key = tuple[int, Address, bytes]
"Realm, local address, initiator cookie."


class Cookies:
    """Which host used which initiator cookie first."""

    def __init__(self) -> None:
        self._owners: dict[_Key, Owner] = {}
        # By owner and whether the owner has used them itself; in the order of their last use.
        self._used: dict[tuple[Owner, bool], dict[_Key, float]] = {}

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._owners)

    def owner(self, realm: int, local: Address, cookie: bytes, *, now: float) -> Owner | None:
        """Whose a cookie is; None if nobody has used it, or not for a day."""
        key = (realm, local, cookie)
        owner = self._owners.get(key)
        if owner is not None and now - self._place(owner, key)[key] >= LIFETIME_SECONDS:
            self._remove(owner, key)
            return None
        return owner

    def use(
        self, owner: Owner, realm: int, local: Address, cookie: bytes, *, now: float, by_peer: bool = False
    ) -> None:
        """An owner uses a cookie that is its own or nobody's; or a peer does, toward this owner."""
        key = (realm, local, cookie)
        answered = not by_peer or key in self._used.get((owner, True), ())
        if key in self._owners:
            self._remove(self._owners[key], key)
        used = self._used.setdefault((owner, answered), {})
        if len(used) >= (MOST_OF_ONE if answered else MOST_UNANSWERED):
            oldest = next(iter(used))
            del used[oldest], self._owners[oldest]
        used[key] = now
        self._owners[key] = owner

    def forget(self, owner: Owner, realm: int, local: Address) -> None:
        """An owner may use cookies at an address no more."""
        for answered in (True, False):
            for key in [each for each in self._used.get((owner, answered), ()) if each[:2] == (realm, local)]:
                self._remove(owner, key)

    def _place(self, owner: Owner, key: _Key) -> dict[_Key, float]:
        own = self._used.get((owner, True), {})
        return own if key in own else self._used[owner, False]

    def _remove(self, owner: Owner, key: _Key) -> None:
        del self._owners[key], self._place(owner, key)[key]
        for answered in (True, False):
            if not self._used.get((owner, answered), {key: 0.0}):
                del self._used[owner, answered]


def concerns(both: Ends, local: Side) -> bool:
    """Whether a packet, or the one that it quotes, has the local port 500 of UDP (RFC 2408 §2.5.1)."""
    value = both.src_value if local is Side.SOURCE else both.dst_value
    return both.protocol == Protocol.UDP and value == ike.PORT


def cookie_of(both: Ends) -> bytes | None:
    """The initiator cookie of a packet; None if it is cut short or zero."""
    return ike.initiator_cookie(both.transport[_UDP_OCTETS:])


def opening_identity(transport: Octets) -> int | None:
    """The value of the identity that a stranger opens a conversation with (seed RSIP 4.1); None if there is none."""
    try:
        found = ike.opening_identity(transport[_UDP_OCTETS:])
    except WireError:
        return None
    return None if found is None else identity_value(*found)
