/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The addresses of a socket as 16 bytes each, IPv4 as ::ffff:a.b.c.d. They lie at a multiple of 4 bytes. */
#ifndef LINGER_ADDRESS_H
#define LINGER_ADDRESS_H

#include "kernel.h"

static __always_inline void copy_ipv6(__u8 *to, const struct in6_addr *from)
{
	__u32 *words = (__u32 *)to;

	words[0] = from->in6_u.u6_addr32[0];
	words[1] = from->in6_u.u6_addr32[1];
	words[2] = from->in6_u.u6_addr32[2];
	words[3] = from->in6_u.u6_addr32[3];
}

static __always_inline void map_ipv4(__u8 *to, __be32 addr)
{
	__u32 *words = (__u32 *)to;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = addr;
}

static __always_inline void copy_local(__u8 *to, const struct sock_common *sk)
{
	if (sk->skc_family == AF_INET)
		map_ipv4(to, sk->skc_rcv_saddr);
	else if (bpf_core_field_exists(sk->skc_v6_rcv_saddr))
		copy_ipv6(to, &sk->skc_v6_rcv_saddr);
}

static __always_inline void copy_remote(__u8 *to, const struct sock_common *sk)
{
	if (sk->skc_family == AF_INET)
		map_ipv4(to, sk->skc_daddr);
	else if (bpf_core_field_exists(sk->skc_v6_daddr))
		copy_ipv6(to, &sk->skc_v6_daddr);
}

/* any_address makes one of 0.0.0.0 and ::. */
static __always_inline void any_address(__u8 *local)
{
	__u32 *words = (__u32 *)local;

	if (!words[0] && !words[1] && !words[3])
		words[2] = 0;
}

#endif
