# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus counters``: how many packets went which way, and how many control messages were refused, by reason."""

from __future__ import annotations

from isthmus.border.verdict import Reason
from isthmus.cli import output

_SILENT = {
    "stale": "older than what the host was answered last; nothing was said",
    "duplicate": "the same again; it was given the same answer again, or once for both",
    "busy": "more came than can be answered; nothing was said",
    "rate": "too many at a time; on UDP nothing was said",
    "stranger": "from where nobody may register; nothing was said",
    "error": "an ERROR_RESPONSE, which is never answered",
}


@output.plain_errors
def counters(*, socket: output.Socket = None, as_json: output.Json = False) -> None:
    """Show how many packets the running daemon's plane forwarded and dropped, and what it refused, by reason.

    Every packet is counted once. Rows "refused: ..." are control messages that a gateway did not
    serve, by the error that answered them or by why nothing was said; rows "ignored: ..." are
    those that a host did not believe. 'isthmus explain REASON' says what a name means. With
    --json, one object with every reason, zeros included.
    """
    found: dict[str, int] = output.ask(socket, do="counters")
    counts = {each.name: found.get(each.name, 0) for each in Reason} | found
    if as_json:
        output.print_json(counts)
        return
    sentences = {each.name: each.sentence for each in Reason}
    rows = [(count, name, sentences.get(name) or _meaning(name)) for name, count in counts.items() if count]
    output.print_table(("COUNT", "REASON", "MEANING"), rows or [(0, "", "No packet was seen yet.")])


def _meaning(name: str) -> str:
    """What a row about control messages means."""
    from isthmus.wire.rsip.codes import ErrorCode

    _, _, why = name.partition(": ")
    if why in ErrorCode.__members__:
        return f"control messages that were answered with error {ErrorCode[why].value}"
    return f"control messages: {_SILENT[why]}" if why in _SILENT else "control messages"
