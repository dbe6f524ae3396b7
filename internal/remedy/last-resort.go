package remedy

func lingerZero(at *site) Remedy {
	return Remedy{
		Title:    "Abort connections in place of closing them (SO_LINGER with zero)",
		Kind:     LastResort,
		Change:   "Set SO_LINGER to {1, 0} before close(), once the peer has answered for all that was sent.",
		Examples: examplesFor(at.owner(), lingerers),
		Frees:    "all of its TIME_WAIT: close() sends a reset, and neither side keeps anything",
		Risk: "DATA IS LOST: what was written and is not yet acknowledged is thrown away, and the peer, once it has read what had arrived, " +
			"gets ECONNRESET in place of the end.",
		NotWhen:   "the end of the data matters and nothing above TCP acknowledges it; most of the time",
		Mechanism: "A socket that lingers for zero seconds is reset (net/ipv4/tcp.c, tcp_disconnect): RFC 9293's ABORT.",
		Kernels:   "all",
	}
}
