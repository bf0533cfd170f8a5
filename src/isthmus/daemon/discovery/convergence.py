# SPDX-License-Identifier: BSD-3-Clause
"""Asking until there is nothing more to hear (RFC 2608 §6.3); no clock and no socket in it.

::

    ask ──wait──▶ ask again, naming who has answered ──twice as long──▶ ask again ...     until a question
                                                                                     brings no new answer,
                                                                                     or the time is over
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from isthmus.errors import WireError
from isthmus.wire.slp.codes import LARGEST_DATAGRAM, Flag, Function
from isthmus.wire.slp.message import AttrRqst, Message, SrvRqst, emit, parse

_REPLY = {Function.SRV_RQST: Function.SRV_RPLY, Function.ATTR_RQST: Function.ATTR_RPLY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer and who gave it."""

    message: Message
    responder: str


class Convergence:
    """One question, and the answers to it."""

    def __init__(
        self,
        request: SrvRqst | AttrRqst,
        *,
        xid: int,
        now: float,
        seconds: float,
        retry: float,
        multicast: bool,
    ) -> None:
        """Begin.

        Args:
            request: The question, with an empty previous responder list.
            xid: Random (RFC 2608 §8); the same for every repetition.
            now: Seconds, of the caller's clock.
            seconds: How long to go on.
            retry: Seconds before the first repetition; doubled each time.
            multicast: Whether many may answer; if not, the first answer is the last.
        """
        # Deviation: RFC 2608 §13 has 2 s before the first repetition and 15 s in all; a host that starts cannot wait
        # so long for a segment that answers in milliseconds. Both are settings.
        self._request = request
        self._xid = xid
        self._deadline = now + seconds
        self._wait = retry
        self._again = now
        self._multicast = multicast
        self._asked = 0
        self._new = False
        self.replies: list[Reply] = []
        "In the order in which they came, one for each responder."
        self.done = False

    @property
    def timer(self) -> float | None:
        """When ``poll`` is to be called again; None: there is nothing more to do."""
        return None if self.done else min(self._again, self._deadline)

    def poll(self, *, now: float) -> bytes | None:
        """Return what is to be sent now, if anything."""
        if self.done or now < min(self._again, self._deadline):
            return None
        # Who has answered stays silent now; that nobody else answered either is the end (RFC 2608 §6.3).
        if now >= self._deadline or (self.replies and not self._new):
            self.done = True
            return None
        octets = self._emit()
        if self._asked and len(octets) > LARGEST_DATAGRAM:
            self.done = True
            return None
        self._asked += 1
        self._new = False
        self._again = now + self._wait
        self._wait *= 2
        return octets

    def _emit(self) -> bytes:
        responders = tuple(each.responder for each in self.replies) if self._multicast else ()
        flags = Flag.REQUEST_MCAST if self._multicast else Flag.NONE
        return emit(Message(xid=self._xid, body=replace(self._request, previous_responders=responders), flags=flags))

    def receive(self, octets: bytes, responder: str) -> Reply | None:
        """Take an answer.

        Returns:
            The answer, if it is one to this question and the first of its responder; else None.
        """
        try:
            message = parse(octets)
        except WireError:
            return None
        expected = _REPLY[self._request.function]
        if self.done or message.xid != self._xid or message.body.function != expected:
            return None
        if any(each.responder == responder for each in self.replies):
            return None
        reply = Reply(message=message, responder=responder)
        self.replies.append(reply)
        self._new = True
        self.done = not self._multicast
        return reply
