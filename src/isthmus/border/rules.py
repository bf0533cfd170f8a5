# SPDX-License-Identifier: BSD-3-Clause
"""What the sources of IPAE leave open, or say twice: one reading is the default, the other a switch (spec 1, 9.3)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from isthmus.address import Prefix


class Df0(enum.IntEnum):
    """What translation into SIP does with whole IPv4 datagrams that may be fragmented (spec 3.5)."""

    MARK = 0
    "A fragmentation header for each, so that the other gateway knows DF was 0; cut where the way is too narrow."
    FRAG576 = 1
    "The same, and cut to 576 octets (T93 5.5)."
    FIT = 2
    "A fragmentation header only for what has to be cut (RFC 8507 §7)."


class IcmpPseudo(enum.IntEnum):
    """The pseudo-header of ICMP in SIP (spec 2.6)."""

    IPAE = 0
    "Both addresses whole, whatever their C bits."
    SIP92 = 1
    "RFC 8507 §8.3 to the letter."
    SIPP94 = 2
    "As IPAE, but the length counts as zero where the remote end is IPv4-only (P94 7.1)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How IPAE is read here."""

    seed_order: bool = False
    "Hop limit before payload type in the SIP header, as the seed draws it; else as RFC 8507 (erratum E2)."
    sipp94_options: bool = False
    "The option headers of 1994 (spec 2.5)."
    icmp_pseudo: IcmpPseudo = IcmpPseudo.IPAE
    df0: Df0 = Df0.MARK
    keep_tos: bool = False
    "Carry the TOS octet in the low reserved bits of the SIP header (spec 3.5)."
    forward_source_routes: bool = False
    "Whether packets whose source routes name us as a stop go on (spec 2.5)."
    accept_from: tuple[Prefix, ...] = ()
    "IPv4 systems that IPAE datagrams of any source are taken from (spec 9.4)."
    site_tunnels: bool = False
    """Whether implicit tunnels come from our own site only (erratum E22). What comes from a system elsewhere is then
    its own only if a route to it leads there: else one IPv4 address could speak for every site."""
    probe_on_error: bool = False
    "Send what is too long for what is known of its way, too, so that this is refreshed (T93 4.5)."
    relay_layers: frozenset[int] = frozenset({1, 2, 3})
    "Which layers of spec 6.4 relay ICMP errors of IP-only routers."
