# SPDX-License-Identifier: BSD-3-Clause
"""Sending captured packets through a plane: what 'isthmus check' does."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, assert_never

from isthmus.border.effect import Bind, Register
from isthmus.border.realm import Border
from isthmus.border.verdict import Drop, Forward, Hold, Pass, Punt, Reason, Reply, Verdict
from isthmus.cli.bindings_file import Place
from isthmus.daemon.config import Config
from isthmus.errors import IsthmusError, WireError
from isthmus.wire import pcapng
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.ipv6 import Ipv6View


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One packet of a capture, and where it came from."""

    number: int
    "Counted from 1, as tshark does."
    realm: int
    packet: bytes
    time: float
    "Seconds since 1970; 0 where the capture has none."


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a plane did with a packet."""

    verdict: str
    "forward, reply, drop, pass or punt."
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
    """What a plane must know, from a configuration; a host's own address from its bindings.

    Raises:
        IsthmusError: a host without bindings.
    """
    if config.gateway is not None:
        from isthmus.daemon import gateway

        return gateway.border(config)
    from isthmus.daemon import settlement

    assert config.host is not None
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


def arrivals(frames: Sequence[pcapng.Frame], border: Border, *, realm: str | None) -> Iterator[Arrival]:
    """Give the IP packets of a capture.

    A packet arrived in the realm that is named; or else, if the capture has several interfaces, in
    the realm of the same place in the file as its interface; or else in the near realm if it is addressed
    to a tunnel end there, and in the leased realm if not.
    """
    several = any(frame.interface for frame in frames)
    named = {each.name: each.number for each in border.realms}
    for number, frame in enumerate(frames, start=1):
        packet = pcapng.ip_octets(frame)
        if packet is None:
            continue
        if realm is not None:
            at = named[realm]
        elif several:
            at = border.realms[min(frame.interface, len(border.realms) - 1)].number
        else:
            at = _by_destination(packet, border)
        yield Arrival(number=number, realm=at, packet=packet, time=frame.time_ns / 1e9)


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


def reference(border: Border, effects: Sequence[Register | Bind], now: float) -> Replayed:  # noqa: ARG001
    """The reference plane, programmed."""
    from isthmus.plane.reference import ReferencePlane

    plane = ReferencePlane(border)
    plane.apply(effects)
    return plane


def kernel(border: Border, effects: Sequence[Register | Bind], now: float) -> Replayed:
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
