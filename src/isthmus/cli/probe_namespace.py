# SPDX-License-Identifier: BSD-3-Clause
"""Trying things out, in a network and mount namespace of its own that ends with this process.

``python -m isthmus.cli.probe_namespace CALLERS_NAMESPACE`` prints a JSON list of findings.
'isthmus doctor' starts it below ``unshare`` and says which namespace it is in itself; without
that word, or in that very namespace, it refuses, because it makes devices.
A driver that is a module on the disk and not loaded is left alone: to try it would load
it for the whole machine.
"""

from __future__ import annotations

import json
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from isthmus.cli.finding import Finding, missing, ok, warn

_LAB = "the lab cannot be built without it; use a kernel that has it"
_DRIVERS = {
    "bridge": ("bridge", {}),
    "ipip": ("ipip", {"ipip_local": "192.0.2.1", "ipip_remote": "192.0.2.2"}),
    "gre": ("ip_gre", {"gre_local": "192.0.2.1", "gre_remote": "192.0.2.2"}),
    "ip6tnl": ("ip6_tunnel", {"ip6tnl_local": "2001:db8::1", "ip6tnl_remote": "2001:db8::2"}),
}
"""Kind of link, to its module and what else netlink wants to know."""


def findings() -> Iterator[Finding]:
    """Try everything."""
    from pyroute2 import IPRoute

    with IPRoute() as links:
        yield from _veth(links)
        for kind, (module, more) in _DRIVERS.items():
            yield _driver(links, kind, module, more)
    yield _packet_socket()
    yield _nftables()
    yield _bpf_file_system()


def module_state(name: str) -> str:
    """Where a driver is: ``loaded`` (or built in and visible), ``on disk``, or ``unknown``."""
    if Path("/sys/module", name).exists():
        return "loaded"
    try:
        listed = Path("/lib/modules", platform.release(), "modules.dep").read_text(encoding="ascii")
    except OSError:
        return "unknown"
    return "on disk" if any(f"/{each}.ko" in listed for each in (name, name.replace("_", "-"))) else "unknown"


def _veth(links: Any) -> Iterator[Finding]:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        links.link("add", ifname="isthmus0", kind="veth", peer="isthmus1")
        index = links.link_lookup(ifname="isthmus0")[0]
    except (NetlinkError, IndexError) as error:
        yield missing("veth", f"cannot be made: {error}", "ports and devices are veth pairs: use a kernel with veth")
        return
    yield ok("veth", "can be made")
    try:
        links.tc("add", "clsact", index)
    except NetlinkError as error:
        yield missing(
            "clsact",
            f"cannot be attached: {error}",
            "the kernel plane attaches there: use a kernel with NET_SCH_INGRESS",
        )
    else:
        yield ok("clsact", "can be attached")


def _driver(links: Any, kind: str, module: str, more: dict[str, str]) -> Finding:
    from pyroute2.netlink.exceptions import NetlinkError

    name = f"driver {kind}"
    if module_state(module) == "on disk":
        return ok(name, f"module {module} is on the disk, not loaded and not tried")
    try:
        links.link("add", ifname=f"isthmus-{kind}", kind=kind, **more)
    except NetlinkError as error:
        if kind == "bridge":
            return missing(name, f"cannot be made: {error}", _LAB)
        remedy = "nothing: isthmus tunnels without it. Only a host that uses the kernel's own tunnel device needs it"
        return warn(name, f"cannot be made: {error}", remedy)
    return ok(name, "can be made")


def _packet_socket() -> Finding:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except OSError as error:
        remedy = "the reference plane and the slow path read packets this way: needs CAP_NET_RAW and CONFIG_PACKET"
        return missing("packet-socket", f"refused: {error.strerror}", remedy)
    return ok("packet-socket", "can be opened")


def _nftables() -> Finding:
    name = "nftables"
    if shutil.which("nft") is None:
        return warn(name, "nft is not installed", "apt-get install nftables; only the benchmarks compare with it")
    if module_state("nf_tables") == "on disk":
        return ok(name, "module nf_tables is on the disk, not loaded and not tried")
    hook = "{ type nat hook postrouting priority 100; }"
    rules = f"add table ip isthmus; add chain ip isthmus post {hook}; add rule ip isthmus post masquerade"
    tried = subprocess.run(["nft", rules], capture_output=True, text=True, check=False)
    if tried.returncode:
        said = tried.stderr.strip().splitlines()
        return warn(name, f"masquerade is refused: {said[0] if said else '?'}", "only the benchmarks compare with it")
    return ok(name, "masquerade works: the benchmarks can compare")


def _bpf_file_system() -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(["mount", "-t", "bpf", "bpf", folder], capture_output=True, text=True, check=False)
        if tried.returncode:
            remedy = "the kernel plane pins its maps there: needs CAP_SYS_ADMIN, or one that is mounted already"
            said = tried.stderr.strip().splitlines()
            return warn("bpffs-mount", f"refused: {said[0] if said else '?'}", remedy)
        subprocess.run(["umount", folder], check=False)
    return ok("bpffs-mount", "a BPF file system can be mounted")


def main() -> None:
    """Print what was found; refuse in the namespace that the caller is in, or if it is not said which that is."""
    here = str(Path("/proc/self/ns/net").readlink())
    if len(sys.argv) != 2 or not sys.argv[1].startswith("net:[") or sys.argv[1] == here:
        sys.exit("probe_namespace makes devices: it runs in a network namespace of its own; use 'isthmus doctor'")
    print(json.dumps([asdict(each) for each in findings()]))


if __name__ == "__main__":
    main()
