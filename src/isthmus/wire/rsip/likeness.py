# SPDX-License-Identifier: BSD-3-Clause
"""Messages that are alike: the same octets but for the Client ID in front and the Message Counter at the end.

Nearly every request that a gateway gets is like one that it had before::

    header │ Client ID │ everything else │ Message Counter
    header │ Message Counter                                   REGISTER_REQUEST

Both values are plain numbers that no rule of grammar looks at. So the judgement of one message, as far as it came to a
good end, is that of all that are alike, and only the two numbers are read anew. What differs in anything else, and
whatever is wrong, is read parameter by parameter as ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isthmus.wire.rsip.parameter import BindId, ClientId, MessageCounter
from isthmus.wire.rsip.value import NumberParameter

if TYPE_CHECKING:
    from collections.abc import Callable

    from isthmus.wire.rsip.codes import MessageType
    from isthmus.wire.rsip.parameter import Parameter

_HEADER_OCTETS = 4
_NUMBER_OCTETS = 7
"Type, length and value of a Client ID or a Message Counter."
_FRONT = _HEADER_OCTETS + _NUMBER_OCTETS
CLIENT_ID, COUNTER = slice(_FRONT - 4, _FRONT), slice(-4, None)
"""Where the two numbers stand in a message that has a likeness, and has a Client ID."""
_MOST_OCTETS = 256
"Longer messages are not worth remembering."
_MOST_LIKENESSES = 512
"When there are more, all are forgotten: whoever asks for something else each time gains nothing by it."

_new = object.__new__
_set_value = NumberParameter.__dict__["value"].__set__


class Likeness:
    """What messages that are alike have in common."""

    __slots__ = ("_client_id", "_constants", "_counter", "_message", "bind_id", "length", "parameters", "type")

    def __init__(self, kind: MessageType, parameters: tuple[Parameter, ...], length: int) -> None:
        """Take one of them for all.

        Args:
            kind: Type of the message.
            parameters: As they were read; the Client ID first, if there is one, and the counter last.
            length: Of the message, in octets.
        """
        self.type = kind
        self.parameters = parameters[1:-1]
        "Those in the middle."
        self.length = length
        self.bind_id = next((each.value for each in self.parameters if isinstance(each, BindId)), None)
        self._message: type[Any] | None = None

    def parameters_of(self, octets: bytes) -> tuple[Parameter, ...]:
        """All parameters of one of them, in the order of the wire."""
        counter = _new(MessageCounter)
        _set_value(counter, int.from_bytes(octets[COUNTER], "big"))
        if self.length == _FRONT:
            return (counter,)
        client_id = _new(ClientId)
        _set_value(client_id, int.from_bytes(octets[CLIENT_ID], "big"))
        return (client_id, *self.parameters, counter)

    def learn(self, message: Any) -> None:
        """Take note that they are good messages, and of what one looks like."""
        kind = type(message)
        setters: dict[str, Callable[[object, object], None]] = {
            name: getattr(kind, name).__set__ for each in kind.__mro__ for name in getattr(each, "__slots__", ())
        }
        self._counter = setters.pop("message_counter")
        self._client_id = setters.pop("client_id", None)
        self._constants = tuple((setter, getattr(message, name)) for name, setter in setters.items())
        self._message = kind

    def message_of(self, parameters: tuple[Parameter, ...]) -> Any:
        """The message with these parameters, which are of ``parameters_of``; None while no such message is known."""
        if self._message is None:
            return None
        message = _new(self._message)
        for setter, value in self._constants:
            setter(message, value)
        if self._client_id is not None:
            self._client_id(message, parameters[0])
        self._counter(message, parameters[-1])
        return message


_known: dict[bytes, Likeness] = {}


def likeness_of(octets: bytes) -> Likeness | None:
    """What is known of messages like this one; None: nothing, or not by this way."""
    found = _known.get(octets[: _HEADER_OCTETS + 3] + octets[_FRONT:-4])
    return found if found is not None and found.length == len(octets) else None


def remember(kind: MessageType, parameters: tuple[Parameter, ...], octets: bytes) -> Likeness | None:
    """Take note of a message whose parameters could be read, if messages like it can be told.

    Args:
        kind: Its type.
        parameters: As they were read.
        octets: The whole message.
    """
    kinds = [type(each) for each in parameters]
    if len(octets) > _MOST_OCTETS or kinds.count(MessageCounter) != 1 or kinds[-1] is not MessageCounter:
        return None
    alone = kinds == [MessageCounter]
    if not alone and (kinds[0] is not ClientId or kinds.count(ClientId) != 1):
        return None
    if len(_known) >= _MOST_LIKENESSES:
        _known.clear()
    made = Likeness(kind, parameters, len(octets))
    _known[octets[: _HEADER_OCTETS + 3] + octets[_FRONT:-4]] = made
    return made
