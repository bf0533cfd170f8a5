/* SPDX-License-Identifier: Dual BSD/GPL */
/* The tables. Sizes marked * are set by the loader. */
#ifndef ISTHMUS_MAPS_H
#define ISTHMUS_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <isthmus/abi.h>

/* ifindex -> which realm its packets are in, and what we are there. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct interface);
} interfaces SEC(".maps");

/* The same by ifindex modulo NEAR_INTERFACES, of those that are alone there: most are, and an array is asked sooner. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NEAR_INTERFACES);
	__type(key, __u32);
	__type(value, struct interface);
} near_interfaces SEC(".maps");

/* Realm number -> its interface, and the port to the reference plane. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, REALMS);
	__type(key, __u32);
	__type(value, struct realm);
} realms SEC(".maps");

/* Our addresses that tunnels end at. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct place);
	__type(value, struct tunnel_end);
} tunnel_ends SEC(".maps");

/* What is held, or claimed, by prefix. * */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, struct prefix_key);
	__type(value, struct binding);
} by_prefix SEC(".maps");

/* Addresses of which parts are held or claimed. * */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 16);
	__type(key, struct place);
	__type(value, struct address);
} addresses SEC(".maps");

/* Which addresses are worth asking the two above about. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MEANT_BITS / 64);
	__type(key, __u32);
	__type(value, __u64);
} meant SEC(".maps");

/* A word per aligned port slice; user space has it mapped. * */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1 << 16);
	__type(key, __u32);
	__type(value, __u64);
} slices SEC(".maps");

/* Direct words but for their deadlines, fifteen to a line of the cache; user space has it mapped. * */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1 << 12);
	__type(key, __u32);
	__type(value, struct brief);
} briefs SEC(".maps");

/* Direct words of consecutive leases by rule, 64 in 16 octets; user space has it mapped. * */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1 << 10);
	__type(key, __u32);
	__type(value, struct block);
} blocks SEC(".maps");

/* SPIs that are held, in aligned blocks. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, struct spi_key);
	__type(value, struct binding);
} by_spi SEC(".maps");

/* Odd ports, whatever has a limit on the peer, and who sends ESP and AH. * */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, struct demux_key);
	__type(value, struct binding);
} by_demux SEC(".maps");

/* Tunnels by number; number 0 is nobody. * */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << 16);
	__type(key, __u32);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

/* Who has registered. * */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, struct place);
	__type(value, struct owner);
} owners SEC(".maps");

/* Which addresses an owner holds anything of; read on the way to a drop only. * */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, struct holding_key);
	__type(value, __u32);
} holdings SEC(".maps");

/* Which prefixes, of more than one address, it holds anything of. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, struct wide_key);
	__type(value, __u32);
} wide_holdings SEC(".maps");

/* Peers that owners have written to. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, CONTACT_BUCKETS);
	__type(key, __u32);
	__type(value, struct bucket);
} contacted SEC(".maps");

/* Who sent what in ESP and AH, for the ICMP errors about it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, PATHS);
	__type(key, struct path_key);
	__type(value, struct path);
} paths SEC(".maps");

/* Realm number -> what IPAE knows of it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, REALMS);
	__type(key, __u32);
	__type(value, struct sip_realm);
} sip_realms SEC(".maps");

/* Our addresses that IPAE datagrams come to, and the SIP realms that they lead to. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct place);
	__type(value, __be32);
} sip_ends SEC(".maps");

/* Our SIP addresses. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct place);
	__type(value, __u32);
} nodes SEC(".maps");

/* Upper half, C = 0, of a SIP site -> the realm of its IPv4. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __be32);
	__type(value, __be32);
} sites SEC(".maps");

/* By which address the systems of another realm are known. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, struct image_key);
	__type(value, struct known);
} by_image SEC(".maps");

/* Mapping tables; user space makes the arrays, and has them mapped. */
struct words_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct words);
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2 * MAPPINGS);
	__type(key, __u32);
	__array(values, struct words_map);
} mappings SEC(".maps");

/* How IPAE is read, and the place in the ring. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rules);
} rules SEC(".maps");

/* What errors have taught about the ways of IPAE datagrams. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 16);
	__type(key, struct way_key);
	__type(value, struct way);
} ways SEC(".maps");

/* What was sent in IPAE datagrams. * */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RING_SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} ring SEC(".maps");

/* What follows after IPAE has found that a packet is none of its own: RSIP's program. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} programs SEC(".maps");

/* Where packets went in this tick. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NEXT_HOPS);
	__type(key, __u32);
	__type(value, struct next_hop);
} next_hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NEXT_HOPS6);
	__type(key, __u32);
	__type(value, struct next_hop6);
} next_hops6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WIDE_HOPS6);
	__type(key, __u32);
	__type(value, struct wide_hop6);
} wide_hops6 SEC(".maps");

/* Which destinations go the same way; user space has it mapped. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, GROUP_ELEMENTS);
	__type(key, __u32);
	__type(value, struct group_words);
} groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 16);
	__type(key, struct group6_key);
	__type(value, __u32);
} groups6 SEC(".maps");

/* And by which gateway. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * GROUPS);
	__type(key, __u32);
	__type(value, struct gateway);
} gateways SEC(".maps");

/* As long as that is true. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct followed);
} followed SEC(".maps");

/* Where packets of a group went in this tick. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * GROUPS);
	__type(key, __u32);
	__type(value, struct next_hop);
} group_hops SEC(".maps");

/* What by_prefix last said. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KEPT_ROUTES);
	__type(key, __u32);
	__type(value, struct route);
} routes SEC(".maps");

/* Packets by reason. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* Violations, for the protocol. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} events SEC(".maps");

/* How many violations were told of in this second. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct limit);
} limited SEC(".maps");

/* Whom pinned maps belong to. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct about);
} about SEC(".maps");

#endif
