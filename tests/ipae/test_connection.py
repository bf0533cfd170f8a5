# SPDX-License-Identifier: BSD-3-Clause
"""Which connection a packet is for (seed IPAE 4.5.2), and each of the edge cases of spec 5.2 by its number."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.address import Address
from isthmus.errors import Conflict
from isthmus.ipae.addressing import Format
from isthmus.ipae.connection import (
    LOOPBACK,
    Connection,
    ConnectionTable,
    Heard,
    Hint,
    Listener,
    NotFound,
    Quote,
    Reply,
    Segment,
    reply_format,
)
from isthmus.ipae.format import FormatPolicy

TCP, UDP = 6, 17
OWN = Address.parse_sip("1.213.77.5/192.3.4.1")
SITE = OWN.site
PEER = Address.parse_sip("1.2.2.8/201.5.7.250")
OLD_PEER = PEER.with_c_bit(c_bit=True)
TWIN = Address.parse_sip("1.9.9.9/201.5.7.250")  # another site's host with the low 32 bits of PEER
NEIGHBOUR = Address.parse_sip("1.213.77.5/192.3.4.9")
WEB = Listener(protocol=TCP, local=None, port=80)
POLICY = FormatPolicy(site=SITE, border_router=Address.parse("192.3.4.2"))
OVER_SIP = [Format.IPAE, Format.SIP]


def make_table(**options):
    table = ConnectionTable([OWN], **options)
    table.listen(WEB)
    return table


def segment(
    remote=PEER, *, packet_format=Format.SIP, local=OWN, local_port=80, remote_port=5000, protocol=TCP, arrival=None
):
    if packet_format is Format.IPV4:
        local, remote = local.low, remote.low
    return Segment(
        packet_format=packet_format,
        protocol=protocol,
        local=local,
        local_port=local_port,
        remote=remote,
        remote_port=remote_port,
        arrival=arrival,
    )


def connect(table, remote=PEER, *, packet_format=Format.SIP, local=OWN, local_port=80, remote_port=5000, protocol=TCP):
    return table.open(
        protocol=protocol,
        local=local,
        local_port=local_port,
        remote=remote,
        remote_port=remote_port,
        packet_format=packet_format,
    )


class TestLookup:
    @pytest.mark.rfc("ipae", "4.5.2")
    def test_rule_1_an_ipv4_packet_is_compared_with_the_low_32_bits(self):
        table = make_table()
        connection = connect(table, OLD_PEER)
        assert table.lookup(segment(packet_format=Format.IPV4)) is connection

    @pytest.mark.rfc("ipae", "4.5.2")
    @pytest.mark.parametrize("packet_format", OVER_SIP)
    def test_rule_2a_a_source_with_c_is_compared_by_the_low_32_bits(self, packet_format):
        table = make_table()
        connection = connect(table, OLD_PEER)
        assert table.lookup(segment(OLD_PEER, packet_format=packet_format)) is connection

    @pytest.mark.rfc("ipae", "4.5.2")
    @pytest.mark.rfc("8507", "8.3")
    @pytest.mark.parametrize("packet_format", OVER_SIP)
    def test_rule_2b_a_source_without_c_is_compared_at_full_length(self, packet_format):
        table = make_table()
        connection = connect(table, PEER)
        assert table.lookup(segment(PEER, packet_format=packet_format)) is connection
        assert isinstance(table.lookup(segment(TWIN, packet_format=packet_format)), Heard)

    @pytest.mark.rfc("ipae", "4.5.2")
    @pytest.mark.parametrize(
        "change", [{"local_port": 81}, {"remote_port": 5001}, {"protocol": UDP}], ids=["local", "remote", "protocol"]
    )
    def test_ports_and_protocol_belong_to_the_key(self, change):
        table = make_table()
        connect(table, PEER)
        assert not isinstance(table.lookup(segment(PEER, **change)), Connection)
        assert not isinstance(table.lookup(segment(PEER, packet_format=Format.IPV4, **change)), Connection)

    def test_a_packet_that_names_us_with_c_is_compatible_too(self):
        """Erratum E8: a SIP host that DNS still lists with C = 1."""
        table = make_table()
        connection = table.accept(segment(PEER, local=OWN.with_c_bit(c_bit=True)))
        assert connection.compatible
        assert table.lookup(segment(PEER, local=OWN.with_c_bit(c_bit=True))) is connection

    def test_what_nobody_waits_for_is_unknown(self):
        assert make_table().lookup(segment(local_port=81)) is NotFound.UNKNOWN

    def test_a_closed_connection_is_not_found(self):
        table = make_table()
        connection = connect(table)
        table.close(connection)
        assert len(table) == 0
        assert isinstance(table.lookup(segment()), Heard)
        assert isinstance(table.lookup(segment(packet_format=Format.IPV4)), Heard)
        assert (
            table.quoted(Quote(packet_format=Format.SIP, protocol=TCP, source=OWN, destination=PEER, ports=None))
            is NotFound.UNKNOWN
        )

    def test_a_packet_has_addresses_of_its_format(self):
        with pytest.raises(ValueError, match="IPV4 format"):
            replace(segment(), packet_format=Format.IPV4)

    @given(st.data())
    def test_beside_a_list_that_is_searched_as_the_seed_says(self, data):
        """Both ends drawn from few addresses, so that low halves, sites and C bits coincide."""
        remotes = [PEER, OLD_PEER, TWIN, TWIN.with_c_bit(c_bit=True), NEIGHBOUR]
        table, opened = ConnectionTable([OWN]), []
        ports = st.integers(1, 2)
        for _ in range(data.draw(st.integers(0, 6))):
            packet_format = data.draw(st.sampled_from(Format))
            try:
                opened.append(
                    connect(
                        table,
                        data.draw(st.sampled_from(remotes)),
                        packet_format=packet_format,
                        remote_port=data.draw(ports),
                    )
                )
            except Conflict:
                continue
        if opened and data.draw(st.booleans()):
            table.close(opened.pop())
        packet = segment(
            data.draw(st.sampled_from(remotes)),
            packet_format=data.draw(st.sampled_from(Format)),
            remote_port=data.draw(ports),
        )
        found = table.lookup(packet)

        def matches(connection):
            mine, its = (connection.local, connection.remote), (packet.local, packet.remote)
            if packet.compatible:
                mine, its = ([each.number & 0xFFFFFFFF for each in pair] for pair in (mine, its))
            elif connection.compatible:
                return False
            return list(mine) == list(its) and connection.remote_port == packet.remote_port

        matching = [each for each in opened if matches(each)]
        if isinstance(found, Connection):
            assert found in matching
        elif found is NotFound.AMBIGUOUS:
            assert len(matching) > 1
        else:
            assert matching == []


class TestListeners:
    def test_the_exact_address_comes_before_the_low_half_before_every_address(self):
        second = Address.parse_sip("1.213.77.6/192.3.4.1")  # the same low half in another site (erratum E31)
        table = ConnectionTable([OWN, second])
        for local in (None, second):
            table.listen(Listener(protocol=TCP, local=local, port=80))
        assert table.lookup(segment(local=second)).listener.local == second
        assert table.lookup(segment(local=OWN)).listener.local is None
        compatible = table.lookup(segment(OLD_PEER, local=OWN))
        assert compatible.listener.local == second  # by the low half, as no one listens on OWN
        table.listen(Listener(protocol=TCP, local=OWN, port=80))
        assert table.lookup(segment(OLD_PEER, local=OWN)).listener.local == OWN

    def test_an_ipv4_packet_is_for_our_address_of_the_site_that_it_came_by(self):
        second = Address.parse_sip("1.213.77.6/192.3.4.1")
        table = ConnectionTable([OWN, second])
        table.listen(WEB)
        assert table.lookup(segment(packet_format=Format.IPV4, arrival=second.site)).local == second
        assert table.lookup(segment(packet_format=Format.IPV4, arrival=OWN.site)).local == OWN

    def test_two_cannot_listen_on_one_port_of_one_address(self):
        table = make_table()
        table.listen(Listener(protocol=TCP, local=OWN, port=80))
        with pytest.raises(Conflict):
            table.listen(Listener(protocol=TCP, local=None, port=80))
        table.unlisten(WEB)
        table.listen(WEB)


class TestCase1TwoPeersWithEqualLowHalves:
    def both(self):
        table = make_table()
        return table, connect(table, PEER), connect(table, TWIN)

    def test_are_two_connections(self):
        table, one, other = self.both()
        assert table.lookup(segment(PEER)) is one
        assert table.lookup(segment(TWIN)) is other

    def test_of_which_a_compatible_packet_is_for_the_one_of_its_site(self):
        table, _, other = self.both()
        assert table.lookup(segment(TWIN.with_c_bit(c_bit=True))) is other
        assert table.lookup(segment(packet_format=Format.IPV4, arrival=TWIN.site)) is other

    def test_but_a_compatible_connection_comes_first(self):
        table, _, _ = self.both()
        old = connect(table, OLD_PEER)
        assert table.lookup(segment(TWIN.with_c_bit(c_bit=True))) is old

    def test_and_one_that_could_be_for_either_is_dropped_and_counted(self):
        table, _, _ = self.both()
        assert table.lookup(segment(packet_format=Format.IPV4, arrival=SITE)) is NotFound.AMBIGUOUS
        assert table.ambiguous == 1


class TestCase2ACompatibleKeyIsTaken:
    def test_by_connect_is_refused(self):
        table = make_table()
        connect(table, OLD_PEER)
        with pytest.raises(Conflict, match="already held"):
            connect(table, TWIN.with_c_bit(c_bit=True))

    def test_by_a_syn_is_refused(self):
        table = make_table()
        connect(table, OLD_PEER)
        with pytest.raises(Conflict):
            table.accept(segment(packet_format=Format.IPV4))
        assert len(table) == 1

    def test_but_a_full_one_may_stand_beside_it(self):
        table = make_table()
        old, new = connect(table, OLD_PEER), connect(table, PEER)
        assert table.lookup(segment(OLD_PEER)) is old
        assert table.lookup(segment(PEER)) is new

    def test_and_the_same_full_one_twice_is_refused(self):
        table = make_table()
        connection = connect(table, PEER)
        with pytest.raises(Conflict):
            connect(table, PEER)
        assert table.lookup(segment(PEER)) is connection


class TestCase3IPv4FromAPeerWithoutC:
    @pytest.mark.rfc("ipae", "8.2")
    @pytest.mark.parametrize(("intra", "answer"), [(True, Format.IPV4), (False, Format.IPAE)])
    def test_is_found_and_answered_as_the_domain_does(self, intra, answer):
        table = make_table()
        connection = connect(table, NEIGHBOUR)
        assert table.received(segment(NEIGHBOUR, packet_format=Format.IPV4)) is connection
        assert connection.packet_format is Format.IPV4
        assert reply_format(connection, replace(POLICY, intra_ad_ipv4=intra)) is answer

    def test_made_in_the_ipv4_format_stays_there(self):
        table = make_table()
        connection = connect(table, NEIGHBOUR, packet_format=Format.IPV4)
        assert connection.compatible
        assert reply_format(connection, POLICY) is Format.IPV4


class TestCase4PassiveOpen:
    def test_from_the_ipv4_format_the_peer_is_c_of_our_site(self):
        table = make_table()
        connection = table.accept(segment(NEIGHBOUR, packet_format=Format.IPV4))
        assert connection.remote == NEIGHBOUR.with_c_bit(c_bit=True)
        assert connection.local == OWN
        assert connection.compatible
        assert reply_format(connection, POLICY) is Format.IPV4

    @pytest.mark.parametrize("peer", [PEER, OLD_PEER])
    def test_from_sip_it_is_what_it_says(self, peer):
        connection = make_table().accept(segment(peer))
        assert connection.remote == peer
        assert connection.compatible is peer.c_bit

    def test_another_upper_half_later_is_accepted_and_answered_to_the_first(self):
        table = make_table()
        connection = table.accept(segment(OLD_PEER))
        moved = TWIN.with_c_bit(c_bit=True)
        assert table.received(segment(moved)) is connection
        assert connection.remote == OLD_PEER

    def test_or_followed_where_that_is_wished(self):
        table = make_table(follow_prefix=True)
        connection = table.accept(segment(OLD_PEER))
        moved = TWIN.with_c_bit(c_bit=True)
        table.received(segment(moved))
        assert connection.remote == moved
        assert table.lookup(segment(OLD_PEER)) is connection
        table.received(segment(packet_format=Format.IPV4))
        assert connection.remote == moved
        table.close(connection)
        assert len(table) == 0


class TestCase5AHostIsUpgraded:
    def test_its_peers_new_packets_find_no_connection(self):
        table = make_table()
        connection = connect(table, OLD_PEER)
        assert isinstance(table.lookup(segment(PEER)), Heard)
        assert table.lookup(segment(OLD_PEER)) is connection

    def test_its_own_old_connections_keep_the_old_c(self):
        table = make_table()
        old_self = OWN.with_c_bit(c_bit=True)
        connection = table.accept(segment(PEER, local=old_self))
        assert connection.local == old_self
        assert table.addresses_in_use() == {old_self}
        assert table.lookup(segment(PEER, local=old_self)) is connection
        assert isinstance(table.lookup(segment(PEER)), Heard)
        table.close(connection)
        assert table.addresses_in_use() == frozenset()


class TestCase6IcmpErrors:
    def quote(self, destination, *, packet_format=Format.SIP, ports=(80, 5000), source=OWN, arrival=None):
        if packet_format is Format.IPV4:
            source, destination = source.low, destination.low
        return Quote(
            packet_format=packet_format,
            protocol=TCP,
            source=source,
            destination=destination,
            ports=ports,
            arrival=arrival,
        )

    @pytest.mark.parametrize("packet_format", OVER_SIP)
    def test_a_quote_of_sip_is_ours_and_its_destination_the_peer(self, packet_format):
        table = make_table()
        one, _other = connect(table, PEER), connect(table, TWIN)
        assert table.quoted(self.quote(PEER, packet_format=packet_format)) is one

    def test_a_quote_of_ipv4_is_looked_up_by_32_bits(self):
        table = make_table()
        connection = connect(table, OLD_PEER)
        assert table.quoted(self.quote(PEER, packet_format=Format.IPV4)) is connection
        assert table.quoted(self.quote(OLD_PEER)) is connection

    def test_the_c_bit_of_the_quoted_destination_counts(self):
        table = make_table()
        connection = connect(table, OLD_PEER)
        assert table.quoted(self.quote(TWIN.with_c_bit(c_bit=True))) is connection
        assert table.quoted(self.quote(PEER)) is NotFound.UNKNOWN

    def test_listeners_have_no_errors(self):
        assert make_table().quoted(self.quote(PEER)) is NotFound.UNKNOWN

    def test_a_quote_without_ports_is_a_hint_about_the_address(self):
        table = make_table()
        two = [connect(table, PEER, remote_port=port) for port in (5000, 5001)]
        connect(table, TWIN)
        assert table.quoted(self.quote(PEER, ports=None)) == Hint(connections=tuple(two))
        assert len(table.quoted(self.quote(PEER, packet_format=Format.IPV4, ports=None)).connections) == 3
        assert table.quoted(self.quote(NEIGHBOUR, ports=None)) is NotFound.UNKNOWN

    def test_one_that_could_be_about_either_is_dropped(self):
        table = make_table()
        connect(table, PEER)
        connect(table, TWIN)
        assert table.quoted(self.quote(PEER, packet_format=Format.IPV4)) is NotFound.AMBIGUOUS


class TestCase7Resets:
    @pytest.mark.parametrize(
        ("packet_format", "peer", "compatible"),
        [
            (Format.IPV4, PEER, True),
            (Format.IPAE, PEER, False),
            (Format.IPAE, OLD_PEER, True),
            (Format.SIP, PEER, False),
            (Format.SIP, OLD_PEER, True),
        ],
    )
    def test_go_back_as_the_packet_came(self, packet_format, peer, compatible):
        came = segment(peer, packet_format=packet_format)
        assert came.reply == Reply(
            packet_format=packet_format,
            source=came.local,
            source_port=80,
            destination=came.remote,
            destination_port=5000,
            compatible=compatible,
        )


class TestCase8WaitingAndCookies:
    def test_a_waiting_connection_keeps_its_place(self):
        table = make_table()
        connection = connect(table, OLD_PEER)
        connection.waiting = True
        assert table.lookup(segment(packet_format=Format.IPV4)) is connection
        with pytest.raises(Conflict):
            connect(table, OLD_PEER)

    def test_a_cookie_covers_the_same_of_an_ipv4_peer_in_every_format(self):
        keys = {
            segment(packet_format=Format.IPV4).key,
            segment(OLD_PEER, packet_format=Format.IPAE).key,
            segment(OLD_PEER).key,
            segment(TWIN.with_c_bit(c_bit=True)).key,
        }
        assert len(keys) == 1

    def test_and_the_whole_address_of_a_sip_peer(self):
        assert segment(PEER).key == segment(PEER, packet_format=Format.IPAE).key
        assert segment(PEER).key != segment(TWIN).key
        assert segment(PEER).key != segment(OLD_PEER).key


class TestCase9Udp:
    def test_a_connected_socket_is_looked_up_like_a_connection(self):
        table = make_table()
        one, other = connect(table, PEER, protocol=UDP), connect(table, TWIN, protocol=UDP)
        assert table.lookup(segment(PEER, protocol=UDP)) is one
        assert table.lookup(segment(TWIN, protocol=UDP)) is other

    @pytest.mark.parametrize(
        ("packet_format", "peer", "told"),
        [
            (Format.IPAE, PEER, PEER),
            (Format.SIP, OLD_PEER, OLD_PEER),
            (Format.IPV4, NEIGHBOUR, NEIGHBOUR.with_c_bit(c_bit=True)),
        ],
    )
    def test_an_unconnected_one_is_told_the_whole_address_and_the_format(self, packet_format, peer, told):
        table = make_table()
        listener = Listener(protocol=UDP, local=None, port=53)
        table.listen(listener)
        heard = table.lookup(segment(peer, packet_format=packet_format, protocol=UDP, local_port=53))
        assert heard == Heard(listener=listener, local=OWN, remote=told, packet_format=packet_format)


class TestCase10OwnAddresses:
    def test_to_oneself_c_is_0_and_the_class_full(self):
        table = make_table()
        connection = connect(table, OWN.with_c_bit(c_bit=True), packet_format=Format.IPV4)
        assert connection.remote == OWN
        assert not connection.compatible
        assert table.lookup(segment(OWN)) is connection

    @pytest.mark.parametrize("packet_format", Format)
    def test_in_every_format(self, packet_format):
        table = make_table()
        connection = connect(table, OWN)
        assert table.lookup(segment(OWN, packet_format=packet_format)) is connection

    def test_net_127_is_the_loopback_address_of_sip(self):
        table = make_table()
        connection = connect(table, LOOPBACK, local=LOOPBACK)
        local = Segment(
            packet_format=Format.IPV4,
            protocol=TCP,
            local=Address.parse("127.0.0.1"),
            local_port=80,
            remote=Address.parse("127.0.0.1"),
            remote_port=5000,
        )
        assert table.lookup(local) is connection

    def test_a_strangers_equal_low_half_is_not_oneself(self):
        table = make_table()
        connect(table, OWN)
        stranger = Address.of_halves(PEER.upper, OWN.low)
        assert isinstance(table.lookup(segment(stranger)), Heard)


class TestCase11BothEndsAreIPv4Only:
    def test_never_meet_a_sip_connection(self):
        table = make_table()
        assert table.lookup(segment(OLD_PEER, local=OWN.with_c_bit(c_bit=True))) is NotFound.FOREIGN
        with pytest.raises(ValueError, match="both IPv4-only"):
            connect(table, OLD_PEER, local=OWN.with_c_bit(c_bit=True))


def test_a_host_has_an_address():
    with pytest.raises(ValueError, match="at least one"):
        ConnectionTable([])
