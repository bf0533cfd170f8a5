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
#include <isthmus/lookup.h>
#include <isthmus/tunnel.h>
#include <isthmus/verdict.h>

/* A packet that came out of a tunnel, and how. */
struct arrival {
	struct ipv4 outer;
	struct ipv4 inner;
	struct ends both;
	struct flow flow;
	struct entry entry;
	__be32 leads_to;
};

static __always_inline struct endpoint *endpoint_of(const struct entry *entry)
{
	return bpf_map_lookup_elem(&endpoints, &entry->endpoint);
}

/* Check deadline and peer of a packet toward a binding; 0 if it may go on (RFC 3103 §6, §7.2). */
static __always_inline enum reason admission(const struct entry *entry, const struct endpoint *tunnel,
					     const struct flow *flow, __u32 now)
{
	enum reason refused;

	if (expired(entry, now))
		return LEASE_EXPIRED;
	refused = remote_limit(entry, flow);
	if (!refused && entry->flags & BINDING_CONTACTED && !knows_contact(tunnel->owner, flow, now))
		return NOT_CONTACTED;
	return refused;
}

/* Check deadline, peer, TTL and size, and put a packet into its tunnel (RFC 3103 §6, §7.2; RFC 2003 §3.1). */
static __always_inline int inward(struct __sk_buff *skb, struct ingress *from, struct ipv4 *packet,
			     const struct flow *flow, const struct entry *entry)
{
	struct endpoint *tunnel;
	enum reason refused;
	struct outer outer;

	if (!from || !packet || !flow || !entry)
		return TC_ACT_SHOT;
	tunnel = endpoint_of(entry);
	if (!tunnel)
		return drop(skb, NO_BINDING);
	refused = admission(entry, tunnel, flow, from->now);
	if (refused)
		return drop(skb, refused);
	if (packet->raw.ttl <= 1)
		return punt(skb, from, TTL_EXCEEDED);
	if (wire_octets(skb, packet) > tunnel->mtu)
		return forbids_fragments(packet) ? punt(skb, from, TOO_BIG) : drop(skb, TOO_BIG);
	if (!amend(skb, packet, packet->raw.tos, true) || !encapsulate(skb, from->link, packet, tunnel, &outer))
		return drop(skb, MALFORMED);
	return forward(skb, from, tunnel->realm, &outer.ip, FORWARDED_INWARD);
}

/* Take a packet from outside to the holder of its destination (RFC 3102 §3.2, §6.2; RFC 3103 §7.3). */
static __noinline int toward_binding(struct __sk_buff *skb, struct ingress *from, struct ipv4 *packet)
{
	struct entry entry;
	struct ends both;
	struct flow flow;

	if (!from || !packet)
		return TC_ACT_SHOT;
	/* Deviation: RFC 3102 §3.1 and §6.3 want fragments reassembled. */
	if (is_fragment(packet) || is_cut_off(packet)) {
		if (!is_meant(from->realm, packet->raw.daddr))
			return pass(skb);
		return drop(skb, is_fragment(packet) ? FRAGMENT : MALFORMED);
	}
	ends(skb, packet, &both);
	if (is_request(&both))
		return pass(skb);
	if (is_forged_inward(packet, &both))
		return is_meant(from->realm, packet->raw.daddr) ? drop(skb, FORGED_QUOTE) : pass(skb);
	orient(&both, from->realm, DESTINATION, &flow);
	if (!lookup(&flow, &entry))
		return entry.flags & BINDING_CLAIMED ? drop(skb, NO_BINDING) : pass(skb);
	if (!checksum_ok(skb, packet))
		return drop(skb, MALFORMED);
	return inward(skb, from, packet, &flow, &entry);
}

/* Take a packet of one of our own programs to the gateway: the host's mirror (RFC 3102 §2; RFC 3103 §7). */
static __noinline int from_program(struct __sk_buff *skb, struct ingress *from, struct ipv4 *packet)
{
	struct endpoint *tunnel;
	enum reason refused;
	struct outer outer;
	struct entry entry;
	struct ends both;
	struct flow flow;

	if (!from || !packet)
		return TC_ACT_SHOT;
	if (is_fragment(packet))
		return drop(skb, FRAGMENT);
	if (is_cut_off(packet))
		return drop(skb, MALFORMED);
	ends(skb, packet, &both);
	orient(&both, from->realm, SOURCE, &flow);
	if (!lookup(&flow, &entry))
		return drop(skb, is_held_in_part(flow.realm, flow.local) ? SOURCE_PORT_NOT_LEASED :
									   SOURCE_ADDRESS_NOT_LEASED);
	tunnel = endpoint_of(&entry);
	if (!tunnel)
		return drop(skb, SOURCE_ADDRESS_NOT_LEASED);
	if (expired(&entry, from->now))
		return drop(skb, LEASE_EXPIRED);
	refused = remote_limit(&entry, &flow);
	if (refused)
		return drop(skb, refused);
	if (wire_octets(skb, packet) > tunnel->mtu)
		return drop(skb, TOO_BIG);
	if (!encapsulate(skb, from->link, packet, tunnel, &outer))
		return drop(skb, MALFORMED);
	return forward(skb, from, tunnel->realm, &outer.ip, FORWARDED_OUTWARD);
}

/* Check deadline, tunnel type and peer of a tunnelled packet; 0 if all is well (RFC 3103 §6, §7.2, §10.4). */
static __always_inline enum reason use(const struct entry *entry, const struct endpoint *tunnel,
				       const struct flow *flow, __u32 kind, __u32 now)
{
	if (expired(entry, now))
		return LEASE_EXPIRED;
	if (kind != tunnel->kind)
		return WRONG_TUNNEL_TYPE;
	return remote_limit(entry, flow);
}

/*
 * Turn a packet round to another of our hosts (RFC 3102 §6.7).
 * TC_ACT_UNSPEC if its destination is not one's. What was found of the sender is overwritten.
 */
static __noinline int hairpin(struct __sk_buff *skb, struct ingress *from, struct arrival *arrival)
{
	struct endpoint *tunnel;
	enum reason refused;
	struct outer outer;
	int tos;

	if (!from || !arrival)
		return TC_ACT_SHOT;
	if (is_request(&arrival->both))
		return drop(skb, NO_BINDING);
	if (is_forged_inward(&arrival->inner, &arrival->both))
		return drop(skb, FORGED_QUOTE);
	orient(&arrival->both, arrival->leads_to, DESTINATION, &arrival->flow);
	if (!lookup(&arrival->flow, &arrival->entry))
		return arrival->entry.flags & BINDING_CLAIMED ? drop(skb, NO_BINDING) : TC_ACT_UNSPEC;
	tunnel = endpoint_of(&arrival->entry);
	if (!tunnel)
		return drop(skb, NO_BINDING);
	refused = admission(&arrival->entry, tunnel, &arrival->flow, from->now);
	if (refused)
		return drop(skb, refused);
	if (wire_octets(skb, &arrival->inner) > tunnel->mtu)
		return forbids_fragments(&arrival->inner) ? punt(skb, from, TOO_BIG) : drop(skb, TOO_BIG);
	/* A large segment is marked with the tunnel type it came in, and Linux cannot mark it anew: the port cuts it up. */
	if (skb->gso_size && tunnel->kind != from->kind)
		return punt(skb, from, TOO_BIG);
	tos = egress_tos(arrival->outer.raw.tos, arrival->inner.raw.tos);
	if (!amend(skb, &arrival->inner, tos, true) ||
	    !encapsulate(skb, from->link, &arrival->inner, tunnel, &outer))
		return drop(skb, MALFORMED);
	return forward(skb, from, tunnel->realm, &outer.ip, FORWARDED_INWARD);
}

/* Let a host's packet out into the realm that its source is leased from (RFC 3102 §2; RFC 2003 §3). */
static __always_inline int outward(struct __sk_buff *skb, struct ingress *from, struct arrival *arrival, __u32 owner)
{
	int tos, turned;

	if (!from || !arrival)
		return TC_ACT_SHOT;
	note_contact(owner, &arrival->flow, from->now);
	if (arrival->inner.raw.ttl <= 1)
		return punt(skb, from, TTL_EXCEEDED);
	if (is_meant(arrival->leads_to, arrival->inner.raw.daddr)) {
		turned = hairpin(skb, from, arrival);
		if (turned != TC_ACT_UNSPEC)
			return turned;
	}
	tos = egress_tos(arrival->outer.raw.tos, arrival->inner.raw.tos);
	if (!amend(skb, &arrival->inner, tos, true) || !emerge(skb, from->link, &arrival->inner))
		return drop(skb, MALFORMED);
	return forward(skb, from, arrival->leads_to, &arrival->inner.raw, FORWARDED_OUTWARD);
}

/* Give a packet to the programs that use its binding: the host's mirror (RFC 3102 §3.1). */
static __always_inline int deliver_inner(struct __sk_buff *skb, struct ingress *from, struct arrival *arrival, __u32 device)
{
	int tos;

	if (!from || !arrival)
		return TC_ACT_SHOT;
	tos = egress_tos(arrival->outer.raw.tos, arrival->inner.raw.tos);
	if (!amend(skb, &arrival->inner, tos, false) || !emerge(skb, from->link, &arrival->inner))
		return drop(skb, MALFORMED);
	return deliver(skb, from, arrival->leads_to, device, arrival->inner.raw.daddr);
}

/* Check that the sender of a packet out of a tunnel may use its binding (RFC 3103 §7, §10.4). */
static __always_inline int by_holder(struct __sk_buff *skb, struct ingress *from, struct arrival *arrival,
				     const struct endpoint *tunnel, __u32 owner, bool at_gateway)
{
	enum reason refused;
	bool forged, reported;

	forged = at_gateway ? is_forged_outward(&arrival->inner, &arrival->both) :
			      is_forged_inward(&arrival->inner, &arrival->both);
	if (!tunnel || tunnel->owner != owner || forged) {
		if (!at_gateway)
			return drop(skb, NOT_OUR_LEASE);
		refused = refusal(&arrival->flow, owner, arrival->inner.raw.saddr, is_error(&arrival->both));
		reported = refused == SOURCE_ADDRESS_NOT_LEASED || refused == SOURCE_PORT_NOT_LEASED;
	} else {
		refused = use(&arrival->entry, tunnel, &arrival->flow, from->kind, from->now);
		reported = at_gateway && refused != LEASE_EXPIRED;
	}
	if (refused && reported)
		return violation(skb, from, &arrival->flow, refused);
	if (refused || !tunnel)
		return drop(skb, refused);
	return at_gateway ? outward(skb, from, arrival, owner) : deliver_inner(skb, from, arrival, tunnel->device);
}

/* Read a packet out of its tunnel; 0 or why it is dropped, whoever sent it (RFC 2003 §3; RFC 1812 §5.3.7). */
static __always_inline enum reason open(struct __sk_buff *skb, struct arrival *arrival, bool at_gateway)
{
	enum reason refused = decapsulate(skb, &arrival->outer, &arrival->inner);

	if (refused)
		return refused;
	if (at_gateway && is_no_host(arrival->inner.raw.daddr))
		return FORBIDDEN_DESTINATION;
	ends(skb, &arrival->inner, &arrival->both);
	orient(&arrival->both, arrival->leads_to, at_gateway ? SOURCE : DESTINATION, &arrival->flow);
	return 0;
}

/*
 * Take a packet out of its tunnel and check that its sender may send it (RFC 3102 §2; RFC 3103 §7, §10.4).
 * Whether the sender is known comes before all that is wrong within, but is asked last: the binding knows it.
 */
static __always_inline int from_tunnel(struct __sk_buff *skb, struct ingress *from, struct arrival *arrival, __u32 end)
{
	struct endpoint *tunnel = 0;
	bool at_gateway = end == GATEWAY;
	enum reason refused;
	__u32 owner;

	if (!checksum_ok(skb, &arrival->outer))
		return drop(skb, MALFORMED);
	if (is_fragment(&arrival->outer))
		return drop(skb, FRAGMENT);
	refused = open(skb, arrival, at_gateway);
	if (!refused && lookup(&arrival->flow, &arrival->entry))
		tunnel = endpoint_of(&arrival->entry);
	owner = sender(from->realm, arrival->outer.raw.saddr, tunnel);
	if (!owner)
		return at_gateway ? violation(skb, from, 0, UNREGISTERED) : drop(skb, UNKNOWN_TUNNEL_PEER);
	if (refused)
		return drop(skb, refused);
	return by_holder(skb, from, arrival, tunnel, owner, at_gateway);
}

/* Send a packet its way: from a tunnel, toward a binding, or none of ours (RFC 3102 §3.2). */
static __always_inline int decide(struct __sk_buff *skb, struct ingress *from, const struct interface *interface)
{
	struct cursor cursor = { from->link, skb->len };
	const struct tunnel_end *tunnel;
	struct arrival arrival = {};

	if (!parse_ipv4(skb, cursor, &arrival.outer))
		return pass(skb);
	from->sender = arrival.outer.raw.saddr;
	from->kind = tunnel_kind(&arrival.outer);
	if (from->kind) {
		tunnel = tunnel_end(interface, arrival.outer.raw.daddr);
		if (tunnel) {
			arrival.leads_to = tunnel->leads_to;
			return from_tunnel(skb, from, &arrival, tunnel->end);
		}
	}
	if (from->end == HOST)
		return from_program(skb, from, &arrival.outer);
	return toward_binding(skb, from, &arrival.outer);
}

#endif
