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
``dialect``         ``sip.h``                     how SIP is written and summed here
``parcel``          ``sip.h``                     a SIP packet on its way, and what becomes of it
``images``          ``images.h``                  by which address a system is known elsewhere
``translate``       ``translate.h``               IPv4 to SIP and back
``translate_icmp``  ``translate.h`` (echo)        ICMP of both
``translate_ipv6``  ``translate_ipv6.h``          SIP for IPv6 sockets
``sip_fragment``    (punts)                       fragments of SIP put together, and cut
``datagram``        ``datagram.h``                out of the IPAE datagram
``sip``             ``sip.h``                     a SIP packet's way
``cross``           ``cross.h``                   on a link, into a datagram
``into_sip``        ``into_sip.h``                from IPv4 and from programs into SIP
``out_of_sip``      ``out_of_sip.h``              from SIP to IPv4 and to programs
``answer``          (punts)                       what we say ourselves
``allowance``       (punts)                       how often
``relay``           (punts)                       errors of IP-only routers
``ring``            ``ring.h``                    which datagram an error speaks of
``ways``            (told)                        what is known of the ways between IPAE systems
``border``          ``border.h``                  the one rule, and the counting
==================  ============================  ==============================================

Pure: octets, effects and the time go in, verdicts come out. ``docs/data-plane.md`` is the contract.
"""

from isthmus.plane.reference.border import ReferencePlane
from isthmus.plane.reference.contact import ContactedPeers, Contacts
from isthmus.plane.reference.path import KnownPaths, Paths
from isthmus.plane.reference.ring import IdentificationRing, Ring
from isthmus.plane.reference.ways import Condition

__all__ = [
    "Condition",
    "ContactedPeers",
    "Contacts",
    "IdentificationRing",
    "KnownPaths",
    "Paths",
    "ReferencePlane",
    "Ring",
]
