# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus expose``: a service of this machine at a leased address, called by anybody.

The leased address lives on a device of this machine, so a server bound to 0.0.0.0 hears its callers there, with
their own addresses, and its answers leave by that device (``leased``). Where the public port is another than the
server's, this machine translates the port, of packets from that device only, and nothing else of them::

    client 192.156.136.22:5000 ─▶ 149.112.240.55:12000 ─▶ gateway ═tunnel═▶ rsip0 ─▶ (12000 ▸ 8080) ─▶ 0.0.0.0:8080
"""

from __future__ import annotations

import array
import contextlib
import secrets
import socket
import struct
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus.address import Address
from isthmus.daemon.control import ControlClient, ControlError
from isthmus.errors import Unsupported, WireError
from isthmus.wire.ipv4 import Ipv4View
from isthmus.wire.transport import Protocol, ports

WATCH_SECONDS = 0.2
"""How often new callers are looked for."""
AGAIN_SECONDS = 2.0
_ETH_P_IP, _PACKET_OUTGOING, _SO_ATTACH_FILTER = 0x0800, 4, 26
_ONLY_SYN = (
    (0x30, 0, 0, 9),  # the protocol
    (0x15, 0, 5, 6),  # is TCP
    (0xB1, 0, 0, 0),  # after the IP header
    (0x50, 0, 0, 13),  # the flags
    (0x54, 0, 0, 0x12),  # SYN and ACK of them
    (0x15, 0, 1, 0x02),  # are SYN alone
    (0x06, 0, 0, 128),  # keep
    (0x06, 0, 0, 0),  # leave
)
"""A classic BPF program (code, jump if true, jump if false, operand): the first packets of TCP connections."""
_TABLE = "isthmus_expose_"
"The beginning of the names of our tables. An abstract socket of the same name says that one is in use."
_REMEMBERED = 256
"""Callers; a first packet that is repeated is no second call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A peer with a TCP connection to the service."""

    address: Address
    port: int

    def __str__(self) -> str:
        """``192.156.136.22 port 5000``."""
        return f"{self.address} port {self.port}"


class Exposure:
    """One service while it is published; everything goes when it is closed."""

    def __init__(
        self,
        agent: Path,
        port: int,
        *,
        public: int | None = None,
        address: str | None = None,
        remote: str | None = None,
        remote_port: int | None = None,
        device: str | None = None,
    ) -> None:
        """Lease and publish.

        Args:
            agent: The control socket of a host daemon.
            port: Where the server listens.
            public: The port to lease; None: any.
            address: The address to lease it of; None: any.
            remote: The only peer that may call; None: anybody.
            remote_port: Its only port.
            device: Where the leased address lives; None: the daemon's usual one.

        Raises:
            ControlError: no daemon, or the gateway refuses.
            Unsupported: ports cannot be translated here.
        """
        self._port = port
        self._request: dict[str, Any] = {
            "do": "acquire",
            "listen": True,
            "ports": 1 if public is None else str(public),
            "address": address,
            "remote": remote,
            "remote_port": remote_port,
        }
        if device is not None:
            self._request["on"] = device
        self._doorbell: Doorbell | None = None
        self._agent = ControlClient(agent)
        self._agent.demand_same_network()
        self._table = f"{_TABLE}{secrets.token_hex(4)}"
        self._sign_of_life = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sign_of_life.bind(f"\0{self._table}")
        self._sign_of_life.listen()
        _remove_stale_tables()
        try:
            self._take(self._agent.request(self._request))
        except BaseException:
            self.close()
            raise

    def _take(self, row: dict[str, Any]) -> None:
        self.address, self.public = Address.parse(row["address"]), int(str(row["ports"]))
        self.bind_id = int(row["bind_id"])
        self._translate(str(row["device"]))
        self._hang_up()
        # Without it callers are only not shown.
        with contextlib.suppress(OSError):
            self._doorbell = Doorbell(str(row["device"]))

    def _hang_up(self) -> None:
        if self._doorbell is not None:
            self._doorbell.close()
            self._doorbell = None

    @property
    def text(self) -> str:
        """``149.112.240.55:12000``: what callers are told."""
        return f"{self.address}:{self.public}"

    def _translate(self, device: str) -> None:
        self._untranslate()
        if self.public == self._port:
            return
        match = f'iifname "{device}" ip daddr {self.address}'
        rules = "\n".join(
            f"    {match} {protocol} dport {self.public} dnat to {self.address}:{self._port}"
            for protocol in ("tcp", "udp")
        )
        chain = f"  chain prerouting {{\n    type nat hook prerouting priority dstnat;\n{rules}\n  }}"
        problem = _nft(f"table ip {self._table} {{\n{chain}\n}}\n")
        if problem:
            raise Unsupported(
                "translating ports", remedy=f"lease the server's own port with --public {self._port} ({problem})"
            )

    def _untranslate(self) -> None:
        _nft(f"add table ip {self._table}\ndelete table ip {self._table}\n")

    def callers(self) -> Iterator[Caller | str]:
        """New callers as they come, without end; and, as text, what happens to the lease."""
        seen: deque[Caller] = deque(maxlen=_REMEMBERED)
        while True:
            for event in self._agent.wait_events(WATCH_SECONDS):
                yield from self._happened(event)
            for caller in self._doorbell.rings(self.address, self.public) if self._doorbell is not None else ():
                if caller not in seen:
                    seen.append(caller)
                    yield caller

    def _happened(self, event: dict[str, Any]) -> Iterator[str]:
        if event.get("event") == "held":
            self._take(event["lease"])
            yield f"published again at {self.text}"
        elif event.get("event") == "lost" and event["bind_id"] == self.bind_id:
            yield f"the lease is over ({event['ending']})"
            problem = ""
            while not event["again"]:
                try:
                    self._take(self._agent.request(self._request))
                    yield f"published again at {self.text}"
                    return
                except ControlError as error:
                    if str(error) != problem:
                        problem = str(error)
                        yield f"not published, asking on: {problem}"
                    time.sleep(AGAIN_SECONDS)

    def close(self) -> None:
        """Give the lease back and take the translation away."""
        with contextlib.suppress(OSError):
            self._agent.close()
        self._hang_up()
        self._untranslate()
        self._sign_of_life.close()


class Doorbell:
    """Sees the first packet of every TCP connection that arrives on a device.

    Args:
        device: Where the leased address lives.

    Raises:
        OSError: no packet socket can be had.
    """

    def __init__(self, device: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        code = array.array("B", b"".join(struct.pack("=HBBI", *each) for each in _ONLY_SYN))
        program = struct.pack("@HP", len(_ONLY_SYN), code.buffer_info()[0])
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        self._socket.bind((device, _ETH_P_IP))

    def rings(self, address: Address, port: int) -> Iterator[Caller]:
        """Who has called a port of an address since the last time; nobody where the device is down or gone."""
        with contextlib.suppress(OSError):
            while True:
                octets, source = self._socket.recvfrom(128)
                if source[2] == _PACKET_OUTGOING:
                    continue
                with contextlib.suppress(WireError):
                    view = Ipv4View.parse(octets, quoted=True)
                    found = ports(Protocol.TCP, view.payload)
                    if found is not None and view.dst == address and found[1] == port:
                        yield Caller(address=view.src, port=found[0])

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _remove_stale_tables() -> None:
    """Remove the translations of processes that were killed: they would turn aside who leases the port next."""
    try:
        listed = subprocess.run(
            ["nft", "list", "tables", "ip"], check=False, capture_output=True, text=True, timeout=30
        )
    except FileNotFoundError:
        return
    for line in listed.stdout.splitlines():
        table = line.rpartition(" ")[2]
        if table.startswith(_TABLE) and not _is_alive(table):
            _nft(f"delete table ip {table}\n")


def _is_alive(table: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(f"\0{table}")
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


def _nft(script: str) -> str:
    """Load a ruleset; the answer is what is wrong, or nothing."""
    try:
        done = subprocess.run(["nft", "-f", "-"], input=script, check=False, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        return "there is no program 'nft'"
    return done.stderr.strip() or f"nft: status {done.returncode}" if done.returncode else ""
