# SPDX-License-Identifier: BSD-3-Clause
"""IGMP: reports of every version are read, queries are written as version 3."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.igmp import IGMP
from scapy.contrib.igmpv3 import IGMPv3gr, IGMPv3mq, IGMPv3mr

from isthmus.address import Address
from isthmus.checksum import checksum
from isthmus.errors import Malformed, Truncated, WireError
from isthmus.wire import igmp
from isthmus.wire.igmp import Membership

GROUP = Address.parse("239.1.2.3")


def report(*records, octets=b""):
    made = bytes(IGMPv3mr(records=list(records), numgrp=len(records))) + octets
    return summed(made)


def summed(octets):
    octets = octets[:2] + b"\0\0" + octets[4:]
    return octets[:2] + checksum(octets).to_bytes(2, "big") + octets[4:]


def record(kind, *sources, group="239.1.2.3"):
    return IGMPv3gr(rtype=kind, maddr=group, srcaddrs=list(sources), numsrc=len(sources))


@pytest.mark.parametrize(
    ("octets", "wanted"),
    [
        (summed(bytes(IGMP(type=0x12, gaddr="239.1.2.3"))), True),
        (summed(bytes(IGMP(type=0x16, gaddr="239.1.2.3"))), True),
        (summed(bytes(IGMP(type=0x17, gaddr="239.1.2.3"))), False),
        (report(record(2)), True),
        (report(record(4)), True),
        (report(record(4, "192.0.2.1")), True),
        (report(record(1)), False),
        (report(record(3)), False),
        (report(record(3, "192.0.2.1")), True),
        (report(record(5, "192.0.2.1")), True),
    ],
)
@pytest.mark.rfc("3376", "4.2.12")
def test_what_a_host_says_about_a_group(octets, wanted):
    assert igmp.parse(octets) == (Membership(GROUP, wanted=wanted),)


@pytest.mark.rfc("3376", "4.2.12")
def test_records_of_no_known_type_and_blocked_sources_say_nothing():
    said = igmp.parse(report(record(9), record(6, "192.0.2.1"), record(2, group="239.9.9.9")))
    assert said == (Membership(Address.parse("239.9.9.9"), wanted=True),)


@pytest.mark.rfc("3376", "4.2.11")
def test_what_follows_the_last_record_is_in_the_checksum_only():
    assert igmp.parse(report(record(2), octets=b"more")) == (Membership(GROUP, wanted=True),)


def test_queries_and_unknown_types_say_nothing():
    assert igmp.parse(summed(bytes(IGMP(type=0x11, gaddr="0.0.0.0")))) == ()
    assert igmp.parse(summed(b"\x7f\0\0\0\xef\1\2\3")) == ()


def test_octets_that_are_no_report():
    good = report(record(2))
    with pytest.raises(Malformed, match="checksum"):
        igmp.parse(good[:-1] + b"\x09")
    with pytest.raises(Truncated):
        igmp.parse(good[:5])
    with pytest.raises(Malformed, match="no group"):
        igmp.parse(report(record(2, group="10.0.0.1")))
    many = summed(b"\x22\0\0\0\0\0\xff\xff" + bytes(IGMPv3gr(rtype=2, maddr="239.1.2.3")))
    with pytest.raises(Truncated):
        igmp.parse(many)


@pytest.mark.rfc("3376", "4.1")
def test_a_query_is_what_scapy_reads():
    octets = igmp.emit_query(GROUP, response_tenths=10, interval_seconds=125, robustness=2)
    assert octets == summed(octets)
    read = IGMPv3mq(octets)
    assert (octets[0], octets[1]) == (0x11, 10)
    assert (read.gaddr, read.qrv, read.qqic, read.numsrc) == ("239.1.2.3", 2, 125, 0)
    assert igmp.emit_query(None, response_tenths=100, interval_seconds=3600, robustness=2)[4:8] == bytes(4)


@given(st.binary(max_size=64))
def test_any_octets_give_memberships_or_a_wire_error(octets):
    for each in (octets, summed(octets) if len(octets) > 4 else octets):
        try:
            said = igmp.parse(each)
        except WireError:
            continue
        assert all(isinstance(one, Membership) for one in said)
