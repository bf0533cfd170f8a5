# SPDX-License-Identifier: BSD-3-Clause
"""Root, or the next best thing: the lab runs itself again inside an unprivileged user namespace.

There it is root over namespaces of its own making, and over nothing else: no eBPF, so the
reference plane moves the packets; a /run of its own, since namespaces have names there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from isthmus.lab.scenario import Setting
from isthmus.lab.topology import LabError

_MARK = "ISTHMUS_LAB_INSIDE"

NOTICE = "not root: the reference plane (Python) carries the packets, inside an unprivileged user namespace"
"""What a person is told, who may have expected the kernel plane."""

TOOLS = {
    "ip": "iproute2",
    "ethtool": "ethtool",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "nft": "nftables",
    "curl": "curl",
}
"""What every lab needs, with the Debian packages that have it."""


def setting() -> Setting | None:
    """How scenarios can be played by this very process; None: not without a user namespace."""
    if os.environ.get(_MARK):
        return Setting(plane="reference", root=False)
    return Setting(plane="auto", root=True) if os.geteuid() == 0 else None


def enter(arguments: Sequence[str]) -> int:
    """Run ``isthmus ARGUMENTS`` again as root of a user namespace, and return its exit code.

    Raises:
        LabError: the machine does not let ordinary users have one.
    """
    # If this process is killed, unshare goes with it, and whatever it has made with that.
    unshare = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
    ]
    missing = missing_tools()
    if missing:
        raise LabError(f"{missing}, or run this as root, which installs it")
    probe = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False, timeout=30)
    if probe.returncode:
        raise LabError(
            f"this user may not make user namespaces ({probe.stderr.strip()}): run as root, or allow them with"
            " 'sysctl kernel.unprivileged_userns_clone=1' or 'sysctl user.max_user_namespaces=1000'"
        )
    inner = 'mount -t tmpfs -o mode=755 isthmus-lab /run && exec "$@"'
    command = [*unshare, "--mount-proc", "sh", "-c", inner, "sh", sys.executable, "-m", "isthmus", *arguments]
    return _wait_for(subprocess.Popen(command, env={**os.environ, _MARK: "1"}))


def _wait_for(unshare: subprocess.Popen[bytes]) -> int:
    """Wait, and hand on a request to end: unshare itself listens to none. Ctrl-C reaches the inside by the terminal."""

    def hand_on(number: int, _frame: FrameType | None) -> None:
        children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text(encoding="ascii")
        for child in children.split():
            os.kill(int(child), number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return unshare.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def missing_tools(*more: str) -> str:
    """Say which programs are missing and how to get them; nothing if none."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = {package for tool, package in TOOLS.items() if not shutil.which(tool, path=path)}
    absent |= {package for package in more if not shutil.which(_PROGRAMS.get(package, package), path=path)}
    if not absent:
        return ""
    return f"install with apt-get install {' '.join(sorted(absent))}"


_PROGRAMS = {
    "openssh-server": "/usr/sbin/sshd",
    "openssh-client": "scp",
    "bind9-dnsutils": "dig",
    "dnsmasq-base": "dnsmasq",
    "knot": "knotd",
    "bird2": "bird",
    "nftables": "nft",
    "iputils-ping": "ping",
    "iputils-arping": "arping",
}
"""The program to look for, where it is not called like its package."""
