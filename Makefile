# Carillon's tasks. Each one first runs tests/setup, which finds or fetches protoc, etcd and a
# MongoDB-protocol server, and does nothing when they are there.

ROOT := $(abspath $(dir $(lastword $(MAKEFILE_LIST))))
TARGET := $(or $(CARGO_TARGET_DIR),$(ROOT)/target)
export PATH := $(ROOT)/target/stack/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test soak check bench fuzz picture setup clean-demo

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: setup ## Start etcd, MongoDB, three workers and sample jobs, and open the console
	@cargo build --release --bin carillon --bin carillon-worker --bin demo
	@$(TARGET)/release/demo

# The scenarios run the programs themselves, so those are built before the tests.
test: setup ## Run every test, those on real servers too
	@cargo build --workspace --bins
	@cargo test --workspace

# Where a worker dies and what its clock shows can be chosen in a debug build only.
soak: setup ## Do random faults to a fleet for MINUTES (30); SEED=, JOBS=, WITHOUT= as soak --help says
	@cargo build --profile checked --bin carillon-worker --bin soak
	@$(TARGET)/checked/soak

check: setup ## Format, lints, documentation, and licences where cargo-deny is installed
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' cargo doc --workspace --no-deps --document-private-items
	@if cargo deny --version >/dev/null 2>&1; then \
		cargo deny check licenses bans sources; \
	else \
		echo 'cargo deny: skipped, not installed (cargo install --locked cargo-deny)'; \
	fi

bench: setup ## Run the benchmarks; FLEET_BENCH=claims,cold and RESULTS_BENCH=latency pick parts
	@cargo bench --bench time
	@cargo build --release --bin carillon-worker
	@cargo bench --bench execute
	@cargo bench --bench fleet
	@cargo bench --bench results

# libFuzzer's coverage needs flags that a stable compiler takes only from RUSTC_BOOTSTRAP.
FUZZ_SECONDS ?= 1800
fuzz: setup ## Try random schedules for FUZZ_SECONDS (1800)
	@PATH="$(TARGET)/fuzz/bin:$$PATH"; cargo fuzz --version >/dev/null 2>&1 || { \
		echo 'fuzz: installing cargo-fuzz into target/fuzz'; \
		cargo install --quiet --locked cargo-fuzz --root $(TARGET)/fuzz; }
	@mkdir -p $(TARGET)/fuzz/corpus
	@PATH="$(TARGET)/fuzz/bin:$$PATH" RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir core/fuzz \
		--target-dir $(TARGET)/fuzz --sanitizer none schedule $(TARGET)/fuzz/corpus core/fuzz/seeds \
		-- -max_total_time=$(FUZZ_SECONDS) -max_len=256 -print_final_stats=1

picture: setup ## Draw docs/console.svg from the real console
	@cargo build --release --bin carillon --bin carillon-worker --bin picture
	@mkdir -p $(ROOT)/docs
	@$(TARGET)/release/picture $(ROOT)/docs/console.svg --size 120x36

setup: ## Check the machine and fetch what is missing
	@$(ROOT)/tests/setup

clean-demo: ## Remove what a demo left behind
	rm -rf $(ROOT)/target/demo
