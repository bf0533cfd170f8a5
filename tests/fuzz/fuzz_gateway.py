# SPDX-License-Identifier: BSD-3-Clause
"""Fuzzing a live gateway: whatever arrives, no exception and at most one answer to it.

Alone, guided by coverage, for as long as wanted::

    PYTHONPATH=src:tests python tests/fuzz/fuzz_gateway.py -runs=1000000

One input is a conversation: pieces of octets, each led by one octet that says who sends
and how (``_HOSTS``), that time passes, or that the gateway restarts with its store.
``tests/rsip/test_random.py`` does the like with Hypothesis in the test suite.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    import atheris

    sys.path.insert(0, str(Path(__file__).parent.parent))
    with atheris.instrument_imports(include=["isthmus"]):
        from isthmus.border.effect import Send
        from isthmus.wire.rsip.codes import MessageType
        from isthmus.wire.rsip.message import emit, parse
        from rsip.conversation import Ledger, Raw, make_gateway
        from rsip.requests import assign_ports, client_of
else:
    from isthmus.border.effect import Send
    from isthmus.wire.rsip.codes import MessageType
    from isthmus.wire.rsip.message import emit, parse
    from rsip.conversation import Ledger, Raw, make_gateway
    from rsip.requests import assign_ports, client_of

_HOSTS = [("10.0.0.4", 0), ("10.0.0.4", 1), ("10.0.0.5", 0), ("192.0.2.1", 0)]
_WAITS = (0.01, 1.0, 61.0, 700.0)


def check(data: bytes) -> int:
    """Hold one conversation; returns how many messages were answered."""
    ledger, answered = Ledger(), 0
    hosts = [
        Raw(make_gateway(), address=address, connection=connection, ledger=ledger) for address, connection in _HOSTS
    ]
    gateway, now = hosts[0].gateway, hosts[0].now
    for host in hosts:
        host.gateway = gateway
    hosts[0].ask(assign_ports(client_of(hosts[0]), 2))
    while data:
        what, length = data[0], data[1] if len(data) > 1 else 0
        piece, data = data[2 : 2 + length], data[2 + length :]
        if what % 8 == 6:
            now += _WAITS[length % len(_WAITS)]
            gateway.handle_timer(now=now)
            ledger.carry_out(gateway.next_effects(), now)
        elif what % 8 == 7:
            gateway = make_gateway(seed=length)
            ledger.restart(gateway, now)
        else:
            host = hosts[what % len(hosts)]
            host.gateway, host.now = gateway, now
            answers = host.octets(piece)
            assert len(answers) <= 1
            assert all(not parse(each).type.is_request for each in answers)
            answered += len(answers)
    assert all(type(each) is not Send or parse(each.data).type in MessageType for each in ledger.history)
    return answered


if __name__ == "__main__":
    # A conversation that works, for the fuzzer to begin with.
    client = client_of(Raw(make_gateway()))
    whole = emit(assign_ports(client, 3))
    corpus = Path("/tmp/fuzz_gateway") if len(sys.argv) < 2 or sys.argv[-1].startswith("-") else Path(sys.argv[-1])
    corpus.mkdir(parents=True, exist_ok=True)
    (corpus / "assign").write_bytes(bytes((0, len(whole))) + whole)
    atheris.Setup(
        [*sys.argv, *([str(corpus)] if str(corpus) not in sys.argv else [])], lambda data: check(data) and None
    )
    atheris.Fuzz()
