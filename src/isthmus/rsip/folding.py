# SPDX-License-Identifier: BSD-3-Clause
"""Hosts that are folded: the gateway has forgotten all of them but that they are, since the store knows the rest.

Of very many hosts a few are heard from at a time. The others are *folded*, and *recalled* before a message, a
violation, a deadline or an operator concerns them; they behave as if they had never been folded. What a restart
finds of a host in the store is all that there is to recall. What it would not find is kept: how and where a host
was heard, and answers that are not in the store, as those of requests that changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from isthmus.address import Address, Family
from isthmus.border.binding import Binding, BindingKey, Lease, Owner, Registration
from isthmus.border.effect import (
    Bind,
    Deregister,
    Effect,
    Extend,
    Lapse,
    Peer,
    Prolong,
    Register,
    Remember,
    Send,
    Unbind,
)
from isthmus.border.plain import Hosts, LapsingHosts, PlainLeases
from isthmus.border.pool import Pool
from isthmus.border.ranges import Ranges
from isthmus.border.resource import Resource, resource_of
from isthmus.rsip.client import Client, Transport, still_resting
from isthmus.rsip.ended import Farewells, farewells
from isthmus.rsip.reliability import AnswerCache
from isthmus.rsip.roster import Roster

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapsed:
    """What ends at once of folded hosts."""

    effect: Lapse
    ended: tuple[BindingKey, ...]
    "Bindings of hosts that stay."
    farewells: tuple[Farewells, ...]
    "What hosts are told when all of it has ended."


class Folding:
    """Takes hosts out of a gateway and puts them back."""

    def __init__(self, *, pool: Pool, roster: Roster, answers: AnswerCache) -> None:
        """Begin with nobody folded; the arguments are parts of a gateway."""
        self._pool = pool
        self._roster = roster
        self._answers = answers
        self._remains: dict[Owner, tuple[Transport | None, Peer | None, bool]] = {}
        "What the store does not know of hosts that are folded: how and where they were heard last."
        self._ending: set[BindingKey] = set()
        "Bindings of folded hosts that are being ended, so that the store may still have them."

    def __len__(self) -> int:
        """How many hosts are folded."""
        return len(self._roster.folded)

    @property
    def at_hand(self) -> int:
        """How many hosts are registered and not folded."""
        return self._roster.at_hand

    def __contains__(self, owner: Owner) -> bool:
        """Whether a host must be recalled before anything that concerns it is asked of the gateway."""
        return owner in self._roster.folded

    def restore(
        self,
        registrations: Iterable[Registration],
        held: Iterable[tuple[Binding, Lease]],
        answers: Iterable[Remember],
        resting: Iterable[tuple[float, Resource]],
        *,
        now: float,
    ) -> None:
        """Take everything that a store knows; see ``Gateway.restore``."""
        held = tuple(held)
        self._roster.restore(registrations, held, now=now)
        for each in answers:
            self._keep_answer(each, now)
        since = now - self._pool.rest_seconds
        for ended_at, resource in still_resting(resting, (resource_of(each) for each, _ in held), since=since):
            self._pool.restore_resting(resource, until=ended_at + self._pool.rest_seconds)

    def _keep_answer(self, each: Remember, now: float) -> None:
        self._answers.keep(each)
        client = self._roster.get(each.owner)
        if client is None:
            self._answers.leave(each.owner, now=now)
        else:
            client.heard(Peer(each.owner.realm, each.owner.address, each.port), counted=True)

    def adopt(
        self,
        *,
        hosts: Iterable[tuple[int, NDArray[np.uint32], NDArray[np.uint32]]],
        other_hosts: Iterable[Registration],
        plain: Iterable[PlainLeases],
        odd: Iterable[Binding],
        departed: Iterable[Remember],
        now: float,
    ) -> None:
        """Take what a store knows of very many hosts: each of them is folded, and what they hold is not free.

        Args:
            hosts: IPv4 hosts: the number of their realm, their addresses, and their Client IDs in the same order.
            other_hosts: All others that are registered.
            plain: What is held plainly.
            odd: What else is held.
            departed: The last answers to hosts that are not registered any more.
            now: Seconds since 1970.
        """
        for near, addresses, client_ids in hosts:
            self._roster.adopt(near, addresses, client_ids)
        for registration in other_hosts:
            self._roster.adopt_host(registration)
        for leases in plain:
            self._pool.restore_runs(leases.local, leases.first, leases.ports)
            orphans = ~self._roster.are_folded(leases.group.near, leases.owner)
            if orphans.any():
                self._roster.disown((binding for binding, _ in leases.at(orphans).bindings()), now=now)
        for binding in odd:
            self._pool.restore(binding.key.owner, resource_of(binding))
        self._roster.disown((each for each in odd if each.key.owner not in self), now=now)
        for each in departed:
            self._answers.keep(each)
            self._answers.leave(each.owner, now=now)

    def adopt_resting(
        self,
        runs: Iterable[tuple[NDArray[np.uint32], NDArray[np.uint16], NDArray[np.uint32], NDArray[np.float64]]],
        others: Iterable[tuple[float, Resource]],
        held: Iterable[Resource],
        *,
        now: float,
    ) -> None:
        """Let rest what was given back and is not held again, after ``adopt``.

        Args:
            runs: Runs of ports of IPv4 addresses: the address, the first port, how many, and when, the oldest first.
            others: What else was given back and when, the oldest first.
            held: What is held and no run of ports.
            now: Seconds since 1970.
        """
        import numpy as np

        rest = self._pool.rest_seconds
        loose: list[tuple[int, int, int, float]] = []
        rested: list[tuple[float, Resource]] = []
        for at, resource in others:
            left = resource
            if resource.address.family is Family.IPV4 and resource.ports is not None:
                number = resource.address.number
                loose += [(number, first, last - first + 1, at) for first, last in resource.ports.pairs]
                left = replace(resource, ports=None if resource.spis is None else Ranges(()))
            if not (left.whole and not resource.whole):
                rested.append((at, left))
        for ended_at, resource in still_resting(rested, held, since=now - rest):
            self._pool.restore_resting(resource, until=ended_at + rest)
        cut = zip(*loose, strict=True) if loose else ((), (), (), ())
        columns = [*runs, tuple(np.array(each, kind) for each, kind in zip(cut, ("u4", "u2", "u4", "f8"), strict=True))]
        local, first, ports, ended = (np.concatenate(each) for each in zip(*columns, strict=True))
        order = np.argsort(ended, kind="stable")
        order = order[ended[order] > now - rest]
        self._pool.restore_resting_runs(local[order], first[order], ports[order], until=ended[order] + rest)

    def can_lapse(self, hosts: LapsingHosts) -> bool:
        """Whether ``lapse`` would end anything of theirs."""
        return bool(self._simple(hosts).any())

    def are_folded(self, near: int, addresses: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Which of many IPv4 hosts of a realm are folded."""
        return self._roster.are_folded(near, addresses)

    def _simple(self, hosts: LapsingHosts) -> NDArray[np.bool_]:
        """Which hosts are folded, and all that there is to know of them is in the store."""
        simple = self._roster.are_folded(hosts.near, hosts.address)
        if not self._remains or not simple.any():
            return simple
        owners = (Owner(hosts.near, Address(Family.IPV4, each)) for each in hosts.address.tolist())
        return simple & [owner not in self._remains for owner in owners]

    def lapse(self, hosts: LapsingHosts, leases: Iterable[PlainLeases], *, now: float) -> Lapsed | None:
        """End what folded hosts hold and what has run out, without recalling them; None if there are none.

        Those who are at hand, or of whom the store does not know all, are left out. Answers to those who are gone are
        not kept any longer: a copy of a request that comes a whole lease after it is answered 301, as after a restart.

        Args:
            hosts: Who holds it; nobody of them has a binding that is not plain.
            leases: Leases of theirs.
            now: Seconds since 1970.

        Returns:
            What a driver has to do, in order: the effect, which is not among the gateway's, and when it is carried out
            the messages; then call ``settle``.
        """
        import numpy as np

        hosts = hosts.at(hosts.address.argsort())
        hosts = hosts.at(self._simple(hosts))
        if not len(hosts.address):
            return None
        ended = tuple(each.at(np.isin(each.owner, hosts.address)) for each in leases)
        gone = hosts.at(hosts.gone)
        self._roster.lapse(gone.near, gone.address, gone.client_id)
        keys: list[BindingKey] = []
        said: list[Farewells] = []
        for each in ended:
            self._pool.release_runs(each.local, each.first, each.ports, now=now)
            whose = hosts.address.searchsorted(each.owner)
            stays = ~hosts.gone[whose]
            if stays.any():
                staying = hosts.at(whose[stays])
                owners = (Owner(hosts.near, Address(Family.IPV4, number)) for number in staying.address.tolist())
                keys += map(BindingKey, owners, each.bind_id[stays].tolist())
                said.append(farewells(staying, each.bind_id[stays]))
        self._ending.update(keys)
        said.append(farewells(gone))
        effect = Lapse(leases=ended, hosts=Hosts(near=gone.near, address=gone.address))
        return Lapsed(effect=effect, ended=tuple(keys), farewells=tuple(said))

    def settle(self, ended: Iterable[BindingKey]) -> None:
        """Take word that what ``lapse`` ended of hosts that stay has ended in the store."""
        self._ending.difference_update(ended)

    def fold(self, *, keep: int, until: float) -> int:
        """Forget hosts that have been idle, for the store knows all of them; returns how many.

        To be called when every effect that was taken from the gateway is carried out.

        Args:
            keep: How many may stay.
            until: Nothing is folded that has a deadline before this time, in seconds since 1970.
        """
        before, most = self._roster.at_hand, 2 * self._roster.at_hand
        pending = {_concerns(each) for each in self._roster.effects}
        while most > 0 and (beyond := self._roster.at_hand - keep) > 0:
            most -= beyond
            for client in self._roster.idle(beyond):
                if client.owner not in pending:
                    self._forget(client, until)
        return before - self._roster.at_hand

    def forget(self, owner: Owner, *, until: float) -> bool:
        """Forget one host, if that can be; see ``fold``."""
        client = self._roster.get(owner)
        if client is None or owner in {_concerns(each) for each in self._roster.effects}:
            return False
        return self._forget(client, until)

    def _forget(self, client: Client, until: float) -> bool:
        deadlines = (client.expires_at, *(held.expires_at for held in client.bindings.values()))
        if client.connections or min(deadlines) < until:
            return False
        owner, port = client.owner, None
        heard = client.udp_peer
        if client.transport is Transport.UDP and client.counted and heard is not None:
            port = self._answers.fold(owner)
        restored = None if port is None else Peer(owner.realm, owner.address, port)
        if (
            restored != heard
            or (client.transport, client.counted) != (restored and Transport.UDP, True)
            or self._answers.has(owner)
        ):
            self._remains[owner] = (client.transport, heard, client.counted)
        self._roster.forget(client)
        return True

    def recall(
        self,
        registrations: Iterable[Registration],
        held: Iterable[tuple[Binding, Lease]],
        answers: Iterable[Remember],
        *,
        now: float,
    ) -> None:
        """Take back hosts that were folded, with what the store has of them; of others nothing is taken.

        The arguments are those of ``restore``.
        """
        registrations = [each for each in registrations if each.owner in self._roster.folded]
        recalled = {each.owner for each in registrations}
        self._roster.recall(registrations, (each for each in held if each[0].key not in self._ending))
        for each in answers:
            if each.owner in recalled and not self._answers.has(each.owner):
                self._keep_answer(each, now)
        for owner in recalled & self._remains.keys():
            client = self._roster.get(owner)
            assert client is not None
            client.transport, client.udp_peer, client.counted = self._remains.pop(owner)


def _concerns(effect: Effect) -> Owner | None:
    """The host that an effect is about; those of a Lapse are not at hand."""
    match effect:
        case Register():
            return effect.registration.owner
        case Bind():
            return effect.binding.key.owner
        case Unbind() | Extend():
            return effect.key.owner
        case Deregister() | Prolong() | Remember():
            return effect.owner
        case Send():
            return effect.peer.owner
        case Lapse():
            return None
