# `make help` lists the targets. Only Rust is needed for `run`; `test` installs the rest of what it needs into
# .deps/ (Node, the conformance suites, real MCP servers and clients).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo

.PHONY: help run test setup fmt fmt-check lint audit guard guard-record fuzz \
	bench bench-quick bench-soak bench-parts bench-loader bench-build

help: ## What there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 15

run: ## Everything on this machine, with a demo MCP server: http://127.0.0.1:8080/mcp
	@$(CARGO) run -q -p mcpctl -- up -f examples/quickstart.yaml

test: setup fmt-check lint ## All checks and all tests, set-up included
	$(CARGO) test --workspace --no-fail-fast
	@$(MAKE) --no-print-directory guard

setup: ## What the end-to-end tests run against, into .deps/
	@tests/setup.sh

fmt: ## Format the code
	$(CARGO) fmt --all

fmt-check:
	$(CARGO) fmt --all --check

lint: ## Clippy, without a single warning
	$(CARGO) clippy --workspace --all-targets -- -D warnings

audit: ## Licences, sources and banned crates of the dependencies
	@command -v cargo-deny >/dev/null || { echo "installing cargo-deny"; $(CARGO) install --locked cargo-deny; }
	$(CARGO) deny check licenses bans sources

FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= envelope sse sealed yaml sync
# libFuzzer on the stable toolchain. What it adds to the corpus stays below target/: move what is worth keeping.
fuzz: ## Look for inputs that break the targets of fuzz/, FUZZ_SECONDS (60) for each of FUZZ_TARGETS
	@command -v cargo-fuzz >/dev/null || { echo "installing cargo-fuzz"; $(CARGO) install --locked cargo-fuzz; }
	@for target in $(FUZZ_TARGETS); do \
	  found=$(abspath $(CARGO_TARGET))/fuzz/corpus/$$target; mkdir -p $$found; \
	  RUSTC_BOOTSTRAP=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	    $(CARGO) fuzz run --features libfuzzer --target-dir $(CARGO_TARGET)/fuzz $$target $$found fuzz/corpus/$$target \
	    -- -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1; \
	done

CARGO_TARGET := $(or $(CARGO_TARGET_DIR),target)
# What the guard counts is optimised, in a profile of its own that is quick to build.
GUARD := $(CARGO) build -q --profile guard -p fleet-bench && $(CARGO_TARGET)/guard/fleet-bench guard

guard: ## Instructions of a call, beside what is recorded in bench/hot_path.txt (valgrind)
	$(GUARD)

guard-record: ## Record them
	$(GUARD) --record

# Peers: make bench PEERS='--peer other=http://127.0.0.1:3000/mcp,session,server_echo'
BENCH := $(CARGO_TARGET)/release/fleet-bench

bench-build:
	$(CARGO) build --release -p mcp-dataplane -p fleet-bench

bench: bench-build ## Side by side with nginx, long lists, big tables; written to docs/performance.md
	$(BENCH) run $(PEERS) --write .
	$(BENCH) list --write .
	$(BENCH) table --write .

bench-quick: bench-build ## The same in a minute, printed only
	$(BENCH) run --quick $(PEERS)

CALLS ?= 10000000
bench-soak: bench-build ## Whether memory grows over CALLS (10 million) calls; written to docs/performance.md
	$(BENCH) soak --calls $(CALLS) --write .

bench-parts: ## Parts of the data plane in process: time and allocations; FILTER for some of them
	$(CARGO) bench -q -p fleet-bench --bench in_process -- $(FILTER)

bench-loader: bench-build ## Our load beside wrk: is it the limit?
	$(BENCH) loader
