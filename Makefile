# The commands of the house. `run` and `test` do all set-up they need on a fresh Debian or Ubuntu machine with a Rust toolchain.

SHELL := /bin/bash
.PHONY: run test lint unit sim e2e bench network recovery churn connects matrix durability fuzz load ideal setup toolchain

run: toolchain ## build and start the server with development keys
	cargo run --release -- --dev

test: setup lint unit e2e ## everything that CI runs

setup: toolchain
	tests/e2e/setup.sh

# A C compiler is all that the crates need beside Rust (AWS-LC and SQLite are C).
toolchain:
	@command -v cc >/dev/null || { $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends build-essential; }

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

lint:
	cargo fmt --all -- --check
	cargo clippy --all-targets -- -D warnings

unit:
	cargo test

sim: toolchain ## calls over bad networks in virtual time, over 30 seeds instead of a few (SIM_SEEDS=…; one again: SIM_SEED=17; each seed twice and the same: SIM_TWICE=1)
	SIM_SEEDS=$(or $(SIM_SEEDS),30) cargo test --test sim -- --nocapture

# `--no-run` builds the binary with the same features as the tests do: `cargo build` would build much of it again.
e2e: setup
	cargo test --no-run
	cd tests/e2e && npm test

network: setup ## a browser on bad networks: every row of tests/e2e/stories/network.test.mjs, with its figures (root)
	cargo test --no-run
	cd tests/e2e && NETWORK=all node --test stories/network.test.mjs stories/slow-tcp.test.mjs stories/warp.test.mjs

recovery: setup ## networks and servers that go away and come back, 50 times each (RECOVERY_TRIALS=…), with a browser (root)
	cargo test --no-run
	cd tests/e2e && RECOVERY_TRIALS=$(or $(RECOVERY_TRIALS),50) node --test stories/recovery.test.mjs

matrix: setup ## who gets through: every kind of client network against every kind of server network, with times (root, iproute2, nftables)
	cargo test --no-run
	cd tests/e2e && MATRIX=all node --test stories/matrix.test.mjs

bench: setup ideal ## the steps of forwarding, the server beside the least it can cost, join, layer switch and voice times with a real browser
	cargo bench --bench forwarding --bench subscriptions --bench voice_gateway
	cargo build --release
	cd tests/e2e && node ../../benches/join.mjs && node ../../benches/quality.mjs && node ../../benches/voice.mjs

load: toolchain ## clients by the hundred against a server started for it (LOAD="--profile meeting --duration 60s"; see BENCHMARKS.md)
	cargo run --release -- load-test $(or $(LOAD),--profile livestream --scale 0.5)

ideal: toolchain ## the server against the least that forwarding the same packets can cost, in turns (IDEAL="--profile meeting")
	cargo bench --bench ideal -- $(or $(IDEAL),--profile livestream --scale 0.5)

durability: toolchain ## the server killed at 200 moments, which must lose nothing that it has acknowledged (DURABILITY_SEED=…)
	DURABILITY_POINTS=$(or $(DURABILITY_POINTS),200) cargo test --test api -- --nocapture a_kill_at_any_moment

churn: toolchain ## an hour of people who come and go (CHURN_SECONDS=…): memory, files and threads of the server stay what they were
	CHURN_SECONDS=$(or $(CHURN_SECONDS),3600) cargo test --test api -- --nocapture nothing_stays_of_those

connects: toolchain ## 2,000 connections a second with bad tokens while others join (CONNECTS_SECONDS=…): their times and the server's memory
	CONNECTS_SECONDS=$(or $(CONNECTS_SECONDS),20) cargo test --test api -- --nocapture a_crowd_without_tokens

fuzz: toolchain ## every fuzz target for 60 s (FUZZ_SECONDS=…)
	fuzz/run.sh $(or $(FUZZ_SECONDS),60)
