# SPDX-License-Identifier: BSD-3-Clause
"""Very many plain leases that end at once, as columns. Imported where there are any."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isthmus.border.effect import Lapse
from isthmus.border.plain import PlainLeases
from isthmus.plane.kernel.columns import holding_keys, owner_keys, spread, tags_of
from isthmus.plane.kernel.direct import CLAIMED, DIRECT
from isthmus.plane.kernel.image import Image
from isthmus.plane.kernel.owners import MOST_NUMBER, MOST_WORDS

_ONE, _BYTE, _HALF = np.uint64(1), np.uint64(8), np.uint64(32)


def end(image: Image, ended: Lapse) -> Lapse:
    """End leases that are direct words of who holds nothing else, and registrations of who holds nothing any more.

    Returns:
        What of it has to be ended one by one.
    """
    left: list[PlainLeases] = []
    for leases in ended.leases:
        done = _clear(image, leases)
        if not done.all():
            left.append(leases.at(~done))
    hosts = ended.hosts
    tags = tags_of(image.owners, hosts.near, hosts.upper, hosts.address)
    alone = np.array(image.owners.states(tags.tolist()), np.uint64) == _ONE
    image.owners.end(tags[alone].tolist(), registered=False)
    image.batch.remove_all("owners", owner_keys(image.owners, tags[alone]))
    return Lapse(leases=tuple(left), hosts=hosts.at(~alone))


def _clear(image: Image, leases: PlainLeases) -> NDArray[np.bool_]:
    """Let words be nobody's, and their owners hold nothing; returns of which leases that is done."""
    tags = tags_of(image.owners, leases.group.near, leases.group.upper, leases.owner)
    states = np.array(image.owners.states(tags.tolist()), np.uint64)
    runs, words = states >> _ONE, np.frombuffer(image.words, np.uint64)
    first = (runs >> _BYTE & np.uint64(MOST_NUMBER)).astype(np.int64)
    word = words[first]
    done = np.zeros(len(leases), np.bool_)
    done[np.unique(tags, return_index=True)[1]] = True
    done &= (runs > 0) & (states & _ONE == 1) & (runs >> _HALF == leases.bind_id) & (word & np.uint64(DIRECT) > 0)
    first, word, tags = first[done], word[done], tags[done]
    counts = (runs[done] & np.uint64(MOST_WORDS)).astype(np.int64)
    numbers, _ = spread(first, counts)
    words[numbers] = CLAIMED
    image.batch.words.update(dict.fromkeys(numbers.tolist(), CLAIMED))
    places = np.array([image.plain.place(number) for number in first.tolist()], np.uint64)
    image.batch.remove_all("holdings", holding_keys(tags, places))
    image.owners.end(tags.tolist(), registered=True)
    template = (word >> np.uint64(4) & np.uint64(15)).astype(np.int64)
    for each in np.unique(template).tolist():
        image.plain.give_template(1 + each, int(counts[template == each].sum()))
    return done
