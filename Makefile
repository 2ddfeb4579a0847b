# `make test` runs all tests that this machine can run; what needs more says why it skips.
SHELL := /bin/bash
GO ?= go
PACKAGES ?= ./...
# Names of requirements whose absence is a failure instead of a skip, separated by commas:
# clickhouse (the embedded engine), browser, compose, alertmanager, promtool, azurite (Azure Storage), containers, java, samples.
export SIGNINDIAG_TEST_REQUIRE ?=

.PHONY: test
test: ## all tests, with the race detector where a C compiler is there
	@command -v $(GO) >/dev/null || { echo "make test needs Go 1.26 or newer on the PATH" >&2; exit 1; }
	@race=; if [ "$$($(GO) env CGO_ENABLED)" = 1 ] && command -v "$$($(GO) env CC)" >/dev/null; then race=-race; else echo "no C compiler: the tests run without the race detector"; fi; \
	set -x; $(GO) test $$race -shuffle=on -timeout 60m $(PACKAGES)

.PHONY: build
build: ## the binary ./signindiag
	CGO_ENABLED=0 $(GO) build -trimpath -o signindiag ./cmd/signindiag

.PHONY: lint
lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l cmd detectors embedded integration lookup pipeline schemas sinks); \
	if [ -n "$$unformatted" ]; then echo "not gofmt'ed:" >&2; echo "$$unformatted" >&2; exit 1; fi
	$(GO) vet ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (default 30s)
	@set -e; for package in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "$$package $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $${FUZZTIME:-30s} $$package; \
	  done; done

.PHONY: bench
bench: ## benchmarks of every package
	$(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: generate
generate: ## the protobuf code anew; needs protoc
	$(GO) generate ./schemas

.PHONY: help
help:
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 12
