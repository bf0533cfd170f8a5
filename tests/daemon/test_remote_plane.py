# SPDX-License-Identifier: BSD-3-Clause
"""A gateway's plane on another machine: what is told, in which order, and again after the connection was lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isthmus.address import Address, Prefix
from isthmus.border.binding import FOREVER, Binding, BindingKey, Lease, Method, Owner, Registration
from isthmus.border.crossing import Tunnel, TunnelKind
from isthmus.border.effect import Bind, Deregister, Ending, Extend, Prolong, Register, Unbind
from isthmus.border.ranges import Ranges
from isthmus.border.realm import Border, Realm, TunnelEnd
from isthmus.border.selector import Admit, Flow, Kind, Remote, Selector
from isthmus.border.verdict import Reason, Violation
from isthmus.daemon import remote_plane
from isthmus.daemon.control import Connection, ControlError, ControlServer
from isthmus.daemon.effect_json import (
    border_from_json,
    border_to_json,
    effects_from_json,
    effects_to_json,
    violations_from_json,
    violations_to_json,
)
from isthmus.daemon.remote_plane import RemotePlane
from isthmus.errors import PlaneError

HOST = Owner(1, Address.parse("2001:db8::4"))
KEY = BindingKey(HOST, 7)
LOCAL = Prefix.parse("149.112.240.55/32")
BORDER = Border(
    realms=(Realm(number=1, name="private", interface="lan0"), Realm(number=2, name="public", mtu=1400)),
    tunnel_ends=(TunnelEnd(realm=1, address=Address.parse("2001:db8::1"), leads_to=2),),
    claims=(Selector(realm=2, local=LOCAL, kind=Kind.SPI, values=Ranges.of((256, (1 << 32) - 1))),),
)


def bind(bind_id: int = 7, expires_at: float = FOREVER) -> Bind:
    remote = Remote(network=Prefix.parse("192.0.2.0/24"), port=80, admit=Admit.CONTACTED)
    return Bind(
        binding=Binding(
            key=BindingKey(HOST, bind_id),
            selectors=(
                Selector(realm=2, local=LOCAL, kind=Kind.PORT, values=Ranges.of((bind_id, bind_id)), remote=remote),
                Selector(realm=2, local=LOCAL, kind=Kind.COOKIE),
            ),
            crossing=Tunnel(
                realm=1,
                local=Address.parse("2001:db8::1"),
                remote=HOST.address,
                kind=TunnelKind.GRE,
                mtu=1400,
                checksum=True,
            ),
        ),
        lease=Lease(client_id=1, method=Method.RSIPSEC, granted_at=1.5, expires_at=expires_at),
    )


REGISTER = Register(registration=Registration(owner=HOST, client_id=1, expires_at=9.5))


def test_every_effect_comes_back_as_it_was() -> None:
    effects = [
        REGISTER,
        bind(),
        Extend(key=KEY, expires_at=99.5),
        Prolong(owner=HOST, expires_at=99.5),
        Unbind(key=KEY, ending=Ending.REVOKED),
        Deregister(owner=HOST, ending=Ending.EXPIRED),
    ]
    assert effects_from_json(json.loads(json.dumps(effects_to_json(effects)))) == effects


def test_borders_and_violations_come_back_as_they_were() -> None:
    assert border_from_json(json.loads(json.dumps(border_to_json(BORDER)))) == BORDER
    flow = Flow(
        realm=2, local=LOCAL.address, remote=Address.parse("192.0.2.1"), kind=Kind.PORT, value=7, remote_port=80
    )
    seen = [
        Violation(reason=Reason.UNREGISTERED, owner=HOST, flow=None, tunnel_kind=TunnelKind.IPIP),
        Violation(reason=Reason.SOURCE_PORT_NOT_LEASED, owner=HOST, flow=flow, tunnel_kind=TunnelKind.GRE),
    ]
    assert violations_from_json(json.loads(json.dumps(violations_to_json(seen)))) == seen


@pytest.mark.parametrize("value", [{"Send": {}}, {"Unbind": {"key": 1}}])
def test_what_is_no_effect_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(PlaneError):
        effects_from_json([value])


class Endpoint:
    """A control server that writes down what it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []
        self.refuse = False
        self.watching: list[Connection] = []

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        async def note(request: dict[str, object], connection: Connection) -> object:
            if request["do"] == "plane-violations":
                self.watching.append(connection)
                return None
            if self.refuse:
                raise ControlError("no")
            effects = effects_from_json(request.get("effects", []))  # type: ignore[arg-type]
            self.said.append(" ".join([str(request["do"]), *(type(each).__name__ for each in effects)]))
            return {"FORWARDED_INWARD": 3}

        verbs = ("plane-begin", "plane-standing", "plane-reconcile", "plane-apply", "plane-violations", "counters")
        server = ControlServer(self.path, dict.fromkeys(verbs, note))
        ready, over = threading.Event(), threading.Event()

        async def serve() -> None:
            await server.start()
            ready.set()
            await asyncio.to_thread(over.wait, 30)
            await server.stop()
            for each in self.watching:
                each._writer.close()

        thread = threading.Thread(target=asyncio.run, args=(serve(),))
        thread.start()
        assert ready.wait(10)
        try:
            yield
        finally:
            over.set()
            thread.join()


def test_everything_that_stands_is_told_first_and_changes_then(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path / "endpoint.sock")
    plane = RemotePlane(endpoint.path, BORDER)
    with endpoint.serving():
        plane.reconcile([REGISTER, bind()])
        plane.apply([Unbind(key=KEY, ending=Ending.FREED), bind(8)])
        assert plane.counters() == {Reason.FORWARDED_INWARD: 3}
        plane.close()
    assert endpoint.said == [
        "plane-begin",
        "plane-standing Register Bind",
        "plane-reconcile",
        "plane-apply Unbind Bind",
        "counters",
    ]


def test_after_the_connection_was_lost_what_stands_is_told_anew(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path / "endpoint.sock")
    plane = RemotePlane(endpoint.path, BORDER)
    with endpoint.serving():
        plane.reconcile([REGISTER, bind(7), bind(8)])
        plane.apply([Extend(key=KEY, expires_at=99.0), Unbind(key=BindingKey(HOST, 8), ending=Ending.FREED)])
    with pytest.raises(PlaneError, match="endpoint"):
        plane.apply([bind(9)])
    assert plane.counters() == {}
    endpoint.said.clear()
    with endpoint.serving():
        plane.apply([bind(9)])
        plane.close()
    assert endpoint.said == ["plane-begin", "plane-standing Register Bind", "plane-reconcile", "plane-apply Bind"]


def test_an_endpoint_that_was_started_anew_is_told_what_stands_before_anything_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_plane, "AGAIN_SECONDS", 0.05)
    endpoint = Endpoint(tmp_path / "endpoint.sock")
    plane = RemotePlane(endpoint.path, BORDER)

    async def follow() -> None:
        with endpoint.serving():
            plane.reconcile([REGISTER, bind()])
            plane.start(lambda _violations: None)
            await until(lambda: len(endpoint.watching) == 1)
        await asyncio.sleep(0.2)
        endpoint.said.clear()
        with endpoint.serving():
            await until(lambda: "plane-reconcile" in endpoint.said)
            plane.close()

    asyncio.run(follow())
    assert endpoint.said == ["plane-begin", "plane-standing Register Bind", "plane-reconcile"]


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(500):
        if happened():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


def test_a_refusal_is_an_error_of_the_plane(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path / "endpoint.sock")
    plane = RemotePlane(endpoint.path, BORDER)
    with endpoint.serving():
        plane.reconcile([])
        endpoint.refuse = True
        with pytest.raises(PlaneError, match="no"):
            plane.apply([bind()])
        plane.close()
