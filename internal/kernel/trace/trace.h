/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the tracing programs share with trace.go and its neighbours, which set it, fill it and decode it: the layouts,
 * the settings and the tables. The headers beside it have each the functions of one noun: socket.h reads what the
 * kernel knows of a connection, group.h finds the sum that it belongs to, connection.h is what is remembered of it,
 * event.h tells of its end. trace.bpf.c has the programs, by tracepoint.
 */
#ifndef LINGER_TRACE_H
#define LINGER_TRACE_H

#include "address.h"
#include <stdbool.h>

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
	GIVEN_UP,	 /* enter_close by this side before the answer */
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
	__u64 id;     /* of its socket, see id_of; 0 while the place is free */
	__u64 since;  /* us of the monotonic clock at ESTABLISHED, 0 before */
	__u32 group;
	__u32 pid;    /* of the last process that was seen to use it, 0 if none was */
	__u8 role;
	__u8 flags;
	__u8 ending;
	__u8 reason;  /* of the reset that this end sent, plus 1 */
	__u32 occupancy; /* see connection.h */
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
	__u32 of_family; /* 1 where it is a process of family */
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

/* Set by the loader. A branch that they close is never seen by the verifier. */
const volatile bool keep_owners;      /* needs bpf_get_socket_cookie in tracing, kernel 5.12 */
const volatile bool only_family;      /* follow only what the processes in families open */
const volatile bool tell_events;
const volatile bool netns_by_cookie;  /* SO_NETNS_COOKIE tells it too, kernel 5.14 */
const volatile __u64 only_netns[NETNSES]; /* follow only these, up to the first 0; all where there is none */
const volatile __u32 connections_mask;    /* their number less 1, of a power of two */
const volatile __u32 event_room = 1;  /* bytes of the ring buffer */
const volatile struct event_filter filter;

/* Numbers of groups by what they add up, and the numbers that are free. (An atomic counter that
 * returns its value takes kernel 5.12.) */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct group_key);
	__type(value, __u32);
} group_numbers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__type(value, __u32);
} free_groups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct group);
} groups SEC(".maps");

/* Whether a connection was ever without a place. */
bool overflowed;

/* Goes up whenever a listener becomes known by another name. */
__u32 learnt = 1;

/* Where a group may be found without hashing its key, by what keys often differ in; what a hint says is compared with
 * the key. The upper half is learnt where the group is that of a listener's name, else 0. Both are one word for
 * no CPU to see half of what another writes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HINTS);
	__type(key, __u32);
	__type(value, __u64);
} hints SEC(".maps");

/* Read and written by connection.h alone. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* has elements begin on a page, so that each is in one cache line */
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct connection);
} connections SEC(".maps");

/* Who listens, to name the owners of accepted connections before they use them. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct listener_key);
	__type(value, struct listener);
} listeners SEC(".maps");

/* Who made a time-wait socket, which keeps the cookie that the socket had. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct owner_key);
	__type(value, struct owner);
} owners SEC(".maps");

/* The processes of a command, by thread group. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8);
} family SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

/* Ends that were not told since the last one that was, of each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} untold SEC(".maps");

/* Keeps the types in the object's BTF, for bpf2go. */
const struct event *unused_event __attribute__((unused));
const enum ending *unused_ending __attribute__((unused));
const enum number *unused_number __attribute__((unused));

#endif
