# SPDX-License-Identifier: BSD-3-Clause
"""A gateway with a lease of every kind and a host behind it, and what must hold for whatever they let through."""

from __future__ import annotations

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Register
from isthmus.border.identity import identity_value
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, End, Realm, TunnelEnd
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.border.verdict import Forward, Reply, Verdict
from isthmus.checksum import checksum
from isthmus.plane.reference import ReferencePlane
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.ipv6 import Ipv6View

NEAR, FAR, LEASED = 1, 2, 3
NOW = 1_800_000_000.0
SHARED, WHOLE = Address.parse("149.112.240.55"), Address.parse("149.112.240.56")
GATEWAY, GATEWAY6 = Address.parse("10.0.0.1"), Address.parse("2001:db8::1")
PEER = Prefix.parse("192.156.136.22/32")
FAR_MTU, TUNNEL_MTU = 1500, 1280
IKE_PEER = (2, b"peer.example")
"""ID type and data of an initiator who may call."""

_ANYONE, _CONTACTED = Remote(), Remote(admit=Admit.CONTACTED)
_MICRO = Remote(network=PEER, port=80)


def _at(kind: Kind, values: Ranges, remote: Remote = _ANYONE, realm: int = FAR) -> Selector:
    return Selector(realm=realm, local=Prefix(SHARED, 32), kind=kind, values=values, remote=remote)


def _bind(host: str, bind_id: int, *selectors: Selector, **tunnel: object) -> Bind:
    remote = Address.parse(host)
    local = GATEWAY if remote.family is Family.IPV4 else GATEWAY6
    way = Tunnel(realm=NEAR, local=local, remote=remote, mtu=TUNNEL_MTU, **tunnel)  # type: ignore[arg-type]
    lease = Lease(client_id=1, method=Method.RSAP_IP, granted_at=NOW - 60, expires_at=NOW + 3600)
    key = BindingKey(Owner(NEAR, remote), bind_id)
    return Bind(binding=Binding(key=key, selectors=selectors, crossing=way), lease=lease)


def _registered(realm: int, host: str, client_id: int) -> Register:
    owner = Owner(realm, Address.parse(host))
    return Register(registration=Registration(owner=owner, client_id=client_id, expires_at=NOW + 1e6))


def gateway() -> tuple[Border, list[Register | Bind]]:
    """Ports, a whole address, IPsec with and without ports, IKE by identity, GRE, and IPv6 between."""
    ports = Ranges.of
    border = Border(
        realms=(
            Realm(number=NEAR, name="private"),
            Realm(number=FAR, name="public", mtu=FAR_MTU),
        ),
        tunnel_ends=tuple(TunnelEnd(realm=NEAR, address=each, leads_to=FAR) for each in (GATEWAY, GATEWAY6)),
        claims=(
            _at(Kind.PORT, ports((10000, 19999))),
            _at(Kind.SPI, ports((4096, 8191))),
            Selector(realm=FAR, local=Prefix(WHOLE, 32)),
        ),
    )
    hosts = ("10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "2001:db8::4")
    bindings = [
        _bind("10.0.0.4", 1, _at(Kind.PORT, ports((10000, 10063)), _CONTACTED)),
        _bind("10.0.0.4", 2, _at(Kind.SPI, ports((4096, 4111))), _at(Kind.COOKIE, Ranges(()))),
        _bind(
            "10.0.0.5",
            1,
            _at(Kind.SPI, ports((5000, 5003))),
            _at(Kind.PORT, ports((11000, 11003)), _CONTACTED),
            _at(Kind.COOKIE, Ranges(())),
        ),
        _bind("10.0.0.5", 2, _at(Kind.IDENTITY, ports((identity_value(*IKE_PEER),) * 2))),
        _bind("10.0.0.5", 3, _at(Kind.PORT, ports((80, 80)), _MICRO)),
        _bind("10.0.0.6", 1, Selector(realm=FAR, local=Prefix(WHOLE, 32))),
        _bind("10.0.0.7", 1, _at(Kind.PORT, ports((12000, 12001))), kind=TunnelKind.GRE, checksum=True),
        _bind("2001:db8::4", 1, _at(Kind.PORT, ports((13000, 13063)))),
        _bind("2001:db8::4", 2, _at(Kind.PORT, ports((14000, 14001))), kind=TunnelKind.GRE),
    ]
    return border, [*(_registered(NEAR, host, at) for at, host in enumerate(hosts, 1)), *bindings]


def host() -> tuple[Border, list[Register | Bind]]:
    """The host 10.0.0.4, from its own side: ports and SPIs of a shared address."""
    border = Border(
        realms=(
            Realm(number=NEAR, name="private"),
            Realm(number=LEASED, name="leased", end=End.HOST),
        ),
        tunnel_ends=(TunnelEnd(realm=NEAR, address=Address.parse("10.0.0.4"), leads_to=LEASED),),
    )
    way = Tunnel(realm=NEAR, local=Address.parse("10.0.0.4"), remote=GATEWAY, mtu=TUNNEL_MTU)
    lease = Lease(client_id=1, method=Method.RSAP_IP, granted_at=NOW - 60, expires_at=NOW + 3600)
    selectors = (
        _at(Kind.PORT, Ranges.of((10000, 10003)), realm=LEASED),
        _at(Kind.SPI, Ranges.of((4096, 4111)), realm=LEASED),
        _at(Kind.COOKIE, Ranges(()), realm=LEASED),
    )
    binding = Binding(key=BindingKey(Owner(NEAR, GATEWAY), 1), selectors=selectors, crossing=way, device="ist0p")
    return border, [_registered(NEAR, "10.0.0.1", 1), Bind(binding=binding, lease=lease)]


def plane(scene: tuple[Border, list[Register | Bind]]) -> ReferencePlane:
    """A plane in a scene."""
    made = ReferencePlane(scene[0])
    made.apply(scene[1])
    return made


def judge(made: ReferencePlane, border: Border, arrived: bytes, verdict: Verdict) -> None:
    """Hold a verdict to what must be true of every one: sound packets, by whom they belong to, to whom they belong."""
    if isinstance(verdict, Reply):
        assert checksum(verdict.packet[: (verdict.packet[0] & 15) * 4]) == 0 or verdict.packet[0] >> 4 == 6
        return
    if not isinstance(verdict, Forward):
        return
    assert verdict.packets
    for packet in verdict.packets:
        tunnelled = verdict.realm == NEAR
        inner = _inner(made, packet) if tunnelled else Ipv4View.parse(packet)
        # A program's own header is not looked at; its gateway does.
        assert inner.checksum_ok or (border.realms[1].end is End.HOST and tunnelled)
        assert len(inner.octets) <= (TUNNEL_MTU if tunnelled else FAR_MTU if verdict.realm == FAR else TUNNEL_MTU)
        if border.realms[1].end is End.GATEWAY and verdict.realm == FAR:
            _may_send(made, arrived, inner)


def _inner(made: ReferencePlane, packet: bytes) -> Ipv4View:
    """The packet within a tunnel that we made; somebody's binding goes this way."""
    ways = {(entry.binding.crossing.local, entry.binding.crossing.remote) for entry in made.table}
    outer = Ipv6View.parse(packet) if packet[0] >> 4 == 6 else Ipv4View.parse(packet)
    assert (outer.src, outer.dst) in ways, "into nobody's tunnel"
    gre = (outer.next_header if isinstance(outer, Ipv6View) else outer.protocol) == 47
    shim = 0 if not gre else 8 if outer.payload[0] & 0x80 else 4
    assert not (shim == 8 and checksum(outer.payload)), "a GRE checksum that is wrong"
    return Ipv4View.parse(bytes(outer.payload[shim:]))


def _may_send(made: ReferencePlane, arrived: bytes, inner: Ipv4View) -> None:
    """What leaves for the far realm has a source, and where it has ports a port, that its sender holds."""
    outer = Ipv6View.parse(arrived) if arrived[0] >> 4 == 6 else Ipv4View.parse(arrived)
    sender = Owner(NEAR, outer.src)
    held = [each for entry in made.table if entry.binding.key.owner == sender for each in entry.binding.selectors]
    own = [each for each in held if inner.src in each.local]
    assert own, "sent from an address that its sender does not hold"
    if inner.protocol in (6, 17) and not inner.fragment_offset and not any(each.kind is None for each in own):
        port = int.from_bytes(inner.payload[:2], "big")
        learned = port == 500 and any(each.kind in (Kind.COOKIE, Kind.IDENTITY) for each in own)
        assert learned or any(each.kind is Kind.PORT and port in each.values for each in own), f"spoofed port {port}"
