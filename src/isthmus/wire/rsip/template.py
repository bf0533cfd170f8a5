# SPDX-License-Identifier: BSD-3-Clause
"""Messages of which only some numbers differ, written at once (RFC 3103 §8, §9).

A gateway gives thousands of hosts the same answer but for an ID, an address, a counter. Their octets are made once, by
``emit``, and cut where these stand.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from isthmus.wire.rsip.envelope import emit_parameters
from isthmus.wire.rsip.message import parameters
from isthmus.wire.rsip.parameter import Ports, RsipAddress
from isthmus.wire.rsip.value import NumberParameter

if TYPE_CHECKING:
    from isthmus.wire.rsip.message import Message
    from isthmus.wire.rsip.parameter import Parameter

_HEADER_OCTETS = 4
_PARAMETER_OCTETS = 3
_WIDTHS = {1: "B", 2: "H", 4: "L"}


class Template:
    """How to write a message like another one, with other numbers in some of its parameters."""

    __slots__ = ("_literals", "_pack", "_slots")

    def __init__(self, message: Message, *changing: Parameter) -> None:
        """Cut a message up.

        Args:
            message: One that is as all are to be.
            changing: Those of its parameters, the very objects, whose numbers differ, in the order of the wire: a
                number, an address given in octets, or one port or a run of ports, whose first one differs.

        Raises:
            ValueError: one of them is not in the message, comes in another order, or is of another form.
        """
        octets = emit_parameters(message.type, parameters(message))
        layout, literals, at, done = "!", [], 0, 0
        position = _HEADER_OCTETS
        for each in parameters(message):
            value = position + _PARAMETER_OCTETS
            position = value + len(each.emit())
            if done == len(changing) or each is not changing[done]:
                continue
            start, form = _changing_part(each)
            layout += f"{value + start - at}s{form}"
            literals.append(octets[at : value + start])
            at = position
            done += 1
        if done < len(changing):
            raise ValueError(f"{changing[done]} does not stand there")
        self._pack = struct.Struct(f"{layout}{len(octets) - at}s").pack
        self._literals = (*literals, octets[at:])
        self._slots = len(changing)

    def fill(self, *numbers: int | bytes) -> bytes:
        """Write a message with these numbers in place of the ones that differ; addresses as octets."""
        literals = self._literals
        values: list[int | bytes] = [literals[0]] * (2 * self._slots + 1)
        values[::2] = literals
        values[1::2] = numbers
        return self._pack(*values)


def _changing_part(parameter: Parameter) -> tuple[int, str]:
    """Where within the value of a parameter it differs up to its end, and how that is packed."""
    match parameter:
        case NumberParameter():
            return 0, _WIDTHS[parameter.width]
        case RsipAddress() if parameter.octets:
            return 1, f"{len(parameter.octets)}s"
        case Ports() if len(parameter.ports) == 1:
            return 1, "H"
        case _:
            raise ValueError(f"{parameter} has no number that could differ")
