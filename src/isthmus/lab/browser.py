# SPDX-License-Identifier: BSD-3-Clause
"""A browser of the lab: chromium without a screen. What it shows is what it has read."""

from __future__ import annotations

from isthmus.lab.node import Node

PACKAGE = "chromium"
_FLAGS = (
    "--headless",
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--no-first-run",
)


def browse(node: Node, url: str) -> list[str]:
    """The command line by which a browser with nothing remembered prints a page as it stands after loading."""
    home = node.directory / "browser"
    place = ("env", f"HOME={home}", f"XDG_CONFIG_HOME={home}", f"XDG_CACHE_HOME={home}", f"TMPDIR={node.directory}")
    return [*place, "timeout", "25", "chromium", *_FLAGS, f"--user-data-dir={home / 'profile'}", "--dump-dom", url]
