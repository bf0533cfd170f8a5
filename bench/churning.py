# SPDX-License-Identifier: BSD-3-Clause
"""The kernel plane by itself, with leases that stand and leases that change hands all the time.

    python bench/churning.py STANDING CHANGING ERAS RATE

It runs in the gateway's namespace of ``networks.network``. So many leases stand; half of them may be reached by
anyone, the other half by whom their hosts have contacted. So many others change hands at RATE changes a second (an
Unbind, or a Bind of the next holder), in batches as a gateway applies them. Between an Unbind and the next Bind the
lease's number in ERAS goes up (``stamped.Eras``). It begins with SIGUSR1 and ends with SIGUSR2; then it prints a JSON
object.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import leases
from isthmus.address import Address, Family
from isthmus.border.binding import Owner
from isthmus.border.effect import Bind, Deregister, Ending, Unbind
from isthmus.border.selector import Admit
from isthmus.errors import IsthmusError
from isthmus.plane import Programmable
from isthmus.plane.kernel import KernelPlane
from stamped import Eras

CHANGING_HOSTS, ERA_SHIFT, ERA_MASK = 0x0A800000, 16, 0x3F
BATCH = 64
"""Leases that change hands at once: what a gateway under load gathers into one commit."""
UNTIL = time.time() + 3600


def changing_host(lease: int, era: int) -> Address:
    """The holder of a lease that changes hands."""
    return Address(Family.IPV4, CHANGING_HOSTS | (era & ERA_MASK) << ERA_SHIFT | lease)


class Changes:
    """Leases that change hands."""

    def __init__(self, plane: KernelPlane, standing: int, changing: int, eras: Eras) -> None:
        self._plane, self._first, self._eras = plane, standing, eras
        self._held: dict[int, Bind] = {}
        self._order = list(range(changing))
        random.Random(3).shuffle(self._order)
        self.done = 0
        self._bind(self._order)

    def _bind(self, chosen: Sequence[int]) -> None:
        effects: list[Programmable] = []
        for lease in chosen:
            owner = Owner(leases.NEAR, changing_host(lease, self._eras[lease]))
            register, bind = leases.taking(self._first + lease, owner, Admit.ANYONE, UNTIL)
            effects += register, bind
            self._held[lease] = bind
        self._plane.apply(effects)
        self.done += len(chosen)

    def _unbind(self, chosen: Sequence[int]) -> None:
        effects: list[Programmable] = []
        for lease in chosen:
            binding = self._held.pop(lease).binding
            effects += (
                Unbind(key=binding.key, ending=Ending.FREED, binding=binding),
                Deregister(owner=binding.key.owner, ending=Ending.FREED),
            )
        self._plane.apply(effects)
        self.done += len(chosen)

    def batches(self) -> Iterator[None]:
        """Let one batch of leases change hands after the other, for ever."""
        while True:
            for at in range(0, len(self._order), BATCH):
                chosen = self._order[at : at + BATCH]
                self._unbind(chosen)
                self._eras.begin_next(chosen)
                self._bind(chosen)
                yield


def run(changes: Changes, rate: float) -> tuple[int, float]:
    """Change at most so many a second until SIGUSR2 comes; returns how many changes in what time."""
    changes.done = 0
    batches = changes.batches()
    began = now = time.perf_counter()
    while signal.SIGUSR2 not in signal.sigpending():
        if changes.done <= (now - began) * rate:
            next(batches)
        else:
            time.sleep(2e-4)
        now = time.perf_counter()
    return changes.done, now - began


def main() -> None:
    """Attach, fill, change, tell."""
    parser = argparse.ArgumentParser()
    for name, kind in (("standing", int), ("changing", int), ("eras", Path), ("rate", float)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--xdp", action="store_true")
    options = parser.parse_args()
    border = leases.border(options.standing + options.changing)
    plane = KernelPlane(border, pin=None, boot_offset=leases.offset())
    try:
        plane.apply(
            effect
            for at in range(options.standing)
            for effect in leases.taking(
                at, Owner(leases.NEAR, leases.host(at)), (Admit.ANYONE, Admit.CONTACTED)[at % 2], UNTIL
            )
        )
        changes = Changes(plane, options.standing, options.changing, Eras(options.eras))
        for realm, interface in ((leases.NEAR, "lan0"), (leases.FAR, "wan0")):
            refused = plane.attach(realm, interface, xdp=True) if options.xdp else plane.attach(realm, interface)
            if refused:
                raise SystemExit(f"no XDP at {interface}: {refused}")
        print("ready", flush=True)
        signal.sigwait({signal.SIGUSR1})
        before = plane.counters()
        done, elapsed = run(changes, options.rate)
        reasons = {each.name: count - before[each] for each, count in plane.counters().items() if count > before[each]}
        print(json.dumps({"changes": done, "seconds": elapsed, "reasons": reasons}), flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    finally:
        plane.destroy()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT})
    try:
        main()
    except IsthmusError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
