# SPDX-License-Identifier: BSD-3-Clause
"""The gateway's end of RSIP, without I/O and without a clock (RFC 3103 §5, §6, §9, §10).

Three things push it: a message, a violation that a data plane saw, and time. It answers
with effects (``border.effect``), which a driver carries out in their one order. The same
calls with the same seed give the same effects.

Every request runs through one fixed order of checks, since one error must be chosen
(spec 6)::

     1 transport (102)      5 parameters (207, 204, 205)    9 Client ID (305)
     2 header (207)         6 counter on UDP (105)         10 grammar (202, 203, 201, 207)
     3 version (106)        7 duplicate: old answer        11 Bind ID (306)
     4 type (206, 208)      8 registered (301, 302, 304)   13 … 16 see ``allocation``

A message is answered once or not at all. What has run out by ``now`` ends first, and its
hosts are told by messages of their own, with counter 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from isthmus.address import Address, Family
from isthmus.border.binding import Binding, BindingKey, Lease, Owner, Registration
from isthmus.border.effect import Effect, Ending, Peer, Remember, Send
from isthmus.border.pool import Pool
from isthmus.border.resource import Resource
from isthmus.border.verdict import Violation
from isthmus.errors import RemoteProtocolError, WireError
from isthmus.rsip.allocation import Ceiling
from isthmus.rsip.client import Client, Transport
from isthmus.rsip.ends import TunnelEnds
from isthmus.rsip.folding import Folding
from isthmus.rsip.policy import GatewayPolicy
from isthmus.rsip.rate import RateLimit
from isthmus.rsip.reliability import AnswerCache, Freshness
from isthmus.rsip.request import UNASKED, Repeat, Request, Silence
from isthmus.rsip.roster import Roster
from isthmus.rsip.service import Service
from isthmus.rsip.states import CLIENT_REFUSAL, REQUESTED, ClientEvent, ClientState, Transition
from isthmus.rsip.usual import Usual
from isthmus.wire.rsip.codes import PORT, VERSION, ErrorCode, MessageType, known
from isthmus.wire.rsip.envelope import HEADER_OCTETS
from isthmus.wire.rsip.message import (
    DeregisterResponse,
    Envelope,
    ErrorResponse,
    FreeResponse,
    Message,
    MessageError,
    emit,
    parse_envelope,
)
from isthmus.wire.rsip.parameter import BindId, ClientId, Error, MessageCounter

ENDED_AT_ONCE = 256
"""How many leases that have run out are ended in one go; a host that is heard ends all of its own first."""
_AT_ONCE: frozenset[ErrorCode] = frozenset({ErrorCode.REGISTER_FIRST, ErrorCode.ALREADY_REGISTERED})
"""Refusals of the state table that are answered at step 8; 306 waits for step 11."""


class Gateway:
    """Serves the hosts of one near realm with the resources of one pool."""

    def __init__(
        self,
        *,
        realm_near: int,
        realm: int,
        tunnel_ends: Mapping[Family, Address],
        pool: Pool,
        policy: GatewayPolicy,
        link_mtu: int,
        seed: int,
        gre_checksum: bool = False,
        lease_ceiling: Ceiling | None = None,
        trace: Callable[[Transition], None] | None = None,
    ) -> None:
        """Start with nobody registered.

        Args:
            realm_near: Number of the realm that the hosts are in.
            realm: Number of the realm whose addresses are leased; the pool's.
            tunnel_ends: Our addresses in the near realm at which tunnels end, one for each family that hosts may
                have. They need not be those at which the control protocol is spoken.
            pool: What is leased.
            policy: To whom, and how.
            link_mtu: Largest packet that the near realm carries, in octets; a tunnel's MTU is that less its headers.
            gre_checksum: Whether what we put into GRE has a checksum (RFC 2784 §2.5).
            lease_ceiling: Until when an address of the pool is ours, where we lease it ourselves from a gateway
                further out: no lease of ours lasts longer (RFC 3102 §4.2.1: MUST). Called with the address and the
                time now, gives seconds since 1970 or None; it must give the same for the same arguments.
            seed: Where the Client IDs begin; a driver takes it from the operating system.
            trace: Gets one record for every change of state.
        """
        if pool.realm != realm:
            raise ValueError(f"the pool is of realm {pool.realm}, not {realm}")
        self.realm_near = realm_near
        self._policy = policy
        self._pool = pool
        ends = TunnelEnds(realm=realm_near, addresses=dict(tunnel_ends), link_mtu=link_mtu, gre_checksum=gre_checksum)
        self._roster = Roster(ends=ends, pool=pool, seed=seed, trace=trace)
        self._service = Service(policy=policy, pool=pool, roster=self._roster, ends=ends, ceiling=lease_ceiling)
        self._answers = AnswerCache()
        self.folding = Folding(pool=pool, roster=self._roster, answers=self._answers)
        """Which hosts the store alone knows: they must be recalled before anything that concerns them is asked here."""
        self._requests = RateLimit(policy.requests_per_second, burst=policy.requests_burst)
        self._errors = RateLimit(policy.errors_per_second)
        self._usual = Usual(
            self._service.usual,
            realm_near=realm_near,
            policy=policy,
            pool=pool,
            roster=self._roster,
            answers=self._answers,
            requests=self._requests,
        )
        self.refusals: Counter[ErrorCode | str] = Counter()
        """How many control messages were not served: by the error answered, or "stale", "duplicate", "rate" (nothing
        was said), "stranger" (from where nobody may register, or from the far realm), "error" (an ERROR_RESPONSE)."""

    def __len__(self) -> int:
        """How many hosts are registered."""
        return len(self._roster)

    # What comes in

    def receive_datagram(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one UDP datagram, which is one message (RFC 3103 §9)."""
        usual = self._usual.serve(data, peer, now=now)
        if not usual:
            self._receive(data, peer, now, counted=usual is None)

    def receive_message(self, data: bytes, peer: Peer, *, now: float) -> None:
        """Take one message that was cut from a TCP stream; ``peer.connection`` says which."""
        self._receive(data, peer, now)

    def receive_broken_stream(self, error: WireError, peer: Peer, *, now: float) -> None:
        """Answer a TCP stream that cannot be cut into messages; the driver closes it afterwards (spec 2)."""
        self.handle_timer(now=now)
        if peer.realm != self.realm_near:
            self.refusals["stranger"] += 1
        elif not self._requests.allow(peer.owner, now=now):
            self.refusals["rate"] += 1
        else:
            code = error.code if isinstance(error, MessageError) else ErrorCode.BAD_MESSAGE
            self.refusals[code] += 1
            self._send(ErrorResponse(error=Error(code)), peer)

    def connection_lost(self, peer: Peer) -> None:
        """Forget a TCP connection. The registration stays: it has a lease of its own (spec 2)."""
        # Silent: RFC 3103 does not say what a lost connection does to a registration.
        client = self._roster.get(peer.owner)
        if client is not None:
            client.connections.pop(peer, None)

    def report(self, violation: Violation, *, now: float) -> None:
        """Tell a host that its packets were dropped (RFC 3103 §10.4: MUST), once a second for each error."""
        self._catch_up(violation.owner, now)
        code = violation.reason.rsip_code
        client = self._roster.get(violation.owner)
        if not code or (client is not None and code == ErrorCode.REGISTER_FIRST):
            return
        # Nor is anybody told who could not register: forged sources would have us write to all the world.
        if client is None and (not self._policy.udp or self._policy.rule_for(violation.owner.address) is None):
            return
        # Silent: RFC 3103 §10.2 does not say where a host that never registered is told 301: at RSIP's own port.
        peer = client.peer if client is not None else self._departed(violation.owner, now)
        if peer is None:
            peer = Peer(violation.owner.realm, violation.owner.address, PORT)
        if not self._errors.allow((violation.owner, code), now=now):
            return
        response = ErrorResponse(error=Error(code), message_counter=UNASKED if not peer.connection else None)
        if client is not None:
            bind_id = client.binding_of(violation.flow)
            response = ErrorResponse(
                error=Error(code),
                message_counter=_unasked(client),
                client_id=ClientId(client.client_id),
                bind_id=None if bind_id is None else BindId(bind_id),
            )
        self._send(response, peer)

    def get_timer(self) -> float | None:
        """When ``handle_timer`` wants to be called next, in seconds since 1970."""
        return self._roster.next_deadline()

    def handle_timer(self, *, now: float) -> None:
        """End what has run out: bindings (RFC 3103 §6, §9.13), registrations (§9.5.3); of very much the first of it."""
        for _ in range(ENDED_AT_ONCE):
            due = self._roster.pop_due(now)
            if due is None:
                return
            self._expire(due, now)

    def _catch_up(self, owner: Owner, now: float) -> None:
        """End what has run out before a host is heard: all that was its own."""
        if not self._roster.may_be_due(now):
            return
        self.handle_timer(now=now)
        if self._roster.may_be_due(now):
            for due in self._roster.overdue(owner, now):
                self._expire(due, now)

    def _expire(self, due: BindingKey, now: float) -> None:
        client = self._roster.get(due.owner)
        if client is None:
            return
        if not due.bind_id:
            self._dismiss(client, Ending.EXPIRED, now=now)
        elif due.bind_id in client.bindings:
            self._end(client, due.bind_id, Ending.EXPIRED, now=now)

    def next_effects(self) -> tuple[Effect, ...]:
        """Take what there is to do, in the order in which it arose."""
        effects = tuple(self._roster.effects)
        self._roster.effects.clear()
        return effects

    # What the operator does

    def revoke(self, key: BindingKey, *, now: float) -> bool:
        """End one binding and tell its host (RFC 3103 §9.13); False if there is no such binding."""
        self._catch_up(key.owner, now)
        client = self._roster.get(key.owner)
        if client is None or key.bind_id not in client.bindings:
            return False
        self._end(client, key.bind_id, Ending.REVOKED, now=now)
        return True

    def revoke_all(self, owner: Owner, *, now: float) -> int:
        """End every binding of a host, which stays registered; returns how many there were."""
        self._catch_up(owner, now)
        client = self._roster.get(owner)
        bindings = sorted(client.bindings) if client is not None else []
        for bind_id in bindings:
            assert client is not None
            self._end(client, bind_id, Ending.REVOKED, now=now)
        return len(bindings)

    def holders(self, address: Address, *, port: int | None = None) -> tuple[BindingKey, ...]:
        """Who holds a leased address, or a port of it; two bindings of one host may share a port (LISTEN)."""
        return self._roster.holders(address, port)

    @property
    def rest_seconds(self) -> float:
        """How long what is given back rests."""
        return self._pool.rest_seconds

    def leased_share(self) -> int:
        """How much of the pool is not to be had, from 0 to 100: of its ports, or if it has none of its addresses."""
        return self._pool.leased_share()

    def held_by(self, owner: Owner) -> tuple[BindingKey, ...]:
        """What a host holds."""
        return self._roster.held_by(owner)

    def dismiss(self, owner: Owner, *, now: float) -> bool:
        """End one registration and tell its host (RFC 3103 §9.5); False if there is none."""
        self._catch_up(owner, now)
        client = self._roster.get(owner)
        if client is None:
            return False
        self._dismiss(client, Ending.REVOKED, now=now)
        return True

    def restore(
        self,
        registrations: Iterable[Registration],
        held: Iterable[tuple[Binding, Lease]],
        answers: Iterable[Remember],
        resting: Iterable[tuple[float, Resource]],
        *,
        now: float,
    ) -> None:
        """Go on where a gateway with the same store stopped. What has run out meanwhile ends by ``handle_timer``.

        Args:
            registrations: Who is registered.
            held: What they hold.
            answers: The last request of each that changed something, and its answer.
            resting: What was given back and when, the oldest first.
            now: Seconds since 1970.
        """
        self.folding.restore(registrations, held, answers, resting, now=now)

    # The order of checks

    def _receive(self, data: bytes, peer: Peer, now: float, *, counted: bool = False) -> None:
        self._catch_up(peer.owner, now)
        # Silent: nothing of RSIP is served to the far realm (spec 19).
        if peer.realm != self.realm_near:
            self.refusals["stranger"] += 1
            return
        request = Request(peer=peer, now=now)
        before = len(self._roster.effects)
        freshness = None
        try:
            if not counted:
                self._check_rate(data, request)
            envelope = self._open(data, request)
            freshness = self._judge_freshness(data, envelope, request)
            served = self._serve(envelope, request)
            answer = served if isinstance(served, bytes) else emit(served)
        except (RemoteProtocolError, MessageError) as refusal:
            answer = emit(self._refuse(refusal.code, request))
        except Repeat as repeat:
            self.refusals["duplicate"] += 1
            answer = repeat.answer
        except Silence as silence:
            self.refusals[silence.why] += 1
            return
        if freshness is not None:
            self._keep(data, answer, request, freshness=freshness, changed=len(self._roster.effects) > before)
        self._roster.effects.append(Send(data=answer, peer=peer))

    def _check_rate(self, data: bytes, request: Request) -> None:
        """Do nothing for who asks for too much at a time (RFC 3103 §11)."""
        if self._requests.allow(request.peer.owner, now=request.now):
            return
        # Silent: no error says "too fast". On UDP the host asks again by itself; on TCP it would wait for ever.
        if request.udp:
            raise Silence("rate")
        self._open(data, request)
        raise RemoteProtocolError(ErrorCode.UNKNOWN_ERROR, f"{request.peer.address} asks too often")

    def _open(self, data: bytes, request: Request) -> Envelope:
        """Steps 1 to 6: what can be said without knowing the host."""
        fault: MessageError | None = None
        envelope: Envelope | None = None
        kind: MessageType | int
        read: Envelope | MessageError
        try:
            read = envelope = parse_envelope(data)
            kind = envelope.type
        except MessageError as error:
            read, fault, kind = error, error, known(MessageType, error.message_type or 0)
        request.counter = read.message_counter
        request.client_id, request.bind_id = read.client_id, read.bind_id
        # RFC 3103 §9.1: an error is never answered. Malformed datagrams of strangers neither (spec 6).
        if kind == MessageType.ERROR_RESPONSE:
            raise Silence("error")
        if fault is not None and self._is_stranger(request):
            raise Silence("stranger")
        if request.udp and not self._policy.udp:
            raise RemoteProtocolError(ErrorCode.USE_TCP, "UDP is not served")
        if fault is not None and (not isinstance(kind, MessageType) or not _is_header_sound(data)):
            raise fault
        assert isinstance(kind, MessageType)
        self._check_type(kind)
        if envelope is None:
            assert fault is not None
            raise fault
        if request.udp and request.counter is None:
            raise RemoteProtocolError(ErrorCode.MESSAGE_COUNTER_REQUIRED, "no message counter on UDP")
        if request.udp and not request.counter:
            # Silent: 0 is for unasked messages (RFC 3103 §10.1); a request that has it has an illegal value.
            raise RemoteProtocolError(ErrorCode.BAD_PARAM, "message counter 0 in a request")
        return envelope

    def _check_type(self, kind: MessageType) -> None:
        """Step 4: what we are never sent, and what we do not offer."""
        if kind not in REQUESTED:
            # Silent: a response sent to a gateway is neither mandatory nor optional there (RFC 3103 §14).
            raise RemoteProtocolError(ErrorCode.ILLEGAL_MESSAGE, f"{kind.name} is not for gateways")
        if not self._service.serves(kind):
            raise RemoteProtocolError(ErrorCode.UNSUPPORTED_MESSAGE, f"{kind.name} is not served")

    def _judge_freshness(self, data: bytes, envelope: Envelope, request: Request) -> Freshness | None:
        """Step 7. On TCP there are no duplicates."""
        if not request.udp or request.counter is None:
            return None
        owner, port, counter = request.peer.owner, request.peer.port, request.counter
        freshness, answer = self._answers.judge(
            owner, port, counter=counter, kind=envelope.type, request=data, now=request.now
        )
        if freshness is Freshness.STALE:
            raise Silence("stale")
        if freshness is Freshness.DUPLICATE:
            raise Repeat(answer)
        return freshness

    def _serve(self, envelope: Envelope, request: Request) -> Message | bytes:
        """Steps 8 and 9; the handlers take the rest."""
        client = self._roster.get(request.peer.owner)
        event = REQUESTED[envelope.type]
        code = CLIENT_REFUSAL[ClientState.UNREGISTERED if client is None else client.state].get(event)
        if code in _AT_ONCE:
            raise RemoteProtocolError(code, f"{envelope.type.name} in the wrong state")
        if client is None:
            return self._service.register(envelope, request)
        transport = Transport.of(request.peer)
        switched_transport = client.transport is not transport and client.transport is not None
        if switched_transport and event is not ClientEvent.DEREGISTER:
            # Silent: RFC 3103 §5 forbids to switch and names no error. A restarted host may still deregister.
            switched = ErrorCode.USE_TCP if client.transport is Transport.TCP else ErrorCode.UNKNOWN_ERROR
            raise RemoteProtocolError(switched, f"registered over {client.transport}")
        client_id = request.client_id
        if client_id is not None and client_id != client.client_id:
            raise RemoteProtocolError(ErrorCode.BAD_CLIENT_ID, "the Client ID is another's")
        if not switched_transport and client_id is not None:
            client.heard(request.peer, counted=request.counter is not None)
        return self._service.handlers[envelope.type](client, request, envelope)

    # What goes out

    def _refuse(self, code: int, request: Request) -> ErrorResponse:
        """Make the one error of a refused request (RFC 3103 §9.1); 302 tells the Client ID (§9.2.3: MUST)."""
        meaning = known(ErrorCode, code)
        self.refusals[meaning if isinstance(meaning, ErrorCode) else ErrorCode.UNKNOWN_ERROR] += 1
        if code == ErrorCode.ALREADY_REGISTERED:
            client = self._roster.get(request.peer.owner)
            request.client_id = None if client is None else client.client_id
        return request.error(code)

    def _keep(self, data: bytes, answer: bytes, request: Request, *, freshness: Freshness, changed: bool) -> None:
        """Keep an answer for a copy of its request (RFC 3103 §10.1), and durably so if the request did something."""
        owner = request.peer.owner
        registered = self._roster.get(owner) is not None
        if not changed and (not registered or freshness is Freshness.RESTART):
            return
        remember = Remember(
            owner=owner, port=request.peer.port, counter=request.counter or 0, request=data, answer=answer
        )
        self._answers.keep(remember, durable=changed)
        if changed:
            self._roster.effects.append(remember)
            if registered:
                self._answers.stay(owner)
            else:
                self._answers.leave(owner, now=request.now)

    def _end(self, client: Client, bind_id: int, ending: Ending, *, now: float) -> None:
        """End a binding unasked (RFC 3103 §9.13)."""
        self._roster.unbind(client, bind_id, ending=ending, now=now)
        response = FreeResponse(
            client_id=ClientId(client.client_id), bind_id=BindId(bind_id), message_counter=_unasked(client)
        )
        self._send(response, client.peer)

    def _dismiss(self, client: Client, ending: Ending, *, now: float) -> None:
        """End a registration unasked (RFC 3103 §9.5.3)."""
        self._roster.dismiss(client, ending=ending, now=now)
        self._answers.leave(client.owner, now=now)
        response = DeregisterResponse(client_id=ClientId(client.client_id), message_counter=_unasked(client))
        self._send(response, client.peer)

    def _send(self, message: Message, peer: Peer | None) -> None:
        if peer is not None:
            self._roster.effects.append(Send(data=emit(message), peer=peer))

    def _is_stranger(self, request: Request) -> bool:
        """Whether a datagram came from an address that could not even register."""
        return request.udp and self._policy.rule_for(request.peer.address) is None

    def _departed(self, owner: Owner, now: float) -> Peer | None:
        """Where a host that is not registered any more was heard a moment ago."""
        port = self._answers.last_port(owner, now=now)
        return None if port is None else Peer(owner.realm, owner.address, port)


def _unasked(client: Client) -> MessageCounter | None:
    """Counter 0 (RFC 3103 §10.1); none on a TCP connection whose host does not count."""
    return UNASKED if client.counted else None


def _is_header_sound(data: bytes) -> bool:
    """Whether a fault lies behind the header, so that its message type can be trusted."""
    return len(data) >= HEADER_OCTETS and data[0] == VERSION and int.from_bytes(data[2:4], "big") == len(data)
