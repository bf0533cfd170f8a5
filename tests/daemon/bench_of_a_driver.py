# SPDX-License-Identifier: BSD-3-Clause
"""A gateway's driver on a bench: a real store, a plane and a socket that write down in which order they are used."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from isthmus.address import Address, Family, Prefix
from isthmus.border.effect import Bind, Peer, Register
from isthmus.border.plain import one_by_one
from isthmus.border.pool import Pool
from isthmus.border.ranges import Ranges
from isthmus.daemon.clock import Clock
from isthmus.daemon.driver import GatewayDriver
from isthmus.errors import PlaneError
from isthmus.rsip.gateway import Gateway
from isthmus.rsip.policy import ClientRule, GatewayPolicy
from isthmus.store import open_store
from isthmus.wire.rsip.message import AssignRequestRsapIp, ListenRequest, emit, parse
from isthmus.wire.rsip.parameter import ClientId, MessageCounter, Ports, RsipAddress

HOST = Peer(1, Address.parse("10.0.0.4"), 40001)


class Plane:
    """Records what it is told, in the journal that the store and the sockets write to as well."""

    def __init__(self, journal):
        self.journal = journal
        self.fail = False
        self.away = False

    def apply(self, effects):
        for effect in one_by_one(effects):
            if self.fail and isinstance(effect, Bind):
                raise PlaneError("the map is full")
            if self.away and not isinstance(effect, Register):
                raise PlaneError("the tunnel endpoint does not answer")
            self.journal.append(("plane", type(effect).__name__))

    def counters(self):
        return {}

    def events(self):
        return []

    def close(self):
        pass


class Bench:
    def __init__(self, path="memory:", **options):
        self.journal = []
        self.answers = []
        self.store = open_store(str(path))
        self.plane = Plane(self.journal)
        commit = self.store.commit

        def journalled(effects, *, now):
            effects = tuple(effects)
            self.before_commit()
            commit(effects, now=now)
            self.journal.append(("store", [type(each).__name__ for each in effects]))

        self.store.commit = journalled
        # A thread writes, as another process may.
        self.disk = ThreadPoolExecutor(max_workers=1)
        self.store.submit = lambda effects, *, now: self.disk.submit(journalled, effects, now=now)
        self.driver = GatewayDriver(
            make_gateway=make_gateway, store=self.store, plane=self.plane, clock=Clock(), send=self.send, **options
        )

    def before_commit(self):
        pass

    def send(self, data, peer):
        self.journal.append(("send", type(parse(data)).__name__))
        self.answers.append(parse(data))

    async def until(self, count):
        for _ in range(400):
            if len(self.answers) >= count:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{len(self.answers)} answers: {self.journal}")


def make_gateway():
    return Gateway(
        realm_near=1,
        realm=2,
        tunnel_ends={Family.IPV4: Address.parse("10.0.0.1")},
        pool=Pool(2, shared=[(Address.parse("149.112.240.55"), Ranges.parse("10000-10255"))]),
        policy=GatewayPolicy(clients=(ClientRule(prefix=Prefix.parse("10.0.0.0/8")),)),
        link_mtu=1500,
        seed=1,
    )


def assign(client_id, counter, ports=16):
    return emit(
        AssignRequestRsapIp(
            client_id=ClientId(client_id),
            local_address=RsipAddress.any(),
            local_ports=Ports.any_of(ports),
            remote_address=RsipAddress.any(),
            remote_ports=Ports.any_of(1),
            message_counter=MessageCounter(counter),
        )
    )


def listen(client_id, counter, port):
    return emit(
        ListenRequest(
            client_id=ClientId(client_id),
            local_address=RsipAddress.any(),
            local_ports=Ports.of((port,)),
            remote_address=RsipAddress.any(),
            remote_ports=Ports.any_of(1),
            message_counter=MessageCounter(counter),
        )
    )


def conversation(bench, talk):
    async def main():
        task = asyncio.create_task(bench.driver.run())
        try:
            return await talk()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            bench.driver.stop()
            bench.disk.shutdown(wait=True)
            bench.store.close()

    return asyncio.run(main())
