/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The group in which a connection is counted: found by its key, and counted in. */
#ifndef LINGER_GROUP_H
#define LINGER_GROUP_H

#include "socket.h"

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

/* same_but_comm compares two keys in all but comm. */
static __always_inline bool same_but_comm(const struct group_key *a, const struct group_key *b)
{
	const __u64 *x = (const void *)a, *y = (const void *)b;
	__u64 differ = 0;

	for (int i = 0; i < sizeof(*a) / sizeof(*x); i++)
		if (i < offsetof(struct group_key, comm) / 8 || i >= offsetof(struct group_key, local) / 8)
			differ |= x[i] ^ y[i];
	return !differ;
}

static __always_inline __u64 *hint_for(const struct group_key *key)
{
	const __u64 *comm = (const void *)key->comm, *local = (const void *)key->local, *remote = (const void *)key->remote;
	__u64 mixed = key->netns ^ key->cgroup << 8 ^ local[1] ^ remote[1] << 1 ^
		      (__u64)key->remote_port << 16 ^ key->local_port;
	__u32 at;

	if (key->role == CONNECTOR)
		mixed ^= comm[0];
	at = mixed * 0x9e3779b97f4a7c15ULL >> 54; /* HINTS are 2^10 */
	return bpf_map_lookup_elem(&hints, &at);
}

static __always_inline __u64 read_hint(const __u64 *hint)
{
	return hint ? *(const volatile __u64 *)hint : 0;
}

static __always_inline void write_hint(__u64 *hint, __u32 learnt_then, __u32 number)
{
	if (hint)
		*(volatile __u64 *)hint = (__u64)learnt_then << 32 | number;
}

/* group_of_hint is the group that a hint names, NULL where its key differs in more than comm. */
static __always_inline struct group *group_of_hint(__u32 number, const struct group_key *key)
{
	struct group *group = group_at(number);

	return group && group->used && same_but_comm(&group->key, key) ? group : 0;
}

/* group_by_hash is that of the group for a key, 0 where no other fits. */
static __noinline __u32 group_by_hash(struct group_key *key, __u32 netns_inode)
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

static __always_inline __u32 group_number(struct group_key *key, __u32 netns_inode)
{
	__u64 *hint = hint_for(key);
	__u32 number = read_hint(hint);
	struct group *group = group_of_hint(number, key);

	if (group && same_comm(group->key.comm, key->comm))
		return number;
	number = group_by_hash(key, netns_inode);
	write_hint(hint, 0, number);
	return number;
}

/* describe fills in a key; its comm is the caller's. */
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

/* group_of_listener is that of a connection which a listener has made: it has the listener's comm until somebody
 * uses it. */
static __always_inline __u32 group_of_listener(const struct sock *sk)
{
	__u32 learnt_now = *(volatile __u32 *)&learnt, number;
	struct group_key key = {};
	struct listener *listener;
	struct group *group;
	__u64 *hint, word;

	describe(&key, sk, ACCEPTOR);
	hint = hint_for(&key);
	word = read_hint(hint);
	number = word;
	if (word >> 32 == learnt_now && group_of_hint(number, &key))
		return number;
	listener = listener_of(sk);
	if (listener)
		__builtin_memcpy(key.comm, listener->comm, COMM);
	number = group_by_hash(&key, sk->__sk_common.skc_net.net->ns.inum);
	group = group_at(number);
	if (listener && group && !group->pid)
		group->pid = listener->pid;
	write_hint(hint, learnt_now, number);
	return number;
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

static __always_inline void count_life(struct group *group, __u64 us)
{
	__u64 n = octave(us), step = us;

	if (n > 2) /* the two digits after the first make quarters of an octave */
		step = (n - 2) * 4 + ((us >> (n - 3)) & 3);
	asm volatile("" : "+r"(step));
	if (step >= LIFE_STEPS)
		step = LIFE_STEPS - 1;
	__sync_fetch_and_add(&group->life[step], 1);
}

#endif
