# SPDX-License-Identifier: BSD-3-Clause
"""The peer begins: IKE comes in to hosts that share an address (seed RSIP 4.1).

Three ways: to a leased port that is not 500; to port 500 of an address that a host holds whole; and to
port 500 of the shared address, where the identity of the caller says whose it is (aggressive mode).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from isthmus.border.ranges import Ranges
from isthmus.lab import figure, ipsec, strongswan
from isthmus.lab.capture import Capture, capturing
from isthmus.lab.ipsec import CARRIER, GATEWAY, PEER, PUBLIC_SIDE, Lease
from isthmus.lab.lab import Lab
from isthmus.lab.node import wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.lab.strongswan import Connection, Daemon
from isthmus.lab.topology import LabError
from isthmus.wire.transport import Protocol

NAME = "incoming-ike"
_PEER_ID = "peer.example"
_IDS = {host: f"{host}.example" for host in figure.HOSTS}
_CALLERS = {host: f"caller-of-{host}.example" for host in figure.HOSTS}
_NOBODY = "caller-of-nobody.example"
_IDENTITIES = (_PEER_ID, *_IDS.values(), *_CALLERS.values(), _NOBODY)
_SERVER_AT = 8
"""Which of a host's ports its server has."""
_GRANTED = {"host-a": 3, "host-b": 4}
_UNKNOWN = "UNKNOWN_COOKIE"
_REFUSED = "refused: LOCAL_ADDRPORT_INUSE"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Called:
    """How the peer calls a host."""

    how: str
    "The name of the connection, at both ends."
    host: str
    address: str
    port: int
    served: int
    "The port of the host's server."
    aggressive: bool = False
    "IKEv1, with an identity of its own for each host."

    @property
    def caller(self) -> str:
        """The identity of the peer."""
        return _CALLERS[self.host] if self.aggressive else _PEER_ID

    def at_peer(self) -> Connection:
        """What the peer knows: whom it calls."""
        # IKEv1 narrows nothing, so there both ends say the same port.
        wanted = (self._served,) if self.aggressive else strongswan.selectors(self.address)
        here = (f"{figure.SERVER}/32[6]",) if self.aggressive else strongswan.selectors(figure.SERVER)
        return Connection(
            name=self.how,
            local_id=self.caller,
            remote_id=_IDS[self.host],
            remote_address=self.address,
            remote_port=self.port,
            local_selectors=here,
            remote_selectors=wanted,
            version=1 if self.aggressive else 2,
            aggressive=self.aggressive,
        )

    def at_host(self) -> Connection:
        """What the host knows: who may call."""
        return Connection(
            name=self.how,
            local_id=_IDS[self.host],
            remote_id=self.caller,
            local_address=self.address,
            local_selectors=(self._served,),
            remote_selectors=(f"{figure.SERVER}/32[6]",),
            version=1 if self.aggressive else 2,
            aggressive=self.aggressive,
        )

    @property
    def _served(self) -> str:
        return f"{self.address}/32[6/{self.served}]"


def start(lab: Lab, setting: Setting) -> None:
    """Start gateway and hosts: each has ports and SPIs of the shared address and a caller; one has an address whole."""
    ipsec.boot(lab)
    lab[GATEWAY].up(ipsec.gateway_configuration(lab, setting))
    common = ("listen = true\nports = 16", "spis = 16\nike = false")
    caller = {host: f'identity = "fqdn:{name}"' for host, name in _CALLERS.items()}
    ipsec.start_host(lab, "host-a", *common, caller["host-a"])
    ipsec.start_host(lab, "host-b", *common, caller["host-b"], "whole = true", caller["host-a"], refused=1)


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Let the peer call by each of the three ways, and use what is agreed on."""
    held = {host: ipsec.leases(lab, host) for host in figure.HOSTS}
    ports = {host: _ports(leases) for host, leases in held.items()}
    whole = [lease.address for lease in held["host-b"] if lease.address != figure.SHARED]
    if not whole or not all(ports.values()):
        raise LabError(f"not leased as wanted: {held}")
    for host, count in _GRANTED.items():
        enough = len(held[host]) == count
        yield Check(f"{host} holds what it asked for", enough, "; ".join(map(str, held[host])))
    yield _exclusive(lab, held["host-b"])
    served = {host: numbers.pairs[0][0] + _SERVER_AT for host, numbers in ports.items()}
    for host, port in served.items():
        server = ("-m", "http.server", str(port), "--directory", "/tmp")  # noqa: S108 - the guest's own
        ipsec.machine(lab, host).start("server", "python3", *server, ready="Serving")
    leased_port = ports["host-a"].pairs[0][0]
    by_port = _Called(how="by-port", host="host-a", address=figure.SHARED, port=leased_port, served=served["host-a"])
    by_address = _Called(how="by-address", host="host-b", address=whole[0], port=500, served=served["host-b"])
    by_identity = [
        _Called(how=f"for-{host}", host=host, address=figure.SHARED, port=500, served=port, aggressive=True)
        for host, port in served.items()
    ]
    _start_peer(lab, [by_port, by_address, *by_identity])
    spis = {host: next(lease.spis for lease in leases if lease.spis) for host, leases in held.items()}
    _start_host(lab, by_port, Daemon(port=leased_port, port_nat_t=leased_port + 1, spis=spis["host-a"].pairs[0]))
    yield from _calls(lab, [by_port], spis)
    _start_host(lab, by_address, Daemon())
    yield from _calls(lab, [by_address], {})
    for call in by_identity:
        _start_host(lab, call, Daemon(spis=spis[call.host].pairs[0]))
    yield from _calls(lab, by_identity, spis)
    yield from _refused(lab)


def _exclusive(lab: Lab, held: list[Lease]) -> Check:
    """The second host has also asked for the first one's caller."""
    wait_until(lambda: ipsec.counted(lab, (_REFUSED,)) > 0, 5, every=0.2)
    count = ipsec.counted(lab, (_REFUSED,))
    ok = count > 0 and len(held) == _GRANTED["host-b"]
    return Check("host-b asks for host-a's caller, too, and is refused", ok, f'"{_REFUSED}" counted {count}')


def _ports(leases: list[Lease]) -> Ranges:
    shared = [lease.ports for lease in leases if lease.address == figure.SHARED and lease.ports]
    return shared[0] if shared else Ranges(())


def _start_peer(lab: Lab, calls: list[_Called]) -> None:
    """Start the peer's charon; it also knows an identity that nobody listens for."""
    aggressive = next(call for call in calls if call.aggressive)
    nobody = replace(aggressive.at_peer(), name="for-nobody", local_id=_NOBODY)
    connections = [*(call.at_peer() for call in calls), nobody]
    strongswan.start(ipsec.machine(lab, PEER), Daemon(), connections, _IDENTITIES)


def _start_host(lab: Lab, call: _Called, daemon: Daemon) -> None:
    strongswan.start(ipsec.machine(lab, call.host), daemon, [call.at_host()], _IDENTITIES)


def _calls(lab: Lab, calls: list[_Called], spis: dict[str, Ranges]) -> Iterator[Check]:
    """The peer calls, all at the same time, and then fetches from each by what was agreed on."""
    peer = ipsec.machine(lab, PEER)
    with capturing(lab[CARRIER], PUBLIC_SIDE) as seen:
        for call in calls:
            done, said = strongswan.initiate(peer, call.how)
            name = f"{call.how}: the peer calls {call.address} port {call.port} and agrees on keys with {call.host}"
            yield Check(name, done, said)
        for call in calls:
            fetch = ("curl", "--silent", "--show-error", "--max-time", "8", f"http://{call.address}:{call.served}/")
            page = peer.run(*fetch, check=False)
            detail = page.stderr.strip() or f"{len(page.stdout)} characters"
            yield Check(f"{call.how}: the peer fetches a page from {call.host}", page.returncode == 0, detail)
    for call in calls:
        inward = [each for each in strongswan.associations(ipsec.machine(lab, call.host)) if each.dst == call.address]
        leased = all(each.spi in spis[call.host] for each in inward) if call.host in spis else True
        shown = ", ".join(f"SPI {each.spi:#x}: {each.packets} packets" for each in inward) or "nothing"
        used = any(each.packets for each in inward)
        yield Check(f"{call.how}: {call.host} has received by its own association", used and leased, shown)
    esp, clear = _counts(seen, calls)
    detail = f"{esp} packets of ESP, {clear} in clear"
    names = ", ".join(call.how for call in calls)
    yield Check(f"{names}: on the public side it is native ESP", esp > 0 and clear == 0, detail)
    for call in calls:
        strongswan.terminate(peer, call.how)


def _counts(seen: Capture, calls: list[_Called]) -> tuple[int, int]:
    """How many packets were ESP, and how many neither that nor IKE as it was called for."""
    ike = {call.port for call in calls} | {strongswan.IKE_PORT}
    esp = clear = 0
    for packet in seen.packets:
        octets = packet.octets
        start = (octets[0] & 0xF) * 4
        ports = {int.from_bytes(octets[at : at + 2], "big") for at in (start, start + 2)}
        esp += octets[9] == Protocol.ESP
        clear += octets[9] != Protocol.ESP and not (octets[9] == Protocol.UDP and ports <= ike)
    return esp, clear


def _refused(lab: Lab) -> Iterator[Check]:
    """Who calls for nobody gets no answer, and is counted."""
    before = ipsec.counted(lab, (_UNKNOWN,))
    done, said = strongswan.initiate(ipsec.machine(lab, PEER), "for-nobody", seconds=3)
    count = ipsec.counted(lab, (_UNKNOWN,)) - before
    detail = f"{said}; {_UNKNOWN} counted {count}"
    yield Check("an identity that nobody listens for is discarded and counted", not done and count > 0, detail)


SCENARIO = Scenario(
    name=NAME,
    title="The peer begins: IKE to a leased port, to an address held whole, and to port 500 by the caller's identity",
    shows=("seed RSIP 4.1", "RFC 3103 9.16", "RFC 3103 9.6", "RFC 3104 6.1", "RFC 3104 6.2"),
    network=ipsec.network(NAME),
    start=start,
    play=play,
)
