# SPDX-License-Identifier: BSD-3-Clause
"""What becomes of IPsec behind NAT, beside RSIP: the same hosts, the same peer, another address of the gateway.

Every check here holds if something *fails as it must*: if NAT ever carried native IPsec of two hosts, the
comparison that this shows would be wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from isthmus.lab import figure, ipsec, strongswan
from isthmus.lab.capture import Capture, capturing
from isthmus.lab.ipsec import CARRIER, GATEWAY, PEER, PUBLIC_SIDE
from isthmus.lab.lab import Lab
from isthmus.lab.scenario import Check
from isthmus.lab.uml import Machine
from isthmus.wire.transport import Protocol

ADDRESS = "149.112.240.200"
"""What the gateway translates to."""
_TABLE = "isthmus_lab"
_RULES = f"""\
table ip {_TABLE} {{
  chain out {{
    type nat hook postrouting priority srcnat;
    ip saddr {figure.GATEWAY_NEAR}/24 oifname "wan0" snat to {ADDRESS}
  }}
}}"""
_KEYS = {
    Protocol.ESP: ("esp", "enc", "cbc(aes)", "0x" + "11" * 16, "auth-trunc", "hmac(sha256)", "0x" + "22" * 32, "128"),
    Protocol.AH: ("ah", "auth-trunc", "hmac(sha256)", "0x" + "22" * 32, "128"),
}
_BAD_INTEGRITY = "XfrmInStateProtoError"


def play(lab: Lab) -> Iterator[Check]:
    """Put the hosts behind NAT, let strongSwan do what it does there, and then native IPsec with keys set by hand."""
    gateway = lab[GATEWAY]
    gateway.run("ip", "address", "add", f"{ADDRESS}/32", "dev", "wan0")
    gateway.run("nft", _RULES)
    for host, address in figure.HOSTS.items():
        machine = ipsec.machine(lab, host)
        machine.stop("charon")
        machine.stop("isthmus")
        machine.ip(f"route add default via {figure.GATEWAY_NEAR}")
        connections = ipsec.host_connections(host, address, None)
        strongswan.start(machine, strongswan.Daemon(), connections, ipsec.IDENTITIES)
    yield from _as_strongswan_does(lab)
    for host in figure.HOSTS:
        ipsec.machine(lab, host).stop("charon")
    ipsec.machine(lab, PEER).stop("charon")
    yield from _native_ah(lab)
    yield from _native_esp(lab)


def _as_strongswan_does(lab: Lab) -> Iterator[Check]:
    with capturing(lab[CARRIER], PUBLIC_SIDE) as seen:
        agreed = [strongswan.initiate(ipsec.machine(lab, host), "esp")[0] for host in figure.HOSTS]
        pages = {host: _fetch(ipsec.machine(lab, host)) for host in figure.HOSTS}
    protocols = _protocols(seen)
    native = protocols[Protocol.ESP]
    ok = all(agreed) and native == 0 and protocols[Protocol.UDP] > 0
    detail = f"{protocols[Protocol.UDP]} packets of UDP, {native} of ESP"
    yield Check("NAT, fails as it must: what strongSwan agrees on is not native ESP but UDP", ok, detail)
    served = [host for host, fetched in pages.items() if fetched]
    detail = f"both agreed on keys; a page came for {', '.join(served) or 'nobody'}"
    yield Check("NAT, fails as it must: only one of two hosts is answered", len(served) <= 1, detail)
    for host in figure.HOSTS:
        strongswan.terminate(ipsec.machine(lab, host), "esp")
    for host in figure.HOSTS:
        done, said = strongswan.initiate(ipsec.machine(lab, host), "ah")
        yield Check(f"NAT, fails as it must: {host} gets no AH", not done, said)


def _fetch(machine: Machine) -> bool:
    words = ("curl", "--silent", "--max-time", "3", "--output", "/dev/null", f"http://{figure.SERVER}/")
    return machine.run(*words, check=False).returncode == 0


def _protocols(seen: Capture) -> Counter[int]:
    return Counter(packet.octets[9] for packet in seen.packets)


def _native_ah(lab: Lab) -> Iterator[Check]:
    """AH arrives, and its integrity check fails, since NAT has changed the address that it protects."""
    host, peer = ipsec.machine(lab, "host-a"), ipsec.machine(lab, PEER)
    before = strongswan.errors(peer).get(_BAD_INTEGRITY, 0)
    _set_keys(lab, "host-a", Protocol.AH, 0x2001)
    with capturing(lab[CARRIER], PUBLIC_SIDE) as seen:
        answered = _ping(host)
    failed = strongswan.errors(peer).get(_BAD_INTEGRITY, 0) - before
    sent = _protocols(seen)[Protocol.AH]
    detail = f"{sent} packets of AH sent on, {failed} failed the peer's integrity check"
    yield Check("NAT, fails as it must: AH does not pass the integrity check", failed > 0 and not answered, detail)


def _native_esp(lab: Lab) -> Iterator[Check]:
    """Native ESP has no ports: the translator cannot tell two hosts' answers from the same peer apart."""
    answered: dict[str, list[str]] = {}
    for host, spi in zip(figure.HOSTS, (0x3001, 0x3002), strict=True):
        _set_keys(lab, host, Protocol.ESP, spi)
        answered[host] = [each for each in figure.HOSTS if _ping(ipsec.machine(lab, each))]
    one, both = answered.values()
    detail = f"keys set by hand: echoes for {' and '.join(one) or 'nobody'}; then for {' and '.join(both) or 'nobody'}"
    ok = len(one) == 1 and len(both) <= 1
    yield Check("NAT, fails as it must: native ESP is for one host, not for two", ok, detail)


def _set_keys(lab: Lab, host: str, protocol: Protocol, spi: int) -> None:
    """Set keys by hand, for all traffic of a host with the peer; at the peer as NAT shows the host."""
    kind, *algorithms = _KEYS[protocol]
    for name, own, other, ours in (
        (host, figure.HOSTS[host], figure.SERVER, True),
        (PEER, figure.SERVER, ADDRESS, False),
    ):
        machine = ipsec.machine(lab, name)
        for src, dst, direction, value in (
            (own, other, "out", spi if ours else spi + 0x100),
            (other, own, "in", spi + 0x100 if ours else spi),
        ):
            where = ("src", src, "dst", dst)
            what = ("proto", kind, "reqid", str(spi), "mode", "transport")
            machine.run("ip", "xfrm", "state", "add", *where, "spi", hex(value), *what, *algorithms)
            template = ("tmpl", *where, *what)
            machine.run("ip", "xfrm", "policy", "update", *where, "dir", direction, *template)


def _ping(machine: Machine) -> bool:
    return machine.run("ping", "-c", "1", "-W", "1", figure.SERVER, check=False).returncode == 0
