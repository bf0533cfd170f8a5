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
from collections.abc import Iterable, Mapping
from pathlib import Path

from isthmus.address import Address, Family
from isthmus.border.binding import Binding, BindingKey, Owner
from isthmus.border.crossing import Translate, Way
from isthmus.border.effect import Bind, Ending, Unbind
from isthmus.border.realm import Border, End
from isthmus.border.selector import Kind
from isthmus.border.verdict import Reason, Violation
from isthmus.errors import PlaneError, Unsupported
from isthmus.plane import Programmable
from isthmus.plane.kernel import own
from isthmus.plane.kernel.attach import Link, Links, MachineLinks
from isthmus.plane.kernel.contact import KernelContacts, forget_old
from isthmus.plane.kernel.image import ARRAYS, TABLES, Change, Image, is_ipae
from isthmus.plane.kernel.loader import Program, RingBuffer, processors
from isthmus.plane.kernel.mapping import KernelMappings
from isthmus.plane.kernel.maps import NOWHERE, REALMS, Codec
from isthmus.plane.kernel.number import Numbers, Owners, Slots
from isthmus.plane.kernel.path import KernelPaths
from isthmus.plane.kernel.pinned import Loaded, Sizes
from isthmus.plane.kernel.ring import KernelRing
from isthmus.plane.kernel.trace import Reader
from isthmus.plane.reference.ways import Condition

_SPARE_ADDRESSES = 16
"Addresses beyond the claimed ones that there are slices for: of a host, or bound by configuration."
_LEAST_WORDS = 1 << 14
RING_SLOTS = 1 << 16
_RUN = 4096
"Slice words that are compared at once."


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
        self._border = _checked(border)
        self._links = links or MachineLinks()
        self._shift = border.slice_size.bit_length() - 1
        self._loaded = Loaded.open(pin, sizes or _sizes(border), slice_size=border.slice_size)
        self._maps = self._loaded.maps
        self._codec = Codec(self._loaded.types, boot_offset=boot_offset)
        self._reader = Reader(self._loaded.types)
        self._memory = self._maps["slices"].mapped()
        self._words = memoryview(self._memory).cast("Q")
        self._contact_map = self._maps["contacted"].mapped()
        self._contact_memory = memoryview(self._contact_map).cast("I")
        self._sent, self._rules = self._maps["ring"].mapped(), self._maps["rules"].mapped()
        self._mappings = KernelMappings(self._maps["mappings"], self._known_mappings())
        self._ring = RingBuffer(self._maps["events"])
        self._devices: Counter[str] = Counter()
        self._ways: dict[int, str] = {}
        "The interface of each realm that has one."
        self._attached: dict[str, int] = {}
        self._image = self._fresh_image()
        self._pending = self._loaded.adopted
        if not self._pending:
            self._write(self._image.changes())
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

    def apply(self, effects: Iterable[Programmable]) -> None:
        """Carry out effects in order; when it returns, packets already follow them.

        The first call of a plane that adopted pinned maps is a ``reconcile``.

        Raises:
            PlaneError: the plane cannot; what was applied before the failing effect stands.
        """
        if self._pending:
            self.reconcile(effects)
            return
        for effect in effects:
            gone = self._device_of(effect)
            self._image.apply(effect)
            try:
                self._write(self._image.changes())
            except PlaneError:
                self._take_back(effect)
                raise
            self._serve_devices(effect, gone)

    def reconcile(self, effects: Iterable[Programmable]) -> None:
        """Make the maps hold what these effects say and nothing else, writing only what differs.

        What stands in both is never interrupted; new things come before old ones go.

        Raises:
            PlaneError: an effect that the plane cannot carry out; the maps are as before.
        """
        image = self._fresh_image(known=True)
        devices: Counter[str] = Counter()
        for effect in effects:
            image.apply(effect)
        for binding in image.bindings():
            if binding.device is not None:
                devices[binding.device] += 1
        image.changes()
        self._write_rules()
        self._write_difference(image)
        image.settle()
        self._mappings.settle(set(self._known_mappings().values()))
        self._image, self._pending = image, False
        self._renew_interfaces()
        for name in [*self._devices, *devices]:
            if name in devices:
                self._begin_device(name, next(self._realm_of(each) for each in image.bindings() if each.device == name))
            else:
                self._end_device(name)
        self._devices = devices

    def limit(self, way: Way, octets: int | None) -> None:
        """Put no more into the tunnels between two ends than fits an outer packet (RFC 2003 §5.1).

        Args:
            way: The ends; tunnels between them may come and go.
            octets: Largest outer packet, its header included; None: whatever the tunnels were made for.
        """
        self._image.limit(way, octets)
        if not self._pending:
            self._write(self._image.changes())

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
        counts = {}
        for reason in Reason:
            octets = self._maps["counters"].get(self._codec.number(reason), copies=processors()) or b""
            counts[reason] = sum(memoryview(octets).cast("Q"))
        return counts

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
        return KernelPaths(
            self._maps["paths"],
            self._codec,
            tag=self._tag,
            owner=self._owner,
        )

    @property
    def ring(self) -> KernelRing:
        """The program's memory of what it sent as IPAE datagrams, for the reference plane behind it."""
        return KernelRing(self._sent, self._rules, self._codec)

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
        self._words.release()
        self._memory.close()
        self._contact_memory.release()
        self._contact_map.close()
        self._mappings.close()
        self._sent.close()
        self._rules.close()
        self._loaded.close()

    def destroy(self) -> None:
        """Detach and unpin everything, then let go: packets are the machine's own again."""
        for interface in list(self._attached):
            self.detach(interface)
        for key, _ in list(self._maps["interfaces"].items()):
            self._links.detach(int.from_bytes(key, "little"))
            self._maps["interfaces"].remove(key)
        self._loaded.unpin()
        self.close()

    # --- interfaces -----------------------------------------------------------------------

    @property
    def program(self) -> Program:
        """What is attached: IPAE's program where there are SIP realms, and RSIP's alone where there are none."""
        return self._loaded.programs["ipae" if is_ipae(self._border) else "border"]

    def attach(self, realm: int, interface: str, *, punt: str | None = None) -> None:
        """Take what arrives at an interface as packets of a realm, and send into the realm by it.

        Args:
            realm: Number of the realm.
            interface: Its name.
            punt: The port to the reference plane: where packets go that need a reply; None: they are dropped.

        Raises:
            PlaneError: there is no such interface, or the kernel refuses.
        """
        link = self._need(interface)
        self._ways[realm] = interface
        self._enter_realm(realm, link, 0 if punt is None else self._need(punt).index)
        self._enter_interface(realm, interface, link, self._border.realm(realm).end)

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
        value = self._codec.realm(realm, index, port, mtu, ipae=is_ipae(self._border))
        self._maps["realms"].put(self._codec.realm_key(realm), value)

    def detach(self, interface: str) -> None:
        """Leave an interface's packets alone."""
        index = self._attached.pop(interface, None)
        if index is not None:
            self._links.detach(index)
            self._maps["interfaces"].remove(self._codec.number(index))

    def _renew_interfaces(self) -> None:
        """Let the maps say of interfaces what border and machine say, and nothing of those that have vanished."""
        there = self._links.indexes()
        for key, value in list(self._maps["interfaces"].items()):
            if int.from_bytes(key, "little") not in there:
                self._maps["interfaces"].remove(key)
            elif value != (after := self._with_first_ends(value)):
                self._maps["interfaces"].put(key, after)
        for realm, interface in self._ways.items():
            link = self._links.find(interface)
            before = self._maps["realms"].get(self._codec.realm_key(realm))
            if link is not None and before is not None:
                self._enter_realm(realm, link, self._codec.port_of(before))

    def _with_first_ends(self, interface: bytes) -> bytes:
        """What ``interfaces`` holds, with the first tunnel end of the realm of either family."""
        realm = self._codec.realm_of(interface)
        ends: dict[Family, tuple[Address, bytes]] = {}
        for end in self._border.tunnel_ends:
            if end.realm == realm and self._border.realm(end.leads_to).family is not Family.SIP:
                leads = self._codec.tunnel_end(end.leads_to, self._border.realm(end.leads_to).end)
                ends.setdefault(end.address.family, (end.address, leads))
        return self._codec.first_ends(interface, ends)

    def _need(self, interface: str) -> Link:
        link = self._links.find(interface)
        if link is None:
            raise PlaneError(f"interface {interface}: there is none of that name in this network namespace")
        return link

    def _enter_interface(self, realm: int, interface: str, link: Link, end: End) -> None:
        family = self._border.realm(realm).family
        # Where neither IPv4 is at home nor tunnels end nor programs have SIP nothing is ours: packets pass unseen.
        ours = family is Family.IPV4 or (family is Family.IPV6 and is_ipae(self._border))
        if not ours and not any(each.realm == realm for each in self._border.tunnel_ends):
            return
        value = self._with_first_ends(self._codec.interface(realm, end, bare=link.bare, family=family))
        self._maps["interfaces"].put(self._codec.number(link.index), value)
        self._links.attach(link.index, self.program.fd)
        self._attached[interface] = link.index

    # --- devices --------------------------------------------------------------------------

    def _device(self, name: str) -> int:
        link = self._links.find(name)
        return NOWHERE if link is None else link.index

    def _device_of(self, effect: Programmable) -> str | None:
        """The device that an effect may let go of."""
        key: BindingKey | None = None
        if isinstance(effect, Bind):
            key = effect.binding.key
        elif isinstance(effect, Unbind):
            key = effect.key
        binding = None if key is None else self._image.get(key)
        return None if binding is None else binding.device

    def _serve_devices(self, effect: Programmable, gone: str | None) -> None:
        if isinstance(effect, Bind) and effect.binding.device is not None:
            self._devices[effect.binding.device] += 1
            self._begin_device(effect.binding.device, self._realm_of(effect.binding))
        if gone is not None:
            self._devices[gone] -= 1
            if not self._devices[gone]:
                del self._devices[gone]
                self._end_device(gone)

    def _begin_device(self, name: str, realm: int) -> None:
        """Take a device's packets as those of a program (docs/data-plane.md, Devices)."""
        link = self._links.find(name)
        if link is not None and self._attached.get(name) != link.index:
            self._enter_interface(realm, name, link, End.HOST)

    def _realm_of(self, binding: Binding) -> int:
        """What the packets that arrive on a binding's device are of: where SIP is translated, what it becomes."""
        crossing = binding.crossing
        from_sip = isinstance(crossing, Translate) and self._border.realm(binding.realm).family is Family.SIP
        return crossing.realm if from_sip else binding.realm

    def _end_device(self, name: str) -> None:
        self.detach(name)

    # --- maps -----------------------------------------------------------------------------

    def _fresh_image(self, *, known: bool = False) -> Image:
        """An image of the border alone, whose numbers are those in the maps if these are known."""
        slots: dict[bytes, int] = {}
        numbers: dict[bytes, int] = {}
        owners: dict[bytes, int] = {}
        if known:
            for place, value in self._maps["addresses"].items():
                first = self._codec.first_slice(value)
                if first is not None:
                    slots[place] = first
            numbers = {
                self._codec.plain(value): int.from_bytes(key, "little")
                for key, value in self._maps["endpoints"].items()
                if any(value)
            }
            owners = {place: self._codec.tag(value) for place, value in self._maps["owners"].items()}
        room = self._maps["slices"].entries // ((1 << 16) >> self._shift)
        return Image(
            self._border,
            self._codec,
            slots=Slots(self._shift, room, slots),
            numbers=Numbers(self._maps["endpoints"].entries, numbers),
            owners=Owners(owners),
            device=self._device,
            mapping=self._mappings.load,
            narrow=self._image.narrow if known else {},
            deep=dict(self._codec.deep_of(value) for _, value in self._maps["sip_realms"].items()) if known else {},
        )

    def _known_mappings(self) -> dict[int, int]:
        """Numbers of the mappings that the maps say realms have."""
        found = (self._codec.mapping_of(value) for _, value in self._maps["sip_realms"].items() if any(value))
        return {realm: number for realm, number in found if number}

    def _write_rules(self) -> None:
        self._rules[:4] = self._codec.rules(self._border.rules).to_bytes(4, "little")
        self._rules[8:32] = own.bits(self._border)

    def _write(self, changes: Iterable[Change]) -> None:
        for table, key, value in changes:
            if table == "slices":
                self._words[int.from_bytes(key, "little")] = int.from_bytes(value or b"", "little")
            elif value is not None:
                self._maps[table].put(key, value)
            elif table in ARRAYS:
                self._maps[table].put(key, bytes(self._maps[table].value_octets))
            else:
                self._maps[table].remove(key)
            if table == "by_prefix":
                self._forget_routes()

    def _forget_routes(self) -> None:
        """Let the program ask ``by_prefix`` again: at once, since what an old route led to may go next."""
        changes = int.from_bytes(self._rules[own.CHANGES], sys.byteorder) + 1
        self._rules[own.CHANGES] = (changes & 0xFFFFFFFF).to_bytes(4, sys.byteorder)

    def _write_difference(self, image: Image) -> None:
        stale: list[Change] = []
        for table in TABLES:
            wanted = image.tables[table]
            found = dict(self._maps[table].items())
            if table in ARRAYS:
                found = {key: value for key, value in found.items() if any(value)}
            self._maps[table].put_all((key, value) for key, value in wanted.items() if found.get(key) != value)
            if table == "by_prefix":
                self._forget_routes()
            stale = [(table, key, None) for key in found if key not in wanted] + stale
        self._write_words(image)
        self._write(stale)

    def _write_words(self, image: Image) -> None:
        wanted = memoryview(image.words)
        for start in range(0, len(wanted), _RUN):
            run = wanted[start : start + _RUN]
            if run != self._words[start : start + len(run)]:
                for at, word in enumerate(run, start):
                    if self._words[at] != word:
                        self._words[at] = word

    def _take_back(self, effect: Programmable) -> None:
        """Undo an effect that the maps had no room for."""
        if isinstance(effect, Bind):
            self._image.apply(Unbind(key=effect.binding.key, ending=Ending.REVOKED))
        self._write(change for change in self._image.changes() if change[2] is None or change[0] == "slices")


def _checked(border: Border) -> Border:
    """Refuse realms that the program cannot tell apart."""
    seen: dict[int, int] = {}
    for realm in border.realms:
        other = seen.setdefault(realm.number % REALMS, realm.number)
        if other != realm.number:
            raise Unsupported(
                f"realms {other} and {realm.number}: their numbers are equal modulo {REALMS}",
                remedy="number one of them differently",
            )
    return border


def _sizes(border: Border) -> Sizes:
    """Room for every claimed address and a few more."""
    addresses = {(claim.realm, claim.address) for claim in border.claims if claim.kind is Kind.PORT}
    each = (1 << 16) // border.slice_size
    ring = RING_SLOTS if is_ipae(border) else 1
    return Sizes(slices=max((len(addresses) + _SPARE_ADDRESSES) * each, _LEAST_WORDS), ring=ring)
