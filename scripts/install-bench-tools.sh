#!/bin/sh
# Installs valgrind, whose callgrind counts the instructions of `make instructions`, if it is missing.
set -eu

command -v valgrind >/dev/null 2>&1 && exit 0
echo "install-bench-tools: installing valgrind" >&2
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
if command -v apt-get >/dev/null 2>&1; then
    $sudo apt-get install -y -q valgrind || { $sudo apt-get update -q && $sudo apt-get install -y -q valgrind; }
elif command -v dnf >/dev/null 2>&1; then
    $sudo dnf install -y -q valgrind
else
    echo "install-bench-tools: install valgrind with the system's package manager" >&2
    exit 1
fi
