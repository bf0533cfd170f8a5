# SPDX-License-Identifier: BSD-3-Clause
"""Verdicts: what a plane does with a packet, and why it drops one.

Deciding and counting are one act: a drop has a ``Reason``, the reason is the counter,
and its number is the kernel plane's (``enum reason`` in ``bpf/include/isthmus/abi.h``).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from isthmus.address import Address
from isthmus.border.binding import Owner
from isthmus.border.crossing import TunnelKind
from isthmus.border.selector import Flow


class Reason(enum.IntEnum):
    """Why a packet left the path. Add at the end: numbers are shared with C.

    Attributes:
        rsip_code: The ERROR_RESPONSE that RFC 3103 §10.4 wants for it, or 0.
        sentence: What happened, for ``isthmus explain``.
    """

    rsip_code: int
    sentence: str

    def __new__(cls, number: int, rsip_code: int, sentence: str) -> Reason:  # noqa: D102
        member = int.__new__(cls, number)
        member._value_ = number
        member.rsip_code = rsip_code
        member.sentence = sentence
        return member

    FORWARDED_INWARD = 0, 0, "The packet matched a binding and went into its tunnel."
    FORWARDED_OUTWARD = 1, 0, "The packet came out of a tunnel, its source was its sender's to use, and it went on."
    PASSED = 2, 0, "The packet is not isthmus's concern and went to the machine's own IP stack."
    PUNTED = 3, 0, "The packet needs more than the fast path does and went to the reference plane."
    REPLIED = 4, 0, "The packet was answered, with an ICMP error or an echo reply, and went no further."
    MALFORMED = 5, 0, "A header does not parse: too short, a wrong version, or lengths that contradict each other."
    NO_BINDING = 6, 0, "The destination is in a pool of this gateway and nobody holds it now."
    LEASE_EXPIRED = 7, 0, "A binding matched, but its deadline has passed and nothing has renewed it."
    NOT_CONTACTED = 8, 0, "The binding only admits peers that its host has written to, and this one it has not."
    UNREGISTERED = 9, 301, "A tunnelled packet came from an address that has not registered."
    WRONG_TUNNEL_TYPE = 10, 307, "A tunnelled packet came in another tunnel type than its binding's."
    SOURCE_ADDRESS_NOT_LEASED = 11, 312, "The inner source address is not leased to the host that sent it."
    SOURCE_PORT_NOT_LEASED = 12, 313, "The host shares this inner source address, but not this port, identifier or SPI."
    REMOTE_ADDRESS_NOT_ALLOWED = 13, 314, "The flow policy of the binding does not allow this peer's address."
    REMOTE_PORT_NOT_ALLOWED = 14, 315, "The flow policy of the binding allows this peer's address, but not this port."
    TTL_EXCEEDED = 15, 0, "The time to live ran out at this border."
    TOO_BIG = 16, 0, "The packet does not fit into the tunnel and forbids fragmentation."
    FRAGMENT = 17, 0, "A fragment that no packet can be put together from: its length or its place is impossible."
    NO_DISCRIMINATOR = (
        18,
        0,
        "A shared address carries TCP, UDP and ICMP only; this protocol has nothing to tell hosts apart by.",
    )
    UNKNOWN_TUNNEL_PEER = 19, 0, "A tunnelled packet came to a host from somebody who is not its gateway."
    NOT_OUR_LEASE = 20, 0, "A tunnelled packet came to a host for an address or port that it does not hold."
    FORGED_QUOTE = 21, 0, "An ICMP error from a host quotes a packet that was never addressed to one of its leases."
    FORBIDDEN_DESTINATION = (
        22,
        0,
        "The inner destination is one no packet may leave for: loopback, multicast, broadcast, or zero.",
    )
    NO_ROUTE = 23, 0, "There is no route or no neighbour for where the packet should go."
    HELD = 24, 0, "A fragment waits for the rest of its packet, which will be counted once it is whole."
    FRAGMENT_OVERLAP = 25, 0, "Fragments of one packet contradict each other; all of them were discarded."
    FRAGMENT_TIMEOUT = 26, 0, "Fragments waited in vain for the rest of their packet."
    FRAGMENT_LIMIT = 27, 0, "Too many fragments wait already, in all or from this source."
    UNKNOWN_COOKIE = 28, 0, "An IKE packet to the shared port 500 has an initiator cookie that no host has used."
    COOKIE_IN_USE = 29, 0, "Another host behind the same address already uses this IKE initiator cookie with port 500."
    NO_IDENTIFIER = 30, 0, "Every ICMP identifier of this host's lease is in use by another of its programs."
    NOT_TUNNELLED = 31, 0, "A packet from the hosts' side has a leased source address and came outside of any tunnel."
    FORWARDED_SIP = 32, 0, "A SIP packet went on towards its destination: on a link as it is, or as an IPAE datagram."
    TRANSLATED_TO_SIP = (
        33,
        0,
        "An IPv4 packet, or what a program sent by an IPv6 socket, became a SIP packet and went on.",
    )
    TRANSLATED_FROM_SIP = 34, 0, "A SIP packet became one of IPv4, or of a program's IPv6 socket, and went on."
    RELAYED = 35, 0, "An ICMP error of an IP-only router about an IPAE datagram was told to the SIP system it concerns."
    FORBIDDEN_SIP_ADDRESS = (
        36,
        0,
        "A SIP source or destination that no packet may have: unspecified, loopback, a group as source, or no host's.",
    )
    SITE_SOURCE_OUTSIDE = 37, 0, "A SIP packet from outside of a site has a source inside of it."
    WRONG_WAY = 38, 0, "An IPAE datagram came from a system that does not lead to the SIP source in it."
    UNMAPPED = 39, 0, "No mapping knows this IPv4 destination, and IPv4 addresses mean nothing beyond the site."
    NO_IMAGE = (
        40,
        0,
        "A source has no address in the realm that its packet was to be translated into, or its message no form.",
    )
    SOURCE_ROUTE = 41, 0, "A source route that is foreign, strict, too long, or points beyond its end."
    NOT_FOR_US = 42, 0, "A SIP packet for an address of this machine that nothing here takes."
    TUNNEL_DOWN = 43, 0, "The IPAE system that the packet would go through was reported unreachable a moment ago."
    FORGED_ERROR = 44, 0, "An ICMP error about an IPAE datagram quotes one that was never sent."
    RELAY_LIMIT = 45, 0, "More ICMP errors than this border may make at a time, in all or for this source."
    NOT_SIP = 46, 0, "An IPv4 protocol 41 packet holds neither SIP nor IPv6 by its lengths, or IPAE within IPAE."
    LOOP = 47, 0, "A packet would go back into the tunnel that it came out of."
    NOT_ALLOWED_HERE = 48, 0, "An IPv4 packet came to a SIP-only system."

    @property
    def is_drop(self) -> bool:
        """Whether a packet that left by this reason was discarded."""
        return self >= Reason.MALFORMED and self not in _WENT_ON


_WENT_ON = frozenset(
    {Reason.HELD, Reason.FORWARDED_SIP, Reason.TRANSLATED_TO_SIP, Reason.TRANSLATED_FROM_SIP, Reason.RELAYED}
)


@dataclass(frozen=True, slots=True)
class Forward:
    """Send these packets on, in order, into a realm."""

    realm: int
    packets: tuple[bytes, ...]
    "Complete IP packets, without link header."
    reason: Reason
    "FORWARDED_INWARD, FORWARDED_OUTWARD, FORWARDED_SIP, TRANSLATED_TO_SIP, TRANSLATED_FROM_SIP or RELAYED."
    device: str | None = None
    "Where a host delivers: the device of the binding, if it is not the realm's."
    neighbour: Address | None = None
    "Of SIP packets: IPv4 address by which ARP finds the next SIP system on the realm's link; None: by the IPv4 routes."


@dataclass(frozen=True, slots=True)
class Reply:
    """Drop the packet and send this one back to where it came from."""

    realm: int
    packet: bytes
    reason: Reason
    "Why: TTL_EXCEEDED, TOO_BIG; REPLIED for the answer to an echo request."
    device: str | None = None
    "At a host: the device that the packet came from, if it was a program's."
    neighbour: Address | None = None
    "As in ``Forward``."


@dataclass(frozen=True, slots=True)
class Drop:
    """Discard the packet; the reason is counted, and told to the protocol where it is a violation."""

    reason: Reason
    violation: Violation | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep a fragment until the rest of its packet has come, or a packet that asks (``Miss``); it counts as HELD."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Leave the packet to the machine's own IP stack."""

    packets: tuple[bytes, ...] = ()
    "What to leave to it instead: the fragments as they came, where they had to be put together to tell."


@dataclass(frozen=True, slots=True)
class Punt:
    """The fast path hands the packet to the reference plane."""


Verdict = Forward | Reply | Drop | Hold | Pass | Punt


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A host's misuse of the data plane, told to its gateway's state machine (RFC 3103 §10.4)."""

    reason: Reason
    owner: Owner
    "Who sent it, by the outer source address."
    flow: Flow | None
    "The inner packet, as far as it could be read."
    tunnel_kind: TunnelKind | int
    "The tunnel type that it came in; a bare number where RSIP has no name for it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """A packet that waits for an address to be known: who writes the table is asked (seed IPAE 8.1; spec 6.3, 8.3)."""

    realm: int
    "Number of the realm in which something is missing: of the IPv4 destination, or of the alias."
    address: Address
    "IPv4: whose mapping is asked for. SIP: who has no image in the realm."
    arrived: int
    "Number of the realm that the packet came in; with ``link`` what to process it again by."
    link: int | None
    packet: bytes
