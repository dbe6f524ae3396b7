# linger needs Go 1.26, git and make; no C compiler.
# make test, as root, also installs the peers that tests run against.

GO       ?= go
# Tools are run by version, so that they stay out of go.mod.
GOTESTSUM   := gotest.tools/gotestsum@v1.13.0
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# Where the results of make test go, line by line as go test -json prints them.
RESULTS  ?= $(or $(TMPDIR),/tmp)/linger-test.json

export CGO_ENABLED = 0

.PHONY: build man generate test test-race test-random test-kernels bench lint

build:
	$(GO) build -trimpath -ldflags='-s -w' -o bin/ ./cmd/...

# Writes the manual pages to bin/man: man -l bin/man/linger.1
# They bear the date of the last commit, or of SOURCE_DATE_EPOCH; none where neither is known.
man: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct -- . 2>/dev/null)
man:
	$(GO) run ./scripts/man bin/man

# Builds the BPF objects, which are committed; needs clang 14.
generate:
	sh scripts/bpf-tools
	$(GO) generate ./...

test:
	sh scripts/test-peers
	$(GO) run $(GOTESTSUM) --format pkgname --jsonfile '$(RESULTS)' --raw-command -- sh scripts/go-test

# The same under the race detector, which needs a C compiler.
test-race:
	sh scripts/test-peers
	$(GO) run $(GOTESTSUM) --format pkgname --raw-command -- env CGO_ENABLED=1 sh scripts/go-test -race

# Fifty builds that seeds draw, each named by linger diagnose; takes two minutes and root.
test-random: build
	bin/linger lab random --seed 1 --count 50

# The BPF programs on the older kernels of Debian's releases, in a virtual machine; takes root and five minutes.
test-kernels:
	$(GO) run ./kernels

# Takes about twenty minutes and root; writes docs/benchmarks.md and docs/benchmarks-tracing.md.
bench: build
	$(GO) run ./bench -linger bin/linger -out docs/benchmarks.md
	$(GO) run ./bench -linger bin/linger -trace docs/benchmarks-tracing.md

lint:
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "gofmt -w would change:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) mod tidy -diff
	$(GO) test -run 'TestLinesFitAScreen|TestFilesCanBeRead|TestNamesDiffer' .
