# SPDX-License-Identifier: BSD-3-Clause
"""Calling what has an event loop of its own, from inside ours.

pyroute2 drives each of its sockets with a private event loop, which cannot be entered
where another one runs. What uses it is called in one thread of its own; the caller waits,
as it would for any system call.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")


def off_loop(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Make a function that may be called from inside the event loop or without one."""

    @functools.wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return function(*args, **kwargs)
        return _thread.submit(function, *args, **kwargs).result()

    return called
