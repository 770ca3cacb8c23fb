#!/bin/sh
# psql: a script for each session, whose output must be exactly what is expected.
. "$(dirname "$0")/common.sh"

# $1: what must come out of the script on standard input.
expect() {
    got=$(psql -X -q -A -t -v ON_ERROR_STOP=1 -f - 2>&1)
    [ "$got" = "$1" ] && return
    echo "got: $got"
    echo "wanted: $1"
    return 1
}
# $1 times what is on standard input.
repeat() {
    text=$(cat)
    n=0
    while [ $n -lt "$1" ]; do
        echo "$text"
        n=$((n + 1))
    done
}

transactions() {
    repeat 20 <<SQL | expect "$(echo "1|s$1 0" | tr ' ' '\n' | repeat 20)"
BEGIN;
INSERT INTO items (session, n, value) VALUES ($1, 1, 's$1');
SELECT count(*), max(value) FROM items WHERE session = $1;
ROLLBACK;
BEGIN;
INSERT INTO items (session, n, value) VALUES ($1, 1, 's$1');
COMMIT AND CHAIN;
DELETE FROM items WHERE session = $1;
COMMIT;
SELECT count(*) FROM items WHERE session = $1;
SQL
}
prepared() { # of SQL: the only kind that psql 15 has
    { echo "PREPARE mine (int) AS SELECT \$1 + $1;" && echo "EXECUTE mine(1);" | repeat 10 && echo "DEALLOCATE mine;"; } |
        expect "$(echo $(($1 + 1)) | repeat 10)"
}
error() {
    got=$(repeat 3 <<SQL | psql -X -q -A -t -f - 2>&1 | grep -v '^LINE\|\^'
BEGIN;
INSERT INTO items (session, n, value) VALUES ($1, 1, 'lost');
SELECT 1 / 0;
SELECT 1;
ROLLBACK;
SELECT count(*), $1 FROM items WHERE session = $1;
SELECT 7 \; SELECT 1 / 0 \; SELECT 8;
SQL
    )
    got=$(echo "$got" | sed 's/^psql:.*ERROR: */E: /')
    wanted=$(printf '%s\n' 'E: division by zero' 'E: current transaction is aborted, commands ignored until end of transaction block' \
        "0|$1" 7 'E: division by zero' | repeat 3)
    [ "$got" = "$wanted" ] || { echo "got: $got" && return 1; }
}
cancel() { # Ctrl-C: psql asks for the cancel
    got=$(timeout -s INT 1 psql -X -q -c 'SELECT pg_sleep(50)' 2>&1)
    case $got in *"canceling statement due to user request"*) ;; *) echo "got: $got" && return 1 ;; esac
    echo "SELECT $1;" | expect "$1"
}
copy() {
    seq 500 | sed "s/.*/$1	&	s$1-&/" >"$scratch/$1.in"
    expect "" <<SQL || return 1
\\copy items (session, n, value) FROM '$scratch/$1.in'
\\copy (SELECT session, n, value FROM items WHERE session = $1 ORDER BY n) TO '$scratch/$1.back'
SQL
    cmp "$scratch/$1.in" "$scratch/$1.back" || return 1
    got=$(psql -X -q -A -t -f - 2>&1 <<SQL
COPY items (session, n, value) FROM STDIN;
not a number
\\.
SELECT count(*) FROM items WHERE session = $1;
SQL
    )
    case $got in *"invalid input syntax"*500) ;; *) echo "got: $got" && return 1 ;; esac
}
cursor() { # FETCH_COUNT: psql reads through a cursor
    { echo '\set FETCH_COUNT 100' && echo "SELECT $1 * 1000 + n FROM generate_series(1, 350) AS n;" | repeat 3; } |
        expect "$(seq $(($1 * 1000 + 1)) $(($1 * 1000 + 350)) | repeat 3)"
}
settings() {
    { cat <<SQL && echo "SELECT session, current_setting('TimeZone'), current_setting('application_name'), current_setting('app.me') FROM whoami;" | repeat 10; } | expect "$(echo "$1|Asia/Tokyo|app$1|s$1" | repeat 10)"
SET search_path TO s$1, public;
SET TIME ZONE 'Asia/Tokyo';
SET application_name = 'app$1';
SET app.me = 's$1';
BEGIN;
SET app.me = 'nobody';
ROLLBACK;
SQL
}
reset() {
    repeat 5 <<SQL | expect "$(printf '77s\n0\n77s\n0\n' | repeat 5)"
SET statement_timeout = '77s';
SHOW statement_timeout;
RESET ALL;
SHOW statement_timeout;
SET statement_timeout = '77s';
SHOW statement_timeout;
DISCARD ALL;
SHOW statement_timeout;
SQL
}
notify() {
    got=$(psql -X -q -A -t -f - 2>&1 <<SQL | grep -c "Asynchronous notification \"c$1\" with payload \"[0-9]\" received"
LISTEN c$1;
NOTIFY c$1, '1';
NOTIFY c$1, '2';
SELECT 1;
UNLISTEN *;
SQL
    )
    [ "$got" = 2 ] || { echo "$got notifications, not 2" && return 1; }
}
advisory() {
    expect "$(printf '\nt\n\n1\nt')" <<SQL
SELECT pg_advisory_lock($$, $1);
SELECT pg_advisory_unlock($$, $1);
SELECT pg_advisory_lock($$);
SELECT value AS value FROM counter \\gset
WITH done AS (UPDATE counter SET value = :value + 1 WHERE value = :value RETURNING 1) SELECT count(*) FROM done;
SELECT pg_advisory_unlock($$);
SQL
}
temp() {
    { echo 'CREATE TEMPORARY TABLE mine (n int, value text);' &&
        echo "INSERT INTO mine VALUES (1, 's$1');" | repeat 5 &&
        echo 'SELECT count(*), min(value), max(value) FROM mine; DROP TABLE mine;'; } | expect "5|s$1|s$1"
}
hold() {
    expect "$(seq $(($1 + 1)) $(($1 + 60)))" <<SQL
DECLARE kept CURSOR WITH HOLD FOR SELECT $1 + n FROM generate_series(1, 100) AS n;
FETCH 30 FROM kept;
FETCH 30 FROM kept;
CLOSE kept;
SQL
}

if [ "${1:-}" = --version ]; then
    psql --version
    exit
fi
for name in "$@"; do
    case $name in
        transactions | prepared | error | cancel | copy | cursor | settings | reset | notify | advisory | temp | hold) together "$name" "$name" ;;
    esac
done
