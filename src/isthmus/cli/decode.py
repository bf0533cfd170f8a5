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
from isthmus.wire.sip.header import HeaderOrder
from isthmus.wire.sip.option import OptionLayout

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
    header_order: Annotated[
        HeaderOrder, typer.Option(help="Of payload type and hop limit in SIP headers.")
    ] = HeaderOrder.DEERING,
    option_layout: Annotated[OptionLayout, typer.Option(help="Of SIP's option headers.")] = OptionLayout.SIP92,
    as_json: output.Json = False,
) -> None:
    """Show octets or a capture as text: RSIP, IPv4, IPv6, SIP, IPAE, IP-in-IP, GRE, UDP, TCP, ICMP, IKE, SLP, IGMP.

    Hex may have spaces, colons and the offsets that tcpdump -x and xxd print; an empty line
    separates packets. It may be an IP packet, an Ethernet frame, or a bare RSIP message.
    Captures (pcap, pcapng) are shown with one line per packet, hex with one line per field.
    Version 6 under EtherType 0x0800 is SIP (RFC 8507, not the one of telephones); without an
    EtherType, and under protocol 41, the length tells SIP from IPv6. checksum_fits names the
    pseudo-headers by which a checksum over SIP is right.
    With --json, one object per packet and line.

    Damaged octets are no error: they are shown as far as they can be read, with what is wrong.
    """
    number, sip = 0, text.SipReading(order=header_order, layout=option_layout)
    try:
        for number, item in enumerate(_items(source), start=1):
            if as_json:
                output.print_line(_labels(number, item) | describe(item, sip))
            else:
                typer.echo(_shown(number, item, as_tree=item.frame is None if verbose is None else verbose, sip=sip))
    except WireError as error:
        output.fail(f"{source}: the capture is damaged after packet {number}: {error}")
    if not number and not as_json:
        output.fail(f"{source}: nothing to decode")


_ETHERNET_OCTETS = 14
_NAMES = {0x0806: "ARP", 0x88CC: "LLDP"}
_USUAL = text.SipReading()


def describe(item: Item, sip: text.SipReading = _USUAL) -> dict[str, Any]:
    """Describe a packet, a frame without one, or a bare RSIP message; never raises."""
    if item.frame is not None:
        found = pcapng.network(item.frame)
        if found is None:
            problem = _no_packet(item.frame)
            return {"layer": "frame", "error": problem, "octets": item.octets.hex()}
    elif _is_rsip(item.octets):
        return text.rsip_to_dict(item.octets)
    else:
        found = _without_ethernet(item.octets)
    ethertype, packet = found
    return text.to_dict(packet, ethertype=ethertype, sip=sip)


def _no_packet(frame: pcapng.Frame) -> str:
    """Why nothing is decoded: what else is in a frame of Ethernet, or a link that is not known."""
    if frame.link_type == pcapng.ETHERNET and len(frame.octets) >= _ETHERNET_OCTETS:
        kind = int.from_bytes(frame.octets[_ETHERNET_OCTETS - 2 : _ETHERNET_OCTETS], "big")
        return f"no IP packet: {_NAMES.get(kind, 'EtherType')} ({kind:#06x})"
    return f"no IP packet in a frame of link type {frame.link_type}"


def _shown(number: int, item: Item, *, as_tree: bool, sip: text.SipReading = _USUAL) -> str:
    found = _without_ethernet(item.octets) if item.frame is None else pcapng.network(item.frame)
    if found is None:
        shown = str(describe(item)["error"])
    elif item.frame is None and _is_rsip(found[1]):
        shown = text.rsip_tree(found[1]) if as_tree else text.rsip_line(found[1])
    else:
        ethertype, packet = found
        shown = (text.tree if as_tree else text.line)(packet, ethertype=ethertype, sip=sip)
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
    return octets[:1] < b"\x10" and _without_ethernet(octets)[1] is octets


def _without_ethernet(octets: bytes) -> tuple[int | None, bytes]:
    """Take an Ethernet header off, where there clearly is one; its EtherType, and what is left."""
    if octets[:1] and octets[0] >> 4 in _IP_VERSIONS and _is_whole_ip(octets):
        return None, octets
    found = pcapng.network(pcapng.Frame(octets=octets, link_type=pcapng.ETHERNET))
    if found is None or found[1][0] >> 4 not in _IP_VERSIONS:
        return None, octets
    return found


def _is_whole_ip(octets: bytes) -> bool:
    return "error" not in text.to_dict(octets)
