# SPDX-License-Identifier: BSD-3-Clause
"""Layouts read out of a compiled object, so that ``bpf/include/isthmus/abi.h`` is their only declaration.

clang writes the types of a program into the section ``.BTF`` of its object (Linux,
``Documentation/bpf/btf.rst``). This reads structs and enums back by name::

    >>> types = Types.of_object(octets)
    >>> types.record("owner").pack(tag=7, registered=1)
    >>> types.enum("reason")["NO_BINDING"]

A field of type ``__be16`` or ``__be32`` is in network order, every other in the machine's;
an array is octets as they are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Literal

from isthmus.errors import AbiMismatch

_ELF_MAGIC = b"\x7fELF\x02\x01"
_BTF_MAGIC = 0xEB9F
_INT, _ARRAY, _STRUCT, _ENUM = 1, 3, 4, 6
_ALIASES = frozenset({8, 9, 10, 11, 18})
"Typedef, volatile, const, restrict, type tag: they point to what they are about."
_TYPEDEF = 8
_EXTRA: Mapping[int, tuple[int, bool]] = {1: (4, False), 3: (12, False), 4: (12, True), 5: (12, True), 6: (8, True)} | {
    13: (8, True),
    14: (4, False),
    15: (12, True),
    17: (4, False),
    19: (12, True),
}
"Kind: octets after the header of a type, and whether once per member."


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a struct."""

    name: str
    at: int
    octets: int
    network: bool
    "In network order."
    number: bool
    "False: octets as they are (an array, a struct)."


@dataclass(frozen=True, slots=True)
class Record:
    """The layout of one struct."""

    name: str
    octets: int
    fields: tuple[Field, ...]
    by_name: Mapping[str, Field] = dataclasses.field(repr=False, compare=False)

    def pack(self, **values: int | bytes) -> bytes:
        """Write a struct; fields that are not named are zero.

        Raises:
            AbiMismatch: the struct has no such field.
        """
        return self.replace(bytes(self.octets), **values)

    def replace(self, before: bytes, **values: int | bytes) -> bytes:
        """Write some fields of a struct anew.

        Raises:
            AbiMismatch: the struct has no such field.
        """
        octets, by_name = bytearray(before), self.by_name
        for name, value in values.items():
            field = by_name.get(name) or self._of(name)
            octets[field.at : field.at + field.octets] = _emit(field, value)
        return bytes(octets)

    def unpack(self, octets: bytes) -> dict[str, int | bytes]:
        """Read a struct."""
        return {field.name: _parse(field, octets[field.at : field.at + field.octets]) for field in self.fields}

    def number(self, octets: bytes, name: str) -> int:
        """Read one number out of a struct."""
        field = self._of(name)
        return int.from_bytes(octets[field.at : field.at + field.octets], _order(field))

    def _of(self, name: str) -> Field:
        if name not in self.by_name:
            raise AbiMismatch(f"struct {self.name} has no field {name}; run make -C bpf")
        return self.by_name[name]


def _order(field: Field) -> Literal["big", "little"]:
    return "big" if field.network else sys.byteorder


def _emit(field: Field, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return value.to_bytes(field.octets, "big" if field.network else sys.byteorder)
    if len(value) != field.octets:
        raise AbiMismatch(f"field {field.name} has {field.octets} octets, not {len(value)}")
    return value


def _parse(field: Field, octets: bytes) -> int | bytes:
    if field.number:
        return int.from_bytes(octets, _order(field))
    return octets


@dataclass(frozen=True, slots=True)
class _Type:
    kind: int
    name: str
    size: int
    "Or the type that an alias is about."
    members: tuple[tuple[int, int, int], ...]
    "Struct: name, type, bits. Enum: name, value, 0. Array: element, index type, length."


class Types:
    """The structs and enums of one object."""

    def __init__(self, section: bytes) -> None:
        """Read the octets of a ``.BTF`` section."""
        magic, _version, _flags, header, type_at, type_octets, string_at, string_octets = struct.unpack_from(
            "<HBBIIIII", section
        )
        if magic != _BTF_MAGIC:
            raise AbiMismatch(f"BTF begins with {magic:#06x}, must be {_BTF_MAGIC:#06x}")
        self._strings = section[header + string_at : header + string_at + string_octets]
        self._types = [_Type(0, "void", 0, ()), *self._read(section[header + type_at : header + type_at + type_octets])]
        self._by_name = {(each.kind, each.name): number for number, each in enumerate(self._types)}
        self._records: dict[str, Record] = {}
        self._layouts: dict[tuple[str, ...], int] = {}

    @staticmethod
    @lru_cache(maxsize=2)
    def of_object(octets: bytes) -> Types:
        """Find and read the section in an ELF object.

        Raises:
            AbiMismatch: no object, or one without BTF.
        """
        return Types(_section(octets, ".BTF"))

    def record(self, name: str) -> Record:
        """The layout of a struct.

        Raises:
            AbiMismatch: there is none of that name.
        """
        if name not in self._records:
            found = self._find(_STRUCT, name)
            fields = tuple(self._field(self._string(at), number, bits) for at, number, bits in found.members)
            self._records[name] = Record(name, found.size, fields, {each.name: each for each in fields})
        return self._records[name]

    def enum(self, name: str) -> Mapping[str, int]:
        """The values of an enum by name.

        Raises:
            AbiMismatch: there is none of that name.
        """
        return MappingProxyType({self._string(at): value for at, value, _ in self._find(_ENUM, name).members})

    def layout(self, *names: str) -> int:
        """A number that differs when any of these structs does."""
        if names not in self._layouts:
            digest = hashlib.blake2b(digest_size=7)
            for name in names:
                digest.update(repr(self.record(name)).encode())
            self._layouts[names] = int.from_bytes(digest.digest(), "big")
        return self._layouts[names]

    def _find(self, kind: int, name: str) -> _Type:
        number = self._by_name.get((kind, name))
        if number is None:
            raise AbiMismatch(f"the object knows no {'enum' if kind == _ENUM else 'struct'} {name}: rebuild it")
        return self._types[number]

    def _field(self, name: str, number: int, bits: int) -> Field:
        octets, network, plain = self._measure(number)
        return Field(name, bits // 8, octets, network, plain)

    def _measure(self, number: int) -> tuple[int, bool, bool]:
        """Octets of a type, whether it is in network order, whether it is a number."""
        network = False
        found = self._types[number]
        while found.kind in _ALIASES:
            network = network or (found.kind == _TYPEDEF and found.name.startswith("__be"))
            found = self._types[found.size]
        if found.kind == _ARRAY:
            element, _, length = found.members[0]
            return self._measure(element)[0] * length, False, False
        return found.size, network, found.kind in {_INT, _ENUM}

    def _string(self, at: int) -> str:
        return self._strings[at : self._strings.index(b"\0", at)].decode()

    def _read(self, section: bytes) -> list[_Type]:
        types: list[_Type] = []
        at = 0
        while at < len(section):
            name, info, size = struct.unpack_from("<III", section, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            octets, each = _EXTRA.get(kind, (0, False))
            at += 12
            members: tuple[tuple[int, int, int], ...] = ()
            if kind == _STRUCT:
                members = tuple(struct.iter_unpack("<III", section[at : at + 12 * count]))
            elif kind == _ENUM:
                members = tuple(
                    (first, value, 0) for first, value in struct.iter_unpack("<Ii", section[at : at + 8 * count])
                )
            elif kind == _ARRAY:
                members = (struct.unpack_from("<III", section, at),)
            types.append(_Type(kind, self._string(name), size, members))
            at += octets * (count if each else 1)
        return types


def _section(octets: bytes, wanted: str) -> bytes:
    """The octets of a section of a little-endian ELF-64 file (System V gABI, chapter 4)."""
    if not octets.startswith(_ELF_MAGIC):
        raise AbiMismatch("not an ELF object for a 64-bit little-endian machine; rebuild it with make -C bpf")
    (table,) = struct.unpack_from("<Q", octets, 0x28)
    size, count, names = struct.unpack_from("<HHH", octets, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", octets, table + number * size) for number in range(count)]
    strings = headers[names][4]
    for name, _type, _flags, _address, at, length in headers:
        start = strings + name
        if octets[start : octets.index(b"\0", start)] == wanted.encode():
            return octets[at : at + length]
    raise AbiMismatch(f"the object has no section {wanted}: it was compiled without -g")
