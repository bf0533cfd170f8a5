# SPDX-License-Identifier: BSD-3-Clause
"""What nearly every message is, served without detours (RFC 3103 §9.2, §9.8).

A datagram is usual if one like it (``wire.rsip.likeness``) was granted before, and if all that depends on its host and
on its moment is as it was then: a REGISTER_REQUEST of a host under the same rule that is not registered, an
ASSIGN_REQUEST_RSAP-IP for so many ports of any address. Of the order of checks in ``gateway`` what looks at the octets
and at the policy alone has been done then; what is left is done here. Where a single check comes out otherwise nothing
has been done, and the message goes the way of all others, which finds out what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from isthmus.address import Family, Prefix
from isthmus.border.effect import Peer, Remember, Send
from isthmus.border.pool import Pool, PoolError
from isthmus.border.selector import Kind, Selector
from isthmus.rsip.allocation import Judgement
from isthmus.rsip.client import Transport
from isthmus.rsip.policy import ClientRule, GatewayPolicy
from isthmus.rsip.rate import RateLimit
from isthmus.rsip.reliability import LAST_COUNTER, AnswerCache
from isthmus.rsip.roster import Roster
from isthmus.wire.rsip.codes import LocalPolicy, RemotePolicy
from isthmus.wire.rsip.likeness import CLIENT_ID, COUNTER, Likeness, likeness_of
from isthmus.wire.rsip.template import Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """How a REGISTER_REQUEST over UDP was granted."""

    rule: ClientRule
    "To whom."
    family: Family
    "Of the host's address."
    seconds: int
    answer: Template
    "To be filled with Client ID and counter."


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """How a request for a run of any ports over UDP was granted."""

    judged: Judgement
    "With the number of ports."
    policies: tuple[LocalPolicy, RemotePolicy]
    "The host's."
    family: Family
    "Of the host's address; all that is leased in runs is of one family."
    seconds: int
    answer: Template
    "To be filled with Client ID, Bind ID, address, first port and counter."


class Usual:
    """Serves usual messages."""

    def __init__(
        self,
        known: Mapping[Likeness, Admission | Grant],
        *,
        realm_near: int,
        policy: GatewayPolicy,
        pool: Pool,
        roster: Roster,
        answers: AnswerCache,
        requests: RateLimit,
    ) -> None:
        """Put the parts together.

        Args:
            known: What was granted lately, and how; others enter it.
            realm_near: Number of the near realm.
            policy: To whom registrations are granted.
            pool: What is leased.
            roster: Who is registered.
            answers: What was answered.
            requests: How often a host may ask.
        """
        self._known = known
        self._near = realm_near
        self._policy = policy
        self._pool = pool
        self._roster = roster
        self._answers = answers
        self._requests = requests

    def serve(self, data: bytes, peer: Peer, *, now: float) -> bool | None:
        """Serve a datagram if it is usual.

        Returns:
            Whether it was served; False: nothing was done; None: nothing but that it counts as a request of its host.
        """
        like = likeness_of(data)
        how = None if like is None else self._known.get(like)
        if how is None or peer.realm != self._near or peer.connection or self._roster.may_be_due(now):
            return False
        counter = int.from_bytes(data[COUNTER], "big")
        if not counter:
            return False
        if type(how) is Admission:
            return self._register(how, data, peer, counter, now)
        assert type(how) is Grant
        return self._assign(how, data, peer, counter, now)

    def _register(self, how: Admission, data: bytes, peer: Peer, counter: int, now: float) -> bool:
        owner, roster = peer.owner, self._roster
        if (
            roster.get(owner) is not None
            or self._policy.rule_for(owner.address) is not how.rule
            or owner.address.family is not how.family
            or not self._answers.is_fresh(owner, peer.port, counter=counter, now=now)
            or not self._requests.allow(owner, now=now)
        ):
            return False
        client = roster.register(owner, how.rule, seconds=how.seconds, now=now)
        client.heard(peer, counted=True)
        self._answer(data, how.answer.fill(client.client_id, counter), peer, counter)
        return True

    def _assign(self, how: Grant, data: bytes, peer: Peer, counter: int, now: float) -> bool | None:
        owner, roster = peer.owner, self._roster
        client, client_id = roster.get(owner), int.from_bytes(data[CLIENT_ID], "big")
        if (
            client is None
            or client.client_id != client_id
            or client.transport is not Transport.UDP
            or (client.local_policy, client.remote_policy) != how.policies
            or client.last_bind_id >= LAST_COUNTER
            or owner.address.family is not how.family
            or not self._answers.is_fresh(owner, peer.port, counter=counter, now=now)
            or not self._requests.allow(owner, now=now)
        ):
            return False
        judged = how.judged
        assert judged.ports is not None
        try:
            taken = self._pool.take_ports(owner, ports=judged.ports, now=now)
        except PoolError:
            return None
        address, ports = taken.address, taken.ports
        assert ports is not None
        client.heard(peer, counted=True)
        selector = Selector(
            realm=taken.realm, local=Prefix.of(address), kind=Kind.PORT, values=ports, remote=judged.limit.remote
        )
        held = roster.hold(client, (selector,), judged.kinds[0], judged.method, seconds=how.seconds, now=now)
        numbers = client_id, held.binding.key.bind_id, address.octets, ports.pairs[0][0], counter
        self._answer(data, how.answer.fill(*numbers), peer, counter)
        return True

    def _answer(self, data: bytes, answer: bytes, peer: Peer, counter: int) -> None:
        owner = peer.owner
        remember = Remember(owner=owner, port=peer.port, counter=counter, request=data, answer=answer)
        self._answers.keep(remember)
        self._answers.stay(owner)
        self._roster.effects += (remember, Send(data=answer, peer=peer))
