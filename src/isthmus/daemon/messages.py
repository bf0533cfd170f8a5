# SPDX-License-Identifier: BSD-3-Clause
"""Every log message: an identifier, a level, a sentence and what to do about it.

The identifier is the event name of the log line, so a line can be looked up here and in
``docs/messages.md``.
"""

from __future__ import annotations

import datetime as dt
import enum
import json
import logging
import sys
from collections.abc import Iterable
from typing import Any, TextIO

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
    LAPSED = (
        logging.INFO,
        "Very many leases ran out at once.",
        "Their hosts were told; 'isthmus who-had' knows each of them.",
    )
    VIOLATION = (
        logging.WARNING,
        "A host misused the data plane.",
        "The packets were dropped; the flow is the first one's. 'isthmus explain REASON' says what is wrong with them.",
    )
    VIOLATIONS = (
        logging.WARNING,
        "More hosts misused the data plane than have a line of their own.",
        "All was dropped. So many are one machine that forges its address: look at the near link with a capture.",
    )
    ENDPOINT_FOLLOWS = (
        logging.INFO,
        "The tunnel endpoint holds what its gateway said.",
        "A gateway elsewhere leases what this machine forwards; until its deadlines it forwards without it.",
    )
    NO_XDP = (
        logging.WARNING,
        "A realm wants XDP, and its interface has none: all of its packets take the way through TC.",
        "Nothing is forwarded otherwise, only slower. isthmus doctor says which interfaces can.",
    )
    INTERFACE_ANEW = (
        logging.WARNING,
        "An interface of a realm was made anew, and the plane takes its packets again.",
        "Packets that came meanwhile were the machine's own. The device of a lease, made for each lease, does this.",
    )
    WAY_NARROW = (
        logging.INFO,
        "A router between two tunnel ends carries less than the tunnels were made for.",
        "For ten minutes senders are told the smaller size. If it comes again and again, lower [gateway] tunnel_mtu.",
    )
    WAY_DOWN = (
        logging.WARNING,
        "A router says that another IPAE system cannot be reached, or that system says that it takes no IPAE.",
        "Senders hear it for half a minute; who takes no IPAE is tried once a second. 'isthmus tunnels' shows ways.",
    )
    ATTRACTED = (
        logging.INFO,
        "Neighbours on the far link find these addresses here.",
        "The kernel does, by routes of type local (ip route show table local proto 73), and also while we are dead.",
    )
    ARP_SILENT = (
        logging.WARNING,
        "A setting keeps the kernel from answering ARP for the pool.",
        "Set arp_ignore of the far interface, and of all, to 0; or let the upstream router have a route for the pool.",
    )
    ADDRESS_CONFLICT = (
        logging.ERROR,
        "Somebody else on the far link uses an address of the pool.",
        "Find that machine by its hardware address: neighbours find now one, now the other (RFC 5227 §2.4).",
    )
    NAT_APPLIED = (
        logging.INFO,
        "Hosts without RSIP go out by address translation.",
        "The table isthmus_nat_NAME of nftables says how; 'isthmus nat check' compares it with what is wanted.",
    )
    NAT_WRONG = (
        logging.WARNING,
        "Something on this machine may use ports that are leased.",
        "Packets for such a port go to who holds its lease. 'isthmus nat check CONFIG' says what to do.",
    )
    MULTICAST = (
        logging.INFO,
        "Groups are carried to hosts that join them, and from leased addresses.",
        "Ends with the daemon: the kernel forgets its multicast routes with the socket that made them.",
    )
    PARENT_LOST = (
        logging.WARNING,
        "The parent gateway has taken an address back.",
        "What was leased out of it has been revoked. See the host daemon that held it: 'isthmus leases' there.",
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
    SLP_UNAVAILABLE = (
        logging.WARNING,
        "The gateway cannot be found by SLP.",
        "Everything else works. Is another SLP daemon on port 427 of this machine, and is the near address IPv4?",
    )
    SLP_REFUSED = (
        logging.WARNING,
        "An SLP directory agent refused to list this gateway.",
        "The number is RFC 2608's, section 7: 4 means that [gateway.slp] scopes are not the agent's.",
    )
    FOUND = logging.INFO, "This host found gateways.", "It takes the first, and the next when that one does not answer."
    NOT_FOUND = (
        logging.WARNING,
        "This host finds no gateway.",
        "It goes on looking. 'isthmus find' on this machine asks the same questions and shows every answer.",
    )
    GATEWAY_GONE = (
        logging.WARNING,
        "The gateway does not register this host any more.",
        "The next gateway that was found is taken; leases of the old one are given up.",
    )
    MAPPING_CHANGED = (
        logging.INFO,
        "Another mapping table counts.",
        "A new version of the zone, or 'isthmus map apply'; the plane has all of it.",
    )
    MAPPING_REFUSED = (
        logging.ERROR,
        "A mapping table was refused whole, and the one before it goes on.",
        "Each fault is given with its place. 'isthmus map check FILE' finds the same ones in a file.",
    )
    MAPPING_UNREACHABLE = (
        logging.WARNING,
        "No nameserver gives the mapping zone.",
        "The copy goes on for three times its TTL. Is the server up, does it allow transfers to us, is the key right?",
    )
    MAPPING_STALE = (
        logging.ERROR,
        "The copy of the mapping zone is too old, and is not used any longer.",
        "No nameserver answered for three times the TTL of its records: see MAPPING_UNREACHABLE.",
    )
    ALIASES_EXHAUSTED = (
        logging.WARNING,
        "A SIP host has no IPv4 alias: every one of its residue is taken, or those that its site may have.",
        "Its name was answered SERVFAIL, its packets are dropped. Each /16 of a pool has one of a residue: add more.",
    )
    ALIAS_NOT_BOUND = (
        logging.ERROR,
        "An IPv4 alias could not be bound.",
        "Its name was answered SERVFAIL, its packets are dropped. 'isthmus doctor' shows what the plane lacks.",
    )
    ROUTES_LEARNED = (
        logging.INFO,
        "A routing daemon has other SIP routes.",
        "They are in the plane: 'isthmus routes' shows all of them. Of many changes the first twenty are named.",
    )
    ROUTES_FAILED = (
        logging.ERROR,
        "What a routing daemon has changed could not be taken over.",
        "Packets go on as before; it is tried again every second, and told of once.",
    )
    ROUTES_REFUSED = (
        logging.WARNING,
        "Routes of a routing daemon are not used.",
        "The line says why. A filter of the routing daemon should keep them out: docs/sip-routing.md has one.",
    )
    SYNTHESISING = (
        logging.INFO,
        "A DNS server answers with addresses that programs without SIP can use.",
        "Let hosts ask it: their /etc/resolv.conf names it.",
    )


_json_to: list[TextIO] = []
"""Where lines go as JSON, if they do."""


def configure(*, verbose: bool) -> None:
    """Send log lines to standard error: for people on a terminal, as JSON otherwise."""
    level = logging.DEBUG if verbose else logging.INFO
    people = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if people else structlog.processors.JSONRenderer()
    _json_to[:] = [] if people else [sys.stderr]
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


def log_all(lines: Iterable[tuple[Message, dict[str, str | int]]]) -> None:
    """Write lines that belong to one batch, of the level INFO or above, with one time and by one system call.

    They read as if ``log`` had written each, which takes eight times as long.
    """
    if not _json_to:
        for message, fields in lines:
            log(message, **fields)
        return
    now = dt.datetime.now(tz=dt.UTC).isoformat().replace("+00:00", "Z")
    text: list[str] = []
    said: list[str] = []
    ends: dict[Message, str] = {}
    for message, fields in lines:
        end = ends.get(message)
        if end is None:
            level = logging.getLevelName(message.value[0]).lower()
            end = ends[message] = f'"event": "{message.name}", "level": "{level}", "timestamp": "{now}"}}\n'
        said.clear()
        for key, each in fields.items():
            said.append(f'"{key}": {each if type(each) is int else _quoted(str(each))}, ')
        text.append(f"{{{''.join(said)}{end}")
    if text:
        (stream,) = _json_to
        stream.write("".join(text))
        stream.flush()


_quoted = json.encoder.encode_basestring_ascii
