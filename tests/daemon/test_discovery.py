# SPDX-License-Identifier: BSD-3-Clause
"""Finding a gateway: what agents answer, how hosts ask, and what the configuration says of both."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
import threading
from dataclasses import replace

import pytest
from pyroute2 import netns

from isthmus.address import Address, Prefix
from isthmus.border.binding import Binding, BindingKey, Lease, Owner
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Kind, Selector
from isthmus.daemon.config import parse as parse_config
from isthmus.daemon.config.discovery import DiscoverSection
from isthmus.daemon.control import ControlError
from isthmus.daemon.discovery import finding
from isthmus.daemon.discovery.advertisement import Advertisement
from isthmus.daemon.discovery.announcer import offer
from isthmus.daemon.discovery.convergence import Convergence
from isthmus.daemon.discovery.load import leased_share
from isthmus.daemon.discovery.near import near_interface
from isthmus.daemon.discovery.seeking_host import SeekingHost, wanted, with_gateway
from isthmus.daemon.discovery.service_agent import ServiceAgent
from isthmus.daemon.discovery.template import Offer, predicate
from isthmus.daemon.discovery.user_agent import Question, find_services
from isthmus.errors import ConfigError, Unsupported
from isthmus.store import Held
from isthmus.wire.rsip.codes import Method
from isthmus.wire.slp import attribute
from isthmus.wire.slp.codes import ErrorCode, Flag
from isthmus.wire.slp.message import (
    AttrRply,
    AttrRqst,
    DaAdvert,
    Message,
    SaAdvert,
    SrvAck,
    SrvDeReg,
    SrvReg,
    SrvRply,
    SrvRqst,
    SrvTypeRply,
    SrvTypeRqst,
    UrlEntry,
    emit,
    parse,
)
from isthmus.wire.slp.url import ServiceUrl

HERE = "10.0.0.1"
URL = f"service:rsip://{HERE}:4455"
AGENT = Advertisement(
    here=HERE,
    url=ServiceUrl.parse(URL),
    scopes=("DEFAULT", "North"),
    lifetime=300,
    offer=lambda: Offer(ipsec=True, tunnel_types=("IP-IP", "GRE"), transports=("UDP", "TCP"), load=17),
)
REQUEST = SrvRqst(service_type="service:rsip", scopes=("DEFAULT",))


def ask(body, *, multicast=False, agent=AGENT, language="en", extensions=()):
    """The agent's answer to a request, as a message; None if it is silent."""
    flags = Flag.REQUEST_MCAST if multicast else Flag.NONE
    message = Message(xid=7, body=body, language=language, flags=flags, extensions=extensions)
    octets = agent.answer(emit(message), multicast=multicast)
    if octets is None:
        return None
    reply = parse(octets)
    assert reply.xid == 7
    assert reply.language == language
    return reply.body


def error_of(body, **options):
    reply = ask(body, **options)
    assert ask(body, multicast=True, **options) is None, "errors are not sent to a multicast (RFC 2608 §7)"
    return reply.error


# --- the service agent ------------------------------------------------------------------------


@pytest.mark.rfc("3105", "4")
@pytest.mark.parametrize("multicast", [True, False])
def test_the_gateway_answers_for_service_rsip_with_its_url_and_lifetime(multicast):
    assert ask(REQUEST, multicast=multicast) == SrvRply(urls=(UrlEntry(url=URL, lifetime=300),))


@pytest.mark.rfc("3105", "7")
def test_the_attributes_are_those_of_the_template():
    reply = ask(AttrRqst(url=URL, scopes=("DEFAULT",)))
    assert reply == AttrRply(
        attributes="(ipsec-support=true),(ike-support=false),(tunnel-type=IP-IP,GRE),(transport=UDP,TCP),(load=17)"
    )
    assert Offer.of(attribute.parse(reply.attributes)) == AGENT.offer()


@pytest.mark.rfc("3105", "6")
def test_the_load_alone_can_be_asked_for_and_is_that_of_the_moment():
    load = 3
    agent = replace(AGENT, offer=lambda: Offer(load=load))
    asked = AttrRqst(url=URL, scopes=("DEFAULT",), tags=("LOAD",))
    assert ask(asked, agent=agent).attributes == "(load=3)"
    load = 99
    assert ask(asked, agent=agent).attributes == "(load=99)"


@pytest.mark.rfc("3105", "5")
def test_scopes_tie_hosts_to_gateways():
    assert ask(replace(REQUEST, scopes=("north",))).urls, "case does not count"
    assert error_of(replace(REQUEST, scopes=("SOUTH",))) == ErrorCode.SCOPE_NOT_SUPPORTED
    assert error_of(replace(REQUEST, scopes=())) == ErrorCode.SCOPE_NOT_SUPPORTED
    assert error_of(AttrRqst(url=URL, scopes=("SOUTH",))) == ErrorCode.SCOPE_NOT_SUPPORTED


@pytest.mark.rfc("3105", "4")
@pytest.mark.parametrize(
    ("text", "suits"),
    [("(tunnel-type=GRE)", True), ("(tunnel-type=L2TP)", False), ("(&(load<=20)(ipsec-support=true))", True), ("(load<=5)", False)],
)  # fmt: skip
def test_a_query_by_attributes_finds_only_gateways_that_have_them(text, suits):
    assert ask(replace(REQUEST, predicate=text)) == (SrvRply(urls=(AGENT.entry,)) if suits else SrvRply())
    assert (ask(replace(REQUEST, predicate=text), multicast=True) is not None) is suits


@pytest.mark.rfc("2608", "6.3")
def test_an_agent_that_has_answered_already_is_silent():
    assert ask(replace(REQUEST, previous_responders=("10.0.0.9", HERE)), multicast=True) is None
    assert ask(replace(REQUEST, previous_responders=("10.0.0.9",)), multicast=True) is not None


@pytest.mark.rfc("2608", "7")
def test_what_cannot_be_answered_is_refused_by_unicast_only():
    assert error_of(replace(REQUEST, predicate="(load")) == ErrorCode.PARSE_ERROR
    assert error_of(replace(REQUEST, spi="key")) == ErrorCode.AUTHENTICATION_UNKNOWN
    assert error_of(REQUEST, extensions=((0x4001, b""),)) == ErrorCode.OPTION_NOT_UNDERSTOOD
    assert error_of(replace(REQUEST, predicate="(load=17)"), language="de") == ErrorCode.LANGUAGE_NOT_SUPPORTED
    assert ask(REQUEST, language="de").urls, "a URL has no language"
    assert ask(replace(REQUEST, predicate="(load=17)"), language="en-GB").urls
    assert ask(REQUEST, extensions=((1, b""),)).urls, "an extension that is optional"


@pytest.mark.rfc("2608", "7")
def test_a_request_that_does_not_parse_is_told_so_and_noise_is_not():
    cut = bytearray(emit(Message(xid=7, body=REQUEST)))
    cut[16:18] = b"\xff\xff"
    reply = parse(AGENT.answer(bytes(cut), multicast=False))
    assert reply.body == SrvRply(error=ErrorCode.PARSE_ERROR)
    assert AGENT.answer(bytes(cut), multicast=True) is None
    for noise in (b"", b"\2", bytes(64), b"\1" + bytes(cut[1:]), emit(Message(xid=7, body=SrvAck()))):
        assert AGENT.answer(noise, multicast=False) is None


def test_nothing_is_found_for_other_services():
    assert ask(replace(REQUEST, service_type="service:printer")) == SrvRply()
    assert ask(replace(REQUEST, service_type="service:printer"), multicast=True) is None
    assert ask(AttrRqst(url="service:rsip://10.0.0.2", scopes=("DEFAULT",))) == AttrRply()


@pytest.mark.rfc("2608", "10.1")
@pytest.mark.parametrize(("authority", "there"), [(None, True), ("", True), ("acme", False)])
def test_service_types_are_listed(authority, there):
    reply = ask(SrvTypeRqst(naming_authority=authority, scopes=("DEFAULT",)))
    assert reply == SrvTypeRply(service_types=("service:rsip",) if there else ())


@pytest.mark.rfc("2608", "8.6")
def test_a_service_agent_can_be_asked_for():
    request = SrvRqst(service_type="service:service-agent")
    expected = SaAdvert(url=f"service:service-agent://{HERE}", scopes=AGENT.scopes)
    assert ask(request, multicast=True) == expected
    assert ask(replace(request, scopes=("SOUTH",)), multicast=True) is None


@pytest.mark.rfc("2608", "6.2")
def test_an_answer_too_long_for_a_datagram_says_so_and_is_whole_over_tcp():
    agent = replace(
        AGENT, scopes=tuple(f"scope-{number}" for number in range(200)), offer=lambda: Offer(tunnel_types=("X" * 1500,))
    )
    octets = emit(Message(xid=7, body=AttrRqst(url=URL, scopes=("scope-3",))))
    short, whole = (agent.answer(octets, multicast=False, stream=stream) for stream in (False, True))
    assert parse(short).flags == Flag.OVERFLOW
    assert "X" * 1500 in parse(whole).body.attributes


# --- what is asked ----------------------------------------------------------------------------


def asking(*, multicast=True, seconds=3.0):
    return Convergence(REQUEST, xid=7, now=0.0, seconds=seconds, retry=0.5, multicast=multicast)


def answer(body=None, xid=7):
    return emit(Message(xid=xid, body=body or SrvRply(urls=(AGENT.entry,))))


@pytest.mark.rfc("2608", "6.3")
def test_a_question_to_the_group_is_repeated_with_those_who_answered_until_nobody_new_does():
    question = asking()
    first = parse(question.poll(now=0.0))
    assert first.flags == Flag.REQUEST_MCAST
    assert question.poll(now=0.4) is None
    assert question.receive(answer(), "10.0.0.1") is not None
    assert question.receive(answer(), "10.0.0.1") is None, "the same again"
    again = parse(question.poll(now=0.5))
    assert again.xid == first.xid
    assert again.body.previous_responders == ("10.0.0.1",)
    assert question.timer == 1.5, "the wait doubles"
    assert question.receive(answer(), "10.0.0.2") is not None
    assert parse(question.poll(now=1.5)).body.previous_responders == ("10.0.0.1", "10.0.0.2")
    assert question.timer == 3.0
    assert question.poll(now=3.0) is None
    assert question.done
    assert [each.responder for each in question.replies] == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.rfc("2608", "6.3")
def test_it_is_over_when_a_repetition_brings_nobody_new():
    question = asking(seconds=60)
    question.poll(now=0.0)
    question.receive(answer(), "10.0.0.1")
    assert question.poll(now=0.5) is not None
    assert question.poll(now=1.5) is None
    assert question.done


@pytest.mark.rfc("2608", "6.3")
def test_nobody_answers_and_the_time_is_over():
    question = asking(seconds=4.0)
    sent = [moment / 10 for moment in range(60) if question.poll(now=moment / 10) is not None]
    assert sent == [0.0, 0.5, 1.5, 3.5]
    assert question.done
    assert question.timer is None


def test_it_is_over_when_those_who_answered_do_not_fit_into_a_datagram():
    question = asking(seconds=60)
    question.poll(now=0.0)
    for number in range(200):
        question.receive(answer(), f"10.0.{number}.1")
    assert question.poll(now=0.5) is None
    assert question.done


def test_one_agent_is_believed_once():
    question = asking(multicast=False)
    assert parse(question.poll(now=0.0)).flags == Flag.NONE
    question.receive(answer(), "10.0.0.1")
    assert question.done


@pytest.mark.parametrize(
    "octets", [b"", bytes(40), answer(xid=8), answer(AttrRply()), emit(Message(xid=7, body=REQUEST))]
)
def test_what_is_no_answer_to_the_question_counts_for_nothing(octets):
    question = asking()
    question.poll(now=0.0)
    assert question.receive(octets, "10.0.0.1") is None
    assert not question.replies


@pytest.mark.rfc("3105", "7")
def test_the_query_names_the_tunnel_types_that_the_host_can_use():
    assert predicate(tunnel_types=("IP-IP",)) == "(tunnel-type=IP-IP)"
    both = predicate(tunnel_types=("IP-IP", "GRE"), transport="UDP", ipsec=True)
    assert both == "(&(|(tunnel-type=IP-IP)(tunnel-type=GRE))(transport=UDP)(ipsec-support=true))"
    assert predicate() == ""


@pytest.mark.rfc("3105", "7")
def test_attributes_that_are_missing_have_the_defaults_of_the_template():
    assert Offer.of(()) == Offer(tunnel_types=("IP-IP",), transports=("TCP",), load=None)


@pytest.mark.rfc("3105", "7")
@pytest.mark.parametrize(("text", "load"), [("(load=0)", 0), ("(load=100)", 100), ("(load=101)", None), ("(load=-1)", None), ("(load=true)", None), ("load", None)])  # fmt: skip
def test_a_load_is_a_number_from_0_to_100(text, load):
    assert Offer.of(attribute.parse(text)).load == load


# --- the configuration ------------------------------------------------------------------------

GATEWAY = {
    "realm": [{"name": "in", "interface": "lan0"}, {"name": "out", "interface": "wan0"}],
    "gateway": {
        "near": "in",
        "realm": "out",
        "address": "10.0.0.1",
        "tunnels": ["ipip"],
        "transports": ["udp"],
        "pool": [{"address": "149.112.240.55", "ports": "10000-10999"}],
        "slp": {},
    },
}
HOST = {"realm": [{"name": "in", "interface": "eth0"}], "host": {"near": "in"}}


def held(ports):
    selector = Selector(realm=2, local=Prefix.parse("149.112.240.55"), kind=Kind.PORT, values=Ranges.parse(ports))
    tunnel = Tunnel(
        realm=1, local=Address.parse(HERE), remote=Address.parse("10.0.0.4"), kind=TunnelKind.IPIP, mtu=1480
    )
    binding = Binding(key=BindingKey(Owner(1, Address.parse("10.0.0.4")), 1), selectors=(selector,), crossing=tunnel)
    return Held(binding=binding, lease=Lease(client_id=1, method=Method.RSAP_IP, granted_at=0.0, expires_at=1.0))


@pytest.mark.rfc("3105", "6")
def test_the_load_is_the_leased_share_of_the_pool():
    section = parse_config(GATEWAY, "t").gateway
    assert leased_share(section, ()) == 0
    assert leased_share(section, [held("10000")]) == 1, "not idle"
    assert leased_share(section, [held("10000-10249"), held("10500-10749")]) == 50
    assert leased_share(section, [held("10000-10999")]) == 100


@pytest.mark.rfc("3105", "7")
def test_a_gateway_offers_what_its_configuration_says():
    assert offer(parse_config(GATEWAY, "t").gateway, ()) == Offer(tunnel_types=("IP-IP",), transports=("UDP",), load=0)


def test_a_gateway_without_slp_and_a_host_that_names_its_gateway():
    config = parse_config(GATEWAY | {"gateway": {k: v for k, v in GATEWAY["gateway"].items() if k != "slp"}}, "t")
    assert config.gateway.slp is None
    named = parse_config(HOST | {"host": {"near": "in", "gateway": "10.0.0.1"}}, "t")
    assert named.host.seeks is None


def test_a_host_that_names_no_gateway_looks_for_one():
    config = parse_config(HOST, "t")
    assert config.host.seeks == DiscoverSection()
    assert wanted(config.host) == "(&(|(tunnel-type=IP-IP)(tunnel-type=GRE))(transport=UDP))"
    found = finding.Found(address=Address.parse("10.0.0.2"), port=4455, way="slp", interface="eth0")
    taken = with_gateway(config, found)
    assert (str(taken.host.gateway), taken.host.port, taken.host.seeks) == ("10.0.0.2", 4455, None)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"gateway": "10.0.0.1", "discover": {}}, "host"),
        ({"discover": {"ways": []}}, "host.discover.ways"),
        ({"discover": {"ways": ["dns"]}}, "host.discover.ways[0]"),
        ({"discover": {"option": 43}}, "host.discover.option"),
        ({"discover": {"option": 255}}, "host.discover.option"),
        ({"discover": {"scopes": ["a,b"]}}, "host.discover.scopes[0]"),
        ({"discover": {"agents": ["2001:db8::1"]}}, "host.discover.agents[0]"),
        ({"discover": {"seconds": 0}}, "host.discover.seconds"),
    ],
)
def test_what_contradicts_itself_is_refused(changes, key):
    with pytest.raises(ConfigError) as caught:
        parse_config(HOST | {"host": {"near": "in"} | changes}, "t")
    assert caught.value.key == key


# --- hosts and gateways that come and go --------------------------------------------------------


class FakeHost:
    """A host of one gateway, whose gateway knows it or not."""

    def __init__(self, config, gone):
        self.at = str(config.host.gateway)
        self.gone = gone
        self.stopped = False

    async def start(self):
        pass

    async def run(self):
        await asyncio.Event().wait()

    def stop(self):
        self.stopped = True

    @property
    def is_registered(self):
        return self.at not in self.gone

    @property
    def handlers(self):
        async def where(_request, _connection):
            return self.at

        async def report(_request, _connection):
            return {"gateway": self.at, "registered": self.is_registered}

        return {"leases": where, "host": report}


@pytest.mark.rfc("3105", "4")
def test_a_gateway_whose_host_this_machine_cannot_be_is_not_the_end(monkeypatch):
    monkeypatch.setattr("isthmus.daemon.discovery.seeking_host.AGAIN_SECONDS", 0.01)
    monkeypatch.setattr("isthmus.daemon.discovery.seeking_host.near_interface", lambda name: name)

    async def find(near, _discover, *, predicate, port):
        assert (predicate, port) != ("", 0)
        return tuple(
            finding.Found(address=Address.parse(each), port=4555, way="dhcp", interface=near)
            for each in ("10.0.0.1", "10.0.0.2")
        )

    monkeypatch.setattr("isthmus.daemon.discovery.seeking_host.find_gateways", find)

    def make(each, _clock):
        if str(each.host.gateway) == "10.0.0.1":
            raise ConfigError("host", key="realm in", reason="interface 'eth0' has no IPv4 address")
        return FakeHost(each, set())

    async def scene():
        seeking = SeekingHost(parse_config(HOST | {"host": {"near": "in", "discover": {}}}, "t"), None, make)
        running = asyncio.ensure_future(seeking.run())
        async with asyncio.timeout(5):
            while not (await seeking.handlers["host"]({}, None))["registered"]:  # noqa: ASYNC110 - a fake tells nobody when it changes
                await asyncio.sleep(0.01)
        assert (await seeking.handlers["host"]({}, None))["gateway"] == "10.0.0.2"
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        seeking.stop()

    asyncio.run(scene())


@pytest.mark.rfc("3105", "4")
def test_a_host_takes_another_gateway_when_its_own_is_gone(monkeypatch):
    monkeypatch.setattr("isthmus.daemon.discovery.seeking_host.WATCH_SECONDS", 0.01)
    monkeypatch.setattr("isthmus.daemon.discovery.seeking_host.near_interface", lambda name: name)
    searches = []

    async def find(near, discover, *, predicate, port):
        searches.append((predicate, port))
        addresses = ("10.0.0.1", "10.0.0.2")
        return tuple(
            finding.Found(address=Address.parse(each), port=4555, way="slp", interface=near) for each in addresses
        )

    monkeypatch.setattr("isthmus.daemon.discovery.seeking_host.find_gateways", find)
    config = parse_config(HOST | {"host": {"near": "in", "discover": {"patience": 1}}}, "t")
    gone, hosts = set(), []

    def make(each, _clock):
        hosts.append(FakeHost(each, gone))
        return hosts[-1]

    async def scene():
        seeking = SeekingHost(config, None, make)
        seeking._discover = seeking._discover.model_copy(update={"patience": 0.05})
        await seeking.start()
        running = asyncio.ensure_future(seeking.run())
        with pytest.raises(ControlError, match="no gateway is found at present"):
            await seeking.handlers["leases"]({}, None)
        assert not (await seeking.handlers["host"]({}, None))["registered"]
        await asyncio.sleep(0.02)
        where = seeking.handlers["leases"]
        assert await where({}, None) == "10.0.0.1"
        gone.add("10.0.0.1")
        async with asyncio.timeout(5):
            while await where({}, None) != "10.0.0.2":  # noqa: ASYNC110 - a fake tells nobody when it changes
                await asyncio.sleep(0.01)
        assert hosts[0].stopped
        report = await seeking.handlers["host"]({}, None)
        assert (report["gateway"], report["way"]) == ("10.0.0.2", "slp")
        assert [each["address"] for each in report["found"]] == ["10.0.0.1", "10.0.0.2"]
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        seeking.stop()

    asyncio.run(scene())
    assert len(searches) == 2
    assert all(each.stopped for each in hosts)


# --- on real sockets ----------------------------------------------------------------------------

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace: needs root")


@pytest.fixture
def segment():
    """A namespace with one interface, which hears its own multicasts; gives ``run(coroutine function)``."""
    name = f"ist-t{secrets.token_hex(3)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    lines = ["link add eth0 type veth peer name eth0p", "address add 10.0.0.1/24 dev eth0", "link set eth0p up",
             "link set eth0 up", "link set lo up"]  # fmt: skip
    subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(lines), text=True, check=True)

    def run(scene):
        """Run it in a thread of the namespace."""
        failure = []

        def inside():
            try:
                netns.setns(f"/run/netns/{name}", flags=0)
                asyncio.run(scene(near_interface("eth0")))
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join(60)
        if failure:
            raise failure[0]

    try:
        yield run
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


QUESTION = Question(seconds=2.0, retry=0.1)


@contextlib.asynccontextmanager
async def serving(near, **options):
    agent = ServiceAgent(near, AGENT, **options)
    await agent.start()
    try:
        yield agent
    finally:
        agent.stop()


@needs_root
@pytest.mark.root
@pytest.mark.rfc("3105", "4")
def test_a_user_agent_finds_a_service_agent_by_multicast_and_by_unicast(segment):
    async def scene(near):
        async with serving(near):
            for question in (QUESTION, replace(QUESTION, predicate="(load<=20)")):
                (found,) = await find_services(near, question)
                assert (str(found.url), found.lifetime, found.responder) == (URL, 300, HERE)
                assert found.offer == AGENT.offer()
            assert await find_services(near, replace(QUESTION, scopes=("SOUTH",), seconds=0.5)) == ()
        assert await find_services(near, replace(QUESTION, seconds=0.3)) == (), "a service that is gone is not found"

    segment(scene)


@needs_root
@pytest.mark.root
@pytest.mark.rfc("3105", "6")
def test_of_several_gateways_the_least_loaded_stands_first(segment):
    """A directory agent names three servers; each is asked for its load."""
    loads = {"service:rsip://10.0.0.7:4455": 60, "service:rsip://10.0.0.8": 5, "service:rsip://10.0.0.9": None}
    asked = []

    async def scene(near):
        async with directory_agent(near) as (heard, serve):

            def answer(message):
                if isinstance(message.body, SrvRqst):
                    return SrvRply(urls=tuple(UrlEntry(url=url, lifetime=9) for url in loads))
                asked.append(message.body.url)
                load = loads[message.body.url]
                return AttrRply(attributes="" if load is None else f"(load={load})")

            serve(answer)
            found = await find_services(near, replace(QUESTION, agents=(near.address,), port=heard, seconds=0.5))
        assert [each.url.host for each in found] == ["10.0.0.8", "10.0.0.7", "10.0.0.9"]
        assert sorted(set(asked)) == sorted(loads)

    segment(scene)


@contextlib.asynccontextmanager
async def directory_agent(near, port=0):
    """A UDP socket in the place of a directory agent; gives its port and ``serve(answer)``."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind((str(near.address), port))
    opened.setblocking(False)
    loop = asyncio.get_running_loop()

    def serve(answer):
        def read():
            octets, peer = opened.recvfrom(65536)
            message = parse(octets)
            body = answer(message)
            if body is not None:
                opened.sendto(emit(Message(xid=message.xid, body=body)), peer)

        # What comes from 10.0.0.1 to itself passes the loopback; the agents' sockets are bound to eth0.
        loop.add_reader(opened, read)

    try:
        yield opened.getsockname()[1], serve
    finally:
        loop.remove_reader(opened)
        opened.close()


@needs_root
@pytest.mark.root
@pytest.mark.rfc("3105", "4")
def test_a_directory_agent_is_told_of_the_gateway_and_of_its_end(segment):
    there, port = "10.0.0.3", 4427
    told = []

    def answer(message):
        told.append(message)
        return SrvAck() if isinstance(message.body, SrvReg | SrvDeReg) else None

    async def until(holds):
        async with asyncio.timeout(5):
            while not holds():  # noqa: ASYNC110 - nor does a socket that somebody else reads
                await asyncio.sleep(0.02)

    async def scene(near):
        elsewhere = replace(near, address=Address.parse(there))
        async with directory_agent(elsewhere, port) as (_, serve):
            serve(answer)
            async with serving(near, directory_agents=(elsewhere.address,), port=port, refresh=0.2):
                await until(lambda: len(told) >= 2)
            await until(lambda: isinstance(told[-1].body, SrvDeReg))

    with_address(segment, there)
    segment(scene)
    assert told[0].flags == Flag.FRESH
    assert told[0].body == AGENT.registration
    assert told[0].body.attributes.endswith("(load=17)")
    assert isinstance(told[1].body, SrvReg), "again and again, because the load changes (RFC 3105 §6)"
    assert told[-1].body == AGENT.deregistration


def with_address(segment, address):
    """Give the segment's interface one more address."""

    async def scene(_near):
        process = await asyncio.create_subprocess_exec("ip", "address", "add", f"{address}/32", "dev", "eth0")
        assert await process.wait() == 0

    segment(scene)


@needs_root
@pytest.mark.root
@pytest.mark.rfc("3105", "4")
def test_a_directory_agent_that_advertises_itself_is_told_unless_its_scopes_are_others(segment):
    async def scene(near):
        async with serving(near) as agent:
            speaker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            speaker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, near.address.octets)

            async def say(host, scopes=("DEFAULT",), boot=5, error=0):
                body = DaAdvert(
                    url=f"service:directory-agent://{host}", scopes=scopes, boot_timestamp=boot, error=error
                )
                speaker.sendto(emit(Message(xid=0, body=body)), ("239.255.255.253", 427))
                await asyncio.sleep(0.1)

            await say("10.0.0.3", scopes=("SOUTH",))
            await say("10.0.0.3", error=4)
            await say("directory.example")
            assert agent.directory_agents == ()
            await say("10.0.0.3")
            assert agent.directory_agents == ("10.0.0.3",)
            await say("10.0.0.3", boot=0)
            assert agent.directory_agents == (), "it said that it goes down"
            for number in range(20):
                await say(f"10.0.0.{100 + number}")
            assert len(agent.directory_agents) == 8, "a flood of them is not listened to"
            await asyncio.sleep(1.0)
            before = len(agent._tasks)
            for number in range(20):
                await say("10.0.0.100", boot=6 + number)
            assert len(agent._tasks) <= before, "one that is started anew all the time is told as before"
            speaker.close()

    segment(scene)


@needs_root
@pytest.mark.root
@pytest.mark.rfc("2608", "6.2")
def test_requests_over_tcp_are_answered(segment):
    async def scene(near):
        async with serving(near):
            reader, writer = await asyncio.open_connection(HERE, 427)
            for number in (1, 2):
                writer.write(emit(Message(xid=number, body=REQUEST)))
                start = await reader.readexactly(5)
                reply = start + await reader.readexactly(int.from_bytes(start[2:], "big") - 5)
                assert parse(reply) == Message(xid=number, body=SrvRply(urls=(AGENT.entry,)))
            writer.write(b"\2\1\0\0\1")
            assert await reader.read() == b"", "a length that cannot be: the connection ends"
            writer.close()

    segment(scene)


@needs_root
@pytest.mark.root
def test_one_asker_gets_so_many_answers_a_second_and_no_more(segment):
    async def scene(near):
        async with serving(near):
            asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            asker.setblocking(False)
            for _ in range(200):
                asker.sendto(emit(Message(xid=7, body=REQUEST)), (HERE, 427))
            await asyncio.sleep(0.5)
            answered = 0
            with contextlib.suppress(BlockingIOError):
                while asker.recv(65536):
                    answered += 1
            assert 20 <= answered <= 40
            asker.close()

    segment(scene)


@needs_root
@pytest.mark.root
def test_a_port_that_is_taken_is_said(segment):
    async def scene(near):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((HERE, 427))
            with pytest.raises(Unsupported, match="port 427 of eth0"):
                ServiceAgent(near, AGENT)

    segment(scene)


def test_an_interface_that_does_not_exist_is_said():
    with pytest.raises(ConfigError, match="'nosuch0' does not exist"):
        near_interface("nosuch0")
