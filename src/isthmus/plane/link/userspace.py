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
Drop                           nothing
=============================  ======================================================================

There is no loop in here: the driver waits on ``ports()`` and calls ``service``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from isthmus.border.binding import Binding, BindingKey
from isthmus.border.effect import Bind, Unbind
from isthmus.border.realm import Border, End
from isthmus.border.verdict import Drop, Forward, Hold, Pass, Punt, Reason, Reply, Verdict, Violation
from isthmus.errors import PlaneError
from isthmus.plane import Programmable
from isthmus.plane.link import Port
from isthmus.plane.link.packet import Ipv6Sender, PacketPort, TransmitPort
from isthmus.plane.link.port import PuntPort
from isthmus.plane.link.steer import Steering, is_claimed
from isthmus.plane.reference import Contacts, ReferencePlane
from isthmus.plane.reference.path import Paths


class UserspacePlane:
    """A reference plane with ports.

    Args:
        border: Realms, tunnel ends and claims.
        ports: The port of each realm by its number; closed with the plane.
        steering: The rules that fill the ports; None where something else does. Closed with the plane.
        contacts: The memory of contacted peers; the kernel plane's behind it.
        paths: The memory of SPI paths; the kernel plane's behind it.
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
        take_devices: bool = True,
    ) -> None:
        self._border = border
        self._reference = ReferencePlane(border, contacts) if paths is None else ReferencePlane(border, contacts, paths)
        self._special: dict[BindingKey, Binding] = {}
        self._ports = dict(ports)
        self._steering = steering
        self._take_devices = take_devices
        self._devices: dict[str, tuple[int, PacketPort]] = {}
        self._written: dict[str, TransmitPort] = {}
        self._ipv6: Ipv6Sender | None = None
        self._host_realms = {realm.number for realm in border.realms if realm.end is End.HOST}
        self._lost = 0

    @classmethod
    def alone(cls, border: Border, name: str = "isthmus") -> UserspacePlane:
        """Make ports and rules for every realm that has an interface.

        Args:
            border: Realms, tunnel ends and claims.
            name: Ports are called by it and the number of their realm, the rules' table ``isthmus_NAME``.

        Raises:
            PlaneError: something could not be made; nothing is left behind.
        """
        ports: dict[int, PuntPort] = {}
        try:
            for realm in border.realms:
                if realm.interface is not None:
                    ports[realm.number] = PuntPort(f"{name}{realm.number}")
            steering = Steering(name, border, {number: port.name for number, port in ports.items()})
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
        if isinstance(effect, Unbind):
            return self._special.pop(effect.key, None) is not None
        if not isinstance(effect, Bind):
            return False
        binding = effect.binding
        before = self._special.pop(binding.key, None)
        if binding.device is not None or not is_claimed(self._border, binding):
            self._special[binding.key] = binding
        return before is not None or binding.key in self._special

    def _follow(self) -> None:
        """Take the devices that bindings name now, let go of the others, and widen the rules if they are too narrow."""
        if self._take_devices:
            wanted = {each.device: each.realm for each in self._special.values() if each.device is not None}
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
            self._steering.follow(self._special.values())

    def ports(self) -> list[Port]:
        """Whatever can be waited on, now; ask again after ``apply``."""
        return [*self._ports.values(), *(port for _realm, port in self._devices.values())]

    def service(self, port: Port, *, now: float, most: int = 64) -> int:
        """Process what waits at a port.

        Args:
            port: One of ``ports()``; one that has been let go of since is no error.
            now: Seconds since 1970.
            most: How many packets at most, so that other ports have their turn.

        Returns:
            How many there were.
        """
        realm = self._realm_of(port)
        if realm is None:
            return 0
        device = next((name for name, (_, each) in self._devices.items() if each is port), None)
        for count in range(most):
            packet = port.receive()
            if packet is None:
                return count
            verdict = self._reference.process(realm, packet, now=now, device=device or port.origin)
            self.carry_out(verdict, packet, port)
        return most

    def carry_out(self, verdict: Verdict, packet: bytes, came_by: Port) -> None:
        """Do what a verdict says; a packet that no port takes is lost, like on any wire."""
        match verdict:
            case Forward():
                for each in verdict.packets:
                    self._send(self._way(verdict), each, forwarded=verdict.realm not in self._host_realms)
            case Reply():
                self._send(self._way(verdict), verdict.packet, forwarded=verdict.device is None)
            case Pass():
                for each in verdict.packets or (packet,):
                    self._send(came_by, each, forwarded=False)
            case Drop() | Hold() | Punt():
                pass

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

    def _send(self, way: Port | TransmitPort | None, packet: bytes, *, forwarded: bool) -> None:
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
            if self._ipv6 is not None:
                self._ipv6.close()
            self._ports.clear()
            self._devices.clear()
            self._written.clear()
            self._reference.close()
