# SPDX-License-Identifier: BSD-3-Clause
"""The outcome of what was done while the caller waited, for who asks for a future."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future


def done(work: Callable[[], None]) -> Future[None]:
    """Do something now; what it raises becomes the outcome."""
    outcome: Future[None] = Future()
    try:
        work()
    except Exception as error:
        outcome.set_exception(error)
    else:
        outcome.set_result(None)
    return outcome
