# SPDX-License-Identifier: BSD-3-Clause
"""Two hosts share one public address, and both hold IPsec with the same peer at the same time (RFC 3104).

Kernel IPsec in transport mode, keyed by strongSwan's IKEv2 from leased ports, with leased SPIs; the peer is
as everybody's. First ESP, then AH, then IKE from port 500 of both hosts at once; at last the same hosts
behind NAT, where it cannot work.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator

from isthmus.border.ranges import Ranges
from isthmus.lab import figure, ipsec, strongswan, through_nat
from isthmus.lab.capture import Capture, capturing
from isthmus.lab.ipsec import CARRIER, CARRIER_NEAR, GATEWAY, PEER, PUBLIC_SIDE, Lease
from isthmus.lab.lab import Lab
from isthmus.lab.node import wait_until
from isthmus.lab.scenario import Check, Scenario, Setting
from isthmus.wire.transport import Protocol

NAME = "ipsec"
_PROTOCOLS = {"esp": Protocol.ESP, "ah": Protocol.AH}
_SPI_AT = {Protocol.ESP: 0, Protocol.AH: 4}
_PORTS, _SPI_COUNT = 32, 16
_LOAD = 300_000
_SMALL_MTU = 1300
_FRAGMENTATION_NEEDED = (3, 4)
_ECHOES = """
import socket, sys, time
lost = 0
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
    echo.settimeout(2)
    echo.connect((sys.argv[1], 7))
    for number in range(150):
        octets = b"%d " % number * 8
        echo.send(octets)
        try:
            while echo.recv(2048) != octets:
                pass
        except OSError:
            lost += 1
        time.sleep(0.02)
print(lost, "of", number + 1, "lost")
"""


def start(lab: Lab, setting: Setting) -> None:
    """Start everything but IKE, and wait until both hosts hold ports and SPIs."""
    ipsec.boot(lab)
    lab[GATEWAY].up(ipsec.gateway_configuration(lab, setting))
    for host in figure.HOSTS:
        ipsec.start_host(lab, host, f"ports = {_PORTS}\nspis = {_SPI_COUNT}")
    strongswan.start(ipsec.machine(lab, PEER), strongswan.Daemon(), ipsec.peer_connections(), ipsec.IDENTITIES)


def play(lab: Lab, _setting: Setting) -> Iterator[Check]:
    """Hold ESP, use it, key it anew; then AH; then from port 500; then look at NAT."""
    held = {host: ipsec.leases(lab, host)[0] for host in figure.HOSTS}
    yield from _leased(held)
    for host, lease in held.items():
        _start_charon(lab, host, lease, port=None)
    for name in _PROTOCOLS:
        with capturing(lab[CARRIER], PUBLIC_SIDE) as seen:
            yield from _keyed(lab, held, name)
            yield from used(lab, held, name.upper())
            yield from _healthy(lab, held, name)
        yield _native(seen, held, name)
        if name == "esp":
            yield from _keyed_anew(lab, held)
            yield from _tunnel_mtu(lab, held)
            yield from _path_mtu(lab, held)
        _let_go(lab, name)
    yield from _unmatched(lab, held)
    yield from _from_port_500(lab, held)
    yield from through_nat.play(lab)


def _leased(held: dict[str, Lease]) -> Iterator[Check]:
    for host, lease in held.items():
        enough = len(lease.ports) >= _PORTS and len(lease.spis) >= _SPI_COUNT and lease.address == figure.SHARED
        yield Check(f"{host} holds ports and SPIs of the shared address", enough, str(lease))
    one, other = (lease for lease in held.values())
    apart = not one.spis.overlaps(other.spis) and not one.ports.overlaps(other.ports)
    yield Check("no port and no SPI is held by both", apart, f"{one.spis} and {other.spis}")


def ike_ports(lease: Lease) -> tuple[int, int]:
    """The two ports of a lease that IKE has: the first is used, the second only bound."""
    first = lease.ports.pairs[0][0]
    return first, first + 1


def _start_charon(lab: Lab, host: str, lease: Lease, port: int | None) -> None:
    """Start charon with what was leased; from port 500 if that is said."""
    ours = ike_ports(lease)
    daemon = strongswan.Daemon(
        port=ours[0] if port is None else port,
        port_nat_t=ours[1] if port is None else strongswan.NAT_PORT,
        spis=lease.spis.pairs[0],
    )
    connections = ipsec.host_connections(host, lease.address, lease.ports)
    strongswan.start(ipsec.machine(lab, host), daemon, connections, ipsec.IDENTITIES)


def _keyed(lab: Lab, held: dict[str, Lease], name: str) -> Iterator[Check]:
    """Both hosts begin, and then have it at the same time."""
    for host in held:
        done, said = strongswan.initiate(ipsec.machine(lab, host), name)
        yield Check(f"{name.upper()}: {host} agrees on keys with the peer", done, said)
    at_peer = [each.spi for each in strongswan.associations(ipsec.machine(lab, PEER)) if each.dst == figure.SHARED]
    for host, lease in held.items():
        own = [each.spi for each in ipsec.inbound(lab, host, name)]
        ok = bool(own) and all(spi in lease.spis and spi in at_peer for spi in own)
        shown = ", ".join(f"{spi:#x}" for spi in own) or "none"
        yield Check(f"{name.upper()}: {host} receives by an SPI of its lease", ok, f"{shown} of {lease.spis}")
    both = len(set(at_peer)) == len(held)
    shown = ", ".join(f"{spi:#x}" for spi in at_peer)
    yield Check(f"{name.upper()}: the peer holds both toward {figure.SHARED} at once", both, f"SPIs {shown}")


def used(lab: Lab, held: dict[str, Lease], name: str) -> Iterator[Check]:
    """Both hosts use TCP and UDP, on ports of their own."""
    fetch = ("curl", "--silent", "--show-error", "--max-time", "8", f"http://{figure.SERVER}/")
    for host, lease in held.items():
        done = ipsec.machine(lab, host).run(*fetch, check=False)
        port = done.stdout.strip().rstrip(".").rpartition(" ")[2]
        ok = f"You are {figure.SHARED}" in done.stdout and port.isdigit() and int(port) in lease.ports
        yield Check(f"{name}: {host} uses TCP", ok, (done.stdout or done.stderr).strip())
    for host in held:
        said = echo(lab, host)
        yield Check(f"{name}: {host} uses UDP", said == f"from {host}", said or "no echo")


def echo(lab: Lab, host: str) -> str:
    """Send one datagram to the peer's echo port and return what came back."""
    # dd takes a datagram whole; the shell's own read would take an octet of it and lose the rest.
    back = "timeout 5 dd bs=2048 count=1 status=none <&3"
    script = f'exec 3<>/dev/udp/{figure.SERVER}/7 && echo "from {host}" >&3 && {back}'
    return ipsec.machine(lab, host).run("bash", "-c", script, check=False).stdout.strip()


def _healthy(lab: Lab, held: dict[str, Lease], name: str) -> Iterator[Check]:
    """Every receiver has verified what came, and no kernel has found anything wrong."""
    for machine in (*held, PEER):
        inbound = [each for each in ipsec.inbound(lab, machine, name) if each.packets]
        expected = len(held) if machine == PEER else 1
        wrong = strongswan.errors(ipsec.machine(lab, machine))
        shown = ", ".join(f"{each.spi:#x}: {each.packets} packets" for each in inbound)
        ok = len(inbound) >= expected and not wrong
        detail = f"{shown}; {wrong or 'no errors'}"
        yield Check(f"{name.upper()}: the integrity checks of {machine} pass", ok, detail)


def _native(seen: Capture, held: dict[str, Lease], name: str) -> Check:
    """Nothing passed on the public side but that very protocol, and IKE."""
    wanted = _PROTOCOLS[name]
    spis: dict[str, int] = dict.fromkeys(held, 0)
    ike = others = outward = 0
    for packet in seen.packets:
        octets = packet.octets
        data = octets[(octets[0] & 0xF) * 4 :]
        ports = {int.from_bytes(data[0:2], "big"), int.from_bytes(data[2:4], "big")}
        if octets[9] == wanted:
            at = _SPI_AT[wanted]
            spi = int.from_bytes(data[at : at + 4], "big")
            outward += octets[16:20] == socket.inet_aton(figure.SERVER)
            for host, lease in held.items():
                spis[host] += spi in lease.spis and octets[16:20] == socket.inet_aton(figure.SHARED)
        elif octets[9] == Protocol.UDP and strongswan.IKE_PORT in ports:
            ike += any(ike_ports(lease)[0] in ports for lease in held.values())
        else:
            others += 1
    ok = outward > 0 and all(spis.values()) and ike > 0 and others == 0 and not seen.missed
    detail = (
        f"protocol {int(wanted)}: {outward} outward, inward {', '.join(f'{n} for {host}' for host, n in spis.items())};"
        f" {ike} of IKE; {others} others"
    )
    return Check(f"{name.upper()}: on the public side it is native, nothing in UDP, nothing in clear", ok, detail)


def _keyed_anew(lab: Lab, held: dict[str, Lease]) -> Iterator[Check]:
    """Each side begins once, while datagrams go to and fro."""
    for side, host in (("host-a", "host-a"), (PEER, "host-b")):
        machine = ipsec.machine(lab, host)
        before = {each.spi for each in ipsec.inbound(lab, host, "esp")}
        machine.start("echoes", "python3", "-c", _ECHOES, figure.SERVER, ready="")
        strongswan.rekey(ipsec.machine(lab, side), "esp")
        new = _new(lab, host, before)
        lost = machine.said("echoes", until=" lost", seconds=60)
        ok = bool(new) and all(spi in held[host].spis for spi in new) and lost.startswith("0 of")
        shown = ", ".join(f"{spi:#x}" for spi in sorted(new)) or "none"
        yield Check(f"ESP: {side} keys anew for {host}, by an SPI of the lease, without loss", ok, f"{shown}; {lost}")


def _new(lab: Lab, host: str, before: set[int], seconds: float = 5.0) -> set[int]:
    """Wait for SPIs by which a host did not receive before."""

    def new() -> set[int]:
        return {each.spi for each in ipsec.inbound(lab, host, "esp")} - before

    wait_until(lambda: bool(new()), seconds, every=0.3)
    return new()


def _tunnel_mtu(lab: Lab, held: dict[str, Lease]) -> Iterator[Check]:
    """The peer's ESP is larger than the tunnel: the gateway says so, and the peer listens."""
    words = ("--silent", "--show-error", "--max-time", "15", "--output", "/dev/null", "--write-out", "%{size_download}")
    with capturing(lab[CARRIER], PUBLIC_SIDE) as seen:
        for host in held:
            done = ipsec.machine(lab, host).run("curl", *words, f"http://{figure.SERVER}/octets/{_LOAD}", check=False)
            ok = done.stdout == str(_LOAD)
            yield Check(f"ESP: {host} receives {_LOAD:,} octets", ok, done.stderr.strip() or f"{done.stdout} octets")
    errors = [packet.octets for packet in seen.packets if _is_about_esp(packet.octets, figure.SERVER)]
    mtus = {int.from_bytes(octets[26:28], "big") for octets in errors}
    detail = f"{len(errors)} errors from {figure.SHARED}, MTU {', '.join(map(str, mtus)) or 'unknown'}"
    yield Check("ESP: the gateway tells the peer that its packet is too big for the tunnel", bool(errors), detail)


def _path_mtu(lab: Lab, held: dict[str, Lease]) -> Iterator[Check]:
    """A link behind the gateway becomes small: its router complains about ESP, and the host must hear it."""
    lab[CARRIER].run("ip", "link", "set", ipsec.FAR_SIDE, "mtu", str(_SMALL_MTU))
    ipsec.machine(lab, PEER).ip(f"link set eth0 mtu {_SMALL_MTU}")
    octets = bytes(_LOAD)
    wanted = hashlib.sha256(octets).hexdigest()
    post = (
        f"head -c {_LOAD} /dev/zero | curl --silent --show-error --max-time 15 --data-binary @- http://{figure.SERVER}/"
    )
    with capturing(lab[CARRIER], PUBLIC_SIDE) as seen:
        for host in held:
            done = ipsec.machine(lab, host).run("sh", "-c", post, check=False)
            ok = wanted in done.stdout
            said = (done.stdout or done.stderr).strip()
            yield Check(f"ESP: {host} sends {_LOAD:,} octets over a link of {_SMALL_MTU}", ok, said)
    errors = [packet.octets for packet in seen.packets if _is_about_esp(packet.octets, figure.SHARED)]
    for host in held:
        route = ipsec.machine(lab, host).run("ip", "route", "get", figure.SERVER, "from", figure.SHARED).stdout
        ok = f"mtu {_SMALL_MTU}" in route and bool(errors)
        known = " ".join(route.split()).partition("cache")[2].strip()
        detail = f"{len(errors)} errors about ESP on the public side; the host's route says {known or 'nothing'}"
        yield Check(f"ESP: fragmentation needed about its packet finds {host}", ok, detail)


def _is_about_esp(octets: bytes, sender: str) -> bool:
    """Whether a packet is "fragmentation needed" that quotes ESP of this sender."""
    data = octets[(octets[0] & 0xF) * 4 :]
    quote = data[8:]
    return (
        octets[9] == Protocol.ICMP
        and (data[0], data[1]) == _FRAGMENTATION_NEEDED
        and quote[9] == Protocol.ESP
        and quote[12:16] == socket.inet_aton(sender)
    )


def _let_go(lab: Lab, name: str) -> None:
    for host in figure.HOSTS:
        strongswan.terminate(ipsec.machine(lab, host), name)


def _unmatched(lab: Lab, held: dict[str, Lease]) -> Iterator[Check]:
    """What nobody's SPI is goes nowhere."""
    taken = Ranges(())
    for lease in held.values():
        taken |= lease.spis
    free = next(spi for spi in ipsec.SPIS if spi not in taken)
    for protocol in (Protocol.ESP, Protocol.AH):
        before = ipsec.counted(lab, ("NO_BINDING",))
        spi = free.to_bytes(4, "big")
        packet = bytes(_SPI_AT[protocol]) + spi + bytes(24)
        with (
            capturing(lab["lan"], GATEWAY) as near,
            lab[CARRIER].inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)) as raw,  # noqa: B023
        ):
            raw.sendto(packet, (figure.SHARED, 0))
            wait_until(lambda: ipsec.counted(lab, ("NO_BINDING",)) > before, 3, every=0.2)  # noqa: B023 - at once
        count = ipsec.counted(lab, ("NO_BINDING",)) - before
        leaked = [each for each in near.packets if spi in each.octets]
        detail = (
            f"SPI {free:#x} from {CARRIER_NEAR}: NO_BINDING counted {count}, {len(leaked)} packets on the private side"
        )
        yield Check(
            f"{protocol.name}: an SPI that nobody holds is discarded and counted", count == 1 and not leaked, detail
        )


def _from_port_500(lab: Lab, held: dict[str, Lease]) -> Iterator[Check]:
    """Both hosts speak IKE from port 500 of the one address; cookies tell them apart (RFC 3104 §6.1)."""
    for host, lease in held.items():
        _start_charon(lab, host, lease, port=strongswan.IKE_PORT)
    with capturing(lab[CARRIER], PUBLIC_SIDE) as seen:
        for host in held:
            done, said = strongswan.initiate(ipsec.machine(lab, host), "esp")
            yield Check(f"port 500: {host} agrees on keys with the peer", done, said)
    cookies = {packet.octets[28:36] for packet in seen.packets if _is_port_500(packet.octets)}
    ok = len(cookies) == len(held) and all(_is_port_500(each.octets) for each in seen.packets)
    detail = f"{len(seen.packets)} packets, initiator cookies {', '.join(each.hex() for each in sorted(cookies))}"
    yield Check("port 500: both conversations have port 500 at both ends", ok, detail)
    yield from used(lab, held, "port 500")
    for host in held:
        yield _keyed_anew_from_port_500(lab, host, cookies)
    _let_go(lab, "esp")


def _keyed_anew_from_port_500(lab: Lab, host: str, cookies: set[bytes]) -> Check:
    """The host keys IKE anew, which brings a cookie that the gateway has to learn, and ESP by it."""
    machine = ipsec.machine(lab, host)
    before = {each.spi for each in ipsec.inbound(lab, host, "esp")}
    with capturing(lab[CARRIER], PUBLIC_SIDE) as seen:
        strongswan.rekey_ike(machine, "esp")
        time.sleep(0.5)
        strongswan.rekey(machine, "esp")
        new = _new(lab, host, before)
    learned = {packet.octets[28:36] for packet in seen.packets if _is_port_500(packet.octets)} - cookies
    shown = ", ".join(f"{spi:#x}" for spi in sorted(new)) or "none"
    detail = f"SPI {shown}, initiator cookie {', '.join(each.hex() for each in learned) or 'as before'}"
    return Check(f"port 500: {host} keys IKE and ESP anew", bool(new) and len(learned) == 1, detail)


def _is_port_500(octets: bytes) -> bool:
    port = strongswan.IKE_PORT.to_bytes(2, "big")
    return octets[0] == 0x45 and octets[9] == Protocol.UDP and octets[20:24] == port * 2


SCENARIO = Scenario(
    name=NAME,
    title="Two hosts share one public address and both hold IPsec with the same stock peer: ESP, then AH",
    shows=("seed RSIP 3.4", "RFC 3104 3", "RFC 3104 4", "RFC 3104 5", "RFC 3104 6.1", "RFC 3104 6.2", "RFC 3102 6.2"),
    network=ipsec.network(NAME),
    start=start,
    play=play,
)
