# SPDX-License-Identifier: BSD-3-Clause
"""The SLP user agent of a host: which RSIP servers are there, and how loaded are they? (RFC 3105 §4, §6)."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass, field

from isthmus.address import Address
from isthmus.daemon.discovery.convergence import Convergence, Reply
from isthmus.daemon.discovery.near import NearInterface, datagrams
from isthmus.daemon.discovery.template import SERVICE_TYPE, Offer
from isthmus.errors import WireError
from isthmus.wire.slp import attribute
from isthmus.wire.slp.codes import DEFAULT_SCOPE, GROUP, PORT, ErrorCode, Flag
from isthmus.wire.slp.message import AttrRply, AttrRqst, Message, SrvRply, SrvRqst, emit, parse
from isthmus.wire.slp.url import ServiceUrl

_LARGEST = 65536
MOST_SERVICES = 32
"""Services whose attributes are asked for; more are left out."""
_STREAM_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """An RSIP server that a service or directory agent named."""

    url: ServiceUrl
    lifetime: int
    "Seconds for which the answer holds."
    responder: str
    "Who named it."
    offer: Offer | None = None
    "None: nobody answered for its attributes."


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to ask, and whom."""

    scopes: tuple[str, ...] = (DEFAULT_SCOPE,)
    predicate: str = ""
    agents: tuple[Address, ...] = ()
    "Directory or service agents, by unicast; none: the group."
    seconds: float = 3.0
    retry: float = 0.25
    port: int = field(default=PORT)
    "427, except in tests."


async def find_services(near: NearInterface, question: Question) -> tuple[Service, ...]:
    """Collect the service URLs, ask for the attributes of each, and sort by load (RFC 3105 §6).

    Returns:
        The servers that answered, the least loaded first; those of unknown load come last.

    Raises:
        Unsupported: no socket can be had.
    """
    found = (await _service_urls(near, question))[:MOST_SERVICES]
    offers = await asyncio.gather(*(_offer(near, question, each) for each in found))
    services = [
        Service(url=each.url, lifetime=each.lifetime, responder=each.responder, offer=offer)
        for each, offer in zip(found, offers, strict=True)
    ]
    return tuple(sorted(services, key=_rank))


def _rank(service: Service) -> tuple[int, str]:
    load = service.offer.load if service.offer is not None else None
    return (101 if load is None else load, str(service.url))


async def _service_urls(near: NearInterface, question: Question) -> list[Service]:
    request = SrvRqst(service_type=SERVICE_TYPE, scopes=question.scopes, predicate=question.predicate)
    if question.agents:
        asked = [_converse(near, question, request, str(each)) for each in question.agents]
        replies = [reply for each in await asyncio.gather(*asked) for reply in each]
    else:
        replies = await _converse(near, question, request, GROUP)
    found: dict[str, Service] = {}
    for reply in replies:
        if not isinstance(reply.message.body, SrvRply) or reply.message.body.error:
            continue
        for entry in reply.message.body.urls:
            with contextlib.suppress(WireError):
                url = ServiceUrl.parse(entry.url)
                if url.service_type == SERVICE_TYPE and url.host:
                    found.setdefault(str(url), Service(url=url, lifetime=entry.lifetime, responder=reply.responder))
    return list(found.values())


async def _offer(near: NearInterface, question: Question, service: Service) -> Offer | None:
    """Ask who named a server for its attributes."""
    request = AttrRqst(url=str(service.url), scopes=question.scopes)
    for reply in await _converse(near, question, request, service.responder):
        body = reply.message.body
        if isinstance(body, AttrRply) and body.error == ErrorCode.OK and body.attributes:
            with contextlib.suppress(WireError):
                return Offer.of(attribute.parse(body.attributes))
    return None


async def _converse(
    near: NearInterface, question: Question, request: SrvRqst | AttrRqst, destination: str
) -> list[Reply]:
    """Ask an agent, or the group, until nothing more is to be heard."""
    loop = asyncio.get_running_loop()
    multicast = destination == GROUP
    asking = Convergence(
        request,
        xid=1 + secrets.randbelow(0xFFFF),
        now=loop.time(),
        seconds=question.seconds,
        retry=question.retry,
        multicast=multicast,
    )
    with datagrams(near) as opened:
        while (timer := asking.timer) is not None:
            octets = asking.poll(now=loop.time())
            if octets is not None:
                # No route, or an ICMP error about an earlier question: as good as no answer.
                with contextlib.suppress(OSError):
                    await loop.sock_sendto(opened, octets, (destination, question.port))
                continue
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout_at(timer):
                    received, (host, *_) = await loop.sock_recvfrom(opened, _LARGEST)
                if multicast or host == destination:
                    asking.receive(received, host)
    whole = [_whole(near, question, request, each) for each in asking.replies]
    return list(await asyncio.gather(*whole))


async def _whole(near: NearInterface, question: Question, request: SrvRqst | AttrRqst, reply: Reply) -> Reply:
    """Get the whole of an answer that was too long for a datagram, over TCP (RFC 2608 §6.2)."""
    if not reply.message.flags & Flag.OVERFLOW:
        return reply
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, WireError):
        async with asyncio.timeout(_STREAM_SECONDS):
            reader, writer = await asyncio.open_connection(
                reply.responder, question.port, local_addr=(str(near.address), 0)
            )
            with contextlib.closing(writer):
                writer.write(emit(Message(xid=reply.message.xid, body=request)))
                start = await reader.readexactly(5)
                length = int.from_bytes(start[2:], "big")
                if len(start) <= length <= _LARGEST:
                    message = parse(start + await reader.readexactly(length - len(start)))
                    if message.xid == reply.message.xid and type(message.body) is type(reply.message.body):
                        return Reply(message=message, responder=reply.responder)
    return reply
