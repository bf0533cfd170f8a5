# SPDX-License-Identifier: BSD-3-Clause
"""The DNS server that synthesises: dig before it, a resolver of ours or a real nameserver behind it, all on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import socket
from collections import Counter

import dns.asyncquery
import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from fuzz.mutation import mutate
from ipae.resolver import TEXT, recurse
from isthmus.address import Address, Prefix
from isthmus.border.table import BindingTable
from isthmus.daemon.synthesis_server import ServerLimits, SynthesisServer, Upstream
from isthmus.errors import ConfigError, PlaneError
from isthmus.ipae.alias import AliasPool
from isthmus.ipae.neutral import Sockets
from isthmus.ipae.synthesis import Synthesiser, SynthesisPolicy
from nameserver import Nameserver, needs_knot

LOOPBACK = Address.parse("127.0.0.1")
ALIAS, PF_D, PC_OLD = "100.64.108.191", "fd49:5041:4500:6d74:102:208:c905:7fa", "fd53:4950:4300:f350:8102:208:c905:7fa"
needs_dig = pytest.mark.skipif(shutil.which("dig") is None, reason="dig is not installed")


class Resolver(asyncio.DatagramProtocol):
    """A resolver upstream that can be told to misbehave."""

    def __init__(self):
        self.behaviour = "honest"
        self.asked: list[tuple[int, int, str]] = []
        "Port, identifier and type of each question."
        self.by_tcp = 0

    async def start(self):
        loop = asyncio.get_running_loop()
        for _ in range(8):
            self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
            self.port = self.transport.get_extra_info("sockname")[1]
            with contextlib.suppress(OSError):
                self.tcp = await asyncio.start_server(self.connected, "127.0.0.1", self.port)
                return
            self.transport.close()
        raise RuntimeError("no port")

    def stop(self):
        self.transport.close()
        self.tcp.close()

    def answer(self, query):
        response = recurse(query.question[0].name, query.question[0].rdtype)
        response.id = query.id
        response.use_edns(0)
        match self.behaviour:
            case "failing":
                response.answer.clear()
                response.set_rcode(dns.rcode.SERVFAIL)
            case "bad extension":
                response.set_rcode(dns.rcode.BADVERS)
            case "large" if query.question[0].rdtype == dns.rdatatype.TXT:
                texts = [f'"{number:03} {"x" * 200}"' for number in range(20)]
                response.answer[:] = [dns.rrset.from_text(query.question[0].name, 60, "IN", "TXT", *texts)]
        return response

    def datagram_received(self, data, addr):
        query = dns.message.from_wire(data)
        self.asked.append((addr[1], query.id, dns.rdatatype.to_text(query.question[0].rdtype)))
        if self.behaviour == "silent":
            return
        response = self.answer(query)
        if self.behaviour == "forged first":
            forged = self.answer(query)
            forged.answer = [dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "6.6.6.6")]
            forged.id ^= 1
            self.transport.sendto(forged.to_wire(), addr)
        if self.behaviour == "garbage":
            self.transport.sendto(data[:2] + b"\x80garbage", addr)
            return
        self.transport.sendto(response.to_wire(max_size=1232, prefer_truncation=True), addr)

    async def connected(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            query = dns.message.from_wire(await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")))
            self.by_tcp += 1
            writer.write(self.answer(query).to_wire(max_size=65535, prepend_length=True))
            await writer.drain()
        writer.close()


class Bench:
    """A server, the table that its effects go to, and its resolver."""

    def __init__(self, upstream_port, *, limits=None, identity=None, broken=False, pools=("100.64.0.0/10",)):
        aliases = AliasPool(realm=1, sip=2, pools=tuple(map(Prefix.parse, pools)), identity=identity)
        policy = SynthesisPolicy(
            site=Prefix.parse_sip("1.213.77.5/32"),
            sockets=Sockets(),
            reverse_zone=dns.name.from_text("sip.example."),
        )
        self.synthesiser = Synthesiser(policy, aliases=aliases)
        self.table, self.broken, self.slow = BindingTable(), broken, asyncio.Event()
        self.slow.set()
        self.server = SynthesisServer(
            self.synthesiser,
            upstreams=[Upstream(address=LOOPBACK, port=upstream_port)],
            now=lambda: 1000.0,
            carry_out=self.carry_out,
            limits=limits or ServerLimits(upstream_seconds=0.3),
        )

    async def carry_out(self, effects):
        await self.slow.wait()
        if self.broken:
            raise PlaneError("the plane is gone")
        for effect in effects:
            self.table.apply(effect)

    async def ask(self, name, rdtype, *, tcp=False, **options):
        query = dns.message.make_query(name, rdtype, **options)
        way = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        return await way(query, "127.0.0.1", port=self.server.port, timeout=5)

    async def dig(self, *arguments):
        process = await asyncio.create_subprocess_exec(
            "dig", "@127.0.0.1", "-p", str(self.server.port), *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await asyncio.wait_for(process.communicate(), 20)
        return out.decode()


def run(test, *, behaviour="honest", **options):
    """Run a test with a bench and its resolver."""

    async def with_both():
        resolver = Resolver()
        await resolver.start()
        resolver.behaviour = behaviour
        bench = Bench(resolver.port, **options)
        await bench.server.start(LOOPBACK, port=0)
        try:
            async with asyncio.timeout(60):
                await test(bench, resolver)
        finally:
            await bench.server.stop()
            resolver.stop()

    asyncio.run(with_both())


def addresses(response):
    return [str(each) for each in response.answer[-1]] if response.answer else []


@needs_dig
def test_dig_gets_every_kind_of_answer():
    async def test(bench, _resolver):
        assert await bench.dig("d.example", "AAAA", "+short") == f"{PF_D}\n"
        assert await bench.dig("old.example", "AAAA", "+short") == f"{PC_OLD}\n"
        assert await bench.dig("d.example", "A", "+short") == f"{ALIAS}\n"
        assert await bench.dig("d.example", "A", "+short", "+tcp", "+noedns") == f"{ALIAS}\n"
        assert await bench.dig("www.example", "A", "+short") == f"web.example.\nd.example.\n{ALIAS}\n"
        assert (await bench.dig("-x", ALIAS, "+short")).splitlines()[-1] == "d.example."
        assert (await bench.dig("-x", PF_D, "+short")).splitlines()[-1] == "d.example."
        assert "status: NXDOMAIN" in (said := await bench.dig("nowhere.example", "A"))
        assert "SOA\tns.example." in said
        assert "WARNING" not in said
        assert "status: BADVERS" in await bench.dig("d.example", "A", "+edns=1", "+noednsnegotiation")
        assert "status: NOTIMP" in await bench.dig("d.example", "A", "+opcode=NOTIFY")
        assert "status: REFUSED" in await bench.dig("version.bind", "CH", "TXT")

    run(test)


def test_an_alias_stands_before_anybody_hears_of_it():
    async def test(bench, _resolver):
        bench.slow.clear()
        asking = [asyncio.create_task(bench.ask("d.example", "A")) for _ in range(2)]
        await asyncio.sleep(0.2)
        assert not any(each.done() for each in asking)
        bench.slow.set()
        assert [addresses(await each) for each in asking] == [[ALIAS], [ALIAS]]
        assert bench.table.route(1, Address.parse(ALIAS)).binding.crossing.image == Prefix.of(
            Address.parse_sip("1.2.2.8/201.5.7.250")
        )

    run(test)


def test_an_alias_that_cannot_be_bound_is_servfail_and_nobodys():
    async def test(bench, _resolver):
        assert (await bench.ask("d.example", "A")).rcode() == dns.rcode.SERVFAIL
        assert len(bench.synthesiser.aliases) == 0
        assert bench.server.counters["not carried out"] == 1
        bench.broken = False
        assert addresses(await bench.ask("d.example", "A")) == [ALIAS]
        assert bench.table.route(1, Address.parse(ALIAS)) is not None

    run(test, broken=True)


def test_a_name_without_an_alias_left_is_servfail_and_logged(capsys):
    async def test(bench, _resolver):
        bench.synthesiser.aliases.lease(Address.parse_sip("9.9.9.9/201.5.7.250"), now=1000.0)
        for _ in range(2):
            assert (await bench.ask("d.example", "A")).rcode() == dns.rcode.SERVFAIL
        assert bench.server.counters["no alias left"] == 2

    run(test, pools=("100.64.0.0/16",))
    assert capsys.readouterr().out.count("ALIASES_EXHAUSTED") == 1


def test_an_answer_that_is_too_long_is_truncated_and_whole_over_tcp():
    async def test(bench, resolver):
        plain = await bench.ask("text.example", "TXT")
        assert plain.flags & dns.flags.TC
        assert len(plain.to_wire()) <= 512
        wide = await bench.ask("text.example", "TXT", use_edns=0, payload=4096)
        assert wide.flags & dns.flags.TC
        whole = await bench.ask("text.example", "TXT", tcp=True)
        assert not whole.flags & dns.flags.TC
        assert len(whole.answer[0]) == 20
        assert resolver.by_tcp == 3  # what was cut upstream was asked for again
        assert bench.server.counters["truncated"] == 2

    run(test, behaviour="large")


def test_edns_is_answered_with_edns_and_only_then():
    async def test(bench, _resolver):
        assert (await bench.ask("d.example", "A")).edns == -1
        answer = await bench.ask("d.example", "A", use_edns=0, want_dnssec=True)
        assert answer.edns == 0
        assert answer.ednsflags & dns.flags.DO

    run(test)


@pytest.mark.parametrize("behaviour", ["silent", "failing", "garbage", "bad extension"])
def test_an_upstream_that_fails_is_servfail(behaviour):
    async def test(bench, resolver):
        assert (await bench.ask("d.example", "A")).rcode() == dns.rcode.SERVFAIL
        assert Counter(rdtype for _, _, rdtype in resolver.asked) == {"A": 2, "TYPE65401": 2}  # each tried twice

    run(test, behaviour=behaviour)


def test_an_answer_with_another_identifier_is_not_ours():
    async def test(bench, _resolver):
        assert addresses(await bench.ask("plain.example", "A")) == ["129.144.7.1"]

    run(test, behaviour="forged first")


def test_every_question_upstream_has_a_port_and_an_identifier_of_its_own():
    async def test(bench, resolver):
        for _ in range(10):
            await bench.ask("d.example", "A")
        assert len({port for port, _, _ in resolver.asked}) > 10
        assert len({identifier for _, identifier, _ in resolver.asked}) > 15

    run(test)


def test_a_client_that_asks_too_often_is_not_heard():
    async def test(bench, _resolver):
        for _ in range(3):
            await bench.ask("d.example", "AAAA")
        with pytest.raises(dns.exception.Timeout):
            await dns.asyncquery.udp(
                dns.message.make_query("d.example", "AAAA"), "127.0.0.1", port=bench.server.port, timeout=0.2
            )
        with pytest.raises(EOFError):
            await bench.ask("d.example", "AAAA", tcp=True)
        assert bench.server.counters["rate limited"] == 2

    run(test, limits=ServerLimits(per_second=1, burst=3))


@pytest.mark.parametrize(("clients", "heard"), [(("192.3.4.0/24",), False), (("192.3.4.0/24", "127.0.0.0/8"), True)])
def test_a_server_that_names_its_clients_is_no_strangers_amplifier(clients, heard):
    async def test(bench, _resolver):
        query = dns.message.make_query("d.example", "AAAA")
        with contextlib.nullcontext() if heard else pytest.raises(dns.exception.Timeout):
            await dns.asyncquery.udp(query, "127.0.0.1", port=bench.server.port, timeout=5 if heard else 0.2)
        with contextlib.nullcontext() if heard else pytest.raises((EOFError, ConnectionError)):
            await bench.ask("d.example", "AAAA", tcp=True)
        assert bench.server.counters["no client"] == (0 if heard else 2)

    run(test, limits=ServerLimits(clients=tuple(map(Prefix.parse, clients)), upstream_seconds=0.3))


def test_more_questions_at_once_than_there_is_room_for_are_dropped():
    async def test(bench, _resolver):
        query = dns.message.make_query("d.example", "AAAA").to_wire()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for _ in range(10):
                client.sendto(query, ("127.0.0.1", bench.server.port))
        with pytest.raises(dns.exception.Timeout):
            await dns.asyncquery.udp(
                dns.message.make_query("d.example", "AAAA"), "127.0.0.1", port=bench.server.port, timeout=0.2
            )
        assert bench.server.counters["too many at once"] == 7

    run(test, behaviour="silent", limits=ServerLimits(at_once=4, upstream_seconds=5))


def test_several_questions_go_over_one_connection_and_no_more_than_so_many_connections_are_held():
    async def test(bench, _resolver):
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.server.port)
        for rdtype in ("A", "AAAA"):
            query = dns.message.make_query("d.example", rdtype)
            writer.write(query.to_wire(prepend_length=True))
            answer = dns.message.from_wire(await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")))
            assert query.is_response(answer)
        with pytest.raises((EOFError, ConnectionError)):
            await bench.ask("d.example", "A", tcp=True)
        writer.close()

    run(test, limits=ServerLimits(connections=1, upstream_seconds=0.3))


def test_what_cannot_be_read_is_formerr_and_an_answer_is_no_question():
    async def test(bench, _resolver):
        query = dns.message.make_query("d.example", "A").to_wire()
        answer = dns.message.from_wire(await bench.server.respond(query[:-3], largest=None))
        assert answer.rcode() == dns.rcode.FORMERR
        assert answer.id == int.from_bytes(query[:2], "big")
        two = dns.message.make_query("d.example", "A")
        two.find_rrset(two.question, dns.name.from_text("old.example"), 1, 1, create=True, force_unique=True)
        assert dns.message.from_wire(await bench.server.respond(two.to_wire(), largest=None)).rcode() == 1
        assert await bench.server.respond(query[:11], largest=None) is None
        assert await bench.server.respond(query[:2] + b"\x81" + query[3:], largest=None) is None

    run(test)


def test_mutated_questions_are_answered_or_not_but_never_raise():
    async def test(bench, _resolver):
        dice = random.Random(4)
        seeds = [
            dns.message.make_query(name, rdtype, use_edns=0).to_wire()
            for name in ("d.example", "www.example", "250.7.5.201.in-addr.arpa")
            for rdtype in ("A", "AAAA", "PTR", "TYPE65401")
        ]
        for _ in range(500):
            answer = await bench.server.respond(mutate(dice.choice(seeds), dice), largest=512)
            assert answer is None or len(answer) <= 512

    run(test, limits=ServerLimits(upstream_seconds=0.05))


def test_a_port_that_is_taken_is_named():
    async def test(bench, resolver):
        with pytest.raises(ConfigError, match=r"^dns\.listen: cannot listen on .*; is another name server running"):
            await Bench(1).server.start(LOOPBACK, port=resolver.port)
        with pytest.raises(ConfigError, match="no interface has the address"):
            await Bench(1).server.start(Address.parse("192.0.2.1"), port=resolver.port)

    run(test)


@needs_knot
@needs_dig
def test_a_stock_nameserver_serves_the_aa_records(tmp_path):
    nameserver = Nameserver(tmp_path, {"example.": TEXT})
    nameserver.start()

    async def test():
        bench = Bench(nameserver.port)
        await bench.server.start(LOOPBACK, port=0)
        try:
            assert await bench.dig("d.example", "A", "+short") == f"{ALIAS}\n"
            assert await bench.dig("www.example", "AAAA", "+short") == f"web.example.\nd.example.\n{PF_D}\n"
            assert "status: NXDOMAIN" in await bench.dig("nowhere.example", "AAAA")
            assert "ANSWER: 0" in (said := await bench.dig("text.example", "A"))
            assert "SOA" in said
        finally:
            await bench.server.stop()

    try:
        asyncio.run(test())
    finally:
        nameserver.stop()
