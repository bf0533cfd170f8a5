/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * What IPAE asks of the table: routes, images, mappings (RFC 8507 §4.2; seed IPAE 5.1; spec 2.4).
 * Pairs with plane/reference/images.py, border/table.py (route, known_as) and border/mapping.py.
 */
#ifndef ISTHMUS_IMAGES_H
#define ISTHMUS_IMAGES_H

#include <isthmus/lookup.h>
#include <isthmus/sip.h>

/* address.py Family */
#define FAMILY_IPV4 4
#define FAMILY_IPV6 6
#define FAMILY_SIP 8

static __always_inline struct rules *the_rules(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&rules, &zero);
}

static __always_inline __u32 rule_flags(void)
{
	struct rules *found = the_rules();

	return found ? found->flags : RULE_SLOW;
}

/* Whether one of our own addresses may have this number; most have not, and then there is nothing to look up. */
static __always_inline bool may_be_own(__u64 known, __be32 number)
{
	return known >> (bpf_ntohl(number) * OWN_FACTOR >> 26) & 1;
}

/*
 * The SIP realm that an end of IPAE datagrams leads to, 0 if the address is ours otherwise; null if it is none of ours
 * (seed IPAE 5.3).
 */
static __always_inline __be32 *sip_end(__be32 realm, __be32 address)
{
	struct place key = place(realm, address);
	struct rules *known = the_rules();

	return known && may_be_own(known->ends, address) ? bpf_map_lookup_elem(&sip_ends, &key) : 0;
}

static __always_inline bool is_node(__be32 realm, const __be32 *address)
{
	struct place key = { .realm = realm, .address = { address[0], address[1] } };
	struct rules *known = the_rules();

	return known && may_be_own(known->nodes, address[1]) && bpf_map_lookup_elem(&nodes, &key);
}

/* Whether the IPv4 of a site is one of our realms. */
static __always_inline bool is_site(__be32 site)
{
	struct rules *known = the_rules();

	return known && may_be_own(known->sites, site) && bpf_map_lookup_elem(&sites, &site);
}

/* Whether an address lies in the site of another realm than the one its packet came in (spec 9.4). */
static __always_inline bool is_of_another_site(__be32 realm, const __be32 *address)
{
	struct sip_realm *home = sip_realm_of(realm);
	__be32 site = site_of(address);

	return !(home && home->site == site) && is_site(site);
}

/* Ask by_prefix for the binding of an address; null if there is none. */
static __noinline struct binding *look_up_route(__be32 realm, const __be32 *address)
{
	struct prefix_key key = { .length = 32 + 64 };
	struct binding *found;

	key.place.realm = realm;
	key.place.address[0] = address[0];
	key.place.address[1] = address[1];
	found = bpf_map_lookup_elem(&by_prefix, &key);
	return found && found->endpoint ? found : 0;
}

/*
 * The binding of an address by longest prefix; null if there is none. Where no prefix goes into the lower half the answer
 * is that of every address with this upper half, and kept until by_prefix changes.
 */
static __always_inline struct binding *route(__be32 realm, const __be32 *address)
{
	__u32 changes, at = bpf_ntohl(address[0]) * OWN_FACTOR >> 24;
	struct route *kept = bpf_map_lookup_elem(&routes, &at);
	struct sip_realm *home = sip_realm_of(realm);
	struct rules *known = the_rules();
	struct binding *found;

	if (!kept || !home || !known || may_be_own(home->deep, address[0]))
		return look_up_route(realm, address);
	changes = *(volatile __u32 *)&known->changes;
	if (kept->changes == changes && kept->realm == realm && kept->upper == address[0] && kept->binding.endpoint)
		return &kept->binding;
	found = look_up_route(realm, address);
	if (!found)
		return 0;
	kept->changes = changes;
	kept->realm = realm;
	kept->upper = address[0];
	kept->binding.endpoint = found->endpoint;
	kept->binding.deadline = found->deadline;
	kept->binding.flags = found->flags;
	return kept->binding.endpoint ? &kept->binding : 0;
}

static __always_inline struct binding *route4(__be32 realm, __be32 address)
{
	struct prefix_key key = { .length = 32 + 32, .place = place(realm, address) };
	struct binding *found = bpf_map_lookup_elem(&by_prefix, &key);

	return found && found->endpoint ? found : 0;
}

static __always_inline struct binding *route6(__be32 realm, const struct in6_addr *address)
{
	struct prefix_key key = { .length = 32 + 128 };
	struct binding *found;

	key.place.realm = realm;
	__builtin_memcpy(key.place.address, address, sizeof(*address));
	found = bpf_map_lookup_elem(&by_prefix, &key);
	return found && found->endpoint ? found : 0;
}

/* How a route goes on, if it is of that kind. */
static __always_inline struct endpoint *crossing(const struct binding *found)
{
	if (!found || !(found->flags & BINDING_ROUTE))
		return 0;
	return bpf_map_lookup_elem(&endpoints, &found->endpoint);
}

static __always_inline bool is_over(const struct binding *found, __u32 now)
{
	return found->deadline <= now && found->deadline != BINDING_FOREVER;
}

/* By which image a SIP address is known in a realm; null if by none. */
static __always_inline struct known *known_sip(__be32 realm, __be32 other, const __be32 *address)
{
	struct image_key key = { .length = 64 + 64, .realm = realm };

	key.image.realm = other;
	key.image.address[0] = address[0];
	key.image.address[1] = address[1];
	return bpf_map_lookup_elem(&by_image, &key);
}

static __always_inline struct known *known_ipv4(__be32 realm, __be32 other, __be32 address)
{
	struct image_key key = { .length = 64 + 32, .realm = realm, .image = place(other, address) };

	return bpf_map_lookup_elem(&by_image, &key);
}

/* The bits of an address that a prefix of so many leaves. */
static __always_inline __u64 kept(__u64 number, __u32 bits, __u32 length)
{
	__u32 rest = bits - length;

	if (rest > 63)
		return number;
	return number & ((1ULL << rest) - 1);
}

/* A SIP address that begins like a prefix, and ends like a number. */
static __always_inline void join(__be32 *to, const __be32 *prefix, __u32 length, __u64 end)
{
	__u64 whole = number(prefix) | kept(end, 64, length);

	to[0] = bpf_htonl(whole >> 32);
	to[1] = bpf_htonl(whole);
}

static __always_inline __be32 join4(__be32 prefix, __u32 length, __u64 end)
{
	return prefix | bpf_htonl(kept(end, 32, length));
}

static __always_inline __u32 mapping_word(__u32 which, __u32 at)
{
	void *table = bpf_map_lookup_elem(&mappings, &which);
	__u32 block = at / MAPPING_WORDS;
	struct words *words;

	if (!table)
		return 0;
	words = bpf_map_lookup_elem(table, &block);
	return words ? *(volatile __u32 *)&words->word[at % MAPPING_WORDS] : 0;
}

/* The upper half of the SIP address of an IPv4 address by the mapping of its realm; 0: not mapped (seed IPAE 5.1). */
static __always_inline __u32 mapped(const struct sip_realm *realm, __be32 address)
{
	__u32 octets = bpf_ntohl(address), word;

	if (!realm->mapping)
		return 0;
	word = mapping_word(2 * realm->mapping, octets >> 8);
	if (word >> 24 == MAPPING_POINTER)
		word = mapping_word(2 * realm->mapping + 1, (word & 0xffffff) * MAPPING_WORDS + (octets & 0xff));
	return word;
}

/* Whom an IPv4 address stands for: by a binding, or else by the mapping (seed IPAE 5.1; erratum E4). */
struct target {
	__be32 realm; /* the SIP realm */
	__be32 address[2];
	bool over; /* the deadline of the binding has passed */
};

static __always_inline bool target(const struct ingress *from, __be32 address, bool ours, struct target *found)
{
	struct sip_realm *home = sip_realm_of(from->realm);
	struct binding *bound = 0;
	struct endpoint *way;
	__u32 upper;

	if (!home || home->translates || may_be_meant(address))
		bound = route4(from->realm, address);
	if (bound) {
		way = crossing(bound);
		if (!way || way->kind != TRANSLATE || way->family != FAMILY_SIP)
			return false;
		found->realm = way->realm;
		found->over = is_over(bound, from->now);
		join(found->address, way->local, way->image, bpf_ntohl(address));
		return true;
	}
	if (ours)
		return false;
	upper = home ? mapped(home, address) : 0;
	/* What the mapping says is our own site's is routed as IPv4 (spec 6.2). */
	if (!upper || (upper & ~C_BIT) == bpf_ntohl(home->site))
		return false;
	found->realm = home->mapped_to;
	found->over = false;
	found->address[0] = bpf_htonl(upper);
	found->address[1] = address;
	return true;
}

/* By which SIP address a system of IPv4 is known (seed IPAE 5.1); false: by none. */
static __always_inline bool in_sip(__be32 sip, __be32 realm, __be32 address, __be32 *found)
{
	struct sip_realm *home = sip_realm_of(realm);
	struct known *image;

	if (home && home->known_as && home->known_in == sip) {
		found[0] = home->known_as;
		found[1] = address;
		return true;
	}
	image = known_ipv4(sip, realm, address);
	if (image)
		join(found, image->address, image->length, bpf_ntohl(address));
	return image;
}

/* By which IPv4 address a SIP system is known in a realm (seed IPAE 5.2; spec 8.3); false: by none. */
static __always_inline bool in_ipv4(__be32 realm, __be32 sip, const __be32 *address, __be32 *found)
{
	struct sip_realm *home = sip_realm_of(realm);
	struct known *image = 0;
	__u32 upper;

	*found = address[1];
	/* What has an image has it by a binding that leads from this realm. */
	if (!home || home->translates)
		image = known_sip(realm, sip, address);
	if (image) {
		*found = join4(image->address[0], image->length, number(address));
		return true;
	}
	if (!home)
		return false;
	if (home->foreign == FOREIGN_LOW || (home->site && home->site == site_of(address)))
		return true;
	upper = mapped(home, address[1]);
	return upper && (upper & ~C_BIT) == bpf_ntohl(site_of(address));
}

#endif
