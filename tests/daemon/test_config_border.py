# SPDX-License-Identifier: BSD-3-Clause
"""``[border]`` and ``[node]`` from TOML: what is read, and what is refused before anything of the machine is touched."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from isthmus.address import Address, Prefix
from isthmus.border.crossing import Encapsulation, Native, Translate
from isthmus.border.realm import Foreign, Unmapped
from isthmus.daemon import config as configuration
from isthmus.daemon.config import Config
from isthmus.daemon.link_address import LinkAddress
from isthmus.daemon.sip_terms import SipTerms, Surroundings, border_router, device_mtu, node, own_networks
from isthmus.errors import ConfigError

REALMS = """
[[realm]]
name = "site"
interface = "lan0"
site = "1.213.77.5"
[[realm]]
name = "internet"
interface = "wan0"
"""
ROUTE = """
[[border.route]]
to = "1.2.2.8"
via = { ipae = "128.2.1.2", realm = "internet" }
"""


def parsed(text: str) -> Config:
    return configuration.parse(tomllib.loads(text), "file.toml")


def has(address: str, length: int = 24) -> tuple[LinkAddress, ...]:
    found = Address.parse(address)
    number = found.number >> 32 - length << 32 - length
    return (LinkAddress(address=found, network=Prefix(Address(found.family, number), length)),)


AROUND = Surroundings(
    addresses={"site": has("192.3.4.254"), "internet": has("128.1.1.1")}, mtus={"site": 1500, "internet": 1500}
)


def terms(text: str) -> SipTerms:
    return border_router(parsed(text), AROUND)


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        parsed(text)
    return str(refused.value)


def routes(text: str) -> dict[str, object]:
    return {str(each.to): each.crossing for each in terms(text).routes}


def test_a_route_without_c_is_two_entries_and_the_gateway_to_our_site_is_there_by_itself() -> None:
    tunnel = Encapsulation(realm=2, local=Address.parse("128.1.1.1"), remote=Address.parse("128.2.1.2"), mtu=1480)
    gateway = Translate(realm=1, image=Prefix.parse("0.0.0.0/0"))
    assert routes(REALMS + "[border]" + ROUTE) == {
        "1.2.2.8/32": tunnel,
        "c1.2.2.8/32": tunnel,
        "c1.213.77.5/32": gateway,
    }


@pytest.mark.parametrize(
    ("to", "c", "entries"),
    [
        ('"default"', "", {"0.0.0.0/0"}),
        ('"default"', "c = 0", {"0.0.0.0/1"}),
        ('"default"', "c = 1", {"c0.0.0.0/1"}),
        ('"c1.2.2.8"', "", {"c1.2.2.8/32"}),
        ('"1.2.2.8/201.5.7.250"', 'c = "1"', {"c1.2.2.8/201.5.7.250/64"}),
        ('"1.2."', "c = 0", {"1.2.0.0/16"}),
    ],
)
@pytest.mark.rfc("ipae", "4.1")
def test_the_c_bit_of_a_route_is_a_part_of_its_prefix(to: str, c: str, entries: set[str]) -> None:
    text = f'[border]\n[[border.route]]\nto = {to}\n{c}\nvia = {{ native = "internet", neighbour = "128.1.1.9" }}\n'
    assert set(routes(REALMS + text)) - {"c1.213.77.5/32"} == entries


def test_a_tunnel_goes_from_the_address_whose_network_has_its_other_end() -> None:
    text = '[border]\n[[border.route]]\nto = "default"\nvia = { ipae = "192.3.4.7" }\n'
    crossing = routes(REALMS + text)["0.0.0.0/0"]
    assert isinstance(crossing, Encapsulation)
    assert (crossing.realm, str(crossing.local)) == (1, "192.3.4.254")


def test_where_datagrams_leave_from_their_answers_come_to() -> None:
    ends = terms(REALMS + '[border]\ntunnel_ends = ["192.3.4.254"]' + ROUTE).border.tunnel_ends
    assert {(end.realm, str(end.address), end.leads_to) for end in ends} == {
        (1, "192.3.4.254", 3),
        (2, "128.1.1.1", 3),
    }


def test_a_tunnel_end_that_no_interface_has_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"border\.tunnel_ends\[0\].*no interface of a \[\[realm\]\] has 10\.9\.9\.9"):
        terms(REALMS + '[border]\ntunnel_ends = ["10.9.9.9"]')


@pytest.mark.parametrize(
    ("milestone", "unmapped", "foreign"),
    [
        ("I", Unmapped.PASS, Foreign.LOW),
        ("H", Unmapped.PASS, Foreign.LOW),
        ("R", Unmapped.REFUSE, Foreign.REFUSE),
        ("S", Unmapped.REFUSE, Foreign.REFUSE),
    ],
)
@pytest.mark.rfc("ipae", "8")
def test_a_milestone_says_what_ipv4_addresses_mean(milestone: str, unmapped: Unmapped, foreign: Foreign) -> None:
    site = terms(REALMS + f'[border]\nmilestone = "{milestone}"').border.realm(1)
    assert (site.unmapped, site.foreign) == (unmapped, foreign)
    internet = terms(REALMS + f'[border]\nmilestone = "{milestone}"').border.realm(2)
    assert (internet.unmapped, internet.foreign) == (Unmapped.PASS, Foreign.LOW), "only of a site anything is said"


def test_with_a_pool_foreign_systems_have_aliases_from_milestone_r_on() -> None:
    text = REALMS + '[border]\nmilestone = "R"\n[border.alias]\npools = ["100.64.0.0/16"]'
    assert terms(text).border.realm(1).foreign is Foreign.ASK


def test_what_a_zone_may_know_is_asked_for() -> None:
    text = REALMS + '[border]\n[border.mapping]\ndns = { zone = "map.example", server = "10.9.9.9" }'
    assert terms(text).border.realm(1).unmapped is Unmapped.ASK


@pytest.mark.rfc("ipae", "4.6")
def test_two_sites_on_one_link_need_neighbours_with_names() -> None:
    two = "".join(f'[[border.route]]\nto = "{to}"\nvia = {{ native = "site" }}\n' for to in ("1.2.2.8", "1.2.2.9"))
    assert "file.toml: border.route[1]: " in (said := refusal(REALMS + "[border]\n" + two))
    assert "ARP tells neighbours apart by their low 32 bits only (erratum E30)" in said
    apart = two.replace('"1.2.2.8"', '"1.2.2.8/10.0.0.0/40"').replace('"1.2.2.9"', '"1.2.2.9/11.0.0.0/40"')
    parsed(REALMS + "[border]\n" + apart)


@pytest.mark.rfc("ipae", "3.4")
def test_an_implicit_tunnel_ends_at_the_site_when_addresses_are_no_longer_unique() -> None:
    route = '[[border.route]]\nto = "1.2.2.8"\nvia = { ipae = "implicit", realm = "site" }\n'
    parsed(REALMS + '[border]\nmilestone = "H"\n' + route)
    assert "an implicit tunnel to 1.2.2.8/32 leads into other sites" in refusal(
        REALMS + '[border]\nmilestone = "R"\n' + route
    )
    parsed(REALMS + '[border]\nmilestone = "R"\n' + route.replace("1.2.2.8", "1.213.77.5"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[border]\naddress = "192.3.4.1"', "border.address[0]: '192.3.4.1' is no SIP address"),
        ("[border]" + ROUTE + ROUTE, "border.route[1]: 1.2.2.8/32 is routed already, by route 0"),
        ("[border]" + ROUTE.replace("internet", "outer"), "border.route[0].via.realm: 'outer' is no [[realm]]"),
        (
            "[border]" + ROUTE.replace('"128.2.1.2"', '"128.2.1"'),
            "border.route[0].via.ipae: '128.2.1' is neither an IPv4 address nor \"implicit\"",
        ),
        (
            '[border]\n[border.dns]\nlisten = "192.3.4.2"\nupstream = "ns"',
            "border.dns.upstream: 'ns' is neither an IPv4 address nor a SIP address",
        ),
        ("[border]" + ROUTE.replace("ipae =", "native = 'site', ipae ="), "has ipae and native of ipae, native and"),
        ("[border]" + ROUTE.replace("realm =", "neighbour = '1.1.1.1', realm ="), "neighbour goes with native"),
        ('[border]\n[border.alias]\npools = ["100.64.0.0/24"]', "an alias of every residue needs 16 bits or less"),
        ('[border]\nforeign = "alias"', 'border.foreign: "alias" needs [border.alias]'),
        ("[border]\n[border.mapping]", "needs file or dns, and has both or neither"),
        ('[border]\n[border.dns]\nlisten = "192.3.4.2"\nupstream = "c1.2.2.8/10.0.0.7"', "asks by IPv4"),
        ('[border]\n[border.rules]\ndf0 = "never"', "border.rules.df0: Input should be 'mark', 'frag576' or 'fit'"),
        (
            '[node]\naddress = "c1.213.77.5/192.3.4.1"\nnear = "site"',
            "has C = 1, which is how IPv4-only hosts are named",
        ),
        ('[node]\naddress = "1.213.77.5/192.3.4.1"\nnear = "x"', "node.near: 'x' is no [[realm]] of this file"),
        ('[node]\naddress = "1.213.77.5/192.3.4.1"\nnear = "site"\nfull = "fd00::/64"', "words add up to ffff"),
        ('[node]\naddress = "1.213.77.5/192.3.4.1"\nnear = "site"\nsockets = "ipv4"', "go together"),
        ('[border]\n[host]\nnear = "site"', "host.gateway: is required beside [border] and [node]"),
        ("", "has neither [gateway] nor [host]"),
    ],
)
def test_what_is_wrong_is_named_with_file_key_and_reason(text: str, reason: str) -> None:
    said = refusal(REALMS.replace('site = "1.213.77.5"', "") + text if not text else REALMS + text)
    assert said.startswith("file.toml: ")
    assert reason in said


FIXED = """[border]
[border.alias]
pools = ["100.64.0.0/16"]
[[border.alias.fixed]]
alias = "{alias}"
address = "1.2.2.8/201.5.7.250"
{more}
"""


@pytest.mark.rfc("ipae", "4.5.1")
def test_a_fixed_alias_has_the_residue_of_its_host_unless_that_is_waived() -> None:
    right = parsed(REALMS + FIXED.format(alias="100.64.108.191", more="")).border
    assert right is not None
    assert right.alias is not None
    assert right.alias.pairs == [(Address.parse("100.64.108.191"), Address.parse_sip("1.2.2.8/201.5.7.250"))]
    assert "add up to 6449, and for 1.2.2.8/201.5.7.250 it has to be d0ff" in refusal(
        REALMS + FIXED.format(alias="100.64.0.9", more="")
    )
    parsed(REALMS + FIXED.format(alias="100.64.0.9", more='residue = "any"'))


@pytest.mark.parametrize(
    ("alias", "more", "reason"),
    [
        ("100.65.108.190", "", "100.65.108.190 is in no pool"),
        (
            "100.64.108.191",
            '[[border.alias.fixed]]\nalias = "100.64.108.191"\naddress = "1.2.2.8/10.0.0.7"',
            "has been said before",
        ),
    ],
)
def test_a_fixed_alias_stands_for_one_host_and_lies_in_a_pool(alias: str, more: str, reason: str) -> None:
    assert reason in refusal(REALMS + FIXED.format(alias=alias, more=more))


def test_at_a_host_the_residue_covers_its_own_address() -> None:
    text = """
[[realm]]
name = "link"
interface = "lan0"
[node]
address = "1.213.77.5/192.3.4.9"
near = "link"
sockets = "ipv4"
[node.alias]
pools = ["100.64.0.0/16"]
[[node.alias.fixed]]
alias = "{}"
address = "1.2.2.8/201.5.7.250"
"""
    parsed(text.format("100.64.190.163"))
    assert "it has to be 22e4" in refusal(text.format("100.64.108.191"))


def test_a_site_has_32_bits() -> None:
    assert "is not a site: 32 bits without c" in refusal(REALMS.replace("1.213.77.5", "1.213.77.") + "[border]")


@pytest.mark.rfc("ipae", "5.1")
def test_our_own_networks_are_those_of_the_site_and_our_addresses_elsewhere() -> None:
    text = REALMS + '[border]\n[border.mapping]\nfile = "map.txt"\nown = ["10.0.0.0/8"]'
    own = {str(each.prefix): str(each.site) for each in own_networks(parsed(text), AROUND)}
    assert own == {"192.3.4.0/24": "1.213.77.5/32", "128.1.1.1/32": "None", "10.0.0.0/8": "1.213.77.5/32"}


NODE = """
[[realm]]
name = "link"
interface = "eth0"
[node]
address = "1.2.2.8/201.5.7.250"
near = "link"
border = "10.0.0.3"
"""
NEAR = Surroundings(addresses={"link": has("201.5.7.250")}, mtus={"link": 1500})


def of_node(more: str = "", around: Surroundings = NEAR) -> dict[str, object]:
    return {str(each.to): each.crossing for each in node(parsed(NODE + more), around, "sip0p").routes}


@pytest.mark.rfc("ipae", "3.4")
def test_a_host_sends_to_its_neighbours_directly_and_to_all_others_by_its_border_router() -> None:
    own = Address.parse("201.5.7.250")
    assert of_node() == {
        "0.0.0.0/0": Encapsulation(realm=1, local=own, remote=Address.parse("10.0.0.3"), mtu=1480),
        "1.2.2.8/32": Encapsulation(realm=1, local=own, remote=None, mtu=1480),
    }
    assert set(of_node('implicit_scope = "any"')) == {"0.0.0.0/0", "0.0.0.0/1"}
    assert set(of_node('neighbours = "border"')) == {"0.0.0.0/0"}


@pytest.mark.rfc("8507", "8.4")
def test_a_sip_only_host_needs_no_ipv4_address() -> None:
    bare = Surroundings(addresses={"link": ()}, mtus={"link": 1500})
    assert of_node('profile = "sip-only"', bare) == {
        "0.0.0.0/0": Native(realm=1, neighbour=Address.parse("10.0.0.3")),
        "1.2.2.8/32": Native(realm=1),
    }
    assert node(parsed(NODE + 'profile = "sip-only"'), bare, "sip0p").border.tunnel_ends == ()
    with pytest.raises(ConfigError, match="IPAE needs an IPv4 address"):
        of_node(around=bare)


@pytest.mark.parametrize(
    ("more", "octets"),
    [("", 1496), ('profile = "sip-only"', 1516), ('neighbours = "native"', 1496), ("mtu = 1280", 1280)],
)
@pytest.mark.rfc("ipae", "4.2.2")
def test_the_device_carries_what_fits_into_what_the_link_carries(more: str, octets: int) -> None:
    assert device_mtu(parsed(NODE + more), NEAR) == octets


def test_the_device_never_carries_less_than_ipv6_wants() -> None:
    assert device_mtu(parsed(NODE), Surroundings(addresses=NEAR.addresses, mtus={"link": 700})) == 1280


def test_the_examples_are_right() -> None:
    examples = Path(__file__).parents[2] / "examples"
    for name in ("border.toml", "node.toml"):
        assert configuration.load(examples / name)


def test_rsip_goes_by_the_device_of_a_node_as_by_any_interface_and_nothing_else_does() -> None:
    device = NODE + '[[realm]]\nname = "programs"\ninterface = "sip0"\n'
    assert "is the interface of a [[realm]] that is no host.near or gateway.near" in refusal(device)
    pool = '[[gateway.pool]]\naddress = "192.0.2.1"\nports = "1000-1999"\n'
    own = 'address = "fd49:5041:4500:6d74:102:208:c905:7fa"\n'
    assert parsed(f'{device}[gateway]\nnear = "programs"\nrealm = "link"\n{own}{pool}').gateway is not None
    assert parsed(f'{device}[host]\nnear = "programs"\ngateway = "201.5.7.9"\n').host is not None
    assert "'sip0' is the interface" in refusal(f'{device}[host]\nnear = "link"\ngateway = "201.5.7.9"\n')
