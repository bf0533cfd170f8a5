# SPDX-License-Identifier: BSD-3-Clause
"""Looking at the machine as it is: kernel, privileges, settings, clocks. Changes nothing.

What can only be known by making devices is tried in ``probe_namespace``, in a network
namespace of its own that ends with the process.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import platform
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from isthmus.cli.finding import Finding, Status, missing, ok, warn

OLDEST_KERNEL = (5, 15)
"""The helpers and map types of bpf/ have all been there since then."""

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
"""What the daemon needs or can use, with the bit of each."""

_WHY = {
    "CAP_NET_ADMIN": "makes devices, routes and TC filters",
    "CAP_NET_RAW": "lets the reference plane read packets",
    "CAP_SYS_ADMIN": "mounts a BPF file system and makes namespaces for 'isthmus run' and the lab",
    "CAP_PERFMON": "lets eBPF programs do pointer arithmetic on packets",
    "CAP_BPF": "loads eBPF programs and maps",
}


def kernel() -> Iterator[Finding]:
    """The kernel's version, types and compiler."""
    release = platform.release()
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    wanted = ".".join(map(str, OLDEST_KERNEL))
    if version >= OLDEST_KERNEL:
        yield ok("kernel", f"Linux {release}")
    else:
        yield missing("kernel", f"Linux {release}", f"the kernel plane is written for {wanted} and later: upgrade")
    if Path("/sys/kernel/btf/vmlinux").exists():
        yield ok("btf", "/sys/kernel/btf/vmlinux is there")
    else:
        yield warn(
            "btf", "the kernel has no type information", "use a kernel with CONFIG_DEBUG_INFO_BTF (Debian's has it)"
        )
    jit = _read("/proc/sys/net/core/bpf_jit_enable")
    if jit in ("1", "2"):
        yield ok("bpf-jit", "on")
    elif jit is None:
        # Where CONFIG_BPF_JIT_ALWAYS_ON hides the switch from us it is on; without a JIT there is no file either.
        yield warn(
            "bpf-jit", "cannot be seen in this network namespace", "look at net.core.bpf_jit_enable in the first one"
        )
    else:
        yield warn("bpf-jit", "off: programs are interpreted", "sysctl -w net.core.bpf_jit_enable=1")


def capabilities() -> dict[str, bool]:
    """Which of the capabilities that matter this process has."""
    status = _read("/proc/self/status") or ""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    return {name: bool(effective >> bit & 1) for name, bit in CAPABILITIES.items()}


def privileges() -> Iterator[Finding]:
    """The capabilities, each with what it is for."""
    for name, has in capabilities().items():
        if has:
            yield ok(name, _WHY[name])
        elif name in ("CAP_NET_ADMIN", "CAP_NET_RAW"):
            yield missing(name, _WHY[name], "run as root, or give it with AmbientCapabilities (contrib/systemd)")
        else:
            yield warn(
                name,
                f"{_WHY[name]}: not to be had",
                "run as root, or give it with AmbientCapabilities (contrib/systemd)",
            )


def bpf_files() -> Iterator[Finding]:
    """The BPF file system, libbpf, and the compiled programs."""
    mounts = [line.split()[1] for line in (_read("/proc/mounts") or "").splitlines() if line.split()[2] == "bpf"]
    if mounts:
        yield ok("bpffs", f"mounted at {', '.join(mounts)}")
    elif capabilities()["CAP_SYS_ADMIN"]:
        yield ok("bpffs", "not mounted; the daemon mounts one of its own")
    else:
        yield warn("bpffs", "not mounted", "mount -t bpf bpf /sys/fs/bpf as root, or give the daemon CAP_SYS_ADMIN")
    yield libbpf()
    folder = Path(__file__).parents[1] / "plane" / "kernel" / "objects"
    objects = sorted(each.name for each in folder.glob("*.bpf.o"))
    if objects:
        yield ok("objects", f"{', '.join(objects)} in {folder}")
    else:
        remedy = "from a source tree: apt-get install clang libbpf-dev && make -C bpf; an installed wheel has them"
        yield missing("objects", f"no compiled eBPF program in {folder}", remedy)


def libbpf() -> Finding:
    """The library that loads programs."""
    try:
        library = ctypes.CDLL("libbpf.so.1")
    except OSError:
        return missing("libbpf", "libbpf.so.1 is not installed", "apt-get install libbpf1")
    library.libbpf_version_string.restype = ctypes.c_char_p
    return ok("libbpf", f"libbpf.so.1 is {library.libbpf_version_string().decode()}")


def programs() -> Finding:
    """Load the program and its maps for real, and let go of them."""
    from isthmus.border.realm import Border, Realm
    from isthmus.errors import PlaneError, Unsupported
    from isthmus.plane.kernel import KernelPlane

    border = Border(realms=(Realm(number=1, name="here"),))
    try:
        KernelPlane(border, pin=None, boot_offset=0.0).close()
    except Unsupported as error:
        return missing("programs", f"cannot be loaded: {error.feature}", error.remedy)
    except PlaneError as error:
        return missing("programs", f"cannot be loaded: {error}", "report this, with everything that doctor prints")
    return ok("programs", "the eBPF program and its maps can be loaded")


def user_namespaces() -> Finding:
    """Whether anybody may make namespaces: what the lab does without root."""
    tried = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode == 0:
        return ok("user-namespaces", "can be made: the lab runs without root, on the reference plane")
    remedy = "sysctl -w user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1, or use root"
    return warn("user-namespaces", f"refused: {tried.stderr.strip()}", remedy)


def namespace() -> list[Finding]:
    """Everything that is found out by trying, in a child with a network namespace of its own."""
    as_root = capabilities()["CAP_SYS_ADMIN"]
    unshare = (
        ["unshare", "--net", "--mount"] if as_root else ["unshare", "--user", "--map-root-user", "--net", "--mount"]
    )
    here = str(Path("/proc/self/ns/net").readlink())
    command = [*unshare, sys.executable, "-m", "isthmus.cli.probe_namespace", here]
    try:
        child = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        return [Finding(**each | {"status": Status(each["status"])}) for each in json.loads(child.stdout)]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        remedy = "needs root, or user namespaces (see user-namespaces); devices and programs were not tried"
        return [missing("namespace", f"no network namespace to try in: {said[-1] if said else error}", remedy)]


def clocks() -> Iterator[Finding]:
    """Whether leases can be timed and the history can be trusted."""
    from datetime import UTC, datetime

    now = datetime.now(tz=UTC)
    if now.year < 2026:
        yield warn("clock", f"it says {now:%Y-%m-%d}", "set the time: the history of leases is kept by this clock")
        return
    # struct timex: an int padded to a long, four longs, then the status; 256 octets hold all of it.
    timex = (ctypes.c_long * 32)()
    ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    status = ctypes.cast(timex, ctypes.POINTER(ctypes.c_int))[10]
    if status & 0x40:
        remedy = "run an NTP client: 'isthmus who-had --at' is as right as this clock"
        yield warn("clock", f"{now:%Y-%m-%dT%H:%M:%SZ}, not synchronised", remedy)
    else:
        yield ok("clock", f"{now:%Y-%m-%dT%H:%M:%SZ}, synchronised")


def interfaces() -> list[str]:
    """Every network interface of this network namespace but loopback; /sys may show another's."""
    return sorted(name for _, name in socket.if_nameindex() if name != "lo")


def mtu(interface: str) -> int | None:
    """An interface's MTU; None if there is no such interface."""
    answer = _ask_interface(interface, _SIOCGIFMTU, bytes(8))
    return None if answer is None else int.from_bytes(answer[:4], sys.byteorder)


def offload(interface: str) -> Finding | None:
    """Whether an interface merges packets in a way that cannot be undone."""
    flags = _ethtool_flags(interface)
    if flags is None:
        return None
    if flags & _LRO:
        remedy = f"ethtool -K {interface} lro off: merged packets cannot be forwarded unchanged"
        return warn(f"offload {interface}", "large receive offload is on", remedy)
    return ok(f"offload {interface}", "large receive offload is off (GRO is harmless)")


def guests() -> Finding:
    """Whether the lab can start stock kernels, and IKE in them: for its scenarios with IPsec."""
    from isthmus.lab import ipsec

    if lacks := ipsec.missing():
        return warn("lab-ipsec", "the lab's scenarios with IPsec cannot be played", lacks)
    return ok("lab-ipsec", "User Mode Linux and strongSwan are there")


def forwarding() -> Finding:
    """Whether the machine routes at all."""
    if sysctl("net/ipv4/ip_forward") == "1":
        return ok("ip_forward", "on")
    remedy = "at a gateway or border router: sysctl -w net.ipv4.ip_forward=1, or nothing but the kernel plane forwards"
    return warn("ip_forward", "off", remedy)


def reverse_path(interface: str) -> Finding:
    """Strict reverse path filtering drops what comes out of tunnels."""
    values = [int(sysctl(f"net/ipv4/conf/{each}/rp_filter") or 0) for each in ("all", interface)]
    accept = sysctl(f"net/ipv4/conf/{interface}/accept_local") or "0"
    detail = f"rp_filter {max(values)} accept_local {accept}"
    if max(values) == 1:
        remedy = (
            f"if packets get lost: sysctl -w net.ipv4.conf.{interface}.rp_filter=2 (and .all, which wins if greater)"
        )
        return warn(f"rp_filter {interface}", f"{detail} (strict)", remedy)
    return ok(f"rp_filter {interface}", detail)


def sysctl(name: str) -> str | None:
    """A setting below /proc/sys; None if it cannot be read."""
    return _read(f"/proc/sys/{name}")


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


_SIOCGIFMTU, _SIOCETHTOOL, _ETHTOOL_GFLAGS, _LRO = 0x8921, 0x8946, 0x25, 1 << 15


def _ethtool_flags(interface: str) -> int | None:
    value = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_GFLAGS, 0), 8)
    if _ask_interface(interface, _SIOCETHTOOL, struct.pack("=Q", ctypes.addressof(value))) is None:
        return None
    return int(struct.unpack("=II", value.raw)[1])


def _ask_interface(interface: str, request: int, argument: bytes) -> bytes | None:
    """Make a request about an interface (``struct ifreq``); None if it is refused."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            return fcntl.ioctl(any_socket, request, struct.pack("=16s24s", interface.encode(), argument))[16:]
    except OSError:
        return None
