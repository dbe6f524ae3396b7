/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The tables of the tracing programs, and what the loader sets. */
#ifndef LINGER_MAPS_H
#define LINGER_MAPS_H

#include "trace.h"

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

/* Read and written by table.h alone. */
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
