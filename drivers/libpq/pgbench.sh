#!/bin/sh
# pgbench in one of its modes (MODE): its own transactions, which must leave the sums equal, and scripts of its own.
. "$(dirname "$0")/common.sh"

if [ "${1:-}" = --version ]; then
    pgbench --version
    exit
fi

# bench NAME ARGUMENTS: no session may fail.
bench() {
    name=$1
    shift
    # pgbench counts failed transactions; a session that is aborted is not in its exit status of old.
    if pgbench -n -M "$MODE" -c "$sessions" -j 2 "$@" >"$scratch/out" 2>&1 && ! grep -q 'aborted' "$scratch/out"; then
        return 0
    fi
    cat "$scratch/out" >&2
    echo "FAILED $name $(grep -c 'aborted' "$scratch/out") of $sessions sessions: $(grep -m 1 'error\|aborted' "$scratch/out")"
    return 1
}
sql() { psql -X -q -A -t -c "$1"; }

for name in "$@"; do
    case $name in
        transactions)
            pgbench -i -q -s 1 >"$scratch/init" 2>&1 || { echo "FAILED $name pgbench -i: $(tail -n 1 "$scratch/init")" && continue; }
            bench "$name" -t 40 || continue
            sums=$(sql "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches)
                AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(delta) FROM pgbench_history)
                AND (SELECT count(*) FROM pgbench_history) = 40 * $sessions")
            [ "$sums" = t ] && echo "ok $name" || echo "FAILED $name the sums differ: $sums"
            ;;
        prepared)
            # What a session reads is its own: a wrong value divides by zero.
            cat >"$scratch/sql" <<'SQL'
SELECT :client_id AS me, :client_id * 7 AS seven \gset
SELECT 1 / (:me = :client_id)::int, 1 / (:seven = :client_id * 7)::int;
BEGIN;
INSERT INTO items (session, n, value) VALUES (:client_id, 1, 'x');
SELECT count(*) AS mine FROM items WHERE session = :client_id \gset
SELECT 1 / (:mine = 1)::int;
DELETE FROM items WHERE session = :client_id;
END;
SQL
            bench "$name" -t 30 -f "$scratch/sql" && echo "ok $name"
            ;;
        pipeline)
            [ "$MODE" != simple ] || continue
            cat >"$scratch/sql" <<'SQL'
\startpipeline
BEGIN;
INSERT INTO items (session, n, value) VALUES (:client_id, 1, 'x');
SELECT 1 / (count(*) = 1)::int FROM items WHERE session = :client_id;
DELETE FROM items WHERE session = :client_id;
COMMIT;
SELECT :client_id;
\endpipeline
SQL
            bench "$name" -t 30 -f "$scratch/sql" && echo "ok $name"
            ;;
    esac
done
