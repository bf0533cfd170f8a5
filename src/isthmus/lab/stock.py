# SPDX-License-Identifier: BSD-3-Clause
"""Stock servers of the lab, and stock programs that call them by name.

Real dnsmasq answers, and real programs ask: they run with a ``/etc/resolv.conf`` of their own, in a mount
namespace that ends with them.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

from isthmus.lab.node import ISTHMUS, Node

PACKAGES = ("openssh-server", "openssh-client", "dnsmasq-base", "bind9-dnsutils", "iperf3", "iputils-ping")
_FETCH = ("curl", "--silent", "--show-error", "--max-time", "10")


def start_web(node: Node, *, ipv6: bool) -> None:
    """Start the web server of the lab."""
    words = ("::",) if ipv6 else ()
    node.start("web", ISTHMUS[0], "-m", "isthmus.lab.web", str(requests_of(node)), *words, ready="ready")


def requests_of(node: Node) -> Path:
    """Where the web server of a node notes who asked."""
    return node.directory / "requests.jsonl"


def start_names(node: Node, address: str, hosts: Mapping[str, Sequence[str]]) -> None:
    """Start dnsmasq at an address of a node; it knows these names and their addresses, and nobody else's."""
    records = [f"--host-record={name},{','.join(addresses)}" for name, addresses in hosts.items()]
    node.start(
        "dnsmasq",
        "dnsmasq",
        "--keep-in-foreground",
        "--log-facility=-",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--local=/example/",
        "--user=root",
        "--bind-interfaces",
        f"--listen-address={address}",
        *records,
        f"--pid-file={node.directory}/dnsmasq.pid",
        ready="dnsmasq[",
    )


def start_sshd(node: Node, keys: Path) -> None:
    """Start a throw-away sshd on all addresses of a node; its keys are one for all nodes of a network.

    Args:
        node: Where.
        keys: The directory of the network's keys, made when it is not there.
    """
    if not keys.is_dir():
        keys.mkdir(parents=True)
        for key in ("host_key", "user_key"):
            node.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(keys / key))
        host_key = (keys / "host_key.pub").read_text(encoding="ascii")
        (keys / "known_hosts").write_text(f"lab {host_key}", encoding="ascii")
    settings = {
        "HostKey": keys / "host_key",
        "AuthorizedKeysFile": keys / "user_key.pub",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "UseDNS": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "Subsystem": "sftp internal-sftp",
    }
    words = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    node.start("sshd", "/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *words, ready="Server listening")


def ssh_options(keys: Path) -> list[str]:
    """Options of ssh and scp: the network's keys, and nothing of whoever runs the lab."""
    settings = ("BatchMode=yes", "ConnectTimeout=10", "HostKeyAlias=lab", f"UserKnownHostsFile={keys / 'known_hosts'}")
    return ["-i", str(keys / "user_key"), "-F", "none", *(word for each in settings for word in ("-o", each))]


def ssh(keys: Path, name: str, command: str) -> list[str]:
    """The command line by which ssh runs a command at a host with such an sshd."""
    return ["ssh", *ssh_options(keys), f"{getpass.getuser()}@{name}", command]


def fetch(url: str, *options: str) -> list[str]:
    """The command line by which curl fetches something."""
    return [*_FETCH, *options, url]


# --- programs ---------------------------------------------------------------------------------


def by_name(node: Node, server: str, *command: str) -> CompletedProcess[str]:
    """Run a program whose names are resolved by a DNS server."""
    file = node.directory / "resolv.conf"
    if not file.exists():
        node.directory.mkdir(parents=True, exist_ok=True)
        file.write_text(f"nameserver {server}\n", encoding="ascii")
    enter = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    private = ("unshare", "--mount", "--propagation", "private")
    return node.run(*private, "sh", "-c", enter, str(file), *command, check=False)


def at_once(node: Node, server: str, *commands: Sequence[str]) -> list[CompletedProcess[str]]:
    """Run several such programs at the same time, and return what came of each."""
    with ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(lambda command: by_name(node, server, *command), commands))


def words(done: CompletedProcess[str]) -> str:
    """What a program said, in one line, and how it ended if not well."""
    said = " ".join((done.stdout.strip() or done.stderr.strip()).split())[:200]
    return f"exit code {done.returncode}: {said}" if done.returncode else said


def look_up(node: Node, server: str, name: str) -> dict[str, list[str]]:
    """What DNS says about a name, by type of record."""
    asked = ("dig", "+short", "+tries=2", "+time=3", f"@{server}", name)
    return {kind: node.run(*asked, kind, check=False).stdout.split() for kind in ("AAAA", "A")}
