# SPDX-License-Identifier: BSD-3-Clause
"""The reference plane: the specification of every plane, and the slow path of the kernel's.

=================  ============================  ==============================================
module             pairs with, in the kernel     holds
=================  ============================  ==============================================
``classify``       ``classify.h``                the two ends of a packet, and its flow
``lookup``         ``lookup.h``                  the questions that a packet asks of the table
``tunnel``         ``tunnel.h``                  encapsulate, decapsulate, ECN
``icmp_relay``     ``icmp_relay.h``              whose an ICMP error is; the errors we send
``contact``        ``contact.h``                 peers that a host has written to
``border``         ``border.h``                  the one rule
=================  ============================  ==============================================

Pure: octets, effects and the time go in, verdicts come out. ``docs/data-plane.md`` is the contract.
"""

from isthmus.plane.reference.border import ReferencePlane
from isthmus.plane.reference.contact import AdmitAll, ContactedPeers, Contacts

__all__ = ["AdmitAll", "ContactedPeers", "Contacts", "ReferencePlane"]
