#!/bin/sh
# Holds the scan of statements (protocol/src/route) beside PostgreSQL's own grammar: over generated statements, and over
# every statement of PostgreSQL's regression suite, with the names that a real PostgreSQL has of it.
#
# The grammar is libpg_query, by the crate pg_query. Its build reads a C header by libclang, which is installed here if
# it is missing; and it takes a minute, so that protocol/grammar is a workspace of its own. The suite is that of
# scripts/regress.sh.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "grammar: $1" >&2
    exit 1
}

installed() {
    if [ -n "${LIBCLANG_PATH:-}" ]; then
        return
    fi
    for library in /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang-[0-9]*.so* /usr/lib64/libclang.so* \
        /opt/homebrew/opt/llvm/lib/libclang.dylib /Library/Developer/CommandLineTools/usr/lib/libclang.dylib; do
        # That one is another interface, that of clang itself.
        case $library in *libclang-cpp*) continue ;; esac
        if [ -e "$library" ]; then
            return
        fi
    done
    return 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        if [ -t 2 ]; then sudo "$@"; else sudo -n "$@"; fi
    else
        fail "installing libclang needs root, and there is no sudo: install it and try again"
    fi || fail "could not install libclang: install it as root and try again"
}

if ! installed; then
    echo "grammar: libclang is missing, installing it" >&2
    if command -v apt-get >/dev/null 2>&1; then
        as_root apt-get update -qq </dev/null
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libclang-dev </dev/null
    elif command -v dnf >/dev/null 2>&1; then
        as_root dnf install -y -q clang-devel </dev/null
    else
        fail "no apt-get or dnf here: install libclang with its headers"
    fi
fi

SUITE_ONLY=1 sh scripts/regress.sh
cd protocol/grammar
"${CARGO:-cargo}" fmt --check
"${CARGO:-cargo}" clippy --all-targets -- -D warnings
"${CARGO:-cargo}" test -- --nocapture
