# SPDX-License-Identifier: BSD-3-Clause
"""The daemon: one process, one configuration, the roles that it names."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from isthmus.daemon.clock import Clock
from isthmus.daemon.config import Config
from isthmus.daemon.control import ControlServer, Handler
from isthmus.daemon.messages import Message, configure, log
from isthmus.daemon.occupancy import occupy


class Role(Protocol):
    """Something that the daemon does: gateway, host, border router, node."""

    async def start(self) -> None:
        """Begin to serve."""

    async def run(self) -> None:
        """Serve until cancelled."""

    def stop(self) -> None:
        """Let go of everything."""

    @property
    def handlers(self) -> dict[str, Handler]:
        """What the control socket answers for it."""


class Verbs(Mapping[str, Handler]):
    """What the control socket answers: for each verb the first role that knows it, at the moment when it is asked."""

    def __init__(self, roles: Sequence[Role]) -> None:
        self._roles = roles

    def __getitem__(self, name: str) -> Handler:
        """The handler of a verb."""
        for role in self._roles:
            if (handler := role.handlers.get(name)) is not None:
                return handler
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        """Every verb, once."""
        return iter({name: None for role in self._roles for name in role.handlers})

    def __len__(self) -> int:
        """How many there are."""
        return len(list(iter(self)))


def serve(config: Config, *, verbose: bool = False) -> None:
    """Run the daemon until SIGTERM, SIGINT or SIGHUP.

    Raises:
        IsthmusError: it could not start; what it had made is gone again.
    """
    configure(verbose=verbose)
    asyncio.run(_serve(config))


async def _serve(config: Config) -> None:
    async with contextlib.AsyncExitStack() as stack:
        roles: list[Role] = []
        control = ControlServer(config.control_socket, Verbs(roles))
        await control.start()
        stack.push_async_callback(control.stop)
        stack.enter_context(occupy(config.realm))
        # Only now: another daemon of this name has its clock in the same file.
        clock = Clock(config.isthmus.run / f"{config.isthmus.name}.clock")
        stack.callback(clock.forget)
        for make in _roles(config):
            role = make(config, clock)
            stack.callback(role.stop)
            roles.append(role)
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(each, stopping.set)
        for role in roles:
            await role.start()
        _settle_garbage()
        log(Message.READY, name=config.isthmus.name, roles=[type(role).__name__ for role in roles])
        print("ready", flush=True)  # noqa: T201 - whoever started us waits for this line
        await _until(stopping, roles)
        log(Message.STOPPING, name=config.isthmus.name)


def _settle_garbage() -> None:
    """Leave what start-up made alone, and look for cycles seldom: what serves makes next to none."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _roles(config: Config) -> list[Callable[[Config, Clock], Role]]:
    from isthmus.daemon.shared_plane import plane_maker

    roles: list[Callable[[Config, Clock], Role]] = []
    planes = plane_maker(config)
    if config.border is not None:
        from isthmus.daemon.border import BorderRole

        roles.append(functools.partial(BorderRole, planes=planes))
    if config.node is not None:
        from isthmus.daemon.node import NodeRole

        roles.append(functools.partial(NodeRole, planes=planes))
    if config.gateway is not None:
        from isthmus.daemon.gateway import GatewayRole

        roles.append(functools.partial(GatewayRole, planes=planes))
    if config.host is not None:
        from isthmus.daemon.host import HostRole

        roles.append(functools.partial(HostRole, planes=planes) if config.host.seeks is None else _seeking)
    if config.endpoint is not None:
        from isthmus.daemon.endpoint_role import EndpointRole

        roles.append(EndpointRole)
    return roles


def _seeking(config: Config, clock: Clock) -> Role:
    from isthmus.daemon.discovery.seeking_host import SeekingHost
    from isthmus.daemon.host import HostRole

    return SeekingHost(config, clock, HostRole)


async def _until(stopping: asyncio.Event, roles: list[Role]) -> None:
    """Run the roles until asked to stop; a role that fails ends the daemon with its error."""
    running = [asyncio.ensure_future(role.run()) for role in roles]
    wait = asyncio.ensure_future(stopping.wait())
    done, _ = await asyncio.wait([wait, *running], return_when=asyncio.FIRST_COMPLETED)
    for task in (wait, *running):
        task.cancel()
    await asyncio.gather(wait, *running, return_exceptions=True)
    for task in done - {wait}:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
