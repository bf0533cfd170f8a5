# SPDX-License-Identifier: BSD-3-Clause
"""The plane of another machine: a gateway whose tunnels end elsewhere (RFC 3103 §6, §9.7.3).

RFC 3103 lets a response name a tunnel endpoint that is not the gateway, and leaves open how that
endpoint learns of bindings. Here it is a daemon with the role ``[endpoint]``, which the gateway
tells by its control socket what it would tell a plane of its own, and waits: a host hears
"yes" only when packets flow there. Between two machines the socket is brought over by ``ssh -L``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from isthmus.border.binding import BindingKey, Owner
from isthmus.border.effect import Bind, Deregister, Extend, Register, Unbind
from isthmus.border.plain import Hosts, PlainLeases, as_effects
from isthmus.border.realm import Border
from isthmus.border.verdict import Reason, Violation
from isthmus.daemon.control import ControlClient, ControlError
from isthmus.daemon.effect_json import border_to_json, effects_to_json, violations_from_json
from isthmus.errors import PlaneError
from isthmus.plane import Planned, Programmable, one_by_one

ANSWER_SECONDS = 5.0
AGAIN_SECONDS = 1.0
EFFECTS_AT_ONCE = 500


class RemotePlane:
    """A plane behind a control socket.

    After the connection was lost everything that stands is told again, so that the endpoint
    never holds what the gateway has ended meanwhile.

    Args:
        path: The control socket of the endpoint's daemon.
        border: What the plane must know; the interfaces in it are the endpoint's own business.
    """

    kind = "remote"

    def __init__(self, path: Path, border: Border) -> None:
        self._path = path
        self._border = border
        self._client: ControlClient | None = None
        self._watch: socket.socket | None = None
        self._heard = b""
        self._registered: dict[Owner, Register] = {}
        self._bound: dict[BindingKey, Bind] = {}
        self._tell: Callable[[Iterable[Violation]], None] = lambda _violations: None
        self._again: asyncio.TimerHandle | None = None

    # --- what the driver asks for ---------------------------------------------------------

    def reconcile(
        self, standing: Iterable[Register | Bind], plain: Sequence[PlainLeases] = (), registered: Sequence[Hosts] = ()
    ) -> None:
        """Let the endpoint hold this and nothing else.

        Raises:
            PlaneError: the endpoint cannot be reached, or refuses.
        """
        self._registered, self._bound = {}, {}
        for each in (*standing, *as_effects(plain, registered)):
            self._note(each)
        self._hang_up()
        self._connect()

    def start(self, tell: Callable[[Iterable[Violation]], None]) -> None:
        """Begin to take violations from within the running event loop."""
        self._tell = tell
        self._listen()

    def apply(self, effects: Iterable[Planned]) -> None:
        """Carry out effects in order; when it returns, the endpoint's packets follow them.

        Raises:
            PlaneError: the endpoint cannot be reached, or refuses.
        """
        batch = tuple(one_by_one(effects))
        if not batch:
            return
        if self._client is None:
            self._connect()
        for start in range(0, len(batch), EFFECTS_AT_ONCE):
            part = batch[start : start + EFFECTS_AT_ONCE]
            self._ask({"do": "plane-apply", "effects": effects_to_json(part)})
            for each in part:
                self._note(each)

    def counters(self) -> Mapping[Reason, int]:
        """The endpoint's packets by reason; nothing while it cannot be reached."""
        if self._client is None:
            return {}
        try:
            counts = self._ask({"do": "counters"})
        except PlaneError:
            return {}
        return {Reason[name]: count for name, count in counts.items() if name in Reason.__members__}

    def events(self) -> list[Violation]:
        """Nothing: violations come by the function given to ``start``."""
        return []

    def close(self) -> None:
        """Let go; the endpoint goes on forwarding until the deadlines."""
        self._hang_up()
        self._deafen()
        if self._again is not None:
            self._again.cancel()

    def destroy(self) -> None:
        """Let the endpoint hold nothing any more, and let go."""
        if self._client is not None:
            self._registered, self._bound = {}, {}
            with contextlib.suppress(PlaneError):
                self._tell_all()
        self.close()

    # --- the connection -------------------------------------------------------------------

    def _note(self, effect: Programmable) -> None:
        match effect:
            case Register():
                self._registered[effect.registration.owner] = effect
            case Deregister():
                self._registered.pop(effect.owner, None)
            case Bind():
                self._bound[effect.binding.key] = effect
            case Unbind():
                self._bound.pop(effect.key, None)
            case Extend():
                bound = self._bound.get(effect.key)
                if bound is not None:
                    self._bound[effect.key] = replace(bound, lease=replace(bound.lease, expires_at=effect.expires_at))
            case _:
                pass

    def _connect(self) -> None:
        try:
            self._client = ControlClient(self._path, timeout=ANSWER_SECONDS)
        except ControlError as error:
            raise PlaneError(f"the tunnel endpoint does not answer: {error}") from error
        self._tell_all()

    def _tell_all(self) -> None:
        """Tell everything that stands, in parts: the first begins anew, the last ends what was not named."""
        standing: list[Programmable] = [*self._registered.values(), *self._bound.values()]
        border = border_to_json(self._border)
        self._ask({"do": "plane-begin", "border": border})
        for start in range(0, len(standing), EFFECTS_AT_ONCE):
            self._ask({"do": "plane-standing", "effects": effects_to_json(standing[start : start + EFFECTS_AT_ONCE])})
        self._ask({"do": "plane-reconcile"})

    def _ask(self, request: Mapping[str, Any]) -> Any:
        assert self._client is not None
        try:
            return self._client.request(request)
        except ControlError as error:
            self._hang_up()
            raise PlaneError(f"the tunnel endpoint: {error}") from error

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    # --- violations -----------------------------------------------------------------------

    def _listen(self) -> None:
        """Ask for violations on a connection of its own; if it ends, ask again.

        Where it has ended the endpoint may have been started anew, and forwards nothing before it is told what stands.
        """
        self._deafen()
        try:
            self._watch = socket.socket(socket.AF_UNIX)
            self._watch.settimeout(ANSWER_SECONDS)
            self._watch.connect(str(self._path))
            self._watch.sendall(b'{"do": "plane-violations"}\n')
            self._watch.setblocking(False)
            if self._client is None:
                self._connect()
        except (OSError, PlaneError):
            self._deafen()
            self._again = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._listen)
            return
        asyncio.get_running_loop().add_reader(self._watch, self._hear)

    def _hear(self) -> None:
        assert self._watch is not None
        try:
            octets = self._watch.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self._hang_up()
            self._listen()
            return
        *lines, self._heard = (self._heard + octets).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if said.get("event") == "violations":
                self._tell(violations_from_json(said["violations"]))

    def _deafen(self) -> None:
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch)
            self._watch.close()
            self._watch, self._heard = None, b""
