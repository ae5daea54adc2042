# The commands a person must know: make demo, make test, make check. The others serve them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
SUITES := $(CURDIR)/target/suites
RIVALS := $(CURDIR)/target/rivals
FUZZER := $(CURDIR)/target/fuzzer
# Rustup puts cargo where a new shell finds it, but not a running one.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
export LAMINA_FS ?= $(TARGET)/release/lamina-fs
export LAMINA_SNAPSHOTTER ?= $(TARGET)/release/lamina-snapshotter
export LAMINA ?= $(TARGET)/release/lamina
export LAMINA_OCI ?= $(TARGET)/release/lamina-oci
export LAMINA_SUITES ?= $(SUITES)/bin

.PHONY: help demo demo-fs test check deps suites-deps rivals-deps compare-suites compare-runtimes containerd-versions systemd-units bench bench-deps bench-unpack bench-ctr-run bench-start build soak fuzz fuzz-deps

help:
	@echo "make demo            load a Debian image, run it, commit what changed and run that, as an unprivileged user"
	@echo "make demo-fs         mount a Debian system from three layers by lamina-fs alone, as an unprivileged user"
	@echo "make test            everything: the oracle, mounted, rootless, snapshotter and third-party suites (root, some 20 minutes)"
	@echo "make check           what needs no privilege and little time: format, lints, unit tests"
	@echo "make soak            2,000 containers come and go, and nothing grows or is left (root; some 30 minutes; alone on the machine)"
	@echo "make fuzz            what comes from strangers, under libFuzzer: a minute a target (FUZZ='SECONDS [TARGET...]'; a C++ compiler)"
	@echo "make bench           Lamina, overlayfs and the FUSE rivals side by side, with plots in target/bench, and bench-start (root; BENCH=--quick for a smoke run)"
	@echo "make bench-unpack    the same image unpacked by Lamina, umoci, podman and containerd, side by side (root; some 5 minutes)"
	@echo "make bench-ctr-run   the time of ctr run on Lamina, overlayfs and fuse-overlayfs, side by side (root; some 3 minutes)"
	@echo "make bench-start     how a container starts: lamina-oci beside crun and runc, lamina beside podman (root; some 2 minutes; a part of make bench)"
	@echo "make compare-runtimes  the OCI specification's MUSTs asked of lamina-oci, runc and crun (root)"
	@echo "make containerd-versions  Debian's containerd 1.6, 1.7 and 2 on the snapshotter, up to a pod (root; downloads 200 MB)"
	@echo "make systemd-units   the snapshotter's units in a Debian that is booted for it (root; downloads 100 MB)"
	@echo "make compare-suites  the third-party suites on overlayfs, fuse-overlayfs and Lamina, side by side (root)"

demo: deps build
	@scripts/demo

demo-fs: deps build
	@scripts/demo-fs

# The runner's summary comes last. Without nextest all tests of a binary share a process, and a program that one of them starts has, until its
# execve(2), what the others have open: their mounts are busy then, so there is one thread.
test: deps suites-deps build
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace --no-fail-fast; else cargo test --workspace --no-fail-fast -- --test-threads=1; fi

# Without nextest, which would end it after half an hour.
soak: deps build
	@LAMINA_SOAK=$(or $(LAMINA_SOAK),2000) cargo test --quiet -p lamina-tests --test lamina --test runtime soak:: -- --nocapture --test-threads=1

fuzz: deps fuzz-deps build
	@PATH=$(FUZZER)/bin:$$PATH scripts/fuzz $(FUZZ)

fuzz-deps: deps
	@test -x $(FUZZER)/bin/cargo-fuzz || cargo install --quiet --locked --root $(FUZZER) cargo-fuzz@0.13.2
	@command -v c++ >/dev/null || ! command -v apt-get >/dev/null || [ "$$(id -u)" != 0 ] || \
		DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install --no-install-recommends g++ >/dev/null

# fuzz/ is a workspace of its own: what can be seen without building it is that its lock file fits.
check:
	cargo metadata --quiet --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo test --quiet --workspace --exclude lamina-tests --lib --bins
	cargo test --quiet -p lamina-tests --test tidy

build: deps
	@cargo build --release --quiet -p lamina-fs -p lamina-snapshotter -p lamina-runtime

deps:
	@scripts/deps

suites-deps: deps
	@test -x $(SUITES)/bin/pjdfstest -a -x $(SUITES)/bin/fsx || test -x $(LAMINA_SUITES)/pjdfstest -a -x $(LAMINA_SUITES)/fsx || \
		cargo install --quiet --locked --root $(SUITES) pjdfstest@0.2.2 fsx@0.3.2

rivals-deps: deps
	@test -x $(RIVALS)/bin/fuse-overlayfs || cargo install --quiet --locked --root $(RIVALS) fuse-overlayfs@2.0.0

compare-suites: suites-deps rivals-deps build
	@cargo run --quiet --release -p lamina-tests --bin compare-suites

compare-runtimes: build
	@cargo run --quiet --release -p lamina-tests --bin compare-runtimes

# Neither is part of `make test`: they download whole systems.
containerd-versions: build
	@scripts/containerd-versions $(SUITE)

systemd-units: build
	@scripts/systemd-units $(SUITE)

# Rivals that cannot be installed are named by the comparison and left out.
bench: deps rivals-deps bench-deps build
	@cargo build --release --quiet -p lamina-benches --bin compare
	@$(TARGET)/release/compare --fuse-overlayfs-2 $(RIVALS)/bin/fuse-overlayfs $(BENCH)
	@benches/start $(TARGET)/release

bench-deps:
	@command -v fio >/dev/null && command -v unionfs >/dev/null || ! command -v apt-get >/dev/null || [ "$$(id -u)" != 0 ] || \
		DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install --no-install-recommends fio unionfs-fuse git >/dev/null

bench-unpack: deps
	@cargo build --release --quiet -p lamina-snapshotter
	@benches/unpack $(TARGET)/release/lamina-snapshotter

bench-start: build
	@benches/start $(TARGET)/release

bench-ctr-run: build
	@benches/ctr-run $(TARGET)/release
