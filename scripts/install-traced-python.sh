#!/bin/sh
# Makes a virtual environment in target/traced-python with what tests/traces/application.py needs: psycopg and
# OpenTelemetry's instrumentation for it, from PyPI. Silent when it is there. Two at once make it once each, and one stays.
set -eu
cd "$(dirname "$0")/.."
wanted=tests/traces/requirements.txt
made=target/traced-python

cmp -s "$wanted" "$made/from" && exit 0
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
if ! python3 -c 'import ensurepip' 2>/dev/null; then
    command -v apt-get >/dev/null 2>&1 || {
        echo "install-traced-python: install Python 3 with its venv module" >&2
        exit 1
    }
    install="$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv"
    $install </dev/null || { $sudo apt-get update -qq && $install; } </dev/null
fi
echo "install-traced-python: installing OpenTelemetry for Python" >&2
mkdir -p target
new=$(mktemp -d "$PWD/target/traced-python.XXXXXX")
trap 'rm -rf "$new"' EXIT
python3 -m venv "$new"
"$new/bin/python" -m pip install -q --disable-pip-version-check -r "$wanted"
cp "$wanted" "$new/from"
# Its own paths name the directory that it was made in; what is run is its python alone, which finds its modules by where it is.
rm -rf "$made"
mv "$new" "$made" 2>/dev/null || [ -e "$made/from" ]
