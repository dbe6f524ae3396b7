package trace

//go:generate -command bpf2go go run github.com/cilium/ebpf/cmd/bpf2go@v0.22.0 -cc clang-14 -strip llvm-strip-14 -tags linux
//go:generate bpf2go -type event -type ending -type number bpf trace.bpf.c -- -I../bpf -O2 -Wall -Werror
