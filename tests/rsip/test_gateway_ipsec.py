# SPDX-License-Identifier: BSD-3-Clause
"""ASSIGN_RSIPSEC at a gateway: SPIs, ports, and port 500 by cookie (RFC 3104 §6); LISTEN for IKE (seed RSIP 4.1)."""

from __future__ import annotations

import pytest

from isthmus.address import Address, Prefix
from isthmus.border.binding import BindingKey, Method, Owner
from isthmus.border.identity import identity_value
from isthmus.border.pool import ALL_SPIS, Quota
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Admit, Kind
from isthmus.rsip.policy import ClientRule
from isthmus.wire.rsip.codes import Method as WireMethod
from isthmus.wire.rsip.codes import RemotePolicy, TunnelType
from isthmus.wire.rsip.message import AssignResponseRsipsec, ListenResponseRsipIke
from rsip.conversation import NEAR, OTHER, REMOTE, SHARED, START, WHOLE, Raw, make_gateway, make_policy, make_pool
from rsip.requests import (
    assign_address,
    assign_ports,
    assign_spis,
    client_of,
    code_of,
    deregister,
    extend,
    free,
    listen,
    listen_ike,
    register,
)

ALICE = Owner(NEAR, Address.parse("10.0.0.4"))
MACRO, MICRO = int(RemotePolicy.MACRO), int(RemotePolicy.MICRO)
PORTS = Ranges.of((4096, 8191))


def ipsec_pool(**changes):
    """Two shared addresses; SPIs of the first, and port 500 of it by cookie."""
    options = {"shared": [(SHARED, PORTS), (OTHER, PORTS)], "spis": {SHARED: ALL_SPIS}, "ike": [SHARED]}
    return make_pool(**(options | changes))


def raw(*, pool=None, **policy) -> Raw:
    return Raw(make_gateway(make_policy(**policy), pool or ipsec_pool()))


def neighbour(talk: Raw) -> Raw:
    return Raw(talk.gateway, address="10.0.0.5", ledger=talk.ledger)


def selectors(talk: Raw, bind_id: int = 1, owner: Owner = ALICE):
    return {each.kind: each for each in talk.ledger.leases[BindingKey(owner, bind_id)][0].selectors}


@pytest.mark.rfc("3104", "6")
def test_a_registration_offers_rsipsec_where_there_are_spis_and_the_host_may_have_them():
    def offered(talk):
        return [each.value for each in talk.ask(register()).methods]

    assert offered(raw()) == [WireMethod.RSAP_IP, WireMethod.RSA_IP, WireMethod.RSIPSEC]
    assert offered(raw(pool=make_pool())) == [WireMethod.RSAP_IP, WireMethod.RSA_IP]
    rule = ClientRule(prefix=Prefix.parse("10.0.0.0/8"), ipsec=False)
    assert offered(raw(clients=(rule,))) == [WireMethod.RSAP_IP, WireMethod.RSA_IP]


@pytest.mark.rfc("3104", "5")
@pytest.mark.rfc("3104", "6.2")
def test_address_and_spis_are_leased_in_one_binding():
    talk = raw()
    answer = talk.ask(assign_spis(client_of(talk), spis=6))
    assert isinstance(answer, AssignResponseRsipsec)
    assert answer.local_address.address == SHARED
    spis = Ranges.of(*answer.spi.spi_set)
    assert len(spis) == 6
    assert spis.pairs[0][0] % 8 == 0
    held = selectors(talk)
    assert set(held) == {Kind.SPI, Kind.COOKIE}
    assert held[Kind.SPI].values == spis
    assert held[Kind.SPI].remote.admit is held[Kind.COOKIE].remote.admit is Admit.ANYONE
    (_, lease) = talk.ledger.leases[BindingKey(ALICE, 1)]
    assert (lease.method, lease.expires_at) == (Method.RSIPSEC, START + 600)


@pytest.mark.rfc("3104", "6.2")
def test_gateway_must_echo_that_ports_are_not_needed():
    talk = raw()
    answer = talk.ask(assign_spis(client_of(talk)))
    assert (answer.local_ports.dont_need, answer.remote_ports.dont_need) == (True, True)


@pytest.mark.rfc("3104", "6.2")
@pytest.mark.parametrize("ports", [4, (5000, 5001), (5000, 6000)])
def test_ports_that_are_asked_for_are_leased_with_the_spis(ports):
    talk = raw()
    answer = talk.ask(assign_spis(client_of(talk), spis=(300, 4000), ports=ports, remote_ports=1))
    assert answer.spi.spi_set == (300, 4000)
    held = selectors(talk)
    assert Ranges.of(*answer.local_ports.port_set) == held[Kind.PORT].values
    assert len(held[Kind.PORT].values) == (ports if isinstance(ports, int) else 2)
    assert held[Kind.PORT].remote.admit is Admit.CONTACTED
    assert held[Kind.SPI].values == Ranges.of(300, 4000)
    assert answer.remote_ports.dont_care


@pytest.mark.rfc("3104", "6.1")
def test_where_port_500_is_not_shared_by_cookie_no_cookie_is_leased():
    talk = raw(pool=ipsec_pool(ike=[]))
    talk.ask(assign_spis(client_of(talk)))
    assert set(selectors(talk)) == {Kind.SPI}


@pytest.mark.rfc("3104", "6.2")
@pytest.mark.parametrize(
    ("policy", "ask", "code"),
    [
        ({"clients": (ClientRule(prefix=Prefix.parse("10.0.0.0/8"), ipsec=False),)}, {}, 401),
        ({"remote": MACRO}, {}, 103),
        ({"remote": MICRO}, {"remote": REMOTE}, 103),
        ({"remote": MICRO}, {"remote": REMOTE, "remote_ports": 1}, 103),
        ({"local": 2}, {"ports": 2}, 103),
        ({"remote": MACRO}, {"remote": "www.bar.com"}, 314),
        ({"remotes_denied": (Prefix.of(REMOTE),)}, {"remote": REMOTE}, 314),
        ({"remote_ports_denied": Ranges.of(80)}, {"ports": 1, "remote_ports": (80,)}, 315),
        ({}, {"address": REMOTE}, 312),
        ({}, {"address": OTHER}, 312),
        ({}, {"address": WHOLE.address}, 312),
        ({}, {"ports": (80,)}, 313),
        ({}, {"ports": (500,)}, 313),
        ({"forbidden_ports": Ranges.of(5000)}, {"ports": (5000,)}, 313),
        ({"pool": ipsec_pool(shared=[(SHARED, Ranges.of((4096, 4103)))], slice_size=8)}, {"ports": 9}, 309),
        ({"pool": ipsec_pool(spis={SHARED: Ranges.of((4096, 4103))})}, {"spis": 9}, 402),
        ({"pool": ipsec_pool(quota=Quota(spis=1))}, {"spis": 2}, 402),
        ({}, {"spis": (255, 256)}, 403),
        ({"pool": ipsec_pool(spis={SHARED: Ranges.of((4096, 4103))})}, {"spis": (4103, 4104)}, 403),
        ({}, {"spis": tuple(range(1000, 10000, 2))}, 402),
    ],
)
def test_the_errors_of_rsipsec(policy, ask, code):
    pool = policy.pop("pool", None) if "pool" in policy else None
    talk = raw(pool=pool, **policy)
    talk.connection = 1
    assert code_of(talk.ask(assign_spis(client_of(talk, None), None, **ask))) == code
    assert not talk.ledger.leases


@pytest.mark.rfc("3104", "6.2")
def test_gateway_must_answer_403_to_spis_that_another_host_has():
    talk = raw()
    bob = neighbour(talk)
    talk.ask(assign_spis(client_of(talk), spis=(300, 301)))
    client_id = client_of(bob)
    assert code_of(bob.ask(assign_spis(client_id, 2, spis=(301, 302)))) == 403
    assert bob.ask(assign_spis(client_id, 3, spis=(302, 303))).spi.spi_set == (302, 303)


def test_spis_and_ports_are_granted_together_or_not_at_all():
    talk = raw(pool=ipsec_pool(shared=[(SHARED, Ranges.of((4096, 4103)))], slice_size=8))
    bob = neighbour(talk)
    talk.ask(assign_spis(client_of(talk), spis=(300,)))
    bobs = client_of(bob)
    assert code_of(bob.ask(assign_spis(bobs, 2, spis=(300,), ports=8))) == 403
    assert len(bob.ask(assign_ports(bobs, 3, ports=8)).local_ports.port_set) == 8, "the ports were not kept"
    assert code_of(bob.ask(assign_spis(bobs, 4, spis=(900,), ports=1))) == 309
    assert talk.ask(assign_spis(next(iter(talk.ledger.registrations.values())).client_id, 3, spis=(900,))).bind_id


def test_under_macro_policy_spis_and_cookies_are_limited_to_the_peer_and_micro_ports_only_to_ports():
    macro, micro = raw(remote=MACRO), raw(remote=MICRO)
    answer = macro.ask(assign_spis(client_of(macro), remote=REMOTE))
    assert (answer.remote_address.address, answer.remote_ports.dont_need) == (REMOTE, True)
    assert {each.remote.network for each in selectors(macro).values()} == {Prefix.of(REMOTE)}
    answer = micro.ask(assign_spis(client_of(micro), ports=1, remote=REMOTE, remote_ports=(80,)))
    assert answer.remote_ports.port_set == (80,)
    held = selectors(micro)
    assert {kind: each.remote.port for kind, each in held.items()} == {Kind.SPI: None, Kind.PORT: 80, Kind.COOKIE: None}
    assert {each.remote.network for each in held.values()} == {Prefix.of(REMOTE)}


def test_a_host_may_have_spis_and_no_port_under_local_micro_policy():
    talk = raw(local=2)
    assert talk.ask(assign_spis(client_of(talk))).bind_id.value == 1


def test_without_spis_rsipsec_is_not_served():
    for talk in (raw(pool=make_pool()), raw(methods=(WireMethod.RSAP_IP,))):
        assert code_of(talk.ask(assign_spis(client_of(talk)))) == 208


def test_spis_are_extended_freed_rest_and_are_listed_by_nobody_else():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_spis(client_id, 2, spis=(300,), ports=(5000,)))
    assert talk.ask(extend(client_id, 1, 3, lease=900)).lease_time.value == 900
    talk.ask(free(client_id, 1, 4))
    assert code_of(talk.ask(assign_spis(client_id, 5, spis=(300,)))) == 403
    talk.now += 120
    assert talk.ask(assign_spis(client_id, 6, spis=(300,))).bind_id.value == 2


def test_a_host_may_listen_on_the_ports_of_its_ipsec_lease():
    talk = raw()
    client_id = client_of(talk)
    talk.ask(assign_spis(client_id, 2, spis=(300,), ports=(5000,)))
    assert talk.ask(listen(client_id, 3, ports=(5000,))).bind_id.value == 2
    held = selectors(talk)
    assert (held[Kind.PORT].values, held[Kind.PORT].lent) == (Ranges(()), Ranges.of(5000))
    assert held[Kind.SPI].values == Ranges.of(300)
    talk.ask(free(client_id, 2, 4))
    assert selectors(talk)[Kind.PORT].values == Ranges.of(5000)


def test_after_a_restart_spis_cookies_and_initiators_are_still_held():
    talk = raw()
    bob = neighbour(talk)
    client_id = client_of(talk)
    talk.ask(assign_spis(client_id, 2, spis=(300,), ports=(5000,)))
    talk.ask(listen_ike(client_id, 3))
    talk.gateway = bob.gateway = make_gateway(make_policy(), ipsec_pool(), seed=5)
    talk.ledger.restart(talk.gateway, talk.now)
    bobs = client_of(bob)
    assert code_of(bob.ask(assign_spis(bobs, 2, spis=(300,)))) == 403
    assert code_of(bob.ask(assign_ports(bobs, 3, address=SHARED, ports=(5000,)))) == 311
    assert code_of(bob.ask(listen_ike(bobs, 4))) == 311
    talk.ask(deregister(client_id))
    assert bob.ask(listen_ike(bobs, 5)).bind_id.value == 1
    assert code_of(bob.ask(assign_spis(bobs, 6, spis=(300,)))) == 403, "it rests"


# IKE by the identity of its initiator, under private-use numbers


def test_a_host_listens_for_one_initiator_at_port_500():
    talk = raw()
    answer = talk.ask(listen_ike(client_of(talk), name=b"peer.example", tunnels=(2,)))
    assert isinstance(answer, ListenResponseRsipIke)
    assert (answer.ike_identity.kind, answer.ike_identity.data) == (2, b"peer.example")
    assert (answer.local_address.address, answer.tunnel_type.value) == (SHARED, 2)
    held = selectors(talk)
    assert set(held) == {Kind.IDENTITY, Kind.COOKIE}
    assert held[Kind.IDENTITY].values == Ranges.of(identity_value(2, b"peer.example"))
    assert {each.remote.admit for each in held.values()} == {Admit.ANYONE}
    assert talk.ledger.leases[BindingKey(ALICE, 1)][1].method is Method.RSIPSEC


def test_an_initiator_is_one_hosts_at_a_time():
    talk = raw()
    bob = neighbour(talk)
    client_id, bobs = client_of(talk), client_of(bob)
    talk.ask(listen_ike(client_id, 2))
    assert code_of(bob.ask(listen_ike(bobs, 2))) == 311
    assert bob.ask(listen_ike(bobs, 3, name=b"other.example")).bind_id.value == 1
    talk.ask(free(client_id, 1, 3))
    assert bob.ask(listen_ike(bobs, 4)).bind_id.value == 2, "an initiator calls anew and needs no rest"


@pytest.mark.parametrize(
    ("policy", "ask", "code"),
    [
        ({"listen": False}, {}, 208),
        ({"clients": (ClientRule(prefix=Prefix.parse("10.0.0.0/8"), ipsec=False),)}, {}, 401),
        ({"tunnel_types": (TunnelType.IP_IP,)}, {"tunnels": (2,)}, 307),
        ({"remote": MACRO}, {}, 103),
        ({"remote": MICRO}, {"remote": REMOTE, "remote_ports": (500,)}, 313),
        ({"remotes_denied": (Prefix.of(REMOTE),)}, {"remote": REMOTE}, 314),
        ({}, {"address": OTHER}, 312),
    ],
)
def test_the_errors_of_listening_for_ike(policy, ask, code):
    talk = raw(**policy)
    assert code_of(talk.ask(listen_ike(client_of(talk), **ask))) == code
    assert not talk.ledger.leases


def test_without_a_port_500_by_cookie_nobody_listens_for_ike():
    talk = raw(pool=ipsec_pool(ike=[]))
    assert code_of(talk.ask(listen_ike(client_of(talk)))) == 208


def test_under_policy_the_limit_holds_for_initiators_too():
    talk = raw(remote=MICRO, listen_micro=True)
    answer = talk.ask(listen_ike(client_of(talk), remote=REMOTE, remote_ports=(500,)))
    assert (answer.remote_address.address, answer.remote_ports.port_set) == (REMOTE, (500,))
    limits = {(each.remote.network, each.remote.port) for each in selectors(talk).values()}
    assert limits == {(Prefix.of(REMOTE), 500)}


def test_whole_addresses_need_neither_spis_nor_listening():
    """Incoming IKE to a whole address needs nothing more (seed RSIP 4.1)."""
    talk = raw()
    talk.ask(assign_address(client_of(talk)))
    (binding, _) = talk.ledger.leases[BindingKey(ALICE, 1)]
    assert [each.kind for each in binding.selectors] == [None]
    assert binding.selectors[0].remote.admit is Admit.ANYONE
