//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Writes one record for each TIME_WAIT socket of the namespace in which the iterator
 * was opened (iter/tcp, kernel 5.9): what tcp_twsk_unique (net/ipv4/tcp_ipv4.c) and
 * __inet_hash_connect (net/ipv4/inet_hashtables.c) ask of it.
 */
#include "address.h"

#define BOUND 1
#define TIMESTAMPS 2
#define AGE 4

/* Decoded by timewait.go. */
struct record {
	__u8 local[16]; /* see address.h */
	__u8 remote[16];
	__u32 age_ms; /* since it entered TIME_WAIT, or was last heard of before 6.14 */
	__u16 local_port;
	__u16 remote_port;
	__u32 flags;
};

SEC("iter/tcp")
int time_wait(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;
	struct tcp_timewait_sock *tcptw;
	struct inet_timewait_sock *tw;
	struct inet_bind_bucket *tb;
	struct record r = {};
	__u64 now_ms;
	int stamp;

	if (!sk || sk->skc_state != TCP_TIME_WAIT)
		return 0;
	tcptw = bpf_skc_to_tcp_timewait_sock(sk);
	if (!tcptw)
		return 0;
	tw = &tcptw->tw_sk;
	if (tw->tw_substate != TCP_TIME_WAIT)
		return 0; /* FIN_WAIT2: never taken over */

	copy_local(r.local, &tw->__tw_common);
	copy_remote(r.remote, &tw->__tw_common);
	r.local_port = tw->__tw_common.skc_num;
	r.remote_port = bpf_ntohs(tw->__tw_common.skc_dport);

	/* A bucket that connect() made has -1 in both. */
	tb = tw->tw_tb;
	if (tb && (tb->fastreuse >= 0 || tb->fastreuseport >= 0))
		r.flags |= BOUND;

	stamp = tcptw->tw_ts_recent_stamp;
	if (stamp)
		r.flags |= TIMESTAMPS;
	now_ms = bpf_ktime_get_ns() / 1000000;
	if (bpf_core_field_exists(tw->tw_entry_stamp)) {
		r.age_ms = (__u32)now_ms - tw->tw_entry_stamp;
		r.flags |= AGE;
	} else if (stamp) { /* whole seconds, as time_after32 compares them */
		r.age_ms = ((__u32)(now_ms / 1000) - (__u32)stamp) * 1000;
		r.flags |= AGE;
	}

	bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
