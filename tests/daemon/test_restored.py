# SPDX-License-Identifier: BSD-3-Clause
"""What a store knows, read before it is asked for: it makes the same gateway."""

import pytest

from daemon.bench_of_a_driver import Bench
from daemon.test_recall import KEEP, PEERS, filled
from isthmus.daemon.restored import ReadAhead, give_back_memory
from isthmus.errors import StoreUnavailable
from isthmus.store import Snapshot, Standing, open_store


async def _leave_it(_bench, _clients):
    pass


@pytest.mark.parametrize(("keep", "kind"), [(KEEP, Standing), (1000, Snapshot)])
def test_what_was_read_ahead_is_what_would_be_read(tmp_path, keep, kind):
    path = tmp_path / "leases.db"
    filled(path, _leave_it)
    store = open_store(str(path))
    ahead = ReadAhead(store, since=0.0, keep=keep)
    assert isinstance(ahead.take(), kind)
    first, second = Bench(path, keep=keep, ahead=ahead), Bench(path, keep=keep)
    restored = [each.driver.restore() for each in (first, second)]
    give_back_memory()
    assert len(first.driver.gateway) == len(second.driver.gateway) == len(PEERS)
    found = [(sorted(map(repr, each.standing)), sum(map(len, each.plain))) for each in restored]
    assert found[0] == found[1]
    assert len(first.driver.gateway.folding) == len(second.driver.gateway.folding)
    # What was read once is not believed twice.
    filled_again = first.driver.restore()
    assert sorted(map(repr, filled_again.standing)) == found[0][0]
    for each in (first, second):
        each.driver.stop()
        each.store.close()
    store.close()


def test_a_store_that_cannot_be_read_ahead_is_unavailable(tmp_path, monkeypatch):
    store = open_store(str(tmp_path / "leases.db"))

    def unreadable(*_, **__):
        raise StoreUnavailable("leases.db: cannot read")

    monkeypatch.setattr(store, "has_more", unreadable)
    bench = Bench(ahead=ReadAhead(store, since=0.0, keep=1))
    with pytest.raises(StoreUnavailable):
        bench.driver.restore()
    bench.driver.stop()
    store.close()
