# SPDX-License-Identifier: BSD-3-Clause
"""Every log message: an identifier, a level, a sentence and what to do about it.

The identifier is the event name of the log line, so a line can be looked up here and in
``docs/messages.md``.
"""

from __future__ import annotations

import enum
import logging
import sys
from typing import Any

import structlog


class Message(enum.Enum):
    """One kind of log line: (level, sentence, paragraph)."""

    READY = logging.INFO, "The daemon serves.", "Nothing to do."
    STOPPING = (
        logging.INFO,
        "The daemon was told to stop.",
        "Planes are detached and unpinned; leases stay in the store.",
    )
    PLANE_CHOSEN = (
        logging.INFO,
        "Which plane moves the packets.",
        'With plane = "auto" the reason for not taking the kernel plane is given.',
    )
    RESTORED = (
        logging.INFO,
        "Leases were read back from the store.",
        "They keep their client and bind IDs; hosts notice nothing.",
    )
    REGISTERED = logging.INFO, "A host registered.", "It may now ask for bindings."
    DEREGISTERED = logging.INFO, "A host is gone.", "By its own wish, or because its registration ran out."
    BOUND = logging.INFO, "A lease was granted.", "It is in the store and in the plane."
    UNBOUND = logging.INFO, "A lease ended.", "The resource rests before anybody gets it again."
    VIOLATION = (
        logging.WARNING,
        "A host misused the data plane.",
        "The packet was dropped. 'isthmus explain REASON' says what it did; look at that host's routes and addresses.",
    )
    STORE_FAILED = (
        logging.ERROR,
        "A batch could not be made durable.",
        "Nothing of it was granted; the hosts were told 104. Look at the disk and at the permissions of the store.",
    )
    PLANE_FAILED = (
        logging.ERROR,
        "A batch could not be programmed.",
        "Nothing of it was granted; the hosts were told 104. 'isthmus doctor' shows what the plane lacks.",
    )
    LEASED = logging.INFO, "This host holds a lease.", "Its device has the address now."
    LOST = (
        logging.WARNING,
        "This host lost its leases.",
        "The gateway restarted without a store, or revoked them; the agent registers again and asks for the same.",
    )
    REFUSED = logging.WARNING, "The gateway refused a request.", "'isthmus explain NUMBER' says why."
    UNREACHABLE = (
        logging.WARNING,
        "The gateway does not answer.",
        "Is it running, and does a firewall let port 4555 through? The agent goes on trying.",
    )


def configure(*, verbose: bool) -> None:
    """Send log lines to standard error: for people on a terminal, as JSON otherwise."""
    level = logging.DEBUG if verbose else logging.INFO
    renderer: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def log(message: Message, **fields: object) -> None:
    """Write one line."""
    structlog.get_logger().log(message.value[0], message.name, **fields)
