# SPDX-License-Identifier: BSD-3-Clause
"""The reference plane on a machine: it decides, ports carry.

Two uses. Alone, with rules that steer packets into its ports: slow, and right on every
machine that has veth and nftables. Behind the kernel plane, which redirects to the same ports what
it punts: then there are no rules.

=============================  ======================================================================
verdict                        is carried out by
=============================  ======================================================================
Forward into a realm           its port; the machine routes it on
Forward to a device            the device, whose program takes it
Reply                          the port of the realm that it goes to, or the device that asked
Pass                           the port that the packet came by; the machine takes or routes it
an IPv6 packet, of all these   a raw socket; the machine takes or routes it
one with a neighbour           the link of the realm, as a SIP frame
Drop                           nothing
=============================  ======================================================================

There is no loop in here: the driver waits on ``ports()`` and calls ``service``.

What goes on into a realm may be for us again there: a border that is an RSIP gateway, too, takes its hosts' tunnels
out of SIP packets, and puts what is for such hosts into SIP. So an IPv4 packet that arrives, by where it goes on, at
a tunnel end or at something bound in that realm is decided on once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from isthmus.address import Address, Family
from isthmus.border.binding import Binding, BindingKey
from isthmus.border.crossing import Translate
from isthmus.border.effect import Bind, Remap, Unbind
from isthmus.border.realm import Border, End
from isthmus.border.selector import Selector
from isthmus.border.table import BindingTable
from isthmus.border.verdict import Drop, Forward, Hold, Miss, Pass, Punt, Reason, Reply, Verdict, Violation
from isthmus.errors import PlaneError
from isthmus.plane import Programmable
from isthmus.plane.link import Port
from isthmus.plane.link.neighbour import NativeSender
from isthmus.plane.link.packet import Ipv6Sender, PacketPort, TransmitPort
from isthmus.plane.link.port import PuntPort
from isthmus.plane.link.steer import Steering, is_claimed
from isthmus.plane.reference import Contacts, ReferencePlane
from isthmus.plane.reference.path import Paths
from isthmus.plane.reference.ring import Ring

_IPV4 = 4
_TUNNELLED = (4, 41, 47)
_TURNS = 2
"""How often a packet may be for us again: a host's tunnel comes out of SIP, and goes round into that of another."""


class UserspacePlane:
    """A reference plane with ports.

    Args:
        border: Realms, tunnel ends and claims.
        ports: The port of each realm by its number; closed with the plane.
        steering: The rules that fill the ports; None where something else does. Closed with the plane.
        contacts: The memory of contacted peers; the kernel plane's behind it.
        paths: The memory of SPI paths; the kernel plane's behind it.
        ring: The memory of IPAE datagrams that were sent; the kernel plane's behind it.
        table: The bindings; behind the kernel plane one that knows what that keeps.
        take_devices: Whether to read the devices of bindings; behind the kernel plane they are only written to.
    """

    def __init__(
        self,
        border: Border,
        ports: Mapping[int, Port],
        *,
        steering: Steering | None = None,
        contacts: Contacts | None = None,
        paths: Paths | None = None,
        ring: Ring | None = None,
        table: BindingTable | None = None,
        take_devices: bool = True,
    ) -> None:
        self._border = border
        self._reference = ReferencePlane(border, contacts, paths, ring, table)
        self._special: dict[BindingKey, Binding] = {}
        self._ports = dict(ports)
        self._steering = steering
        self._take_devices = take_devices
        self._devices: dict[str, tuple[int, PacketPort]] = {}
        self._written: dict[str, TransmitPort] = {}
        self._ipv6: Ipv6Sender | None = None
        self._native: dict[int, NativeSender] = {}
        self._tunnel_ends = {(each.realm, each.address) for each in border.tunnel_ends}
        self._has_sip = any(realm.family is Family.SIP for realm in border.realms)
        self._host_realms = {realm.number for realm in border.realms if realm.end is End.HOST}
        self._lost = 0

    @classmethod
    def alone(cls, border: Border, name: str = "isthmus", taken: Iterable[Selector] = ()) -> UserspacePlane:
        """Make ports and rules for every realm that has an interface.

        Args:
            border: Realms, tunnel ends and claims.
            name: Ports are called by it and the number of their realm, the rules' table ``isthmus_NAME``.
            taken: What comes to the plane besides the claims, whether or not anything is bound there.

        Raises:
            PlaneError: something could not be made; nothing is left behind.
        """
        ports: dict[int, PuntPort] = {}
        try:
            for realm in border.realms:
                if realm.interface is not None:
                    ports[realm.number] = PuntPort(f"{name}{realm.number}")
            steering = Steering(name, border, {number: port.name for number, port in ports.items()}, taken)
        except BaseException:
            for port in ports.values():
                port.close()
            raise
        return cls(border, ports, steering=steering)

    @property
    def reference(self) -> ReferencePlane:
        """The plane that decides."""
        return self._reference

    @property
    def lost(self) -> int:
        """Packets that were decided on and that no port took."""
        return self._lost

    def apply(self, effects: Iterable[Programmable]) -> None:
        """Carry out effects in order; then devices and rules follow.

        Raises:
            PlaneError: the plane cannot; what was applied before the failing effect stands.
        """
        concerned = False
        try:
            for effect in effects:
                self._reference.apply((effect,))
                concerned = self._notice(effect) or concerned
        finally:
            if concerned:
                self._follow()

    def _notice(self, effect: Programmable) -> bool:
        """Whether devices or rules have to follow an effect; a lease of what the pools claim needs neither."""
        if isinstance(effect, Remap):
            return True
        if isinstance(effect, Unbind):
            return self._special.pop(effect.key, None) is not None
        if not isinstance(effect, Bind):
            return False
        binding = effect.binding
        before = self._special.pop(binding.key, None)
        covered = self._steering.covers(binding) if self._steering is not None else is_claimed(self._border, binding)
        if binding.device is not None or not covered:
            self._special[binding.key] = binding
        return before is not None or binding.key in self._special

    def _follow(self) -> None:
        """Take the devices that bindings name now, let go of the others, and widen the rules if they are too narrow."""
        if self._take_devices:
            wanted = self._wanted_devices()
            for name in [name for name, (_, port) in self._devices.items() if name not in wanted or port.vanished]:
                self._devices.pop(name)[1].close()
            for name, realm in wanted.items():
                if name not in self._devices:
                    # A device that has vanished is no error: its programs have, too.
                    with suppress(PlaneError):
                        self._devices[name] = (realm, PacketPort(name))
        named = {each.device for each in self._special.values()}
        for name in [name for name, port in self._written.items() if name not in named or port.vanished]:
            self._written.pop(name).close()
        if self._steering is not None:
            self._steering.follow(self._special.values(), self._reference.table.mappings)

    def _wanted_devices(self) -> dict[str, int]:
        """Every device, with the realm that its packets come in.

        A device of IPAE is where SIP becomes what programs understand: what they send is of the realm of their sockets.
        """
        wanted: dict[str, int] = {}
        for each in self._special.values():
            if each.device is not None:
                crossing = each.crossing
                from_sip = self._border.realm(each.realm).family is Family.SIP and isinstance(crossing, Translate)
                wanted[each.device] = crossing.realm if from_sip else each.realm
        return wanted

    def ports(self) -> list[Port | NativeSender]:
        """Whatever can be waited on, now; ask again after ``apply``, and after ``service``."""
        devices = (port for _realm, port in self._devices.values())
        return [*self._ports.values(), *devices, *self._native.values()]

    def service(self, port: Port | NativeSender, *, now: float, most: int = 64) -> int:
        """Process what waits at a port.

        Args:
            port: One of ``ports()``; one that has been let go of since is no error.
            now: Seconds since 1970.
            most: How many packets at most, so that other ports have their turn.

        Returns:
            How many there were.
        """
        if isinstance(port, NativeSender):
            port.flush()
            return 0
        realm = self._realm_of(port)
        if realm is None:
            return 0
        device = next((name for name, (_, each) in self._devices.items() if each is port), None)
        for count in range(most):
            packet = port.receive()
            if packet is None:
                return count
            if port.native:
                self._take_sip(realm, packet, port, now)
            else:
                verdict = self._reference.process(realm, packet, now=now, device=device or port.origin)
                self.carry_out(verdict, packet, port, now=now)
        return most

    def _take_sip(self, link: int, packet: bytes, port: Port, now: float) -> None:
        """A SIP packet by the link of an IPv4 realm; where no SIP is spoken the machine would drop it, too."""
        sip = self._border.realm(link).sip
        if sip is not None:
            verdict = self._reference.process(sip, packet, now=now, link=link)
            if not isinstance(verdict, Pass):
                self.carry_out(verdict, packet, port, now=now)

    def misses(self) -> list[Miss]:
        """Packets that wait for an address to be known, since the last call, oldest first."""
        return self._reference.misses()

    def emit(self, realm: int, packet: bytes) -> None:
        """Send an IPv4 packet of our own into a realm, by the machine's routes."""
        self._hand(self._ports.get(realm), packet, forwarded=True)

    def process_again(self, miss: Miss, *, now: float) -> None:
        """Decide anew about a packet that has waited."""
        arrived = self._ports.get(miss.arrived if miss.link is None else miss.link)
        verdict = self._reference.process(miss.arrived, miss.packet, now=now, link=miss.link)
        self.carry_out(verdict, miss.packet, arrived, now=now)

    def carry_out(
        self, verdict: Verdict, packet: bytes, came_by: Port | None, *, now: float, again: int = _TURNS
    ) -> None:
        """Do what a verdict says; a packet that no port takes is lost, like on any wire.

        Args:
            verdict: About the packet.
            packet: As it came.
            came_by: Where from.
            now: Seconds since 1970.
            again: How often what is for us again where it goes on is decided on once more.
        """
        match verdict:
            case Forward():
                for each in verdict.packets:
                    if again and verdict.device is None and self._is_ours(verdict.realm, each):
                        anew = self._reference.process(verdict.realm, each, now=now)
                        self.carry_out(anew, each, self._ports.get(verdict.realm), now=now, again=again - 1)
                    else:
                        forwarded = verdict.device is None and verdict.realm not in self._host_realms
                        self._send(verdict, each, forwarded=forwarded)
            case Reply():
                if self._is_for_an_end(verdict):
                    # What we tunnelled did not fit where we put it into SIP: the tunnel's end, we, has to hear of it.
                    self._reference.process(verdict.realm, verdict.packet, now=now)
                self._send(verdict, verdict.packet, forwarded=verdict.device is None)
            case Pass():
                for each in verdict.packets or (packet,):
                    self._hand(came_by, each, forwarded=False)
            case Drop() | Hold() | Punt():
                pass

    def _is_for_an_end(self, verdict: Reply) -> bool:
        """Whether an answer goes to a tunnel end of ours."""
        if not self._has_sip or verdict.device is not None or verdict.packet[0] >> 4 != _IPV4:
            return False
        return (verdict.realm, Address.from_octets(verdict.packet[16:20])) in self._tunnel_ends

    def _is_ours(self, realm: int, packet: bytes) -> bool:
        """Whether an IPv4 packet that goes on into a realm concerns us there again."""
        if not self._has_sip or packet[0] >> 4 != _IPV4:
            return False
        destination = Address.from_octets(packet[16:20])
        if (realm, destination) in self._tunnel_ends:
            return packet[9] in _TUNNELLED
        entry = self._reference.table.route(realm, destination)
        return entry is not None and isinstance(entry.binding.crossing, Translate)

    def _way(self, verdict: Forward | Reply) -> Port | TransmitPort | None:
        """The device that a verdict names, or the port of the realm where it names none."""
        if verdict.device is None:
            return self._ports.get(verdict.realm)
        found = self._devices.get(verdict.device)
        if found is not None or self._take_devices:
            return found[1] if found is not None else None
        if verdict.device not in self._written:
            with suppress(PlaneError):
                self._written[verdict.device] = TransmitPort(verdict.device)
        return self._written.get(verdict.device)

    def _send(self, verdict: Forward | Reply, packet: bytes, *, forwarded: bool) -> None:
        if verdict.neighbour is not None:
            sender = self._native_sender(verdict.realm)
            self._lost += sender is None or not sender.send(packet, verdict.neighbour)
        elif verdict.device is not None:
            way = self._way(verdict)
            self._lost += way is None or not way.send(packet, forwarded=forwarded)
        else:
            self._hand(self._way(verdict), packet, forwarded=forwarded)

    def _native_sender(self, realm: int) -> NativeSender | None:
        """What sends SIP on the link of a realm; made anew with its interface."""
        known = self._native.get(realm)
        if known is not None and not known.vanished:
            return known
        if known is not None:
            self._native.pop(realm).close()
        interface = self._border.realm(realm).interface
        if interface is not None:
            with suppress(PlaneError):
                self._native[realm] = NativeSender(interface)
        return self._native.get(realm)

    def _hand(self, way: Port | TransmitPort | None, packet: bytes, *, forwarded: bool) -> None:
        """Give a packet to the machine's IP stack."""
        if packet[0] >> 4 == 6:
            self._ipv6 = self._ipv6 or Ipv6Sender()
            self._lost += not self._ipv6.send(packet)
        elif way is None or not way.send(packet, forwarded=forwarded):
            self._lost += 1

    def _realm_of(self, port: Port) -> int | None:
        for number, each in self._ports.items():
            if each is port:
                return number
        for realm, each in self._devices.values():
            if each is port:
                return realm
        return None

    def counters(self) -> Mapping[Reason, int]:
        """Packets by reason."""
        return self._reference.counters()

    def events(self) -> list[Violation]:
        """The violations seen since the last call, oldest first."""
        return self._reference.events()

    def close(self) -> None:
        """Remove rules, then ports: packets find their way past us before they find us gone."""
        try:
            if self._steering is not None:
                self._steering.close()
        finally:
            for port in self.ports():
                port.close()
            for each in self._written.values():
                each.close()
            for number in list(self._native):
                self._native.pop(number).close()
            if self._ipv6 is not None:
                self._ipv6.close()
            self._ports.clear()
            self._devices.clear()
            self._written.clear()
            self._reference.close()
