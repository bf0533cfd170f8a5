# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus counters``: how many packets went which way, by reason."""

from __future__ import annotations

from isthmus.border.verdict import Reason
from isthmus.cli import output


@output.plain_errors
def counters(*, socket: output.Socket = None, as_json: output.Json = False) -> None:
    """Show how many packets the running daemon's plane forwarded and dropped, by reason.

    Every packet is counted once. 'isthmus explain REASON' says what a name means.
    With --json, one object with every reason, zeros included.
    """
    found: dict[str, int] = output.ask(socket, do="counters")
    counts = {each.name: found.get(each.name, 0) for each in Reason} | found
    if as_json:
        output.print_json(counts)
        return
    sentences = {each.name: each.sentence for each in Reason}
    rows = [(count, name, sentences.get(name, "")) for name, count in counts.items() if count]
    output.print_table(("PACKETS", "REASON", "MEANING"), rows or [(0, "", "No packet was seen yet.")])
