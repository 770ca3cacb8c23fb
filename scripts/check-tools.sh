#!/bin/sh
# Says which tools of the build are missing and how to get them. Arguments: cargo's components that are needed too.
set -eu

status=0
missing() {
    echo "check-tools: $1 is missing: $2" >&2
    status=1
}

component_of() {
    case $1 in fmt) echo rustfmt ;; *) echo "$1" ;; esac
}

if command -v apt-get >/dev/null 2>&1; then
    install="apt-get install build-essential"
elif command -v dnf >/dev/null 2>&1; then
    install="dnf install gcc make"
elif [ "$(uname -s)" = Darwin ]; then
    install="xcode-select --install"
else
    install="install a C compiler and make with the system's package manager"
fi

command -v cargo >/dev/null 2>&1 || missing cargo "see https://rustup.rs"
command -v cc >/dev/null 2>&1 || missing "a C compiler (cc), which links programs and builds jemalloc" "$install"
command -v make >/dev/null 2>&1 || missing "make, which builds jemalloc" "$install"
for component; do
    cargo "$component" --version >/dev/null 2>&1 || missing "cargo $component" "rustup component add $(component_of "$component")"
done
exit $status
