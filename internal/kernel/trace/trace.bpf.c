//go:build ignore

// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Follows each TCP connection of the host from its beginning to its end and adds up,
 * by process and service, how it ended. What each tracepoint tells, and where it
 * misleads, is in docs/tracing.md.
 */
#include "tell.h"

static __always_inline bool in_family(void)
{
	__u32 process = bpf_get_current_pid_tgid() >> 32;

	return bpf_map_lookup_elem(&family, &process);
}

/* A program is not run for an event that interrupts it on the same CPU (recursion_misses of
 * struct bpf_prog_info). A softirq can come at any time while a process's event is counted, and
 * brings events of hundreds of other connections: so one program counts what processes do, and
 * another what segments and timers do, which nothing interrupts. What may be missed still, while
 * the second sees that an event is not its own, the later steps of a connection make up for. */

/* was_open counts a connection that is followed as opened, unless it has been. */
static __always_inline void was_open(struct connection *c, struct group *group)
{
	if ((c->flags & (FLAG_LIVE | FLAG_OPENED)) != FLAG_LIVE)
		return;
	c->flags |= FLAG_OPENED;
	add(group, OPENED, 1);
	if (c->flags & FLAG_BOUND)
		add(group, BOUND, 1);
}

/* began_to_end counts the ending of a connection, unless it has one. */
static __always_inline void began_to_end(struct connection *c, struct group *group, __u8 ending)
{
	was_open(c, group);
	if (c->ending)
		return;
	c->ending = ending;
	add(group, ending, 1);
}

/* implied is the ending that a state tells of, 0 for none. */
static __always_inline __u8 implied(int oldstate)
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

/* end counts how a connection ended. */
static __always_inline void end(const struct sock *sk, struct connection *c, int oldstate)
{
	struct group *group = group_at(c->group);
	int err = sk->sk_err;

	if (!group)
		return;
	if (oldstate == TCP_SYN_SENT || (oldstate == TCP_SYN_RECV && !(c->flags & FLAG_OPENED))) {
		if (err == ECONNREFUSED)
			c->ending = REFUSED;
		else if (err == ETIMEDOUT)
			c->ending = UNANSWERED;
		else if (err)
			c->ending = UNREACHABLE;
		else if (!source_port(sk))
			c->ending = NO_PORT;
		else if (!READ(tcp_sock, sk, segs_out) && c->flags & FLAG_BOUND)
			c->ending = PORT_TAKEN;
		else
			c->ending = GIVEN_UP;
		add(group, c->ending, 1);
	} else {
		__u64 sent = READ(tcp_sock, sk, bytes_acked), received = READ(tcp_sock, sk, bytes_received);

		if (implied(oldstate))
			began_to_end(c, group, implied(oldstate));
		else if (c->flags & FLAG_RESET_RECEIVED)
			began_to_end(c, group, RESET_THERE);
		else if (err == ETIMEDOUT)
			began_to_end(c, group, TIMED_OUT);
		else
			began_to_end(c, group, ABORTED);
		if ((oldstate == TCP_FIN_WAIT2 || oldstate == TCP_CLOSING) && !err && !c->reason &&
		    !(c->flags & FLAG_RESET_RECEIVED))
			add(group, sk->__sk_common.skc_flags & 1 << SOCK_DONE ? TO_TIME_WAIT : TO_FIN_WAIT2, 1);
		if (c->since)
			count_life(group, bpf_ktime_get_ns() - c->since);
		else
			add(group, UNTIMED, 1);
		add(group, BYTES_SENT, sent);
		add(group, BYTES_RECEIVED, received);
		count_size(group->sent, sent);
		count_size(group->received, received);
	}
	c->flags |= FLAG_ENDED;
	if (c->flags & FLAG_LIVE) {
		c->flags &= ~FLAG_LIVE;
		__sync_fetch_and_add(&group->live, -1);
	}
	if (tell_events) {
		/* The reset, and with it the reason, comes after the state
		 * (tcp_disconnect, __tcp_close of net/ipv4/tcp.c). */
		if (c->ending == ABORTED && !c->reason)
			c->flags |= FLAG_UNTOLD;
		else
			tell(sk, c, group);
	}
}

static __always_inline void connecting(const struct sock *sk)
{
	struct connection c = { .role = CONNECTOR };
	struct group_key key = {};

	if (only_family && !in_family())
		return;
	current_name(key.comm);
	describe(&key, sk, CONNECTOR);
	c.pid = bpf_get_current_pid_tgid() >> 32;
	c.group = group_number(&key, sk->__sk_common.skc_net.net->ns.inum);
	if (source_port(sk))
		c.flags = FLAG_BOUND;
	begin(sk, &c);
}

static __always_inline void opened(const struct sock *sk, int oldstate)
{
	struct connection *c = find(sk), new = {};
	struct group *group;

	if (!c && oldstate == TCP_SYN_RECV) {
		struct listener *listener = listener_of(sk);
		struct group_key key = {};

		if (only_family && !(listener && listener->padding))
			return;
		describe(&key, sk, ACCEPTOR);
		if (listener)
			__builtin_memcpy(key.comm, listener->comm, COMM);
		new.role = ACCEPTOR;
		new.group = group_number(&key, sk->__sk_common.skc_net.net->ns.inum);
		new.since = bpf_ktime_get_ns();
		c = begin(sk, &new);
	} else if (c) {
		c->since = bpf_ktime_get_ns();
	} else if (only_family) {
		return;
	} else {
		meet(sk, &new);
	}
	if (!c)
		c = &new;
	group = group_at(c->group);
	if (!group)
		return;
	c->flags |= FLAG_LIVE; /* or it was not followed, and is counted here alone */
	was_open(c, group);
}

/* closing counts the first FIN of a connection. */
static __always_inline void closing(const struct sock *sk, int newstate)
{
	struct connection *c = find(sk), new = {};
	struct group_key key = {};
	struct group *group;

	if (!c) {
		if (only_family)
			return;
		meet(sk, &new);
		c = &new;
	} else if (newstate == TCP_FIN_WAIT1 && in_use(sk)) {
		used_by_current(sk, c, &key);
	}
	group = group_at(c->group);
	if (group)
		began_to_end(c, group, newstate == TCP_FIN_WAIT1 ? CLOSED_HERE : CLOSED_THERE);
	if (keep_owners && newstate == TCP_FIN_WAIT1) {
		struct owner_key at = {
			.netns = netns_of(sk->__sk_common.skc_net.net),
			.cookie = bpf_get_socket_cookie((void *)sk),
		};
		struct owner owner = { .cgroup = cgroup_of(sk), .pid = c->pid };

		current_name(owner.comm);
		if (in_use(sk))
			bpf_map_update_elem(&owners, &at, &owner, BPF_ANY);
	}
}

static __always_inline int changed(const struct sock *sk, int oldstate, int newstate)
{
	struct connection *c, new = {};
	struct group_key key = {};
	struct group *group;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	switch (newstate) {
	case TCP_SYN_SENT:
		connecting(sk);
		return 0;
	case TCP_ESTABLISHED:
		opened(sk, oldstate);
		return 0;
	case TCP_FIN_WAIT1:
		if (oldstate == TCP_ESTABLISHED || oldstate == TCP_SYN_RECV)
			closing(sk, newstate);
		return 0;
	case TCP_CLOSE_WAIT:
		closing(sk, newstate);
		return 0;
	case TCP_LAST_ACK:
		c = find(sk);
		if (c && in_use(sk))
			used_by_current(sk, c, &key);
		if (c && (group = group_at(c->group)))
			began_to_end(c, group, CLOSED_THERE);
		return 0;
	case TCP_LISTEN: {
		struct listener_key at = {
			.netns = netns_of(sk->__sk_common.skc_net.net),
			/* inet_sport is set after the state (inet_csk_listen_start). */
			.port = sk->__sk_common.skc_num,
		};
		struct listener listener = { .pid = bpf_get_current_pid_tgid() >> 32 };

		copy_local(at.local, &sk->__sk_common);
		any_address(at.local);
		if (only_family)
			listener.padding = in_family();
		current_name(listener.comm);
		bpf_map_update_elem(&listeners, &at, &listener, BPF_ANY);
		return 0;
	}
	case TCP_CLOSE:
		if (oldstate == TCP_LISTEN || oldstate == TCP_CLOSE)
			return 0;
		c = find(sk);
		if (!c) {
			if (only_family || oldstate == TCP_SYN_RECV)
				return 0;
			meet(sk, &new);
			new.ending = implied(oldstate);
			c = &new;
		}
		end(sk, c, oldstate);
		return 0;
	}
	return 0;
}

static __always_inline bool tells(int newstate)
{
	return newstate != TCP_FIN_WAIT2 && newstate != TCP_CLOSING && newstate != TCP_SYN_RECV;
}

SEC("tp_btf/inet_sock_set_state")
int set_state_by_process(__u64 *ctx)
{
	const struct sock *sk = (const void *)ctx[0];
	int newstate = ctx[2];

	return tells(newstate) && in_use(sk) ? changed(sk, ctx[1], newstate) : 0;
}

SEC("tp_btf/inet_sock_set_state")
int set_state_by_segment(__u64 *ctx)
{
	const struct sock *sk = (const void *)ctx[0];
	int newstate = ctx[2];

	return tells(newstate) && !in_use(sk) ? changed(sk, ctx[1], newstate) : 0;
}

/* reset_of_none counts a reset that answers a segment of no connection of ours. */
static __always_inline void reset_of_none(struct net *net, __u32 reason)
{
	struct group_key key = { .netns = netns_of(net) };
	struct group *group = group_at(group_number(&key, net->ns.inum));

	if (group)
		__sync_fetch_and_add(&group->resets_sent[reason & (REASONS - 1)], 1);
}

static __always_inline int reset_sent(const struct sock *sk, const struct sk_buff *skb, __u32 reason)
{
	struct connection *c, new = {};
	struct group *group;
	__u64 at = (__u64)sk;

	if (reason >= REASONS)
		reason = REASONS - 1;
	asm volatile("" : "+r"(reason)); /* keeps the masks below, which the verifier wants */
	if (!sk) {
		if (skb && !only_family)
			reset_of_none(skb->dev->nd_net.net, reason);
		return 0;
	}
	switch (sk->__sk_common.skc_state) {
	case TCP_TIME_WAIT:
	case TCP_NEW_SYN_RECV: /* these two are no struct sock */
	case TCP_LISTEN:
		if (!only_family)
			reset_of_none(sk->__sk_common.skc_net.net, reason);
		return 0;
	}
	c = bpf_map_lookup_elem(&connections, &at);
	if (!c) {
		if (only_family)
			return 0;
		meet(sk, &new);
		c = &new;
	}
	c->reason = reason + 1;
	group = group_at(c->group);
	if (!group)
		return 0;
	__sync_fetch_and_add(&group->resets_sent[reason & (REASONS - 1)], 1);
	if (tell_events && c->flags & FLAG_UNTOLD) {
		c->flags &= ~FLAG_UNTOLD;
		tell(sk, c, group);
	}
	return 0;
}

SEC("tp_btf/tcp_send_reset")
int send_reset(__u64 *ctx)
{
	return reset_sent((const void *)ctx[0], (const void *)ctx[1], ctx[2]);
}

/* Before kernel 6.8 the tracepoint does not tell the reason. */
SEC("tp_btf/tcp_send_reset")
int send_reset_without_reason(__u64 *ctx)
{
	return reset_sent((const void *)ctx[0], (const void *)ctx[1], 0);
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
		if (only_family)
			return 0;
		meet(sk, &new);
		new.ending = implied(sk->__sk_common.skc_state);
		new.flags = FLAG_OPENED; /* before, and not counted */
		c = begin(sk, &new);
		if (!c)
			c = &new;
	}
	c->flags |= FLAG_RESET_RECEIVED;
	group = group_at(c->group);
	if (group)
		add(group, RESETS_RECEIVED, 1);
	return 0;
}

SEC("tp_btf/tcp_destroy_sock")
int destroy_sock(__u64 *ctx)
{
	const struct sock *sk = (const void *)ctx[0];
	__u64 at = (__u64)sk;
	struct connection *c = bpf_map_lookup_elem(&connections, &at);
	struct group *group;

	if (!c)
		return 0;
	if (!(c->flags & FLAG_ENDED)) /* was missed; FIN_WAIT2 stands for what a time-wait socket follows */
		end(sk, c, c->ending == CLOSED_HERE ? TCP_FIN_WAIT2 : c->flags & FLAG_OPENED ? TCP_ESTABLISHED : TCP_SYN_SENT);
	group = group_at(c->group);
	if (tell_events && group && c->flags & FLAG_UNTOLD)
		tell(sk, c, group);
	bpf_map_delete_elem(&connections, &at);
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
