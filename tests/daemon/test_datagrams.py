# SPDX-License-Identifier: BSD-3-Clause
"""Many datagrams with one system call arrive whole, in order, and with who sent them."""

from __future__ import annotations

import contextlib
import socket

import numpy as np
import pytest

from isthmus.address import Address
from isthmus.border.effect import Peer
from isthmus.daemon.datagrams import AT_ONCE, SENT_AT_ONCE, Datagrams
from isthmus.rsip.ended import Farewells

LOOPBACKS = [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]


@contextlib.contextmanager
def opened(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.bind((address, 0))
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        yield Datagrams(made, 7), Peer(7, Address.parse(address), made.getsockname()[1])


def all_of(datagrams):
    received = []
    with contextlib.suppress(BlockingIOError):
        while True:
            received += datagrams.receive()
    return received


@pytest.mark.parametrize(("family", "address"), LOOPBACKS)
def test_more_than_one_call_takes_come_in_order_with_their_peer(family, address):
    with opened(family, address) as (one, here), opened(family, address) as (other, there):
        sent = [bytes([at & 0xFF]) * (at % 700) for at in range(max(AT_ONCE, SENT_AT_ONCE) + 40)]
        one.send([(data, there) for data in sent])
        assert all_of(other) == [(data, here) for data in sent]
        other.send([(b"answer", here)])
        assert all_of(one) == [(b"answer", there)]
        one.send([])
        assert all_of(other) == []


@pytest.mark.parametrize(("family", "address"), LOOPBACKS)
def test_the_longest_datagram_is_not_cut(family, address):
    with opened(family, address) as (one, here), opened(family, address) as (other, there):
        longest = bytes(65_507)
        one.send([(b"first", there), (longest, there), (b"last", there)])
        assert all_of(other) == [(b"first", here), (longest, here), (b"last", here)]


def test_one_that_the_kernel_does_not_take_is_lost_and_the_others_are_not():
    with opened(*LOOPBACKS[0]) as (one, here), opened(*LOOPBACKS[0]) as (other, there):
        nowhere = Peer(7, Address.parse("255.255.255.255"), 9)
        one.send([(b"1", nowhere), (b"2", there), (bytes(70_000), there), (b"3", there), (b"4", nowhere)])
        assert all_of(other) == [(b"2", here), (b"3", here)]


def test_an_error_about_an_earlier_datagram_is_told_and_what_is_behind_it_stays():
    with opened(*LOOPBACKS[0]) as (one, here), opened(*LOOPBACKS[0]) as (other, _):
        other._socket.connect((str(here.address), here.port))
        one._socket.close()
        other._socket.send(b"to nobody")
        with pytest.raises(ConnectionRefusedError):
            other.receive()
        with pytest.raises(BlockingIOError):
            other.receive()


def test_farewells_come_behind_what_was_sent_before_them():
    with opened(*LOOPBACKS[0]) as (one, here), opened(*LOOPBACKS[0]) as (other, there):
        count = SENT_AT_ONCE + 7
        said = Farewells(
            near=7,
            address=np.full(count, there.address.number, np.uint32),
            port=np.full(count, there.port, np.uint16),
            octets=np.arange(4 * count, dtype=np.uint8).reshape(count, 4),
        )
        one.send([(b"before", there)])
        one.say(said)
        one.send([(b"after", there)])
        assert all_of(other) == [(b"before", here), *((data, here) for data, _ in said.each()), (b"after", here)]
        assert {peer for _, peer in said.each()} == {there}
