#!/bin/sh
# Fetches Prometheus and promtool if they are missing: Debian's package, unpacked into target/prometheus. Nothing is
# installed, no service starts, and root is not needed. Silent when they are there. Tests look where this puts them.
set -eu
cd "$(dirname "$0")/.."
there=$PWD/target/prometheus

if { command -v prometheus && command -v promtool; } >/dev/null 2>&1 || [ -x "$there/usr/bin/promtool" ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg >/dev/null 2>&1; then
    echo "install-prometheus: no apt here: put prometheus and promtool (2.30 or later) on PATH" >&2
    exit 1
fi
echo "install-prometheus: fetching Debian's prometheus into target/prometheus" >&2
mkdir -p "$there"
(cd "$there" && { apt-get download -qq prometheus </dev/null 2>/dev/null ||
    { [ "$(id -u)" -eq 0 ] && apt-get update -qq </dev/null && apt-get download -qq prometheus </dev/null; }; }) || {
    echo "install-prometheus: no such package: run apt-get update as root, or put prometheus and promtool on PATH" >&2
    exit 1
}
dpkg -x "$there"/prometheus_*.deb "$there"
rm -f "$there"/prometheus_*.deb
"$there/usr/bin/promtool" --version >/dev/null
