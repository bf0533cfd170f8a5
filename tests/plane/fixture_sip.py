# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures with a SIP realm: what their scenes have besides, and what goes out (see ``fixture`` and ``sip_octets``).

A scene::

    realms.sip = { number = 1, family = 8 }
    realms.site = { number = 2, sip = "sip", site = "1.213.77.5", unmapped = "refuse", foreign = "ask" }
    nodes = ["sip 1.213.77.5/192.3.4.2"]
    rules = { df0 = "fit", forward_source_routes = true, relay_layers = [3], accept_from = ["10.9.0.0/16"], ... }
    mapping.site = { "201.5.7.0/24" = "c1.2.2.8" }
    [[bindings]] realm = "sip", local = "c1.2.2.8/32"      and one of
        encapsulate = "far 128.1.1.1 -> 128.2.1.2"         the last is "implicit" for the low 32 bits; mtu
        native = "link" | "link 10.0.0.9"
        translate = "site 0.0.0.0/0"                       compatible = "fd53:4950:4300::/48", device = "sip0p"

A packet of version 6 in an IPv4 realm comes by its link as SIP. A case::

    out   = { realm, device, neighbour, and the packet's own header: sip | ipv4 | sockets, hop | ttl, ..., outer = { ipv4, protocol = 41 } }
    reply = { realm, header, and unreachable | exceeded | problem | icmpv6 | echo_reply }

The transport is that of the packet that came, if the header is all that is said; an error without a ``quote`` quotes what
came. Identifications are compared where they are written (``id``). ``parts``, of what goes out, is a list of fragments:
``slice`` and ``frag`` of each over SIP, octets of the payload over IPv4. ``miss = "203.0.113.7"``: what is asked for.
"""

from __future__ import annotations

from typing import Any

from isthmus.address import Address, Family, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner
from isthmus.border.crossing import Crossing, Encapsulation, Native, Translate
from isthmus.border.effect import Bind, Remap
from isthmus.border.mapping import Mapping
from isthmus.border.realm import Foreign, Node, Unmapped
from isthmus.border.rules import Df0, IcmpPseudo, Rules
from isthmus.border.selector import Selector
from isthmus.border.verdict import Reason
from plane.octets import build, fragment, inner, pair, tunnelled, whole

Table = dict[str, Any]
Numbers = dict[str, int]

_TRANSPORTS = {
    "tcp",
    "udp",
    "echo",
    "echo_reply",
    "icmp",
    "esp",
    "ah",
    "protocol",
    "unreachable",
    "exceeded",
    "problem",
}
_CONTENT = _TRANSPORTS | {"icmpv6", "mtu", "quote", "payload", "fill", "zero_checksum", "pointer", "size", "damage"}
_MESSAGES = {"unreachable", "exceeded", "problem", "icmpv6"}
_QUOTED = {"sip": 256, "ipv4": 548, "sockets": 1232}


def realm(table: Table, numbers: Numbers) -> dict[str, Any]:
    """What a realm says about SIP."""
    found: dict[str, Any] = {}
    if "sip" in table:
        found["sip"] = numbers[table["sip"]]
    if "site" in table:
        found["site"] = _upper(table["site"])
    found["unmapped"] = Unmapped[table.get("unmapped", "pass").upper()]
    found["foreign"] = Foreign[table.get("foreign", "low").upper()]
    return found


def nodes(script: Table, numbers: Numbers) -> tuple[Node, ...]:
    """Our SIP addresses."""
    pairs = [each.split() for each in script.get("nodes", [])]
    return tuple(Node(realm=numbers[name], address=Address.parse_sip(text)) for name, text in pairs)


def rules(script: Table) -> Rules:
    """How IPAE is read."""
    table = dict(script.get("rules", {}))
    readers = {
        "df0": lambda text: Df0[text.upper()],
        "icmp_pseudo": lambda text: IcmpPseudo[text.upper()],
        "accept_from": lambda texts: tuple(map(Prefix.parse, texts)),
        "relay_layers": frozenset,
    }
    return Rules(**{name: readers.get(name, lambda value: value)(value) for name, value in table.items()})


def bind(table: Table, at: int, numbers: Numbers, now: float) -> Bind:
    """A binding of IPAE's."""
    where = numbers[table["realm"]]
    selector = Selector(realm=where, local=Prefix.parse_any(_prefix(table["local"])))
    key = BindingKey(Owner(where, Address(Family.IPV4, 0)), at + 1)
    lasts = table.get("lasts")
    return Bind(
        binding=Binding(key=key, selectors=(selector,), crossing=_crossing(table, numbers), device=table.get("device")),
        lease=Lease(
            client_id=0,
            method=Method.RSA_IP,
            granted_at=now - 60,
            expires_at=FOREVER if lasts is None else now + lasts,
        ),
    )


def _crossing(table: Table, numbers: Numbers) -> Crossing:
    if "encapsulate" in table:
        name, _, way = table["encapsulate"].partition(" ")
        local, remote = pair(way)
        return Encapsulation(
            realm=numbers[name],
            local=Address.parse(local),
            remote=None if remote == "implicit" else Address.parse(remote),
            mtu=table.get("mtu", 1480),
        )
    if "native" in table:
        name, _, neighbour = table["native"].partition(" ")
        return Native(realm=numbers[name], neighbour=Address.parse(neighbour) if neighbour else None)
    name, _, image = table["translate"].partition(" ")
    compatible = Prefix.parse(table["compatible"]) if "compatible" in table else None
    return Translate(realm=numbers[name], image=Prefix.parse_any(_prefix(image)), compatible=compatible)


def _prefix(text: str) -> str:
    """``1.2.2.8/32`` is SIP here where it would be IPv4 elsewhere: a /32 of IPv4 is written as an address."""
    head, _, length = text.rpartition("/")
    if text == "sip/0":
        return "0000:0000:0000:0000/0"
    return Prefix.parse_sip(text).hex if length == "32" and "/" not in head else text


def mappings(script: Table, numbers: Numbers) -> list[Remap]:
    """Every mapping, into the only SIP realm."""
    sip = [table["number"] for table in script["realms"].values() if table.get("family") == Family.SIP]
    return [
        Remap(
            realm=numbers[name],
            sip=sip[0],
            mapping=Mapping.of((Prefix.parse(prefix), _upper(image)) for prefix, image in table.items()),
        )
        for name, table in script.get("mapping", {}).items()
    ]


def _upper(text: str) -> Prefix:
    return Prefix.parse_sip(f"{text}/32")


# --- what goes out ------------------------------------------------------------------------


def expected(case: Table, arriving: Table, numbers: Numbers) -> tuple[str, Reason, int | None, bytes | None]:
    """The outcome of a case."""
    reason = Reason[case.pop("verdict")]
    for kind, name in (("forward", "out"), ("reply", "reply")):
        if name in case:
            going = case.pop(name)
            return kind, reason, numbers[going["realm"]], _going(going, arriving)
    kinds = {Reason.PASSED: "pass", Reason.HELD: "hold"}
    return kinds.get(reason, "drop"), reason, None, None


def _going(going: Table, arriving: Table) -> bytes:
    content = {} if _TRANSPORTS & going.keys() or "icmpv6" in going else arriving
    spec = {key: value for key, value in content.items() if key in _CONTENT} | going
    if "echo_reply" in going:
        spec |= {key: value for key, value in arriving.items() if key in {"fill", "payload"}}
    elif _MESSAGES & going.keys() and "quote" not in going:
        form = next(name for name in _QUOTED if name in going)
        spec["quote"] = {"hex": _as_it_came(arriving).hex(), "all": _QUOTED[form]}
    parts = spec.pop("parts", None)
    if parts is None:
        return build(spec)
    if "ipv4" in spec:
        return b"".join(fragment(whole(spec), *part, spec) for part in parts)
    pieces = [spec | part for part in parts]
    if "outer" not in spec:
        return b"".join(inner(each) for each in pieces)
    return b"".join(tunnelled(spec["outer"], inner(each)) for each in pieces)


def _as_it_came(arriving: Table) -> bytes:
    return build({key: value for key, value in arriving.items() if key not in {"outer", "pad"}})


def any_identification(case: Table) -> bool:
    """Whether a case leaves the identifications of what goes out open."""
    going = case.get("out", case.get("reply", {}))
    return "id" not in going.get("outer", going)


def without_identification(packets: bytes) -> bytes:
    """IPv4 packets, one after the other, with identification and checksum zero."""
    octets, at = bytearray(packets), 0
    while at < len(octets):
        if octets[at] >> 4 == 4:
            octets[at + 4 : at + 6] = octets[at + 10 : at + 12] = b"\0\0"
            at += max(int.from_bytes(octets[at + 2 : at + 4], "big"), 20)
        else:
            return bytes(octets)
    return bytes(octets)


def is_slow(case: Table, arriving: Table, rules_: Table) -> bool:
    """Whether ``docs/data-plane.md`` leaves a case to the slow path: fragments, options, other rules, most of ICMP."""
    inside = {"frag", "route", "options", "part", "slice", "zero_checksum", "quote", "icmp", "icmpv6"}
    going = case.get("out", {})
    outer = arriving.get("outer", {})
    may_be_cut = "ipv4" in arriving and not arriving.get("df") and "ipv4" not in going
    return bool(
        rules_
        or inside & (arriving.keys() | going.keys() | outer.keys())
        or "parts" in going
        or (may_be_cut and not outer)
        or case["verdict"] in {"NOT_FOR_US", "RELAYED", "RELAY_LIMIT", "FORGED_ERROR", "SOURCE_ROUTE", "TUNNEL_DOWN"}
    )
