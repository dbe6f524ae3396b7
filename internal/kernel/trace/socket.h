/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the kernel knows of a socket, and of the process that uses it. */
#ifndef LINGER_SOCKET_H
#define LINGER_SOCKET_H

#include "trace.h"

/* A program may follow pointers of the type that the tracepoint gives it, and struct sock is only the beginning
 * of a tcp_sock: that it may follow from kernel 5.9 on, and read by a helper before. */
#define CAN_FOLLOW bpf_core_enum_value_exists(enum bpf_func_id___known, BPF_FUNC_skc_to_tcp_sock___known)

static __always_inline const struct tcp_sock *tcp_sock_of(const struct sock *sk)
{
	return CAN_FOLLOW ? bpf_skc_to_tcp_sock((void *)sk) : (void *)0;
}

/* READ is a field of a tcp_sock; tp is tcp_sock_of(sk). */
#define READ(tp, sk, field) \
	(CAN_FOLLOW ? (tp) ? (tp)->field : 0 : BPF_CORE_READ((const struct tcp_sock *)(sk), field))

/* local_port is also of a connection that has closed. inet_num, of which skc_num is another name, is 0 again
 * when the port is given back, before the tracepoint (inet_put_port of net/ipv4/inet_hashtables.c). */
static __always_inline __u16 local_port(const struct sock *sk)
{
	__u16 port = sk->__sk_common.skc_num;
	const struct tcp_sock *tp;

	if (port)
		return port;
	tp = tcp_sock_of(sk);
	return bpf_ntohs(READ(tp, sk, inet_conn.icsk_inet.inet_sport));
}

static __always_inline __u64 netns_of(struct net *net)
{
	if (netns_by_cookie && bpf_core_field_exists(net->net_cookie))
		return net->net_cookie;
	return net->ns.inum;
}

/* wanted tells whether a namespace is to be followed. */
static __always_inline bool wanted(struct net *net)
{
	if (!only_netns[0])
		return true;
	for (int i = 0; i < NETNSES && only_netns[i]; i++)
		if (only_netns[i] == netns_of(net))
			return true;
	return false;
}

static __always_inline __u64 cgroup_of(const struct sock *sk)
{
	const struct sock_cgroup_data___old *old;
	struct cgroup *cgroup;
	__u64 id = 0, val;

	if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		return sk->sk_cgrp_data.cgroup->kn->id;
	old = (const void *)&sk->sk_cgrp_data;
	if (!bpf_core_field_exists(old->val))
		return 0;
	val = BPF_CORE_READ(old, val);
	if (val & 1) /* is_data: cgroup v1's class and priority */
		return 0;
	cgroup = (void *)(val & ~3ULL);
	return cgroup ? BPF_CORE_READ(cgroup, kn, id) : id;
}

/* current_comm is the name of current's process: its leader's, for threads have their own.
 * Workers of the kernel's queues share one. */
static __always_inline void current_comm(char *comm)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id___known, BPF_FUNC_get_current_task_btf___known)) {
		__builtin_memcpy(comm, bpf_get_current_task_btf()->group_leader->comm, COMM);
	} else { /* before kernel 5.11 */
		struct task_struct *task = (void *)bpf_get_current_task();
		struct task_struct *leader = BPF_CORE_READ(task, group_leader);

		bpf_core_read(comm, COMM, &leader->comm);
	}
	if (*(__u64 *)comm == *(const __u64 *)"kworker/") {
		comm[7] = 0;
		*(__u64 *)(comm + 8) = 0;
	}
}

/* in_use tells whether current uses this socket. In softirq current is whoever was
 * interrupted: over loopback, the process at the other end. */
static __always_inline bool in_use(const struct sock *sk)
{
	return sk->sk_lock.owned;
}

/* stamp is when the last segment came or went, on the monotonic clock, in us: where a segment has just come that is
 * now, and saves reading the clock (tcp_mstamp_refresh of net/ipv4/tcp_output.c). */
static __always_inline __u64 stamp(const struct sock *sk, const struct tcp_sock *tp)
{
	return READ(tp, sk, tcp_mstamp);
}

/* time_of_close is when a socket came from oldstate to CLOSE, on the same clock. What no process and no error has ended came by a
 * segment from these states, or by a timer that sets the stamp too (tcp_keepalive_timer of net/ipv4/tcp_timer.c). */
static __always_inline __u64 time_of_close(const struct sock *sk, const struct tcp_sock *tp, int oldstate)
{
	if ((oldstate == TCP_FIN_WAIT2 || oldstate == TCP_CLOSING || oldstate == TCP_LAST_ACK) && !in_use(sk) && !sk->sk_err)
		return stamp(sk, tp);
	return bpf_ktime_get_ns() / 1000;
}

/* peer_closed tells whether the peer's FIN was seen. */
static __always_inline bool peer_closed(const struct sock *sk)
{
	return sk->__sk_common.skc_flags & 1 << SOCK_DONE;
}

struct size {
	__u64 sent, received;
};

/* size_of is how many bytes went over a connection that has closed from oldstate. The kernel counts sequence
 * numbers, of which a SYN and a FIN have one each; an acceptor's SYN it does not count. */
static __always_inline struct size size_of(const struct sock *sk, const struct tcp_sock *tp, __u8 role, int oldstate)
{
	struct size size = { READ(tp, sk, bytes_acked), READ(tp, sk, bytes_received) };
	bool acknowledged = oldstate == TCP_FIN_WAIT2 || ((oldstate == TCP_CLOSING || oldstate == TCP_LAST_ACK) && !sk->sk_err);

	if (role == CONNECTOR && size.sent)
		size.sent--;
	if (acknowledged && size.sent)
		size.sent--;
	if (peer_closed(sk) && size.received)
		size.received--;
	return size;
}

static __always_inline bool same_comm(const char *a, const char *b)
{
	return ((__u64 *)a)[0] == ((__u64 *)b)[0] && ((__u64 *)a)[1] == ((__u64 *)b)[1];
}

#endif
