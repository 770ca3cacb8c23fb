#!/bin/sh
# Runs client drivers at their defaults through the pooler: transaction mode, 2 servers, 50 sessions at once. Prints which
# scenario works with which driver, and writes it to drivers/RESULTS.md, and in short to README.md, after a run of all drivers.
#
# A driver's program in drivers/ runs the scenarios that it is named, and prints `ok NAME` or `FAILED NAME reason` for each
# that it has. Every one runs in a process of its own, with a deadline. What the programs need is installed in
# target/drivers, but for the system's packages. Logs of the last run: target/drivers/logs.
#
# Exit status 0: everything that was tried is ok.
#
#   DRIVERS="psycopg asyncpg"         only these (sh scripts/drivers.sh --list names all)
#   SCENARIOS="copy temp"             only these
#   POOLER=target/release/pooler      the program; without it, it is built
#   DIRECT=1                          PostgreSQL itself instead of the pooler: whether the programs are right
#   SESSIONS=50 POOL_SIZE=2           how many share how many
#   SCENARIO_SECONDS=60               what takes longer has failed
#   POOLER_PG_BINDIR=...              the server's programs, if not those that are found
set -eu
cd "$(dirname "$0")/.."
here=$PWD/drivers
top=$PWD/target/drivers
logs=$top/logs
sessions=${SESSIONS:-50}
pool_size=${POOL_SIZE:-2}
seconds=${SCENARIO_SECONDS:-60}
direct=${DIRECT:-}

# In the order of the columns.
all_scenarios="transactions prepared pipeline error cancel copy cursor settings reset pool notify advisory temp hold migrate dump"
all_drivers="psql pgbench-simple pgbench-extended pgbench-prepared pg_dump
psycopg psycopg2 asyncpg pg8000 sqlalchemy-psycopg sqlalchemy-psycopg2 sqlalchemy-asyncpg django
node-postgres postgres.js prisma knex sequelize tokio-postgres sqlx pgjdbc pgx lib-pq ruby-pg activerecord php-pdo perl-dbd-pg"

what=drivers
if [ "${1:-}" = --list ]; then
    echo "$all_drivers" | tr ' ' '\n'
    exit
fi
drivers=${DRIVERS:-$all_drivers}
scenarios=${SCENARIOS:-$all_scenarios}

. scripts/drivers-common.sh
mkdir -p "$logs"

# --- The drivers: what language each is of, and its program. ---

language() {
    case $1 in
        psql | pgbench-* | pg_dump) echo libpq ;;
        psycopg | psycopg2 | asyncpg | pg8000 | sqlalchemy-* | django) echo python ;;
        prisma) echo prisma ;;
        node-postgres | postgres.js | knex | sequelize) echo node ;;
        tokio-postgres | sqlx) echo rust ;;
        pgjdbc) echo java ;;
        pgx | lib-pq) echo go ;;
        ruby-pg | activerecord) echo ruby ;;
        php-pdo) echo php ;;
        perl-dbd-pg) echo perl ;;
        *) fail "no such driver: $1" ;;
    esac
}
program() { # driver, then what to give it
    driver=$1
    shift
    case $driver in
        psql | pg_dump) sh "$here/libpq/$driver.sh" "$@" ;;
        pgbench-*) MODE=${driver#pgbench-} sh "$here/libpq/pgbench.sh" "$@" ;;
        psycopg) "$top/python/bin/python" "$here/python/psycopg3.py" "$@" ;;
        sqlalchemy-*) DIALECT=${driver#sqlalchemy-} "$top/python/bin/python" "$here/python/sqlalchemy_.py" "$@" ;;
        psycopg2 | asyncpg | pg8000 | django) "$top/python/bin/python" "$here/python/${driver}_.py" "$@" ;;
        node-postgres | postgres.js | prisma | knex | sequelize) (cd "$top/node" && node "$(echo "$driver" | tr . -).js" "$@") ;;
        tokio-postgres | sqlx) "$top/rust/debug/$driver" "$@" ;;
        pgjdbc) java -cp "$top/java:/usr/share/java/postgresql.jar" Jdbc "$@" ;;
        pgx) "$top/go/pgx" "$@" ;;
        lib-pq) "$top/go/libpq" "$@" ;;
        ruby-pg) ruby "$here/ruby/pg.rb" "$@" ;;
        activerecord) ruby "$here/ruby/activerecord.rb" "$@" ;;
        php-pdo) php "$here/php/pdo.php" "$@" ;;
        perl-dbd-pg) perl "$here/perl/dbd_pg.pl" "$@" ;;
    esac
}
version() { # driver
    package=
    case $1 in
        pgx) package=golang-github-jackc-pgx-v4-dev ;;
        lib-pq) package=golang-github-lib-pq-dev ;;
    esac
    if [ -n "$package" ]; then
        # A library of Go's does not know its own version.
        echo "$1 $(dpkg-query -W -f '${Version}' "$package" | sed 's/[-+].*//')"
    else
        sh "$0" --program "$1" --version 2>/dev/null | head -n 1
    fi
}
# `program` is a function of this shell, and what it runs must end with its deadline.
if [ "${1:-}" = --program ]; then
    shift
    PATH=$bindir:$PATH
    program "$@"
    exit
fi

for driver in $drivers; do language "$driver" >/dev/null; done

pooler=${POOLER:-}
if [ -z "$direct" ] && [ -z "$pooler" ]; then
    "${CARGO:-cargo}" build --release --quiet
    pooler=${CARGO_TARGET_DIR:-target}/release/pooler
fi
[ -n "$direct" ] || [ -x "$pooler" ] || fail "no program $pooler"

work=$(mktemp -d "${TMPDIR:-/tmp}/pooler-drivers.XXXXXX")
program_pid=
leave() {
    status=$?
    trap '' HUP INT TERM
    # The process group of `timeout`.
    [ -z "$program_pid" ] || kill "$program_pid" 2>/dev/null || true
    stop_pooler
    [ ! -f "$work/data/postmaster.pid" ] ||
        (cd "$work" && plain "$bindir/pg_ctl" -D "$work/data" -m immediate -w -s stop) >/dev/null 2>&1 || true
    rm -rf "$work" 2>/dev/null || { sleep 1 && rm -rf "$work"; }
    exit $status
}
trap leave EXIT
trap 'exit 130' HUP INT TERM

[ -n "$direct" ] || cp "$pooler" "$work/pooler"
chmod -R go=u-w "$work"
[ -z "$account" ] || chown -R "$account" "$work"

start_server() {
    (cd "$work" && plain "$bindir/initdb" -D "$work/data" -U postgres --no-locale --encoding=UTF8 -A trust --no-sync) \
        >"$work/initdb.log" 2>&1 || { cat "$work/initdb.log" >&2 && fail "initdb failed"; }
    cat >>"$work/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = '$work'
fsync = off
max_connections = $((sessions * 4 + 20))
log_line_prefix = '%m [%p] %q%u@%d %a '
log_timezone = 'UTC'
timezone = 'UTC'
CONF
    printf 'local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n' >"$work/data/pg_hba.conf"
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
    as_postgres postgres -c "CREATE ROLE app LOGIN PASSWORD 'secret' CREATEDB"
}
as_postgres() {
    database=$1
    shift
    (plain "$bindir/psql" -X -q -v ON_ERROR_STOP=1 -h "$work" -p "$server_port" -U postgres "$@" "$database")
}
# A database of its own for every driver: nothing is left over from another.
create_database() {
    as_postgres postgres -c "CREATE DATABASE $1 OWNER app TEMPLATE template0"
    as_postgres "$1" -c "SET ROLE app" -f - <"$here/schema.sql"
}

start_pooler() {
    tries=0
    while :; do
        port=$(random_port)
        cat >"$work/pooler.toml" <<CONF
[pooler]
listen = ["127.0.0.1:$port"]
pool_mode = "transaction"
pool_size = $pool_size
[clusters.main]
hosts = [{ host = "127.0.0.1", port = $server_port }]
[databases."*"]
cluster = "main"
[users.app]
password = "secret"
[auth]
type = "scram-sha-256"
[metrics]
listen = ""
CONF
        if pooler_serves "$work/pooler" env PGPASSWORD=secret "$bindir/psql" -X -q -h 127.0.0.1 -p "$port" -U app -c 'SELECT 1' "$1"; then
            return
        fi
    done
}

run_scenario() { # driver, database, scenario; sets line: driver, scenario, ok | FAILED, reason
    out=$logs/$1/$3
    # Only what connects: no other variable changes a driver's defaults.
    status=0
    env -i PATH="$PATH" HOME="$HOME" LANG=C.UTF-8 SESSIONS="$sessions" PGHOST=127.0.0.1 PGPORT="$port" PGUSER=app PGPASSWORD=secret \
        PGDATABASE="$2" POOLER_PG_BINDIR="$bindir" VERBOSE=1 \
        timeout -k 5 "$seconds" sh "$0" --program "$1" "$3" >"$out" 2>"$out.err" </dev/null &
    program_pid=$!
    wait $program_pid || status=$?
    program_pid=
    if [ $status = 124 ] || [ $status = 137 ]; then
        line="$1 $3 FAILED hangs: no end within $seconds s"
    elif grep -q "^ok $3\$" "$out"; then
        line="$1 $3 ok"
    elif grep -q "^FAILED $3" "$out"; then
        line=$(sed -n "s/^FAILED $3 /$1 $3 FAILED /p" "$out" | head -n 1)
    elif [ $status != 0 ] || [ -s "$out" ]; then
        line="$1 $3 FAILED status $status: $(tail -n 1 "$out.err")"
    else
        # It has no such scenario.
        line=
        rm -f "$out" "$out.err"
    fi
}

start_server
results=$work/results
versions=$work/versions
: >"$results"
: >"$versions"
number=0
for driver in $drivers; do
    number=$((number + 1))
    rm -rf "${logs:?}/$driver"
    mkdir -p "$logs/$driver"
    if ! why=$(install_"$(language "$driver")"); then
        echo "$driver not tried: $why" >>"$versions"
        say "$driver: not tried: $why"
        continue
    fi
    echo "$driver $(version "$driver")" >>"$versions"
    database=app$number
    create_database "$database"
    port=$server_port
    [ -n "$direct" ] || start_pooler "$database"
    for scenario in $scenarios; do
        as_postgres "$database" -c "SET lock_timeout = '10s'" -c "DELETE FROM items"
        run_scenario "$driver" "$database" "$scenario"
        [ -z "$line" ] || echo "$line" | tee -a "$results" | cut -c 1-220 >&2
    done
    [ -n "$direct" ] || cp "$work/pooler.log" "$logs/$driver/pooler.log"
    stop_pooler
    as_postgres postgres -c "DROP DATABASE $database WITH (FORCE)"
done
cp "$work/server.log" "$logs/server.log"

# The matrix: a row a driver, a column a scenario; below it why what failed failed.
table() {
    echo "| driver | version |$(for scenario in $scenarios; do printf ' %s |' "$scenario"; done)"
    echo "|---|---|$(for scenario in $scenarios; do printf -- '---|'; done)"
    while read -r driver version; do
        printf '| %s | %s |' "$driver" "$version"
        for scenario in $scenarios; do
            printf ' %s |' "$(awk -v d="$driver" -v s="$scenario" '$1 == d && $2 == s { r = $3 == "ok" ? "ok" : "**FAILED**" }
                END { print r }' "$results")"
        done
        echo
    done <"$versions"
}
{
    echo "# Drivers at their defaults"
    echo
    if [ -n "$direct" ]; then
        echo "On a direct connection, $sessions sessions at once: whether the programs are right."
    else
        echo "Through the pooler in transaction mode, $sessions sessions at once on $pool_size server connections"
        echo "(PostgreSQL $("$bindir/postgres" --version | sed 's/^[^0-9]*\([0-9.]*\).*/\1/')). \`make drivers\` writes this file; scripts/drivers.sh says how."
    fi
    echo "An empty cell: the driver has no such thing, or the scenario would say nothing new."
    echo
    table
    if grep -q ' FAILED ' "$results"; then
        printf '\n## What failed\n\n'
        sed -n 's/^\([^ ]*\) \([^ ]*\) FAILED /- \1, \2: /p' "$results"
    fi
} >"$top/results.md"
cat "$top/results.md"

# The same in short for README.md, between two marks: a row a language, and how many of a driver's scenarios are ok.
summary() {
    echo "| | scenarios that work, of those that the driver has |"
    echo "|---|---|"
    for title in libpq Python Node.js Rust Java Go Ruby PHP Perl; do
        line=
        while read -r driver version; do
            case $title:$(language "$driver") in
                libpq:libpq | Python:python | Node.js:node | Node.js:prisma | Rust:rust | Java:java | Go:go | Ruby:ruby | PHP:php | Perl:perl) ;;
                *) continue ;;
            esac
            case $version in
                "not tried"*) line="$line; $driver: not tried" ;;
                *) line="$line; $driver$(echo " $version" | grep -o ' [0-9][0-9.]*' | head -n 1): $(awk -v d="$driver" '
                    $1 == d { all++; ok += $3 == "ok" } END { print ok + 0 " of " all }' "$results")" ;;
            esac
        done <"$versions"
        [ -z "$line" ] || echo "| $title | ${line#; } |"
    done
    sed -n 's/^\([^ ]*\) \([^ ]*\) FAILED .*/\1: \2/p' "$results" | awk '{ line = line (NR > 1 ? "; " : "") $0 }
        END { if (NR) printf "\nWhat fails: %s.\n", line }'
}
if [ -z "$direct" ] && [ "$drivers" = "$all_drivers" ] && [ "$scenarios" = "$all_scenarios" ]; then
    cp "$top/results.md" "$here/RESULTS.md"
    summary >"$top/summary.md"
    awk -v summary="$top/summary.md" '/^<!-- end of drivers -->$/ { inside = 0 } !inside
        /^<!-- drivers/ { inside = 1; while ((getline line < summary) > 0) print line }' README.md >"$top/README.md"
    cmp -s "$top/README.md" README.md || cp "$top/README.md" README.md
fi
! grep -q ' FAILED ' "$results"
