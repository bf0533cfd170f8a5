# SPDX-License-Identifier: BSD-3-Clause
"""kill -9 at any step of a gateway: after the restart every answered lease is there, and no other.

A child holds a conversation of its own with a driver on a real SQLite file, and kills itself
at the n-th step (a commit, before it or while it is under way; a change of the plane, an
answer, before or after it). The
parent then is the gateway that is started next, and the host that has heard nothing and
sends the same octets again.
"""

import asyncio
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from daemon.bench_of_a_driver import HOST, Bench, assign, conversation
from isthmus.daemon.messages import configure
from isthmus.wire.rsip.message import (
    AssignResponseRsapIp,
    ErrorResponse,
    ExtendRequest,
    FreeRequest,
    FreeResponse,
    RegisterRequest,
    emit,
    parse,
)
from isthmus.wire.rsip.parameter import BindId, ClientId, LeaseTime, MessageCounter

LEAST_STEPS = 30


def requests(client_id, bind_ids):
    """What the host sends next, after so many answers."""

    def ids(n):
        return {"client_id": ClientId(client_id), "bind_id": BindId(bind_ids[n])}

    yield emit(RegisterRequest(message_counter=MessageCounter(1)))
    yield assign(client_id, 2)
    yield assign(client_id, 3, ports=64)
    yield emit(ExtendRequest(**ids(0), lease_time=LeaseTime(1800), message_counter=MessageCounter(4)))
    yield emit(FreeRequest(**ids(0), message_counter=MessageCounter(5)))
    yield assign(client_id, 6, ports=1)


def request(answers):
    """The octets of the request after these answers; None when all is said."""
    client_id = answers[0].client_id.value if answers else 0
    bind_ids = [each.bind_id.value for each in answers if isinstance(each, AssignResponseRsapIp)]
    sent = requests(client_id, bind_ids)
    for _ in answers:
        next(sent)
    return next(sent, None)


async def talk(bench, answers, said):
    while (octets := request(answers)) is not None:
        before = len(bench.answers)
        bench.driver.datagram(octets, HOST)
        await bench.until(before + 1)
        answer = bench.answers[-1]
        assert not isinstance(answer, ErrorResponse), answer
        answers.append(answer)
        said(answer)


def child(path, fatal):
    """Hold the conversation, and die at step number ``fatal``."""
    configure(verbose=False)
    bench, steps = Bench(path), iter(range(1, 1 << 30))

    def step():
        if next(steps) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(function):
        def stepped(*args, **kwargs):
            step()
            result = function(*args, **kwargs)
            step()
            return result

        return stepped

    def send(data, peer):
        os.write(1, data.hex().encode() + b"\n")
        Bench.send(bench, data, peer)

    bench.store.submit = around(bench.store.submit)
    bench.plane.apply = around(bench.plane.apply)
    bench.driver._send = around(send)
    conversation(bench, lambda: talk(bench, [], lambda _answer: None))


def held_according_to(answers):
    held = {}
    for answer in answers:
        if isinstance(answer, AssignResponseRsapIp):
            held[answer.bind_id.value] = answer.local_ports.port_set
        elif isinstance(answer, FreeResponse):
            del held[answer.bind_id.value]
    return held


def held_in(store):
    return {each.binding.key.bind_id: tuple(each.binding.selectors[0].values) for each in store.leases()}


class Children:
    """Forks of one process that has everything imported and no thread; each says what it answered, and dies."""

    def __init__(self, folder):
        self.said = folder / "children.log"

    def __enter__(self):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        with self.said.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )  # fmt: skip
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(60) == 0, self.said.read_text()

    def run(self, path, fatal):
        """Whether it survived, and the answers that it gave."""
        self.process.stdin.write(f"{fatal} {path}\n")
        self.process.stdin.flush()
        answers = []
        while (line := self.process.stdout.readline()) and not line.startswith("ended"):
            answers.append(parse(bytes.fromhex(line)))
        assert line.split() in (["ended", "0"], ["ended", str(int(signal.SIGKILL))]), self.said.read_text()
        return line.split() == ["ended", "0"], answers


def fork_children():
    for line in sys.stdin:
        fatal, _, path = line.strip().partition(" ")
        number = os.fork()
        if not number:
            status = 1
            try:
                child(path, int(fatal))
                status = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(status)
        print("ended", os.waitpid(number, 0)[1], flush=True)


@pytest.mark.slow
@pytest.mark.rfc("3103", "10.1")
def test_killed_at_every_step_every_answered_lease_is_there_and_no_other(tmp_path):
    with Children(tmp_path) as children:
        fatal, survived = 0, False
        while not survived:
            fatal += 1
            path = tmp_path / f"{fatal}.db"
            survived, answers = children.run(path, fatal)
            go_on(path, fatal, answers)
    assert fatal > LEAST_STEPS


def go_on(path, fatal, answers):
    """Be the gateway that is started next, and the host that has heard these answers."""
    next_life = Bench(path)
    next_life.driver.restore()
    promised, stored = held_according_to(answers), held_in(next_life.store)
    under_way = {bind_id: ports for bind_id, ports in stored.items() if promised.get(bind_id) != ports}
    assert len(under_way) <= 1, f"step {fatal}: more than what was being answered: {under_way}"
    gone = promised.keys() - stored.keys()
    assert len(gone) <= (len(answers) == 4), f"step {fatal}: answered and lost: {gone}"
    conversation(next_life, lambda: finish(next_life, answers, path, fatal))


async def finish(bench, answers, path, fatal):
    """The host goes on; what it hears in the end is what is stored."""
    await talk(bench, answers, lambda _answer: None)
    assert held_in(bench.store) == held_according_to(answers), f"step {fatal}"
    granted = [each.local_ports.port_set for each in answers if isinstance(each, AssignResponseRsapIp)]
    assert len({port for ports in granted for port in ports}) == 16 + 64 + 1, f"step {fatal}: a port was granted twice"
    assert len([each for each in answers if isinstance(each, AssignResponseRsapIp)]) == 3
    await asyncio.sleep(0)


if __name__ == "__main__":
    fork_children()
