//! What a real database answers when it is asked for the names that decide whether a statement is a read
//! (`pooler_protocol::route`): everything that hides a function which may write is found by its name.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use pooler_protocol::route::{Catalogue, QUESTION, Reason, Verdict, classify};

use support::{Wire, postgres};

/// A database of a test's own, with what `sql` makes in it.
fn database(name: &str, sql: &str) -> Wire {
    postgres().psql(&format!("CREATE DATABASE {name}")).unwrap();
    postgres().psql_in(name, sql).unwrap();
    Wire::login(postgres().port(), "postgres", name)
}

fn read(wire: &mut Wire) -> Catalogue {
    let rows = wire.rows(QUESTION);
    let rows = rows
        .iter()
        .map(|row| (row[0].as_bytes(), row[1].as_bytes()));
    Catalogue::from_rows(rows)
}

fn reason(catalogue: &Catalogue, text: &str) -> Result<(), Reason> {
    match classify(text.as_bytes(), catalogue) {
        Verdict::Read => Ok(()),
        Verdict::Unproven(doubt) => Err(doubt.reason),
        other => panic!("{other:?}: {text}"),
    }
}

const HIDING: &str = r#"
    CREATE TABLE t (a int, b text);
    CREATE FUNCTION writes(int) RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES ($1) RETURNING a';
    CREATE FUNCTION "Wri tes"() RETURNS int LANGUAGE sql AS 'SELECT writes(1)';
    CREATE FUNCTION looks(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT count(*)::int FROM t';
    CREATE FUNCTION looks_at(int, int DEFAULT writes(1)) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
    CREATE FUNCTION two(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
    CREATE SCHEMA s;
    CREATE FUNCTION s.two(text) RETURNS int LANGUAGE sql AS 'SELECT writes(1)';
    CREATE FUNCTION row_writes(t) RETURNS int LANGUAGE sql AS 'SELECT writes(1)';
    CREATE FUNCTION steps(int, int) RETURNS int LANGUAGE sql AS 'SELECT writes($2)';
    CREATE AGGREGATE collect(int) (SFUNC = steps, STYPE = int, INITCOND = '0');
    CREATE AGGREGATE harmless(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
    CREATE PROCEDURE proceed() LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION on_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';

    CREATE VIEW plain AS SELECT lower(b) AS b FROM t;
    CREATE VIEW over_plain AS SELECT * FROM plain;
    CREATE VIEW hides AS SELECT writes(a) FROM t;
    CREATE VIEW over_hides AS SELECT * FROM (SELECT * FROM hides) x;
    CREATE VIEW s."Over Over" AS SELECT count(*) FROM over_hides;
    CREATE VIEW hides_aggregate AS SELECT collect(a) FROM t;
    CREATE VIEW hides_window AS SELECT collect(a) OVER () FROM t;
    CREATE VIEW hides_nextval AS SELECT nextval('public.numbers') FROM t WHERE false;
    CREATE VIEW hides_in_where AS SELECT 1 AS one WHERE EXISTS (SELECT 1 FROM t WHERE a = writes(2));
    CREATE VIEW locks AS SELECT * FROM t FOR UPDATE;
    CREATE VIEW who AS SELECT * FROM pg_stat_activity;
    CREATE MATERIALIZED VIEW kept AS SELECT a FROM t;

    CREATE UNLOGGED TABLE unlogged (a int);
    CREATE VIEW over_unlogged AS SELECT * FROM unlogged;
    CREATE TABLE parts (a int) PARTITION BY RANGE (a);
    CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE TABLE mixed (a int) PARTITION BY RANGE (a);
    CREATE UNLOGGED TABLE mixed_1 PARTITION OF mixed FOR VALUES FROM (0) TO (10);

    CREATE TABLE guarded (a int);
    ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON guarded USING (a > writes(1));
    CREATE TABLE guarded_well (a int);
    ALTER TABLE guarded_well ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON guarded_well USING (a > 1);
    CREATE TABLE guarded_by_view (a int);
    CREATE POLICY p ON guarded_by_view USING (a IN (SELECT one FROM hides_in_where));

    CREATE FUNCTION compares(int, int) RETURNS bool LANGUAGE sql AS 'SELECT writes(1) > 0';
    CREATE OPERATOR ==> (LEFTARG = int, RIGHTARG = int, FUNCTION = compares);
    CREATE OPERATOR s.<==> (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
    CREATE VIEW hides_operator AS SELECT a ==> 1 FROM t;

    CREATE DOMAIN checked AS int CHECK (writes(VALUE) > 0);
    CREATE DOMAIN bounded AS int CHECK (VALUE > 0);
    CREATE TYPE pair AS (a int, b int);
    CREATE FUNCTION to_pair(t) RETURNS pair LANGUAGE sql AS 'SELECT writes(1), 1';
    CREATE CAST (t AS pair) WITH FUNCTION to_pair(t) AS IMPLICIT;
"#;

/// In a database with [`HIDING`].
const EXPECTED: &[(Result<(), Reason>, &[&str])] = &[
    (
        Ok(()),
        &[
            "SELECT looks(1), two2 FROM plain",
            "SELECT harmless(a), count(*), lower('A'), random(), gen_random_uuid(), clock_timestamp() FROM parts",
            "SELECT * FROM over_plain, kept, part_1, guarded_well",
            "SELECT 1::bounded",
            "SELECT a OPERATOR(s.<==>) 1 FROM parts",
            "SELECT pg_total_relation_size('t'), pg_size_pretty(pg_database_size('postgres'))",
            "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE pg_table_is_visible(pg_class.oid)",
            "SELECT table_name FROM information_schema.tables",
            "SELECT * FROM pg_tables",
            "SELECT on_change FROM parts",
        ],
    ),
    (
        Err(Reason::Function),
        &[
            "SELECT writes(1)",
            "SELECT public.WRITES(1)",
            "SELECT \"public\".\"writes\"(1)",
            "SELECT \"Wri tes\"()",
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM (SELECT 1 WHERE 2 IN (SELECT writes(3))) x)",
            "SELECT looks_at(1)",
            "SELECT two(1)",
            "SELECT (x).row_writes FROM x",
            "SELECT x.row_writes FROM x",
            "SELECT collect(1)",
            "SELECT steps(1, 2)",
            "SELECT nextval('numbers')",
            "SELECT pg_catalog.setval('numbers', 1)",
            "SELECT pg_is_in_recovery()",
            "SELECT pg_last_wal_replay_lsn()",
            "SELECT txid_current()",
            "SELECT pg_current_xact_id()",
            "SELECT pg_advisory_lock(1)",
            "SELECT pg_try_advisory_xact_lock(1)",
            "SELECT set_config('a.b', 'c', false)",
            "SELECT query_to_xml('DELETE FROM t', true, true, '')",
            "SELECT * FROM ts_stat('SELECT 1')",
            "SELECT pg_notify('a', 'b')",
            "SELECT lo_create(1)",
            "SELECT pg_backend_pid()",
            "SELECT pg_stat_get_numscans(1)",
            "SELECT pg_terminate_backend(1)",
            "SELECT currval('numbers')",
            "SELECT to_pair(1)",
        ],
    ),
    (
        Err(Reason::Relation),
        &[
            "SELECT * FROM hides",
            "SELECT * FROM over_hides",
            "TABLE s.\"Over Over\"",
            "SELECT * FROM hides_aggregate",
            "SELECT * FROM hides_window",
            "SELECT * FROM hides_nextval",
            "SELECT * FROM hides_in_where",
            "SELECT * FROM hides_operator",
            "SELECT * FROM locks",
            "SELECT * FROM who",
            "SELECT * FROM pg_stat_activity",
            "SELECT * FROM pg_stat_user_tables",
            "SELECT * FROM pg_locks",
            "SELECT * FROM pg_settings",
            "SELECT * FROM pg_sequences",
            "SELECT last_value FROM numbers",
            "SELECT * FROM unlogged",
            "SELECT * FROM over_unlogged",
            "SELECT * FROM mixed",
            "SELECT * FROM guarded",
            "SELECT * FROM guarded_by_view",
        ],
    ),
    (
        Err(Reason::Operator),
        &["SELECT 1 ==> 2", "SELECT 1 OPERATOR(public.==>) 2"],
    ),
    (
        Err(Reason::Type),
        &["SELECT 1::checked", "SELECT CAST(1 AS public.checked)"],
    ),
    (
        Err(Reason::UnknownFunction),
        &["SELECT proceed()", "SELECT on_change()", "SELECT later(1)"],
    ),
];

#[test]
fn t65_what_hides_a_write_is_known_by_its_name() {
    let mut wire = database("hiding", &format!("CREATE SEQUENCE numbers; {HIDING}"));
    let catalogue = read(&mut wire);
    for (expected, texts) in EXPECTED {
        for text in *texts {
            assert_eq!(reason(&catalogue, text), *expected, "{text}");
        }
    }
    // A value of that row type may be cast to the pair without a word.
    assert!(reason(&catalogue, "SELECT a FROM t").is_err());
    assert_eq!(
        reason(&catalogue, "SELECT later(1)"),
        Err(Reason::UnknownFunction)
    );
    wire.rows("CREATE FUNCTION later(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'");
    assert_eq!(reason(&read(&mut wire), "SELECT later(1)"), Ok(()));
}

#[test]
fn the_question_is_the_same_for_everyone_under_any_search_path() {
    let sql = format!(
        "CREATE SEQUENCE numbers; {HIDING}
         CREATE ROLE nobody_much LOGIN;
         CREATE SCHEMA evil;
         GRANT USAGE ON SCHEMA evil TO nobody_much;
         CREATE FUNCTION evil.yes(oid, oid) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE ''evil''; END';
         CREATE FUNCTION evil.yes(name, name) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE ''evil''; END';
         CREATE FUNCTION evil.yes(\"char\", \"char\") RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE ''evil''; END';
         CREATE FUNCTION evil.yes(text, text) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE ''evil''; END';
         CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.yes);
         CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.yes);
         CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.yes);
         CREATE OPERATOR evil.= (LEFTARG = \"char\", RIGHTARG = \"char\", FUNCTION = evil.yes);
         CREATE OPERATOR evil.<> (LEFTARG = \"char\", RIGHTARG = \"char\", FUNCTION = evil.yes);
         CREATE FUNCTION evil.unnest(text[]) RETURNS SETOF text LANGUAGE plpgsql AS 'BEGIN RAISE ''evil''; END';
         CREATE TABLE evil.pg_proc (oid oid);
         CREATE TABLE evil.pg_class (oid oid);"
    );
    let mut wire = database("evil", &sql);
    let sorted = |mut rows: Vec<Vec<String>>| {
        rows.sort();
        rows
    };
    let expected = sorted(wire.rows(QUESTION));
    assert!(expected.len() > 2_000, "{} rows", expected.len());
    let mut other = Wire::login(postgres().port(), "nobody_much", "evil");
    other.rows("SET search_path = evil, pg_catalog, public");
    assert_eq!(sorted(other.rows(QUESTION)), expected);
    // An operator of this spelling is used by every comparison.
    assert_eq!(reason(&read(&mut wire), "SELECT 1"), Err(Reason::Operator));
}

#[test]
fn asking_and_keeping_the_names_costs_little() {
    let mut wire = database("fresh", "SELECT 1");
    let catalogue = read(&mut wire);
    // The shortest of five: the machine may be busy.
    let took = (0..5).map(|_| {
        let began = Instant::now();
        read(&mut wire);
        began.elapsed()
    });
    let took = took.min().unwrap();
    let (names, bytes) = (catalogue.len(), catalogue.bytes());

    assert!(
        names > 2_000 && bytes < 128 * 1024,
        "{names} names, {bytes} bytes"
    );
    assert!(took < Duration::from_secs(1), "{names} names in {took:?}");
}
