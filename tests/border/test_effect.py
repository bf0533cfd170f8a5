# SPDX-License-Identifier: BSD-3-Clause
"""The one order: unprogram, persist, program, answer."""

from isthmus.address import Address, Prefix
from isthmus.border.binding import Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel
from isthmus.border.effect import (
    Bind,
    Deregister,
    Ending,
    Extend,
    Peer,
    Prolong,
    Register,
    Remember,
    Send,
    Unbind,
    in_order,
)
from isthmus.border.selector import Selector

OWNER = Owner(1, Address.parse("10.0.0.4"))
PEER = Peer(1, OWNER.address, 40001)
KEY = BindingKey(OWNER, 1)
REGISTER = Register(registration=Registration(owner=OWNER, client_id=1, expires_at=9.0))
BIND = Bind(
    binding=Binding(
        key=KEY,
        selectors=(Selector(realm=2, local=Prefix.parse("192.0.2.7")),),
        crossing=Tunnel(realm=1, local=Address.parse("10.0.0.1"), remote=OWNER.address),
    ),
    lease=Lease(client_id=1, method=Method.RSA_IP, granted_at=0.0, expires_at=9.0),
)
EXTEND = Extend(key=KEY, expires_at=19.0)
PROLONG = Prolong(owner=OWNER, expires_at=19.0)
UNBIND = Unbind(key=KEY, ending=Ending.FREED)
DEREGISTER = Deregister(owner=OWNER, ending=Ending.FREED)
REMEMBER = Remember(owner=OWNER, port=40001, counter=1, request=b"?", answer=b"!")
SEND = Send(data=b"!", peer=PEER)


def test_nothing_is_planned_of_nothing():
    plan = in_order(())
    assert plan.unprogram == plan.persist == plan.program == plan.answer == ()


def test_a_grant_is_persisted_programmed_and_answered():
    plan = in_order([REGISTER, BIND, PROLONG, EXTEND, REMEMBER, SEND])
    assert plan.unprogram == ()
    assert plan.persist == (REGISTER, BIND, PROLONG, EXTEND, REMEMBER)
    assert plan.program == (REGISTER, BIND, PROLONG, EXTEND)
    assert plan.answer == (SEND,)


def test_an_ending_is_unprogrammed_persisted_and_answered():
    plan = in_order([UNBIND, DEREGISTER, REMEMBER, SEND])
    assert plan.unprogram == (UNBIND, DEREGISTER)
    assert plan.persist == (UNBIND, DEREGISTER, REMEMBER)
    assert plan.program == ()


def test_what_begins_and_ends_in_one_batch_is_never_programmed():
    plan = in_order([REGISTER, BIND, EXTEND, SEND, UNBIND, DEREGISTER, SEND])
    assert plan.program == ()
    assert plan.persist == (REGISTER, BIND, EXTEND, UNBIND, DEREGISTER)
    assert plan.answer == (SEND, SEND)


def test_what_ends_and_begins_again_stands():
    plan = in_order([UNBIND, DEREGISTER, REGISTER, BIND])
    assert plan.unprogram == (UNBIND, DEREGISTER)
    assert plan.program == (REGISTER, BIND)


def test_a_generator_is_read_once():
    assert in_order(each for each in (BIND, SEND)).program == (BIND,)


def test_a_peer_is_known_by_its_address():
    assert PEER.owner == OWNER
    assert str(KEY) == "10.0.0.4#1"
