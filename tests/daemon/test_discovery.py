# SPDX-License-Identifier: BSD-3-Clause
"""Discovery as it is configured, and hosts and gateways that come and go."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from daemon.advertised import HERE
from isthmus.address import Address, Prefix
from isthmus.border.binding import Binding, BindingKey, Lease, Owner
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.ranges import Ranges
from isthmus.border.selector import Kind, Selector
from isthmus.daemon.config import parse as parse_config
from isthmus.daemon.config.discovery import DiscoverSection
from isthmus.daemon.control import ControlError
from isthmus.daemon.discovery import finding
from isthmus.daemon.discovery.announcer import offer
from isthmus.daemon.discovery.load import leased_share
from isthmus.daemon.discovery.seeking_host import SeekingHost, wanted, with_gateway
from isthmus.daemon.discovery.template import Offer
from isthmus.errors import ConfigError
from isthmus.store import Held
from isthmus.wire.rsip.codes import Method

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
    assert offer(parse_config(GATEWAY, "t").gateway, 0) == Offer(tunnel_types=("IP-IP",), transports=("UDP",), load=0)


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
