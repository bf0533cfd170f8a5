# SPDX-License-Identifier: BSD-3-Clause
"""What only one daemon may have at a time; it goes with the process, however that ends.

An interface: a second daemon would take the first one's place there and leave nothing when it ends. Whoever serves
one listens on an abstract socket of its name (unix(7)), which belongs to the network namespace, as interfaces do.

A lease store: two gateways would lease the same things twice. Its file is locked by flock(2), which SQLite does not
use.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterable
from contextlib import ExitStack

from isthmus.daemon.config import RealmSection
from isthmus.daemon.control import ControlError
from isthmus.errors import StoreUnavailable
from isthmus.store import LeaseStore
from isthmus.store.sqlite import SqliteStore

_CREDENTIALS = struct.Struct("=iII")


def occupy(realms: Iterable[RealmSection]) -> ExitStack:
    """Take the interfaces of realms until the result is closed.

    Raises:
        ControlError: another isthmus serves one of them.
    """
    with ExitStack() as stack:
        for each in realms:
            stack.enter_context(_occupy(each))
        return stack.pop_all()


def occupy_store(store: LeaseStore) -> ExitStack:
    """Have a store for ourselves until the result is closed, which must be after the store; others may still read it.

    Raises:
        StoreUnavailable: another gateway has it.
    """
    with ExitStack() as stack:
        if isinstance(store, SqliteStore):
            file = stack.enter_context(store.path.open("rb"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StoreUnavailable(
                    f"{store.path}: another gateway keeps its leases here; give this one a file of its own"
                ) from error
        return stack.pop_all()


def _occupy(realm: RealmSection) -> socket.socket:
    name = f"\0isthmus/interface/{realm.interface}"
    taken = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        taken.bind(name)
        taken.listen()
    except OSError as error:
        taken.close()
        raise ControlError(
            f"realm {realm.name}: another isthmus{_process(name)} serves interface {realm.interface!r}, and only one "
            "can: stop it, or use it ('isthmus run' and 'isthmus expose' without --gateway do)"
        ) from error
    return taken


def _process(name: str) -> str:
    """``, process 1234,``: who it is, as far as we may know."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(name)
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return ""
    number = _CREDENTIALS.unpack(credentials)[0]
    return f" (process {number})" if number else ""
