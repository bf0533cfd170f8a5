/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * The border at XDP: what can be decided to the end before there is a buffer of the IP stack is decided here, by the same
 * headers and the same maps; the rest is left to the program at TC as if nobody had looked at it.
 */
#define ISTHMUS_XDP
#include <linux/bpf.h>
#include <isthmus/border.h>
#include <isthmus/ipae.h>

const struct declared declared = {};
char _license[] SEC("license") = "Dual BSD/GPL";

/* What follows after IPAE, as "programs" at TC; one map cannot have programs of both. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} programs_xdp SEC(".maps");

struct link {
	__u16 to[3];
	__u16 from[3];
	__be16 type;
};

/* Frames for other machines and for many are not ours to forward. */
static __always_inline bool is_for_us(const struct link *link, const struct interface *interface)
{
	return link->to[0] == interface->link_address[0] && link->to[1] == interface->link_address[1] &&
	       link->to[2] == interface->link_address[2];
}

/* Where a frame is from, if it is for us; false if it is TC's, whatever it is. */
static __always_inline bool is_ours(struct xdp_md *frame, const struct interface *interface, struct ingress *from,
				    struct link *link)
{
	struct scratch *mine = this_scratch();

	if (!interface || interface->end == HOST || interface->flags & INTERFACE_BARE || !mine)
		return false;
	if (!load(frame, 0, link, sizeof(*link)) || !is_for_us(link, interface))
		return false;
	from->realm = interface->realm;
	from->now = seconds(mine);
	return true;
}

/* What is RSIP's. */
static __always_inline int rsip(struct xdp_md *frame, struct ingress *from, const struct interface *interface, __be16 type)
{
	struct scratch *mine = this_scratch();

	if (mine && type == bpf_htons(ETH_P_IP))
		return decide(frame, from, interface, &mine->arrival);
	if (type == bpf_htons(ETH_P_IPV6) && interface->first6.end)
		return decide6(frame, from, interface);
	return XDP_PASS;
}

SEC("xdp")
int border(struct xdp_md *frame)
{
	struct interface *interface = interface_of(frame->ingress_ifindex);
	struct ingress from = { .end = GATEWAY, .link = ETH_HLEN };
	struct link link;

	return is_ours(frame, interface, &from, &link) ? rsip(frame, &from, interface, link.type) : XDP_PASS;
}

SEC("xdp")
int ipae(struct xdp_md *frame)
{
	struct interface *interface = interface_of(frame->ingress_ifindex);
	struct ingress from = { .end = GATEWAY, .link = ETH_HLEN };
	struct link link;
	int action;

	if (!is_ours(frame, interface, &from, &link))
		return XDP_PASS;
	action = decide_ipae(frame, &from, link.type);
	if (action != UNDECIDED)
		return action;
	bpf_tail_call(frame, &programs_xdp, 0);
	return XDP_PASS;
}
