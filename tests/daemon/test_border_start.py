# SPDX-License-Identifier: BSD-3-Clause
"""What a border router has its plane begin with, and what it does where the plane refuses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from isthmus.address import Address, Prefix
from isthmus.border.effect import Bind, Remap
from isthmus.border.realm import Border, Foreign, Realm
from isthmus.border.verdict import Miss
from isthmus.daemon.alias_file import AliasFile
from isthmus.daemon.border import BorderRole
from isthmus.daemon.clock import Clock
from isthmus.daemon.config import load
from isthmus.daemon.waiting import Aliases, Lookups
from isthmus.errors import ConfigError, PlaneError
from isthmus.ipae.alias import AliasPool
from isthmus.plane.reference import ReferencePlane
from isthmus.wire.ipv4 import Ipv4Header, Ipv4View

SITE, SIP = 1, 2
PEER = Address.parse_sip("1.2.2.8/201.5.7.250")
FILE = """
[isthmus]
name = "r1"
run = "{run}"
[[realm]]
name = "lan"
interface = "lo"
site = "1.213.77.5"
[border]
address = "1.213.77.5/127.0.0.1"
[[border.route]]
to = "default"
via = {{ native = "lan" }}
[border.mapping]
file = "{run}/map"
"""


class Recording:
    """A reference plane without ports, which says what it was told and may refuse."""

    kind = "reference"

    def __init__(self, border):
        self.reference = ReferencePlane(border)
        self.begun = ()
        self.applied = []
        self.refuses = False
        self.again = 0
        self.emitted = []

    def port_name(self, realm):
        return f"port{realm}"

    def reconcile(self, standing):
        self.begun = tuple(standing)
        self.reference.apply(self.begun)

    def start(self, tell, ask=None):
        self.ask = ask

    def apply(self, effects):
        if self.refuses:
            raise PlaneError("no room")
        effects = tuple(effects)
        self.applied += effects
        self.reference.apply(effects)

    def process_again(self, miss):
        self.again += 1
        assert self.again < 10, "the packet goes round without end"

    def emit(self, realm, packet):
        self.emitted.append((realm, packet))

    def destroy(self):
        pass


def role(tmp_path: Path):
    (tmp_path / "map").write_text("201.5.7.0/24 c1.2.2.8\n")
    path = tmp_path / "r1.toml"
    path.write_text(FILE.format(run=tmp_path))
    made = []

    def planes(_config, border, _clock):
        made.append(Recording(border))
        return made[0]

    return BorderRole(load(path), Clock(tmp_path / "clock"), planes=planes), made[0]


@pytest.mark.rfc("ipae", "5.1")
def test_the_plane_begins_with_the_mapping_so_that_a_restart_leaves_no_gap(tmp_path):
    """A plane that is taken over has it already; told of it later, it would be without for a while."""

    async def script():
        border, plane = role(tmp_path)
        asked = asyncio.ensure_future(border.handlers["mappings"]({}, None))
        await asyncio.sleep(0)
        assert not asked.done()
        await border.start()
        (remap,) = [each for each in plane.begun if isinstance(each, Remap)]
        assert remap.mapping.lookup(Address.parse("201.5.7.250")) == Prefix.parse_sip("c1.2.2.8/32")
        assert not plane.applied
        assert [row["entries"] for row in await asked] == [1]
        (tmp_path / "map").write_text("201.5.7.0/24 c1.2.2.8\n201.5.8.0/24 c1.2.2.8\n")
        await border.handlers["remap"]({}, None)
        assert [len(each.mapping) for each in plane.applied] == [2]
        border.stop()

    asyncio.run(script())


def test_an_alias_that_the_plane_has_no_room_for_rests_and_its_packet_is_dropped(tmp_path, capsys):
    async def script():
        plane = Recording(Border(realms=(Realm(number=SITE, name="site", foreign=Foreign.ASK),), tunnel_ends=()))
        pool = AliasPool(realm=SITE, sip=SIP, pools=(Prefix.parse("100.64.0.0/16"),))
        aliases = Aliases({SITE: pool}, plane, Clock(tmp_path / "clock"), AliasFile(tmp_path / "aliases"))
        miss = Miss(realm=SITE, address=PEER, arrived=SIP, link=None, packet=b"")
        plane.refuses = True
        for _ in range(3):
            aliases.miss(miss)
        assert (len(pool), plane.again) == (0, 0)
        plane.refuses = False
        aliases.miss(miss)
        assert isinstance(plane.applied[0], Bind)
        assert (len(pool), plane.again) == (1, 1)
        aliases.stop()

    asyncio.run(script())


def test_aliases_outlive_the_daemon(tmp_path):
    """Connections that go by them go on, and nobody is led to a stranger."""
    others = [Address.of_halves(0x01020300 + number, PEER.low) for number in range(3)]

    def start():
        plane = Recording(Border(realms=(Realm(number=SITE, name="site", foreign=Foreign.ASK),), tunnel_ends=()))
        pool = AliasPool(realm=SITE, sip=SIP, pools=(Prefix.parse("100.64.0.0/14"),))
        return plane, Aliases({SITE: pool}, plane, Clock(tmp_path / "clock"), AliasFile(tmp_path / "aliases"))

    async def script():
        plane, aliases = start()
        for peer in (PEER, others[0]):
            aliases.miss(Miss(realm=SITE, address=peer, arrived=SIP, link=None, packet=b""))
        had = list(aliases.pools[SITE].leased())
        assert len(had) == 2
        aliases.stop()
        with (tmp_path / "aliases").open("a") as file:
            file.write("1 10.9.9.9 1.2.2.8/1.2.3.4 9999999999\nnonsense\n7 100.64.1.1 1.2.2.8/1.2.3.4 9999999999\n")
        plane, aliases = start()
        bound = aliases.restore()
        assert [(each.binding.address, each.lease.expires_at) for each in bound] == [
            (alias, pytest.approx(until, abs=0.01)) for alias, _, until in had
        ]
        plane.reconcile(bound)
        aliases.miss(Miss(realm=SITE, address=others[1], arrived=SIP, link=None, packet=b""))
        assert plane.applied[0].binding.address not in [alias for alias, _, _ in had]
        aliases.stop()

    asyncio.run(script())


def ipv4(source, *, protocol=17, offset=0, payload=bytes(8)):
    header = Ipv4Header(
        total_length=20 + len(payload),
        protocol=protocol,
        fragment_offset=offset,
        src=Address.parse(source),
        dst=Address.parse("203.0.113.9"),
    )
    return header.emit() + payload


@pytest.mark.rfc("1812", "4.3.2.7")
def test_what_is_not_to_be_found_is_said_about_what_may_be_answered_and_not_too_often(tmp_path):
    """Nothing about errors and later fragments, to no host that cannot be one, and ten a second to each."""
    plane = Recording(Border(realms=(), tunnel_ends=()))
    lookups = Lookups(plane, {SITE: Address.parse("192.3.4.2")}, Clock(tmp_path / "clock"))
    for packet in (
        ipv4("192.3.4.1", offset=8),
        ipv4("192.3.4.1", protocol=1, payload=bytes((3, 1)) + bytes(6)),
        ipv4("224.0.0.5"),
        ipv4("127.0.0.1"),
    ):
        lookups.refuse(SITE, packet)
    assert not plane.emitted
    for _ in range(30):
        lookups.refuse(SITE, ipv4("192.3.4.1"))
    assert 10 <= len(plane.emitted) < 20
    lookups.refuse(SITE, ipv4("192.3.4.7"))
    answer = Ipv4View.parse(plane.emitted[-1][1])
    assert (str(answer.src), str(answer.dst)) == ("192.3.4.2", "192.3.4.7")
    assert bytes(answer.payload[:2]) == bytes((3, 1))


def test_aliases_are_nobodys_addresses_here(tmp_path):
    """Packets for a host of ours would go to a stranger."""
    path = tmp_path / "r1.toml"
    path.write_text(FILE.format(run=tmp_path) + '[border.alias]\npools = ["127.0.0.0/16"]\n')
    with pytest.raises(ConfigError, match=r"border\.alias\.pools\[0\]: 127\.0\.0\.0/16 and our own network"):
        BorderRole(load(path), Clock(tmp_path / "clock"), planes=lambda *_: pytest.fail("too late"))
