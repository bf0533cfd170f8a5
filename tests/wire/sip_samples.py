# SPDX-License-Identifier: BSD-3-Clause
"""The vectors of IPAE, and strategies for what SIP can hold."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import strategies as st

from isthmus.address import Address, Family
from isthmus.wire.sip.header import SipHeader
from isthmus.wire.sip.icmp import SipIcmpMessage
from isthmus.wire.sip.option import Fragmentation, SourceRoute

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "ipae.json").read_text())
SCENARIOS = [*VECTORS["scenarios_tcp"], *VECTORS["scenarios_udp"]]
HOPS = {f"{each['scenario']} {each['transport']} {hop['hop']}": hop for each in SCENARIOS for hop in each["hops"]}

sip_addresses = st.integers(0, (1 << 64) - 1).map(lambda number: Address(Family.SIP, number))
headers = st.builds(
    SipHeader,
    reserved=st.integers(0, (1 << 28) - 1),
    payload_length=st.integers(0, 0xFFFF),
    payload_type=st.integers(0, 255),
    hop_limit=st.integers(0, 255),
    src=sip_addresses,
    dst=sip_addresses,
)
source_routes = st.builds(
    SourceRoute,
    addresses=st.lists(sip_addresses, max_size=6).map(tuple),
    next_address=st.integers(0, 255),
    payload_type=st.integers(0, 255),
    reserved=st.integers(0, (1 << 40) - 1),
)
fragmentations = st.builds(
    Fragmentation,
    identification=st.integers(0, (1 << 32) - 1),
    more=st.booleans(),
    fragment_offset=st.integers(0, 0x1FFF),
    payload_type=st.integers(0, 255),
    reserved=st.integers(0, 0x3FF),
)
messages = st.builds(
    SipIcmpMessage,
    type=st.integers(0, 255),
    code=st.integers(0, 255),
    rest=st.binary(min_size=4, max_size=4),
    body=st.binary(max_size=64),
    checksum=st.integers(0, 0xFFFF),
)


def sip(text: str) -> Address:
    """A SIP address, briefly."""
    return Address.parse_sip(text)
