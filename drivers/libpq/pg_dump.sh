#!/bin/sh
# pg_dump of a database with some data, pg_restore into another, and both dumps compared.
. "$(dirname "$0")/common.sh"

if [ "${1:-}" = --version ]; then
    pg_dump --version
    exit
fi
[ "${1:-}" = dump ] || exit 0

step() {
    "$@" >"$scratch/out" 2>"$scratch/err" && return
    cat "$scratch/err" >&2
    echo "FAILED dump $1: $(grep -m 1 error "$scratch/err" || tail -n 1 "$scratch/err")"
    exit 0
}
run() { step psql -X -q -v ON_ERROR_STOP=1 "$@"; }

copied=${PGDATABASE}_copied
run -c 'DROP SCHEMA IF EXISTS dumped CASCADE' -c 'CREATE SCHEMA dumped' \
    -c 'CREATE TABLE dumped.parent (id serial PRIMARY KEY, t text, b bytea, n numeric, d timestamptz)' \
    -c "INSERT INTO dumped.parent (t, b, n, d) SELECT repeat(md5(i::text), 10), decode(md5(i::text), 'hex'), i / 7.0, 'epoch'::timestamptz + i * interval '1 hour' FROM generate_series(1, 5000) AS i" \
    -c 'CREATE TABLE dumped.child (parent int REFERENCES dumped.parent, v jsonb)' \
    -c "INSERT INTO dumped.child SELECT id, jsonb_build_object('id', id) FROM dumped.parent" \
    -c 'CREATE INDEX ON dumped.child (parent)' \
    -c 'CREATE VIEW dumped.joined AS SELECT p.t, c.v FROM dumped.parent p JOIN dumped.child c ON c.parent = p.id' \
    -c 'CREATE FUNCTION dumped.twice(n int) RETURNS int LANGUAGE sql AS $$SELECT 2 * n$$'
run -c "DROP DATABASE IF EXISTS $copied"
run -c "CREATE DATABASE $copied TEMPLATE template0"
step pg_dump -f "$scratch/plain"
step pg_dump -Fc -f "$scratch/custom"
# With more jobs it needs more connections at a time than two: its snapshot is of a transaction that stays open.
step pg_dump -Fd -f "$scratch/directory"
step pg_restore -d "$copied" "$scratch/custom"
step pg_dump -d "$copied" -f "$scratch/plain2"
run -c "DROP DATABASE $copied"
run -c "CREATE DATABASE $copied TEMPLATE template0"
step pg_restore -j 2 -d "$copied" "$scratch/directory"
step pg_dump -d "$copied" -f "$scratch/plain3"
run -c "DROP DATABASE $copied"
for other in plain2 plain3; do
    # Newer versions of pg_dump put a random word in.
    if ! diff "$scratch/plain" "$scratch/$other" | grep -v 'restrict' | grep '^[<>]' >"$scratch/diff"; then continue; fi
    head "$scratch/diff" >&2
    echo "FAILED dump the dump of what was restored differs: $(head -n 1 "$scratch/diff")"
    exit 0
done
echo "ok dump"
