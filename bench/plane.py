# SPDX-License-Identifier: BSD-3-Clause
"""The kernel plane by itself, holding as many leases as a benchmark wants, until it is told to end.

    python bench/plane.py LEASES ipip|gre|ipv6 ANYONE|CONTACTED [xdp]

It runs in the gateway's namespace of ``networks.network``.
"""

from __future__ import annotations

import signal
import sys

import leases
from isthmus.border.selector import Admit
from isthmus.errors import IsthmusError
from isthmus.plane.kernel import KernelPlane


def main() -> None:
    """Attach, fill, wait."""
    count, tunnel, admit, *more = sys.argv[1:]
    # A plane of an earlier commit knows nothing of XDP.
    xdp = {"xdp": True} if more == ["xdp"] else {}
    plane = KernelPlane(leases.border(int(count), tunnel), pin=None, boot_offset=leases.offset())
    try:
        leases.fill(plane, int(count), Admit[admit], tunnel)
        for realm, interface in ((leases.NEAR, "lan0"), (leases.FAR, "wan0")):
            refused = plane.attach(realm, interface, **xdp)
            if refused:
                raise SystemExit(f"{interface}: {refused}")
        leases.stay(plane)
        print({reason.name: count for reason, count in plane.counters().items() if count}, flush=True)
    finally:
        plane.destroy()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        main()
    except IsthmusError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
