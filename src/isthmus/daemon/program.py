# SPDX-License-Identifier: BSD-3-Clause
"""``isthmus run``: one unmodified program on a leased address, in a namespace of its own.

The program's namespace has the leased address, a default route with the tunnel's MTU,
and an ephemeral port range that is the lease. While the program runs its use of ports is
watched; before they run out more are asked for (RFC 3102 §3.1), and the range grows.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from isthmus.address import Address, Prefix
from isthmus.border.ranges import Ranges
from isthmus.daemon import device as devices
from isthmus.daemon.control import ControlClient, ControlError
from isthmus.daemon.ephemeral import limit_ports

WATCH_SECONDS = 0.05
"""How often the use of ports is looked at."""
EVERYWHERE = (Prefix.parse("0.0.0.0/0"),)
DEVICE_IN_NAMESPACE = "rsip0"
NAMESPACES = Path("/run/netns")
_HOME = Path("/run/isthmus")
_OURS = re.compile(r"isthmus-[0-9a-f]{6}")


@dataclass(slots=True, kw_only=True)
class Grant:
    """What the agent leased for one program, as it grows."""

    address: Address
    ports: Ranges | None
    "None: the whole address."
    mtu: int


class Program:
    """A program's namespace, device and leases; everything goes when it is closed."""

    def __init__(
        self,
        socket: Path,
        *,
        ports: int,
        whole: bool = False,
        listen: Ranges | None = None,
        remote: str | None = None,
        remote_port: int | None = None,
    ) -> None:
        """Lease and build.

        Args:
            socket: The control socket of a host daemon.
            ports: How many ports to lease at first, and each time more are needed.
            whole: Lease a whole address instead.
            listen: Ports of the same address that anybody may call.
            remote: The only peer, for a host under a remote flow policy.
            remote_port: Its only port, likewise.

        Raises:
            ControlError: no daemon, or the gateway refuses.
            PlaneError: the namespace or its device cannot be made.
        """
        token = secrets.token_hex(3)
        self.namespace = f"isthmus-{token}"
        self._sign_of_life = ExitStack()
        "A lock on the namespace: without it, whoever made it was killed."
        self._step = ports
        self._peer = {"remote": remote, "remote_port": remote_port}
        self._agent = ControlClient(socket)
        self._agent.demand_same_network()
        self._device = devices.create(f"ist{token}", mtu=1480)
        try:
            self.grant = self._acquire(ports=ports, whole=whole)
            if listen and not whole:
                self._acquire(ports=str(listen), listen=True)
            self._move_in()
        except BaseException:
            self.close()
            raise

    def _acquire(self, *, ports: int | str, whole: bool = False, listen: bool = False) -> Grant:
        request: dict[str, Any] = {
            "do": "acquire",
            "device": self._device.plane_end,
            "whole": whole,
            "ports": ports,
            "listen": listen,
            **self._peer,
        }
        if not whole and hasattr(self, "grant"):
            request["address"] = str(self.grant.address)
        result = self._agent.request(request)
        held = Ranges.parse(result["ports"]) if result["ports"] else None
        return Grant(address=Address.parse(result["address"]), ports=held, mtu=result["mtu"])

    def _move_in(self) -> None:
        grant = self.grant
        with _namespaces_locked():
            _remove_stale_namespaces()
            devices.make_namespace(self.namespace, self._device, inner=DEVICE_IN_NAMESPACE)
            self._sign_of_life.enter_context(_locked(NAMESPACES / self.namespace))
        inner = devices.Device(name=DEVICE_IN_NAMESPACE)
        devices.configure(
            inner,
            grant.address,
            EVERYWHERE,
            mtu=grant.mtu,
            shared=grant.ports is not None,
            namespace=self.namespace,
        )
        if grant.ports is not None:
            limit_ports(grant.ports, self.namespace)

    def run(self, command: Sequence[str], *, resolver: Address | None = None) -> int:
        """Run a command there and wait for it.

        Args:
            command: The program and its arguments.
            resolver: A DNS server for it, instead of the machine's.

        Returns:
            Its exit status; 128 + n if signal n ended it, as a shell says it.
        """
        with _resolver_file(resolver) as file:

            def enter() -> None:
                devices.enter(self.namespace)
                if file is not None:
                    devices.use_resolver(file)

            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                child = subprocess.Popen(command, preexec_fn=_with_default_interrupt(enter))  # noqa: PLW1509
                try:
                    return self._watch(child)
                except BaseException:
                    # Who ends us ends the program: what it runs on goes with us.
                    child.terminate()
                    child.wait()
                    raise
            finally:
                signal.signal(signal.SIGINT, before)

    def _watch(self, child: subprocess.Popen[bytes]) -> int:
        while True:
            try:
                status = child.wait(timeout=WATCH_SECONDS)
            except subprocess.TimeoutExpired:
                self._grow(child.pid)
                continue
            return status if status >= 0 else 128 - status

    def _grow(self, pid: int) -> None:
        ports = self.grant.ports
        if ports is None or 2 * devices.ports_in_use(pid) < len(ports):
            return
        try:
            more = self._acquire(ports=self._step)
        except ControlError as error:
            sys.stderr.write(f"isthmus: no more ports: {error}\n")
            time.sleep(1)
            return
        self.grant.ports = ports | (more.ports or Ranges(()))
        limit_ports(self.grant.ports, self.namespace)

    def close(self) -> None:
        """Give everything back."""
        self._agent.close()
        self._sign_of_life.close()
        devices.remove_namespace(self.namespace)
        devices.remove(self._device)


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a file for ourselves (flock(2)).

    Raises:
        OSError: somebody else does, or it has gone.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _namespaces_locked() -> Iterator[None]:
    """Nobody else makes or removes a program's namespace meanwhile."""
    # Not /run/netns itself: 'ip netns add' locks that.
    _HOME.mkdir(parents=True, exist_ok=True)
    with _locked(_HOME):
        yield


def _remove_stale_namespaces() -> None:
    """Remove the namespaces of those that were killed and could not; a program that still runs in one keeps it."""
    for each in NAMESPACES.glob("isthmus-*"):
        if _OURS.fullmatch(each.name):
            with suppress(OSError), _locked(each, wait=False):
                devices.remove_namespace(each.name)


def _with_default_interrupt(enter: Any) -> Any:
    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        enter()

    return prepare


def route_to(address: Address) -> str:
    """The interface that the machine would reach an address by.

    Raises:
        ControlError: there is no route.
    """
    with IPRoute() as links:
        try:
            route = links.route("get", dst=str(address))[0]
        except NetlinkError as error:
            raise ControlError(f"there is no route to {address}: name the interface with --interface") from error
        return str(links.get_links(route.get_attr("RTA_OIF"))[0].get_attr("IFLA_IFNAME"))


@contextmanager
def _resolver_file(resolver: Address | None) -> Iterator[Path | None]:
    if resolver is None:
        yield None
        return
    with tempfile.NamedTemporaryFile("w", prefix="isthmus-resolv-", encoding="ascii") as file:
        file.write(f"nameserver {resolver}\n")
        file.flush()
        os.chmod(file.name, 0o644)  # noqa: PTH101 - a file that any user of the namespace may read
        yield Path(file.name)


@contextmanager
def temporary_agent(*, gateway: Address, interface: str, transport: str = "udp") -> Iterator[Path]:
    """Run a host daemon for as long as the body takes.

    Args:
        gateway: The RSIP gateway.
        interface: The one that leads to it.
        transport: ``udp`` or ``tcp``.

    Yields:
        Its control socket.

    Raises:
        ControlError: it did not come up; the message is what it said.
    """
    with tempfile.TemporaryDirectory(prefix="isthmus-run-") as folder:
        config = Path(folder, "host.toml")
        config.write_text(
            f'[isthmus]\nname = "host"\nrun = "{folder}"\n'
            f'[[realm]]\nname = "near"\ninterface = "{interface}"\n'
            f'[host]\nnear = "near"\ngateway = "{gateway}"\ntransport = "{transport}"\n',
            encoding="utf-8",
        )
        with Path(folder, "log").open("w+", encoding="utf-8") as log:
            agent = subprocess.Popen(
                [sys.executable, "-m", "isthmus", "up", str(config)],
                stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
            try:
                assert agent.stdout is not None
                if agent.stdout.readline().strip() != "ready":
                    log.seek(0)
                    raise ControlError(f"the host daemon did not start: {log.read().strip().removeprefix('isthmus: ')}")
                yield Path(folder, "host.sock")
            finally:
                agent.terminate()
                agent.wait(timeout=20)
