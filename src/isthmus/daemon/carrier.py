# SPDX-License-Identifier: BSD-3-Clause
"""Who carries packets between this machine's leased addresses and the gateway.

``PlaneCarrier``   one of our planes, with a veth pair for each device; checks every packet;
``NativeCarrier``  the kernel's own tunnel devices: nothing of ours is in the way, and nothing is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from isthmus.border.crossing import Tunnel
from isthmus.daemon import device as devices
from isthmus.daemon import native
from isthmus.daemon.offloop import off_loop
from isthmus.daemon.shared_plane import RolePlane
from isthmus.plane import Programmable


class Carrier(Protocol):
    """Whatever carries packets for a host."""

    @property
    def kind(self) -> str:
        """``kernel`` or ``reference`` for our planes, or ``native``."""

    @property
    def serves_programs(self) -> bool:
        """Whether it carries for devices in namespaces of programs."""

    def start(self) -> None:
        """Begin, from within the running event loop; holds nothing yet."""

    def open(self, name: str, tunnel: Tunnel) -> str:
        """Make a device of this machine for a tunnel; returns the name of the one to use.

        Raises:
            PlaneError: it cannot be made.
        """

    def shut(self, name: str) -> None:
        """Remove a device; one that is gone is no error."""

    def end(self, name: str) -> str | None:
        """What ``Binding.device`` is for a device of this machine."""

    def apply(self, effect: Programmable) -> None:
        """Carry out an effect; see ``plane.Plane``."""

    def counters(self) -> Mapping[str, int]:
        """Packets by reason."""

    def stop(self) -> None:
        """Take everything away."""


class PlaneCarrier:
    """One of our planes."""

    def __init__(self, plane: RolePlane) -> None:
        self._plane = plane
        self._devices: dict[str, devices.Device] = {}

    @property
    def kind(self) -> str:
        """``kernel`` or ``reference``."""
        return self._plane.kind

    @property
    def serves_programs(self) -> bool:
        """Yes."""
        return True

    def start(self) -> None:
        """Begin with an empty plane."""
        self._plane.reconcile(())
        self._plane.start(lambda _violations: None)

    def open(self, name: str, tunnel: Tunnel) -> str:
        """Make a veth pair, if there is none of this name yet."""
        if name not in self._devices:
            self._devices[name] = devices.create(name, mtu=tunnel.mtu)
        return name

    def shut(self, name: str) -> None:
        """Remove the pair."""
        device = self._devices.pop(name, None)
        if device is not None:
            devices.remove(device)

    def end(self, name: str) -> str | None:
        """The plane's end of the pair."""
        return devices.Device(name=name).plane_end

    def apply(self, effect: Programmable) -> None:
        """Tell the plane."""
        self._plane.apply((effect,))

    def counters(self) -> Mapping[str, int]:
        """What the plane counted."""
        return {reason.name: count for reason, count in self._plane.counters().items()}

    def stop(self) -> None:
        """Take plane and devices away."""
        self._plane.destroy()
        for name in tuple(self._devices):
            self.shut(name)


class NativeCarrier:
    """The kernel's own tunnel devices."""

    def __init__(self) -> None:
        self._devices: dict[str, Tunnel] = {}

    @property
    def kind(self) -> str:
        """``native``."""
        return "native"

    @property
    def serves_programs(self) -> bool:
        """No: one device has all that comes by a tunnel, and cannot tell programs' namespaces apart."""
        return False

    def start(self) -> None:
        """Nothing to do."""

    @off_loop
    def open(self, name: str, tunnel: Tunnel) -> str:
        """Make a tunnel device, or name the one that this tunnel has already."""
        ends = (tunnel.kind, tunnel.local, tunnel.remote)
        for known, other in self._devices.items():
            if (other.kind, other.local, other.remote) == ends:
                return known
        free = name
        while free in self._devices:
            free = f"{name[:11]}-{len(self._devices)}"
        native.create(free, tunnel)
        devices.prepare(free)
        self._devices[free] = tunnel
        return free

    @off_loop
    def shut(self, name: str) -> None:
        """Remove the device."""
        if self._devices.pop(name, None) is not None:
            native.remove(name)

    def end(self, name: str) -> str | None:  # noqa: ARG002
        """None: no plane takes part."""
        return None

    def apply(self, effect: Programmable) -> None:
        """Nothing to do: address and routes are all that this carrier needs."""

    def counters(self) -> Mapping[str, int]:
        """Nothing is counted; the devices' own counters are in ``ip -s link``."""
        return {}

    def stop(self) -> None:
        """Take the devices away."""
        for name in tuple(self._devices):
            self.shut(name)
