/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Finds the group in which a connection is counted, and counts. */
#ifndef LINGER_GROUP_H
#define LINGER_GROUP_H

#include "maps.h"
#include "read.h"

static __always_inline void add(struct group *group, __u32 number, __u64 n)
{
	if (number < NUMBERS)
		__sync_fetch_and_add(&group->numbers[number], n);
}

/* group_at is never NULL for a number that group_number returned. */
static __always_inline struct group *group_at(__u32 number)
{
	return bpf_map_lookup_elem(&groups, &number);
}

/* group_number is that of the group for a key, 0 where no other fits. */
static __always_inline __u32 group_number(struct group_key *key, __u32 netns_inode)
{
	__u32 *known = bpf_map_lookup_elem(&group_numbers, key), number;
	struct group *group;

	if (known)
		return *known;
	if (bpf_map_pop_elem(&free_groups, &number))
		return 0;
	group = group_at(number);
	if (!group)
		return 0;
	group->key = *key;
	group->netns_inode = netns_inode;
	if (bpf_map_update_elem(&group_numbers, key, &number, BPF_NOEXIST)) {
		/* Another CPU came first. */
		bpf_map_push_elem(&free_groups, &number, BPF_ANY);
		known = bpf_map_lookup_elem(&group_numbers, key);
		return known ? *known : 0;
	}
	group->used = 1;
	return number;
}

/* describe fills in a key; its name is the caller's. */
static __always_inline void describe(struct group_key *key, const struct sock *sk, __u8 role)
{
	key->netns = netns_of(sk->__sk_common.skc_net.net);
	key->cgroup = cgroup_of(sk);
	key->role = role;
	copy_local(key->local, &sk->__sk_common);
	if (role == ACCEPTOR) {
		key->local_port = local_port(sk);
	} else {
		copy_remote(key->remote, &sk->__sk_common);
		key->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	}
}

/* any_address makes one of 0.0.0.0 and ::. */
static __always_inline void any_address(__u8 *local)
{
	__u32 *words = (__u32 *)local;

	if (!words[0] && !words[1] && !words[3])
		words[2] = 0;
}

static __always_inline struct listener *listener_of(const struct sock *sk)
{
	struct listener_key key = {
		.netns = netns_of(sk->__sk_common.skc_net.net),
		.port = local_port(sk),
	};
	struct listener *listener;

	copy_local(key.local, &sk->__sk_common);
	listener = bpf_map_lookup_elem(&listeners, &key);
	if (listener)
		return listener;
	__builtin_memset(key.local, 0, sizeof(key.local));
	return bpf_map_lookup_elem(&listeners, &key);
}

/* begin starts to follow a connection. It counts in its group as live only once the
 * table has taken it, so that live never exceeds what can end. */
static __always_inline struct connection *begin(const struct sock *sk, struct connection *c)
{
	__u64 at = (__u64)sk;
	struct group *group = group_at(c->group);

	c->flags |= FLAG_LIVE;
	if (!group)
		return 0;
	__sync_fetch_and_add(&group->live, 1);
	if (c->pid)
		group->pid = c->pid;
	if (bpf_map_update_elem(&connections, &at, c, BPF_ANY)) {
		__sync_fetch_and_add(&group->live, -1);
		add(group, UNTRACKED, 1);
		return 0;
	}
	return bpf_map_lookup_elem(&connections, &at);
}

/* meet is for a connection that began before the tracing, or that the table had no
 * room for: its role is told by whether somebody listens on its port. */
static __always_inline void meet(const struct sock *sk, struct connection *c)
{
	struct group_key key = {};
	struct listener *listener = listener_of(sk);

	c->role = listener ? ACCEPTOR : CONNECTOR;
	describe(&key, sk, c->role);
	if (in_use(sk)) {
		current_name(key.comm);
		c->pid = bpf_get_current_pid_tgid() >> 32;
	} else if (listener) {
		__builtin_memcpy(key.comm, listener->comm, COMM);
	}
	c->group = group_number(&key, sk->__sk_common.skc_net.net->ns.inum);
}

static __always_inline struct connection *find(const struct sock *sk)
{
	__u64 at = (__u64)sk;
	struct connection *c = bpf_map_lookup_elem(&connections, &at);

	return c && !(c->flags & FLAG_ENDED) ? c : 0;
}

/* used_by makes current the owner of a connection that it is using. An acceptor whose
 * listener somebody else made, such as a parent or systemd, is called by its own name from
 * then on. */
static __always_inline void used_by_current(const struct sock *sk, struct connection *c, struct group_key *key)
{
	struct group *old = group_at(c->group), *group;

	current_name(key->comm);
	c->pid = bpf_get_current_pid_tgid() >> 32;
	if (!old)
		return;
	if (c->group && same_name(old->key.comm, key->comm)) {
		old->pid = c->pid;
		return;
	}
	describe(key, sk, c->role);
	c->group = group_number(key, sk->__sk_common.skc_net.net->ns.inum);
	group = group_at(c->group);
	if (group) {
		group->pid = c->pid;
		if (c->flags & FLAG_LIVE) {
			__sync_fetch_and_add(&old->live, -1);
			__sync_fetch_and_add(&group->live, 1);
		}
	}
	if (c->role == ACCEPTOR) {
		struct listener *listener = listener_of(sk);

		if (listener)
			__builtin_memcpy(listener->comm, key->comm, COMM);
	}
}

/* octave is the number of v's binary digits. It is global for the verifier to look at its
 * branches once, and not at each use with all that may follow. */
__attribute__((noinline)) __u32 octave(__u64 v)
{
	__u32 n = 0;

	if (v >> 32) { n += 32; v >>= 32; }
	if (v >> 16) { n += 16; v >>= 16; }
	if (v >> 8) { n += 8; v >>= 8; }
	if (v >> 4) { n += 4; v >>= 4; }
	if (v >> 2) { n += 2; v >>= 2; }
	if (v >> 1) { n += 1; v >>= 1; }
	return n + v;
}

static __always_inline void count_size(__u32 *steps, __u64 bytes)
{
	__u64 step = octave(bytes);

	asm volatile("" : "+r"(step)); /* of 64 bits: an older verifier forgets the bounds of narrower ones */
	if (step >= SIZE_STEPS)
		step = SIZE_STEPS - 1;
	__sync_fetch_and_add(&steps[step], 1);
}

static __always_inline void count_life(struct group *group, __u64 ns)
{
	__u64 us = ns / 1000;
	__u64 n = octave(us), step = us;

	if (n > 2) /* the two digits after the first make quarters of an octave */
		step = (n - 2) * 4 + ((us >> (n - 3)) & 3);
	asm volatile("" : "+r"(step));
	if (step >= LIFE_STEPS)
		step = LIFE_STEPS - 1;
	__sync_fetch_and_add(&group->life[step], 1);
}

#endif
