package lab

var twRecycle = Scenario{
	Slug:   "tw-recycle",
	Title:  "net.ipv4.tcp_tw_recycle is on",
	Cure:   "it is off",
	Cannot: "kernel 4.12 removed net.ipv4.tcp_tw_recycle",
}
