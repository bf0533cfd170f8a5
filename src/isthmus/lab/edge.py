# SPDX-License-Identifier: BSD-3-Clause
"""What edge networks have in common: addresses of both families, names, programs that go by name.

Real dnsmasq answers, and real programs ask: they run with a ``/etc/resolv.conf`` of their own, in a mount
namespace that ends with them. Captures are told apart by what is in an IP packet, outermost header first.
"""

from __future__ import annotations

import getpass
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from subprocess import CompletedProcess

from isthmus.lab import figure
from isthmus.lab.capture import Captured
from isthmus.lab.lab import Lab
from isthmus.lab.node import ISTHMUS, Node, wait_until
from isthmus.lab.scenario import Setting
from isthmus.lab.topology import Cable, End, LabError
from isthmus.wire.transport import Protocol

IPV6 = {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"}
PACKAGES = ("openssh-server", "openssh-client", "dnsmasq-base", "bind9-dnsutils", "iperf3", "iputils-ping")
GATEWAY6 = figure.GATEWAY_NEAR6
FAR_NAME = "www.far.example"
"""The server that has no IPv6."""
_ICMPV6, _HOP_BY_HOP, _IPV6 = 58, 0, 41
_NEIGHBOUR_TYPES = range(133, 138)
_FETCH = ("curl", "--silent", "--show-error", "--max-time", "10")


def end(node: str, interface: str, *addresses: str) -> End:
    """One end of a cable on which packets look as on a real wire; IPv6 addresses are used at once."""
    ready = tuple(f"{address} nodad" if ":" in address else address for address in addresses)
    return End(node=node, interface=interface, addresses=ready, offload=False)


def cable(left: End, right: End) -> Cable:
    """A cable."""
    return Cable(left, right)


# --- what is configured -----------------------------------------------------------------------


def gateway_configuration(lab: Lab, setting: Setting, *addresses: str) -> str:
    """What ``isthmus up`` reads at the gateway, which has these addresses in the edge network."""
    both = ", ".join(f'"{address}"' for address in addresses)
    text = figure.gateway_configuration(lab, setting)
    return text.replace(f'address = "{figure.GATEWAY_NEAR}"', f"address = [{both}]")


def host_configuration(lab: Lab, setting: Setting, host: str, routes: Sequence[str] = (figure.FAR,)) -> str:
    """What it reads at a host, whose gateway is one of IPv6."""
    text = figure.host_configuration(lab, setting, host)
    text = text.replace(f'gateway = "{figure.GATEWAY_NEAR}"', f'gateway = "{GATEWAY6}"')
    return text.replace(f'routes = ["{figure.FAR}"]', "routes = [{}]".format(", ".join(f'"{each}"' for each in routes)))


def start_hosts(lab: Lab, configurations: Mapping[str, str]) -> None:
    """Start host daemons, and wait until each has its lease.

    Raises:
        LabError: one did not get it.
    """
    for host, text in configurations.items():
        lab[host].up(text)
    for host in configurations:
        if not wait_until(lambda: bool(lab[host].isthmus("leases")), 10, every=0.1):  # noqa: B023 - called at once
            raise LabError(f"{host} got no lease within 10 seconds")


# --- servers ----------------------------------------------------------------------------------


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
    }
    words = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    node.start("sshd", "/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *words, ready="Server listening")


def ssh(keys: Path, name: str, command: str) -> list[str]:
    """The command line by which ssh runs a command at a host with such an sshd."""
    settings = ("BatchMode=yes", "ConnectTimeout=10", "HostKeyAlias=lab", f"UserKnownHostsFile={keys / 'known_hosts'}")
    options = [word for each in settings for word in ("-o", each)]
    return ["ssh", "-i", str(keys / "user_key"), "-F", "none", *options, f"{getpass.getuser()}@{name}", command]


def fetch(url: str, *options: str) -> list[str]:
    """The command line by which curl fetches something."""
    return [*_FETCH, *options, url]


# --- programs ---------------------------------------------------------------------------------


def by_name(node: Node, server: str, *command: str) -> CompletedProcess[str]:
    """Run a program whose names are resolved by a DNS server."""
    file = node.directory / "resolv.conf"
    if not file.exists():
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


# --- what was on a wire -----------------------------------------------------------------------


class Carried(StrEnum):
    """What an IP packet is, as far as an edge network cares."""

    IPV4 = "plain IPv4"
    IPV6 = "plain IPv6"
    IPV4_IN_IPV6 = "IPv4 in IPv6"
    IPV4_IN_IPV4 = "IPv4 in IPv4"
    IPV6_IN_IPV4 = "IPv6 in IPv4"
    CONTROL = "RSIP"
    NEIGHBOURS = "neighbours"


def carried(octets: bytes) -> Carried:
    """Tell what a packet is."""
    version = octets[0] >> 4
    protocol, header = (octets[6], 40) if version == 6 else (octets[9], (octets[0] & 15) * 4)
    if protocol in {Protocol.IPIP, _IPV6}:
        inner = {Protocol.IPIP: 4, _IPV6: 6}[protocol]
        return Carried(f"IPv{inner} in IPv{version}")
    if version == 6 and (protocol == _HOP_BY_HOP or (protocol == _ICMPV6 and octets[40] in _NEIGHBOUR_TYPES)):
        return Carried.NEIGHBOURS
    ports = (octets[header : header + 2], octets[header + 2 : header + 4])
    if protocol in {Protocol.TCP, Protocol.UDP} and figure.CONTROL_PORT.to_bytes(2, "big") in ports:
        return Carried.CONTROL
    return Carried.IPV6 if version == 6 else Carried.IPV4


def tally(packets: Iterable[Captured]) -> Counter[Carried]:
    """Count packets by what they are."""
    return Counter(carried(packet.octets) for packet in packets)


def told(counted: Mapping[Carried, int]) -> str:
    """Say such counts."""
    return ", ".join(f"{kind} {count}" for kind, count in sorted(counted.items())) or "nothing"


def payload(counted: Mapping[Carried, int]) -> set[Carried]:
    """The kinds that carry what programs say."""
    return {kind for kind, count in counted.items() if count} - {Carried.CONTROL, Carried.NEIGHBOURS}
