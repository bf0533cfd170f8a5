# SPDX-License-Identifier: BSD-3-Clause
"""The reference plane: the specification of every plane, and the slow path of the kernel's.

==================  ============================  ==============================================
module              pairs with, in the kernel     holds
==================  ============================  ==============================================
``classify``        ``classify.h``                the two ends of a packet, and its flow
``lookup``          ``lookup.h``                  the questions that a packet asks of the table
``demultiplex``     ``lookup.h``                  by which binding a packet goes
``tunnel``          ``tunnel.h``                  encapsulate, decapsulate, ECN
``icmp_relay``      ``icmp_relay.h``              whose an ICMP error is; what we answer
``contact``         ``contact.h``                 peers that a host has written to
``path``            ``path.h``                    which host sends by a peer's SPI
``path_mtu``        (punts)                       what the ways of tunnels carry
``identification``  ``identification.h``          IP identifications of each sender's own
``fragment``        (punts)                       fragments put together, and cut
``ike``             (punts)                       which host uses an IKE cookie
``identifier``      (punts)                       ICMP identifiers of a host's programs
``memory``          ``maps.h``                    all that is known when a packet comes
``inward``          ``border.h``                  the gateway's way from outside
``outward``         ``border.h``                  the ways out of a tunnel
``program``         ``border.h``                  the host's ways from and to its programs
``border``          ``border.h``                  the one rule, and the counting
==================  ============================  ==============================================

Pure: octets, effects and the time go in, verdicts come out. ``docs/data-plane.md`` is the contract.
"""

from isthmus.plane.reference.border import ReferencePlane
from isthmus.plane.reference.contact import AdmitAll, ContactedPeers, Contacts
from isthmus.plane.reference.path import KnownPaths, Paths

__all__ = ["AdmitAll", "ContactedPeers", "Contacts", "KnownPaths", "Paths", "ReferencePlane"]
