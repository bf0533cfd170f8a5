# SPDX-License-Identifier: BSD-3-Clause
"""Sending captured packets through a plane: what 'isthmus check' does."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, assert_never

from isthmus.address import Family
from isthmus.border.effect import Bind, Register, Remap
from isthmus.border.realm import Border
from isthmus.border.verdict import Drop, Forward, Hold, Pass, Punt, Reason, Reply, Verdict
from isthmus.cli.bindings_file import Place
from isthmus.daemon.config import Config
from isthmus.errors import IsthmusError, WireError
from isthmus.wire import pcapng
from isthmus.wire.ipv4 import MINIMUM_OCTETS, Ipv4View
from isthmus.wire.ipv6 import Ipv6View
from isthmus.wire.sip import ipae

Standing = Register | Bind | Remap
"""What a plane is programmed with before the first packet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One packet of a capture, and where it came from."""

    number: int
    "Counted from 1, as tshark does."
    realm: int
    packet: bytes
    time: float
    "Seconds since 1970; 0 where the capture has none."
    kind: int | None = None
    "EtherType; None: the capture has none."


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a plane did with a packet."""

    verdict: str
    "forward, reply, drop, hold, pass or punt."
    reason: Reason
    realm: int | None = None
    "Where what was sent went."
    packets: tuple[bytes, ...] = ()
    "What was sent."


class Replayed(Protocol):
    """A plane that decides about single packets."""

    def process(self, realm: int, packet: bytes, *, now: float) -> Verdict:
        """Decide about one packet, and count it."""

    def counters(self) -> Mapping[Reason, int]:
        """Packets by reason."""

    def close(self) -> None:
        """Let go of it."""


_ETHERTYPE_IPV6 = 0x86DD
_TUNNEL_MTU = 1480
"""Where neither the configuration nor a binding says it: IP-IP over Ethernet."""


def place_of(config: Config) -> Place:
    """What a configuration says about bindings; its gateway's, if it has two roles."""
    from isthmus.daemon import config as configuration

    realms = {each.name: config.realm_number(each.name) for each in config.realm}
    gateway = config.gateway
    if gateway is not None:
        end = configuration.address(next(iter(gateway.tunnel_address or gateway.address)))
        mtu = gateway.tunnel_mtu or _TUNNEL_MTU
        return Place(realms=realms, leased=realms[gateway.realm], our_end=end, tunnel_mtu=mtu)
    from isthmus.daemon.settlement import LEASED_REALM

    return Place(realms=realms | {"leased": LEASED_REALM}, leased=LEASED_REALM, our_end=None)


def border_of(config: Config, effects: Sequence[Register | Bind]) -> Border:
    """What the plane of a gateway or host must know, from a configuration; a host's own address from its bindings.

    Raises:
        IsthmusError: a host without bindings, or neither of the two.
    """
    if config.gateway is not None:
        from isthmus.daemon import gateway

        return gateway.border(config)
    from isthmus.daemon import settlement

    if config.host is None:
        raise IsthmusError("an [endpoint] holds what its gateway tells it: check with the gateway's configuration")
    here = next((each.binding.tunnel.local for each in effects if isinstance(each, Bind)), None)
    if here is None:
        raise IsthmusError("a host's configuration says nothing of its leases: give them with --leases")
    return settlement.border(config, config.realm_number(config.host.near), here)


def standing(path: Path) -> tuple[Register | Bind, ...]:
    """What a lease store holds, as a plane learns it at a restart.

    Raises:
        StoreUnavailable: there is none, or it cannot be read.
    """
    from isthmus.cli.output import existing_store

    with existing_store(path) as store:
        kept = store.load(rested_since=0.0)
    registered = tuple(Register(registration=each) for each in kept.registrations)
    return registered + tuple(Bind(binding=each.binding, lease=each.lease) for each in kept.bindings)


RealmOf = Callable[[int | None, bytes], int]
"""Guesses the realm that a packet arrived in, from its EtherType, if that is known, and its octets."""


def arrivals(
    frames: Sequence[pcapng.Frame], border: Border, *, realm: str | None, realm_of: RealmOf | None = None
) -> Iterator[Arrival]:
    """Give the IP packets of a capture.

    A packet arrived in the realm that is named; or else, if the capture has several interfaces, in
    the realm of the same place in the file as its interface; or else where ``realm_of`` says; without that in
    the near realm if it is addressed to a tunnel end there, and in the leased realm if not.
    """
    several = any(frame.interface for frame in frames)
    named = {each.name: each.number for each in border.realms}
    links = [each.number for each in border.realms if each.family is not Family.SIP]
    for number, frame in enumerate(frames, start=1):
        found = pcapng.network(frame)
        if found is None:
            continue
        kind, packet = found
        if realm is not None:
            at = named[realm]
        elif several:
            at = links[min(frame.interface, len(links) - 1)]
        else:
            at = _by_destination(packet, border) if realm_of is None else realm_of(kind, packet)
        if kind == _ETHERTYPE_IPV6 and border.realm(at).sip is not None:
            continue  # IPv6 beside SIP on one link: no plane is given any
        yield Arrival(number=number, realm=at, packet=packet, time=frame.time_ns / 1e9, kind=kind)


def first_time(frames: Sequence[pcapng.Frame]) -> float:
    """The time of the first packet, in seconds since 1970; 0 where there is none."""
    return frames[0].time_ns / 1e9 if frames else 0.0


def packets(path: Path) -> list[bytes]:
    """The IP packets of a capture, without link headers.

    Raises:
        IsthmusError: the capture is damaged.
    """
    return [packet for frame in frames(path) if (packet := pcapng.ip_octets(frame)) is not None]


def write(path: Path, sent: Sequence[tuple[float, int, bytes]], border: Border) -> None:
    """Write what a plane sent as a capture with one interface for each realm."""
    interfaces = {}
    with path.open("wb") as file:
        writer = pcapng.CaptureWriter(file)
        for each in border.realms:
            interfaces[each.number] = writer.add_interface(pcapng.RAW, name=each.name)
        for time, realm, packet in sent:
            writer.write(pcapng.Frame(octets=packet, time_ns=round(time * 1e9), interface=interfaces[realm]))


def outcome(verdict: Verdict) -> Outcome:
    """A verdict as it is shown and compared."""
    match verdict:
        case Forward():
            return Outcome(verdict="forward", reason=verdict.reason, realm=verdict.realm, packets=verdict.packets)
        case Reply():
            return Outcome(verdict="reply", reason=verdict.reason, realm=verdict.realm, packets=(verdict.packet,))
        case Drop():
            return Outcome(verdict="drop", reason=verdict.reason)
        case Hold():
            return Outcome(verdict="hold", reason=Reason.HELD)
        case Pass():
            return Outcome(verdict="pass", reason=Reason.PASSED)
        case Punt():
            return Outcome(verdict="punt", reason=Reason.PUNTED)
        case _:
            assert_never(verdict)


def without_numbers(outcome: Outcome) -> Outcome:
    """An outcome without the identification of IPAE datagrams: each plane counts its own (docs/data-plane.md)."""
    return replace(outcome, packets=tuple(map(_unnumbered, outcome.packets)))


def _unnumbered(packet: bytes) -> bytes:
    if len(packet) < MINIMUM_OCTETS or packet[0] >> 4 != 4 or packet[9] != ipae.PROTOCOL:
        return packet
    return packet[:4] + bytes(2) + packet[6:10] + bytes(2) + packet[12:]


def reference(border: Border, effects: Sequence[Standing], now: float) -> Replayed:  # noqa: ARG001
    """The reference plane, programmed."""
    from isthmus.plane.reference import ReferencePlane

    plane = ReferencePlane(border)
    plane.apply(effects)
    return plane


def kernel(border: Border, effects: Sequence[Standing], now: float) -> Replayed:
    """The kernel plane, programmed, whose clock says ``now``; packets go through the kernel's program test run.

    Raises:
        PlaneError: it cannot be loaded here.
    """
    from isthmus.cli.kernel_replay import KernelReplay

    return KernelReplay(border, effects, now)


def frames(path: Path) -> list[pcapng.Frame]:
    """Read a capture.

    Raises:
        IsthmusError: it is none, or damaged.
    """
    try:
        return list(pcapng.read(io.BytesIO(path.read_bytes())))
    except WireError as error:
        raise IsthmusError(f"{path} is no capture, or damaged: {error}") from error


def _by_destination(packet: bytes, border: Border) -> int:
    leads_to = border.tunnel_ends[0].leads_to
    try:
        view = Ipv6View.parse(packet) if packet[:1] and packet[0] >> 4 == 6 else Ipv4View.parse(packet)
    except WireError:
        return leads_to
    return next((end.realm for end in border.tunnel_ends if end.address == view.dst), leads_to)
