#!/bin/sh
# Installs Debian's chromium through the system's package manager if it is missing: tests look at the status page
# with it, headless. Silent when it is there.
set -eu

command -v chromium >/dev/null 2>&1 && exit 0
echo "install-chromium: installing chromium" >&2
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
if command -v apt-get >/dev/null 2>&1; then
    install="$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core"
    $install </dev/null || { $sudo apt-get update -qq && $install; } </dev/null
elif command -v dnf >/dev/null 2>&1; then
    $sudo dnf install -y -q chromium
else
    echo "install-chromium: install chromium with the system's package manager" >&2
    exit 1
fi
command -v chromium >/dev/null 2>&1 || {
    echo "install-chromium: chromium is not on PATH after it was installed" >&2
    exit 1
}
