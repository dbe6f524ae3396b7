/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The connections that are followed, in a table by the address of their struct sock: an array that is
 * a hash table with open addressing. Of a BPF hash map, to find and to delete an element took 150 ns where
 * this takes 20, and each end of each connection does that once.
 */
#ifndef LINGER_CONNECTION_H
#define LINGER_CONNECTION_H

#include "group.h"

/* A connection has its first place by its address, mostly, or one of those by a hash of it. How many are
 * elsewhere tells the first place, so that most searches end there, in one cache line. */
#define PLACES 8
#define CLAIM 1
#define ALL_CLAIMS 0xffff
#define ELSEWHERE 0x10000

/* id_of is a number for a socket: its address, less another that does not change, since the verifier lets a
 * program reckon with the difference of pointers but not with a pointer. */
static __always_inline __u64 id_of(const struct sock *sk)
{
	return (__u64)sk - (__u64)&connections;
}

static __always_inline struct connection *place(__u64 id, __u32 nth)
{
	/* Sockets take more than 2 KB. Those that are neighbours in memory, as are those in use, are so in
	 * the table too: that spares misses of the TLB, which cost more than all else here. The factor is Knuth's,
	 * 2^64 by the golden ratio. The others are not next to each other, for where one is taken by such a neighbour, so
	 * are those next to it. */
	__u64 hash = id * 0x9e3779b97f4a7c15ULL;
	__u32 at = (nth ? (hash >> 32) + nth * ((__u32)(hash >> 8) | 1) : id >> 11) & connections_mask;

	return bpf_map_lookup_elem(&connections, &at);
}

static __always_inline __u32 occupancy_of(const struct connection *c)
{
	return *(const volatile __u32 *)&c->occupancy;
}

static __always_inline struct connection *lookup(const struct sock *sk)
{
	__u64 id = id_of(sk);
	struct connection *c = place(id, 0);

	if (!c || c->id == id)
		return c;
	if (occupancy_of(c) < ELSEWHERE)
		return 0;
#pragma clang loop unroll(disable)
	for (__u32 nth = 1; nth < PLACES; nth++) {
		c = place(id, nth);
		if (c && c->id == id)
			return c;
	}
	return 0;
}

/* take finds a place for a socket that has none, and is NULL where all are taken. Who adds a claim to a
 * place and reads that it is the only one has it: that needs no atomic operation that returns a value
 * (kernel 5.12). A socket's own events do not come at once: it is locked. */
static __always_inline struct connection *take(const struct sock *sk)
{
	__u64 id = id_of(sk);
	struct connection *first = place(id, 0), *c;

#pragma clang loop unroll(disable)
	for (__u32 nth = 0; first && nth < PLACES; nth++) {
		c = place(id, nth);
		if (!c || occupancy_of(c) & ALL_CLAIMS)
			continue;
		__sync_fetch_and_add(&c->occupancy, CLAIM);
		if ((occupancy_of(c) & ALL_CLAIMS) == CLAIM) {
			if (nth)
				__sync_fetch_and_add(&first->occupancy, ELSEWHERE);
			c->id = id;
			return c;
		}
		__sync_fetch_and_add(&c->occupancy, -CLAIM);
	}
	return 0;
}

static __always_inline void give_back(const struct sock *sk, struct connection *c)
{
	struct connection *first = place(id_of(sk), 0);

	if (first && first != c)
		__sync_fetch_and_add(&first->occupancy, -ELSEWHERE);
	*(volatile __u64 *)&c->id = 0;
	__sync_fetch_and_add(&c->occupancy, -CLAIM);
}

/* retire is for what is left of a socket that had the same address: connect() has failed on this one before, or
 * the end of another was missed. */
static __noinline void retire(struct connection *c)
{
	struct group *group = group_at(c->group);

	if (!group || !(c->flags & FLAG_LIVE))
		return;
	__sync_fetch_and_add(&group->live, -1);
	if (c->flags & FLAG_OPENED)
		add(group, UNTIMED, 1);
}

/* begin starts to follow a connection. It counts in its group as live only once the
 * table has taken it, so that live never exceeds what can end. */
static __always_inline struct connection *begin(const struct sock *sk, const struct connection *as)
{
	struct group *group = group_at(as->group);
	struct connection *c = lookup(sk);

	if (!group)
		return 0;
	if (c)
		retire(c);
	else
		c = take(sk);
	if (!c) {
		overflowed = true;
		if (!(as->flags & FLAG_OPENED)) /* else it is counted already, or began before */
			add(group, UNTRACKED, 1);
		return 0;
	}
	c->since = as->since;
	c->group = as->group;
	c->pid = as->pid;
	c->role = as->role;
	c->flags = as->flags | FLAG_LIVE;
	c->ending = as->ending;
	c->reason = as->reason;
	__sync_fetch_and_add(&group->live, 1);
	if (c->pid)
		group->pid = c->pid;
	return c;
}

/* describe_late is for a connection that began before the tracing, or that the table had no
 * room for: its role is told by whether somebody listens on its port. */
static __noinline void describe_late(const struct sock *sk, struct connection *c)
{
	struct group_key key = {};
	struct listener *listener = listener_of(sk);

	c->role = listener ? ACCEPTOR : CONNECTOR;
	describe(&key, sk, c->role);
	if (in_use(sk)) {
		current_comm(key.comm);
		c->pid = bpf_get_current_pid_tgid() >> 32;
	} else if (listener) {
		__builtin_memcpy(key.comm, listener->comm, COMM);
	}
	c->group = group_number(&key, sk->__sk_common.skc_net.net->ns.inum);
}

/* begin_late starts to follow such a connection, if it can. Its opening was before, and is not counted. */
static __noinline struct connection *begin_late(const struct sock *sk, struct connection *c)
{
	describe_late(sk, c);
	c->flags = FLAG_OPENED;
	return begin(sk, c);
}

static __always_inline struct connection *find(const struct sock *sk)
{
	struct connection *c = lookup(sk);

	return c && !(c->flags & FLAG_ENDED) ? c : 0;
}

/* hand_over moves a connection to the group of current's comm. An acceptor whose listener somebody else made, such as
 * a parent or systemd, is called by its own name from then on. */
static __noinline void hand_over(const struct sock *sk, struct connection *c, const char *comm)
{
	struct group *old = group_at(c->group), *group;
	struct group_key key = {};

	__builtin_memcpy(key.comm, comm, COMM);
	describe(&key, sk, c->role);
	c->group = group_number(&key, sk->__sk_common.skc_net.net->ns.inum);
	group = group_at(c->group);
	if (old && group) {
		group->pid = c->pid;
		if (c->flags & FLAG_LIVE) {
			__sync_fetch_and_add(&old->live, -1);
			__sync_fetch_and_add(&group->live, 1);
		}
	}
	if (c->role == ACCEPTOR) {
		struct listener *listener = listener_of(sk);

		if (listener) {
			__builtin_memcpy(listener->comm, comm, COMM);
			listener->pid = c->pid;
			__sync_fetch_and_add(&learnt, 1);
		}
	}
}

/* used_by_current makes current the owner of a connection that it is using. */
static __always_inline void used_by_current(const struct sock *sk, struct connection *c)
{
	struct group *group = group_at(c->group);
	char comm[COMM] __attribute__((aligned(8)));

	c->pid = bpf_get_current_pid_tgid() >> 32;
	current_comm(comm);
	if (c->group && group && same_comm(group->key.comm, comm))
		group->pid = c->pid;
	else
		hand_over(sk, c, comm);
}

#endif
