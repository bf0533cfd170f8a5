# SPDX-License-Identifier: BSD-3-Clause
"""Mapping zones of a real nameserver on loopback: transfer, increments, single questions, keys."""

import asyncio
import base64
import contextlib

import dns.name
import dns.rdatatype
import dns.xfr
import pytest

from isthmus.address import Address, Prefix
from isthmus.border.mapping import Mapping
from isthmus.daemon.mapping_dns import DnsRules, MappingDns, read_key
from isthmus.daemon.mapping_table import MappingTable
from isthmus.errors import ConfigError, PlaneError
from isthmus.ipae.mapping import OwnNetwork, parse
from isthmus.ipae.records import NETWORK, ZoneHead, zone_lines
from isthmus.ipae.resolve import LookupRules, Outcome
from isthmus.ipae.zone_copy import CopyRules
from nameserver import Nameserver, needs_knot

pytestmark = needs_knot
ZONE = dns.name.from_text("map.example.")
FIRST = "129.144.0.0/16 c20.4.0.3\n10.16.0.0/12 c1.2.2.8\n192.9.5.0/24 c1.213.77.5\n192.9.5.2/32 1.213.77.5\n"
SECOND = FIRST.replace("c20.4.0.3", "c20.4.0.9") + "130.1.0.0/16 c1.2.2.75\n"


def mapping(text):
    return parse(text.encode()).mapping


def zone(text, serial, *, as_text=False, ttl=3600, junk=""):
    head = ZoneHead(origin="map.example.", serial=serial, server="ns", address="127.0.0.1", ttl=ttl)
    return "\n".join([*zone_lines(mapping(text), head, as_text=as_text), junk, ""])


def ip(text):
    return Address.parse(text)


@pytest.fixture
def serve(tmp_path_factory):
    with contextlib.ExitStack() as ended:

        def start(text, **options):
            server = Nameserver(tmp_path_factory.mktemp("knot"), {"map.example.": text}, **options)
            ended.callback(server.stop)
            server.start()
            return server

        yield start


class Follower:
    """A table that follows a zone, and what came of packets."""

    def __init__(self, server, *, own=(), **rules):
        self.applied = []
        self.forwarded = []
        self.unreachable = []
        self.table = MappingTable("far", self.apply, own=own)
        self.rules = DnsRules(
            zone=ZONE, servers=((ip("127.0.0.1"), server.port),), copy=CopyRules(refresh=1.0, retry=1.0), **rules
        )

    async def apply(self, whole):
        self.applied.append(whole)

    async def during(self, script):
        self.dns = MappingDns(
            self.rules, self.table, forward=self.forwarded.append, unreachable=self.unreachable.append
        )
        self.running = running = asyncio.create_task(self.dns.run())
        try:
            async with asyncio.timeout(20):
                await script(self)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        return self

    async def until(self, so):
        while not so():
            assert not self.running.done(), self.running.exception()
            await asyncio.sleep(0.01)


def follow(server, script, **options):
    return asyncio.run(Follower(server, **options).during(script))


@pytest.mark.rfc("ipae", "8.1")
@pytest.mark.parametrize("as_text", [False, True])
def test_a_zone_is_transferred_whole(serve, as_text):
    async def script(it):
        await it.until(lambda: it.applied)

    it = follow(serve(zone(FIRST, 5, as_text=as_text)), script)
    assert it.applied == [mapping(FIRST)]
    assert it.table.describe()["sources"] == [{"name": "map.example.", "serial": 5, "entries": 4}]


@pytest.mark.rfc("ipae", "8.1")
def test_recent_additions_come_with_the_next_serial_number(serve, monkeypatch):
    """Only what was added comes, by IXFR (RFC 1995)."""
    server, seen, process = serve(zone(FIRST, 5)), [], dns.xfr.Inbound.process_message

    def spy(transfer, message):
        done = process(transfer, message)
        seen.append((dns.rdatatype.to_text(transfer.rdtype), transfer.incremental))
        return done

    monkeypatch.setattr(dns.xfr.Inbound, "process_message", spy)

    async def script(it):
        await it.until(lambda: len(it.applied) == 1)
        await asyncio.to_thread(server.change, "map.example.", zone(SECOND, 6))
        it.dns.look_now()
        await it.until(lambda: len(it.applied) == 2)

    it = follow(server, script)
    assert it.table.mapping == mapping(SECOND)
    assert seen == [("AXFR", False), ("IXFR", True)]


def test_a_zone_that_maps_an_own_network_elsewhere_is_refused_whole(serve, capsys):
    server = serve(zone(FIRST, 5))
    own = (OwnNetwork(Prefix.parse("130.1.7.0/24"), Prefix.parse_sip("1.213.77.5/32")),)

    async def script(it):
        await it.until(lambda: len(it.applied) == 1)
        await asyncio.to_thread(server.change, "map.example.", zone(SECOND, 6))
        it.dns.look_now()
        await it.until(lambda: it.dns._copy._refused == 6)
        await asyncio.to_thread(server.change, "map.example.", zone(FIRST + "131.1.0.0/16 c1.2.2.75\n", 7))
        it.dns.look_now()
        await it.until(lambda: len(it.applied) == 2)

    it = follow(server, script, own=own)
    assert it.applied == [mapping(FIRST), mapping(FIRST + "131.1.0.0/16 c1.2.2.75\n")]


def test_a_transfer_must_be_signed_where_a_key_is_set(serve, tmp_path):
    secret = base64.b64encode(b"sixteen octets!!").decode()
    server = serve(zone(FIRST, 5), key=("mapping.", secret))

    async def script(it):
        await it.until(lambda: it.applied)

    path = tmp_path / "key"
    path.write_text(f"hmac-sha256:mapping.:{secret}\n")
    it = follow(server, script, key=read_key(path))
    assert it.applied == [mapping(FIRST)]


@pytest.mark.parametrize(
    "text", ["", "mapping.:c2VjcmV0", "hmac-sha256:mapping.:not base64", "rot13:mapping.:c2VjcmV0"]
)
def test_a_file_without_a_key_is_refused(tmp_path, text):
    (tmp_path / "key").write_text(text)
    with pytest.raises(ConfigError, match="is no TSIG key"):
        read_key(tmp_path / "key")
    with pytest.raises(ConfigError, match="No such file"):
        read_key(tmp_path / "none")


def test_without_the_key_nothing_is_given(serve):
    server = serve(zone(FIRST, 5), key=("mapping.", base64.b64encode(b"sixteen octets!!").decode()))

    async def script(it):
        await it.until(lambda: it.dns._copy._start is not None and not it.dns._copy._busy)

    assert follow(server, script).applied == []


@pytest.mark.rfc("ipae", "8.1")
@pytest.mark.parametrize("rdtype", [NETWORK, dns.rdatatype.TXT])
def test_a_destination_is_looked_up_when_a_packet_needs_it(serve, rdtype):
    async def script(it):
        assert it.dns.miss(ip("129.144.7.9"), ip("10.0.0.1"), b"one") is Outcome.HELD
        assert it.dns.miss(ip("129.144.7.9"), ip("10.0.0.1"), b"two") is Outcome.HELD
        await it.until(lambda: it.forwarded)
        assert it.table.mapping == mapping("129.144.7.0/24 c20.4.0.3")
        assert it.dns.miss(ip("192.9.5.2"), ip("10.0.0.1"), b"three") is Outcome.HELD
        assert it.dns.miss(ip("10.31.255.9"), ip("10.0.0.1"), b"four") is Outcome.HELD
        assert it.dns.miss(ip("10.32.0.1"), ip("10.0.0.1"), b"five") is Outcome.HELD
        await it.until(lambda: len(it.forwarded) == 4 and it.unreachable)

    server = serve(zone(FIRST, 5, as_text=rdtype != NETWORK))
    it = follow(server, script, transfer=False, lookups=True, limits=LookupRules(zone=ZONE, rdtype=rdtype))
    assert it.forwarded[:2] == [b"one", b"two"]
    assert sorted(it.forwarded[2:]) == [b"four", b"three"]
    assert it.unreachable == [b"five"]
    told = it.table.describe()["dns"]
    assert (told["zone"], told["waiting"], told["missed"]["held"]) == ("map.example.", 0, 5)
    assert it.table.mapping.lookup(ip("192.9.5.2")) == Prefix.parse_sip("1.213.77.5/32")
    assert it.table.mapping.lookup(ip("192.9.5.3")) is None
    assert it.table.mapping.lookup(ip("10.31.255.200")) == Prefix.parse_sip("c1.2.2.8/32")


def test_what_the_copy_lacks_is_asked_for_and_forgotten_with_the_next_copy(serve):
    server = serve(zone(FIRST, 5))

    async def script(it):
        await it.until(lambda: it.applied)
        await asyncio.to_thread(server.change, "map.example.", zone(SECOND, 6))
        it.dns.miss(ip("130.1.9.9"), ip("10.0.0.1"), b"one")
        await it.until(lambda: it.forwarded)
        assert it.table.mapping == mapping(FIRST + "130.1.9.0/24 c1.2.2.75")
        it.dns.look_now()
        await it.until(lambda: it.table.mapping == mapping(SECOND))

    follow(server, script, lookups=True)


def test_a_packet_that_comes_while_its_answer_is_programmed_goes_when_the_plane_has_it(serve):
    """Sent through the plane before, it would be asked for again at once, without end."""
    had = []

    class Slow(Follower):
        async def apply(self, whole):
            assert self.dns.miss(ip("129.144.7.10"), ip("10.0.0.2"), b"late") is Outcome.HELD
            await super().apply(whole)

    async def script(it):
        it.dns.miss(ip("129.144.7.9"), ip("10.0.0.1"), b"one")
        await it.until(lambda: len(it.forwarded) == 2)
        had.append(it.dns.miss(ip("129.144.7.11"), ip("10.0.0.3"), b"three"))

    follower = Slow(serve(zone(FIRST, 5)), transfer=False, lookups=True)
    it = asyncio.run(follower.during(script))
    assert it.forwarded == [b"one", b"late"]
    assert had == [Outcome.FORWARD]


def test_what_a_plane_refuses_is_unreachable(serve, capsys):
    class Refusing(Follower):
        async def apply(self, whole):
            raise PlaneError("no memory")

    async def script(it):
        it.dns.miss(ip("129.144.7.9"), ip("10.0.0.1"), b"one")
        await it.until(lambda: it.forwarded)
        assert it.dns.miss(ip("129.144.7.9"), ip("10.0.0.1"), b"again") is Outcome.HELD
        await it.until(lambda: it.unreachable)

    it = asyncio.run(Refusing(serve(zone(FIRST, 5)), transfer=False, lookups=True).during(script))
    assert it.unreachable == [b"again"]


def test_packets_are_answered_when_the_nameserver_is_silent(serve):
    server = serve(zone(FIRST, 5))
    server.stop()

    async def script(it):
        it.dns.miss(ip("129.144.7.9"), ip("10.0.0.1"), b"one")
        await it.until(lambda: it.unreachable)

    it = follow(server, script, transfer=False, lookups=True, timeout=0.1)
    assert it.unreachable == [b"one"]
    assert it.table.mapping == Mapping.of()
