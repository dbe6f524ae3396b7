/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the tracing programs read of the kernel, and the layouts that they share with
 * trace.go and its neighbours, which decode them.
 */
#ifndef LINGER_TRACE_H
#define LINGER_TRACE_H

#include "kernel.h"
#include <stdbool.h>

/* More of enum bpf_map_type, and flags of linux/bpf.h. */
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_QUEUE 22
#define BPF_ANY 0
#define BPF_NOEXIST 1
#define BPF_F_MMAPABLE (1U << 10)
#define BPF_RB_AVAIL_DATA 0

#define IPPROTO_TCP 6
#define TCP_NEW_SYN_RECV 12
#define SOCK_DONE 1 /* of enum sock_flags: the peer's FIN was seen */
#define ETIMEDOUT 110
#define ECONNREFUSED 111
#define COMM 16 /* TASK_COMM_LEN */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	__u64 id; /* the inode number of the cgroup's directory */
};

struct cgroup {
	struct kernfs_node *kn;
};

struct sock_cgroup_data {
	struct cgroup *cgroup; /* kernel 5.15 */
};

/* Before: a pointer whose low bits are flags. */
struct sock_cgroup_data___old {
	__u64 val;
};

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
	__u64 net_cookie; /* net_gen_cookie before kernel 5.12 */
};

typedef struct {
	int owned;
} socket_lock_t;

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	int sk_err;
	__u16 sk_protocol; /* a bit field before kernel 5.6 */
	struct sock_cgroup_data sk_cgrp_data;
};

struct inet_sock {
	struct sock sk;
	__be16 inet_sport;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 segs_out;
	__u64 tcp_mstamp; /* us of the monotonic clock when the last segment came or went */
	__u64 bytes_acked;
	__u64 bytes_received;
};

struct net_device {
	possible_net_t nd_net;
};

struct sk_buff {
	struct net_device *dev;
};

struct task_struct {
	struct task_struct *group_leader;
	int pid;
	int tgid;
	char comm[COMM];
};

/* Of the enumerators just those that are asked for. */
enum bpf_func_id___known {
	BPF_FUNC_skc_to_tcp_sock___known,
	BPF_FUNC_get_current_task_btf___known,
};

#pragma clang attribute pop

/* How a connection began to end. */
enum ending {
	CLOSED_HERE = 1, /* this end sent the first FIN */
	CLOSED_THERE,	 /* the other end did */
	ABORTED,	 /* this end dropped it without a FIN */
	RESET_THERE,	 /* the other end, or something on the way, sent a reset */
	TIMED_OUT,	 /* the other end was silent */
	/* It was never established: connect() failed. */
	NO_PORT,	 /* EADDRNOTAVAIL: no source port was free */
	PORT_TAKEN,	 /* EADDRNOTAVAIL: the bound source port is in use for this destination */
	REFUSED,	 /* ECONNREFUSED: answered by a reset */
	UNANSWERED,	 /* ETIMEDOUT: no answer */
	UNREACHABLE,	 /* another error, of the network */
	GIVEN_UP,	 /* closed by this side before the answer */
	ENDINGS,
};

/* The numbers of a group: those of endings are their own. */
enum number {
	OPENED,		  /* established; 0 is no ending, and near those that each connection needs */
	BOUND = ENDINGS,  /* of these: connectors that had a source port before connect() */
	TO_TIME_WAIT,	  /* handed over to a time-wait socket after the peer's FIN */
	TO_FIN_WAIT2,	  /* and before it */
	RESETS_RECEIVED,
	UNTIMED,	  /* ended, and their beginning or their end was not seen */
	BYTES_SENT,	  /* acknowledged by the peer */
	BYTES_RECEIVED,
	UNTRACKED,	  /* connections that the table of sockets had no place for */
	NUMBERS,
};

#define REASONS 32	  /* of enum sk_rst_reason, the last for all beyond */
#define LIFE_STEPS 160	  /* four to an octave of microseconds: 2^40 us are 12 days */
#define HINTS 1024
#define NETNSES 8
#define SIZE_STEPS 44	  /* octaves of bytes */

enum role {
	ROLE_UNKNOWN,
	CONNECTOR,
	ACCEPTOR,
};

/* What connections are added up by. Addresses are IPv6, or IPv4 as ::ffff:a.b.c.d. */
struct group_key {
	__u64 netns;	   /* SO_NETNS_COOKIE, before kernel 5.14 the inode number */
	__u64 cgroup;
	char comm[COMM];   /* of the leader of the process */
	__u8 local[16];
	__u8 remote[16];   /* of a connector */
	__u16 local_port;  /* of an acceptor */
	__u16 remote_port; /* of a connector */
	__u8 role;
	__u8 padding[3];
};

struct group {
	struct group_key key;
	__u32 used;
	__u32 netns_inode;
	/* From here on what each connection changes, and begins a cache line. */
	__u32 live __attribute__((aligned(64))); /* sockets that are counted here and have not ended */
	__u32 pid;  /* of one of the processes */
	__u64 numbers[NUMBERS];
	__u64 resets_sent[REASONS];
	__u32 life[LIFE_STEPS];
	__u32 sent[SIZE_STEPS];
	__u32 received[SIZE_STEPS];
};

/* What is known of one end of a connection. */
struct connection {
	__u64 name;   /* of its socket, see name_of; 0 while the place is free */
	__u64 since;  /* us of the monotonic clock at ESTABLISHED, 0 before */
	__u32 group;
	__u32 pid;    /* of the last process that was seen to use it, 0 if none was */
	__u8 role;
	__u8 flags;
	__u8 ending;
	__u8 reason;  /* of the reset that this end sent, plus 1 */
	__u32 taken;  /* see table.h */
};

#define FLAG_BOUND 1
#define FLAG_LIVE 2	      /* counted in its group's live */
#define FLAG_RESET_RECEIVED 4
#define FLAG_ENDED 8
#define FLAG_OPENED 16	      /* counted as opened */
#define FLAG_UNTOLD 32	      /* its end is told when the reason is known */

struct listener_key {
	__u64 netns;
	__u8 local[16]; /* all 0 for every address, of either family */
	__u16 port;
	__u16 padding[3];
};

struct listener {
	char comm[COMM];
	__u32 pid;
	__u32 padding;
};

struct owner_key {
	__u64 netns;
	__u64 cookie;
};

struct owner {
	char comm[COMM];
	__u64 cgroup;
	__u32 pid;
	__u32 padding;
};

/* One connection that has ended. */
struct event {
	struct group_key key;
	__u64 ended; /* ns of the monotonic clock */
	__u64 life;  /* us, 0 where the beginning was not seen */
	__u64 bytes_sent;
	__u64 bytes_received;
	__u32 weight; /* how many ends this one stands for */
	__u32 pid;
	__u32 netns_inode;
	__u16 local_port;
	__u16 remote_port;
	__u8 remote[16];
	__u8 ending;
	__u8 reason; /* of the reset that this end sent, plus 1 */
	__u8 padding[6];
};

/* Which ends are told. An empty field lets all pass. */
struct event_filter {
	__u64 least_life; /* us */
	char comm[COMM];
	__u32 endings;	  /* bit by enum ending */
	__u16 port;	  /* of either end */
	__u8 role;
	__u8 remote_bits; /* of the prefix in remote */
	__u8 remote[16];
};

#endif
