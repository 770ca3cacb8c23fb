#!/bin/sh
# Runs fuzz targets: `fuzz.sh [SECONDS] [TARGET...]`. Without targets all of them, without seconds FUZZ_SECONDS (60)
# for each. Installs cargo-fuzz if it is missing. The fuzzer's flags are unstable ones: a nightly toolchain has them,
# and a stable one takes them too when RUSTC_BOOTSTRAP says so.
set -eu
cd "$(dirname "$0")/../protocol/fuzz"

seconds=${FUZZ_SECONDS:-60}
case ${1:-} in
'' | *[!0-9]*) ;;
*)
    seconds=$1
    shift
    ;;
esac

if ! command -v c++ >/dev/null 2>&1; then
    echo "fuzz: a C++ compiler (c++) is missing; it builds the fuzzer: apt-get install g++" >&2
    exit 1
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz: installing cargo-fuzz"
    cargo install --locked --quiet cargo-fuzz
fi
if cargo +nightly --version >/dev/null 2>&1; then
    fuzz() { cargo +nightly fuzz "$@"; }
else
    fuzz() { RUSTC_BOOTSTRAP=1 cargo fuzz "$@"; }
fi

[ $# -gt 0 ] || set -- $(fuzz list)
fuzz build
for target; do
    echo "fuzz: $target, $seconds s"
    if ! fuzz run "$target" -- -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=10 -print_final_stats=1; then
        echo "fuzz: $target found something, or could not run: see above. The input is under" >&2
        echo "      protocol/fuzz/artifacts/$target; to see it again: cd protocol/fuzz && cargo fuzz run $target FILE" >&2
        exit 1
    fi
done
echo "fuzz: no findings in $*"
