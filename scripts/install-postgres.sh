#!/bin/sh
# Installs PostgreSQL's server programs through the system's package manager if they are missing.
# Silent when they are there. Looks where src/demo/programs.rs looks.
set -eu

complete() {
    for program in postgres initdb pg_ctl pg_basebackup; do
        [ -x "$1/$program" ] || return 1
    done
}

installed() {
    if [ -n "${POOLER_PG_BINDIR:-}" ]; then
        complete "$POOLER_PG_BINDIR"
        return
    fi
    if command -v pg_config >/dev/null 2>&1 && complete "$(pg_config --bindir)"; then
        return
    fi
    if initdb=$(command -v initdb) && complete "$(dirname "$initdb")"; then
        return
    fi
    for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
        /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin /home/linuxbrew/.linuxbrew/opt/postgresql*/bin; do
        if complete "$dir"; then
            return
        fi
    done
    return 1
}

# Runs a command as root; $1 is the package, for the error.
as_root() {
    package=$1
    shift
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        if [ -t 2 ]; then sudo "$@"; else sudo -n "$@"; fi
    else
        fail "installing needs root, and there is no sudo: as root, install $package and try again"
    fi || fail "could not install: as root, install $package and try again"
}

fail() {
    echo "install-postgres: $1" >&2
    exit 1
}

if installed; then
    exit 0
fi
if [ -n "${POOLER_PG_BINDIR:-}" ]; then
    fail "POOLER_PG_BINDIR is $POOLER_PG_BINDIR, which has no PostgreSQL server programs: correct it or unset it"
fi

echo "install-postgres: PostgreSQL's server programs are missing, installing them" >&2
if command -v apt-get >/dev/null 2>&1; then
    as_root postgresql apt-get update -qq </dev/null
    as_root postgresql env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql </dev/null
elif command -v dnf >/dev/null 2>&1; then
    # pgbench is in contrib.
    as_root postgresql-server dnf install -y -q postgresql-server postgresql-contrib </dev/null
elif command -v brew >/dev/null 2>&1; then
    brew install --quiet postgresql@17 </dev/null
else
    fail "no apt-get, dnf or brew here: install PostgreSQL 13 or later with its server programs (postgres, initdb, pg_ctl,
pg_basebackup) and psql, or name their folder in POOLER_PG_BINDIR"
fi
installed || fail "the package is installed, but its programs are not where they are looked for: name their folder in POOLER_PG_BINDIR"
