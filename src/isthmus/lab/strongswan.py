# SPDX-License-Identifier: BSD-3-Clause
"""strongSwan in the machines of a guest: stock charon and swanctl, told by their own files what to do.

What a leaseholder needs to say are four options of ``strongswan.conf``: ``port``, ``port_nat_t``,
``spi_min`` and ``spi_max`` (and that traffic selectors are what it holds).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isthmus.border.ranges import Ranges
from isthmus.lab.topology import LabError
from isthmus.lab.uml import Machine

PACKAGES = ("strongswan-charon", "strongswan-swanctl")
MODULES = (
    *("ipip", "af_key", "xfrm_user", "esp4", "ah4", "authenc", "authencesn", "echainiv", "seqiv"),
    *("cbc", "ctr", "gcm", "ghash_generic", "hmac", "sha256_generic", "sha512_generic", "drbg"),
)
"""What kernel IPsec and its host's tunnel need."""

IKE_PORT, NAT_PORT = 500, 4500
_CHARON = "/usr/lib/ipsec/charon"
_CONF, _DIRECTORY = "/run/strongswan.conf", "/run/swanctl"
_PLUGINS = "random nonce aes sha1 sha2 hmac kdf gmp pem pkcs1 x509 pubkey kernel-netlink socket-default vici updown"
_TOOL_PLUGINS = "random nonce aes sha1 sha2 hmac pem pkcs1 x509 pubkey"
_IKE_PROPOSAL = "aes128-sha256-modp2048"
_PROTECTED = (6, 17)
"""TCP and UDP, by number: a small machine has no /etc/protocols to look the names up in."""
_SECRET = "a secret that both know"  # noqa: S105 - of the lab, on no other machine


def missing() -> str:
    """Say what is missing and how to get it; nothing if nothing is."""
    if not shutil.which(_CHARON) or not shutil.which("swanctl", path="/usr/sbin:/sbin"):
        return f"there is no strongSwan: install with apt-get install {' '.join(PACKAGES)}"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """How a charon is to run: without anything, as everybody's does."""

    port: int = IKE_PORT
    port_nat_t: int = NAT_PORT
    spis: tuple[int, int] | None = None
    "First and last that it may receive by (RFC 3104 §4)."

    def text(self) -> str:
        """``strongswan.conf``."""
        lines = [f"load = {_PLUGINS}", "install_routes = no", "retransmit_timeout = 2.0", "retransmit_tries = 3"]
        lines += ["i_dont_care_about_security_and_use_aggressive_mode_psk = yes"]
        if (self.port, self.port_nat_t) != (IKE_PORT, NAT_PORT):
            lines += [f"port = {self.port}", f"port_nat_t = {self.port_nat_t}"]
        if self.spis is not None:
            lines += [f"spi_min = {self.spis[0]:#x}", f"spi_max = {self.spis[1]:#x}"]
        lines += ["filelog {\n stderr {\n default = 1\n flush_line = yes\n }\n }"]
        return "charon {\n " + "\n ".join(lines) + f"\n}}\nswanctl {{\n load = {_TOOL_PLUGINS}\n}}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One connection of ``swanctl.conf``, with one transport-mode child of the same name."""

    name: str
    local_id: str
    remote_id: str
    protocol: str = "esp"
    "Or ah."
    local_address: str | None = None
    remote_address: str = "%any"
    remote_port: int = IKE_PORT
    local_selectors: tuple[str, ...] = ()
    remote_selectors: tuple[str, ...] = ()
    version: int = 2
    aggressive: bool = False
    transform: str | None = None

    def text(self) -> str:
        """Its section."""
        own = f"local_addrs = {self.local_address}" if self.local_address else ""
        transform = self.transform or ("aes128-sha256" if self.protocol == "esp" else "sha256")
        local = f"local_ts = {', '.join(self.local_selectors)}" if self.local_selectors else ""
        remote = f"remote_ts = {', '.join(self.remote_selectors)}" if self.remote_selectors else ""
        return f"""\
{self.name} {{
  version = {self.version}
  aggressive = {"yes" if self.aggressive else "no"}
  {own}
  remote_addrs = {self.remote_address}
  remote_port = {self.remote_port}
  proposals = {_IKE_PROPOSAL}
  mobike = no
  local {{
    auth = psk
    id = {self.local_id}
  }}
  remote {{
    auth = psk
    id = {self.remote_id}
  }}
  children {{
    {self.name} {{
      mode = transport
      {self.protocol}_proposals = {transform}
      {local}
      {remote}
    }}
  }}
}}
"""


def selectors(address: str, ports: Ranges | None = None) -> tuple[str, ...]:
    """Traffic selectors of TCP and UDP for an address and ports of it.

    A kernel policy has a mask for the ports, not a range (``struct xfrm_selector``), so each range is cut
    into aligned blocks: a range that is none would be widened to the next block and swallow others' ports.
    """
    if ports is None:
        return tuple(f"{address}/32[{protocol}]" for protocol in _PROTECTED)
    blocks = [block for first, last in ports.pairs for block in _blocks(first, last)]
    return tuple(f"{address}/32[{protocol}/{a}-{b}]" for protocol in _PROTECTED for a, b in blocks)


def _blocks(first: int, last: int) -> Iterable[tuple[int, int]]:
    while first <= last:
        size = first & -first or 1 << 16
        while first + size - 1 > last:
            size //= 2
        yield first, first + size - 1
        first += size


def start(machine: Machine, daemon: Daemon, connections: Sequence[Connection], identities: Iterable[str]) -> None:
    """Start charon in a machine, over one that runs there, with these connections.

    Args:
        machine: Where.
        daemon: How.
        connections: What it knows; it begins none by itself.
        identities: Whoever the secret is shared with.

    Raises:
        LabError: it does not start, or does not take the connections.
    """
    machine.write(_CONF, daemon.text())
    sections = "".join(connection.text() for connection in connections)
    secrets = "".join(
        f"ike-{name.replace('.', '-')} {{\n id = {name}\n secret = {_SECRET!r}\n}}\n" for name in identities
    )
    text = f"connections {{\n{sections}}}\nsecrets {{\n{secrets}}}\n".replace("'", '"')
    machine.write(f"{_DIRECTORY}/swanctl.conf", text)
    machine.start("charon", _CHARON, ready="worker threads", env={"STRONGSWAN_CONF": _CONF})
    load(machine)


def load(machine: Machine) -> None:
    """Let charon read what it shall know."""
    _swanctl(machine, "--load-all", "--noprompt")


def initiate(machine: Machine, child: str, seconds: float = 15.0) -> tuple[bool, str]:
    """Begin a connection, and say whether it came about, and if not what strongSwan says."""
    words = ("--initiate", "--child", child, "--ike", child, "--timeout", str(round(seconds)))
    done = _swanctl(machine, *words, check=False, seconds=seconds + 10)
    lines = [line for line in done.strip().splitlines() if line]
    return "initiate completed successfully" in done, lines[-1] if lines else "it said nothing"


def rekey(machine: Machine, child: str) -> None:
    """Let a child be keyed anew, by this side."""
    _swanctl(machine, "--rekey", "--child", child)


def rekey_ike(machine: Machine, name: str) -> None:
    """Let an IKE association be keyed anew, by this side; it goes on with other cookies (RFC 7296 §2.8)."""
    _swanctl(machine, "--rekey", "--ike", name)


def terminate(machine: Machine, name: str) -> None:
    """End a connection and tell the other side."""
    _swanctl(machine, "--terminate", "--ike", name, "--timeout", "5", check=False)


def _swanctl(machine: Machine, *words: str, check: bool = True, seconds: float = 30.0) -> str:
    env = {"STRONGSWAN_CONF": _CONF, "SWANCTL_DIR": _DIRECTORY}
    done = machine.run("/usr/sbin/swanctl", *words, check=check, seconds=seconds, env=env)
    return done.stdout + done.stderr


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """One security association as the kernel has it."""

    src: str
    dst: str
    protocol: str
    spi: int
    packets: int
    octets: int
    encapsulated: bool
    "Whether it travels in UDP (RFC 3948)."


_STATE = re.compile(r"^src (\S+) dst (\S+)\n\s+proto (\S+) spi (0x[0-9a-f]+)", re.MULTILINE)


def associations(machine: Machine) -> list[Association]:
    """Read the security associations of a machine's kernel; those that are only being negotiated are left out."""
    text = machine.run("ip", "-s", "xfrm", "state").stdout
    heads = list(_STATE.finditer(text))
    found = []
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        body = text[head.start() : following.start() if following else None]
        used = re.search(r"lifetime current:\s+(\d+)\(bytes\), (\d+)\(packets\)", body)
        if used is None:
            raise LabError(f"{machine.name}: ip -s xfrm state: no lifetime in {body!r}")
        if "auth" not in body and "aead" not in body:
            continue
        found.append(
            Association(
                src=head[1],
                dst=head[2],
                protocol=head[3],
                spi=int(head[4], 16),
                octets=int(used[1]),
                packets=int(used[2]),
                encapsulated="encap type" in body,
            )
        )
    return found


def errors(machine: Machine) -> dict[str, int]:
    """What went wrong in a machine's IPsec, as its kernel counts it (``/proc/net/xfrm_stat``); nothing if nothing."""
    lines = machine.run("cat", "/proc/net/xfrm_stat").stdout.splitlines()
    counts = {name: int(count) for name, count in (line.split() for line in lines)}
    return {name: count for name, count in counts.items() if count}
