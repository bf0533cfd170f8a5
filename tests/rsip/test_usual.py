# SPDX-License-Identifier: BSD-3-Clause
"""What a gateway does for usual messages is what it does for any: the same effects, the same refusals."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.address import Address, Prefix
from isthmus.border.effect import Bind, Peer, Send
from isthmus.border.pool import Quota
from isthmus.border.ranges import Ranges
from isthmus.rsip.policy import ClientRule
from isthmus.rsip.usual import Usual
from isthmus.wire.rsip import envelope
from isthmus.wire.rsip.codes import ErrorCode, RemotePolicy
from isthmus.wire.rsip.message import emit, parse
from rsip.conversation import NEAR, SHARED, START, Unmoved, make_gateway, make_policy, make_pool
from rsip.requests import assign_ports, deregister, extend, free, register

HOSTS = [Address.parse(text) for text in ("10.0.0.4", "10.0.0.5", "10.0.0.6", "10.3.0.1", "10.9.0.1", "11.0.0.1")]
RULES = (
    ClientRule(prefix=Prefix.parse("10.0.0.0/8")),
    ClientRule(prefix=Prefix.parse("10.3.0.0/16"), remote_policy=RemotePolicy.MICRO),
    ClientRule(prefix=Prefix.parse("10.9.0.0/16"), admitted=False),
)

asked = st.sampled_from(["register", "assign", "assign", "assign", "few", "free", "extend", "deregister", "deregister"])
"What is asked for; "
oddities = st.sampled_from(
    [""] * 9 + ["id", "old"] + ["copy", "old", "none", "zero", "id", "port", "tcp", "far", "cut"]
)
"and what is odd about it."
steps = st.lists(
    st.tuples(st.sampled_from([0, 0, 1, 1, 2, 3, 4, 5]), asked, oddities, st.sampled_from([0] * 9 + [0.25, 30, 400])),
    min_size=30,
    max_size=60,
)


def message(kind, client_id, counter):
    match kind:
        case "register":
            return register(counter)
        case "assign":
            return assign_ports(client_id, counter, ports=64)
        case "few":
            return assign_ports(client_id, counter, ports=3, lease=100)
        case "free":
            return free(client_id, 1, counter)
        case "extend":
            return extend(client_id, 1, counter)
        case _:
            return deregister(client_id, counter)


def gateway_of(*, rate, small, ceiling, trace=None):
    shared = [(SHARED, Ranges.of((4096, 4096 + 639 if small else 8191)))]
    policy = make_policy(clients=RULES, requests_per_second=rate, requests_burst=4, registration_lease=500)
    until = (lambda _address, now: now + 100) if ceiling else None
    pool = make_pool(shared=shared, quota=Quota(bindings=2))
    pool._rng = Unmoved()
    return make_gateway(policy, pool, lease_ceiling=until, trace=trace)


def conversation(taken, **options):
    """What a gateway does, message by message, and what it refuses."""
    now, done, traced = START, [], []
    gateway = gateway_of(trace=traced.append, **options)
    for at in range(3):
        host = Address.parse(f"10.0.7.{at}")
        client_id = client_of(gateway, host)
        talk(gateway, host, emit(message("assign", client_id, 2)))
        talk(gateway, host, emit(message("few", client_id, 3)))
    client_ids, counters, last = {}, dict.fromkeys(HOSTS, 0), {}
    for at, kind, odd, more in taken:
        host, now = HOSTS[at], now + more
        counters[host] += 1
        counter = {"old": max(1, counters[host] - 2), "none": None, "zero": 0}.get(odd, counters[host])
        data = emit(message(kind, client_ids.get(host, 5) + (odd == "id"), counter))
        if odd == "copy":
            data = last.get(host, data)
        last[host] = data
        realm = NEAR + 1 if odd == "far" else NEAR
        peer = Peer(realm, host, 40001 if odd == "port" else 40000, 7 if odd == "tcp" else 0)
        receive = gateway.receive_message if odd == "tcp" else gateway.receive_datagram
        receive(data[:-1] if odd == "cut" else data, peer, now=now)
        effects = gateway.next_effects()
        for each in effects:
            if isinstance(each, Send) and (answer := parse(each.data)).type.name == "REGISTER_RESPONSE":
                client_ids[host] = answer.client_id.value
        done.append(effects)
    return done, gateway.refusals, traced, len(gateway)


@settings(deadline=None, max_examples=100)
@given(steps, st.sampled_from([None, None, 1.0]), st.booleans(), st.booleans())
def test_usual_messages_do_what_any_message_does(taken, rate, small, ceiling):
    usual = conversation(taken, rate=rate, small=small, ceiling=ceiling)
    with patch.object(envelope, "likeness_of", lambda _: None), patch.object(envelope, "remember", lambda *_: None):
        assert conversation(taken, rate=rate, small=small, ceiling=ceiling) == usual


def talk(gateway, host, data):
    gateway.receive_datagram(data, Peer(NEAR, host, 40000), now=START)
    effects = gateway.next_effects()
    return effects, [parse(each.data) for each in effects if isinstance(each, Send)]


def client_of(gateway, host):
    return talk(gateway, host, emit(register(1)))[1][0].client_id.value


def test_from_the_third_host_on_the_short_way_is_taken():
    gateway, taken = make_gateway(), []
    serve = Usual.serve

    def noted(*args, **kwargs):
        taken.append(serve(*args, **kwargs))
        return taken[-1]

    with patch.object(Usual, "serve", noted):
        for at in range(4):
            host = Address.parse(f"10.0.1.{at}")
            talk(gateway, host, emit(assign_ports(client_of(gateway, host), 2, ports=64)))
    assert taken[-4:] == [True] * 4


@pytest.mark.parametrize("ports", [64, 16])
def test_who_finds_no_ports_on_the_short_way_is_told_once_and_counted_once(ports):
    pool = make_pool(shared=[(SHARED, Ranges.of((4096, 4096 + 4 * ports - 1)))])
    gateway = make_gateway(make_policy(requests_per_second=0.001, requests_burst=3), pool)
    hosts = [Address.parse(f"10.0.1.{at}") for at in range(5)]
    got = [talk(gateway, host, emit(assign_ports(client_of(gateway, host), 2, ports=ports))) for host in hosts]
    assert [sum(isinstance(each, Bind) for each in effects) for effects, _ in got] == [1, 1, 1, 1, 0]
    (refusal,) = got[-1][1]
    assert refusal.error.value == ErrorCode.LOCAL_ADDRPORT_UNAVAILABLE
    # Two requests of three allowed at once are counted: one more is answered, and then no more.
    assert talk(gateway, hosts[-1], emit(deregister(refusal.client_id.value, 3)))[1]
    assert not talk(gateway, hosts[-1], emit(register(4)))[1]
