//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Follows each TCP connection of the host from its beginning to its end and adds up,
 * by process and service, how it ended. What each tracepoint tells, and where it
 * misleads, is in docs/tracing.md.
 */
#include "connection.h"
#include "event.h"

static __always_inline bool in_family(void)
{
	__u32 process = bpf_get_current_pid_tgid() >> 32;

	return bpf_map_lookup_elem(&family, &process);
}

/* A program is not run for an event that interrupts it on the same CPU (recursion_misses of struct bpf_prog_info):
 * while the event of a process is counted, a softirq may bring those of other connections. What is missed the later steps of a
 * connection make up for, as far as they can. A second program, for segments alone, would not miss them, but the way to
 * a program and back is half of what an event costs, and three quarters where a tracepoint has two. */

/* count_opening counts a connection that is followed as opened, unless it has been. */
static __always_inline void count_opening(struct connection *c, struct group *group)
{
	if ((c->flags & (FLAG_LIVE | FLAG_OPENED)) != FLAG_LIVE)
		return;
	c->flags |= FLAG_OPENED;
	add(group, OPENED, 1);
	if (c->flags & FLAG_BOUND)
		add(group, BOUND, 1);
}

/* count_ending counts the ending of a connection, unless it has one. */
static __always_inline void count_ending(struct connection *c, struct group *group, __u8 ending)
{
	count_opening(c, group);
	if (c->ending)
		return;
	c->ending = ending;
	add(group, ending, 1);
}

/* ending_of is the ending that a state tells of, 0 for none. */
static __always_inline __u8 ending_of(int oldstate)
{
	switch (oldstate) {
	case TCP_FIN_WAIT1:
	case TCP_FIN_WAIT2:
	case TCP_CLOSING:
		return CLOSED_HERE;
	case TCP_CLOSE_WAIT:
	case TCP_LAST_ACK:
		return CLOSED_THERE;
	}
	return 0;
}

/* failure_of tells why connect() failed. */
static __always_inline __u8 failure_of(const struct sock *sk, const struct connection *c)
{
	const struct tcp_sock *tp = tcp_sock_of(sk);

	switch (sk->sk_err) {
	case 0:
		break;
	case ECONNREFUSED:
		return REFUSED;
	case ETIMEDOUT:
		return UNANSWERED;
	default:
		return UNREACHABLE;
	}
	if (!local_port(sk))
		return NO_PORT;
	return !READ(tp, sk, segs_out) && c->flags & FLAG_BOUND ? PORT_TAKEN : GIVEN_UP;
}

/* count_failure counts a connection that was never established. */
static __noinline void count_failure(const struct sock *sk, struct connection *c)
{
	struct group *group = group_at(c->group);

	c->ending = failure_of(sk, c);
	if (group)
		add(group, c->ending, 1);
}

/* count_end counts how an established connection ended. */
static __always_inline void count_end(const struct sock *sk, struct connection *c, struct group *group, int oldstate)
{
	const struct tcp_sock *tp = tcp_sock_of(sk);
	struct size size = size_of(sk, tp, c->role, oldstate);
	int err = sk->sk_err;

	if (ending_of(oldstate))
		count_ending(c, group, ending_of(oldstate));
	else if (c->flags & FLAG_RESET_RECEIVED)
		count_ending(c, group, RESET_THERE);
	else if (err == ETIMEDOUT)
		count_ending(c, group, TIMED_OUT);
	else
		count_ending(c, group, ABORTED);
	if ((oldstate == TCP_FIN_WAIT2 || oldstate == TCP_CLOSING) && !err && !c->reason &&
	    !(c->flags & FLAG_RESET_RECEIVED))
		add(group, peer_closed(sk) ? TO_TIME_WAIT : TO_FIN_WAIT2, 1);
	if (c->since)
		count_life(group, time_of_close(sk, tp, oldstate) - c->since);
	else
		add(group, UNTIMED, 1);
	if (size.sent) {
		add(group, BYTES_SENT, size.sent);
		count_size(group->sent, size.sent);
	}
	if (size.received) {
		add(group, BYTES_RECEIVED, size.received);
		count_size(group->received, size.received);
	}
}

/* finish is for the last state of a socket, CLOSE. */
static __always_inline void finish(const struct sock *sk, struct connection *c, int oldstate)
{
	struct group *group = group_at(c->group);
	bool followed = c->flags & FLAG_LIVE;

	if (!group)
		return;
	if (oldstate == TCP_SYN_SENT || (oldstate == TCP_SYN_RECV && !(c->flags & FLAG_OPENED)))
		count_failure(sk, c);
	else
		count_end(sk, c, group, oldstate);
	c->flags |= FLAG_ENDED;
	if (followed) {
		c->flags &= ~FLAG_LIVE;
		__sync_fetch_and_add(&group->live, -1);
	}
	if (tell_events) {
		/* The reset, and with it the reason, comes after the state
		 * (tcp_disconnect, __tcp_close of net/ipv4/tcp.c); it finds what is followed. */
		if (followed && c->ending == ABORTED && !c->reason)
			c->flags |= FLAG_UNTOLD;
		else
			tell(sk, c, oldstate);
	}
}

static __always_inline void enter_syn_sent(const struct sock *sk)
{
	struct connection c = { .role = CONNECTOR };
	struct group_key key = {};

	if (only_family && !in_family())
		return;
	current_comm(key.comm);
	describe(&key, sk, CONNECTOR);
	c.pid = bpf_get_current_pid_tgid() >> 32;
	c.group = group_number(&key, sk->__sk_common.skc_net.net->ns.inum);
	if (sk->__sk_common.skc_num)
		c.flags = FLAG_BOUND;
	begin(sk, &c);
}

/* new_acceptor tells whether a connection comes from a listener. So does what is in SYN_RECV, but a connector whose SYN
 * has met its peer's (RFC 9293, 3.5). Else what is known of this address is left of an earlier socket. */
static __always_inline bool new_acceptor(const struct connection *c, int oldstate)
{
	return oldstate == TCP_SYN_RECV && !(c && c->role == CONNECTOR && !(c->flags & FLAG_OPENED));
}

static __always_inline void enter_established(const struct sock *sk, int oldstate)
{
	struct connection *c = find(sk), new = {};
	struct group *group;

	if (new_acceptor(c, oldstate)) {
		struct listener *listener = only_family ? listener_of(sk) : 0;

		if (only_family && !(listener && listener->of_family))
			return;
		new.role = ACCEPTOR;
		new.group = group_of_listener(sk);
		new.since = stamp(sk, tcp_sock_of(sk));
		c = begin(sk, &new);
	} else if (c) {
		c->since = stamp(sk, tcp_sock_of(sk));
	} else if (only_family) {
		return;
	} else {
		describe_late(sk, &new);
	}
	if (!c)
		c = &new;
	group = group_at(c->group);
	if (!group)
		return;
	c->flags |= FLAG_LIVE; /* or it was not followed, and is counted here alone */
	count_opening(c, group);
}

/* keep_owner remembers who makes a time-wait socket. */
static __noinline void keep_owner(const struct sock *sk, const struct connection *c)
{
	struct owner_key at = {
		.netns = netns_of(sk->__sk_common.skc_net.net),
		.cookie = bpf_get_socket_cookie((void *)sk),
	};
	struct owner owner = { .cgroup = cgroup_of(sk), .pid = c->pid };

	current_comm(owner.comm);
	bpf_map_update_elem(&owners, &at, &owner, BPF_ANY);
}

/* enter_fin counts the first FIN of a connection. */
static __always_inline void enter_fin(const struct sock *sk, int newstate)
{
	struct connection *c = find(sk), new = {};
	struct group *group;

	if (!c) {
		/* LAST_ACK follows CLOSE_WAIT, which was missed or was before the tracing, unless it did not fit. */
		if (only_family || (newstate == TCP_LAST_ACK && overflowed))
			return;
		c = begin_late(sk, &new);
		if (!c)
			c = &new;
	} else if (newstate != TCP_CLOSE_WAIT && in_use(sk)) {
		used_by_current(sk, c);
	}
	group = group_at(c->group);
	if (group)
		count_ending(c, group, ending_of(newstate));
	if (keep_owners && newstate == TCP_FIN_WAIT1 && in_use(sk))
		keep_owner(sk, c);
}

static __noinline void enter_listen(const struct sock *sk)
{
	struct listener_key at = {
		.netns = netns_of(sk->__sk_common.skc_net.net),
		/* inet_sport is set after the state (inet_csk_listen_start). */
		.port = sk->__sk_common.skc_num,
	};
	struct listener listener = { .pid = bpf_get_current_pid_tgid() >> 32 };

	copy_local(at.local, &sk->__sk_common);
	any_address(at.local);
	if (only_family)
		listener.of_family = in_family();
	current_comm(listener.comm);
	bpf_map_update_elem(&listeners, &at, &listener, BPF_ANY);
	__sync_fetch_and_add(&learnt, 1);
}

/* enter_close is for the last state of a socket. */
static __always_inline void enter_close(const struct sock *sk, int oldstate)
{
	struct connection *c, new = {};

	if (oldstate == TCP_LISTEN || oldstate == TCP_CLOSE)
		return;
	c = find(sk);
	if (!c) {
		if (only_family || oldstate == TCP_SYN_RECV)
			return;
		describe_late(sk, &new);
		new.ending = ending_of(oldstate);
		c = &new;
	}
	finish(sk, c, oldstate);
}

static __always_inline void enter(const struct sock *sk, int oldstate, int newstate)
{
	if (sk->sk_protocol != IPPROTO_TCP)
		return;
	switch (newstate) {
	case TCP_SYN_SENT:
		enter_syn_sent(sk);
		break;
	case TCP_ESTABLISHED:
		enter_established(sk, oldstate);
		break;
	case TCP_FIN_WAIT1:
		if (oldstate == TCP_ESTABLISHED || oldstate == TCP_SYN_RECV)
			enter_fin(sk, newstate);
		break;
	case TCP_CLOSE_WAIT:
	case TCP_LAST_ACK:
		enter_fin(sk, newstate);
		break;
	case TCP_LISTEN:
		enter_listen(sk);
		break;
	case TCP_CLOSE:
		enter_close(sk, oldstate);
		break;
	}
}

static __always_inline bool counts(int newstate)
{
	return newstate != TCP_FIN_WAIT2 && newstate != TCP_CLOSING && newstate != TCP_SYN_RECV;
}

SEC("tp_btf/inet_sock_set_state")
int set_state(__u64 *ctx)
{
	const struct sock *sk = (const void *)ctx[0];
	int newstate = ctx[2];

	if (counts(newstate) && wanted(sk->__sk_common.skc_net.net))
		enter(sk, ctx[1], newstate);
	return 0;
}

/* count_reset_of_none counts a reset that answers a segment of no connection of ours. */
static __always_inline void count_reset_of_none(struct net *net, __u32 reason)
{
	struct group_key key = { .netns = netns_of(net) };
	struct group *group;

	if (!wanted(net))
		return;
	group = group_at(group_number(&key, net->ns.inum));
	if (group)
		__sync_fetch_and_add(&group->resets_sent[reason & (REASONS - 1)], 1);
}

static __always_inline int count_reset(const struct sock *sk, const struct sk_buff *skb, __u32 reason)
{
	struct connection *c, new = {};
	struct group *group;

	if (reason >= REASONS)
		reason = REASONS - 1;
	asm volatile("" : "+r"(reason)); /* keeps the masks below, which the verifier wants */
	if (!sk) {
		if (skb && !only_family)
			count_reset_of_none(skb->dev->nd_net.net, reason);
		return 0;
	}
	switch (sk->__sk_common.skc_state) {
	case TCP_TIME_WAIT:
	case TCP_NEW_SYN_RECV: /* these two are no struct sock */
	case TCP_LISTEN:
		if (!only_family)
			count_reset_of_none(sk->__sk_common.skc_net.net, reason);
		return 0;
	}
	c = lookup(sk);
	if (!c) {
		if (only_family || !wanted(sk->__sk_common.skc_net.net))
			return 0;
		describe_late(sk, &new);
		c = &new;
	}
	c->reason = reason + 1;
	group = group_at(c->group);
	if (!group)
		return 0;
	__sync_fetch_and_add(&group->resets_sent[reason & (REASONS - 1)], 1);
	if (tell_events && c->flags & FLAG_UNTOLD) {
		c->flags &= ~FLAG_UNTOLD;
		tell(sk, c, TCP_ESTABLISHED);
	}
	return 0;
}

SEC("tp_btf/tcp_send_reset")
int send_reset(__u64 *ctx)
{
	return count_reset((const void *)ctx[0], (const void *)ctx[1], ctx[2]);
}

/* Before kernel 6.8 the tracepoint does not tell the reason. */
SEC("tp_btf/tcp_send_reset")
int send_reset_without_reason(__u64 *ctx)
{
	return count_reset((const void *)ctx[0], (const void *)ctx[1], 0);
}

SEC("tp_btf/tcp_receive_reset")
int receive_reset(__u64 *ctx)
{
	const struct sock *sk = (const void *)ctx[0];
	struct connection *c = find(sk), new = {};
	struct group *group;

	if (sk->__sk_common.skc_state == TCP_SYN_SENT)
		return 0; /* connect() is refused: told by the state that follows */
	if (!c) {
		if (only_family || !wanted(sk->__sk_common.skc_net.net))
			return 0;
		c = begin_late(sk, &new);
		if (!c)
			c = &new;
		c->ending = ending_of(sk->__sk_common.skc_state);
	}
	c->flags |= FLAG_RESET_RECEIVED;
	group = group_at(c->group);
	if (group)
		add(group, RESETS_RECEIVED, 1);
	return 0;
}

/* finish_missed is for a socket whose last state was missed, so that a segment made it, for what a process does is
 * not missed. FIN_WAIT2 stands for what a time-wait socket follows. */
static __noinline void finish_missed(const struct sock *sk, struct connection *c)
{
	int oldstate = TCP_SYN_SENT;

	if (c->ending == CLOSED_HERE) {
		oldstate = TCP_FIN_WAIT2;
	} else if (peer_closed(sk)) {
		oldstate = TCP_LAST_ACK;
	} else if (c->flags & FLAG_OPENED) {
		oldstate = TCP_ESTABLISHED;
		if (sk->sk_err != ETIMEDOUT)
			c->flags |= FLAG_RESET_RECEIVED;
	}
	finish(sk, c, oldstate);
}

SEC("tp_btf/tcp_destroy_sock")
int destroy_sock(__u64 *ctx)
{
	const struct sock *sk = (const void *)ctx[0];
	struct connection *c = lookup(sk);

	if (!c)
		return 0;
	if (!(c->flags & FLAG_ENDED))
		finish_missed(sk, c);
	if (tell_events && c->flags & FLAG_UNTOLD)
		tell(sk, c, TCP_ESTABLISHED);
	give_back(sk, c);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int process_fork(__u64 *ctx)
{
	const struct task_struct *parent = (const void *)ctx[0], *child = (const void *)ctx[1];
	__u32 process = parent->tgid, new = child->tgid;
	__u8 yes = 1;

	if (new != process && bpf_map_lookup_elem(&family, &process))
		bpf_map_update_elem(&family, &new, &yes, BPF_ANY);
	return 0;
}

/* A process's number is used again only after this. Its sockets are closed before, but
 * after sched_process_exit. */
SEC("tp_btf/sched_process_free")
int process_free(__u64 *ctx)
{
	const struct task_struct *task = (const void *)ctx[0];
	__u32 process = task->tgid;

	if (task->pid == process)
		bpf_map_delete_elem(&family, &process);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
