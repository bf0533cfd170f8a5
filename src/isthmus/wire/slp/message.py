# SPDX-License-Identifier: BSD-3-Clause
r"""SLPv2 messages: a header, and one of eleven bodies (RFC 2608 §8).

::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |    Version    |  Function-ID  |            Length             |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    | Length, contd.|O|F|R|       reserved          |Next Ext Offset|
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  Next Extension Offset, contd.|              XID              |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |      Language Tag Length      |         Language Tag          \
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

The order of a body's fields is the order on the wire; what a field looks like there follows
from its type (``_FIELDS``). Authentication blocks are read over and never written: we have no keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, TypeAlias, get_type_hints

from isthmus.errors import Malformed, Truncated
from isthmus.wire.cursor import Reader, Writer
from isthmus.wire.slp.codes import VERSION, ErrorCode, Flag, Function
from isthmus.wire.slp.text import decode, join, split

HEADER_OCTETS = 14
"""Of the header, without its language tag."""
MOST_URLS = 256
"""URL entries of one reply that are read."""
MANDATORY_EXTENSIONS = range(0x4000, 0x8000)
"""Extensions that must be understood, or refused (RFC 2608 §9.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlEntry:
    """A URL and for how long it holds, in seconds (RFC 2608 §4.3)."""

    url: str
    lifetime: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SrvRqst:
    """Which services of a type are there? (RFC 2608 §8.1)."""

    function: ClassVar[Function] = Function.SRV_RQST

    previous_responders: tuple[str, ...] = ()
    service_type: str
    scopes: tuple[str, ...] = ()
    predicate: str = ""
    spi: str = ""
    "SLP's security parameter index, a string: how the reply is to be signed."


@dataclass(frozen=True, slots=True, kw_only=True)
class SrvRply:
    """These (RFC 2608 §8.2)."""

    function: ClassVar[Function] = Function.SRV_RPLY

    error: int = ErrorCode.OK
    urls: tuple[UrlEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SrvReg:
    """A service is there (RFC 2608 §8.3)."""

    function: ClassVar[Function] = Function.SRV_REG

    url: UrlEntry
    service_type: str
    scopes: tuple[str, ...]
    attributes: str = ""
    "As ``attribute`` reads and writes it."
    signatures: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SrvDeReg:
    """A service, or some of its attributes, is no longer there (RFC 2608 §10.6)."""

    function: ClassVar[Function] = Function.SRV_DEREG

    scopes: tuple[str, ...]
    url: UrlEntry
    tags: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SrvAck:
    """A directory agent has taken note, or not (RFC 2608 §8.4)."""

    function: ClassVar[Function] = Function.SRV_ACK

    error: int = ErrorCode.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class AttrRqst:
    """What are the attributes of a URL, or of all services of a type? (RFC 2608 §10.3)."""

    function: ClassVar[Function] = Function.ATTR_RQST

    previous_responders: tuple[str, ...] = ()
    url: str
    scopes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    spi: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttrRply:
    """These (RFC 2608 §10.4)."""

    function: ClassVar[Function] = Function.ATTR_RPLY

    error: int = ErrorCode.OK
    attributes: str = ""
    signatures: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DaAdvert:
    """A directory agent is here (RFC 2608 §8.5)."""

    function: ClassVar[Function] = Function.DA_ADVERT

    error: int = ErrorCode.OK
    boot_timestamp: int = 0
    "Seconds since 1970; 0: it goes down."
    url: str
    scopes: tuple[str, ...]
    attributes: str = ""
    spis: tuple[str, ...] = ()
    signatures: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SrvTypeRqst:
    """Which types of services are there? (RFC 2608 §10.1)."""

    function: ClassVar[Function] = Function.SRV_TYPE_RQST

    previous_responders: tuple[str, ...] = ()
    naming_authority: str | None = None
    "None: all; empty: IANA's."
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SrvTypeRply:
    """These (RFC 2608 §10.2)."""

    function: ClassVar[Function] = Function.SRV_TYPE_RPLY

    error: int = ErrorCode.OK
    service_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SaAdvert:
    """A service agent is here (RFC 2608 §8.6)."""

    function: ClassVar[Function] = Function.SA_ADVERT

    url: str
    scopes: tuple[str, ...]
    attributes: str = ""
    signatures: None = None


Body: TypeAlias = (
    SrvRqst
    | SrvRply
    | SrvReg
    | SrvDeReg
    | SrvAck
    | AttrRqst
    | AttrRply
    | DaAdvert
    | SrvTypeRqst
    | SrvTypeRply
    | SaAdvert
)
BODIES: dict[int, type[Body]] = {
    each.function: each
    for each in (
        SrvRqst, SrvRply, SrvReg, SrvDeReg, SrvAck, AttrRqst, AttrRply, DaAdvert, SrvTypeRqst, SrvTypeRply, SaAdvert,
    )
}  # fmt: skip
_WITHOUT_BODY = {Function.SRV_RPLY: 1, Function.ATTR_RPLY: 1, Function.SRV_TYPE_RPLY: 1, Function.DA_ADVERT: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What every message begins with (RFC 2608 §8)."""

    function: int
    xid: int
    language: str = "en"
    flags: Flag = Flag.NONE
    length: int = 0
    "Of the whole message, in octets."
    next_extension: int = 0
    "Offset of the first extension from the start of the message; 0: there is none."
    octets: int = 0
    "Of the header itself, with its language tag."

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read the header of a message.

        Raises:
            Truncated: there are fewer octets than it or its Length say.
            Malformed: another version, or lengths that contradict each other.
        """
        reader = Reader(octets)
        version = reader.u8("version")
        if version != VERSION:
            raise Malformed("version", at=0, problem=f"{version}, not {VERSION}")
        function = reader.u8("function-id")
        length = int.from_bytes(reader.take(3, "length"), "big")
        flags = Flag(reader.u16("flags") >> 8 & 0xE0)
        extension = int.from_bytes(reader.take(3, "next-extension-offset"), "big")
        xid = reader.u16("xid")
        at = reader.position
        language = decode(reader.take(reader.u16("language-tag-length"), "language-tag"), "language-tag", at + 2)
        if length > len(octets):
            raise Truncated("length", at=2, need=length, have=len(octets))
        if length < reader.position:
            raise Malformed("length", at=2, problem=f"{length} octets, less than the header has")
        if extension and not reader.position <= extension < length:
            raise Malformed("next-extension-offset", at=7, problem=f"{extension} is outside of the message")
        return cls(
            function=function, xid=xid, language=language, flags=flags, length=length, next_extension=extension,
            octets=reader.position,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A whole message."""

    xid: int
    body: Body
    language: str = "en"
    flags: Flag = Flag.NONE
    extensions: tuple[tuple[int, bytes], ...] = ()
    "Numbers and contents (RFC 2608 §9.1)."


def parse(octets: bytes) -> Message:
    """Read one message, which the octets hold and nothing else.

    Raises:
        Truncated: there is less of it than it says.
        Malformed: it breaks a rule of RFC 2608 §8, or is of no kind that RFC 2608 has.
    """
    header = Header.parse(octets)
    if header.length != len(octets):
        raise Malformed("length", at=2, problem=f"{header.length} octets of {len(octets)}")
    kind = BODIES.get(header.function)
    if kind is None:
        raise Malformed("function-id", at=1, problem=f"{header.function} is no function of RFC 2608")
    stop = header.next_extension or header.length
    reader = Reader(octets[:stop])
    reader.take(header.octets, "header")
    body = _read(kind, reader)
    if reader.left:
        raise Malformed("body", at=reader.position, problem=f"{reader.left} octets left over")
    extensions = _extensions(octets, header.next_extension)
    return Message(xid=header.xid, body=body, language=header.language, flags=header.flags, extensions=extensions)


def emit(message: Message) -> bytes:
    """Write one message.

    Raises:
        Malformed: a field does not fit.
    """
    writer = Writer()
    writer.u8(VERSION, "version")
    writer.u8(message.body.function, "function-id")
    writer.octets(bytes(3))
    writer.u16(message.flags << 8, "flags")
    writer.octets(bytes(3))
    writer.u16(message.xid, "xid")
    _write_text(writer, message.language, "language-tag")
    _write(writer, message.body)
    offset = writer.position if message.extensions else 0
    for at, (number, contents) in enumerate(message.extensions):
        last = at == len(message.extensions) - 1
        writer.u16(number, "extension-id")
        following = 0 if last else writer.position + 3 + len(contents)
        writer.octets(following.to_bytes(3, "big"))
        writer.octets(contents)
    octets = bytearray(bytes(writer))
    if len(octets) >= 1 << 24:
        raise Malformed("length", at=2, problem=f"{len(octets)} octets do not fit in 24 bits")
    octets[2:5] = len(octets).to_bytes(3, "big")
    octets[7:10] = offset.to_bytes(3, "big")
    return bytes(octets)


def _extensions(octets: bytes, offset: int) -> tuple[tuple[int, bytes], ...]:
    found = []
    while offset:
        reader = Reader(octets)
        reader.take(offset, "extension")
        number = reader.u16("extension-id")
        following = int.from_bytes(reader.take(3, "next-extension-offset"), "big")
        # Forward only: an extension that points back would be read for ever.
        if following and not reader.position <= following < len(octets):
            raise Malformed("next-extension-offset", at=offset + 2, problem=f"{following} does not lead on")
        contents = reader.take((following or len(octets)) - reader.position, "extension")
        found.append((number, contents))
        offset = following
    return tuple(found)


def _read(kind: type[Body], reader: Reader) -> Body:
    values: dict[str, Any] = {}
    for name, (read, _) in _layout(kind):
        values[name] = read(reader, name)
        # A reply that says what is wrong may end there (RFC 2608 §7).
        if name == "error" and values[name] and kind.function in _WITHOUT_BODY and not reader.left:
            values |= {"url": "", "scopes": ()} if kind is DaAdvert else {}
            break
    return kind(**values)


def _write(writer: Writer, body: Body) -> None:
    for name, (_, write) in _layout(type(body)):
        write(writer, getattr(body, name), name)


def _read_text(reader: Reader, field: str) -> str:
    at = reader.position
    return decode(reader.take(reader.u16(field), field), field, at + 2)


def _write_text(writer: Writer, text: str, field: str) -> None:
    octets = text.encode("utf-8")
    writer.u16(len(octets), field)
    writer.octets(octets)


def _read_authority(reader: Reader, field: str) -> str | None:
    at = reader.position
    length = reader.u16(field)
    return None if length == 0xFFFF else decode(reader.take(length, field), field, at + 2)


def _write_authority(writer: Writer, authority: str | None, field: str) -> None:
    if authority is None:
        writer.u16(0xFFFF, field)
    else:
        _write_text(writer, authority, field)


def _read_signatures(reader: Reader, field: str) -> None:
    # Deviation: RFC 3105 §8 wants SLP's authentication where trust is an issue. Its blocks are neither made nor
    # checked; where SLP cannot be trusted, name the gateway.
    for _ in range(reader.u8(field)):
        reader.u16("block-structure-descriptor")
        at = reader.position
        length = reader.u16("authentication-block-length")
        if length < 4:
            raise Malformed("authentication-block-length", at=at, problem=f"{length} octets, less than 4")
        reader.take(length - 4, "authentication-block")


def _write_signatures(writer: Writer, _signatures: None, field: str) -> None:
    writer.u8(0, field)


def _read_url(reader: Reader, _field: str) -> UrlEntry:
    reader.u8("url-entry-reserved")
    lifetime = reader.u16("lifetime")
    url = _read_text(reader, "url")
    _read_signatures(reader, "url-signatures")
    return UrlEntry(url=url, lifetime=lifetime)


def _write_url(writer: Writer, entry: UrlEntry, _field: str) -> None:
    writer.u8(0, "url-entry-reserved")
    writer.u16(entry.lifetime, "lifetime")
    _write_text(writer, entry.url, "url")
    _write_signatures(writer, None, "url-signatures")


def _read_urls(reader: Reader, field: str) -> tuple[UrlEntry, ...]:
    at = reader.position
    count = reader.u16(field)
    if count > MOST_URLS:
        raise Malformed(field, at=at, problem=f"{count} URL entries, more than {MOST_URLS}")
    return tuple(_read_url(reader, field) for _ in range(count))


def _write_urls(writer: Writer, entries: tuple[UrlEntry, ...], field: str) -> None:
    writer.u16(len(entries), field)
    for entry in entries:
        _write_url(writer, entry, field)


_Field: TypeAlias = tuple[Callable[[Reader, str], Any], Callable[[Writer, Any, str], None]]
_FIELDS: dict[Any, _Field] = {
    str: (_read_text, _write_text),
    tuple[str, ...]: (
        lambda reader, field: split(_read_text(reader, field), field),
        lambda writer, items, field: _write_text(writer, join(items), field),
    ),
    UrlEntry: (_read_url, _write_url),
    tuple[UrlEntry, ...]: (_read_urls, _write_urls),
    str | None: (_read_authority, _write_authority),
    type(None): (_read_signatures, _write_signatures),
}
"""How each type of field is read and written."""
_NUMBERS: dict[str, _Field] = {
    "error": (lambda reader, field: reader.u16(field), lambda writer, number, field: writer.u16(number, field)),
    "boot_timestamp": (
        lambda reader, field: reader.u32(field),
        lambda writer, number, field: writer.u32(number, field),
    ),
}
_layouts: dict[type[Body], tuple[tuple[str, _Field], ...]] = {}


def _layout(kind: type[Body]) -> tuple[tuple[str, _Field], ...]:
    if kind not in _layouts:
        hints = get_type_hints(kind)
        _layouts[kind] = tuple(
            (each.name, _NUMBERS.get(each.name) or _FIELDS[hints[each.name]]) for each in fields(kind)
        )
    return _layouts[kind]
