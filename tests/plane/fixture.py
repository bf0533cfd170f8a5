# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures: one packet at one border, written down (``tests/fixtures/*.toml``).

A file names a scene (``tests/fixtures/scenes/``: realms, tunnel ends, claims, bindings), may add
bindings to it, and lists cases. A case is a sentence, the paragraph that it holds to, the packet
that comes ``in`` and the reason of the verdict; if a packet goes ``out``, how it differs from the one
that came. All octets, of what comes in and of what must go out, are built by scapy (``octets``), which knows
nothing of isthmus.

A packet::

    ipv4 = "192.156.136.22 -> 149.112.240.55"     ttl, tos, id, df, mf, offset, options ("nop", "record route", ...)
    tcp = "80 -> 10000"  |  udp = "53 -> 10000"  |  echo = 7  |  echo_reply = 7  |  icmp = [13, 0, 7]
    esp = 4096  |  ah = 4096  |  protocol = 132
    unreachable = 3  |  exceeded = 0  |  problem = 0      an ICMP error: the number is its code, and then
        quote = { a packet, octets = 8 }                  octets of its transport that are quoted
    payload = "hello"  |  size = 1480                     size: fill up to this total length
    ike = { cookie = "0102030405060708", responder, exchange, version, identity, octets }     the payload of UDP
    checksum = 1       a wrong header checksum             cut = 3      octets of the transport that are left
    damage = true      a last octet that no checksum knows
    length = 40        a total length that lies            pad = 6      octets after the total length
    outer = { a packet's header, and tunnel = "ipip" | "gre" ... }    the tunnel that it comes in
    outer = { ipv6 = "fd00::4 -> fd00::1", options = "limit hop" ... }    likewise, over IPv6
    outer = { ipv6, icmpv6 = [2, 0], mtu = 1280, about = "fd00::1 -> fd00::4", octets }      an error about it, or another message
    outer = { ipv4 = "10.0.0.9 -> 10.0.0.1", too_big = 1400, about = "10.0.0.1 -> 10.0.0.4", octets, without_df }    likewise
    hex = "..."        octets as they are

A packet in fragments (inside of ``outer``, those of the outer packet)::

    part = [0, 16]     16 octets of its payload from 0 on; -1 for all that follow. more, other: lies about it
    parts = [[16, -1], [0, 16]]        several packets, in this order; the last is the one that is looked at

``before`` holds packets that come first. ``wait = 31`` in a packet: seconds that pass before it comes. What goes out::

    out   = { realm, ttl, tos, id, echo ..., tunnel = "10.0.0.1 -> 10.0.0.4", outer_tos, kind = "gre", gre_checksum }
            parts = [[0, 1456], [1456, -1]]    it goes out in fragments, each in a tunnel of its own
    reply = { realm, ipv4, time_exceeded = true | fragmentation_needed = 1480 | echo = true, octets = 28, tunnel }

A scene with a SIP realm has bindings that cross otherwise, nodes, mappings and rules (``fixture_sip``), packets of SIP
(``sip_octets``), and what goes out or is replied is written as a packet: ``fixture_sip`` says how.

Without either the packet is dropped, held (``HELD``) or passed (``PASSED``). ``counts = { FRAGMENT_TIMEOUT = 2 }``: what is
counted beside the verdicts. ``slow = true``, of a case or a file: a plane with a slow path behind it may leave the packet to that.
``peer = ["lwaftr: ..."]``: the cases of others that it is the equivalent of (docs/border-cases.toml).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from scapy.layers.inet import ICMP, IP
from scapy.packet import Raw

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Register
from isthmus.border.identity import identity_value
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, End, Realm, TunnelEnd
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.border.verdict import Reason
from isthmus.plane import Programmable
from plane import fixture_sip
from plane.octets import build, fragment, into_tunnel, pair, parts, whole

FIXTURES = Path(__file__).parent.parent / "fixtures"
NOW = 1_800_000_000.0

Outcome = tuple[str, Reason, int | None, bytes | None]
"Verdict (forward, reply, drop, hold, pass, punt), reason, realm, packets one after the other."

__all__ = ["FIXTURES", "NOW", "Fixture", "Outcome", "build", "load", "scene", "stage"]


@dataclass(frozen=True, kw_only=True)
class Fixture:
    """One case of one file."""

    file: str
    name: str
    rfc: tuple[str, ...]
    border: Border
    effects: tuple[Programmable, ...]
    packets: tuple[tuple[int, bytes], ...]
    "The one that is looked at comes last; those before it set the stage."
    expected: Outcome
    violation: bool
    device: str | None
    waits: tuple[float, ...] = ()
    "Seconds that pass before each packet."
    counts: dict[Reason, int] = field(default_factory=dict)
    "What is counted beside the verdicts."
    slow: bool = False
    "Whether a fast path may leave it to the slow one."
    any_identification: bool = False
    "Whether IPv4 identifications that a border makes up are not compared."
    neighbour: str | None = None
    "The IPv4 address of the next SIP system on the link."
    miss: str | None = None
    "The address that is asked for."
    peer: tuple[str, ...] = ()
    "What it is called where it comes from: ``lwaftr: ...`` (docs/border-cases.md)."

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"

    def comparable(self, outcome: Outcome) -> Outcome:
        """An outcome without what the case leaves open."""
        packets = outcome[3]
        if packets and self.any_identification:
            packets = fixture_sip.without_identification(packets)
        return (*outcome[:3], packets)


@cache
def load() -> tuple[Fixture, ...]:
    """Every case of every file; scapy takes its time, so that each process builds them once."""
    return tuple(each for path in sorted(FIXTURES.glob("*.toml")) for each in _file(path))


def scene(name: str) -> dict[str, Any]:
    """A scene as it is written."""
    return tomllib.loads((FIXTURES / "scenes" / f"{name}.toml").read_text())


def stage(
    script: dict[str, Any],
    more: list[dict[str, Any]] | None = None,
    realms: dict[str, Any] | None = None,
    rules: dict[str, Any] | None = None,
) -> tuple[Border, tuple[Programmable, ...]]:
    """The border and the effects that a scene asks for, with more bindings, and with realms that are a little different."""
    changed = realms or {}
    script = script | {"rules": script.get("rules", {}) | (rules or {})}
    script = script | {"realms": {name: table | changed.get(name, {}) for name, table in script["realms"].items()}}
    numbers = {name: table["number"] for name, table in script["realms"].items()}
    all_realms = tuple(
        Realm(
            number=table["number"],
            name=name,
            end=End[table.get("end", "gateway").upper()],
            family=Family(table.get("family", 4)),
            mtu=table.get("mtu", 65535),
            **fixture_sip.realm(table, numbers),
        )
        for name, table in script["realms"].items()
    )
    ends = tuple(
        TunnelEnd(
            realm=numbers[each["realm"]], address=Address.parse(each["address"]), leads_to=numbers[each["leads_to"]]
        )
        for each in script["tunnel_ends"]
    )
    claims = tuple(one for each in script.get("claims", []) for one in _selectors(each, numbers))
    border = Border(
        realms=all_realms,
        tunnel_ends=ends,
        claims=claims,
        slice_size=script.get("slice_size", 64),
        nodes=fixture_sip.nodes(script, numbers),
        rules=fixture_sip.rules(script),
    )
    effects: list[Programmable] = [
        Register(registration=Registration(owner=_owner(each, numbers), client_id=at + 1, expires_at=NOW + 1e6))
        for at, each in enumerate(script.get("registered", []))
    ]
    for at, each in enumerate(script.get("bindings", []) + (more or [])):
        effects.append(_bind(each, numbers) if "owner" in each else fixture_sip.bind(each, at, numbers, NOW))
    effects += fixture_sip.mappings(script, numbers)
    return border, tuple(effects)


def _file(path: Path) -> Iterator[Fixture]:
    script = tomllib.loads(path.read_text())
    setting = scene(script.pop("scene"))
    shared, slow = script.pop("bindings", []), script.pop("slow", False)
    numbers = {name: table["number"] for name, table in setting["realms"].items()}
    of_sip = any(table.get("family") == Family.SIP for table in setting["realms"].values())
    for case in script.pop("case"):
        more, realms, rules = case.pop("bindings", []), case.pop("realms", {}), case.pop("rules", {})
        border, effects = stage(setting, shared + more, realms, rules)
        arriving = [*case.pop("before", []), case.pop("in")]
        single = [part for each in arriving for part in parts(each)]
        yield Fixture(
            file=path.stem,
            name=case.pop("name"),
            rfc=tuple(case.pop("rfc")),
            border=border,
            effects=effects,
            packets=tuple((numbers[each["realm"]], build(each)) for each in single),
            waits=tuple(each.get("wait", 0.0) for each in single),
            violation=case.pop("violation", False),
            device=case.get("out", {}).pop("device", None),
            neighbour=case.get("out", {}).pop("neighbour", None),
            counts={Reason[name]: count for name, count in case.pop("counts", {}).items()},
            slow=case.pop("slow", slow) or (of_sip and fixture_sip.is_slow(case, arriving[-1], rules)),
            any_identification=of_sip and fixture_sip.any_identification(case),
            miss=case.pop("miss", None),
            peer=tuple(case.pop("peer", ())),
            expected=(fixture_sip.expected if of_sip else _expected)(case, arriving[-1], numbers),
        )
        if case:
            raise ValueError(f"{path}: {sorted(case)} are no keys of a case")
    if script:
        raise ValueError(f"{path}: {sorted(script)} are no keys of a file")


def _expected(case: dict[str, Any], arriving: dict[str, Any], numbers: dict[str, int]) -> Outcome:
    reason = Reason[case.pop("verdict")]
    if "out" in case:
        out = case.pop("out")
        return "forward", reason, numbers[out["realm"]], _out(out, arriving)
    if "reply" in case:
        reply = case.pop("reply")
        return "reply", reason, numbers[reply["realm"]], _reply(reply, arriving)
    kinds = {Reason.PASSED: "pass", Reason.HELD: "hold"}
    return kinds.get(reason, "drop"), reason, None, None


def _owner(text: str, numbers: dict[str, int]) -> Owner:
    realm, address = text.split()
    return Owner(numbers[realm], Address.parse(address))


def _selectors(table: dict[str, Any], numbers: dict[str, int]) -> list[Selector]:
    limit = table.get("remote", {})
    remote = Remote(
        network=Prefix.parse(limit["network"]) if "network" in limit else None,
        port=limit.get("port"),
        admit=Admit[limit.get("admit", "anyone").upper()],
    )
    where = {"realm": numbers[table.get("realm", "public")], "local": Prefix.parse(table["local"]), "remote": remote}
    kinds = {"ports": Kind.PORT, "spis": Kind.SPI}
    named = [
        Selector(kind=kind, values=Ranges.parse(table[key]), **where) for key, kind in kinds.items() if key in table
    ]
    if table.get("ike"):
        named.append(Selector(kind=Kind.COOKIE, **where))
    if "identity" in table:
        value = identity_value(2, table["identity"].encode())
        named.append(Selector(kind=Kind.IDENTITY, values=Ranges.of(value), **where))
    return named or [Selector(**where)]


def _bind(table: dict[str, Any], numbers: dict[str, int]) -> Bind:
    owner = _owner(table["owner"], numbers)
    local, remote = pair(table["tunnel"])
    return Bind(
        binding=Binding(
            key=BindingKey(owner, table["id"]),
            selectors=tuple(_selectors(table, numbers)),
            crossing=Tunnel(
                realm=owner.realm,
                local=Address.parse(local),
                remote=Address.parse(remote),
                kind=TunnelKind[table.get("kind", "ipip").upper()],
                mtu=table.get("mtu", 1480),
                checksum=table.get("gre_checksum", False),
            ),
            device=table.get("device"),
        ),
        lease=Lease(client_id=1, method=Method.RSAP_IP, granted_at=NOW - 60, expires_at=NOW + table.get("lasts", 3600)),
    )


def _out(out: dict[str, Any], arriving: dict[str, Any]) -> bytes:
    spec = {key: value for key, value in arriving.items() if key not in {"outer", "part", "parts", "checksum"}}
    spec |= {key: out[key] for key in ("ttl", "tos", "id", "echo", "echo_reply", "icmp", "quote") if key in out}
    content = whole(spec)
    more = {key: out[key] for key in ("later_options",) if key in out}
    pieces = [fragment(content, *part, spec | more) for part in out["parts"]] if "parts" in out else [content]
    if "tunnel" not in out:
        return b"".join(pieces)
    tos = out.get("outer_tos", spec.get("tos", 0))
    return b"".join(into_tunnel(out["tunnel"], piece, tos, out) for piece in pieces)


def _reply(reply: dict[str, Any], arriving: dict[str, Any]) -> bytes:
    src, dst = pair(reply["ipv4"])
    if "echo" in reply:
        spec = {key: value for key, value in arriving.items() if key not in {"outer", "part", "parts", "df", "options"}}
        spec["echo_reply"] = spec.pop("echo")
        content = whole(spec | {"ipv4": reply["ipv4"], "ttl": 64})
        tos = arriving.get("tos", 0)
    else:
        quote = whole(arriving)[: reply.get("octets", 548)]
        kind = {"fragmentation_needed": (3, 4), "time_exceeded": (11, 0)}
        (number, code) = next(kind[key] for key in kind if key in reply)
        message = ICMP(type=number, code=code)
        if number == 3:
            message.nexthopmtu = reply["fragmentation_needed"]
        content, tos = bytes(IP(src=src, dst=dst, ttl=64, id=0) / message / Raw(quote)), 0
    return into_tunnel(reply["tunnel"], content, tos, reply) if "tunnel" in reply else content
