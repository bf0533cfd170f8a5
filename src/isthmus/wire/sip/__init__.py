# SPDX-License-Identifier: BSD-3-Clause
"""The Simple Internet Protocol of RFC 8507 (Deering, 1992): an IP with 64-bit addresses, version 6.

This is not the Session Initiation Protocol of RFC 3261, which came later and has the name today.
``header`` is the fixed header, ``option`` the headers behind it and the way through them, ``pseudo``
what the checksums of transports cover, ``icmp`` and ``igmp`` the control protocols, ``special`` the
addresses with a meaning, and ``ipae`` the IPv4 datagram that has all of it inside (seed IPAE 4.2.2).
"""
