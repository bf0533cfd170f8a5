/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * The ways that a packet leaves the path, each counted by its reason. drop() is the only way
 * to drop. Pairs with border/verdict.py.
 */
#ifndef ISTHMUS_VERDICT_H
#define ISTHMUS_VERDICT_H

#include <stddef.h>
#include <isthmus/lookup.h>
#include <isthmus/next_hop.h>

#define PUNTED_FROM 0x0669 /* locally administered; plane/link/packet.py */
#define EVENTS_PER_SECOND 1000 /* on each processor */

/* Count a packet, and leave a note of what was decided for tests and tracing: realm, and reason plus one. */
static __always_inline void count(frame_t *frame, __be32 realm, enum reason why)
{
	__u32 number = why;
	__u64 *packets = bpf_map_lookup_elem(&counters, &number);

	if (packets)
		*packets += 1;
	note(frame, realm, why);
}

static __noinline int drop(frame_t *frame, enum reason why)
{
	count(frame, 0, why);
	return FRAME_DROP;
}

/* Whether one more event may be told of in this second. */
static __always_inline bool may_tell(__u32 now)
{
	struct limit *limit;
	__u32 zero = 0;

	limit = bpf_map_lookup_elem(&limited, &zero);
	if (!limit)
		return false;
	if (limit->second != now) {
		limit->second = now;
		limit->told = 0;
	}
	return limit->told++ < EVENTS_PER_SECOND;
}

/* Tell the protocol of a violation, and drop the packet (RFC 3103 §10.4). */
static __noinline int violation(frame_t *frame, const struct ingress *from, const struct flow *flow,
				enum reason why)
{
	struct event *event;

	if (!from || !may_tell(from->now))
		return drop(frame, why);
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return drop(frame, why);
	__builtin_memset(event, 0, sizeof(*event));
	event->reason = why;
	event->realm = from->realm;
	if (from->over6)
		fetch(frame, from->link + offsetof(struct ipv6hdr, saddr), event->owner, 16);
	else
		fetch(frame, from->link + offsetof(struct iphdr, saddr), event->owner, 4);
	event->tunnel_kind = from->kind;
	event->flags = from->over6 ? EVENT_IPV6 : 0;
	if (flow) {
		event->flags |= EVENT_FLOW | (flow->has_remote_port ? EVENT_REMOTE_PORT : 0);
		event->flow_realm = flow->realm;
		event->kind = flow->kind;
		event->value = flow->value;
		event->local[0] = flow->local;
		event->remote[0] = flow->remote;
		event->remote_port = flow->remote_port;
	}
	bpf_ringbuf_submit(event, 0);
	return drop(frame, why);
}

#ifdef ISTHMUS_XDP
#include <isthmus/leave_xdp.h>
#else
#include <isthmus/leave_tc.h>
#endif

#endif
