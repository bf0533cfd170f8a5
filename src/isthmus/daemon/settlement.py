# SPDX-License-Identifier: BSD-3-Clause
"""Leases made real on this machine: carrier, devices, addresses and ephemeral ports, in step.

A binding is programmed before its device gets the address, and the device loses the address before the
binding is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from isthmus.address import Address
from isthmus.border.binding import BindingKey, Lease, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind, overhead
from isthmus.border.effect import Bind, Deregister, Ending, Extend, Register, Unbind
from isthmus.border.ranges import merge
from isthmus.border.realm import Border, End, Realm, TunnelEnd
from isthmus.daemon.carrier import Carrier, NativeCarrier, PlaneCarrier
from isthmus.daemon.clock import Clock
from isthmus.daemon.config import Config
from isthmus.daemon.control import ControlError
from isthmus.daemon.ephemeral import MachinePorts
from isthmus.daemon.hostlink import interface_mtu
from isthmus.daemon.leased import LeasedAddresses
from isthmus.daemon.planes import MachinePlane
from isthmus.daemon.shared_plane import MakePlane
from isthmus.daemon.want import Want, binding_of
from isthmus.rsip.events import Assigned, Extended

LEASED_REALM = 1 << 16
"""Number of the realm that leased addresses belong to; those of the file count from 1."""


def border(config: Config, near: int, here: Address) -> Border:
    """What a host's plane must know.

    Args:
        config: For the realms.
        near: Number of the one that the gateway is in.
        here: Our address there: our end of the tunnels.
    """
    realms = [
        Realm(
            number=config.realm_number(each.name),
            name=each.name,
            interface=each.interface,
            mtu=min(65535, interface_mtu(each.interface)),
        )
        for each in config.realm
    ]
    realms.append(Realm(number=LEASED_REALM, name="leased", end=End.HOST))
    return Border(realms=tuple(realms), tunnel_ends=(TunnelEnd(realm=near, address=here, leads_to=LEASED_REALM),))


class Settlement:
    """What this machine holds.

    Args:
        config: Names realms and interfaces, and says who carries packets.
        clock: Seconds since 1970.
        near: Number of the realm that the gateway is in.
        here: Our address there.
        planes: Makes the plane.

    Raises:
        PlaneError: no plane can be had.
    """

    def __init__(
        self, config: Config, clock: Clock, *, near: int, here: Address, planes: MakePlane = MachinePlane
    ) -> None:
        assert config.host is not None
        self._section = config.host
        self._clock = clock
        self._near = near
        self._here = here
        self._interface = config.realm[near - 1].interface
        self._carrier: Carrier
        if self._section.tunnels == "native":
            self._carrier = NativeCarrier()
        else:
            self._carrier = PlaneCarrier(planes(config, border(config, near, here), clock))
        self._addresses = LeasedAddresses(self._carrier)
        self._ports = MachinePorts(config.isthmus.run / f"{config.isthmus.name}.ports")
        self._owners: dict[Owner, int] = {}
        self._wants: dict[int, Want] = {}

    @property
    def kind(self) -> str:
        """Who carries packets: ``kernel``, ``reference`` or ``native``."""
        return self._carrier.kind

    @property
    def serves_programs(self) -> bool:
        """Whether namespaces of programs can be served."""
        return self._carrier.serves_programs

    @property
    def wants(self) -> Iterable[Want]:
        """What is held, in the order of granting."""
        return tuple(self._wants.values())

    def get(self, bind_id: int) -> Want | None:
        """What a binding is held for."""
        return self._wants.get(bind_id)

    def start(self) -> None:
        """Begin with nothing."""
        self._carrier.start()

    def admit(self, endpoint: Address, *, client_id: int, expires_at: float) -> None:
        """Let packets in that come by the tunnels of a gateway, or of an endpoint that it named."""
        owner = Owner(self._near, endpoint)
        if self._owners.get(owner) != client_id:
            self._owners[owner] = client_id
            registration = Registration(owner=owner, client_id=client_id, expires_at=expires_at)
            self._carrier.apply(Register(registration=registration))

    def settle(self, want: Want, event: Assigned, *, client_id: int) -> None:
        """Make packets flow: device, binding, address, in this order.

        Raises:
            IsthmusError, OSError, NetlinkError: it cannot be done; ``evict`` clears up.
        """
        tunnel = self._tunnel(event)
        self.admit(event.tunnel_endpoint, client_id=client_id, expires_at=event.expires_at)
        device = None if want.device is None else self._carrier.open(want.device, tunnel)
        end = want.plane_end if device is None else self._carrier.end(device)
        key = BindingKey(Owner(self._near, event.tunnel_endpoint), event.bind_id)
        binding = binding_of(want, event, realm=LEASED_REALM, tunnel=tunnel, key=key, end=end)
        now = self._clock.now()
        lease = Lease(client_id=client_id, method=event.method, granted_at=now, expires_at=event.expires_at)
        want.held, want.key, want.tunnel, want.since, want.lives_on = event, key, tunnel, now, device or want.plane_end
        self._wants[event.bind_id] = want
        self._carrier.apply(Bind(binding=binding, lease=lease))
        if device is not None:
            shared = not event.whole
            self._addresses.settle(event.bind_id, device, event.address, want.routes, tunnel, shared=shared)
        self._draw_ports()

    def _tunnel(self, event: Assigned) -> Tunnel:
        """The way to the endpoint that the gateway named.

        Raises:
            ControlError: it is of another family than the gateway knows us by.
        """
        if event.tunnel_endpoint.family is not self._here.family:
            raise ControlError(f"the tunnel endpoint {event.tunnel_endpoint} cannot be reached from {self._here}")
        checksum = self._section.gre_checksum and event.tunnel_kind is TunnelKind.GRE
        mtu = interface_mtu(self._interface) - overhead(event.tunnel_kind, self._here.family, checksum=checksum)
        return Tunnel(
            realm=self._near,
            local=self._here,
            remote=event.tunnel_endpoint,
            kind=event.tunnel_kind,
            mtu=min(mtu, 65535),
            checksum=checksum,
        )

    def extend(self, event: Extended) -> None:
        """A lease lasts longer."""
        want = self._wants.get(event.bind_id)
        if want is not None and want.held is not None and want.key is not None:
            want.held = replace(want.held, expires_at=event.expires_at)
            self._carrier.apply(Extend(key=want.key, expires_at=event.expires_at))

    def evict(self, bind_id: int, ending: Ending) -> Want | None:
        """A lease is over: returns what it was held for, if it was held."""
        want = self._wants.pop(bind_id, None)
        self._addresses.leave(bind_id)
        if want is None or want.key is None:
            return None
        self._carrier.apply(Unbind(key=want.key, ending=ending))
        want.held = want.key = want.lives_on = None
        self._draw_ports()
        return want

    def dismiss(self, ending: Ending) -> None:
        """The registration is over; call it when every lease is."""
        for owner in self._owners:
            self._carrier.apply(Deregister(owner=owner, ending=ending))
        self._owners.clear()

    def _draw_ports(self) -> None:
        """Let this machine's programs draw from what it holds for them."""
        held = [want.held.ports for want in self._wants.values() if want.ephemeral and want.held is not None]
        self._ports.draw_from(merge(each for each in held if each is not None))

    def counters(self) -> Mapping[str, int]:
        """Packets by reason."""
        return self._carrier.counters()

    def stop(self) -> None:
        """Take everything away."""
        self._addresses.clear()
        self._carrier.stop()
        self._ports.restore()
