# SPDX-License-Identifier: BSD-3-Clause
"""The two planes agree: random tables, random packets, the same verdict, reason and octets.

Tables are Hypothesis's, so that a failure shrinks; packets are good ones, damaged (``plane.traffic``). Behind the
kernel plane there is a reference plane as its slow path, as in the daemon: what both do together is compared
octet for octet with what the reference plane does alone, and what is punted must be something that
``docs/data-plane.md`` lists.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Deregister, Ending, Extend, Register, Unbind
from isthmus.border.identity import identity_value
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, End, Realm, TunnelEnd
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.border.verdict import Reason
from isthmus.errors import PlaneError
from isthmus.plane import Programmable
from isthmus.plane.kernel.direct import DIRECT
from isthmus.plane.reference import ReferencePlane
from plane.fixture import NOW, Outcome
from plane.kernel_under_test import KernelUnderTest
from plane.planes import ReferenceUnderTest, hand_on, outcome
from plane.traffic import GATEWAYS, HOSTS, IDENTITIES, MTUS, PORTS, PRIVATE, PUBLIC, SHARED, SPIS, WHOLE, Packets
from plane.xdp_under_test import XdpUnderTest

kernel, before_kernel = KernelUnderTest(), XdpUnderTest()
"TC alone, and XDP before it."
pytestmark = pytest.mark.root


@pytest.fixture(scope="module", autouse=True)
def _kernel_is_available() -> None:
    reason = kernel.available()
    if reason is not None:
        pytest.skip(reason)


# --- tables ---------------------------------------------------------------------------------


def _ranges() -> st.SearchStrategy[Ranges]:
    pair = st.tuples(st.sampled_from(PORTS), st.sampled_from([0, 1, 31, 63, 64, 900])).map(
        lambda drawn: (drawn[0], min(drawn[0] + drawn[1], 65535))
    )
    return st.lists(pair, min_size=1, max_size=3).map(lambda pairs: Ranges.of(*pairs))


def _slices() -> st.SearchStrategy[Ranges]:
    """Whole aligned slices, as plain leases have."""
    return st.tuples(st.sampled_from(PORTS), st.sampled_from([1, 1, 2, 5])).map(
        lambda drawn: Ranges.of((drawn[0] & ~63, min((drawn[0] & ~63) + 64 * drawn[1] - 1, 65535)))
    )


def _remotes() -> st.SearchStrategy[Remote]:
    networks = st.sampled_from(
        ["192.156.136.22/32", "192.156.136.0/24", "0.0.0.0/0", "8.0.0.0/5", "2001:db8::/32"]
    ).map(Prefix.parse)
    return st.one_of(
        st.just(Remote()),
        st.just(Remote(admit=Admit.CONTACTED)),
        st.builds(
            Remote,
            network=st.one_of(st.none(), networks),
            port=st.one_of(st.none(), st.sampled_from([80, 64, 1000])),
            admit=st.sampled_from(Admit),
        ),
    )


@st.composite
def _selectors(draw: st.DrawFn) -> tuple[Selector, ...]:
    if draw(st.integers(0, 3)) == 0:
        text = draw(
            st.sampled_from([str(each) for each in WHOLE] + ["149.112.241.0/25", "149.112.240.0/23", "0.0.0.0/0"])
        )
        return (Selector(realm=PUBLIC, local=Prefix.parse(text), remote=draw(_remotes())),)
    local = Prefix.of(draw(st.sampled_from(SHARED + WHOLE[:1])))
    ports = Selector(realm=PUBLIC, local=local, kind=Kind.PORT, values=draw(_ranges()), remote=draw(_remotes()))
    spis = Ranges.of(*draw(st.lists(st.sampled_from(SPIS), min_size=1, max_size=2)))
    named = Ranges.of(identity_value(2, draw(st.sampled_from(IDENTITIES))))
    more = (
        Selector(realm=PUBLIC, local=local, kind=Kind.SPI, values=spis, remote=draw(_remotes())),
        Selector(realm=PUBLIC, local=local, kind=Kind.COOKIE, remote=draw(_remotes())),
        Selector(realm=PUBLIC, local=local, kind=Kind.IDENTITY, values=named, remote=draw(_remotes())),
    )
    return (
        *([ports] if draw(st.integers(0, 4)) else []),
        *more[: draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3]))],
    ) or more[:1]


@st.composite
def _binds(draw: st.DrawFn, owners: list[Address], local: list[Address]) -> Bind:
    owner = Owner(PRIVATE, draw(st.sampled_from(owners)))
    kind = draw(st.sampled_from([TunnelKind.IPIP] * 3 + [TunnelKind.GRE]))
    tunnel = Tunnel(
        realm=PRIVATE,
        local=draw(st.sampled_from([each for each in local if each.family is owner.address.family])),
        remote=owner.address,
        kind=kind,
        mtu=draw(st.sampled_from(MTUS)),
        checksum=kind is TunnelKind.GRE and draw(st.integers(0, 3)) == 0,
    )
    binding = Binding(key=BindingKey(owner, draw(st.integers(1, 4))), selectors=draw(_selectors()), crossing=tunnel)
    return Bind(
        binding=binding, lease=_lease(draw(st.sampled_from([NOW + 900] * 8 + [NOW, NOW - 0.5, NOW - 5000, FOREVER])))
    )


@st.composite
def _plain_binds(draw: st.DrawFn, owners: list[Address], local: list[Address]) -> Bind:
    """What nearly every lease is (border/plain.py)."""
    effect = draw(_binds(owners, local))
    owner = Owner(PRIVATE, draw(st.sampled_from([each for each in owners if each.family is Family.IPV4])))
    tunnel = replace(
        effect.binding.tunnel,
        local=draw(st.sampled_from([each for each in local if each.family is Family.IPV4])),
        remote=owner.address,
        mtu=draw(st.sampled_from([*MTUS[-2:], MTUS[-1]])),
        checksum=False,
    )
    selector = Selector(
        realm=PUBLIC,
        local=Prefix.of(draw(st.sampled_from(SHARED))),
        kind=Kind.PORT,
        values=draw(_slices()),
        remote=Remote(admit=draw(st.sampled_from(Admit))),
    )
    key = BindingKey(owner, effect.binding.key.bind_id)
    return replace(effect, binding=Binding(key=key, selectors=(selector,), crossing=tunnel))


def _lease(expires_at: float) -> Lease:
    return Lease(client_id=1, method=Method.RSAP_IP, granted_at=NOW - 60, expires_at=expires_at)


@st.composite
def _effects(draw: st.DrawFn, owners: list[Address], local: list[Address], *, plain: bool) -> list[Programmable]:
    effects: list[Programmable] = [
        Register(registration=Registration(owner=Owner(PRIVATE, each), client_id=1, expires_at=FOREVER))
        for each in owners
    ]
    keys = st.builds(BindingKey, st.builds(Owner, st.just(PRIVATE), st.sampled_from(owners)), st.integers(1, 4))
    effects += draw(
        st.lists(
            st.one_of(
                *[_binds(owners, local)] * (1 if plain else 5),
                *[_plain_binds(owners, local)] * (5 if plain else 0),
                st.builds(Unbind, key=keys, ending=st.just(Ending.FREED)),
                st.builds(Extend, key=keys, expires_at=st.sampled_from([NOW + 900, NOW - 1])),
                st.builds(
                    Deregister,
                    owner=st.builds(Owner, st.just(PRIVATE), st.sampled_from(owners[1:] or owners)),
                    ending=st.just(Ending.EXPIRED),
                ),
            ),
            min_size=1,
            max_size=8,
        )
    )
    return effects


@st.composite
def _claims(draw: st.DrawFn, *, plain: bool) -> tuple[Selector, ...]:
    claims = [
        Selector(
            realm=PUBLIC,
            local=Prefix.of(each),
            kind=Kind.PORT,
            values=Ranges.of((64, 65535)) if plain else draw(_ranges()),
        )
        for each in (SHARED if plain else draw(st.lists(st.sampled_from(SHARED), unique=True)))
    ]
    if claims and draw(st.booleans()):
        spis = draw(
            st.sampled_from([Ranges.of((256, 1 << 16)), Ranges.of((256, 2**32 - 1)), Ranges.of(256, (300, 400))])
        )
        claims.append(replace(claims[0], kind=Kind.SPI, values=spis))
    if claims and draw(st.booleans()):
        claims.append(replace(claims[-1], kind=Kind.COOKIE, values=Ranges(())))
    texts = st.sampled_from(["149.112.241.0/24", "149.112.241.2/32", "149.112.240.0/22"])
    claims += [
        Selector(realm=PUBLIC, local=Prefix.parse(each)) for each in draw(st.lists(texts, unique=True, max_size=2))
    ]
    return tuple(claims)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Border, list[Programmable]]:
    end = draw(st.sampled_from([End.GATEWAY, End.GATEWAY, End.HOST]))
    at_gateway = end is End.GATEWAY
    ours, theirs = (GATEWAYS, HOSTS) if at_gateway else ([HOSTS[0], HOSTS[3]], GATEWAYS)
    near = draw(st.sampled_from([Family.IPV4, Family.IPV4, Family.IPV6]))
    plain = at_gateway and draw(st.booleans())
    mtu = draw(st.sampled_from([65535, 65535, 1500, 600, 90]))
    border = Border(
        realms=(
            Realm(number=PRIVATE, name="private", family=near),
            Realm(number=PUBLIC, name="public", end=end, mtu=mtu),
        ),
        tunnel_ends=tuple(TunnelEnd(realm=PRIVATE, address=each, leads_to=PUBLIC) for each in ours),
        claims=draw(_claims(plain=plain)) if at_gateway else (),
        slice_size=draw(st.sampled_from([64, 64, 64, 32])),
    )
    reference, possible = ReferencePlane(border), []
    for effect in draw(_effects(theirs, ours, plain=plain)):
        try:
            reference.apply((effect,))
        except PlaneError:
            continue
        possible.append(effect)
    return border, possible


# --- the property ---------------------------------------------------------------------------

seen: Counter[str] = Counter()
"Packets by reason: what the property has really looked at."
PACKETS = 50
EXAMPLES = int(os.environ.get("ISTHMUS_EXAMPLES", "300"))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(scene=scenes(), seed=st.integers(0, 1 << 32), at_once=st.booleans(), xdp=st.booleans())
def test_the_two_planes_agree(scene: tuple[Border, list[Programmable]], seed: int, *, at_once: bool, xdp: bool) -> None:
    border, effects = scene
    packets = Packets(seed, border, effects)
    arriving = [packets.make() for _ in range(PACKETS)]
    reference = ReferenceUnderTest()
    expected = reference.run(border, effects, arriving, NOW)
    under = before_kernel if xdp else kernel
    found, punted, violations = _by_both(under, border, effects, arriving, at_once=at_once)
    seen["AT_XDP"] += sum(not each for each in before_kernel.passed) if xdp else 0
    for at, ((realm, packet), right, one) in enumerate(zip(arriving, expected, found, strict=True)):
        seen[right[1].name] += 1
        what = f"realm {realm}, {packet.hex()}: reference {_show(right)}, kernel {_show(one)}"
        assert right == one, f"{what}{', punted' * (at in punted)}"
        if at in punted:
            seen["PUNTED"] += 1
            assert _is_slow(packet, right), f"punted, though the contract does not say so: {what}"
    assert violations == Counter(map(str, reference.violations() or ()))


def _by_both(
    under: KernelUnderTest,
    border: Border,
    effects: list[Programmable],
    packets: list[tuple[int, bytes]],
    *,
    at_once: bool,
) -> tuple[list[Outcome], set[int], Counter[str]]:
    """What the kernel plane and the reference plane behind it make of packets; which were punted, and the violations."""

    def work() -> tuple[list[Outcome], set[int], Counter[str]]:
        fast = under.open(border, NOW)
        try:
            fast.reconcile(effects if at_once else ())
            fast.apply(() if at_once else effects)
            table = fast.table()
            slow = ReferencePlane(border, fast.contacts, fast.paths, table=table)
            slow.apply(table.left(effects))
            seen["direct words"] += sum(word & DIRECT > 0 for word in fast._words.tolist())
            outcomes, punted = [], set()
            before = fast.counters()
            for at, (realm, packet) in enumerate(packets):
                hand_on(slow, fast, NOW)
                found = under.one(fast, border, realm, packet)
                counted[found[1]] += 1
                if found[0] == "punt":
                    punted.add(at)
                    found = outcome(slow.process(realm, packet, now=NOW))
                outcomes.append(found)
            after = fast.counters()
            assert {each: after[each] - before[each] for each in Reason if after[each] != before[each]} == counted
            return outcomes, punted, Counter(map(str, [*fast.events(), *slow.events()]))
        finally:
            fast.close()

    counted: Counter[Reason] = Counter()
    return under.bench().do(work)


SLOW = {Reason.TTL_EXCEEDED, Reason.TOO_BIG, Reason.REPLIED}


def _is_slow(packet: bytes, right: Outcome) -> bool:
    """Whether the contract lets the kernel plane leave a packet to the reference plane."""
    if right[0] in {"reply", "hold"} or right[1] in SLOW:
        return True
    if _says_too_big(packet):
        return True
    layers = [*_layers(packet), *_layers(right[3] or b"")]
    if right[3] is not None and len(right[3]) > _octets(right[3]):
        return True  # in several pieces
    return any(_asks(protocol, content) or target >> 28 == 14 for protocol, content, target in layers)


def _says_too_big(packet: bytes) -> bool:
    """Whether it says that another was too large: to a tunnel's end, that is for the reference plane to judge."""
    protocol, content, _ = next(_layers(packet), (0, b"", 0))
    return (protocol, content[:2]) == (1, b"\3\4") or (protocol, content[:1]) == (58, b"\2")


def _octets(packet: bytes) -> int:
    at = 4 if packet[0] >> 4 == 6 else 2
    return int.from_bytes(packet[at : at + 2], "big") + (40 if packet[0] >> 4 == 6 else 0)


def _asks(protocol: int, content: bytes) -> bool:
    """Whether it is a fragment (44), has options (0, 60), a GRE checksum, an SPI, an identifier, or IKE's port."""
    if protocol == 17:
        return 500 in struct.unpack_from("!HH", content.ljust(4, b"\0"))
    if protocol == 47:
        return content[:1] >= b"\x80"
    return protocol in {0, 44, 50, 51, 60} or (
        protocol == 1 and content[:1] not in {b"\x03", b"\x04", b"\x0b", b"\x0c"}
    )


def _layers(packet: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Protocol, content and destination of a packet, of what it carries in a tunnel, and of what it quotes."""
    while len(packet) >= 20:
        if packet[0] >> 4 == 6:
            protocol, content, target = packet[6], packet[40:], 0
        else:
            fragment = int.from_bytes(packet[6:8], "big") & 0x3FFF
            protocol = 44 if fragment else packet[9]
            content, target = packet[(packet[0] & 15) * 4 :], int.from_bytes(packet[16:20], "big")
        yield protocol, content, target
        shim = 4 if protocol == 47 else 8 if protocol == 1 else 0
        packet = content[shim:] if protocol in {1, 4, 47} else b""


def _show(verdict: Outcome) -> str:
    kind, reason, realm, packet = verdict
    return f"{kind} {reason.name} {realm} {packet.hex() if packet is not None else ''}"


UNREACHED = {
    Reason.NO_ROUTE,
    Reason.FRAGMENT_OVERLAP,
    Reason.FRAGMENT_TIMEOUT,
    Reason.FRAGMENT_LIMIT,
    Reason.UNKNOWN_COOKIE,
    Reason.COOKIE_IN_USE,
    Reason.NO_IDENTIFIER,
}
"All but the first are the reference plane's alone, and need more than a few packets."


def test_the_packets_reach_nearly_every_reason() -> None:
    if not seen:
        pytest.skip("the property has not run")
    assert seen["AT_XDP"] > seen.total() // 20, "XDP leaves nearly everything to TC"
    of_rsip = {each.name for each in Reason if each < Reason.FORWARDED_SIP}
    assert seen.pop("direct words") > EXAMPLES // 20
    missing = of_rsip - set(seen) - {each.name for each in UNREACHED} - {"REPLIED"}
    assert not missing, f"never reached: {sorted(missing)}; {seen}"
