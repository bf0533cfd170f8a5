# SPDX-License-Identifier: BSD-3-Clause
"""Mapping files: taken whole or refused whole, with every reason and its line."""

from pathlib import Path

import pytest

from isthmus.address import Address, Prefix
from isthmus.border.mapping import Mapping, image_of
from isthmus.ipae.mapping import Fault, MappingRefused, OwnNetwork, Table, combine, emit, is_newer, parse

FILE = """\
# Two sites, and a host of the second that speaks SIP.
serial 2026112201
129.144.0.0/16    c20.4.0.3
192.9.5.0/24\t c1.213.77.5   # as the mapping of T93
192.9.5.2/32      1.213.77.5\r

"""
HERE = Prefix.parse_sip("1.213.77.5/32")


def faults(text, *own):
    with pytest.raises(MappingRefused) as refused:
        parse(text if isinstance(text, bytes) else text.encode(), source="a.map", own=own)
    return [str(each) for each in refused.value.faults]


@pytest.mark.rfc("ipae", "5.1")
def test_a_file_maps_networks_to_upper_halves():
    table = parse(FILE.encode())
    assert table.serial == 2026112201
    assert len(table.mapping) == 3
    assert table.mapping.lookup(Address.parse("129.144.9.9")) == image_of(0x94040003)
    assert table.mapping.lookup(Address.parse("192.9.5.1")) == image_of(0x81D54D05)
    assert table.mapping.lookup(Address.parse("192.9.5.2")) == image_of(0x01D54D05)


@pytest.mark.parametrize("upper", ["c20.4.0.3", "148.4.0.3", "9404:3", "148:4:0:3", "C20.004.0.3"])
def test_an_upper_half_may_be_written_in_any_notation(upper):
    assert parse(f"129.144.0.0/16 {upper}".encode()).mapping == parse(b"129.144.0.0/16 c20.4.0.3").mapping


def test_what_is_written_is_read_again():
    table = parse(FILE.encode())
    assert parse(emit(table).encode()) == table
    assert parse(emit(Table(Mapping.of())).encode()) == Table(Mapping.of())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("10.0.0.0/8", "'10.0.0.0/8' is not an IPv4 prefix and an upper half, as in 129.144.0.0/16 c1.213.77.5"),
        ("10.0.0.0 1.2.3.4", "'10.0.0.0' has no length: write 10.0.0.0/32 for one address"),
        ("10.0.0/8 1.2.3.4", "'10.0.0' is no IPv4 address"),
        ("10.0.0.00/8 1.2.3.4", "'10.0.0.00' is no IPv4 address"),
        ("10.0.0.256/32 1.2.3.4", "'10.0.0.256' is no IPv4 address"),
        ("10.0.0.٣/32 1.2.3.4", "'10.0.0.٣' is no IPv4 address"),
        ("10.0.0.0/33 1.2.3.4", "/33 is no prefix length of IPv4: 0 to 32"),
        ("10.0.0.0/8/8 1.2.3.4", "/8/8 is no prefix length of IPv4: 0 to 32"),
        ("10.0.0.0/8 1.2.3", "'1.2.3' is no upper half, such as c1.213.77.5, 129.213.77.5 or 81D5:4D05"),
        ("10.0.0.1/8 1.2.3.4", "10.0.0.1/8 has bits set beyond its length"),
        ("10.0.0.0/8 0.2.3.4", "10.0.0.0/8 is mapped to country 0 or 127, which are no site's (RFC 8507 §4.3, §4.4)"),
        (
            "10.0.0.0/8 c127.2.3.4",
            "10.0.0.0/8 is mapped to country 0 or 127, which are no site's (RFC 8507 §4.3, §4.4)",
        ),
        ("127.1.0.0/16 1.2.3.4", "127.1.0.0/16 has addresses of 127.0.0.0/8, which no site has"),
        ("0.0.0.0/7 1.2.3.4", "0.0.0.0/7 has addresses of 0.0.0.0/8, which no site has"),
        ("224.0.0.5/32 1.2.3.4", "224.0.0.5/32 has addresses of 224.0.0.0/4, which no site has"),
        ("255.255.255.255/32 1.2.3.4", "255.255.255.255/32 has addresses of 240.0.0.0/4, which no site has"),
        ("serial x", "a serial is one number of 0 to 4294967295"),
        ("serial 4294967296", "a serial is one number of 0 to 4294967295"),
        ("serial " + "9" * 5000, "a serial is one number of 0 to 4294967295"),
        ("serial 1", "there is a serial already"),
        ("digest abc", "a digest is 64 hex digits"),
    ],
)
def test_each_fault_has_its_line_and_reason(line, reason):
    assert faults(f"serial 7\n\n{line}\n9.0.0.0/8 1.2.3.4\n") == [f"line 3: {reason}"]


def test_every_fault_is_told_in_the_order_of_the_file():
    text = "8.0.0.1/8 1.2.3.4\nnonsense here\n9.0.0.0/8 1.2.3.4\n9.0.0.0/8 1.2.3.5\n127.0.0.0/8 1.2.3.4\n"
    assert [each.partition(":")[0] for each in faults(text)] == ["line 1", "line 2", "line 4", "line 5"]


def test_a_prefix_has_one_image():
    text = "10.0.0.0/8 1.2.3.4\n11.0.0.0/8 1.2.3.4\n10.0.0.0/8 c1.2.3.4\n10.0.0.0/8 1.2.3.4\n"
    assert faults(text) == [
        "line 3: 10.0.0.0/8 is mapped to c1.2.3.4, but to 1.2.3.4 on line 1",
        "line 4: 10.0.0.0/8 is mapped to 1.2.3.4, but to c1.2.3.4 on line 3",
    ]
    assert len(parse(b"10.0.0.0/8 1.2.3.4\n10.0.0.0/8 1.2.3.4\n").mapping) == 1
    assert len(parse(b"10.0.0.0/8 1.2.3.4\n10.1.0.0/16 1.2.3.5\n").mapping) == 2


@pytest.mark.parametrize("prefix", ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32"])
def test_own_networks_are_never_mapped_elsewhere(prefix):
    """Spec 9.4: neither they, nor a part of them, nor what they are a part of."""
    own = OwnNetwork(Prefix.parse("10.1.0.0/16"), HERE)
    assert faults(f"{prefix} c1.2.2.8", own) == [
        f"line 1: {prefix} is mapped to c1.2.2.8, but 10.1.0.0/16 is here, at 1.213.77.5/32"
    ]
    for upper in ("1.213.77.5", "c1.213.77.5"):
        assert len(parse(f"{prefix} {upper}".encode(), own=[own]).mapping) == 1
    assert faults(f"{prefix} 1.213.77.5", OwnNetwork(Prefix.parse("10.1.0.0/16")))
    assert len(parse(b"10.0.0.0/16 c1.2.2.8\n10.2.0.0/15 c1.2.2.8\n", own=[own]).mapping) == 2


def test_an_entry_of_its_own_does_not_excuse_one_that_covers_it():
    """Spec 9.4 refuses entries that cover own networks; the parts beside can be written one by one."""
    own = OwnNetwork(Prefix.parse("10.1.0.0/16"), HERE)
    assert len(faults("10.0.0.0/8 c1.2.2.8\n10.1.0.0/16 c1.213.77.5\n", own)) == 1


def test_a_file_that_was_cut_off_is_refused():
    whole = emit(parse(FILE.encode()))
    assert parse(whole.encode()).serial == 2026112201
    [fault] = faults(whole[: whole.rindex("192.9.5.2")])
    assert fault.startswith("digest: the file says ")


def test_what_is_no_text_is_refused():
    assert faults(b"10.0.0.0/8 1.2.3.4\n# caf\xe9\n") == ["line 2: is no text: not UTF-8"]


def test_one_error_names_many_faults_and_not_all():
    error = MappingRefused("a.map", [Fault(n, "is wrong") for n in range(1, 31)])
    assert str(error).splitlines()[0] == "a.map: line 1: is wrong"
    assert str(error).splitlines()[-1] == "a.map: and 10 more faults"
    assert len(error.faults) == 30


def test_the_first_of_several_tables_counts():
    first, second = (parse(text).mapping for text in (b"10.0.0.0/8 1.2.3.4", b"10.0.0.0/8 1.2.3.5\n11.0.0.0/8 1.2.3.5"))
    assert combine(first, second) == parse(b"10.0.0.0/8 1.2.3.4\n11.0.0.0/8 1.2.3.5").mapping
    assert combine(second, first) == second


@pytest.mark.rfc("1982", "3.2")
@pytest.mark.parametrize(
    ("serial", "than", "newer"),
    [(2, 1, True), (1, 2, False), (1, 1, False), (0, 4294967295, True), (4294967295, 0, False), (1 << 31, 0, False)],
)
def test_serial_numbers_go_round(serial, than, newer):
    assert is_newer(serial, than) is newer


def test_the_example_is_taken():
    own = OwnNetwork(Prefix.parse("192.168.0.0/16"))
    table = parse((Path(__file__).parents[2] / "examples" / "sites.map").read_bytes(), own=[own])
    assert len(table.mapping) == 4
