/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The table of the connections that are followed, by the address of their struct sock: an array that is
 * a hash table with open addressing. Of a BPF hash map, to find and to delete an element took 150 ns where
 * this takes 20, and each end of each connection does that once.
 */
#ifndef LINGER_TABLE_H
#define LINGER_TABLE_H

#include "maps.h"

/* A connection has its first place by its address, mostly, or one of those by a hash of it. How many are
 * elsewhere tells the first place, so that most searches end there, in one cache line. */
#define PLACES 8
#define CLAIM 1
#define CLAIMS 0xffff
#define ELSEWHERE 0x10000

/* name_of is a number for a socket: its address, less another that does not change, since the verifier lets a
 * program reckon with the difference of pointers but not with a pointer. */
static __always_inline __u64 name_of(const struct sock *sk)
{
	return (__u64)sk - (__u64)&connections;
}

static __always_inline struct connection *place(__u64 name, __u32 nth)
{
	/* Sockets take more than 2 KB. Those that are neighbours in memory, as are those in use, are so in
	 * the table too: that spares misses of the TLB, which cost more than all else here. The factor is Knuth's,
	 * 2^64 by the golden ratio. The others are not next to each other, for where one is taken by such a neighbour, so
	 * are those next to it. */
	__u64 hash = name * 0x9e3779b97f4a7c15ULL;
	__u32 at = (nth ? (hash >> 32) + nth * ((__u32)(hash >> 8) | 1) : name >> 11) & connections_mask;

	return bpf_map_lookup_elem(&connections, &at);
}

static __always_inline __u32 taken(const struct connection *c)
{
	return *(const volatile __u32 *)&c->taken;
}

static __always_inline struct connection *lookup(const struct sock *sk)
{
	__u64 name = name_of(sk);
	struct connection *c = place(name, 0);

	if (!c || c->name == name)
		return c;
	if (taken(c) < ELSEWHERE)
		return 0;
#pragma clang loop unroll(disable)
	for (__u32 nth = 1; nth < PLACES; nth++) {
		c = place(name, nth);
		if (c && c->name == name)
			return c;
	}
	return 0;
}

/* take finds a place for a socket that has none, and is NULL where all are taken. Who adds a claim to a
 * place and reads that it is the only one has it: that needs no atomic operation that returns a value
 * (kernel 5.12). A socket's own events do not come at once: it is locked. */
static __always_inline struct connection *take(const struct sock *sk)
{
	__u64 name = name_of(sk);
	struct connection *first = place(name, 0), *c;

#pragma clang loop unroll(disable)
	for (__u32 nth = 0; first && nth < PLACES; nth++) {
		c = place(name, nth);
		if (!c || taken(c) & CLAIMS)
			continue;
		__sync_fetch_and_add(&c->taken, CLAIM);
		if ((taken(c) & CLAIMS) == CLAIM) {
			if (nth)
				__sync_fetch_and_add(&first->taken, ELSEWHERE);
			c->name = name;
			return c;
		}
		__sync_fetch_and_add(&c->taken, -CLAIM);
	}
	return 0;
}

static __always_inline void give_back(const struct sock *sk, struct connection *c)
{
	struct connection *first = place(name_of(sk), 0);

	if (first && first != c)
		__sync_fetch_and_add(&first->taken, -ELSEWHERE);
	*(volatile __u64 *)&c->name = 0;
	__sync_fetch_and_add(&c->taken, -CLAIM);
}

#endif
