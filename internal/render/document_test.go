package render

import (
	"fmt"
	"net/netip"
	"time"

	"linger/internal/diagnose"
	"linger/internal/remedy"
	"linger/internal/snapshot"
	"linger/internal/story"
	"linger/internal/tcp"
)

// The documents here are made by hand: what the printers do with a text is
// under test, not how it came about.

func endpoint(text string) tcp.Endpoint {
	e, err := tcp.ParseEndpoint(text)
	if err != nil {
		panic(err)
	}
	return e
}

func limit(v float64) *float64 { return &v }

// busyHost is a host with one namespace, in which one client closes 470
// connections a second since 48 s.
func busyHost() *snapshot.Snapshot {
	closes := &snapshot.CloseHistory{Past: 3}
	for i := range 48 {
		closes.PerSecond[i] = uint32(470 + 13*(i%7) - 9*(i%4))
	}
	closes.PerSecond[47] = 120
	var states tcp.States
	states[tcp.TimeWait] = 27_310
	states[tcp.Established] = 880
	group := snapshot.Group{
		Role: tcp.Connector, Rule: tcp.ByFanOut,
		Local: endpoint("10.0.0.5"), Remote: endpoint("10.0.0.9:5432"),
		States: states, InRange: states, Closes: closes,
		Owners: []snapshot.Owner{{Process: "api-server", PID: 4242, Container: "3f2a9c01d2e4", How: snapshot.Inferred, Sockets: 880}},
	}
	all := states
	all[tcp.Listen] = 3
	return &snapshot.Snapshot{
		Schema:   snapshot.Schema,
		TakenAt:  time.Date(2026, 3, 4, 3, 12, 9, 250_000_000, time.UTC),
		WindowMS: 1000,
		Host: snapshot.Host{
			Name: "web-1", Kernel: "6.12.9", BootID: "6c0a2d6e-6d5e-4a3f-9a51-1f2f1e6f7a11", CPUs: 8,
			Settings: snapshot.Settings{"net.ipv4.tcp_mem": "188319 251092 376638"},
			Boot: []snapshot.BootSetting{
				{
					Key:     "net.ipv4.tcp_fin_timeout",
					Value:   "30",
					File:    "/etc/sysctl.d/10-tuning.conf",
					Line:    4,
					Loaders: []string{"systemd-sysctl", "procps"},
				},
			},
		},
		Namespaces: []snapshot.Namespace{
			{
				Cookie:    1,
				Inode:     4026531840,
				Label:     snapshot.Label{Kind: snapshot.LabelHost, Name: "host"},
				Own:       true,
				PID:       1,
				Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.5")},
				Settings: snapshot.Settings{
					"net.ipv4.ip_local_port_range": "32768 60999", "net.ipv4.ip_local_reserved_ports": "",
					"net.ipv4.tcp_tw_reuse": "2", "net.ipv4.tcp_timestamps": "1",
				},
				Counters: snapshot.Counters{
					Total: map[string]uint64{"TcpExtTW": 9_120_411, "TcpExtTWRecycled": 12},
					Rise:  map[string]uint64{"TcpExtTW": 471},
				},
				Sockstat:        &snapshot.Sockstat{InUse4: 883, TimeWait: 27_310},
				SocketsRead:     true,
				SocketsComplete: true,
				States:          all,
				Listeners: []snapshot.Listener{
					{Local: endpoint("*:8080"), Backlog: 4096, Owners: []snapshot.Owner{{Process: "api-server", PID: 4242, How: snapshot.Listening}}},
				},
				Groups: []snapshot.Group{group},
			},
		},
		Gaps: []snapshot.Gap{},
	}
}

// exhaustion is the finding of busyHost.
func exhaustion() diagnose.Finding {
	return diagnose.Finding{
		Problem:  "port-exhaustion",
		Severity: diagnose.Critical,
		Netns:    diagnose.Netns{Cookie: 1, Inode: 4026531840, Label: "host", PID: 1, Own: true},
		Subject:  diagnose.Subject{Role: tcp.Connector, Local: endpoint("10.0.0.5"), Remote: endpoint("10.0.0.9:5432")},
		Owners:   []snapshot.Owner{{Process: "api-server", PID: 4242, Container: "3f2a9c01d2e4", How: snapshot.Inferred, Sockets: 880}},
		Summary:  "28,190 of 28,232 source ports to 10.0.0.9:5432 are used, 27,310 of them by TIME_WAIT; none is left in 1 s.",
		Why: "This host opens short connections to 10.0.0.9:5432 and closes them first, so each keeps its port for 60 s. The " +
			"closes began 48 s ago.",
		Evidence: []diagnose.Evidence{
			{
				Name:   "ports used",
				Value:  28_190,
				Limit:  limit(28_232),
				Unit:   "ports",
				Source: "sock_diag",
				Check:  "ss -Htan src 10.0.0.5 dst 10.0.0.9 dport = :5432 | wc -l",
			},
			{
				Name:   "closes a second",
				Value:  486.4,
				Limit:  limit(455.9),
				Unit:   "closes/s",
				Source: "remaining time of the TIME_WAIT sockets",
				Check:  "nstat -az TcpExtTW",
			},
			{Name: "memory of TIME_WAIT", Value: 13_982_720, Unit: "bytes", Source: "slab", Check: "grep tw_sock_TCP /proc/slabinfo"},
		},
		RuledOut: []diagnose.RuledOut{
			{Suspect: "tcp_max_tw_buckets", Because: "27,310 of 131,072, and TCPTimeWaitOverflow did not rise"},
			{Suspect: "accept queue", Because: "ListenOverflows did not rise"},
			{Suspect: "tcp_tw_recycle", Because: "this kernel does not have it"},
		},
		Confidence: diagnose.Medium,
		Unsure: []string{
			"The kernel forgets the owner of a TIME_WAIT socket; api-server is inferred. How many connections are opened a second is " +
				"not known without tracing.",
		},
		WillNotHelp: []diagnose.Folklore{
			{Advice: "lower tcp_fin_timeout", Why: "it governs FIN_WAIT2 and does not touch TIME_WAIT (net/ipv4/tcp_minisocks.c)"},
		},
		SecondsLeft: limit(1),
		CausedBy:    "client-closes-first",
		Related: []diagnose.Finding{
			{
				Problem:     "client-closes-first",
				Severity:    diagnose.Warning,
				Confidence:  diagnose.High,
				Netns:       diagnose.Netns{Cookie: 1, Inode: 4026531840, Label: "host", PID: 1, Own: true},
				Subject:     diagnose.Subject{Role: tcp.Connector, Local: endpoint("10.0.0.5"), Remote: endpoint("10.0.0.9:5432")},
				Summary:     "This host closes 486 connections a second to 10.0.0.9:5432 first.",
				Owners:      []snapshot.Owner{},
				Evidence:    []diagnose.Evidence{},
				RuledOut:    []diagnose.RuledOut{},
				Unsure:      []string{},
				WillNotHelp: []diagnose.Folklore{},
			},
		},
	}
}

// remedies are those of the findings here.
func remedies(f diagnose.Finding) []remedy.Remedy {
	switch {
	case f.Problem == "close-wait-leak":
		return []remedy.Remedy{
			{
				ID:     "close",
				Kind:   remedy.Application,
				Title:  "Close the connection when read() returns 0",
				Change: "Find the path in billing that forgets to close.",
				Frees:  "412 descriptors",
			},
		}
	case f.Problem != "port-exhaustion":
		return nil
	}
	return []remedy.Remedy{
		{
			ID:    "keep-alive",
			Kind:  remedy.Application,
			Title: "Keep connections to 10.0.0.9:5432 open and use them again",
			Change: "Give api-server a connection pool: as many connections as are busy at once (880 now), none closed while idle " +
				"for less than a minute.",
			Examples:  []remedy.Example{{Program: "Go", Line: "db.SetMaxIdleConns(880); db.SetConnMaxIdleTime(time.Minute)"}},
			Frees:     "all 27,310 ports within 60 s",
			Risk:      "the server must allow 880 connections that stay",
			NotWhen:   "the server limits connections below 880",
			Mechanism: "a connection that is not closed leaves no TIME_WAIT",
			Kernels:   "all",
		},
		{
			ID:        "tw-reuse",
			Kind:      remedy.Setting,
			Title:     "Let connect() take over TIME_WAIT sockets older than a second",
			Now:       "sysctl -w net.ipv4.tcp_tw_reuse=1",
			Persist:   &remedy.Persist{File: "/etc/sysctl.d/90-local.conf", Line: "net.ipv4.tcp_tw_reuse = 1"},
			Frees:     "26,824 of 27,310 ports at once",
			Risk:      "none known to one server; behind 10.0.0.9 there must be one time stamp clock",
			NotWhen:   "10.0.0.9 is a balancer of several servers",
			Mechanism: "the next time stamp tells the connections apart (RFC 6191)",
			Kernels:   "value 1 since 2.6, time stamps needed",
		},
		{
			ID: "port-range", Kind: remedy.Setting, Title: "Widen the ephemeral port range",
			Now:     `sysctl -w net.ipv4.ip_local_port_range="10240 60999"`,
			Persist: &remedy.Persist{File: "/etc/sysctl.d/90-local.conf", Line: "net.ipv4.ip_local_port_range = 10240 60999"},
			Frees:   "22,528 ports more, for 375 closes/s more", Risk: "a service that begins to listen there may find its port taken", NotWhen: "",
			Mechanism: "connect() chooses from more ports", Kernels: "all",
		},
	}
}

// note is an informative finding.
func note() diagnose.Finding {
	return diagnose.Finding{
		Problem: "connection-churn", Severity: diagnose.Info, Confidence: diagnose.High,
		Netns:    diagnose.Netns{Cookie: 1, Inode: 4026531840, Label: "host", PID: 1, Own: true},
		Subject:  diagnose.Subject{Role: tcp.Acceptor, Local: endpoint("*:8080")},
		Owners:   []snapshot.Owner{{Process: "nginx", PID: 991, How: snapshot.Listening}},
		Summary:  "*:8080: the service closes 41/s connections first; 2,460 TIME_WAIT sockets cost 615 KiB and no port.",
		Brief:    "the service closes 41/s connections first; 2,460 TIME_WAIT sockets cost 615 KiB and no port.",
		Why:      "A TIME_WAIT socket of an acceptor shares the service's port.",
		Evidence: []diagnose.Evidence{}, RuledOut: []diagnose.RuledOut{}, Unsure: []string{}, WillNotHelp: []diagnose.Folklore{},
	}
}

func held() []diagnose.Absent {
	return []diagnose.Absent{
		{Problem: "time-wait-overflow", Because: "27,310 of 131,072 time-wait sockets, and none was refused"},
		{Problem: "fin-timeout", Because: "net.ipv4.tcp_fin_timeout is 60"},
		{Problem: "close-wait-leak", Because: "0 sockets in CLOSE_WAIT"},
	}
}

func document(s *snapshot.Snapshot, findings ...diagnose.Finding) *story.Document {
	return &story.Document{
		Snapshot:  s,
		Diagnosis: diagnose.Diagnosis{Findings: findings, Absent: held()},
		Remedies:  remedies,
		Elapsed:   1240 * time.Millisecond,
	}
}

// incident is one critical problem.
func incident() *story.Document {
	return document(busyHost(), exhaustion())
}

// incidentV6 is the same over IPv6, in a pod, with the longest addresses.
func incidentV6() *story.Document {
	f := exhaustion()
	f.Subject.Local = endpoint("2001:db8:ffff:ffff:ffff:ffff:ffff:fff5")
	f.Subject.Remote = endpoint("[2001:db8:ffff:ffff:ffff:ffff:ffff:fff9]:65535")
	f.Netns = diagnose.Netns{Cookie: 1, Inode: 4026531840, Label: "pod 0c7e5a9e-7c57-4d0e-9a8a-5b1f3a2f1c11", PID: 31337}
	f.Summary = "28,190 of 28,232 source ports to " + f.Subject.Remote.String() + " are used, 27,310 of them by TIME_WAIT; none " +
		"is left in 1 s."
	f.Owners[0].Pod = "0c7e5a9e-7c57-4d0e-9a8a-5b1f3a2f1c11"
	s := busyHost()
	s.Namespaces[0].Groups[0].Local, s.Namespaces[0].Groups[0].Remote = f.Subject.Local, f.Subject.Remote
	return document(s, f)
}

// incidentAndNotes is one problem with more beside it than a page holds.
func incidentAndNotes() *story.Document {
	d := incident()
	d.Diagnosis.Findings = append(d.Diagnosis.Findings, note(), note(), note(), note())
	d.Snapshot.Gaps = []snapshot.Gap{
		{What: "owners of sockets", Cause: "permission denied", Needs: "root"},
		{What: "pressure", Cause: "no such file", Needs: "CONFIG_PSI"},
	}
	return d
}

// trouble is many problems and notes, some things unread, and a process with a
// hostile name.
func trouble() *story.Document {
	d := incident()
	leak := diagnose.Finding{
		Problem: "close-wait-leak", Severity: diagnose.Warning, Confidence: diagnose.High,
		Netns:   diagnose.Netns{Cookie: 2, Inode: 4026532201, Label: "pod billing", PID: 5150},
		Subject: diagnose.Subject{Role: tcp.Acceptor, Local: endpoint("*:9090")},
		Owners:  []snapshot.Owner{{Process: "bill\x1b[2Jing", PID: 5150, How: snapshot.Seen, Sockets: 412}},
		Summary: "bill\x1b[2Jing does not close 412 connections to *:9090 that its peers have closed.",
		Why:     "A socket stays in CLOSE_WAIT until its program closes it.",
		Evidence: []diagnose.Evidence{
			{Name: "descriptors", Value: 600, Limit: limit(1024), Unit: "descriptors", Source: "/proc/5150/fd", Check: "ls /proc/5150/fd | wc -l"},
		},
	}
	d.Diagnosis.Findings = append(d.Diagnosis.Findings, leak)
	for i := range 9 {
		f := leak
		f.Severity = diagnose.Warning
		f.Netns.Label = fmt.Sprintf("pod billing-%d", i)
		d.Diagnosis.Findings = append(d.Diagnosis.Findings, f)
	}
	for range 6 {
		d.Diagnosis.Findings = append(d.Diagnosis.Findings, note())
	}
	d.Diagnosis.Unknown = []diagnose.Unknown{{Problem: "tw-reuse", Netns: "process sleep", Needs: "root"}}
	d.Snapshot.Gaps = []snapshot.Gap{
		{What: "owners of sockets", Cause: "permission denied", Needs: "root"},
		{What: "sockets", Netns: "process sleep", Cause: "operation not permitted", Needs: "CAP_NET_ADMIN"},
		{What: "pressure", Cause: "no such file", Needs: "CONFIG_PSI"},
	}
	return d
}

// stranger is a problem of which little is known and much has to be said.
func stranger() *story.Document {
	d := incidentV6()
	f := &d.Diagnosis.Findings[0]
	f.Owners = nil
	f.Unsure = []string{"who made these connections: the kernel forgets the owner of a TIME_WAIT socket, and no live socket to " +
		f.Subject.Remote.String() + " could be matched to a process"}
	d.Remedies = func(f diagnose.Finding) []remedy.Remedy {
		list := remedies(f)
		list[0].Change = "Let the client keep a pool of connections to " + f.Subject.Remote.String() + " in place of a new one for each request."
		list[1].Risk = "it protects less against segments of the old connection that are still under way: time stamps tell them " +
			"apart, the closing handshake no longer does"
		list[1].Persist = &remedy.Persist{
			File: "the pod's manifest",
			Line: "spec.securityContext.sysctls: [{name: net.ipv4.tcp_tw_reuse, value: \"1\"}]",
		}
		return list
	}
	return d
}

// unread is a container of which no socket could be read.
func unread() *story.Document {
	d := document(busyHost())
	ns := &d.Snapshot.Namespaces[0]
	ns.Label = snapshot.Label{Kind: snapshot.LabelContainer, Name: "3f2a9c01d2e4"}
	ns.SocketsRead, ns.SocketsComplete, ns.States, ns.Groups = false, false, tcp.States{}, nil
	d.Diagnosis.Absent = nil
	d.Diagnosis.Unknown = []diagnose.Unknown{{Problem: "port-exhaustion", Needs: "sockets of the namespace"}}
	d.Snapshot.Gaps = []snapshot.Gap{{What: "sockets", Cause: "permission denied\nread again: no\nand again: no", Needs: "CAP_NET_ADMIN"}}
	return d
}

// calm is a host on which nothing is wrong, with a note.
func calm() *story.Document {
	d := document(busyHost(), note())
	d.Snapshot.Namespaces[0].Groups = nil
	return d
}
