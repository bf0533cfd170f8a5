# SPDX-License-Identifier: BSD-3-Clause
"""The program ``nft``: what it is told, and what it says when it refuses."""

from __future__ import annotations

import subprocess

from isthmus.errors import PlaneError, Unsupported

_SECONDS = 30


def nft(*words: str, text: str = "", what: str) -> str:
    """Run ``nft``; returns what it prints.

    Args:
        words: Its arguments.
        text: Its standard input: rules, for ``-f -``.
        what: What could not be had, for the error.

    Raises:
        Unsupported: it is not installed, or refuses.
        PlaneError: it does not come back.
    """
    try:
        done = subprocess.run(
            ["nft", *words], input=text, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise Unsupported("nft", remedy="install nftables") from error
    except subprocess.TimeoutExpired as error:
        raise PlaneError(f"nft did not come back within {_SECONDS} seconds") from error
    if done.returncode:
        raise Unsupported(what, remedy="nft says: " + (done.stderr.strip().splitlines() or ["nothing"])[0])
    return done.stdout
