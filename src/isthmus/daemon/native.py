# SPDX-License-Identifier: BSD-3-Clause
"""Tunnel devices of the Linux kernel itself: a host whose path of packets needs nothing of ours.

=====================  ============================================================================
tunnel                 device
=====================  ============================================================================
IP-IP                  ``ipip``
IP-IP over IPv6        ``ip6tnl`` in mode ``ipip6``, without the encapsulation limit option
GRE                    ``gre``; with checksums in both directions where the configuration says so
GRE over IPv6          ``ip6gre``, likewise
=====================  ============================================================================

The kernel has one such device for a pair of tunnel ends and a kind; all leases by that tunnel share it.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
import subprocess

from isthmus.address import Family
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.errors import PlaneError, Unsupported

_KINDS = {
    (TunnelKind.IPIP, Family.IPV4): ("ipip", "ipip"),
    (TunnelKind.IPIP, Family.IPV6): ("ip6tnl", "ip6_tunnel"),
    (TunnelKind.GRE, Family.IPV4): ("gre", "ip_gre"),
    (TunnelKind.GRE, Family.IPV6): ("ip6gre", "ip6_gre"),
}
"""Device type and kernel module."""
_SIOCETHTOOL = 0x8946
_OFFLOADS = {"checksums": 0x17, "TCP segmentation": 0x1F, "segmentation": 0x24, "GRO": 0x2C}
"""ETHTOOL_S… commands."""


def words(name: str, tunnel: Tunnel) -> list[str]:
    """What ``ip link`` is told to make a device.

    Args:
        name: Of the device.
        tunnel: Our end and the other, kind and checksum.
    """
    kind = _KINDS[tunnel.kind, tunnel.local.family][0]
    line = ["add", "name", name, "type", kind]
    if kind == "ip6tnl":
        line += ["mode", "ipip6"]
    line += ["local", str(tunnel.local), "remote", str(tunnel.remote)]
    # RFC 2003 §3.1 and our own planes: the outer TTL is 64 whatever the inner is.
    line += ["ttl", "64"] if tunnel.local.family is Family.IPV4 else ["encaplimit", "none", "hoplimit", "64"]
    return [*line, "csum"] if tunnel.checksum else line


def create(name: str, tunnel: Tunnel) -> None:
    """Make a tunnel device in the current network namespace; what has its name already is replaced.

    Raises:
        Unsupported: the kernel has no driver for it; says what to do.
        PlaneError: it refuses for another reason.
    """
    kind, module = _KINDS[tunnel.kind, tunnel.local.family]
    remove(name)
    problem = _ip_link(*words(name, tunnel))
    if "not supported" in problem or "Unknown device type" in problem:
        subprocess.run(["modprobe", module], check=False, capture_output=True, timeout=30)
        problem = _ip_link(*words(name, tunnel))
    if "not supported" in problem or "Unknown device type" in problem:
        raise Unsupported(
            f"the kernel's own tunnel device {kind}",
            remedy=f'load its module ({module}) or write tunnels = "plane" in [host]',
        )
    if problem:
        raise PlaneError(f"tunnel device {name} ({kind}): {problem}")
    _switch_offloads_off(name)


def remove(name: str) -> None:
    """Remove a device; one that is gone is no error."""
    _ip_link("delete", name)


def _ip_link(*line: str) -> str:
    """Run ``ip link``; the answer is what is wrong, or nothing."""
    try:
        done = subprocess.run(["ip", "link", *line], check=False, capture_output=True, text=True, timeout=30)
    except FileNotFoundError as error:
        raise Unsupported("tunnel devices", remedy="install iproute2: there is no program 'ip'") from error
    return done.stderr.strip() or f"status {done.returncode}" if done.returncode else ""


def _switch_offloads_off(name: str) -> None:
    """Let every packet be whole and summed before it enters the tunnel, since nobody beyond would finish it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for command in _OFFLOADS.values():
            value = array.array("B", struct.pack("=II", command, 0))
            request = struct.pack("16sP", name.encode(), value.buffer_info()[0])
            try:
                fcntl.ioctl(handle, _SIOCETHTOOL, request)
            except OSError:
                # A driver that has no such offload does not need it switched off.
                continue
