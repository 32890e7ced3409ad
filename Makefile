# `make help` lists the targets. Only Rust is needed for `run`; `test` installs the rest of what it needs into
# .deps/ (Node, the conformance suites, real MCP servers and clients).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo

.PHONY: help run test setup fmt fmt-check lint audit

help: ## What there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

run: ## Everything on this machine, with a demo MCP server: http://127.0.0.1:8080/mcp
	@$(CARGO) run -q -p mcpctl -- up -f examples/quickstart.yaml

test: setup fmt-check lint ## All checks and all tests, set-up included
	$(CARGO) test --workspace --no-fail-fast

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
