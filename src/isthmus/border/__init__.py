# SPDX-License-Identifier: BSD-3-Clause
"""The model, on one page.

A *border* stands between two *realms*. A *binding* says: packets matching this *selector*
cross by this *tunnel*. RSIP is how a host leases a binding; IPAE is how a binding is read
off a 64-bit address.

====================================  ==========================  =========================  ====================
concept                               RSIP (RFC 3102, 3103)       IPAE                       here
====================================  ==========================  =========================  ====================
where an address is unique            address realm               IPv4 site / SIP space      ``Realm``
what is scarce and handed out         address, ports, SPI         SIP prefix, tunnel end     ``Pool``
"this packet is yours"                demultiplexing fields       destination SIP prefix     ``Selector``
way across the near side              IP-IP, GRE                  SIP-in-IPv4, translation   ``Crossing``
the two put together                  binding (bind ID)           mapping-table entry        ``Binding``
for how long, for whom                lease                       for the configuration      ``Lease``
====================================  ==========================  =========================  ====================

One rule, whatever the writer::

    toward the binding:  the packet's (dst, src) matches (local, remote) → into the tunnel
    from the binding:    the inner packet's (src, dst) matches           → out; else drop: spoofed

At the gateway ``local`` is the leased address and ports, ``remote`` what the flow policy
allows. A host is the mirror image: the same selector, the two lines swapped.

Protocols return *effects* and a driver carries them out in one order (``effect.in_order``);
planes return *verdicts* with *reasons*. Nothing in this room has ever seen an octet of a
header, and nothing here reads a clock: time is an argument.
"""
