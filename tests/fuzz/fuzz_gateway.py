# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing a live gateway with its store: no exception, at most one answer to a message, and it always starts again.

One input is a conversation: pieces, each led by an octet that says what it is and one that says how
long. A piece is a message of one of ``_HOSTS``, time that passes, a restart, or a word of the
operator. Bit 4 of the first octet lets a message carry the Client ID and the counter that its host
would use. After whatever changed a lease a second gateway is started from the store: nothing that a
host can ask for may make that fail.
"""

from __future__ import annotations

from isthmus.border.effect import Bind, Deregister, Register, Send, Unbind, in_order
from isthmus.border.pool import Pool, Quota
from isthmus.border.ranges import Ranges
from isthmus.errors import WireError
from isthmus.rsip.gateway import Gateway
from isthmus.store import LeaseStore
from isthmus.store.memory import MemoryStore
from isthmus.wire.rsip.codes import MessageType
from isthmus.wire.rsip.message import parse
from rsip.conversation import SHARED, WHOLE, Ledger, Raw, make_gateway, make_policy, make_pool

RUNS = 400
_HOSTS = [("10.0.0.4", 0), ("10.0.0.4", 1), ("10.0.0.5", 0), ("192.0.2.1", 0)]
_WAITS = (0.01, 1.0, 61.0, 700.0)
_CHANGES = (Bind, Unbind, Register, Deregister)
_CLIENT_ID, _COUNTER = 4, 11


def _pool() -> Pool:
    """Small, so that it is soon used up."""
    shared = [(SHARED, Ranges.of((4096, 4223)))]
    return make_pool(
        shared=shared,
        whole=[WHOLE],
        spis={SHARED: Ranges.of((0x1000, 0x10FF), (0x10000000, 0x1000000F))},
        ike=[SHARED],
        slice_size=8,
        quota=Quota(bindings=6, ports=64, spis=32),
    )


class Talk:
    """A gateway, its store, and those who speak to it."""

    def __init__(self, store: LeaseStore | None = None) -> None:
        self.store, self.ledger = store or MemoryStore(), Ledger()
        self.gateway = make_gateway(make_policy(), _pool())
        self.hosts = [Raw(self.gateway, address=address, connection=kind) for address, kind in _HOSTS]
        self.now = self.hosts[0].now
        self.client_ids = dict.fromkeys(_HOSTS, 1)
        self.counters = dict.fromkeys(_HOSTS, 0)
        self.answered = 0

    def carry_out(self) -> list[Send]:
        """Keep what has to last, then see whether a gateway starts with it; returns what is sent."""
        effects = self.gateway.next_effects()
        self.store.commit(in_order(effects).persist, now=self.now)
        sends = self.ledger.carry_out(effects, self.now)
        if any(isinstance(each, _CHANGES) for each in effects):
            assert len(self.started(seed=1)) == len(self.gateway)
        return sends

    def started(self, *, seed: int) -> Gateway:
        """Another gateway, with what the store has."""
        gateway = make_gateway(make_policy(), _pool(), seed=seed)
        kept = self.store.load(rested_since=self.now - 120)
        held = [(each.binding, each.lease) for each in kept.bindings]
        gateway.restore(kept.registrations, held, kept.answers, kept.resting, now=self.now)
        return gateway

    def hear(self, who: int, piece: bytes, *, personal: bool) -> None:
        """One message of one host."""
        host, name = self.hosts[who], _HOSTS[who]
        if personal:
            self.counters[name] += 1
            piece = _personal(piece, self.client_ids[name], self.counters[name])
        take = self.gateway.receive_message if host.connection else self.gateway.receive_datagram
        take(piece, host.peer, now=self.now)
        answers = []
        for send in self.carry_out():
            answer = parse(send.data)
            assert not answer.type.is_request
            assert answer.type in MessageType
            unasked = answer.message_counter is not None and not answer.message_counter.value
            if not (unasked and answer.type in (MessageType.FREE_RESPONSE, MessageType.DE_REGISTER_RESPONSE)):
                answers.append(answer)
                assert send.peer == host.peer, "answered to somebody else"
            if answer.type is MessageType.REGISTER_RESPONSE:
                self.client_ids[name] = answer.client_id.value
        assert len(answers) <= 1, "one message, two answers"
        self.answered += len(answers)

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.gateway.handle_timer(now=self.now)
        self.carry_out()

    def revoke(self, number: int) -> None:
        """The operator ends a binding, or a registration."""
        if self.ledger.leases:
            key = sorted(self.ledger.leases)[number % len(self.ledger.leases)]
            assert (
                self.gateway.revoke(key, now=self.now) if number & 1 else self.gateway.dismiss(key.owner, now=self.now)
            )
            self.carry_out()


def _personal(octets: bytes, client_id: int, counter: int) -> bytes:
    """Put a Client ID and a counter where a message has them."""
    out, at = bytearray(octets), 4
    while at + 7 <= len(out):
        kind, length = out[at], int.from_bytes(out[at + 1 : at + 3], "big")
        if length == 4 and kind in (_CLIENT_ID, _COUNTER):
            out[at + 3 : at + 7] = (client_id if kind == _CLIENT_ID else counter).to_bytes(4, "big")
        at += 3 + length
    return bytes(out)


def hold(octets: bytes, store: LeaseStore | None = None) -> Talk:
    """Hold one conversation."""
    talk = Talk(store)
    while octets:
        what, length = octets[0], octets[1] if len(octets) > 1 else 0
        piece, octets = octets[2 : 2 + length], octets[2 + length :]
        if what % 8 == 5:
            talk.revoke(length)
        elif what % 8 == 6:
            talk.wait(_WAITS[length % len(_WAITS)])
        elif what % 8 == 7:
            talk.gateway = talk.started(seed=2 + length)
            talk.wait(0)
        else:
            talk.hear(what % len(_HOSTS), piece, personal=bool(what & 16))
    return talk


def check(octets: bytes) -> int:
    """Hold one conversation, then let everything run out; returns how many messages were answered."""
    talk = hold(octets)
    talk.wait(1e8)
    talk.wait(1e8)
    assert not len(talk.gateway)
    assert not talk.store.leases()
    for send in (each for each in talk.ledger.history if isinstance(each, Send)):
        try:
            parse(send.data)
        except WireError as error:
            raise AssertionError(f"we sent {send.data.hex()}") from error
    return talk.answered
