# SPDX-License-Identifier: BSD-3-Clause
"""The kernel plane: effects in, map entries out; packets never come here.

::

    effects ──▶ Image (what the maps should hold) ──▶ changes ──▶ maps and slice words
                                                          ▲
    pinned maps, after a restart: only what differs ──────┘

With a directory for pins, program and maps outlive the process, and packets flow on while
it is away, until the deadlines in the entries pass.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from isthmus.address import Family
from isthmus.border.binding import Binding, BindingKey, Owner
from isthmus.border.crossing import Translate, Way
from isthmus.border.effect import Bind, Deregister, Ending, Register, Unbind
from isthmus.border.plain import Hosts, PlainLeases, unnamed
from isthmus.border.realm import Border
from isthmus.border.verdict import Reason, Violation
from isthmus.errors import PlaneError
from isthmus.plane import Planned, Programmable, one_by_one
from isthmus.plane.kernel import own
from isthmus.plane.kernel.attach import Link, Links, MachineLinks
from isthmus.plane.kernel.blocks import Blocks
from isthmus.plane.kernel.briefs import Briefs
from isthmus.plane.kernel.contact import KernelContacts, forget_old
from isthmus.plane.kernel.image import Image, is_ipae
from isthmus.plane.kernel.interfaces import Interfaces
from isthmus.plane.kernel.loader import Program, RingBuffer
from isthmus.plane.kernel.mapping import KernelMappings
from isthmus.plane.kernel.maps import NOWHERE, Codec
from isthmus.plane.kernel.number import TEMPLATES, Numbers, Slots
from isthmus.plane.kernel.owners import Owners
from isthmus.plane.kernel.path import KernelPaths
from isthmus.plane.kernel.pinned import Loaded, Sizes
from isthmus.plane.kernel.ring import KernelRing
from isthmus.plane.kernel.sizes import checked, sizes_for
from isthmus.plane.kernel.table import SharedTable
from isthmus.plane.kernel.trace import Reader
from isthmus.plane.kernel.uniform import Groups
from isthmus.plane.kernel.uniform_ipv6 import Groups6
from isthmus.plane.kernel.write import Writer, numbered_tags
from isthmus.plane.kernel.xdp import AtXdp
from isthmus.plane.reference.ways import Condition


class KernelPlane:
    """A plane in eBPF at TC. ``docs/data-plane.md`` says what it does with a packet.

    Args:
        border: Realms, tunnel ends and claims.
        pin: A directory under which program and maps outlive this process; a BPF file system is mounted
            there if it is not on one. None: they end with the process.
        boot_offset: Seconds since 1970 at which CLOCK_BOOTTIME was 0, by the clock that deadlines are in.
        links: The interfaces; those of this network namespace if not given.
        sizes: How much the maps hold; enough for the border's claims if not given.

    Raises:
        Unsupported: the machine lacks something; says what and what to do.
    """

    def __init__(
        self,
        border: Border,
        *,
        pin: Path | None,
        boot_offset: float,
        links: Links | None = None,
        sizes: Sizes | None = None,
    ) -> None:
        self._border = checked(border)
        self._links = links or MachineLinks()
        self._shift = border.slice_size.bit_length() - 1
        wanted = sizes or sizes_for(border)
        wanted = replace(wanted, endpoints=wanted.endpoints + TEMPLATES)
        self._loaded = Loaded.open(pin, wanted, slice_size=border.slice_size, ipae=is_ipae(border))
        self._maps = self._loaded.maps
        self._codec = Codec(self._loaded.types, boot_offset=boot_offset)
        self._reader = Reader(self._loaded.types)
        self._memory = self._maps["slices"].mapped()
        self._words = memoryview(self._memory).cast("Q")
        self._contact_map = self._maps["contacted"].mapped()
        self._contact_memory = memoryview(self._contact_map).cast("I")
        self._sent, self._rules = self._maps["ring"].mapped(), self._maps["rules"].mapped()
        self._briefs = Briefs(self._maps["briefs"].mapped(), self._words)
        self._blocks = Blocks(self._maps["blocks"].mapped(), self._words)
        self._writer = Writer(self._maps, self._words, self._briefs, self._blocks, self._rules)
        self._mappings = KernelMappings(self._maps["mappings"], self._known_mappings())
        self._ring = RingBuffer(self._maps["events"])
        self._groups: Groups | None = None
        self._groups6: Groups6 | None = None
        self._devices: Counter[str] = Counter()
        self._ways: dict[int, str] = {}
        "The interface of each realm that has one."
        self._xdp = AtXdp(self._loaded, self._links)
        self._interfaces = Interfaces(self._maps, self._codec, self._links, border)
        self._image = self._fresh_image()
        self._pending = self._loaded.adopted
        if not self._pending:
            self._writer.write(self._image.batches())
            self._write_rules()

    @property
    def adopted(self) -> bool:
        """Whether the maps were there already; then the first ``apply`` is a ``reconcile``."""
        return self._loaded.adopted

    @property
    def replaced(self) -> str:
        """Why pinned maps could not be adopted, for the log; "" if there were none or they could."""
        return self._loaded.replaced

    # --- Plane ----------------------------------------------------------------------------

    def apply(self, effects: Iterable[Planned]) -> None:
        """Carry out effects in order; when it returns, packets already follow them.

        The first call of a plane that adopted pinned maps is a ``reconcile``.

        Raises:
            PlaneError: the plane cannot. What was applied before an effect that it refuses stands; where a map is full,
                all that ends has ended, and no binding of this call stands, nor what registers beyond that.
        """
        if self._pending:
            self.reconcile(one_by_one(effects))
            return
        done: list[tuple[Planned, str | None]] = []
        try:
            for effect in effects:
                gone = self._device_of(effect) if self._devices else None
                self._image.apply(effect)
                done.append((effect, gone))
        finally:
            try:
                self._writer.write(self._image.batches())
            except PlaneError:
                self._take_back([effect for effect, _ in done])
                raise
            for effect, gone in done:
                self._serve_devices(effect, gone)

    def reconcile(
        self,
        effects: Iterable[Programmable],
        plain: Sequence[PlainLeases] = (),
        registered: Sequence[Hosts] = (),
    ) -> None:
        """Make the maps hold what these effects and columns say and nothing else, writing only what differs.

        What stands in both is never interrupted; new things come before old ones go.

        Raises:
            PlaneError: an effect that the plane cannot carry out; the maps are as before.
        """
        image = self._fresh_image(known=True)
        devices: Counter[str] = Counter()
        if plain or registered:
            from isthmus.plane.kernel import columns

            for binding, expires_at in columns.fill(image, plain, registered):
                image.apply(Bind(binding=binding, lease=unnamed(expires_at)))
        for effect in effects:
            image.apply(effect)
        for binding in image.objects():
            if binding.device is not None:
                devices[binding.device] += 1
        image.batches()
        self._write_rules()
        self._show_runs(image, only_same=True)
        self._writer.difference(image)
        self._show_runs(image)
        image.settle()
        self._mappings.settle(set(self._known_mappings().values()))
        self._image, self._pending = image, False
        self._interfaces.renew()
        self._renew_realms()
        for name in [*self._devices, *devices]:
            if name in devices:
                self._begin_device(name, next(self._realm_of(each) for each in image.objects() if each.device == name))
            else:
                self.detach(name)
        self._devices = devices

    def limit(self, way: Way, octets: int | None) -> None:
        """Put no more into the tunnels between two ends than fits an outer packet (RFC 2003 §5.1).

        Args:
            way: The ends; tunnels between them may come and go.
            octets: Largest outer packet, its header included; None: whatever the tunnels were made for.

        Raises:
            PlaneError: all endpoint numbers are in use; nothing changed.
        """
        self._image.limit(way, octets)
        if not self._pending:
            self._writer.write(self._image.batches())

    def condition(self, way: Way, known: Condition | None) -> None:
        """Leave to the reference plane what would not come through between two IPAE systems (spec 6.4, layer 3).

        Args:
            way: The ends.
            known: What it knows of the way; None: nothing any more.
        """
        key = self._codec.way_key(way)
        if known is None:
            self._maps["ways"].remove(key)
        else:
            self._maps["ways"].put(key, self._codec.way(known))

    def counters(self) -> Mapping[Reason, int]:
        """Packets by reason, since the maps were made."""
        totals = self._maps["counters"].totals()
        return {reason: totals[reason] for reason in Reason}

    def events(self) -> list[Violation]:
        """The violations seen since the last call, oldest first."""
        return [self._reader.violation(octets) for octets in self._ring.drain()]

    def forget_old_contacts(self) -> None:
        """Empty the words of peers not written to for long; call it once a day.

        Epochs have twelve bits: a word that is never looked at would be young again after three days.
        """
        forget_old(self._contact_memory, int(time.clock_gettime(time.CLOCK_BOOTTIME)))

    @property
    def contacts(self) -> KernelContacts:
        """The program's memory of contacted peers, for the reference plane behind it."""
        return KernelContacts(self._contact_memory, self._codec, self._tag)

    @property
    def paths(self) -> KernelPaths:
        """The program's memory of who sent what in ESP and AH, for the reference plane behind it."""
        return KernelPaths(self._maps["paths"], self._codec, tag=self._tag, owner=self._owner)

    def table(self) -> SharedTable:
        """The binding table for the reference plane behind it."""
        return SharedTable(self._border.claims, lambda: self._image)

    @property
    def ring(self) -> KernelRing:
        """The program's memory of what it sent as IPAE datagrams, for the reference plane behind it."""
        return KernelRing(self._sent, self._rules, self._codec)

    @property
    def groups(self) -> Groups:
        """Which destinations go the same way; whoever uses this has to follow the machine's routes."""
        if self._groups is None:
            self._groups = Groups(self._maps["groups"], self._maps["gateways"], self._maps["followed"])
        return self._groups

    @property
    def groups6(self) -> Groups6:
        """The same of IPv6."""
        if self._groups6 is None:
            self._groups6 = Groups6(self._maps["groups6"], self._maps["gateways"], self._maps["followed"])
        return self._groups6

    @property
    def mapping_octets(self) -> int:
        """Memory of the mappings in the kernel that this plane has loaded."""
        return self._mappings.octets

    def _tag(self, owner: Owner) -> int:
        return self._image.tag(owner)

    def _owner(self, tag: int) -> Owner | None:
        return self._image.owner(tag)

    def fileno(self) -> int:
        """Readable when there are ``events``."""
        return self._ring.fileno()

    def close(self) -> None:
        """Let go of the plane. What is pinned goes on forwarding."""
        self._ring.close()
        self._briefs.close()
        self._blocks.close()
        self._words.release()
        self._memory.close()
        self._contact_memory.release()
        self._contact_map.close()
        self._mappings.close()
        for each in (self._groups, self._groups6):
            if each is not None:
                each.close()
        self._sent.close()
        self._rules.close()
        self._loaded.close()

    def destroy(self) -> None:
        """Detach and unpin everything, then let go: packets are the machine's own again."""
        self._interfaces.leave_all()
        self._loaded.unpin()
        self.close()

    # --- interfaces -----------------------------------------------------------------------

    @property
    def program(self) -> Program:
        """What is attached: IPAE's program where there are SIP realms, and RSIP's alone where there are none."""
        return self._loaded.programs["ipae" if is_ipae(self._border) else "border"]

    def attach(self, realm: int, interface: str, *, punt: str | None = None, xdp: bool = False) -> str:
        """Take what arrives at an interface as packets of a realm, and send into the realm by it.

        Args:
            realm: Number of the realm.
            interface: Its name.
            punt: The port to the reference plane: where packets go that need a reply; None: they are dropped.
            xdp: Decide before TC what can be decided there.

        Returns:
            Why nothing is decided at XDP though that was wanted; else "".

        Raises:
            PlaneError: there is no such interface, or the kernel refuses.
        """
        link = self._need(interface)
        self._ways[realm] = interface
        refused = self._xdp.attach(realm, link, ipae=is_ipae(self._border)) if xdp else self._xdp.detach(realm, link)
        self._enter_realm(realm, link, 0 if punt is None else self._need(punt).index)
        self._interfaces.take(interface, link, realm, self._border.realm(realm).end, self.program)
        return refused

    def punt(self, realm: int, port: str) -> None:
        """Name the port to the reference plane of a realm, and nothing else: a host's leases have no interface.

        Raises:
            PlaneError: there is no such port.
        """
        way = self._ways.get(realm)
        self._enter_realm(realm, None if way is None else self._links.find(way), self._need(port).index)

    def _enter_realm(self, realm: int, link: Link | None, port: int) -> None:
        mtu = self._border.realm(realm).mtu
        index, mtu = (0, mtu) if link is None else (link.index, min(link.mtu, mtu))
        key = self._codec.realm_key(realm)
        xdp = link is not None and realm in self._xdp.realms
        value = self._codec.realm(realm, index, port, mtu, ipae=is_ipae(self._border), xdp=xdp)
        if self._pending:
            # The words are still those of the process before, and so is the run.
            before = self._maps["realms"].get(key) or value
            run = self._codec.run_of(before) if self._codec.number_of_realm(before) == realm else None
        else:
            run = self._image.run(realm)
        self._maps["realms"].put(key, self._codec.with_run(value, run))

    def _show_runs(self, image: Image, *, only_same: bool = False) -> None:
        """Let the realms have the runs that an image says; if its words are yet to come, only those that they have."""
        for key, value in list(self._maps["realms"].used()):
            run = image.run(self._codec.number_of_realm(value))
            after = None if only_same and run != self._codec.run_of(value) else run
            self._maps["realms"].put(key, self._codec.with_run(value, after))

    def detach(self, interface: str) -> None:
        """Leave an interface's packets alone."""
        self._interfaces.leave(interface)

    def detach_others(self) -> None:
        """Leave alone the interfaces that an earlier process has taken and that have not been named to this one."""
        self._interfaces.leave_others()

    def _renew_realms(self) -> None:
        """Let the maps say what the interfaces of realms are now."""
        for realm, interface in self._ways.items():
            link = self._links.find(interface)
            before = self._maps["realms"].get(self._codec.realm_key(realm))
            if link is not None and before is not None:
                self._enter_realm(realm, link, self._codec.port_of(before))

    def _need(self, interface: str) -> Link:
        link = self._links.find(interface)
        if link is None:
            raise PlaneError(f"interface {interface}: there is none of that name in this network namespace")
        return link

    # --- devices --------------------------------------------------------------------------

    def _device(self, name: str) -> int:
        link = self._links.find(name)
        return NOWHERE if link is None else link.index

    def _device_of(self, effect: Planned) -> str | None:
        """The device that an effect may let go of."""
        key: BindingKey | None = None
        if isinstance(effect, Bind):
            key = effect.binding.key
        elif isinstance(effect, Unbind):
            key = effect.key
        binding = None if key is None else self._image.get(key)
        return None if binding is None else binding.device

    def _serve_devices(self, effect: Planned, gone: str | None) -> None:
        if isinstance(effect, Bind) and effect.binding.device is not None:
            self._devices[effect.binding.device] += 1
            self._begin_device(effect.binding.device, self._realm_of(effect.binding))
        if gone is not None:
            self._devices[gone] -= 1
            if not self._devices[gone]:
                del self._devices[gone]
                self.detach(gone)

    def _begin_device(self, name: str, realm: int) -> None:
        """Take a device's packets as those of a program (docs/data-plane.md, Devices)."""
        link = self._links.find(name)
        if link is not None and not self._interfaces.has(name, link):
            self._interfaces.take_device(name, link, realm, self.program)

    def renew_devices(self) -> None:
        """Look again where the other ends of devices are, of which some may have been moved."""
        self._interfaces.renew_devices()

    def _realm_of(self, binding: Binding) -> int:
        """What the packets that arrive on a binding's device are of: where SIP is translated, what it becomes."""
        crossing = binding.crossing
        from_sip = isinstance(crossing, Translate) and self._border.realm(binding.realm).family is Family.SIP
        return crossing.realm if from_sip else binding.realm

    # --- maps -----------------------------------------------------------------------------

    def _fresh_image(self, *, known: bool = False) -> Image:
        """An image of the border alone, whose numbers are those in the maps if these are known."""
        slots: dict[bytes, int] = {}
        numbers: dict[bytes, int] = {}
        templates: dict[bytes, int] = {}
        tags: Iterable[tuple[bytes, int]] = ()
        if known:
            for place, value in self._maps["addresses"].items():
                first = self._codec.first_slice(value)
                if first is not None:
                    slots[place] = first
            for key, value in self._maps["endpoints"].used():
                number = int.from_bytes(key, sys.byteorder)
                if number <= TEMPLATES:
                    templates[value] = number
                else:
                    numbers[self._codec.plain(value)] = number
            if any(end.address.family is not Family.IPV4 for end in self._border.tunnel_ends):
                tags = numbered_tags(self._maps["owners"])
        room = self._maps["slices"].entries // ((1 << 16) >> self._shift)
        return Image(
            self._border,
            self._codec,
            slots=Slots(self._shift, room, slots),
            numbers=Numbers(self._maps["endpoints"].entries, numbers),
            templates=Numbers(1 + TEMPLATES, templates, first=1),
            owners=Owners(tags),
            device=self._device,
            mapping=self._mappings.load,
            narrow=self._image.narrow if known else {},
            deep=dict(self._codec.deep_of(value) for _, value in self._maps["sip_realms"].used()) if known else {},
        )

    def _known_mappings(self) -> dict[int, int]:
        """Numbers of the mappings that the maps say realms have."""
        found = (self._codec.mapping_of(value) for _, value in self._maps["sip_realms"].used())
        return {realm: number for realm, number in found if number}

    def _write_rules(self) -> None:
        self._rules[:4] = self._codec.rules(self._border.rules).to_bytes(4, sys.byteorder)
        self._rules[8:32] = own.bits(self._border)

    def _take_back(self, effects: list[Planned]) -> None:
        """Undo bindings of effects that the maps had no room for, and registrations that they have not."""
        for effect in effects:
            if isinstance(effect, Bind):
                self._image.apply(Unbind(key=effect.binding.key, ending=Ending.REVOKED))
        for owner in [each.registration.owner for each in effects if isinstance(each, Register)]:
            if self._maps["owners"].get(self._codec.place(owner.realm, owner.address)) is None:
                self._image.apply(Deregister(owner=owner, ending=Ending.REVOKED))
        with suppress(PlaneError):
            self._writer.write(self._image.batches())
