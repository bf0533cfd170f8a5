# SPDX-License-Identifier: BSD-3-Clause
"""How SIP is written and summed here: a border's rules in the words of ``wire.sip`` (spec 1, 9.3).

Pairs with ``bpf/include/isthmus/sip.h``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from isthmus.address import Address
from isthmus.border.rules import IcmpPseudo, Rules
from isthmus.plane.reference.classify import Octets
from isthmus.wire.sip.header import HEADER_OCTETS, HeaderOrder, SipHeader, SipView
from isthmus.wire.sip.icmp import SipIcmpMessage
from isthmus.wire.sip.option import FRAGMENT, SOURCE_ROUTE, Chain, Fragmentation, OptionLayout, SourceRoute, walk
from isthmus.wire.sip.pseudo import IcmpProfile, icmp_rule, pseudo_sum
from isthmus.wire.transport import Protocol

_PROFILES = {
    IcmpPseudo.IPAE: IcmpProfile.IPAE,
    IcmpPseudo.SIP92: IcmpProfile.SIP92,
    IcmpPseudo.SIPP94: IcmpProfile.SIPP94_C1,
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """One reading of the sources."""

    order: HeaderOrder
    layout: OptionLayout
    profile: IcmpProfile
    keep_tos: bool

    @classmethod
    def of(cls, rules: Rules) -> Dialect:
        """The reading that a border's rules ask for."""
        return cls(
            order=HeaderOrder.SEED if rules.seed_order else HeaderOrder.DEERING,
            layout=OptionLayout.SIPP94 if rules.sipp94_options else OptionLayout.SIP92,
            profile=_PROFILES[rules.icmp_pseudo],
            keep_tos=rules.keep_tos,
        )

    def parse(self, packet: Octets, *, quoted: bool = False) -> SipView:
        """See octets as a SIP packet; errors as of ``SipView.parse``."""
        return SipView.parse(packet, order=self.order, quoted=quoted)

    def walk(self, packet: SipView) -> Chain:
        """Walk through its option headers; errors as of ``wire.sip.option.walk``."""
        return walk(packet, layout=self.layout)

    def write(
        self,
        header: SipHeader,
        payload: Octets,
        *,
        route: SourceRoute | None = None,
        part: Fragmentation | None = None,
        length: int | None = None,
    ) -> bytes:
        """Write a packet with its option headers, the source route first.

        Args:
            header: Its payload type is that of ``payload``, and its payload length is not looked at.
            payload: What follows the option headers.
            route: A source route; its payload type is not looked at.
            part: A fragmentation header; likewise.
            length: Octets of payload that the headers speak of, if ``payload`` is cut short as in a quote.
        """
        kind, options = header.payload_type, b""
        if part is not None:
            options = replace(part, payload_type=kind).emit(self.layout)
            kind = FRAGMENT
        if route is not None:
            options = replace(route, payload_type=kind).emit(self.layout) + options
            kind = SOURCE_ROUTE
        total = len(options) + (len(payload) if length is None else length)
        return (
            replace(header, payload_type=kind, payload_length=min(total, 0xFFFF)).emit(self.order)
            + options
            + bytes(payload)
        )

    def icmp_sum(self, src: Address, dst: Address, length: int) -> int:
        """Sum of the pseudo-header of an ICMP message (spec 2.6).

        Args:
            src: SIP source address.
            dst: SIP final destination address.
            length: Of the whole message in octets.
        """
        rule = icmp_rule(src, dst, self.profile)
        return pseudo_sum(rule, src=src, dst=dst, payload_type=Protocol.ICMP, length=length)

    def message(self, src: Address, dst: Address, message: SipIcmpMessage, *, hop_limit: int = 64) -> bytes:
        """Write a packet that is an ICMP message (RFC 8507 §8.1)."""
        header = SipHeader(payload_length=0, payload_type=Protocol.ICMP, hop_limit=hop_limit, src=src, dst=dst)
        return self.write(header, message.emit(self.icmp_sum(src, dst, message.length)))


def is_plain(chain: Chain) -> bool:
    """Whether a packet's option headers are at most one source route and then at most one fragmentation header.

    Others have no counterpart in IPv4, and no source that we know writes them.
    """
    options = (chain.source_route, chain.fragmentation)
    inside = sum(each.octets for each in options if each is not None)
    in_order = None in options or (chain.source_route_at or 0) < (chain.fragmentation_at or 0)
    return chain.at == HEADER_OCTETS + inside and in_order
