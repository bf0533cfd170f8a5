# SPDX-License-Identifier: BSD-3-Clause
"""What the maps should hold, and in which order it changes; no kernel is needed."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner
from isthmus.border.crossing import Tunnel
from isthmus.border.effect import Bind, Deregister, Ending, Extend, Register, Unbind
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, End, Realm
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.errors import PlaneError
from isthmus.plane import Programmable
from isthmus.plane.kernel.btf import Types
from isthmus.plane.kernel.image import Change, Image
from isthmus.plane.kernel.index import blocks
from isthmus.plane.kernel.maps import NOWHERE, Codec
from isthmus.plane.kernel.number import TEMPLATES, Numbers, Slots
from isthmus.plane.kernel.owners import Owners
from plane.test_equivalence import PUBLIC, scenes

OBJECT = Path(__file__).parents[2] / "src/isthmus/plane/kernel/objects/border_tc.bpf.o"
pytestmark = pytest.mark.skipif(not OBJECT.exists(), reason="needs the objects: make -C bpf")

OWNER = Owner(1, Address.parse("10.0.0.4"))
SHARED = Prefix.parse("192.0.2.55/32")
CLAIMED, CONTACTED, SPLIT, DIRECT = 1, 2, 4, 8
IPV6, COOKIES, HOLDER = 2, 4, 255
PORT, SLICE, ASK = 16, 32, 64
NOW = 1_800_000_000.0


def codec() -> Codec:
    return Codec(Types.of_object(OBJECT.read_bytes()), boot_offset=NOW - 1000)


def image(border: Border, known: Image | None = None, *, addresses: int = 8, endpoints: int = 32) -> Image:
    """An image that gives the numbers that another has given."""
    pack = codec()
    slots = numbers = templates = owners = None
    if known is not None:
        shown = {place: pack.first_slice(value) for place, value in known.tables["addresses"].items()}
        slots = {place: first for place, first in shown.items() if first is not None}
        shown_ends = [(int.from_bytes(key, "little"), value) for key, value in known.tables["endpoints"].items()]
        numbers = {pack.plain(value): number for number, value in shown_ends if number > TEMPLATES}
        templates = {value: number for number, value in shown_ends if number <= TEMPLATES}
        tags = ((place, pack.tag(value)) for place, value in known.wanted("owners").items())
        owners = [(place, tag) for place, tag in tags if tag < 1 << 32]
    shift = border.slice_size.bit_length() - 1
    return Image(
        border,
        pack,
        slots=Slots(shift, addresses, slots),
        numbers=Numbers(TEMPLATES + endpoints, numbers),
        templates=Numbers(TEMPLATES + 1, templates, first=1),
        owners=Owners(owners or ()),
        device=lambda name: {"dev0": 5}.get(name, NOWHERE),
        mapping=lambda realm, _mapping: realm,
    )


def bind(
    values: Ranges | None,
    *,
    bind_id: int = 1,
    remote: Remote | None = None,
    expires_at: float = NOW + 10,
    local: Prefix = SHARED,
    kind: Kind = Kind.PORT,
    near: str = "10.0.0.1",
    device: str | None = None,
) -> Bind:
    whole = values is None
    selector = Selector(
        realm=PUBLIC, local=local, kind=None if whole else kind, values=values or Ranges(()), remote=remote or Remote()
    )
    tunnel = Tunnel(
        realm=1, local=Address.parse(near), remote=OWNER.address if "." in near else Address.parse("fd00::4")
    )
    binding = Binding(key=BindingKey(OWNER, bind_id), selectors=(selector,), crossing=tunnel, device=device)
    lease = Lease(client_id=1, method=Method.RSAP_IP, granted_at=NOW, expires_at=expires_at)
    return Bind(binding=binding, lease=lease)


def simple(*claims: Selector, slice_size: int = 64) -> Border:
    realms = (Realm(number=1, name="private"), Realm(number=PUBLIC, name="public"))
    return Border(realms=realms, claims=claims, slice_size=slice_size)


def claim(first: int, last: int) -> Selector:
    return Selector(realm=PUBLIC, local=SHARED, kind=Kind.PORT, values=Ranges.of((first, last)))


def word(of: Image, number: int) -> tuple[int, int, int]:
    """Deadline, endpoint (how many after the templates), flags."""
    found = of.words[number]
    return found >> 32, after_templates(found >> 8 & 0xFFFFFF), found & 0xFF


def after_templates(number: int) -> int:
    return number - TEMPLATES if number else 0


def standing(effects: list[Programmable]) -> list[Programmable]:
    """What a store would hand to the next process: no more than what stands at the end."""
    registered: dict[Owner, Programmable] = {}
    bound: dict[BindingKey, Bind] = {}
    for effect in effects:
        match effect:
            case Register():
                registered[effect.registration.owner] = effect
            case Deregister():
                registered.pop(effect.owner, None)
            case Bind():
                bound[effect.binding.key] = effect
            case Extend() if effect.key in bound:
                before = bound[effect.key]
                bound[effect.key] = replace(before, lease=replace(before.lease, expires_at=effect.expires_at))
            case Unbind():
                bound.pop(effect.key, None)
            case _:
                pass
    return [*registered.values(), *bound.values()]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(scene=scenes())
def test_step_by_step_and_all_at_once_end_in_the_same_maps(scene: tuple[Border, list[Programmable]]) -> None:
    border, effects = scene
    stepwise = image(border)
    for effect in effects:
        stepwise.apply(effect)
    again = image(border, stepwise)
    for effect in standing(effects):
        again.apply(effect)
    again.settle()
    fresh, worn = ({table: dict(each.wanted(table)) for table in each.tables} for each in (again, stepwise))
    for key, value in fresh.pop("meant").items():
        # Bits are not cleared step by step: one too many costs time only.
        kept = worn["meant"][key]
        assert all(one & other == one for one, other in zip(value, kept, strict=True))
    worn.pop("meant")
    assert fresh == worn
    assert again.words == stepwise.words


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(scene=scenes())
def test_unbinding_everything_leaves_the_claims(scene: tuple[Border, list[Programmable]]) -> None:
    border, effects = scene
    used = image(border)
    for effect in effects:
        used.apply(effect)
    for binding in list(used.bindings()):
        used.apply(Unbind(key=binding.key, ending=Ending.FREED))
    fresh = image(border)
    for table in ("by_demux", "by_spi", "by_prefix", "endpoints", "holdings", "wide_holdings"):
        assert used.wanted(table) == fresh.wanted(table)
    assert used.tables["addresses"].keys() == fresh.tables["addresses"].keys()
    assert sum(used.words) == sum(fresh.words)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(scene=scenes())
def test_no_packet_ever_finds_an_endpoint_that_is_not_written(scene: tuple[Border, list[Programmable]]) -> None:
    border, effects = scene
    made = image(border)
    tables: dict[str, dict[bytes, bytes]] = {}
    for change in _steps(made, effects):
        table, key, value = change
        held = tables.setdefault(table, {})
        if value is None:
            del held[key]
        else:
            held[key] = value
        # What could be found before is written still, unless an endpoint has gone.
        gone = table == "endpoints" and value is None
        looked = tables if gone else {table: {} if value is None else {key: value}}
        assert _endpoints(looked) <= {0} | {int.from_bytes(each, "little") for each in tables.get("endpoints", {})}


def _steps(made: Image, effects: list[Programmable]) -> list[Change]:
    steps = made.changes()
    for effect in effects:
        made.apply(effect)
        steps += made.changes()
    return steps


def _endpoints(tables: dict[str, dict[bytes, bytes]]) -> set[int]:
    found = {
        struct.unpack_from("=I", value)[0]
        for name in ("by_demux", "by_spi", "by_prefix")
        for value in tables.get(name, {}).values()
    }
    words = [struct.unpack("=Q", value)[0] for value in tables.get("slices", {}).values()]
    return found | {1 + (each >> 4 & 15) if each & DIRECT else each >> 8 & 0xFFFFFF for each in words}


def test_a_whole_slice_is_one_word_and_no_entry() -> None:
    made = image(simple(claim(0, 1023)))
    made.apply(bind(Ranges.of((64, 127)), remote=Remote(admit=Admit.CONTACTED)))
    assert word(made, 1) == (1010, 1, CLAIMED | CONTACTED)
    assert word(made, 0) == word(made, 2) == (0, 0, CLAIMED)
    assert word(made, 16) == (0, 0, 0)
    assert made.tables["by_demux"] == {}


@pytest.mark.parametrize("remote", [Remote(port=80), Remote(network=Prefix.parse("198.51.100.0/24"))])
def test_a_limit_on_the_peer_splits_a_slice(remote: Remote) -> None:
    made = image(simple(claim(0, 1023)))
    made.apply(bind(Ranges.of((64, 127)), remote=remote))
    assert word(made, 1) == (0, 0, CLAIMED | SPLIT)
    assert len(made.tables["by_demux"]) == 64


def test_a_slice_that_is_claimed_in_part_names_its_claimed_ports() -> None:
    made = image(simple(claim(60, 70)))
    assert word(made, 0) == word(made, 1) == (0, 0, SPLIT)
    assert len(made.tables["by_demux"]) == 11
    made.apply(bind(Ranges.of((64, 127))))
    assert word(made, 1) == (1010, 1, 0)
    assert len(made.tables["by_demux"]) == 4


def test_part_of_a_second_is_not_taken_from_a_lease() -> None:
    pack = codec()
    assert [pack.deadline(NOW + more) for more in (0, 0.1, 1, -5000)] == [1000, 1001, 1001, 0]
    assert pack.deadline(FOREVER) == 0xFFFFFFFF
    assert pack.deadline(1e12) == 0xFFFFFFFE


def test_extending_moves_the_deadline_in_one_write() -> None:
    made = image(simple(claim(0, 1023)))
    made.apply(bind(Ranges.of((64, 127))))
    made.changes()
    made.apply(Extend(key=BindingKey(OWNER, 1), expires_at=NOW + 20))
    (change,) = made.changes()
    assert change[0] == "slices"
    assert word(made, 1) == (1020, 1, CLAIMED)


def test_rebinding_never_takes_away_what_stays() -> None:
    made = image(simple(claim(0, 1023)))
    made.apply(bind(Ranges.of((64, 191))))
    made.changes()
    made.apply(bind(Ranges.of((64, 127)), near="10.0.0.2"))
    words = [struct.unpack("=Q", value or b"")[0] for table, _key, value in made.changes() if table == "slices"]
    assert [after_templates(each >> 8 & 0xFFFFFF) for each in words] == [0, 2], (
        "one write for each: the slice that stays goes from one endpoint to the other"
    )


def test_addresses_beyond_the_slices_are_kept_port_by_port() -> None:
    made = image(simple(), addresses=1)
    made.apply(bind(Ranges.of((64, 127))))
    made.apply(bind(Ranges.of((64, 127)), bind_id=2, local=Prefix.parse("192.0.2.56/32")))
    assert len(made.tables["by_demux"]) == 64
    made.apply(Unbind(key=BindingKey(OWNER, 1), ending=Ending.FREED))
    made.apply(bind(Ranges.of((64, 127)), bind_id=3, local=Prefix.parse("192.0.2.57/32")))
    assert len(made.tables["by_demux"]) == 64, "the slices of an address that is no more are used again"


def test_endpoints_run_out_with_a_word_and_nothing_changed() -> None:
    made = image(simple(claim(0, 1023)), endpoints=2)
    made.apply(bind(Ranges.of((64, 127))))
    made.changes()
    with pytest.raises(PlaneError, match="endpoints"):
        made.apply(bind(Ranges.of((128, 191)), bind_id=2, near="10.0.0.9"))
    assert made.changes() == []


def test_a_number_is_used_again_last() -> None:
    numbers = Numbers(4, first=1)
    assert numbers.take(b"a") == 1
    assert numbers.give(b"a") == 1
    assert [numbers.take(each) for each in (b"b", b"c", b"d")] == [2, 3, 1]


def test_the_tag_of_an_owner_is_computed_and_beyond_many_networks_numbered() -> None:
    owners = Owners()
    assert owners.hold(OWNER, b"four") == 1 << 32 | OWNER.address.number
    first, second = (Owner(1, Address.parse(text)) for text in ("fd00::1", "fd00::ff:ffff"))
    assert (owners.hold(first, b"1"), owners.hold(second, b"2")) == (0x1000001, 0x1FFFFFF)
    elsewhere = Owner(2, first.address)
    assert owners.hold(elsewhere, b"3") == 0x2000001
    for number in range(3, 256):
        assert owners.hold(Owner(1, Address(Family.IPV6, number << 24 | 5)), bytes([number])) == number << 24 | 5
    late = Owner(1, Address.parse("fd00::100:1"))
    assert owners.tag(late) == 0
    assert owners.hold(late, b"late") == 1
    for each in (OWNER, first, second, elsewhere, late):
        assert owners.owner(owners.tag(each)) == each
    assert owners.tag(Owner(1, Address.parse("fd00::7"))) == 0x1000007, "whether or not it is there"
    assert owners.tag(Owner(1, Address(Family.SIP, 3 << 24 | 5))) == 0


def test_tags_that_maps_know_are_kept_and_numbers_of_networks_given_once() -> None:
    first, second, third = (Owner(1, Address.parse(text)) for text in ("fd00::1", "fd00::2", "fe00::1"))
    places = [codec().place(each.realm, each.address) for each in (first, second, third)]
    owners = Owners([(b"first", 1), (places[1], 7), (places[2], 1 << 24 | 1)])
    assert owners.hold(second, places[1]) == 7, "as a process that knew no networks has numbered it"
    assert owners.hold(third, places[2]) == 0x1000001
    assert owners.hold(first, places[0]) == 0x2000001
    assert owners.tag(second) == 7, "though its network has a number now"
    owners.release(0x2000001)
    assert owners.hold(Owner(2, first.address), b"") == 0x3000001
    assert owners.hold(first, places[0]) == 0x2000001


def test_what_another_holds_is_refused_and_nothing_changed() -> None:
    made = image(simple(claim(0, 1023)))
    made.apply(bind(Ranges.of((64, 127))))
    before = {name: dict(table) for name, table in made.tables.items()}
    with pytest.raises(PlaneError, match="held"):
        made.apply(bind(Ranges.of((100, 110)), bind_id=2, near="10.0.0.9"))
    assert made.tables == before


def read(name: str, octets: bytes) -> dict[str, int | bytes]:
    return Types.of_object(OBJECT.read_bytes()).record(name).unpack(octets)


def test_a_tunnel_over_ipv6_has_ends_of_sixteen_octets() -> None:
    made = image(simple())
    made.apply(bind(None, near="fd00::1"))
    (endpoint,) = made.tables["endpoints"].values()
    found = read("endpoint", endpoint)
    assert (found["flags"], found["local"]) == (IPV6, Address.parse("fd00::1").octets)


@given(pairs=st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), min_size=1, max_size=4))
def test_blocks_are_aligned_and_hold_just_the_spis(pairs: list[tuple[int, int]]) -> None:
    spis = Ranges.of(*((min(pair), max(pair)) for pair in pairs))
    found = [(number & 0xFFFFFFFF, 1 << 32 - (number >> 32)) for number in blocks(spis)]
    assert all(first % size == 0 for first, size in found)
    assert Ranges.of(*((first, first + size - 1) for first, size in found)) == spis
    assert sum(size for _, size in found) == len(spis)
    assert len(found) <= 62 * len(spis.pairs)


def test_an_aligned_block_of_spis_is_one_entry() -> None:
    made = image(simple())
    made.apply(bind(Ranges.of((1 << 16, (2 << 16) - 1)), kind=Kind.SPI))
    assert len(made.tables["by_spi"]) == 1
    (key,) = made.tables["by_spi"]
    assert (read("spi_key", key)["length"], read("spi_key", key)["spi"]) == (160 + 16, 1 << 16)


def test_odd_spis_are_refused_where_they_need_too_many_entries() -> None:
    with pytest.raises(PlaneError, match="SPIs"):
        image(simple()).apply(bind(Ranges.of(*range(256, 1 << 14, 2)), kind=Kind.SPI))


def test_spis_of_another_are_refused() -> None:
    made = image(simple())
    made.apply(bind(Ranges.of((256, 300), (400, 500)), kind=Kind.SPI))
    for spis in (Ranges.of(300), Ranges.of((1, 256)), Ranges.of((390, 600)), Ranges.of((450, 460))):
        with pytest.raises(PlaneError, match="held"):
            made.apply(bind(spis, kind=Kind.SPI, bind_id=2))
    made.apply(bind(Ranges.of((301, 399)), kind=Kind.SPI, bind_id=2))


@pytest.mark.parametrize(
    ("spis", "flags", "ends"),
    [((256, 2**32 - 1), 1, (256, 2**32 - 1)), (300, 1, (300, 300)), (None, 0, (0, 0)), ("several", 2, (256, 400))],
)
def test_claims_of_spis_are_one_range_or_left_to_the_reference_plane(
    spis: tuple[int, int] | int | str | None, flags: int, ends: tuple[int, int]
) -> None:
    ranges = {"several": Ranges.of(256, (300, 400)), None: Ranges(())}
    values = ranges[spis] if isinstance(spis, str) or spis is None else Ranges.of(spis)
    claims = [claim(64, 127), *([Selector(realm=PUBLIC, local=SHARED, kind=Kind.SPI, values=values)] if values else [])]
    made = image(simple(*claims))
    (address,) = made.tables["addresses"].values()
    found = read("address", address)
    assert (found["flags"], (found["spi_first"], found["spi_last"])) == (flags, ends)


@pytest.mark.parametrize("kind", [Kind.COOKIE, Kind.IDENTITY])
def test_of_cookies_and_identities_the_address_says_only_that_there_are_any(kind: Kind) -> None:
    made = image(simple(replace(claim(64, 127), kind=Kind.COOKIE, values=Ranges(()))))
    values = Ranges(()) if kind is Kind.COOKIE else Ranges.of(1 << 63)
    effect = bind(Ranges.of((64, 127)))
    again = replace(effect.binding.selectors[0], kind=kind, values=values)
    selectors = (*effect.binding.selectors, again)
    made.apply(replace(effect, binding=replace(effect.binding, selectors=selectors)))
    (address,) = made.tables["addresses"].values()
    assert read("address", address)["flags"] == COOKIES
    assert made.tables["by_demux"] == {}
    made.apply(Unbind(key=BindingKey(OWNER, 1), ending=Ending.FREED))
    (address,) = made.tables["addresses"].values()
    assert read("address", address)["flags"] == 0


def holders(made: Image) -> dict[int, tuple[int, bool]]:
    """By tag: the endpoint, and whether the reference plane is asked."""
    found = {}
    for key, value in made.tables["by_demux"].items():
        asked, standing = read("demux_key", key), read("binding", value)
        if asked["kind"] == HOLDER:
            found[int(asked["value"])] = after_templates(int(standing["endpoint"])), bool(int(standing["flags"]) & ASK)
    return found


def test_who_holds_an_spi_sends_by_the_youngest_of_its_bindings_without_a_limit() -> None:
    made = image(simple())
    limit = Remote(network=Prefix.parse("198.51.100.0/24"))
    tag = made.owners.hold(OWNER, codec().place(OWNER.realm, OWNER.address))
    assert holders(made) == {}
    made.apply(bind(Ranges.of(300), kind=Kind.SPI, remote=limit))
    assert holders(made) == {tag: (1, False)}
    made.apply(bind(Ranges.of(301), kind=Kind.SPI, remote=limit, near="10.0.0.2", bind_id=2))
    assert holders(made) == {tag: (2, True)}
    made.apply(bind(Ranges.of(302), kind=Kind.SPI, near="10.0.0.1", bind_id=0))
    assert holders(made) == {tag: (1, False)}
    for bind_id in (0, 1, 2):
        made.apply(Unbind(key=BindingKey(OWNER, bind_id), ending=Ending.FREED))
    assert made.tables["by_demux"] == made.tables["by_spi"] == {}


def test_a_host_sends_by_whomever_it_leases_from() -> None:
    realms = (Realm(number=1, name="private"), Realm(number=PUBLIC, name="public", end=End.HOST))
    made = image(Border(realms=realms))
    made.apply(bind(Ranges.of(300), kind=Kind.SPI))
    assert len(holders(made)) == 2
    assert holders(made)[0] == (1, False)


def test_a_port_says_whether_its_slice_is_held_whole() -> None:
    made = image(simple())
    made.apply(bind(Ranges.of((64, 127), (130, 140)), remote=Remote(port=80)))
    flags = {
        int(read("demux_key", key)["value"]): int(read("binding", value)["flags"])
        for key, value in made.tables["by_demux"].items()
    }
    assert flags[64] & (PORT | SLICE) == PORT | SLICE
    assert flags[130] & (PORT | SLICE) == PORT


def test_a_device_that_has_vanished_is_no_error() -> None:
    made = image(simple())
    made.apply(bind(Ranges.of((64, 127)), device="gone0"))
    (endpoint,) = made.tables["endpoints"].values()
    assert Types.of_object(OBJECT.read_bytes()).record("endpoint").unpack(endpoint)["device"] == NOWHERE
