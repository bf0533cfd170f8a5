# SPDX-License-Identifier: BSD-3-Clause
"""SIP routes read from a table of the kernel, in a namespace with real IPv6 routes (``ip -6 route``)."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import threading

import pytest
from pyroute2 import netns

from isthmus.address import Address, Prefix
from isthmus.border.crossing import Encapsulation, Native
from isthmus.border.table import BindingTable
from isthmus.daemon import config as configuration
from isthmus.daemon import sip_routes
from isthmus.daemon.clock import Clock
from isthmus.daemon.kernel_routes import KernelRoutes
from isthmus.daemon.sip_routes import SipRoutes
from isthmus.daemon.sip_terms import Surroundings, border_router
from isthmus.errors import ConfigError, PlaneError
from isthmus.ipae.routing import Hop

TABLE = 4641
PF = "fd49:5041:4500:6d74"
WITH_ROOT = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace: needs root"),
]
LINKS = """\
link add lan0 type veth peer name lan0p
link add wan0 type veth peer name wan0p
address add 192.3.4.2/24 dev lan0
address add 128.1.1.1/24 dev wan0
address add fe80::128.1.1.1/64 dev wan0 nodad
link set lan0p up
link set wan0p up
link set lan0 up
link set wan0 up
"""


class Space:
    """A namespace with two links."""

    def __init__(self):
        self.name = f"ist-t{secrets.token_hex(3)}"

    def ip(self, lines):
        words = ["ip", "-n", self.name, "-batch", "-"]
        subprocess.run(words, input=lines + "\n", text=True, check=True, capture_output=True, timeout=20)

    def route(self, *lines, table=TABLE):
        told = (line.partition(" ") for line in lines)
        self.ip("\n".join(f"route {verb} table {table} {what}" for verb, _, what in told))

    def run(self, scene):
        """Run a function, or a coroutine function, in a thread of the namespace."""
        failure = []

        def inside():
            try:
                netns.setns(f"/run/netns/{self.name}", flags=0)
                ended = scene()
                if asyncio.iscoroutine(ended):
                    asyncio.run(ended)
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join(60)
        if failure:
            raise failure[0]


@pytest.fixture
def space():
    made = Space()
    subprocess.run(["ip", "netns", "add", made.name], check=True)
    try:
        made.ip(LINKS)
        yield made
    finally:
        subprocess.run(["ip", "netns", "delete", made.name], check=False)


# --- the table ------------------------------------------------------------------------------------


def read_anew():
    table = KernelRoutes(TABLE)
    try:
        table.read_whole()
        return content(table)
    finally:
        table.close()


def content(table):
    return sorted(
        (str(each.to), each.metric, each.protocol, sorted((h.interface, str(h.gateway), h.down) for h in each.hops))
        for each in table.routes
    )


def via(last, dev="wan0"):
    return f"via fe80::128.1.1.{last} dev {dev} proto bird"


STEPS = [
    [f"add {PF}:102:208::/96 {via(2)}"],
    [f"append {PF}:102:208::/96 {via(3)}"],
    [f"append {PF}:102:208::/96 {via(4)}"],
    [f"del {PF}:102:208::/96 {via(3)}"],
    [f"add {PF}:102:208::/96 {via(5)} metric 7", f"add {PF}::/64 {via(2)}", "add ::/0 via fe80::128.1.1.2 dev wan0"],
    [f"replace {PF}::/64 {via(9)}"],
    [f"add blackhole {PF}:103::/96 proto bird", f"add unreachable {PF}:104::/96", f"add {PF}:105::/96 dev wan0"],
    [f"add {PF}:106::/96 proto static nexthop via fe80::128.1.1.6 dev wan0 nexthop via fe80::128.1.1.7 dev wan0"],
    [f"del {PF}:106::/96", f"del {PF}:102:208::/96 metric 7"],
    [f"del {PF}:102:208::/96 {via(2)}", f"del blackhole {PF}:103::/96"],
]


class TestTable:
    pytestmark = WITH_ROOT

    def test_what_is_told_of_comes_to_what_is_there(self, space):
        """After every step the table that was followed is the one that is read whole."""

        def scene():
            table = KernelRoutes(TABLE)
            table.read_whole()
            assert table.routes == (), "a table that is not there is empty"
            for step in STEPS:
                space.route(*step)
                space.route(f"add {PF}:777::/{96 + STEPS.index(step)} {via(2)}", table=4642)
                assert table.read_news()
                assert content(table) == read_anew(), step
            assert len(table.routes) == 5
            assert table.overruns == 0
            table.close()

        space.run(scene)

    def test_a_table_of_others_is_no_news(self, space):
        def scene():
            table = KernelRoutes(TABLE)
            table.read_whole()
            table.read_news()
            space.route(f"add {PF}:102:208::/96 {via(2)}", table=4642)
            space.ip("route add 2001:db8::/32 dev wan0")
            assert not table.read_news()
            assert table.routes == ()
            table.close()

        space.run(scene)

    def test_what_came_too_quickly_is_read_whole(self, space):
        def scene():
            table = KernelRoutes(TABLE)
            table._news.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            table.read_whole()
            space.route(*(f"add {PF}:102:{n:x}::/96 {via(2)}" for n in range(200)))
            space.route(*(f"del {PF}:102:{n:x}::/96" for n in range(100)))
            while table.read_news():
                pass
            assert table.overruns > 0
            assert len(table.routes) == 100
            assert content(table) == read_anew()
            table.close()

        space.run(scene)

    def test_a_link_that_does_not_carry_is_noticed_with_its_routes(self, space):
        def scene():
            index = socket.if_nametoindex("wan0")
            gateway = Address.parse("fe80::128.1.1.2")
            space.route(f"add {PF}:102:208::/96 {via(2)}")
            table = KernelRoutes(TABLE)
            table.read_whole()
            assert table.routes[0].hops == (Hop(index, gateway),)
            space.ip("link set wan0p down")
            assert eventually(lambda: table.read_news() and table.routes[0].hops == (Hop(index, gateway, down=True),))
            space.ip("link set wan0p up")
            assert eventually(lambda: table.read_news() and table.routes[0].hops == (Hop(index, gateway),))
            space.ip("link set wan0 down")
            assert eventually(lambda: table.read_news() and table.routes == ())
            table.close()

        space.run(scene)


def eventually(holds):
    for _ in range(500):
        if holds():
            return True
        threading.Event().wait(0.01)
    return False


# --- the routes -----------------------------------------------------------------------------------

FILE = {
    "realm": [
        {"name": "site", "interface": "lan0", "site": "1.213.77.5"},
        {"name": "wan", "interface": "wan0"},
    ],
    "border": {
        "route": [{"to": "1.9.", "via": {"native": "wan", "neighbour": "128.1.1.77"}}],
        "learn": {},
    },
}


def parsed(**learn):
    return configuration.parse({**FILE, "border": {**FILE["border"], "learn": learn}}, "test.toml")


class Plane:
    """The table of a plane, and how often it was told something."""

    def __init__(self, standing=()):
        self.table = BindingTable()
        self.batches = []
        self.refuses = 0
        self.take(standing)

    def take(self, effects):
        for effect in effects:
            self.table.apply(effect)

    def apply(self, effects):
        effects = tuple(effects)
        if self.refuses:
            self.refuses -= 1
            self.take(effects[:1])
            raise PlaneError("no room")
        if effects:
            self.batches.append(effects)
            self.take(effects)

    @property
    def routes(self):
        return {str(each.binding.selectors[0].local): each.binding.crossing for each in self.table}

    async def has(self, *prefixes):
        await self.becomes(lambda: sorted(self.routes) == sorted(prefixes))

    async def becomes(self, holds):
        for _ in range(500):
            if holds():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"it stays {self.routes}")


def learner(config):
    around = Surroundings.of(config)
    routes = border_router(config, around).routes
    return SipRoutes(config.border.learn, config, around, routes, Clock())


class TestRoutes:
    pytestmark = WITH_ROOT

    @pytest.mark.rfc("ipae", "4.4")
    def test_routes_of_the_table_are_bound_while_they_are_there(self, space):
        async def scene():
            space.route(f"add {PF}:102:208::/96 {via(2)}")
            routes = learner(parsed())
            plane = Plane(routes.read())
            first = Native(realm=2, neighbour=Address.parse("128.1.1.2"))
            assert plane.routes == {"1.2.2.8/32": first, "c1.2.2.8/32": first}
            routes.start(plane)
            space.route(f"add {PF}:103::/80 {via(3)}")
            await plane.has("1.2.2.8/32", "c1.2.2.8/32", "1.3.0.0/16", "c1.3.0.0/16")
            space.route(f"del {PF}:102:208::/96")
            await plane.has("1.3.0.0/16", "c1.3.0.0/16")
            assert routes.describe() == {"routes": 2, "refused": {}, "changes": 4, "overruns": 0}
            assert all(routes.owns(each.binding) for each in plane.table)
            routes.stop()

        space.run(scene)

    def test_a_route_that_is_taken_away_and_put_back_another_way_is_one_change(self, space):
        """As BIRD replaces routes of IPv6; packets in between go the old way."""

        async def scene():
            space.route(f"add {PF}:102:208::/96 {via(2)}")
            routes = learner(parsed())
            plane = Plane(routes.read())
            routes.start(plane)
            space.route(f"del {PF}:102:208::/96", f"add {PF}:102:208::/96 {via(3)}")
            await plane.becomes(lambda: plane.routes["1.2.2.8/32"].neighbour == Address.parse("128.1.1.3"))
            assert len(plane.batches) == 1
            assert [type(each).__name__ for each in plane.batches[0]] == ["Bind", "Bind"]
            routes.stop()

        space.run(scene)

    def test_what_the_plane_refuses_is_tried_again(self, space, monkeypatch, capsys):
        monkeypatch.setattr(sip_routes, "AGAIN_SECONDS", 0.02)

        async def scene():
            routes = learner(parsed())
            plane = Plane(routes.read())
            plane.refuses = 3
            routes.start(plane)
            space.route(f"add {PF}:102:208::/96 {via(2)}")
            await plane.has("1.2.2.8/32", "c1.2.2.8/32")
            space.route(f"del {PF}:102:208::/96")
            await plane.has()
            assert routes.describe()["routes"] == 0
            routes.stop()

        space.run(scene)
        said = capsys.readouterr()
        assert (said.out + said.err).count("ROUTES_FAILED") == 1

    def test_what_is_configured_comes_before_what_is_learned(self, space):
        async def scene():
            space.route(f"add {PF}:109::/80 {via(3)}", f"add {PF}:8109::/80 {via(4)}")
            routes = learner(parsed())
            assert routes.read() == ()
            assert routes.describe()["refused"] == {"configured": 2}
            routes.stop()

        space.run(scene)

    def test_our_own_site_is_not_learned_and_the_log_says_so(self, space, capsys):
        """Spec 9.4."""

        async def scene():
            space.route(f"add {PF}:1d5:4d05:a00::/104 {via(3)}", f"add {PF}:7f00::/72 {via(3)}")
            routes = learner(parsed())
            assert routes.read() == ()
            assert routes.describe()["refused"] == {"reserved": 1, "own-site": 1}
            routes.stop()

        space.run(scene)
        said = capsys.readouterr()
        assert "ROUTES_REFUSED" in said.out + said.err
        assert "own-site" in said.out + said.err

    def test_only_whom_the_file_names_is_learned_from(self, space):
        async def scene():
            space.route(f"add {PF}:102:208::/96 {via(2)}", f"add {PF}:103::/80 via fe80::128.1.1.3 dev wan0")
            for protocols, found in ((["bird"], 2), (["boot"], 2), ([3, 12], 4), (["zebra", 77], 0)):
                routes = learner(parsed(protocols=protocols))
                assert len(routes.read()) == found
                routes.stop()

        space.run(scene)

    def test_through_a_realm_that_is_named_routes_are_ipae_and_its_addresses_tunnel_ends(self, space):
        async def scene():
            space.route(f"add {PF}:102:208::/96 {via(2)}")
            config = parsed(ipae=["wan"])
            border = border_router(config, Surroundings.of(config)).border
            ours = Address.parse("128.1.1.1")
            assert [(each.realm, each.address) for each in border.tunnel_ends] == [(2, ours)]
            routes = learner(config)
            plane = Plane(routes.read())
            assert plane.routes["1.2.2.8/32"] == Encapsulation(
                realm=2, local=ours, remote=Address.parse("128.1.1.2"), mtu=1480
            )
            routes.stop()

        space.run(scene)

    def test_an_interface_that_comes_back_under_another_number_is_the_same_realm(self, space):
        async def scene():
            routes = learner(parsed())
            plane = Plane(routes.read())
            routes.start(plane)
            space.route(f"add {PF}:102:208::/96 {via(2)}")
            await plane.has("1.2.2.8/32", "c1.2.2.8/32")
            space.ip("link del wan0")
            await plane.has()
            space.ip("link add wan0 type veth peer name wan0p\nlink set wan0p up\nlink set wan0 up")
            space.route(f"add {PF}:102:208::/96 {via(2)}")
            await plane.has("1.2.2.8/32", "c1.2.2.8/32")
            routes.stop()

        space.run(scene)


# --- the file -------------------------------------------------------------------------------------


def test_a_file_need_not_say_more_than_that_routes_are_learned():
    learn = parsed().border.learn
    assert (learn.table, learn.most) == (TABLE, 10_000)
    assert learn.full == Prefix.parse(f"{PF}::/64")
    assert 12 in learn.protocols
    assert 3 not in learn.protocols


@pytest.mark.parametrize(
    ("learn", "key", "words"),
    [
        ({"table": 254}, "border.learn.table", "the kernel routes IPv6 by"),
        ({"table": 0}, "border.learn.table", "greater than or equal to 1"),
        ({"protocols": ["birds"]}, "border.learn.protocols[0]", "none of boot, static"),
        ({"protocols": []}, "border.learn.protocols", "at least 1"),
        ({"protocols": [300]}, "border.learn.protocols[0]", "less than or equal to 255"),
        ({"prefix": f"{PF}::/80"}, "border.learn.prefix", "has no 64 bits"),
        ({"ipae": ["internet"]}, "border.learn.ipae[0]", "is no [[realm]]"),
        ({"tables": 1}, "border.learn.tables", "is not a key"),
    ],
)
def test_what_is_wrong_is_named(learn, key, words):
    with pytest.raises(ConfigError) as caught:
        parsed(**learn)
    assert caught.value.key == key
    assert words in caught.value.reason
