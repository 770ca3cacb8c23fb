#!/bin/sh
# Fetches what `make bench` compares with: PgBouncer 1.24 or later (1.21 brought prepared statements in transaction mode,
# Debian 12 has 1.18) and HAProxy. Silent when target/bench-peers has them, or PATH has them new enough.
#
# On Debian they are Debian 13's packages with their own libraries and libc, unpacked into target/bench-peers and run
# through their own loader (scripts/fetch-debian.sh): nothing is installed, no service starts, and root is not needed.
set -eu
cd "$(dirname "$0")/.."
peers=$PWD/target/bench-peers
suite=trixie

say() { echo "install-bench-peers: $1" >&2; }
fail() {
    say "$1"
    exit 1
}

# PgBouncer 1.24 or later: $1 is the program.
new_enough() {
    version=$("$1" --version 2>/dev/null | sed -n 's/^PgBouncer 1\.\([0-9]*\).*/\1/p') && [ "${version:-0}" -ge 24 ]
}

ready() {
    { new_enough "$peers/pgbouncer" || new_enough pgbouncer; } &&
        { "$peers/haproxy" -v || haproxy -v; } >/dev/null 2>&1
}

ready && exit 0
say "fetching PgBouncer and HAProxy of Debian's $suite into target/bench-peers"
sh scripts/fetch-debian.sh $suite "$peers" pgbouncer haproxy || fail "put PgBouncer 1.24 or later and HAProxy on PATH"

libraries=$(dirname "$(find "$peers/root" -name 'libevent-2*.so*' | head -n 1)")
loader=$(find "$peers/root" -name 'ld-linux*.so.*' | head -n 1)
[ -d "$libraries" ] && [ -n "$loader" ] || fail "the packages of $suite do not hold what was expected"
for program in pgbouncer haproxy; do
    cat >"$peers/$program" <<END
#!/bin/sh
exec "$loader" --library-path "$libraries" "$peers/root/usr/sbin/$program" "\$@"
END
    chmod +x "$peers/$program"
done
ready || fail "the programs of $suite do not run here: $("$peers/pgbouncer" --version 2>&1 | head -n 1)"
