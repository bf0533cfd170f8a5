/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * The table, and the questions that a packet asks of it.
 * Pairs with plane/reference/lookup.py and border/table.py (lookup, lookup_holder, claims).
 */
#ifndef ISTHMUS_LOOKUP_H
#define ISTHMUS_LOOKUP_H

#include <isthmus/path.h>
#include <isthmus/scratch.h>
#include <isthmus/slices.h>

#ifndef IPPROTO_IPIP
#define IPPROTO_IPIP 4
#endif
#ifndef IPPROTO_IPV6
#define IPPROTO_IPV6 41
#endif

static __always_inline bool is_same(const __be32 *one, const __be32 *other)
{
	return one[0] == other[0] && one[1] == other[1] && one[2] == other[2] && one[3] == other[3];
}

static __always_inline struct place place(__be32 realm, __be32 address)
{
	struct place where = { realm, { address, 0, 0, 0 } };

	return where;
}

static __always_inline bool take(struct entry *entry, const struct binding *found)
{
	entry->flags |= found->flags & BINDING_CLAIMED;
	if (!found->endpoint || found->flags & BINDING_ROUTE)
		return false;
	entry->endpoint = found->endpoint;
	entry->deadline = found->deadline;
	entry->flags |= found->flags;
	entry->remote = found->remote[0];
	entry->remote_port = found->remote_port;
	entry->remote_length = found->remote_length;
	return true;
}

static __noinline int by_spi_block(const struct flow *flow, struct entry *entry)
{
	struct spi_key key = { .length = 8 * (sizeof(struct place) + sizeof(key.spi)) };
	struct binding *found;

	if (!flow || !entry)
		return 0;
	key.place = place(flow->realm, flow->local);
	key.spi = bpf_htonl(flow->value);
	found = bpf_map_lookup_elem(&by_spi, &key);
	return found && take(entry, found);
}

static __always_inline bool by_value(const struct flow *flow, struct entry *entry)
{
	struct demux_key key = { .place = place(flow->realm, flow->local), .kind = flow->kind, .value = flow->value };
	struct binding *found = bpf_map_lookup_elem(&by_demux, &key);

	return found && take(entry, found);
}

static __always_inline bool by_address(const struct flow *flow, struct entry *entry)
{
	struct prefix_key key = { .length = 32 + 32, .place = place(flow->realm, flow->local) };
	struct binding *found = bpf_map_lookup_elem(&by_prefix, &key);

	return found && take(entry, found);
}

static __always_inline bool is_claimed_spi(const struct address *address, const struct flow *flow)
{
	return address->flags & ADDRESS_SPIS_CLAIMED && flow->value >= address->spi_first &&
	       flow->value <= address->spi_last;
}

/* Find what no slice says: a call of its own, because it is rare. */
static __noinline int beyond_slices(const struct flow *flow, struct entry *entry, bool in_part)
{
	if (!flow || !entry)
		return 0;
	if (in_part && (flow->kind == SPI ? by_spi_block(flow, entry) : by_value(flow, entry)))
		return 1;
	return by_address(flow, entry);
}

/* Find the way into a realm. */
static __always_inline struct realm *realm_of(__be32 number)
{
	__u32 at = bpf_ntohl(number) % REALMS;
	struct realm *realm = bpf_map_lookup_elem(&realms, &at);

	return realm && realm->number == number ? realm : 0;
}

/* Find the slice of a port at an address of the realm's run; ADDRESS_UNSLICED if it is none. */
static __always_inline __u32 slice_in_run(const struct flow *flow, struct entry *entry)
{
	struct realm *realm = flow->kind == PORT ? realm_of(flow->realm) : 0;
	__u32 nth, shift;

	if (!realm)
		return ADDRESS_UNSLICED;
	nth = bpf_ntohl(flow->local) - realm->run_address;
	if (nth >= realm->run_length)
		return ADDRESS_UNSLICED;
	shift = realm->run_shift & 15;
	entry->slice_shift = shift;
	return realm->run_slice + (nth << (16 - shift)) + ((__u32)flow->value >> shift);
}

/* Find the binding that the local side of a flow belongs to, most specific first (RFC 3102 §3.2). */
static __always_inline bool lookup(const struct flow *flow, struct entry *entry, __u32 now)
{
	struct place key = place(flow->realm, flow->local);
	struct address *address = 0;
	bool in_part = true;
	__u32 number;

	__builtin_memset(entry, 0, sizeof(*entry));
	number = slice_in_run(flow, entry);
	if (number == ADDRESS_UNSLICED) {
		address = flow->kind ? bpf_map_lookup_elem(&addresses, &key) : 0;
		in_part = address;
		if (address)
			entry->slice_shift = address->slice_shift;
		if (address && flow->kind == PORT && address->first_slice != ADDRESS_UNSLICED)
			number = address->first_slice + (flow->value >> (address->slice_shift & 15));
	}
	if (number != ADDRESS_UNSLICED) {
		in_part = !by_block(number, entry, now) && !by_brief(number, entry, now) && !by_slice(number, entry);
		if (entry->endpoint) {
			entry->flags |= BINDING_PORT | BINDING_SLICE;
			return true;
		}
	}
	if (address && flow->kind == SPI && is_claimed_spi(address, flow))
		entry->flags |= BINDING_CLAIMED;
	return beyond_slices(flow, entry, in_part);
}

/* Find by whose right an owner sends ESP or AH, which carry their peer's SPI (RFC 3104 §4). */
static __noinline int lookup_holder(const struct flow *flow, __u64 owner, struct entry *entry)
{
	struct demux_key key = { .kind = HOLDER, .value = owner };
	struct binding *found;

	if (!flow || !entry)
		return 0;
	key.place = place(flow->realm, flow->local);
	__builtin_memset(entry, 0, sizeof(*entry));
	found = bpf_map_lookup_elem(&by_demux, &key);
	if (found)
		return take(entry, found);
	/* Held whole: by this owner or another, which is for the caller to see. */
	return by_address(flow, entry);
}

static __always_inline struct endpoint *endpoint_of(const struct entry *entry)
{
	return bpf_map_lookup_elem(&endpoints, &entry->endpoint);
}

/* The tag of who holds a binding, and the other end of its tunnel; a template has them but for the last bits. */
static __always_inline __u64 owner_of(const struct entry *entry, const struct endpoint *tunnel)
{
	return tunnel->owner | entry->holder;
}

static __always_inline __be32 far_end(const struct entry *entry, const struct endpoint *tunnel)
{
	return tunnel->remote[0] | bpf_htonl(entry->holder);
}

/* The same over IPv6: whether an address is that end. */
static __always_inline bool is_far_end6(const struct entry *entry, const struct endpoint *tunnel, const __be32 *address)
{
	return address[0] == tunnel->remote[0] && address[1] == tunnel->remote[1] && address[2] == tunnel->remote[2] &&
	       address[3] == (tunnel->remote[3] | bpf_htonl(entry->holder));
}

/* The same, and it is this owner's. */
static __always_inline bool is_holder(const struct flow *flow, __u64 owner, struct entry *entry)
{
	struct endpoint *tunnel;

	if (!lookup_holder(flow, owner, entry))
		return false;
	tunnel = endpoint_of(entry);
	return tunnel && owner_of(entry, tunnel) == owner;
}

/* Find by whose right a program of ours sends ESP or AH: that of whomever its address is leased from. */
static __noinline int lookup_any_holder(const struct flow *flow, struct entry *entry)
{
	struct endpoint *one, *other;
	struct entry whole = {};

	if (!flow || !entry || !lookup_holder(flow, 0, entry))
		return 0;
	if (!by_address(flow, &whole))
		return 1;
	/* Leased from two gateways at once, whole from one and in part from another: the reference plane knows the first. */
	one = endpoint_of(entry);
	other = endpoint_of(&whole);
	if (!one || !other || one->owner != other->owner)
		entry->flags |= BINDING_ASK;
	return 1;
}

/*
 * An owner has sent ESP or AH. The first keeps a path while he may send at all, so that nobody takes over another's
 * errors by sending as he does. Written only where it is news: the line is shared between processors.
 */
static __noinline int note_path(const struct flow *flow, __u32 protocol, __u64 owner)
{
	struct path path = { owner };
	struct path_key key;
	struct entry entry;
	__u64 known;

	if (!flow)
		return 0;
	known = path_owner(flow, protocol);
	if (known == owner || (known && is_holder(flow, known, &entry)))
		return 0;
	key = path_key(flow, protocol);
	bpf_map_update_elem(&paths, &key, &path, BPF_ANY);
	return 0;
}

/* Find the binding that an error about ESP or AH belongs to: its owner's who sent that (RFC 3102 §6.2). */
static __noinline int by_path(const struct flow *flow, __u32 protocol, struct entry *entry)
{
	struct address *address;
	struct place key;
	__u64 owner;
	bool whole;

	if (!flow || !entry)
		return 0;
	owner = path_owner(flow, protocol);
	if (owner && is_holder(flow, owner, entry))
		return 1;
	__builtin_memset(entry, 0, sizeof(*entry));
	whole = by_address(flow, entry);
	/* An address that is held whole has one holder only, whoever sent what. */
	if (!owner && whole)
		return 1;
	entry->endpoint = 0;
	key = place(flow->realm, flow->local);
	address = bpf_map_lookup_elem(&addresses, &key);
	if (address && is_claimed_spi(address, flow))
		entry->flags |= BINDING_CLAIMED;
	return 0;
}

/* Find the binding that a packet toward one belongs to (RFC 3102 §3.2, §6.2). */
static __always_inline bool lookup_inward(const struct ends *both, const struct flow *flow, struct entry *entry, __u32 now)
{
	if (flow->kind == SPI && both->quoted)
		return by_path(flow, both->protocol, entry);
	return lookup(flow, entry, now);
}

/* Whether the reference plane may know more of a packet for which nothing was found: cookies, odd claims of SPIs. */
static __noinline int may_be_known(const struct flow *flow, __u32 protocol)
{
	struct address *address;
	struct place key;

	if (!flow || !(flow->kind == SPI || (flow->kind == PORT && flow->value == IKE_PORT && protocol == IPPROTO_UDP)))
		return 0;
	key = place(flow->realm, flow->local);
	address = bpf_map_lookup_elem(&addresses, &key);
	if (!address)
		return 0;
	if (flow->kind == PORT)
		return address->flags & ADDRESS_COOKIES;
	return address->flags & ADDRESS_SPIS_SEVERAL && flow->value >= address->spi_first &&
	       flow->value <= address->spi_last;
}

/* Find where the packets of an interface are. */
static __always_inline struct interface *interface_of(__u32 index)
{
	__u32 at = index % NEAR_INTERFACES;
	struct interface *near = bpf_map_lookup_elem(&near_interfaces, &at);

	if (near && near->index == index)
		return near;
	return bpf_map_lookup_elem(&interfaces, &index);
}

/* Find the tunnel end of ours that an address is (RFC 3103 §8.6). */
static __always_inline const struct tunnel_end *tunnel_end(const struct interface *interface, __be32 address)
{
	struct place key = place(interface->realm, address);

	if (interface->first.end && interface->first_address[0] == address)
		return &interface->first;
	return bpf_map_lookup_elem(&tunnel_ends, &key);
}

/* Find one that is not the realm's first; 0 if it is none. */
static __noinline struct tunnel_end *other_end6(__be32 realm, const struct ipv6hdr *outer)
{
	struct place key = { .realm = realm };

	if (!outer)
		return 0;
	__builtin_memcpy(key.address, &outer->daddr, sizeof(key.address));
	return bpf_map_lookup_elem(&tunnel_ends, &key);
}

static __always_inline const struct tunnel_end *tunnel_end6(const struct interface *interface,
							    const struct ipv6hdr *outer)
{
	if (!interface->first6.end)
		return 0;
	if (is_same(outer->daddr.in6_u.u6_addr32, interface->first6_address))
		return &interface->first6;
	return other_end6(interface->realm, outer);
}

/* What IPAE knows of a realm; null if that is none of the border's. */
static __always_inline struct sip_realm *sip_realm_of(__be32 number)
{
	__u32 at = bpf_ntohl(number) % REALMS;
	struct sip_realm *realm = bpf_map_lookup_elem(&sip_realms, &at);

	return realm && realm->number == number ? realm : 0;
}

/* Whether an IPv4 packet concerns us again in the realm that it goes on into (plane/link/userspace.py, _is_ours). */
static __noinline int begins_again(__be32 realm, __be32 address, __u8 protocol)
{
	struct prefix_key key = { .length = 32 + 32, .place = place(realm, address) };
	struct sip_realm *home;
	struct binding *found;
	struct endpoint *way;

	if ((protocol == IPPROTO_IPIP || protocol == IPPROTO_GRE) && bpf_map_lookup_elem(&tunnel_ends, &key.place))
		return 1;
	home = sip_realm_of(realm);
	found = home && home->translates ? bpf_map_lookup_elem(&by_prefix, &key) : 0;
	if (!found || !(found->flags & BINDING_ROUTE))
		return 0;
	way = bpf_map_lookup_elem(&endpoints, &found->endpoint);
	return way && way->kind == TRANSLATE;
}

/*
 * Find the tag of who sent a tunnelled packet; 0 if that has not registered (RFC 3103 §7). The tunnel that the packet
 * should have come through, if one was found, says so of its own other end: nearly always the answer.
 */
static __always_inline __u64 sender(__be32 realm, __be32 address, const struct entry *entry,
				    const struct endpoint *tunnel)
{
	struct place key = place(realm, address);
	struct owner *owner;

	if (tunnel && (tunnel->flags & (ENDPOINT_REGISTERED | ENDPOINT_IPV6)) == ENDPOINT_REGISTERED &&
	    far_end(entry, tunnel) == address && tunnel->realm == realm)
		/* owner_of(), but known before the binding is: what is done with it need not wait for that. */
		return (__u64)bpf_ntohl(realm) << 32 | bpf_ntohl(address);
	owner = bpf_map_lookup_elem(&owners, &key);
	return owner && owner->registered ? owner->tag : 0;
}

/* Find the tag of an IPv6 address that has registered; 0 if it has not. */
static __noinline __u64 registered6(__be32 realm, const struct ipv6hdr *outer)
{
	struct place key = { .realm = realm };
	struct owner *owner;

	if (!outer)
		return 0;
	__builtin_memcpy(key.address, &outer->saddr, sizeof(key.address));
	owner = bpf_map_lookup_elem(&owners, &key);
	return owner && owner->registered ? owner->tag : 0;
}

static __always_inline __u64 sender6(__be32 realm, const struct ipv6hdr *outer, const struct entry *entry,
				     const struct endpoint *tunnel)
{
	const __u32 registered = ENDPOINT_REGISTERED | ENDPOINT_IPV6;
	const __be32 *address = outer->saddr.in6_u.u6_addr32;

	if (!(address[1] | address[2] | address[3]))
		return 0; /* nobody's, but it would be the key of an IPv4 address */
	if (tunnel && (tunnel->flags & registered) == registered && tunnel->realm == realm &&
	    is_far_end6(entry, tunnel, address))
		return owner_of(entry, tunnel);
	return registered6(realm, outer);
}

/* Whether an address may be meant at all: one word answers for most of those that packets leave to. */
static __always_inline bool may_be_meant(__be32 address)
{
	__u32 block = bpf_ntohl(address) >> 8;
	__u32 bit = (block ^ block >> 8) % MEANT_BITS;
	__u32 at = bit / 64;
	__u64 *word = bpf_map_lookup_elem(&meant, &at);

	return word && *word >> (bit & 63) & 1;
}

/* Whether an address is one of the pools' or bindings', so that its packets are ours (RFC 3102 §3.2). */
static __noinline int is_meant_exactly(__be32 realm, __be32 address)
{
	struct prefix_key key = { .length = 32 + 32, .place = place(realm, address) };
	struct binding *found;

	if (bpf_map_lookup_elem(&addresses, &key.place))
		return 1;
	found = bpf_map_lookup_elem(&by_prefix, &key);
	return found && (found->flags & (BINDING_ROUTE | BINDING_CLAIMED)) != BINDING_ROUTE;
}

static __always_inline bool is_meant(__be32 realm, __be32 address)
{
	return may_be_meant(address) && is_meant_exactly(realm, address);
}

/* Whether tunnels of a realm lead to where an address is leased: then it comes by a tunnel or not at all. */
static __always_inline bool is_leased_beyond(const struct interface *interface, __be32 address)
{
	if (interface->first.end == GATEWAY)
		return is_meant(interface->first.leads_to, address);
	return interface->first6.end == GATEWAY && is_meant(interface->first6.leads_to, address);
}

/* Whether anything of an address is held by value. */
static __always_inline bool is_held_in_part(__be32 realm, __be32 address)
{
	struct place key = place(realm, address);
	struct address *found = bpf_map_lookup_elem(&addresses, &key);

	return found && found->held;
}

/* Whether the deadline of a binding has passed (RFC 3103 §6). */
static __always_inline bool expired(const struct entry *entry, __u32 now)
{
	return entry->deadline <= now && entry->deadline != BINDING_FOREVER;
}

/* Check the peer against the flow policy; 0 if it is allowed (RFC 3103 §7.2, §7.3). */
static __always_inline enum reason remote_limit(const struct entry *entry, const struct flow *flow)
{
	if (entry->flags & BINDING_REMOTE_NETWORK) {
		__u32 mask = 0xffffffff00000000ULL >> (entry->remote_length & 63);

		if (entry->remote_length > 32 || (flow->remote & bpf_htonl(mask)) != entry->remote)
			return REMOTE_ADDRESS_NOT_ALLOWED;
	}
	if (entry->flags & BINDING_REMOTE_PORT &&
	    (!flow->has_remote_port || flow->remote_port != entry->remote_port))
		return REMOTE_PORT_NOT_ALLOWED;
	return 0;
}

/* Whether an owner holds anything of an address: what tells error 313 from 312. */
static __always_inline bool holds_address(__u64 owner, __be32 realm, __be32 address)
{
	struct holding_key key = { .owner = owner, .place = place(realm, address) };
	struct wide_key wide = {
		.length = 64 + 32 + 32,
		.owner_upper = bpf_htonl(owner >> 32),
		.owner_lower = bpf_htonl(owner),
		.place = key.place,
	};

	return bpf_map_lookup_elem(&holdings, &key) || bpf_map_lookup_elem(&wide_holdings, &wide);
}

/* Say why a host may not send what it sent (RFC 3103 §10.4; RFC 3102 §6.2). */
static __noinline int refusal(const struct flow *flow, __u64 owner, __be32 source, bool error)
{
	if (!flow || !holds_address(owner, flow->realm, source))
		return SOURCE_ADDRESS_NOT_LEASED;
	if (error)
		return FORGED_QUOTE;
	if (!flow->kind)
		return NO_DISCRIMINATOR;
	return SOURCE_PORT_NOT_LEASED;
}

#endif
