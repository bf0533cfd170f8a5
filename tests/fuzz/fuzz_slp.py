# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing SLP: messages, attributes, predicates and URLs, and the agents that read them."""

from __future__ import annotations

from fuzz.promise import stays_within
from isthmus.daemon.discovery.advertisement import Advertisement
from isthmus.daemon.discovery.convergence import Convergence
from isthmus.daemon.discovery.template import SERVICE_TYPE, Offer
from isthmus.errors import WireError
from isthmus.wire.slp import attribute
from isthmus.wire.slp.codes import LARGEST_DATAGRAM
from isthmus.wire.slp.message import AttrRply, Message, SrvRply, SrvRqst, emit, parse
from isthmus.wire.slp.url import ServiceUrl

AGENT = Advertisement(
    here="10.0.0.1",
    url=ServiceUrl(service_type=SERVICE_TYPE, host="10.0.0.1", port=4455),
    scopes=("DEFAULT", "A"),
    lifetime=300,
    offer=lambda: Offer(load=17),
)


def repair(octets: bytes) -> bytes:
    """Make the version and the length right."""
    return octets if len(octets) < 5 else b"\2" + octets[1:2] + len(octets).to_bytes(3, "big") + octets[5:]


def check(octets: bytes) -> None:
    """Read it, answer it, and take it for an answer."""
    message: Message | None = None
    try:
        message = parse(octets)
    except WireError as error:
        stays_within(error, octets)
    if message is not None:
        assert parse(emit(message)) == message
        _use(message)
    for multicast in (False, True):
        reply = AGENT.answer(octets, multicast=multicast)
        if reply is None:
            continue
        assert len(reply) <= LARGEST_DATAGRAM
        said = parse(reply)
        assert reply[10:12] == octets[10:12], "another XID"
        assert not multicast or not getattr(said.body, "error", 0), "an error to a group"
    asking = Convergence(SrvRqst(service_type=SERVICE_TYPE), xid=7, now=0.0, seconds=3.0, retry=0.5, multicast=True)
    asking.poll(now=0.0)
    asking.receive(octets, "10.0.0.1")


def _use(message: Message) -> None:
    """What a user agent does with an answer."""
    body = message.body
    if isinstance(body, SrvRply):
        for entry in body.urls:
            try:
                assert ServiceUrl.parse(str(ServiceUrl.parse(entry.url))) == ServiceUrl.parse(entry.url)
            except WireError:
                continue
    if isinstance(body, AttrRply):
        try:
            offer = Offer.of(attribute.parse(body.attributes))
        except WireError:
            return
        assert offer.load is None or 0 <= offer.load <= 100
