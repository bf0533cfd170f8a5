# SPDX-License-Identifier: BSD-3-Clause
"""IPAE's questions of the table: where an address leads, and by which it is known elsewhere (seed IPAE 5.1, 5.2; spec 2.4)."""

from __future__ import annotations

import pytest

from isthmus.address import Address, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Owner
from isthmus.border.crossing import Crossing, Native, Translate, Tunnel
from isthmus.border.effect import Remap
from isthmus.border.mapping import Mapping
from isthmus.border.selector import Flow, Selector
from isthmus.border.table import BindingTable

SITE, SIP = 1, 2
OWNER = Owner(SIP, Address.parse("0.0.0.1"))


def bind(table: BindingTable, number: int, realm: int, prefix: str, crossing: Crossing) -> BindingKey:
    key = BindingKey(OWNER, number)
    selector = Selector(realm=realm, local=Prefix.parse_sip(prefix) if realm == SIP else Prefix.parse(prefix))
    table.bind(Binding(key=key, selectors=(selector,), crossing=crossing), expires_at=FOREVER)
    return key


def to_sip(image: str) -> Translate:
    return Translate(realm=SIP, image=Prefix.parse_sip(image))


def known(table: BindingTable, text: str) -> str | None:
    found = table.known_as(SITE, SIP, Address.parse_sip(text))
    return None if found is None else str(found)


@pytest.mark.rfc("ipae", "5.2")
def test_a_translation_is_found_from_its_other_end() -> None:
    table = BindingTable()
    bind(table, 1, SIP, "c1.213.77.5/32", Translate(realm=SITE, image=Prefix.parse("0.0.0.0/0")))
    assert str(table.known_as(SIP, SITE, Address.parse("192.3.4.1"))) == "c1.213.77.5/192.3.4.1"
    assert known(table, "c1.213.77.5/192.3.4.1") is None


@pytest.mark.rfc("ipae", "5.2")
def test_of_several_prefixes_with_one_image_each_answers_for_its_own_addresses() -> None:
    table = BindingTable()
    bind(table, 1, SITE, "201.5.7.0/24", to_sip("c1.2.2.8/32"))
    bind(table, 2, SITE, "201.5.8.0/24", to_sip("c1.2.2.8/32"))
    assert known(table, "c1.2.2.8/201.5.7.250") == "201.5.7.250"
    assert known(table, "c1.2.2.8/201.5.8.250") == "201.5.8.250"
    assert known(table, "c1.2.2.8/201.5.9.250") is None, "an address that no prefix leads to"


@pytest.mark.rfc("ipae", "8.3")
def test_an_alias_comes_before_a_wider_image_until_it_ends() -> None:
    table = BindingTable()
    bind(table, 1, SITE, "0.0.0.0/0", to_sip("1.2.2.8/32"))
    alias = bind(table, 2, SITE, "100.64.108.191", to_sip("1.2.2.8/201.5.7.250"))
    assert known(table, "1.2.2.8/201.5.7.250") == "100.64.108.191"
    assert known(table, "1.2.2.8/201.5.7.251") == "201.5.7.251"
    table.unbind(alias)
    assert known(table, "1.2.2.8/201.5.7.250") == "201.5.7.250"


@pytest.mark.rfc("8507", "4.2")
def test_the_longest_prefix_leads_and_is_nobodys_lease() -> None:
    table = BindingTable()
    wide = bind(table, 1, SIP, "1.2.2.8/32", Native(realm=SITE))
    narrow = bind(table, 2, SIP, "1.2.2.8/201.5.7.0/56", Native(realm=SITE))
    for text, key in (("1.2.2.8/201.5.7.1", narrow), ("1.2.2.8/201.5.8.1", wide)):
        found = table.route(SIP, Address.parse_sip(text))
        assert found is not None
        assert found.binding.key == key
    assert table.route(SIP, Address.parse_sip("c1.2.2.8/201.5.8.1")) is None, "C is a bit like others"
    here = Address.parse_sip("1.2.2.8/201.5.7.1")
    assert table.lookup(Flow(realm=SIP, local=here, remote=here)) is None


@pytest.mark.rfc("ipae", "5.1")
def test_a_mapping_is_replaced_whole() -> None:
    table = BindingTable()
    assert table.mapped(SITE) is None
    for image in ("c1.2.2.8/32", "c1.2.2.9/32"):
        mapping = Mapping.of([(Prefix.parse("201.5.7.0/24"), Prefix.parse_sip(image))])
        table.apply(Remap(realm=SITE, sip=SIP, mapping=mapping))
    found = table.mapped(SITE)
    assert found is not None
    assert str(found.mapping.lookup(Address.parse("201.5.7.1"))) == "c1.2.2.9/32"
    assert table.mappings == (found,)


def test_a_tunnel_is_no_image() -> None:
    table = BindingTable()
    near = Tunnel(realm=SIP, local=Address.parse("10.0.0.1"), remote=Address.parse("10.0.0.4"))
    bind(table, 1, SITE, "201.5.7.0/24", near)
    assert known(table, "c1.2.2.8/201.5.7.1") is None
