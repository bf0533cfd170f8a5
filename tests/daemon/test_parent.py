# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway behind a gateway may lease out, by what its parent says that it holds."""

from pathlib import Path

import pytest

from isthmus.address import Address, Prefix
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Kind, Selector
from isthmus.daemon.clock import Clock
from isthmus.daemon.parent import Parent

NETWORK = Prefix.parse("149.112.240.64/30")
SHARED = Address.parse("149.112.240.55")


def row(address, ports=None, expires_at=100.0):
    return {"address": str(address), "ports": ports, "spis": None, "expires_at": expires_at}


def parent(*claims):
    return Parent(Path("/nowhere"), claims, Clock())


@pytest.mark.rfc("3102", "4.2.1")
def test_of_a_network_only_the_address_that_was_taken_back_is_lost():
    one = parent(Selector(realm=2, local=NETWORK))
    assert one._take([row(each) for each in NETWORK]) == ""
    lost = list(NETWORK)[2]
    assert "149.112.240.64/30 is not held" in one._take([row(each) for each in NETWORK if each != lost])
    assert [each for each in NETWORK if one.until(each, 0.0) == 100.0] == [each for each in NETWORK if each != lost]
    assert one.until(lost, 5.0) == 5.0, "it may be leased until now, which is not at all"


@pytest.mark.rfc("3102", "4.2.1")
def test_an_address_whose_ports_are_not_all_held_is_lost():
    one = parent(Selector(realm=2, local=Prefix.of(SHARED), kind=Kind.PORT, values=Ranges.parse("1000-1999")))
    assert one._take([row(SHARED, "1000-1499"), row(SHARED, "1500-1999", 50.0)]) == ""
    assert one.until(SHARED, 0.0) == 50.0, "the first lease that ends"
    assert one._take([row(SHARED, "1000-1499")])
    assert one.until(SHARED, 7.0) == 7.0
    assert one._take([row(SHARED)]) == "", "the address whole is as good"
