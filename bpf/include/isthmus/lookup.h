/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * The table, and the questions that a packet asks of it.
 * Pairs with plane/reference/lookup.py and border/table.py (lookup, claims).
 */
#ifndef ISTHMUS_LOOKUP_H
#define ISTHMUS_LOOKUP_H

#include <isthmus/classify.h>
#include <isthmus/maps.h>

/* A binding as it was found. */
struct entry {
	__u32 endpoint;
	__u32 deadline;
	__u32 flags;  /* enum binding_flag; BINDING_CLAIMED counts also where nothing was found */
	__be32 remote;
	__u16 remote_port;
	__u8 remote_length;
	__u8 padding;
};

/*
 * Seconds of the clock that deadlines are in, CLOCK_BOOTTIME. Reading it costs a fifth of a packet, so it is read once
 * per tick. Ticks do not count while a machine sleeps; the first one afterwards reads the clock.
 */
static __always_inline __u32 seconds(void)
{
	__u32 zero = 0, tick = bpf_jiffies64(), now;
	__u64 *kept = bpf_map_lookup_elem(&clock, &zero);
	__u64 word = kept ? *kept : 0;

	if (word && word >> 32 == tick)
		return word;
	now = bpf_ktime_get_boot_ns() / 1000000000;
	if (kept)
		*kept = (__u64)tick << 32 | now;
	return now;
}

static __always_inline struct place place(__be32 realm, __be32 address)
{
	struct place where = { realm, { address, 0, 0, 0 } };

	return where;
}

static __always_inline bool take(struct entry *entry, const struct binding *found)
{
	entry->flags |= found->flags & BINDING_CLAIMED;
	if (!found->endpoint)
		return false;
	entry->endpoint = found->endpoint;
	entry->deadline = found->deadline;
	entry->flags |= found->flags;
	entry->remote = found->remote[0];
	entry->remote_port = found->remote_port;
	entry->remote_length = found->remote_length;
	return true;
}

/* Find whose the slice of a port is; true if there is no more to ask than who holds its address whole. */
static __always_inline bool by_slice(const struct flow *flow, const struct address *address, struct entry *entry)
{
	__u32 number = address->first_slice + (flow->value >> (address->slice_shift & 15));
	__u64 *slot = bpf_map_lookup_elem(&slices, &number);
	__u64 word = slot ? *(volatile __u64 *)slot : 0;

	entry->flags = word & SLICE_CLAIMED;
	if (word & SLICE_SPLIT)
		return false;
	entry->endpoint = word >> SLICE_ENDPOINT_SHIFT & SLICE_ENDPOINT_MASK;
	entry->deadline = word >> SLICE_DEADLINE_SHIFT;
	entry->flags |= word & SLICE_CONTACTED;
	return true;
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

/* Find what no slice says: a call of its own, because it is rare. */
static __noinline int beyond_slices(const struct flow *flow, struct entry *entry, bool in_part)
{
	if (!flow || !entry)
		return 0;
	return (in_part && by_value(flow, entry)) || by_address(flow, entry);
}

/* Find the binding that the local side of a flow belongs to, most specific first (RFC 3102 §3.2). */
static __always_inline bool lookup(const struct flow *flow, struct entry *entry)
{
	struct place key = place(flow->realm, flow->local);
	struct address *address = flow->kind ? bpf_map_lookup_elem(&addresses, &key) : 0;
	bool in_part = address;

	__builtin_memset(entry, 0, sizeof(*entry));
	if (address && flow->kind == PORT && address->first_slice != ADDRESS_UNSLICED) {
		in_part = !by_slice(flow, address, entry);
		if (entry->endpoint)
			return true;
	}
	if (address && flow->kind == SPI && address->flags & ADDRESS_SPIS_CLAIMED &&
	    flow->value >= address->spi_first && flow->value <= address->spi_last)
		entry->flags |= BINDING_CLAIMED;
	return beyond_slices(flow, entry, in_part);
}

/* Find the tunnel end of ours that an address is (RFC 3103 §8.6). */
static __always_inline const struct tunnel_end *tunnel_end(const struct interface *interface, __be32 address)
{
	struct place key = place(interface->realm, address);

	if (interface->first.end && interface->first_address[0] == address)
		return &interface->first;
	return bpf_map_lookup_elem(&tunnel_ends, &key);
}

/* Find the way into a realm. */
static __always_inline struct realm *realm_of(__be32 number)
{
	__u32 at = bpf_ntohl(number) % REALMS;
	struct realm *realm = bpf_map_lookup_elem(&realms, &at);

	return realm && realm->number == number ? realm : 0;
}

/*
 * Find the tag of who sent a tunnelled packet; 0 if that has not registered (RFC 3103 §7). The tunnel that the packet
 * should have come through, if one was found, says so of its own other end: nearly always the answer.
 */
static __always_inline __u32 sender(__be32 realm, __be32 address, const struct endpoint *tunnel)
{
	struct place key = place(realm, address);
	struct owner *owner;

	if (tunnel && tunnel->flags & ENDPOINT_REGISTERED && tunnel->remote[0] == address && tunnel->realm == realm)
		return tunnel->owner;
	owner = bpf_map_lookup_elem(&owners, &key);
	return owner && owner->registered ? owner->tag : 0;
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

	return bpf_map_lookup_elem(&addresses, &key.place) || bpf_map_lookup_elem(&by_prefix, &key);
}

static __always_inline bool is_meant(__be32 realm, __be32 address)
{
	return may_be_meant(address) && is_meant_exactly(realm, address);
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
static __always_inline bool holds_address(__u32 owner, __be32 realm, __be32 address)
{
	struct holding_key key = { .length = 32 + 32 + 32, .owner = owner, .place = place(realm, address) };

	return bpf_map_lookup_elem(&holdings, &key);
}

/* Say why a host may not send what it sent (RFC 3103 §10.4; RFC 3102 §6.2). */
static __always_inline enum reason refusal(const struct flow *flow, __u32 owner, __be32 source, bool error)
{
	if (!holds_address(owner, flow->realm, source))
		return SOURCE_ADDRESS_NOT_LEASED;
	if (error)
		return FORGED_QUOTE;
	if (!flow->kind)
		return NO_DISCRIMINATOR;
	return SOURCE_PORT_NOT_LEASED;
}

#endif
