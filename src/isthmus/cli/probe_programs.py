# SPDX-License-Identifier: BSD-3-Clause
"""What ``isthmus doctor`` finds out about programs: what the verifier makes of them, and who can have them at XDP."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from isthmus.cli.finding import Finding, missing, ok, warn

if TYPE_CHECKING:
    from isthmus.plane.kernel.budget import Budget

_NETLINK_GENERIC, _NLMSG_ERROR = 16, 2
_CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
"""nlctrl (linux/genetlink.h)."""
_DEV_GET, _DEV_IFINDEX, _DEV_FEATURES = 1, 1, 3
"""netdev (linux/netdev.h)."""
_BASIC, _REDIRECT, _TRANSMIT = 1, 2, 4
_SECONDS = 2.0


def budgets() -> list[Budget]:
    """What each program costs; nothing where they cannot be loaded, which ``probe.programs`` says."""
    from isthmus.errors import PlaneError
    from isthmus.plane.kernel.budget import budgets as load_each

    try:
        return load_each()
    except PlaneError:
        return []


def spent(budgets: list[Budget]) -> Iterator[Finding]:
    """The verifier's budget, and how much of it the programs use."""
    from isthmus.plane.kernel.budget import ALLOWED

    for each in budgets:
        name = f"verifier {each.hook}/{each.program}"
        used = f"{each.instructions:,} of {ALLOWED:,} instructions looked at, loaded in {each.seconds:.2f} s"
        if not each.instructions:
            used = f"loaded in {each.seconds:.2f} s; this kernel does not say how many instructions it looked at"
        if each.instructions > ALLOWED // 2:
            yield warn(name, used, "report this: a kernel that looks at more of them will refuse it")
        else:
            yield ok(name, used)


def xdp(interface: str, *, wanted: bool) -> Finding | None:
    """Whether an interface's driver has what ``xdp = true`` needs (Linux 6.3 says so); None: not known."""
    features = _features(interface)
    name = f"xdp {interface}"
    if features is None:
        return warn(name, "this kernel does not say", "try it: the daemon's log says so if not") if wanted else None
    if not features & _BASIC:
        lacks = "its driver has no XDP"
        return missing(name, lacks, "take xdp = true out of the configuration") if wanted else ok(name, lacks)
    if not features & _REDIRECT:
        return warn(name, "its driver has XDP, but cannot redirect", "leave xdp = false")
    if not features & _TRANSMIT:
        return ok(name, "its driver has XDP; whether it sends what others redirect is seen when programs are attached")
    return ok(name, "its driver has XDP, redirects, and sends what others redirect")


def _features(interface: str) -> int | None:
    """What a driver says that it has of XDP: bits of ``enum netdev_xdp_act``."""
    try:
        index = socket.if_nametoindex(interface)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC) as netlink:
            netlink.settimeout(_SECONDS)
            name = _attribute(_FAMILY_NAME, b"netdev\0")
            family = _ask(netlink, _CONTROL, _GET_FAMILY, name).get(_FAMILY_ID)
            if family is None:
                return None
            (number,) = struct.unpack("=H", family[:2])
            said = _ask(netlink, number, _DEV_GET, _attribute(_DEV_IFINDEX, struct.pack("=I", index)))
    except OSError:
        return None
    return int.from_bytes(said[_DEV_FEATURES][:8], "little") if _DEV_FEATURES in said else None


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _ask(netlink: socket.socket, family: int, command: int, attributes: bytes) -> dict[int, bytes]:
    """Ask for one thing, and read the attributes of the answer (netlink(7))."""
    request = struct.pack("=IHHII", 20 + len(attributes), family, 1, 1, 0) + struct.pack("=BBH", command, 1, 0)
    netlink.send(request + attributes)
    answer = netlink.recv(1 << 16)
    octets, kind = struct.unpack_from("=IH", answer)
    if kind == _NLMSG_ERROR:
        raise OSError(errno.EOPNOTSUPP, "netlink")
    found, at = {}, 20
    while at + 4 <= octets:
        length, name = struct.unpack_from("=HH", answer, at)
        found[name & 0x3FFF] = answer[at + 4 : at + length]
        at += max(length + 3 & -4, 4)
    return found
