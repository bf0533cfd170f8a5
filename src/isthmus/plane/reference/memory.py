# SPDX-License-Identifier: BSD-3-Clause
"""What the plane knows when a packet comes: the border, the table, and what earlier packets have taught it."""

from __future__ import annotations

from collections import Counter

from isthmus.address import Address
from isthmus.border.binding import Owner
from isthmus.border.crossing import Encapsulation, Translate, Tunnel, Way
from isthmus.border.effect import Bind, Unbind
from isthmus.border.realm import Border, End
from isthmus.border.selector import Kind
from isthmus.border.table import BindingTable, Entry
from isthmus.errors import PlaneError
from isthmus.plane import Programmable
from isthmus.plane.reference import lookup
from isthmus.plane.reference.allowance import Allowance
from isthmus.plane.reference.contact import ContactedPeers, Contacts
from isthmus.plane.reference.dialect import Dialect
from isthmus.plane.reference.fragment import Fragments
from isthmus.plane.reference.identifier import Identifiers
from isthmus.plane.reference.ike import Cookies
from isthmus.plane.reference.path import KnownPaths, Paths
from isthmus.plane.reference.path_mtu import PathMtus, TooBig, inner_ends
from isthmus.plane.reference.ring import IdentificationRing, Ring
from isthmus.plane.reference.ways import Ways


class Memory:
    """Everything that a verdict depends on, but for the packet and the time.

    Args:
        border: Realms, tunnel ends and claims.
        contacts: The memory of contacted peers, if it is kept elsewhere.
        paths: The memory of SPI paths, likewise.
        ring: The memory of IPAE datagrams that were sent, likewise.
        table: What is bound and registered, if that is looked up elsewhere, too.

    Raises:
        PlaneError: a tunnel end joins a realm that is unknown.
    """

    def __init__(
        self,
        border: Border,
        contacts: Contacts | None,
        paths: Paths | None,
        ring: Ring | None,
        table: BindingTable | None = None,
    ) -> None:
        self.border = border
        self.realms = {realm.number: realm for realm in border.realms}
        for each in border.tunnel_ends:
            if each.realm not in self.realms or each.leads_to not in self.realms:
                raise PlaneError(
                    f"tunnel end {each.address} joins realms {each.realm} and {each.leads_to}: one is unknown"
                )
        self.table = table if table is not None else BindingTable(border.claims)
        self.bound = lookup.Addresses()
        self.contacts: Contacts = contacts if contacts is not None else ContactedPeers()
        self.paths: Paths = paths if paths is not None else KnownPaths()
        self.cookies = Cookies()
        self.fragments = Fragments()
        # Of tunnels, apart: strangers who fill the one do not keep hosts from the other.
        self.tunnelled = Fragments()
        self.identifiers = Identifiers()
        self.path_mtus = PathMtus(self.table.elsewhere)
        self.dialect = Dialect.of(border.rules)
        self.ring: Ring = ring if ring is not None else IdentificationRing()
        self.ways = Ways()
        self.allowance = Allowance()
        self._nodes = {(each.realm, each.address) for each in border.nodes}
        self._translating: Counter[int] = Counter()

    def apply(self, effect: Programmable) -> None:
        """Carry out one effect.

        Raises:
            Conflict: a Bind of what another binding holds.
        """
        key = effect.binding.key if isinstance(effect, Bind) else effect.key if isinstance(effect, Unbind) else None
        before = self.table.get(key) if key is not None else None
        self.table.apply(effect)
        if key is not None:
            after = self.table.get(key)
            self.path_mtus.replace(before.binding if before else None, after.binding if after else None)
            self._replace(before, -1)
            self._replace(after, 1)
        if isinstance(effect, Bind) and isinstance(effect.binding.crossing, Tunnel):
            binding = effect.binding
            self.bound.add(binding.key, binding.realm, (each.local for each in binding.selectors))
        elif isinstance(effect, Unbind):
            self.bound.remove(effect.key)
        if before is not None:
            self._forget_cookies(before)

    def _replace(self, entry: Entry | None, count: int) -> None:
        """Take notice of a binding of IPAE that begins or ends."""
        if entry is None:
            return
        match entry.binding.crossing:
            case Translate():
                self._translating[entry.binding.realm] += count
            case Encapsulation() as crossing:
                self.ways.forget(lambda way: _concerns(crossing, way))

    def translates(self, realm: int) -> bool:
        """Whether anything of a realm is translated into SIP by a binding."""
        return self._translating[realm] > 0

    def is_node(self, realm: int, address: Address) -> bool:
        """Whether a SIP address is this machine's."""
        return (realm, address) in self._nodes

    def _forget_cookies(self, before: Entry) -> None:
        """Forget the cookies of an owner who held a place for them and does no more (RFC 3104 §6.1)."""
        owner, realm, address = before.binding.key.owner, before.binding.realm, before.binding.address
        if any(each.kind is Kind.COOKIE for each in before.binding.selectors) and not any(
            each.kind is Kind.COOKIE and (each.realm, each.address) == (realm, address)
            for entry in self.table.held_by(owner)
            for each in entry.binding.selectors
        ):
            self.cookies.forget(owner, realm, address)

    def mtu(self, tunnel: Tunnel) -> int:
        """Largest packet that a tunnel carries now (RFC 2003 §5.1)."""
        return self.path_mtus.mtu(tunnel)

    def hear(self, error: TooBig, *, now: float) -> None:
        """Learn from an error about a packet that we tunnelled, if we did (RFC 2003 §4; RFC 2473 §8)."""
        for owner, tunnel in self.path_mtus.tunnels(error):
            inner = inner_ends(error, tunnel)
            if inner is None or self._is_holder(owner, tunnel, *inner):
                self.path_mtus.learn(error, now=now)
                return

    def _is_holder(self, owner: Owner, tunnel: Tunnel, src: Address, dst: Address) -> bool:
        """Whether what is sent through a tunnel may have these ends: a gateway sends to the holder, a host is it."""
        return any(
            (dst if self.realms[each.realm].end is End.GATEWAY else src) in each.local
            for entry in self.table.held_by(owner)
            if entry.binding.crossing == tunnel
            for each in entry.binding.selectors
        )

    def is_leased_beyond(self, realm: int, address: Address) -> bool:
        """Whether tunnels of a realm lead to where an address is leased: then it comes by a tunnel or not at all."""
        return any(
            self.is_meant(end.leads_to, address)
            for end in self.border.tunnel_ends
            if end.realm == realm and self.realms[end.leads_to].end is End.GATEWAY
        )

    def is_meant(self, realm: int, address: Address) -> bool:
        """Whether an address is one of the pools' or bindings' (RFC 3102 §3.2)."""
        return lookup.is_meant(self.table, self.bound, realm, address)


def _concerns(crossing: Encapsulation, way: Way) -> bool:
    """Whether packets of a binding could go by a way."""
    return (crossing.realm, crossing.local) == (way.realm, way.local) and crossing.remote in (None, way.remote)
