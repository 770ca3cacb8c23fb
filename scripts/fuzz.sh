#!/bin/sh
# Runs every fuzz target, or those named, for FUZZ_SECONDS each (60). Needs a nightly toolchain and cargo-fuzz.
set -eu
cd "$(dirname "$0")/../protocol/fuzz"

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzz: needs a nightly toolchain: rustup toolchain install nightly" >&2
    exit 1
fi
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "fuzz: needs cargo-fuzz: cargo install --locked cargo-fuzz" >&2
    exit 1
fi
[ $# -gt 0 ] || set -- $(cargo +nightly fuzz list)
for target; do
    echo "fuzz: $target, ${FUZZ_SECONDS:-60} s"
    cargo +nightly fuzz run "$target" -- -max_total_time="${FUZZ_SECONDS:-60}" -rss_limit_mb=1024 -timeout=10 -print_final_stats=1
done
