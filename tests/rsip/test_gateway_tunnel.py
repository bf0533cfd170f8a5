# SPDX-License-Identifier: BSD-3-Clause
"""Where the tunnels of a gateway end, and how much they carry (RFC 3103 §8.6, §9.7.3; seed RSIP 4.3)."""

from __future__ import annotations

import pytest

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import BindingKey
from isthmus.border.crossing import TunnelKind
from isthmus.rsip.policy import ClientRule
from rsip.conversation import NEAR, SHARED, Raw, make_gateway, make_policy
from rsip.requests import assign_address, assign_ports, assign_spis, client_of, code_of, listen, register

IPV4, IPV6 = Address.parse("10.0.0.77"), Address.parse("2001:db8::77")
RULES = tuple(ClientRule(prefix=Prefix.parse(text)) for text in ("10.0.0.0/8", "2001:db8::/32"))


def raw(*ends: Address, address: str = "2001:db8::4", **changes) -> Raw:
    options = {"tunnel_ends": {each.family: each for each in ends}, "link_mtu": 1500} | changes
    return Raw(make_gateway(make_policy(clients=RULES), **options), address=address)


def tunnel(talk: Raw):
    (binding, _) = talk.ledger.leases[BindingKey(talk.peer.owner, 1)]
    return binding.crossing


@pytest.mark.rfc("3103", "9.9.3")
@pytest.mark.parametrize("request_", [assign_ports, assign_address, listen])
@pytest.mark.parametrize(("address", "end"), [("10.0.0.4", IPV4), ("2001:db8::4", IPV6)])
def test_every_response_names_the_tunnel_end_of_the_hosts_own_family(request_, address, end):
    talk = raw(IPV4, IPV6, address=address)
    answer = talk.ask(request_(client_of(talk)))
    assert answer.tunnel_endpoint.address == end
    assert (tunnel(talk).local, tunnel(talk).remote, tunnel(talk).realm) == (end, Address.parse(address), NEAR)


def test_a_host_of_an_ipv6_network_leases_ipv4():
    talk = raw(IPV6)
    answer = talk.ask(assign_ports(client_of(talk), tunnel=2))
    assert answer.local_address.address == SHARED
    assert (tunnel(talk).kind, tunnel(talk).local) == (TunnelKind.GRE, IPV6)


@pytest.mark.parametrize("address", ["10.0.0.4", "2001:db8::4"])
def test_a_host_whose_family_no_tunnel_ends_at_may_not_register(address):
    talk = raw(IPV6 if "." in address else IPV4, address=address)
    assert code_of(talk.ask(register())) == 304


@pytest.mark.parametrize(
    ("address", "kind", "checksum", "mtu"),
    [
        ("10.0.0.4", 1, False, 1480),
        ("10.0.0.4", 2, False, 1476),
        ("10.0.0.4", 2, True, 1472),
        ("10.0.0.4", 1, True, 1480),
        ("2001:db8::4", 1, False, 1460),
        ("2001:db8::4", 2, False, 1456),
        ("2001:db8::4", 2, True, 1452),
    ],
)
def test_a_tunnel_carries_what_its_headers_leave(address, kind, checksum, mtu):
    talk = raw(IPV4, IPV6, address=address, gre_checksum=checksum)
    talk.ask(assign_ports(client_of(talk), tunnel=kind))
    assert (tunnel(talk).mtu, tunnel(talk).checksum) == (mtu, checksum and kind == 2)


@pytest.mark.parametrize("ends", [{}, {Family.IPV4: IPV6}])
def test_a_gateway_needs_a_tunnel_end_for_some_family(ends):
    with pytest.raises(ValueError, match="tunnel ends"):
        make_gateway(tunnel_ends=ends)


def test_tunnel_ends_survive_a_restart_in_the_store_not_in_the_configuration():
    talk = raw(IPV6)
    talk.ask(assign_ports(client_of(talk)))
    before = tunnel(talk)
    talk.gateway = make_gateway(make_policy(clients=RULES), tunnel_ends={Family.IPV4: IPV4})
    talk.ledger.restart(talk.gateway, talk.now)
    assert tunnel(talk) == before
    assert code_of(talk.ask(assign_spis(1, 9))) == 208
