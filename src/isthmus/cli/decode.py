# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus decode``: octets or a capture to text, or to JSON lines."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from isthmus.cli import output
from isthmus.errors import WireError
from isthmus.wire import pcapng, text

_CAPTURE_MAGIC = {bytes.fromhex(each) for each in ("0a0d0d0a", "a1b2c3d4", "d4c3b2a1", "a1b23c4d", "4d3cb2a1")}
_OFFSET = re.compile(r"^\s*(?:0x)?[0-9A-Fa-f]{4,8}(?::|\s{2,})(?=\s*[0-9A-Fa-f]{2})")
"""``0x0010:`` of tcpdump -x, ``00000010:`` of xxd, ``0010  `` of a hex dump."""
_HEX = re.compile(r"[\s:,]|0x", re.IGNORECASE)
_IP_VERSIONS = (4, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One packet or message to be shown."""

    octets: bytes
    time_ns: int = 0
    frame: pcapng.Frame | None = None
    "The frame it came in; None for octets in hex."


@output.plain_errors
def decode(
    source: Annotated[
        str, typer.Argument(metavar="[HEX|FILE|-]", help="Octets in hex, a capture, a file of either, or - for input.")
    ] = "-",
    *,
    verbose: Annotated[
        bool | None, typer.Option("--tree/--lines", help="One line per field, or one per packet.", show_default=False)
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Show octets or a capture as text: RSIP, IPv4, IPv6, IP-in-IP, GRE, UDP, TCP, ICMP, IKE, SLP, IGMP.

    Hex may have spaces, colons and the offsets that tcpdump -x and xxd print; an empty line
    separates packets. It may be an IP packet, an Ethernet frame, or a bare RSIP message.
    Captures (pcap, pcapng) are shown with one line per packet, hex with one line per field.
    With --json, one object per packet and line.

    Damaged octets are no error: they are shown as far as they can be read, with what is wrong.
    """
    number = 0
    try:
        for number, item in enumerate(_items(source), start=1):
            if as_json:
                output.print_line(_labels(number, item) | describe(item))
            else:
                typer.echo(_shown(number, item, as_tree=item.frame is None if verbose is None else verbose))
    except WireError as error:
        output.fail(f"{source}: the capture is damaged after packet {number}: {error}")
    if not number and not as_json:
        output.fail(f"{source}: nothing to decode")


def describe(item: Item) -> dict[str, Any]:
    """Describe a packet, a frame without one, or a bare RSIP message; never raises."""
    if item.frame is not None:
        packet = pcapng.ip_octets(item.frame)
        if packet is None:
            problem = f"no IP packet in a frame of link type {item.frame.link_type}"
            return {"layer": "frame", "error": problem, "octets": item.octets.hex()}
        return text.to_dict(packet)
    if _is_rsip(item.octets):
        return text.rsip_to_dict(item.octets)
    return text.to_dict(_without_ethernet(item.octets))


def _shown(number: int, item: Item, *, as_tree: bool) -> str:
    packet = _without_ethernet(item.octets) if item.frame is None else pcapng.ip_octets(item.frame)
    if packet is None:
        shown = str(describe(item)["error"])
    elif item.frame is None and _is_rsip(packet):
        shown = text.rsip_tree(packet) if as_tree else text.rsip_line(packet)
    else:
        shown = text.tree(packet) if as_tree else text.line(packet)
    if item.frame is None:
        return shown
    labels = _labels(number, item)
    head = " ".join(str(labels[each]) for each in ("number", "time") if each in labels)
    return f"{head}\n{shown}" if as_tree else f"{head} {shown}"


def _labels(number: int, item: Item) -> dict[str, Any]:
    labels: dict[str, Any] = {"number": number}
    if item.time_ns:
        labels["time"] = time_text(item.time_ns)
    if item.frame is not None and item.frame.original_octets is not None:
        labels["original_octets"] = item.frame.original_octets
    return labels


def time_text(time_ns: int) -> str:
    """Give the time of a frame as ISO 8601 in UTC, to the nanosecond; a number where no calendar has it."""
    from datetime import UTC, datetime

    seconds, nanoseconds = divmod(time_ns, 10**9)
    try:
        return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
    except (ValueError, OverflowError, OSError):
        return f"{seconds}.{nanoseconds:09d}"


def _items(source: str) -> Iterator[Item]:
    """Find out what was given and cut it into packets."""
    path = Path(source)
    if source == "-":
        octets = sys.stdin.buffer.read()
    elif len(source) < 4096 and "\0" not in source and path.exists():
        octets = path.read_bytes()
    else:
        found = from_hex(source)
        if found is None:
            output.fail(f"{source!r} is no file that there is, and no octets in hex")
        yield from (Item(octets=each) for each in found)
        return
    yield from items_of(octets)


def items_of(octets: bytes) -> Iterator[Item]:
    """Cut what a file holds into packets: a capture, hex, or else one packet as it is.

    Raises:
        Truncated: a capture ends inside of something.
        Malformed: a capture contradicts itself.
    """
    if octets[:4] in _CAPTURE_MAGIC:
        for frame in pcapng.read(io.BytesIO(octets)):
            yield Item(octets=frame.octets, time_ns=frame.time_ns, frame=frame)
        return
    try:
        found = from_hex(octets.decode("ascii"))
    except UnicodeDecodeError:
        found = None
    if found is None:
        found = [octets] if octets else []
    yield from (Item(octets=each) for each in found)


def from_hex(words: str) -> list[bytes] | None:
    """Read packets in hex, empty lines between them; None if it is something else."""
    packets = []
    for paragraph in re.split(r"\n\s*\n", words):
        lines = (_OFFSET.sub("", each.partition("#")[0], count=1) for each in paragraph.splitlines())
        digits = _HEX.sub("", "\n".join(each.partition("  |")[0] for each in lines))
        try:
            packets.append(bytes.fromhex(digits))
        except ValueError:
            return None
    return [each for each in packets if each]


def _is_rsip(octets: bytes) -> bool:
    """Whether octets are rather a bare RSIP message than a packet: no IP version begins with a zero nibble."""
    return octets[:1] < b"\x10" and _without_ethernet(octets) is octets


def _without_ethernet(octets: bytes) -> bytes:
    """Take an Ethernet header off, where there clearly is one."""
    if octets[:1] and octets[0] >> 4 in _IP_VERSIONS and _is_whole_ip(octets):
        return octets
    packet = pcapng.ip_octets(pcapng.Frame(octets=octets, link_type=pcapng.ETHERNET))
    if packet is None or packet[0] >> 4 not in _IP_VERSIONS:
        return octets
    return packet


def _is_whole_ip(octets: bytes) -> bool:
    return "error" not in text.to_dict(octets)
