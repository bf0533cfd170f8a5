/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * Who sent what in ESP and AH: an ICMP error about it quotes the peer's SPI, which is in no table (RFC 3102 §6.2).
 * Pairs with plane/reference/path.py.
 */
#ifndef ISTHMUS_PATH_H
#define ISTHMUS_PATH_H

#include <isthmus/classify.h>
#include <isthmus/maps.h>

static __always_inline struct path_key path_key(const struct flow *flow, __u32 protocol)
{
	struct path_key key = {
		.realm = flow->realm,
		.local = { flow->local },
		.remote = { flow->remote },
		.protocol = protocol,
		.spi = flow->value,
	};

	return key;
}

/* Whose packet an error quotes; 0 if nobody's. The flow is the error's. */
static __always_inline __u64 path_owner(const struct flow *flow, __u32 protocol)
{
	struct path_key key = path_key(flow, protocol);
	struct path *known = bpf_map_lookup_elem(&paths, &key);

	return known ? known->owner : 0;
}

#endif
