# SPDX-License-Identifier: BSD-3-Clause
"""A network namespace for this process alone: a gateway's two interfaces, and routers behind them."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

from isthmus.lab import figure
from isthmus.plane.kernel.attach import MachineLinks

MAC = bytes.fromhex("020000000001")
ROUTER = bytes.fromhex("020000000002")
_CLONE_NEWNET = 0x40000000
_COMMANDS = f"""
link add lan0 address {MAC.hex(":")} type veth peer name lan1
link add wan0 address {MAC.hex(":")} type veth peer name wan1
link set lo up
link set lan0 up
link set lan1 up
link set wan0 up
link set wan1 up
address add {figure.GATEWAY_NEAR}/24 dev lan0
address add {figure.GATEWAY_NEAR6}/64 dev lan0 nodad
address add {figure.SHARED}/32 dev wan0
neighbour replace 10.0.0.254 lladdr {ROUTER.hex(":")} dev lan0 nud permanent
neighbour replace 2001:db8::fffe lladdr {ROUTER.hex(":")} dev lan0 nud permanent
neighbour replace {figure.SERVER} lladdr {ROUTER.hex(":")} dev wan0 nud permanent
route add 10.0.0.0/8 via 10.0.0.254 dev lan0
-6 route add 2001:db8::a00:0/104 via 2001:db8::fffe dev lan0
route add {figure.FAR} dev wan0
route add 198.18.0.0/15 via {figure.SERVER} dev wan0 onlink
"""
_SYSCTLS = {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}


class Unattached(MachineLinks):
    """Interfaces whose packets stay their own, whatever is said to be attached to them."""

    def attach(self, index: int, program_fd: int) -> None:
        """Do nothing."""

    def detach(self, index: int) -> None:
        """Do nothing."""

    def attach_xdp(self, index: int, program_fd: int) -> str:  # noqa: ARG002 - the name is the base's
        """Do nothing, and succeed."""
        return ""

    def detach_xdp(self, index: int) -> None:
        """Do nothing."""


def enter() -> None:
    """Leave the machine's network, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace of its own")
    for name, value in _SYSCTLS.items():
        Path("/proc/sys/net", name).write_text(value, encoding="ascii")
    for line in _COMMANDS.strip().splitlines():
        subprocess.run(["ip", *line.split()], check=True, timeout=20)
    for device in ("lan0", "wan0"):
        # Without NAPI a veth interface has no receive queue that XDP knows of.
        subprocess.run(["ethtool", "-K", device, "gro", "on"], check=True, timeout=20)
