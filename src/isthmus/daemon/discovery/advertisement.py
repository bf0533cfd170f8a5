# SPDX-License-Identifier: BSD-3-Clause
"""What a service agent answers for one RSIP server; no socket in it (RFC 2608 §7, §8, §10; RFC 3105 §4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from isthmus.daemon.discovery.template import SERVICE_TYPE, Offer, share_scope
from isthmus.errors import WireError
from isthmus.wire.slp import attribute
from isthmus.wire.slp import predicate as predicates
from isthmus.wire.slp.codes import LARGEST_DATAGRAM, SERVICE_AGENT, ErrorCode, Flag, Function
from isthmus.wire.slp.message import (
    MANDATORY_EXTENSIONS,
    AttrRply,
    AttrRqst,
    Body,
    Header,
    Message,
    SaAdvert,
    SrvDeReg,
    SrvReg,
    SrvRply,
    SrvRqst,
    SrvTypeRply,
    SrvTypeRqst,
    UrlEntry,
    emit,
    parse,
)
from isthmus.wire.slp.text import fold
from isthmus.wire.slp.url import ServiceUrl

LANGUAGE = "en"
"""Of the template (RFC 3105 §7)."""
_REPLIES: dict[int, Callable[[int], Body]] = {
    Function.SRV_RQST: lambda error: SrvRply(error=error),
    Function.ATTR_RQST: lambda error: AttrRply(error=error),
    Function.SRV_TYPE_RQST: lambda error: SrvTypeRply(error=error),
}
_Request = SrvRqst | AttrRqst | SrvTypeRqst


class _Refused(Exception):
    def __init__(self, error: ErrorCode) -> None:
        super().__init__(error)
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertisement:
    """A service URL, its attributes and its lifetime (RFC 3105 §3), and the scopes in which it is found."""

    here: str
    "The agent's own address, as previous responder lists have it."
    url: ServiceUrl
    scopes: tuple[str, ...]
    lifetime: int
    "Seconds."
    offer: Callable[[], Offer]
    "What the server offers at this moment, with its load."

    @property
    def entry(self) -> UrlEntry:
        """The URL as replies and registrations have it."""
        return UrlEntry(url=str(self.url), lifetime=self.lifetime)

    @property
    def registration(self) -> SrvReg:
        """What a directory agent is told (RFC 2608 §8.3)."""
        attributes = attribute.emit(self.offer().attributes)
        return SrvReg(url=self.entry, service_type=SERVICE_TYPE, scopes=self.scopes, attributes=attributes)

    @property
    def deregistration(self) -> SrvDeReg:
        """What it is told at the end (RFC 2608 §10.6)."""
        return SrvDeReg(scopes=self.scopes, url=self.entry)

    def answer(self, octets: bytes, *, multicast: bool, stream: bool = False) -> bytes | None:
        """Answer a request.

        Args:
            octets: The message.
            multicast: Whether it came to the group.
            stream: Whether it came over TCP, where an answer may be long.

        Returns:
            The reply; None where RFC 2608 wants silence: for what is no request, for who has our
            answer already, and in place of errors and empty answers to a multicast (§6.3, §7).
        """
        try:
            header = Header.parse(octets)
        except WireError:
            # Silent: VER_NOT_SUPPORTED cannot be sent to who speaks another version: its header is not this one.
            return None
        if header.function not in _REPLIES:
            return None
        group = multicast or bool(header.flags & Flag.REQUEST_MCAST)
        try:
            body = self._answer(parse(octets), group=group)
        except WireError:
            body = None if group else _REPLIES[header.function](ErrorCode.PARSE_ERROR)
        except _Refused as refused:
            body = None if group else _REPLIES[header.function](refused.error)
        if body is None:
            return None
        reply = emit(Message(xid=header.xid, body=body, language=header.language))
        if len(reply) > LARGEST_DATAGRAM and not stream:
            empty = _REPLIES[header.function](ErrorCode.OK)
            reply = emit(Message(xid=header.xid, body=empty, language=header.language, flags=Flag.OVERFLOW))
        return reply

    def _answer(self, message: Message, *, group: bool) -> Body | None:
        request = message.body
        assert isinstance(request, _Request)
        if self.here in request.previous_responders:
            return None
        if any(number in MANDATORY_EXTENSIONS for number, _ in message.extensions):
            raise _Refused(ErrorCode.OPTION_NOT_UNDERSTOOD)
        if isinstance(request, SrvRqst) and fold(request.service_type) == SERVICE_AGENT:
            return self._agent(request)
        if not isinstance(request, SrvTypeRqst) and request.spi:
            raise _Refused(ErrorCode.AUTHENTICATION_UNKNOWN)
        if not share_scope(self.scopes, request.scopes):
            raise _Refused(ErrorCode.SCOPE_NOT_SUPPORTED)
        match request:
            case SrvRqst():
                found = self._serves(request.service_type) and self._suits(request.predicate, message.language)
                return SrvRply(urls=(self.entry,)) if found else None if group else SrvRply()
            case AttrRqst():
                if not self._serves(request.url) and fold(request.url) != fold(str(self.url)):
                    return None if group else AttrRply()
                _check_language(message.language)
                return AttrRply(attributes=attribute.emit(attribute.select(self.offer().attributes, request.tags)))
            case SrvTypeRqst():
                ours = request.naming_authority in (None, "")
                return SrvTypeRply(service_types=(SERVICE_TYPE,)) if ours else None if group else SrvTypeRply()

    def _agent(self, request: SrvRqst) -> SaAdvert | None:
        """Tell that there is a service agent (RFC 2608 §8.6)."""
        if request.scopes and not share_scope(self.scopes, request.scopes):
            return None
        return SaAdvert(url=f"{SERVICE_AGENT}://{self.here}", scopes=self.scopes)

    @staticmethod
    def _serves(service_type: str) -> bool:
        return fold(service_type) == SERVICE_TYPE

    def _suits(self, text: str, language: str) -> bool:
        wanted = predicates.parse(text)
        if wanted is not None:
            _check_language(language)
        return predicates.matches(wanted, self.offer().attributes)


def _check_language(language: str) -> None:
    """Refuse what is asked of attributes in a language that they are not in (RFC 2608 §7, §8)."""
    if fold(language).partition("-")[0] not in (LANGUAGE, ""):
        raise _Refused(ErrorCode.LANGUAGE_NOT_SUPPORTED)
