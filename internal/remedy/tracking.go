package remedy

import (
	"fmt"
	"strconv"

	"linger/internal/figure"
	"linger/internal/setting"
)

// What relieves connection tracking and translation.

// entryBytes is what an entry of the table takes: struct nf_conn, its extensions and
// its part of the hash table, as slabinfo shows on 6.x.
const entryBytes = 320

func raiseTracked(at *site) Remedy {
	const key = setting.TrackedMax
	now := int64(1 << 17)
	if at.ns != nil && at.ns.Conntrack != nil {
		now = at.ns.Conntrack.Max
	}
	value := strconv.FormatInt(2*now, 10)
	return Remedy{
		Title:     "Raise the limit of tracked connections to " + figure.Count(2*now),
		Kind:      Setting,
		Now:       "sysctl -w " + assigned(key, value) + " " + assigned(setting.TrackedBuckets, value),
		Sets:      []Assignment{{key, value}},
		Persist:   &Persist{File: HandFile, Line: key + " = " + value, Note: "nf_conntrack must be loaded before (/etc/modules-load.d)"},
		Frees:     fmt.Sprintf("room for %s entries more", figure.Count(now)),
		Risk:      fmt.Sprintf("up to %s more kernel memory when full", figure.Size(now*entryBytes)),
		NotWhen:   "the entries are of connections that need no tracking",
		Mechanism: setting.Of(key).Mechanism(),
		Kernels:   "all; from 5.15 as many buckets as entries by default, before a quarter",
	}
}

func shorterTrackedTimeWait(at *site) Remedy {
	const key, value = setting.TrackedTimeWait, "60"
	return Remedy{
		Title:   "Let the table forget closed connections after 60 s",
		Kind:    Setting,
		Now:     at.set(key, value),
		Sets:    []Assignment{{key, value}},
		Persist: at.persist(key, value),
		Frees:   "half of the entries in its TIME_WAIT, and the ports that translations hold by them",
		Risk: "At 60 s it forgets when the servers do. Lower values give a port away while a server still remembers it: new " +
			"connections stall there.",
		NotWhen:   "servers keep TIME_WAIT for longer than 60 s, as other systems than Linux may",
		Mechanism: "The table's TIME_WAIT of 120 s is a time-out of its own (net/netfilter/nf_conntrack_proto_tcp.c).",
		Kernels:   setting.Of(key).Kernels,
	}
}

func noTrack(at *site) Remedy {
	return Remedy{
		Title:  "Do not track what no rule asks for",
		Kind:   Application,
		Change: "For a busy service that needs neither NAT nor stateful rules, let its packets pass untracked, in both directions.",
		Examples: []Example{{"nftables", "chain pre { type filter hook prerouting priority raw; tcp dport 443 notrack; }  " +
			"chain out { type filter hook output priority raw; tcp sport 443 notrack; }"}},
		Frees:     "all entries of that service",
		Risk:      "Rules that say ct state established no longer match it: accept it by port.",
		NotWhen:   "the connections are translated",
		Mechanism: "notrack takes a packet out before an entry is made (nft(8)).",
		Kernels:   "all; notrack in nftables from 4.9",
	}
}

func moreNATAddresses(at *site) Remedy {
	return Remedy{
		Title: "Translate to more addresses",
		Kind:  Address,
		Change: "Give the translation several addresses in place of one; each has its ports for each destination anew. More " +
			"addresses of the destination do the same.",
		Examples:  []Example{{"nftables", `snat to 192.0.2.10-192.0.2.13`}},
		Frees:     "as many ports again with each address",
		Risk:      "A peer that allows only known addresses must allow these too.",
		NotWhen:   "one client opens all the connections: then let it keep them",
		Mechanism: "A port is taken for one translated address and destination (net/netfilter/nf_nat_core.c).",
		Kernels:   "all",
	}
}

func widerNATPorts(at *site) Remedy {
	return Remedy{
		Title: "Let the translation use all ports",
		Kind:  Application,
		Change: "Where the rule names a range of ports, widen it; without one the kernel keeps the client's own port where that " +
			"is free, and else takes 1024 to 65535.",
		Examples:  []Example{{"nftables", `masquerade to :1024-65535 fully-random`}, {"iptables", `-j MASQUERADE --random-fully`}},
		Frees:     "up to 64,512 ports for each destination",
		Risk:      "none, but on a host whose own services listen in that range on the translated address",
		NotWhen:   "no rule narrows the ports",
		Mechanism: "The rule's range bounds the search for a free port (nf_nat_l4proto_unique_tuple).",
		Kernels:   "all",
	}
}
