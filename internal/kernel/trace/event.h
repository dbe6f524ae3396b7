/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The end of a connection as an event, which goes through the ring buffer. */
#ifndef LINGER_EVENT_H
#define LINGER_EVENT_H

#include "group.h"

static __always_inline bool passes(const struct event *e)
{
	__u32 bits = filter.remote_bits;

	if (filter.endings && !(filter.endings & 1U << (e->ending & 31)))
		return false;
	if (filter.role && filter.role != e->key.role)
		return false;
	if (filter.port && filter.port != e->local_port && filter.port != e->remote_port)
		return false;
	if (filter.least_life > e->life)
		return false;
	if (filter.comm[0]) {
		for (int i = 0; i < COMM; i++)
			if (filter.comm[i] != e->key.comm[i])
				return false;
	}
	for (int i = 0; i < 16; i++) {
		__u8 mask;

		if (bits <= i * 8)
			break;
		mask = bits >= (i + 1) * 8 ? 0xff : 0xff00 >> (bits - i * 8);
		if ((filter.remote[i] ^ e->remote[i]) & mask)
			return false;
	}
	return true;
}

/* tell sends the end of a connection through the ring buffer. From half full on it tells
 * one of 64, each with the number that it stands for; what the last one does not
 * stand for is in untold. oldstate is that before CLOSE. */
static __noinline void tell(const struct sock *sk, struct connection *c, int oldstate)
{
	const struct group *group = group_at(c->group);
	struct event e = {}, *slot;
	__u64 *skipped, n;
	__u32 zero = 0;

	if (!group)
		return;
	e.key = group->key;
	e.ended = bpf_ktime_get_ns();
	if (c->since)
		e.life = e.ended / 1000 - c->since;
	if (c->ending < NO_PORT) {
		struct size size = size_of(sk, tcp_sock_of(sk), c->role, oldstate);

		e.bytes_sent = size.sent;
		e.bytes_received = size.received;
	}
	e.pid = c->pid;
	e.netns_inode = sk->__sk_common.skc_net.net->ns.inum;
	e.local_port = local_port(sk);
	e.remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	copy_local(e.key.local, &sk->__sk_common);
	copy_remote(e.remote, &sk->__sk_common);
	e.ending = c->ending;
	e.reason = c->reason;
	if (!passes(&e))
		return;

	skipped = bpf_map_lookup_elem(&untold, &zero);
	if (!skipped)
		return;
	n = *skipped;
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > event_room / 2 && n < 63)
		slot = 0;
	else
		slot = bpf_ringbuf_reserve(&events, sizeof(*slot), 0);
	if (!slot) {
		__sync_fetch_and_add(skipped, 1);
		return;
	}
	__sync_fetch_and_add(skipped, -n);
	*slot = e;
	slot->weight = n + 1;
	bpf_ringbuf_submit(slot, 0);
}

#endif
