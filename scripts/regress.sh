#!/bin/sh
# Runs PostgreSQL's own regression suite on a direct connection and through the pooler, and says what passes where.
#
# The suite comes from Debian's source package of the installed PostgreSQL (13 to 15: later ones report in another
# format). It and its build stay in target/regress/src. What a run leaves is in target/regress/MODE: diffs/TEST.diff,
# results/TEST.out, what pg_regress printed (out), and the logs of the server and the pooler; target/regress/summary
# has the table that is printed last.
#
# Exit status 0: what passes directly passes in the other modes too, but for the tests in scripts/regress/never.txt.
#
#   MODES="direct transaction session"   modes to run. Without direct every test is expected to pass
#   SUITE_ONLY=1                         only fetch and build the suite, for scripts/grammar.sh
#   TESTS="join temp"                    only these, after what the suite's schedule says they depend on
#   POOLER=target/release/pooler         the program; without it, it is built
#   TEST_SECONDS=300                     a test that takes longer is killed, and fails
#   POOLER_PG_BINDIR=...                 the server's programs, if not those that are found
set -eu
cd "$(dirname "$0")/.."
top=$PWD/target/regress
source=$top/src/postgresql
suite=$source/src/test/regress
never=$PWD/scripts/regress/never.txt
modes=${MODES:-direct transaction session}
pool_size=20

say() { echo "regress: $1" >&2; }
fail() {
    say "$1"
    exit 1
}

for mode in $modes; do
    case $mode in direct | transaction | session) ;; *) fail "no such mode: $mode (direct, transaction, session)" ;; esac
done

names_never() { sed -e '/^#/d' -e '/^ *$/d' "$never" | awk '{ print $1 }'; }
[ "$(names_never | wc -l)" -le 3 ] || fail "$never has more than three tests"
awk '!/^#/ && NF == 1 { exit 1 }' "$never" || fail "$never: a test without a reason"

bindir=${POOLER_PG_BINDIR:-}
if [ -z "$bindir" ]; then
    bindir=$(pg_config --bindir 2>/dev/null) && [ -x "$bindir/initdb" ] ||
        bindir=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
fi
[ -x "$bindir/initdb" ] && [ -x "$bindir/psql" ] || fail "no PostgreSQL server programs: run scripts/install-postgres.sh"
major=$("$bindir/postgres" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
[ "$major" -ge 13 ] && [ "$major" -le 15 ] || fail "PostgreSQL $major: this knows the suites of 13 to 15"

# Fetches the source package with a sources list, lists and cache that are kept apart from the machine's, from the
# repositories that the machine's own packages come from.
fetch() {
    for program in apt-get dpkg-source; do
        command -v $program >/dev/null 2>&1 || fail "no $program here, which fetches the suite: apt-get install dpkg-dev"
    done
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r $keyring ] || fail "no $keyring: install debian-archive-keyring"
    apt=$top/apt
    rm -rf "$apt" "$top/src"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$top/src"
    apt-get indextargets --format "\$(ORIGIN) deb-src [signed-by=$keyring] \$(REPO_URI) \$(RELEASE) \$(COMPONENT)" \
        'Created-By: Packages' | sed -n 's/^Debian //p' >"$apt/sources.list"
    [ -s "$apt/sources.list" ] || fail "no Debian repository in apt's sources, from which the suite could come"
    get() {
        apt-get -qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
            -o Dir::State="$apt" -o Dir::State::Lists="$apt/lists" \
            -o Dir::Cache="$apt/cache" -o Dir::Cache::archives="$apt/cache/archives" \
            -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none "$@" </dev/null
    }
    say "fetching the source of postgresql-$major $version into target/regress/src"
    get update
    cd "$top/src"
    get source --download-only "postgresql-$major=$version" 2>/dev/null || {
        say "$version is not there any more: taking the newest of postgresql-$major; some tests may differ"
        get source --download-only "postgresql-$major"
    }
    dpkg-source --no-check -x "postgresql-${major}_"*.dsc postgresql >/dev/null
    cd - >/dev/null
    rm -rf "$apt"
}

# Of the build only the suite's own C functions, contrib/spi's and pg_regress are of use: they run in and before the
# installed server, whose version is the same, so what they are configured with does not matter. The make is none of
# `make regress`'s: below another one PostgreSQL's does not generate its headers.
build() {
    say "building the suite (log: target/regress/src/log)"
    if ! (
        unset MAKELEVEL MAKEFLAGS MFLAGS
        (cd "$source" && ./configure -q --without-readline --without-zlib --without-icu) && make -s -C "$suite"
    ) >"$top/src/log" 2>&1; then
        tail -n 20 "$top/src/log" >&2
        fail "could not build the suite"
    fi
}

version=$(dpkg-query -W -f '${Version}' "postgresql-$major" 2>/dev/null) ||
    fail "PostgreSQL $major is not from a Debian package: its source is not known here"
if [ "$(cat "$top/src/built" 2>/dev/null)" != "$version" ]; then
    fetch
    build
    echo "$version" >"$top/src/built"
fi
[ -z "${SUITE_ONLY:-}" ] || exit 0

pooler=${POOLER:-}
if [ -z "$pooler" ] && [ "$modes" != direct ]; then
    "${CARGO:-cargo}" build --release --quiet
    pooler=${CARGO_TARGET_DIR:-target}/release/pooler
fi
[ "$modes" = direct ] || [ -x "$pooler" ] || fail "no program $pooler"

. scripts/processes.sh

# The server reads and writes the suite's files under that account, which may not get into this directory; and the
# path of a Unix socket must be short.
work=$(mktemp -d "${TMPDIR:-/tmp}/pooler-regress.XXXXXX")

stop_server() {
    [ -f "$work/data/postmaster.pid" ] || return 0
    (cd "$work" && plain "$bindir/pg_ctl" -D "$work/data" -m immediate -w -s stop) >/dev/null 2>&1 || true
}
suite_pid=
leave() {
    status=$?
    trap '' HUP INT TERM
    [ -z "$suite_pid" ] || kill "$suite_pid" 2>/dev/null || true
    stop_pooler
    stop_server
    # The last psql may still be writing.
    rm -rf "$work" 2>/dev/null || { sleep 1 && rm -rf "$work"; }
    exit $status
}
trap leave EXIT
trap 'exit 130' HUP INT TERM

mkdir "$work/suite"
(cd "$suite" && cp -R sql expected data parallel_schedule resultmap pg_regress ./*.so "$work/suite")
[ "$modes" = direct ] || cp "$pooler" "$work/pooler"
chmod -R go=u-w "$work"
[ -z "$account" ] || chown -R "$account" "$work"

# The suite's schedule, or of it what TESTS names and needs: what the comments of the schedule say.
schedule=$work/schedule
awk -v wanted="${TESTS:-}" '
    /^# [a-z_0-9.]+ depends on [a-z]/ {
        text = $0
        sub(/^# [^ ]* depends on /, "", text)
        gsub(/,/, "", text)
        needs[$2] = needs[$2] " " text
    }
    /^(test|ignore):/ { line[++lines] = $0; for (i = 2; i <= NF; i++) known[$i] = 1 }
    function want(name,    list, n, i) {
        if (name in want_it) return
        if (!(name in known)) { print "regress: the suite has no test " name > "/dev/stderr"; exit 1 }
        want_it[name] = 1
        n = split(needs[name], list, " ")
        for (i = 1; i <= n; i++) want(list[i])
    }
    END {
        n = split(wanted, list, " ")
        if (n > 0) { want("test_setup"); want("create_index") }
        for (i = 1; i <= n; i++) want(list[i])
        for (l = 1; l <= lines; l++) {
            m = split(line[l], word, " ")
            text = ""
            for (i = 2; i <= m; i++) if (n == 0 || word[1] == "ignore:" || word[i] in want_it) text = text " " word[i]
            if (text != "") print word[1] text
        }
    }
' "$suite/parallel_schedule" >"$schedule"
chmod a+r "$schedule"
sed -n 's/^test: *//p' "$schedule" | tr -s ' ' '\n' >"$work/tests"

# A cluster as pg_regress would make it, with the database as it would create it; ready when this returns.
start_server() {
    (cd "$work" && plain "$bindir/initdb" -D "$work/data" -U postgres --no-locale --encoding=UTF8 -A trust --no-sync) \
        >"$work/initdb.log" 2>&1 || { cat "$work/initdb.log" >&2 && fail "initdb failed"; }
    cat >>"$work/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = '$work'
fsync = off
# Every role that the suite makes has a pool of its own.
max_connections = 300
max_prepared_transactions = 2
log_line_prefix = '%m [%p] %q%u@%d %a '
log_lock_waits = on
CONF
    tries=0
    while :; do
        server_port=$(random_port)
        : >"$work/server.log"
        [ -z "$account" ] || chown "$account" "$work/server.log"
        if (cd "$work" && plain "$bindir/pg_ctl" -D "$work/data" -l "$work/server.log" -w -s -o "-p $server_port" start) \
            >/dev/null 2>&1; then
            break
        fi
        tries=$((tries + 1))
        [ $tries -lt 10 ] && grep -q 'in use' "$work/server.log" ||
            { cat "$work/server.log" >&2 && fail "PostgreSQL did not start"; }
    done
    {
        echo "CREATE DATABASE regression TEMPLATE = template0;"
        for setting in "lc_messages TO 'C'" "lc_monetary TO 'C'" "lc_numeric TO 'C'" "lc_time TO 'C'" \
            "bytea_output TO 'hex'" "timezone_abbreviations TO 'Default'"; do
            echo "ALTER DATABASE regression SET $setting;"
        done
    } >"$work/database.sql"
    (plain "$bindir/psql" -X -q -v ON_ERROR_STOP=1 -h "$work" -p "$server_port" -U postgres postgres) <"$work/database.sql"
}

# The pooler in mode $1, its settings otherwise the defaults, but that currval() knows what an earlier transaction drew
# (the suite asks for that in two tests, constraints and sequence); it accepts clients when this returns.
start_pooler() {
    tries=0
    while :; do
        port=$(random_port)
        cat >"$work/pooler.toml" <<CONF
[pooler]
listen = ["127.0.0.1:$port"]
pool_mode = "$1"
pool_size = $pool_size
keep_sequences = true
[clusters.main]
hosts = [{ host = "127.0.0.1", port = $server_port }]
[databases."*"]
cluster = "main"
[auth]
type = "trust"
[metrics]
listen = ""
CONF
        if pooler_serves "$work/pooler" plain "$bindir/psql" -X -q -h 127.0.0.1 -p "$port" -U postgres -c 'SELECT 1' postgres; then
            return
        fi
    done
}

# The suite against $port, in mode $1; what it leaves goes to target/regress/$1.
run_suite() {
    mode=$1
    out=$top/$mode
    set -- --inputdir="$work/suite" --outputdir="$work/out" --dlpath="$work/suite" --bindir="$bindir" \
        --host=127.0.0.1 --port="$port" --user=postgres --dbname=regression --use-existing \
        --max-concurrent-tests=20 --schedule="$schedule"
    if command -v timeout >/dev/null 2>&1; then
        set -- "$@" --launcher="timeout -k 10 ${TEST_SECONDS:-300}"
    fi
    (cd "$work" && plain "$work/suite/pg_regress" "$@") >"$work/log" 2>&1 &
    suite_pid=$!
    # 1 if a test fails.
    wait $suite_pid || [ $? = 1 ] || { tail -n 20 "$work/log" >&2 && fail "pg_regress did not end well"; }
    suite_pid=

    rm -rf "$out"
    mkdir -p "$out/diffs"
    cp -R "$work/out/results" "$out"
    cp "$work/log" "$out/out"
    cp "$work/server.log" "$out"
    [ "$mode" = direct ] || cp "$work/pooler.log" "$work/pooler.toml" "$out"
    # A random value may be at its edge: the schedule says of which tests a failure does not count.
    awk '
        / \.\.\. / {
            name = $1 == "test" && $2 != "..." ? $2 : $1
            sub(/.* \.\.\. +/, "")
            if (/^(ok|FAILED|failed) /) print name, /ignored/ ? "ignored" : $1
        }
    ' "$work/log" >"$out/tests"
    [ -s "$out/tests" ] || { tail -n 20 "$work/log" >&2 && fail "no test was run"; }
    [ ! -f "$work/out/regression.diffs" ] ||
        awk -v dir="$out/diffs" '
            /^diff / { if (file) close(file); file = $NF; sub(/.*\//, "", file); sub(/\.out$/, "", file); file = dir "/" file ".diff" }
            { print > file }
        ' "$work/out/regression.diffs"
    rm -rf "$work/out"
}

total=$(wc -l <"$work/tests" | tr -d ' ')
for mode in $modes; do
    say "$mode: $total tests"
    started=$(date +%s)
    start_server
    port=$server_port
    [ "$mode" = direct ] || start_pooler "$mode"
    run_suite "$mode"
    stop_pooler
    stop_server
    rm -rf "$work/data"
    say "$mode: $(grep -c ' ok$' "$top/$mode/tests") of $total pass, $(($(date +%s) - started)) s"
done

# The table; 1 if a test that passes directly, and is not in the list, fails in another mode.
{
    for mode in $modes; do sed "s/^/$mode /" "$top/$mode/tests"; done
    names_never | sed 's/^/never /'
    sed 's/^/name /' "$work/tests"
} | awk -v modes="$modes" -v total="$total" '
    BEGIN { n = split(modes, mode, " "); direct = 0; for (m = 1; m <= n; m++) if (mode[m] == "direct") direct = 1 }
    function row(name,    m, text) {
        text = sprintf("%-28s", name)
        for (m = 1; m <= n; m++) text = text sprintf(" %-12s", name == "" ? mode[m] : state(mode[m], name))
        sub(/ +$/, "", text)
        print text
    }
    function state(mode, name) { return (mode, name) in result ? result[mode, name] : "missing" }
    $1 == "never" { never[$2] = 1; next }
    $1 == "name" { order[++names] = $2; next }
    { result[$1, $2] = $3; count[$1] += $3 == "ok" }
    END {
        row("")
        for (i = 1; i <= names; i++) {
            name = order[i]
            row(name)
            bad = 0
            for (m = 1; m <= n; m++) {
                is = state(mode[m], name)
                if (mode[m] == "direct" || is == "ok" || is == "ignored") continue
                if (direct && state("direct", name) != "ok") continue
                bad = 1
            }
            if (bad && name in never) excused = excused " " name
            else if (bad) failed = failed " " name
            else if (name in never) stale = stale " " name
        }
        print ""
        for (m = 1; m <= n; m++) printf "%-12s %d of %d\n", mode[m], count[mode[m]], total
        if (excused) print "in never.txt:" excused
        if (stale) print "in never.txt, but passing:" stale
        if (failed) print "failing:" failed
        exit failed != ""
    }
' >"$top/summary" && status=0 || status=$?
cat "$top/summary"
[ $status = 0 ] || say "the diffs are in target/regress/MODE/diffs"
exit $status
