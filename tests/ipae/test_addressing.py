# SPDX-License-Identifier: BSD-3-Clause
"""Which addresses a SIP system takes for its own (RFC 8507 §4.4)."""

from __future__ import annotations

import pytest

from isthmus.address import Address, Prefix
from isthmus.ipae.addressing import anyone

OWN = Address.parse_sip("1.213.77.5/192.3.4.254")
LINKS = tuple(map(Prefix.parse, ("192.3.4.0/24", "128.1.0.0/16")))


@pytest.mark.rfc("8507", "4.4")
def test_anyone_of_its_subnet_and_site_is_a_routers_own():
    found = anyone((OWN, Address.parse_sip("1.2.2.8/128.1.1.1")), LINKS, router=True)
    assert [str(each) for each in found] == [
        "1.213.77.5/192.3.4.0",
        "1.213.77.5/0.0.0.0",
        "1.2.2.8/128.1.0.0",
        "1.2.2.8/0.0.0.0",
    ]


@pytest.mark.rfc("8507", "4.4")
def test_anyone_of_its_subnet_alone_is_a_hosts_own():
    assert [str(each) for each in anyone((OWN,), LINKS, router=False)] == ["1.213.77.5/192.3.4.0"]


def test_a_link_of_two_has_no_address_to_spare():
    assert anyone((OWN,), [Prefix.parse("192.3.4.254/31")], router=False) == ()
