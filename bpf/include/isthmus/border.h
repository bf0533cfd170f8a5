/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * The one rule: into the tunnel what matches a binding, out of it what its sender may send.
 *
 *   toward the binding:  the packet's (dst, src) matches (local, remote) -> into the tunnel
 *   from the binding:    the inner packet's (src, dst) matches           -> out; else drop: spoofed
 *
 * A host is the mirror image. Pairs with plane/reference/border.py; the steps are those of
 * docs/data-plane.md. Nothing is changed in a packet before everything is decided, so that
 * what is punted is what came in.
 */
#ifndef ISTHMUS_BORDER_H
#define ISTHMUS_BORDER_H

#include <isthmus/contact.h>
#include <isthmus/icmp_relay.h>
#include <isthmus/identification.h>
#include <isthmus/lookup.h>
#include <isthmus/tunnel.h>
#include <isthmus/verdict.h>

/* Check deadline and peer of a packet toward a binding; 0 if it may go on (RFC 3103 §6, §7.2). */
static __always_inline enum reason admission(const struct entry *entry, const struct endpoint *tunnel,
					     const struct flow *flow, __u32 now)
{
	enum reason refused;

	if (expired(entry, now))
		return LEASE_EXPIRED;
	refused = remote_limit(entry, flow);
	if (!refused && entry->flags & BINDING_CONTACTED && !knows_contact(owner_of(entry, tunnel), flow, now))
		return NOT_CONTACTED;
	return refused;
}

/* Put a packet into a tunnel over IPv6, and send it on. */
static __noinline int into_tunnel6(frame_t *frame, struct ingress *from, const struct ipv4 *packet,
				   const struct entry *entry, enum reason why)
{
	struct scratch *mine = this_scratch();
	struct endpoint *tunnel;
	const __u16 *link = 0;
	enum reason refused;
	struct realm *realm;

	tunnel = entry ? endpoint_of(entry) : 0;
	if (!from || !packet || !tunnel || !mine)
		return FRAME_DROP;
	realm = realm_of(tunnel->realm);
	outer_header6(&mine->outer, packet, tunnel, entry->holder);
	if (!ready6(frame, realm, packet->total + overhead(sizeof(mine->outer), tunnel->kind), &link))
		return punt(frame, from, NO_ROUTE);
	refused = encapsulate6(frame, from, packet, tunnel->kind, &mine->outer);
	if (refused)
		return refused == PUNTED ? punt(frame, from, NO_ROUTE) : drop(frame, refused);
	return forward6(frame, from, realm, link, why);
}

/* Put a packet, which has been amended, into its tunnel, and send it on (RFC 2003 §3.1; RFC 2473 §3). */
static __always_inline int into_tunnel(frame_t *frame, struct ingress *from, const struct ipv4 *packet,
				       const struct entry *entry, const struct endpoint *tunnel, enum reason why)
{
	const __u16 *link = 0;
	enum reason refused;
	struct realm *realm;
	struct outer outer;

	if (tunnel->flags & ENDPOINT_CHECKSUM)
		return punt(frame, from, NO_ROUTE);
	if (tunnel->flags & ENDPOINT_IPV6)
		return into_tunnel6(frame, from, packet, entry, why);
	realm = realm_of(tunnel->realm);
	if (realm && realm->flags & REALM_IPAE && begins_again(tunnel->realm, far_end(entry, tunnel), 0))
		return punt(frame, from, NO_ROUTE);
	outer_header(&outer, packet, tunnel, far_end(entry, tunnel));
	if (!ready(frame, realm, packet->total + overhead(sizeof(outer.ip), tunnel->kind), outer.ip.saddr,
		   outer.ip.daddr, outer.ip.tos, &link))
		return punt(frame, from, NO_ROUTE);
	refused = encapsulate(frame, from->link, from->over6, packet, tunnel->kind, &outer);
	if (refused)
		return refused == PUNTED ? punt(frame, from, NO_ROUTE) : drop(frame, refused);
	return forward(frame, from, realm, &outer.ip, link, why);
}

/* Check deadline, peer, TTL and size, and put a packet into its tunnel (RFC 3103 §6, §7.2; RFC 2003 §3.1). */
static __always_inline int inward(frame_t *frame, struct ingress *from, struct ipv4 *packet,
			     const struct flow *flow, const struct entry *entry)
{
	struct endpoint *tunnel;
	enum reason refused;

	if (!from || !packet || !flow || !entry)
		return FRAME_DROP;
	tunnel = endpoint_of(entry);
	if (!tunnel)
		return drop(frame, NO_BINDING);
	if (entry->flags & BINDING_ASK)
		return punt(frame, from, NO_ROUTE);
	refused = admission(entry, tunnel, flow, from->now);
	if (refused)
		return drop(frame, refused);
	if (packet->raw.ttl <= 1)
		return punt(frame, from, TTL_EXCEEDED);
	if (is_too_big(frame, packet, tunnel->mtu))
		return punt(frame, from, TOO_BIG);
	amend(packet, packet->raw.tos, true);
	return into_tunnel(frame, from, packet, entry, tunnel, FORWARDED_INWARD);
}

/* Take a packet from outside to the holder of its destination (RFC 3102 §3.2, §6.2; RFC 3103 §7.3). */
static __noinline int toward_binding(frame_t *frame, struct ingress *from, struct ipv4 *packet)
{
	struct entry entry;
	struct ends both;
	struct flow flow;

	if (!from || !packet)
		return FRAME_DROP;
	if (is_fragment(packet) || is_cut_off(packet)) {
		if (!is_meant(from->realm, packet->raw.daddr))
			return pass(frame);
		return is_fragment(packet) ? punt(frame, from, FRAGMENT) : drop(frame, MALFORMED);
	}
	ends(frame, packet, &both);
	if (is_request(&both))
		return is_meant(from->realm, packet->raw.daddr) ? punt(frame, from, NO_BINDING) : pass(frame);
	if (is_forged_inward(packet, &both))
		return is_meant(from->realm, packet->raw.daddr) ? drop(frame, FORGED_QUOTE) : pass(frame);
	orient(&both, from->realm, DESTINATION, &flow);
	if (!lookup_inward(&both, &flow, &entry, from->now)) {
		if (may_be_known(&flow, both.protocol))
			return punt(frame, from, NO_BINDING);
		return entry.flags & BINDING_CLAIMED ? drop(frame, NO_BINDING) : pass(frame);
	}
	if (!checksum_ok(frame, packet))
		return drop(frame, MALFORMED);
	return inward(frame, from, packet, &flow, &entry);
}

/* Take a packet of one of our own programs to the gateway: the host's mirror (RFC 3102 §2; RFC 3103 §7). */
static __noinline int from_program(frame_t *frame, struct ingress *from, struct ipv4 *packet)
{
	struct endpoint *tunnel;
	enum reason refused;
	struct entry entry;
	struct ends both;
	struct flow flow;
	bool found;

	if (!from || !packet)
		return FRAME_DROP;
	if (is_fragment(packet))
		return punt(frame, from, FRAGMENT);
	if (is_cut_off(packet))
		return drop(frame, MALFORMED);
	ends(frame, packet, &both);
	if (has_identifier(&both))
		return punt(frame, from, NO_ROUTE);
	orient(&both, from->realm, SOURCE, &flow);
	found = flow.kind == SPI && !both.quoted ? lookup_any_holder(&flow, &entry) : lookup(&flow, &entry, from->now);
	tunnel = found ? endpoint_of(&entry) : 0;
	if (!tunnel) {
		if (may_be_known(&flow, both.protocol))
			return punt(frame, from, NO_ROUTE);
		return drop(frame, is_held_in_part(flow.realm, flow.local) ? SOURCE_PORT_NOT_LEASED :
									   SOURCE_ADDRESS_NOT_LEASED);
	}
	if (entry.flags & BINDING_ASK)
		return punt(frame, from, NO_ROUTE);
	if (expired(&entry, from->now))
		return drop(frame, LEASE_EXPIRED);
	refused = remote_limit(&entry, &flow);
	if (refused)
		return drop(frame, refused);
	if (is_too_big(frame, packet, tunnel->mtu))
		return punt(frame, from, TOO_BIG);
	return into_tunnel(frame, from, packet, &entry, tunnel, FORWARDED_OUTWARD);
}

/* Whether a tunnel is of another type or outer family than the one that a packet came in (RFC 3103 §10.4). */
static __always_inline bool is_other_tunnel(const struct endpoint *tunnel, const struct ingress *from)
{
	return from->kind != tunnel->kind || from->over6 != !!(tunnel->flags & ENDPOINT_IPV6);
}

/* Check deadline, tunnel type and peer of a tunnelled packet; 0 if all is well (RFC 3103 §6, §7.2, §10.4). */
static __always_inline enum reason use(const struct entry *entry, const struct endpoint *tunnel,
				       const struct flow *flow, const struct ingress *from)
{
	if (expired(entry, from->now))
		return LEASE_EXPIRED;
	if (is_other_tunnel(tunnel, from))
		return WRONG_TUNNEL_TYPE;
	return remote_limit(entry, flow);
}

/*
 * Turn a packet round to another of our hosts (RFC 3102 §6.7).
 * UNDECIDED if its destination is not one's. What was found of the sender is overwritten.
 */
static __noinline int hairpin(frame_t *frame, struct ingress *from, struct arrival *arrival)
{
	struct endpoint *tunnel;
	enum reason refused;
	int tos;

	if (!from || !arrival)
		return FRAME_DROP;
	if (is_request(&arrival->both))
		return punt(frame, from, NO_BINDING);
	orient(&arrival->both, arrival->leads_to, DESTINATION, &arrival->flow);
	if (!lookup_inward(&arrival->both, &arrival->flow, &arrival->entry, from->now)) {
		if (may_be_known(&arrival->flow, arrival->both.protocol))
			return punt(frame, from, NO_BINDING);
		return arrival->entry.flags & BINDING_CLAIMED ? drop(frame, NO_BINDING) : UNDECIDED;
	}
	tunnel = endpoint_of(&arrival->entry);
	if (!tunnel)
		return drop(frame, NO_BINDING);
	if (arrival->entry.flags & BINDING_ASK)
		return punt(frame, from, NO_ROUTE);
	refused = admission(&arrival->entry, tunnel, &arrival->flow, from->now);
	if (refused)
		return drop(frame, refused);
	if (is_too_big(frame, &arrival->inner, tunnel->mtu))
		return punt(frame, from, TOO_BIG);
	/* A large segment is marked with the tunnel type it came in, and Linux cannot mark it anew: the port cuts it up. */
	if (segment_octets(frame) && is_other_tunnel(tunnel, from))
		return punt(frame, from, TOO_BIG);
	tos = egress_tos(arrival->outer.raw.tos, arrival->inner.raw.tos);
	amend(&arrival->inner, tos, true);
	return into_tunnel(frame, from, &arrival->inner, &arrival->entry, tunnel, FORWARDED_INWARD);
}

/* Whether what a packet carries is the peer's SPI, so that its sender has to hold some other. */
static __always_inline bool has_other_spi(const struct ends *both, bool at_gateway)
{
	return both->kind == SPI && both->quoted != at_gateway;
}

/* Let a host's packet out into the realm that its source is leased from (RFC 3102 §2; RFC 2003 §3). */
static __always_inline int outward(frame_t *frame, struct ingress *from, struct arrival *arrival, __u64 owner)
{
	__u32 flags = arrival->entry.flags;
	__u8 shift = arrival->entry.slice_shift;
	const __u16 *link = 0;
	struct realm *realm;
	enum reason refused;
	int tos, turned;

	if (flags & BINDING_CONTACTED || has_other_spi(&arrival->both, true))
		note_contact(owner, &arrival->flow, from->now);
	if (arrival->both.kind == SPI && !arrival->both.quoted)
		note_path(&arrival->flow, arrival->both.protocol, owner);
	if (arrival->inner.raw.ttl <= 1)
		return punt(frame, from, TTL_EXCEEDED);
	if (is_meant(arrival->leads_to, arrival->inner.raw.daddr)) {
		turned = hairpin(frame, from, arrival);
		if (turned != UNDECIDED)
			return turned;
	}
	realm = realm_of(arrival->leads_to);
	if (realm && is_too_big(frame, &arrival->inner, realm->mtu))
		return punt(frame, from, TOO_BIG);
	if (realm && realm->flags & REALM_IPAE &&
	    begins_again(realm->number, arrival->inner.raw.daddr, arrival->inner.raw.protocol))
		return punt(frame, from, NO_ROUTE);
	tos = egress_tos(arrival->outer.raw.tos, arrival->inner.raw.tos);
	if (!ready(frame, realm, arrival->inner.total, arrival->inner.raw.saddr, arrival->inner.raw.daddr, tos, &link))
		return punt(frame, from, NO_ROUTE);
	amend(&arrival->inner, tos, true);
	identify(&arrival->inner, &arrival->both, flags, shift, realm && arrival->inner.total > realm->mtu);
	refused = emerge(frame, from->link, from->over6, &arrival->inner);
	if (refused)
		return refused == PUNTED ? punt(frame, from, NO_ROUTE) : drop(frame, refused);
	return forward(frame, from, realm, &arrival->inner.raw, link, FORWARDED_OUTWARD);
}

/* Give a packet to the programs that use its binding: the host's mirror (RFC 3102 §3.1). */
static __always_inline int deliver_inner(frame_t *frame, struct ingress *from, struct arrival *arrival,
					 const struct endpoint *tunnel)
{
	__u32 device = tunnel->device;
	enum reason refused;
	int tos;

	if (!from || !arrival)
		return FRAME_DROP;
	if (!may_deliver() || is_too_big(frame, &arrival->inner, tunnel->made_for))
		return punt(frame, from, TOO_BIG);
	tos = egress_tos(arrival->outer.raw.tos, arrival->inner.raw.tos);
	amend(&arrival->inner, tos, false);
	refused = emerge(frame, from->link, from->over6, &arrival->inner);
	if (refused)
		return refused == PUNTED ? punt(frame, from, NO_ROUTE) : drop(frame, refused);
	return deliver(frame, from, arrival->leads_to, device, arrival->inner.raw.daddr);
}

/* Say why a host may not send what it sent, or leave it to the reference plane (RFC 3103 §7, §10.4). */
static __noinline int refuse(frame_t *frame, struct ingress *from, struct arrival *arrival, __u64 owner,
			     bool at_gateway)
{
	enum reason refused;

	if (!from || !arrival)
		return FRAME_DROP;
	if (may_be_known(&arrival->flow, arrival->both.protocol))
		return punt(frame, from, NO_ROUTE);
	if (!at_gateway)
		return drop(frame, NOT_OUR_LEASE);
	refused = refusal(&arrival->flow, owner, arrival->inner.raw.saddr, is_error(&arrival->both));
	if (refused == SOURCE_ADDRESS_NOT_LEASED || refused == SOURCE_PORT_NOT_LEASED)
		return violation(frame, from, &arrival->flow, refused);
	return drop(frame, refused);
}

/* Check that the sender of a packet out of a tunnel may use its binding (RFC 3103 §7, §10.4). */
static __always_inline int by_holder(frame_t *frame, struct ingress *from, struct arrival *arrival,
				     const struct endpoint *tunnel, __u64 owner, bool at_gateway)
{
	enum reason refused;
	bool forged;

	if (!at_gateway && has_identifier(&arrival->both))
		return punt(frame, from, NO_ROUTE);
	forged = at_gateway ? is_forged_outward(&arrival->inner, &arrival->both) :
			      is_forged_inward(&arrival->inner, &arrival->both);
	if (!tunnel || owner_of(&arrival->entry, tunnel) != owner || forged)
		return refuse(frame, from, arrival, owner, at_gateway);
	if (arrival->entry.flags & BINDING_ASK)
		return punt(frame, from, NO_ROUTE);
	refused = use(&arrival->entry, tunnel, &arrival->flow, from);
	if (refused && at_gateway && refused != LEASE_EXPIRED)
		return violation(frame, from, &arrival->flow, refused);
	if (refused)
		return drop(frame, refused);
	return at_gateway ? outward(frame, from, arrival, owner) : deliver_inner(frame, from, arrival, tunnel);
}

/* Read a packet out of its tunnel; 0 or why it is dropped or punted, whoever sent it (RFC 2003 §3; RFC 1812 §5.3.7). */
static __always_inline enum reason open(frame_t *frame, struct arrival *arrival, bool at_gateway)
{
	enum reason refused = decapsulate(frame, &arrival->outer, &arrival->inner);

	if (refused)
		return refused;
	if (at_gateway && is_forbidden(arrival->inner.raw.daddr, arrival->inner.raw.protocol))
		return FORBIDDEN_DESTINATION;
	if (at_gateway && is_multicast(arrival->inner.raw.daddr))
		return PUNTED;
	ends(frame, &arrival->inner, &arrival->both);
	orient(&arrival->both, arrival->leads_to, at_gateway ? SOURCE : DESTINATION, &arrival->flow);
	return 0;
}

/*
 * Take a packet out of its tunnel and check that its sender may send it (RFC 3102 §2; RFC 3103 §7, §10.4).
 * Whether the sender is known comes before all that is wrong within, but is asked last: the binding knows it.
 */
static __always_inline int from_tunnel(frame_t *frame, struct ingress *from, struct arrival *arrival,
				       const struct ipv6hdr *outer6, __u32 end)
{
	struct endpoint *tunnel = 0;
	bool at_gateway = end == GATEWAY;
	bool other_spi = false;
	enum reason refused;
	__u64 owner;

	refused = open(frame, arrival, at_gateway);
	if (!refused) {
		other_spi = has_other_spi(&arrival->both, at_gateway);
		if (!other_spi && lookup(&arrival->flow, &arrival->entry, from->now))
			tunnel = endpoint_of(&arrival->entry);
	}
	owner = outer6 ? sender6(from->realm, outer6, &arrival->entry, tunnel) :
			 sender(from->realm, arrival->outer.raw.saddr, &arrival->entry, tunnel);
	if (!owner)
		return at_gateway ? violation(frame, from, 0, UNREGISTERED) : drop(frame, UNKNOWN_TUNNEL_PEER);
	if (refused)
		return refused == PUNTED ? punt(frame, from, FRAGMENT) : drop(frame, refused);
	if (other_spi && lookup_holder(&arrival->flow, owner, &arrival->entry))
		tunnel = endpoint_of(&arrival->entry);
	return by_holder(frame, from, arrival, tunnel, owner, at_gateway);
}

/* Send a packet its way: from a tunnel, toward a binding, or none of ours (RFC 3102 §3.2). */
static __always_inline int decide(frame_t *frame, struct ingress *from, const struct interface *interface,
				  struct arrival *arrival)
{
	struct cursor cursor = { from->link, frame_octets(frame) };
	const struct tunnel_end *tunnel;

	if (!parse_ipv4(frame, cursor, &arrival->outer))
		return pass(frame);
	from->kind = tunnel_kind(arrival->outer.raw.protocol);
	if (from->kind) {
		tunnel = tunnel_end(interface, arrival->outer.raw.daddr);
		if (tunnel) {
			if (!checksum_ok(frame, &arrival->outer))
				return drop(frame, MALFORMED);
			if (is_fragment(&arrival->outer))
				return punt(frame, from, FRAGMENT);
			arrival->leads_to = tunnel->leads_to;
			return from_tunnel(frame, from, arrival, 0, tunnel->end);
		}
	}
	if (is_fragmentation_needed(frame, &arrival->outer) && tunnel_end(interface, arrival->outer.raw.daddr))
		return punt(frame, from, NO_ROUTE);
	if (interface->flags & INTERFACE_TUNNELS_ONLY)
		return pass(frame);
	if (from->end == HOST)
		return from_program(frame, from, &arrival->outer);
	if (is_leased_beyond(interface, arrival->outer.raw.saddr))
		return drop(frame, NOT_TUNNELLED);
	return toward_binding(frame, from, &arrival->outer);
}

/* Read the outer header of a packet of IPv6 into the scratch. */
static __noinline int parse_outer6(frame_t *frame, const struct ingress *from)
{
	struct scratch *mine = this_scratch();
	struct cursor cursor;

	if (!mine || !from)
		return 0;
	cursor.at = from->link;
	cursor.end = frame_octets(frame);
	return parse_ipv6(frame, cursor, &mine->outer, &mine->arrival.outer);
}

/* The same of IPv6, where only what comes from a tunnel is ours (RFC 2473). */
static __noinline int decide6(frame_t *frame, struct ingress *from, const struct interface *interface)
{
	struct scratch *mine = this_scratch();
	const struct tunnel_end *tunnel;
	struct arrival *arrival;
	int protocol;

	if (!mine || !from || !interface)
		return FRAME_DROP;
	arrival = &mine->arrival;
	if (!parse_outer6(frame, from))
		return pass(frame);
	tunnel = tunnel_end6(interface, &mine->outer);
	if (!tunnel)
		return pass(frame);
	if (is_packet_too_big(frame, &arrival->outer))
		return punt(frame, from, NO_ROUTE);
	protocol = arrival->outer.raw.protocol;
	if (!tunnel_kind(protocol))
		protocol = tunnelled6(frame, arrival->outer.at + arrival->outer.header, protocol);
	if (protocol == IPPROTO_FRAGMENT)
		return punt(frame, from, FRAGMENT);
	from->kind = tunnel_kind(protocol);
	from->over6 = true;
	if (!from->kind)
		return pass(frame);
	arrival->leads_to = tunnel->leads_to;
	return from_tunnel(frame, from, arrival, &mine->outer, tunnel->end);
}

#endif
