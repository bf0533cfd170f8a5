/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * The border at TC: one program for every interface; the map "interfaces" says which realm each leads into. Where there
 * are SIP realms it is "ipae", which leaves to "border" what is none of its own.
 */
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <isthmus/border.h>
#include <isthmus/ipae.h>

const struct declared declared = {};
char _license[] SEC("license") = "Dual BSD/GPL";

/*
 * Whether a program of ours sends to a group. Its frame becomes one for us: bpf_redirect_neigh drops frames for
 * many, whatever the packet is by then.
 */
static __always_inline bool is_for_many(struct __sk_buff *skb, const struct interface *interface)
{
	static const __u8 nobody[ETH_ALEN];

	if (interface->end != HOST || skb->pkt_type == PACKET_OTHERHOST)
		return false;
	return interface->flags & INTERFACE_BARE || bpf_skb_store_bytes(skb, 0, nobody, sizeof(nobody), 0) == 0;
}

SEC("tc")
int border(struct __sk_buff *skb)
{
	struct interface *interface = interface_of(skb->ifindex);
	struct ingress from = {};
	struct scratch *mine;

	if (!interface)
		return TC_ACT_UNSPEC;
	/* Frames for other machines (promiscuous, flooded) and for many are not ours to forward, but for a program's. */
	if (skb->pkt_type != PACKET_HOST && skb->pkt_type != PACKET_OUTGOING && !is_for_many(skb, interface))
		return pass(skb);
	mine = this_scratch();
	if (!mine || skb->vlan_present)
		return pass(skb);
	from.realm = interface->realm;
	from.end = interface->end;
	from.link = interface->flags & INTERFACE_BARE ? 0 : ETH_HLEN;
	from.now = seconds(mine);
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return decide(skb, &from, interface, &mine->arrival);
	if (skb->protocol == bpf_htons(ETH_P_IPV6) && interface->first6.end)
		return decide6(skb, &from, interface);
	return pass(skb);
}

SEC("tc")
int ipae(struct __sk_buff *skb)
{
	struct interface *interface = interface_of(skb->ifindex);
	struct ingress from = {};
	struct scratch *mine;
	int action = UNDECIDED;

	if (!interface)
		return TC_ACT_UNSPEC;
	mine = this_scratch();
	if (mine && !skb->vlan_present && (skb->pkt_type == PACKET_HOST || skb->pkt_type == PACKET_OUTGOING)) {
		from.realm = interface->realm;
		from.end = interface->end;
		from.link = interface->flags & INTERFACE_BARE ? 0 : ETH_HLEN;
		from.now = seconds(mine);
		action = decide_ipae(skb, &from, skb->protocol);
	}
	if (action != UNDECIDED)
		return action;
	bpf_tail_call(skb, &programs, 0);
	return pass(skb);
}
