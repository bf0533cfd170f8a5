# SPDX-License-Identifier: BSD-3-Clause
"""How octets reach a plane in user space, and leave it again (docs/data-plane.md, "Devices").

=============  ==================================================================================
module         holds
=============  ==================================================================================
``memory``     a port that is two lists, for tests
``neighbour``  SIP frames to neighbours that ARP finds
``offload``    what a sender's IP stack left to a network card
``packet``     a port on one end of a veth pair that exists: a packet socket, and a seal
``pair``       veth pairs: what ports and devices are made of
``port``       a veth pair of one's own, whose other end belongs to the machine's IP stack
``steer``      nftables rules that bring the packets of real interfaces into ports
``userspace``  the reference plane with ports: a plane of its own, or the kernel plane's slow path
=============  ==================================================================================
"""

from __future__ import annotations

from typing import Protocol


class Port(Protocol):
    """Where a plane in user space reads and writes whole IP packets; never waits."""

    @property
    def name(self) -> str:
        """The interface that the machine or a program has."""

    @property
    def origin(self) -> str | None:
        """The device of the program that sent what was received last, where a fast path says so."""

    @property
    def native(self) -> bool:
        """Whether what was received last is SIP: version 6 by the EtherType of IPv4 (seed IPAE 4.2.1)."""

    def fileno(self) -> int:
        """The descriptor that an event loop waits on."""

    def receive(self) -> bytes | None:
        """Take the next IP packet, without its link header; None if none waits."""

    def send(self, packet: bytes, *, forwarded: bool = False) -> bool:
        """Let a packet arrive on the other end.

        Args:
            packet: The packet.
            forwarded: Whether the IP stack behind will route it on and so take one from its TTL, which
                is then raised by one here.

        Returns:
            Whether it was taken: a port that is full or has vanished loses packets, like any wire.
        """

    def close(self) -> None:
        """Let go."""
