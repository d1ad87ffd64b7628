# Every target works on a fresh Debian 12 machine with Go, git and make; what
# else is needed, scripts/install-test-tools installs.

TOOLS       := $(CURDIR)/.tools/bin
FUZZTIME    ?= 10s
SOAK        ?= 30m
CONFORMANCE ?=
export PATH := $(TOOLS):$(PATH)

.PHONY: help run lint packages check test clients acceptance soak bench bench-gc bench-proxy bench-s3 fuzz conformance

help: ## what there is
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 13

run: ## serve on 127.0.0.1:5000, data in ./berth-data
	go run ./cmd/berth serve

lint:
	scripts/install-test-tools check
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "run gofmt -w on:" $$unformatted >&2; exit 1; }
	for module in . test bench; do (cd $$module && go vet ./... && staticcheck ./...) || exit 1; done

packages:
	scripts/install-test-tools check
	CGO_ENABLED=1 go test -race ./...
	cd bench && go test ./...

check: lint packages ## format, vet, staticcheck, and the packages' tests with the race detector

test: packages clients ## all tests: of the packages, with real clients, kills, restarts, full disks, load

# The second half of test. One folder mode, so that the table of clients shows.
clients:
	scripts/install-test-tools test
	cd test && go test -v -timeout 120m
	cd test && go test -v -timeout 30m ./soak

# The 40 GiB of S3 are discarded by a stand-in for the service: no disk need hold them.
acceptance: ## test/ as for a release: 200 kills, blobs of 1 GiB, of 6 GiB on S3
	BERTH_KILLS=200 BERTH_BLOB_MIB=1024 BERTH_S3_BLOB_MIB=6144 BERTH_S3_MIB=2048 BERTH_S3_DISCARD=true $(MAKE) --no-print-directory clients

soak: ## random load on a fleet whose parts are killed, for SOAK (30m); see docs/soak.md
	scripts/install-test-tools soak
	cd test && SOAK=$(SOAK) go test ./soak -run TestReplicas -v -count 1 -timeout 0

bench: ## the same loads on Berth, on distribution and on a bare server
	scripts/install-test-tools bench
	cd bench && go run .

bench-gc: ## pushes and pulls beside garbage collection, on 100 000 manifests
	scripts/install-test-tools check
	BERTH_BENCH_MANIFESTS=$${BERTH_BENCH_MANIFESTS:-100000} BERTH_BENCH_SECONDS=$${BERTH_BENCH_SECONDS:-10} \
		go test ./internal/hosted -run '^$$' -bench Collection -benchtime 1x -timeout 2h

bench-proxy: ## Berth as a cache: against its upstream, and against what it serves of its own
	scripts/install-test-tools bench
	cd bench && go run . -proxy $(if $(QUICK),-quick)

bench-s3: ## pushes and pulls of Berth on S3, and of the SDK straight to the same service
	scripts/install-test-tools check
	cd bench && go run . -s3 $(if $(QUICK),-quick)

fuzz: ## each fuzz target for FUZZTIME (10s)
	scripts/fuzz $(FUZZTIME)

conformance: ## the official OCI suite: make conformance CONFORMANCE=/path/to/its/binary
	$(if $(METADATA)$(STORAGE)$(REPLICAS),scripts/install-test-tools soak)
	scripts/conformance $(CONFORMANCE)
