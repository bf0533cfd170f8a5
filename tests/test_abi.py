# SPDX-License-Identifier: BSD-3-Clause
"""What C and Python both believe: read out of the object, compared with the model."""

from __future__ import annotations

from dataclasses import fields
from enum import IntEnum
from pathlib import Path

import pytest

from isthmus.address import Address, Family
from isthmus.border import mapping
from isthmus.border.crossing import TunnelKind
from isthmus.border.realm import End, Foreign, Unmapped
from isthmus.border.selector import Kind
from isthmus.border.verdict import Reason, Violation
from isthmus.errors import AbiMismatch
from isthmus.plane.kernel import blocks, briefs, direct, maps, number, pinned
from isthmus.plane.kernel import contact as kernel_contact
from isthmus.plane.kernel import mapping as kernel_mapping
from isthmus.plane.kernel import own as kernel_own
from isthmus.plane.kernel import ring as kernel_ring
from isthmus.plane.kernel import uniform as kernel_uniform
from isthmus.plane.kernel import uniform_ipv6 as kernel_uniform_ipv6
from isthmus.plane.kernel.btf import Types
from isthmus.plane.kernel.maps import STRUCTS, Codec
from isthmus.plane.kernel.owners import LOW_32
from isthmus.plane.link import packet
from isthmus.plane.reference import contact, path, ring

ROOT = Path(__file__).parent.parent
OBJECT = ROOT / "src/isthmus/plane/kernel/objects/border_tc.bpf.o"
ABI = [ROOT / "bpf/include/isthmus" / name for name in ("abi.h", "abi_slices.h", "abi_sip.h")]


def abi() -> str:
    return "".join(each.read_text() for each in ABI)


@pytest.fixture(scope="module")
def types() -> Types:
    if not OBJECT.exists():
        pytest.skip("needs the objects: make -C bpf")
    return Types.of_object(OBJECT.read_bytes())


@pytest.mark.parametrize(
    ("name", "python"), [("reason", Reason), ("end", End), ("kind", Kind), ("tunnel_kind", TunnelKind)]
)
def test_enums_have_the_same_names_and_numbers(types: Types, name: str, python: type[IntEnum]) -> None:
    assert dict(types.enum(name)) == {each.name: each.value for each in python}


def test_every_reason_has_room_in_the_counters(types: Types) -> None:
    assert f"#define REASONS {64}" in abi()
    assert max(Reason) < 64


@pytest.mark.parametrize("name", STRUCTS)
def test_layouts_have_no_holes(types: Types, name: str) -> None:
    record = types.record(name)
    end = 0
    for field in record.fields:
        assert field.at == end, f"struct {name} has a hole before {field.name}: say so with a field"
        end += field.octets
    assert end == record.octets, f"struct {name} has a tail: say so with a field"


def test_network_order_is_what_the_type_says(types: Types) -> None:
    place = types.record("place").pack(realm=0x01020304, address=bytes(range(16)))
    assert place == bytes((1, 2, 3, 4)) + bytes(range(16))
    assert types.record("place").unpack(place) == {"realm": 0x01020304, "address": bytes(range(16))}


def test_flags_of_words_are_those_of_the_program(types: Types) -> None:
    assert [types.enum("slice_flag")[f"SLICE_{name}"] for name in ("CLAIMED", "CONTACTED", "SPLIT", "DIRECT")] == [
        direct.CLAIMED,
        direct.CONTACTED,
        direct.SPLIT,
        direct.DIRECT,
    ]


def test_keys_begin_with_what_a_longest_prefix_match_compares(types: Types) -> None:
    prefix, holding = types.record("prefix_key"), types.record("wide_key")
    assert [field.name for field in prefix.fields] == ["length", "place"]
    assert [field.name for field in holding.fields] == ["length", "owner_upper", "owner_lower", "place"]


def test_event_has_the_fields_of_a_violation(types: Types) -> None:
    names = {field.name for field in types.record("event").fields}
    assert {"flow" if each.name == "flow" else each.name for each in fields(Violation)} - {"flow"} <= names
    assert {"local", "remote", "kind", "value", "remote_port", "flow_realm"} <= names


def test_the_memory_of_contacts_forgets_when_the_reference_does() -> None:
    text = abi()
    assert f"#define CONTACT_EPOCH_SECONDS {contact.EPOCH_SECONDS}" in text
    assert f"#define CONTACT_EPOCHS {contact.KEPT_EPOCHS}" in text
    assert f"#define CONTACT_EPOCH_MASK {kernel_contact.EPOCH_MASK:#x}U" in text
    assert f"#define CONTACT_BUCKETS (1 << {kernel_contact.BUCKETS.bit_length() - 1})" in text
    assert f"#define CONTACT_WORDS {kernel_contact.WORDS}" in text
    kept = (kernel_contact.EPOCH_SECONDS, kernel_contact.EPOCHS_KEPT)
    assert kept == (contact.EPOCH_SECONDS, contact.KEPT_EPOCHS)


def test_as_many_paths_are_kept_as_by_the_reference() -> None:
    assert f"#define PATHS (1 << {path.CAPACITY.bit_length() - 1})" in abi()


@pytest.mark.parametrize(("name", "python"), [("unmapped", Unmapped), ("foreign", Foreign)])
def test_what_realms_say_has_the_same_numbers(types: Types, name: str, python: type[IntEnum]) -> None:
    assert dict(types.enum(name)) == {f"{name.upper()}_{each.name}": each.value for each in python}


def test_no_crossing_is_a_tunnel_kind(types: Types) -> None:
    assert not set(types.enum("crossing_kind").values()) & {0, *TunnelKind}


def test_the_ring_is_the_references(types: Types) -> None:
    assert f"#define RING_SLOTS (1 << {ring.SLOTS.bit_length() - 1})" in abi()
    assert f"#define RING_OCTETS {ring.KEPT_OCTETS}" in abi()
    slot = types.record("slot")
    assert slot.octets == kernel_ring.SLOT_OCTETS
    assert [(each.name, each.at) for each in slot.fields] == [
        ("second", 0),
        ("realm", 4),
        ("remote", 8),
        ("octets", 12),
        ("sip", 16),
    ]
    rules = ["flags", "next", "ends", "nodes", "sites", "changes", "padding"]
    assert [each.name for each in types.record("rules").fields] == rules
    assert next(each.at for each in types.record("rules").fields if each.name == "changes") == kernel_own.CHANGES.start


def test_mappings_are_direct_tables(types: Types) -> None:
    text = abi()
    assert f"#define MAPPINGS {kernel_mapping.MAPPINGS}\n" in text
    assert f"#define OWN_FACTOR {kernel_own.OWN_FACTOR:#x}U " in text
    assert f"#define MAPPING_WORDS {kernel_mapping.WORDS}\n" in text
    assert f"#define MAPPING_POINTER {mapping._POINTER:#x}\n" in text
    assert types.record("words").octets == 4 * kernel_mapping.WORDS


def test_groups_are_words_of_the_same_form(types: Types) -> None:
    text = abi()
    assert f"#define GROUPS {kernel_uniform.GROUPS}\n" in text
    assert f"#define GROUP_ELEMENTS {kernel_uniform.ELEMENTS}\n" in text
    assert f"#define GROUP_MORE {kernel_uniform.MORE:#x}\n" in text
    assert types.record("group_words").octets == 2 * kernel_uniform.WORDS
    address = Address.parse("fe80::1")
    written = kernel_uniform.GATEWAY.pack(7, Family.IPV6, address.octets)
    assert types.record("gateway").pack(interface=7, family=6, address=address.octets) == written
    first, length = address.number, kernel_uniform_ipv6.WIDE_BITS
    key = types.record("group6_key").pack(length=length, address=address.octets)
    assert kernel_uniform_ipv6.key_of((first, length)) == key
    assert f"#define WIDE_BITS {length}\n" in text
    changes = types.record("followed").pack(until=1, until6=2, changes6=3)
    assert memoryview(changes).cast("I").tolist() == [1, 2, 3, 0]
    assert kernel_uniform_ipv6.ENTRIES == 1 << 16


def test_who_punted_is_read_as_it_is_written() -> None:
    text = (ROOT / "bpf/include/isthmus/verdict.h").read_text()
    assert f"#define PUNTED_FROM 0x{packet._PUNTED_FROM.hex()} " in text


def test_no_packet_has_a_kind_of_the_index_only(types: Types) -> None:
    assert not set(types.enum("index_kind").values()) & {0, *Kind}


def test_the_sizes_that_keys_are_made_by_are_the_programs() -> None:
    text = abi()
    assert f"#define REALMS {maps.REALMS}" in text
    assert f"#define NEAR_INTERFACES {maps.NEAR_INTERFACES}" in text
    assert f"#define TEMPLATES {number.TEMPLATES}" in text
    assert f"#define BRIEF_WORDS {briefs.WORDS}" in text
    assert briefs.WORDS == pinned.BRIEF_SLICES + 1
    assert f"#define BLOCK_SHIFT {blocks.SHIFT}\n" in text
    assert pinned.BLOCK_SLICES == 1 << blocks.SHIFT
    below = (1 << blocks.UNTIL_AT) - (1 << blocks.STEP_AT)
    assert f"#define BLOCK_UNTIL_MASK {LOW_32 ^ below >> 32:#x}U\n" in text
    assert f"#define BLOCK_STEP_MASK {(1 << blocks.GENERATION_AT - blocks.STEP_AT) - 1}\n" in text
    assert f"#define MEANT_BITS (1 << {maps.MEANT_BITS.bit_length() - 1})" in text


def test_codec_finds_every_name_that_it_uses(types: Types) -> None:
    Codec(types, boot_offset=0.0)


def test_a_name_that_the_object_does_not_have_is_told(types: Types) -> None:
    with pytest.raises(AbiMismatch, match="no_such_struct"):
        types.record("no_such_struct")
    with pytest.raises(AbiMismatch, match="no_such_field"):
        types.record("owner").pack(no_such_field=1)
    with pytest.raises(AbiMismatch, match="rebuild"):
        types.enum("no_such_enum")


@pytest.mark.parametrize("octets", [b"", b"\x7fELF", bytes(200)])
def test_what_is_no_object_is_told(octets: bytes) -> None:
    with pytest.raises(AbiMismatch):
        Types.of_object(octets)
