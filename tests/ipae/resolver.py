# SPDX-License-Identifier: BSD-3-Clause
"""A zone of hosts of every kind, and what a recursive server says of it."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.zone

TEXT = r"""
$ORIGIN example.
$TTL 300
@          SOA ns.example. hostmaster.example. 1 3600 900 10800 120
@          NS  ns
ns         A   127.0.0.1
d          TYPE65401 \# 8 01020208C90507FA
old        TYPE65401 \# 8 81020208C90507FA
both       30 TYPE65401 \# 8 01020208C90507FA
both       A   192.0.2.9
both       AAAA 2001:db8::9
near       TYPE65401 \# 8 01D54D05C0030409
many       TYPE65401 \# 8 05060007 0A000007
many       TYPE65401 \# 8 05060008 0A000007
crowd      TYPE65401 \# 8 05060007 0A000008
crowd      TYPE65401 \# 8 05060008 0A000008
crowd      TYPE65401 \# 8 05060009 0A000008
crowd      TYPE65401 \# 8 0506000A 0A000008
short      TYPE65401 \# 7 01020208C90507
group      TYPE65401 \# 8 7F01000000000001
reserved   TYPE65401 \# 8 0000000000000001
www        60 CNAME web
web        CNAME d
loop       CNAME pool
pool       CNAME loop
dangling   CNAME nowhere
toplain    CNAME plain
plain      A   129.144.7.1
sitehost   A   192.3.4.77
six        AAAA 2001:db8::6
text       TXT "something"
a.f.7.0.5.0.9.c.8.0.2.0.2.0.1.0.sip PTR d.example.
"""
ZONE = dns.zone.from_text(
    TEXT,
    origin="example.",
    relativize=False,
    check_origin=False,
)


def resolve(name, rdtype):
    """What a recursive server says, as it comes from the wire."""
    return dns.message.from_wire(recurse(name, rdtype).to_wire())


def recurse(name, rdtype):
    """Chains followed, NXDOMAIN or NODATA with the SOA."""
    response = dns.message.make_response(dns.message.make_query(name, rdtype), recursion_available=True)
    response.flags |= dns.flags.AD
    for _ in range(8):
        node = ZONE.get_node(name) if name.is_subdomain(ZONE.origin) else None
        if node is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
            break
        found = node.get_rdataset(dns.rdataclass.IN, rdtype)
        if found is not None:
            response.answer.append(dns.rrset.from_rdata_list(name, found.ttl, list(found)))
            return response
        cname = node.get_rdataset(dns.rdataclass.IN, dns.rdatatype.CNAME)
        if cname is None:
            break
        response.answer.append(dns.rrset.from_rdata_list(name, cname.ttl, list(cname)))
        name = cname[0].target
    soa = ZONE.get_rdataset("example.", "SOA")
    response.authority.append(dns.rrset.from_rdata_list(ZONE.origin, soa.ttl, list(soa)))
    return response
