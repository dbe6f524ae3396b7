/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Finds the group in which a connection is counted, and counts. */
#ifndef LINGER_GROUP_H
#define LINGER_GROUP_H

#include "read.h"
#include "table.h"

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

/* same_but_name compares two keys in all but the name. */
static __always_inline bool same_but_name(const struct group_key *a, const struct group_key *b)
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

/* hinted is the group of a hinted number, NULL where that is of another key in more than the name. */
static __always_inline struct group *hinted(__u32 number, const struct group_key *key)
{
	struct group *group = group_at(number);

	return group && group->used && same_but_name(&group->key, key) ? group : 0;
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
	struct group *group = hinted(number, key);

	if (group && same_name(group->key.comm, key->comm))
		return number;
	number = group_by_hash(key, netns_inode);
	write_hint(hint, 0, number);
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

/* accepted finds the group of a connection that a listener has made: it has the listener's name until somebody
 * uses it. */
static __always_inline __u32 accepted(const struct sock *sk)
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
	if (word >> 32 == learnt_now && hinted(number, &key))
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

/* meet is for a connection that began before the tracing, or that the table had no
 * room for: its role is told by whether somebody listens on its port. */
static __noinline void meet(const struct sock *sk, struct connection *c)
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

/* follow_met starts to follow such a connection, if it can. Its opening was before, and is not counted. */
static __noinline struct connection *follow_met(const struct sock *sk, struct connection *c)
{
	meet(sk, c);
	c->flags = FLAG_OPENED;
	return begin(sk, c);
}

static __always_inline struct connection *find(const struct sock *sk)
{
	struct connection *c = lookup(sk);

	return c && !(c->flags & FLAG_ENDED) ? c : 0;
}

/* now_used_by moves a connection to the group of current's name. An acceptor whose listener somebody else made, such as
 * a parent or systemd, is called by its own name from then on. */
static __noinline void now_used_by(const struct sock *sk, struct connection *c, const char *name)
{
	struct group *old = group_at(c->group), *group;
	struct group_key key = {};

	__builtin_memcpy(key.comm, name, COMM);
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
			__builtin_memcpy(listener->comm, name, COMM);
			listener->pid = c->pid;
			__sync_fetch_and_add(&learnt, 1);
		}
	}
}

/* used_by_current makes current the owner of a connection that it is using. */
static __always_inline void used_by_current(const struct sock *sk, struct connection *c)
{
	struct group *group = group_at(c->group);
	char name[COMM] __attribute__((aligned(8)));

	c->pid = bpf_get_current_pid_tgid() >> 32;
	current_name(name);
	if (c->group && group && same_name(group->key.comm, name))
		group->pid = c->pid;
	else
		now_used_by(sk, c, name);
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
