/* SPDX-License-Identifier: Dual BSD/GPL */
/* The border at TC: one program for every interface; the map "interfaces" says which realm each leads into. */
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <isthmus/border.h>

const struct declared declared = {};
char _license[] SEC("license") = "Dual BSD/GPL";

SEC("tc")
int border(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex;
	struct interface *interface = bpf_map_lookup_elem(&interfaces, &ifindex);
	struct ingress from = {};

	if (!interface)
		return TC_ACT_UNSPEC;
	/* Frames for other machines (promiscuous, flooded) and for many are not ours to forward. */
	if (skb->pkt_type != PACKET_HOST && skb->pkt_type != PACKET_OUTGOING)
		return pass(skb);
	if (skb->protocol != bpf_htons(ETH_P_IP) || skb->vlan_present)
		return pass(skb);
	from.realm = interface->realm;
	from.end = interface->end;
	from.link = interface->flags & INTERFACE_BARE ? 0 : ETH_HLEN;
	from.now = seconds();
	return decide(skb, &from, interface);
}
