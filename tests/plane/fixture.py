# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures: one packet at one border, written down (``tests/fixtures/*.toml``).

A file names a scene (``tests/fixtures/scenes/``: realms, tunnel ends, claims, bindings), may add
bindings to it, and lists cases. A case is a sentence, the paragraph that it holds to, the packet
that comes ``in`` and the reason of the verdict; if a packet goes ``out``, how it differs from the one
that came. All octets, of what comes in and of what must go out, are built by scapy, which knows
nothing of isthmus.

A packet::

    ipv4 = "192.156.136.22 -> 149.112.240.55"     ttl, tos, id, df, mf, offset, options ("nop", "record route")
    tcp = "80 -> 10000"  |  udp = "53 -> 10000"  |  echo = 7  |  echo_reply = 7  |  icmp = [13, 0, 7]
    esp = 4096  |  ah = 4096  |  protocol = 132
    unreachable = 3  |  exceeded = 0  |  problem = 0      an ICMP error: the number is its code, and then
        quote = { a packet, octets = 8 }                  octets of its transport that are quoted
    payload = "hello"  |  size = 1480                     size: fill up to this total length
    checksum = 1       a wrong header checksum             cut = 3      octets of the transport that are left
    length = 40        a total length that lies            pad = 6      octets after the total length
    outer = { a packet's header, and tunnel = "ipip" | "gre" ... }    the tunnel that it comes in
    hex = "..."        octets as they are

What goes out::

    out   = { realm, ttl, tos, tunnel = "10.0.0.1 -> 10.0.0.4", outer_tos }
    reply = { realm, ipv4, time_exceeded = true | fragmentation_needed = 1480, octets = 28, tunnel }
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import GRE
from scapy.packet import Raw

from isthmus.address import Address, Prefix
from isthmus.border.binding import Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Register
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, End, Realm, TunnelEnd
from isthmus.border.selector import Admit, Kind, Remote, Selector
from isthmus.border.verdict import Reason
from isthmus.plane import Programmable

FIXTURES = Path(__file__).parent.parent / "fixtures"
NOW = 1_800_000_000.0

Outcome = tuple[str, Reason, int | None, bytes | None]
"Verdict (forward, reply, drop, pass, punt), reason, realm, packet."


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

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"


def load() -> list[Fixture]:
    """Every case of every file."""
    return [each for path in sorted(FIXTURES.glob("*.toml")) for each in _file(path)]


def scene(name: str) -> dict[str, Any]:
    """A scene as it is written."""
    return tomllib.loads((FIXTURES / "scenes" / f"{name}.toml").read_text())


def stage(script: dict[str, Any], more: list[dict[str, Any]] | None = None) -> tuple[Border, tuple[Programmable, ...]]:
    """The border and the effects that a scene asks for."""
    numbers = {name: table["number"] for name, table in script["realms"].items()}
    realms = tuple(
        Realm(number=table["number"], name=name, end=End[table.get("end", "gateway").upper()])
        for name, table in script["realms"].items()
    )
    ends = tuple(
        TunnelEnd(
            realm=numbers[each["realm"]], address=Address.parse(each["address"]), leads_to=numbers[each["leads_to"]]
        )
        for each in script["tunnel_ends"]
    )
    claims = tuple(one for each in script.get("claims", []) for one in _selectors(each, numbers))
    border = Border(realms=realms, tunnel_ends=ends, claims=claims, slice_size=script.get("slice_size", 64))
    effects: list[Programmable] = [
        Register(registration=Registration(owner=_owner(each, numbers), client_id=at + 1, expires_at=NOW + 1e6))
        for at, each in enumerate(script["registered"])
    ]
    effects += [_bind(each, numbers) for each in script["bindings"] + (more or [])]
    return border, tuple(effects)


def _file(path: Path) -> Iterator[Fixture]:
    script = tomllib.loads(path.read_text())
    setting = scene(script.pop("scene"))
    shared = script.pop("bindings", [])
    numbers = {name: table["number"] for name, table in setting["realms"].items()}
    for case in script.pop("case"):
        border, effects = stage(setting, shared + case.pop("bindings", []))
        before = tuple((numbers[each["realm"]], build(each)) for each in case.pop("before", []))
        arriving = case.pop("in")
        yield Fixture(
            file=path.stem,
            name=case.pop("name"),
            rfc=tuple(case.pop("rfc")),
            border=border,
            effects=effects,
            packets=(*before, (numbers[arriving["realm"]], build(arriving))),
            violation=case.pop("violation", False),
            device=case.get("out", {}).pop("device", None),
            expected=_expected(case, arriving, numbers),
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
    return ("pass" if reason is Reason.PASSED else "drop"), reason, None, None


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
    return named or [Selector(**where)]


def _bind(table: dict[str, Any], numbers: dict[str, int]) -> Bind:
    owner = _owner(table["owner"], numbers)
    local, remote = _pair(table["tunnel"])
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
            ),
            device=table.get("device"),
        ),
        lease=Lease(client_id=1, method=Method.RSAP_IP, granted_at=NOW - 60, expires_at=NOW + table.get("lasts", 3600)),
    )


def _pair(text: str) -> tuple[str, str]:
    src, dst = text.split(" -> ")
    return src, dst


def build(spec: dict[str, Any]) -> bytes:
    """The octets that a packet is on the wire."""
    if "hex" in spec:
        return bytes.fromhex(spec["hex"])
    packet = inner(spec)
    if "outer" in spec:
        packet = _tunnelled(spec["outer"], packet)
    return packet + b"\xee" * spec.get("pad", 0)


def inner(spec: dict[str, Any]) -> bytes:
    """The octets of a packet without its tunnel and padding."""
    header = _header(spec)
    number, transport = _transport(spec)
    header.proto = number
    payload = spec.get("payload", "" if "protocol" in spec else "hello").encode()
    if "quote" in spec:
        quote = spec["quote"]
        whole = inner(quote)
        payload = whole[: (whole[0] & 15) * 4 + quote.get("octets", 8)]
    if "size" in spec:
        payload = bytes(at & 0xFF for at in range(spec["size"] - len(bytes(header / transport))))
    content = bytes(header / transport / Raw(payload)) if payload else bytes(header / transport)
    start = (content[0] & 15) * 4
    if "cut" in spec:
        content = content[: start + spec["cut"]]
        header = _header(spec)
        header.proto = number
        content = bytes(header / Raw(content[start:])) if spec["cut"] else bytes(header)
    return content


def _header(spec: dict[str, Any]) -> IP:
    src, dst = _pair(spec["ipv4"])
    flags = ("DF" if spec.get("df") else "") + ("+" if spec.get("df") and spec.get("mf") else "")
    header = IP(
        src=src,
        dst=dst,
        ttl=spec.get("ttl", 64),
        tos=spec.get("tos", 0),
        id=spec.get("id", 0x1234),
        flags=flags + ("MF" if spec.get("mf") else ""),
        frag=spec.get("offset", 0),
        options={
            None: [],
            "nop": [IPOption_NOP()] * 4,
            "record route": [IPOption_RR(pointer=4, routers=["0.0.0.0"] * 3)],
        }[spec.get("options")],
    )
    if "checksum" in spec:
        header.chksum = spec["checksum"]
    if "length" in spec:
        header.len = spec["length"]
    return header


def _transport(spec: dict[str, Any]) -> tuple[int, Any]:
    if "tcp" in spec:
        sport, dport = _pair(spec["tcp"])
        return 6, TCP(sport=int(sport), dport=int(dport), seq=1000, flags="PA", ack=2000)
    if "udp" in spec:
        sport, dport = _pair(spec["udp"])
        return 17, UDP(sport=int(sport), dport=int(dport))
    if "esp" in spec:
        return 50, ESP(spi=spec["esp"], seq=1, data=b"sealed sealed.")
    if "ah" in spec:
        return 51, AH(nh=6, spi=spec["ah"], seq=1, icv=bytes(12))
    if "protocol" in spec:
        return spec["protocol"], Raw(b"something")
    return 1, _icmp(spec)


def _icmp(spec: dict[str, Any]) -> ICMP:
    for key, number in {"echo": 8, "echo_reply": 0}.items():
        if key in spec:
            return ICMP(type=number, id=spec[key], seq=1)
    for key, number in {"unreachable": 3, "exceeded": 11, "problem": 12}.items():
        if key in spec:
            return (
                ICMP(type=number, code=spec[key], nexthopmtu=spec.get("mtu", 0))
                if key == "unreachable"
                else ICMP(type=number, code=spec[key])
            )
    number, code, *identifier = spec["icmp"]
    return ICMP(type=number, code=code, id=identifier[0], seq=1) if identifier else ICMP(type=number, code=code)


def _tunnelled(spec: dict[str, Any], content: bytes) -> bytes:
    header = _header(spec)
    content += b"\xdd" * spec.get("trailing", 0)
    if spec.get("tunnel", "ipip") == "ipip":
        header.proto = spec.get("protocol", 4)
        return bytes(header / Raw(content))
    header.proto = 47
    shim = GRE(
        proto=spec.get("ethertype", 0x800),
        chksum_present=int(spec.get("gre_checksum", False)),
        key_present=int(spec.get("gre_key", False)),
        version=spec.get("gre_version", 0),
    )
    octets = bytes(shim / Raw(content))
    return bytes(header / Raw(octets[: spec.get("gre_cut", len(octets))]))


def _into_tunnel(ends: str, content: bytes, tos: int) -> bytes:
    src, dst = _pair(ends)
    return bytes(IP(src=src, dst=dst, ttl=64, tos=tos, id=0, flags="DF", proto=4) / Raw(content))


def _out(out: dict[str, Any], arriving: dict[str, Any]) -> bytes:
    spec = {key: value for key, value in arriving.items() if key != "outer"}
    spec |= {key: out[key] for key in ("ttl", "tos") if key in out}
    content = inner(spec)
    if "tunnel" not in out:
        return content
    return _into_tunnel(out["tunnel"], content, out.get("outer_tos", spec.get("tos", 0)))


def _reply(reply: dict[str, Any], arriving: dict[str, Any]) -> bytes:
    src, dst = _pair(reply["ipv4"])
    quote = inner(arriving)[: reply.get("octets", 548)]
    if "fragmentation_needed" in reply:
        message = ICMP(type=3, code=4, nexthopmtu=reply["fragmentation_needed"])
    else:
        message = ICMP(type=11, code=0)
    content = bytes(IP(src=src, dst=dst, ttl=64, id=0) / message / Raw(quote))
    return _into_tunnel(reply["tunnel"], content, 0) if "tunnel" in reply else content
