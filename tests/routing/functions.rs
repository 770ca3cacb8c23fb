//! Functions that do more than look, wherever they hide: the statement ends on the primary, and the client sees no error.

use crate::scene::{Hosts, PORT, Scene};
use crate::support::wait_until;

/// What hides them.
const HIDDEN: &str = r#"
    CREATE SCHEMA odd; CREATE TABLE t (x int, y int); INSERT INTO t VALUES (1, 1); CREATE UNLOGGED TABLE unlogged (x int);
    CREATE SEQUENCE s;
    CREATE FUNCTION writes() RETURNS text LANGUAGE sql VOLATILE AS $$INSERT INTO public.t VALUES (2, 2); SELECT current_setting('port')$$;
    CREATE FUNCTION odd."Writes It"(int) RETURNS text LANGUAGE sql VOLATILE AS $$INSERT INTO public.t VALUES (2, 2); SELECT current_setting('port')$$;
    CREATE FUNCTION of_row(t) RETURNS text LANGUAGE sql VOLATILE AS $$INSERT INTO public.t VALUES (2, 2); SELECT current_setting('port')$$;
    CREATE FUNCTION looks() RETURNS text LANGUAGE plpgsql VOLATILE AS $$BEGIN RETURN current_setting('port'); END$$;
    CREATE FUNCTION lies() RETURNS text LANGUAGE plpgsql STABLE AS $$BEGIN RETURN public.writes(); END$$;
    CREATE FUNCTION for_operator(int, int) RETURNS text LANGUAGE sql VOLATILE AS $$INSERT INTO public.t VALUES (2, 2); SELECT current_setting('port')$$;
    CREATE OPERATOR public.<~> (LEFTARG = int, RIGHTARG = int, FUNCTION = for_operator);
    CREATE VIEW hides AS SELECT public.writes() AS p;
    CREATE VIEW hides_deeper AS SELECT p FROM hides;
    CREATE VIEW hides_built_in AS SELECT nextval('public.s'), current_setting('port') AS p;
    CREATE VIEW hides_operator AS SELECT 1 OPERATOR(public.<~>) 2 AS p;
    CREATE VIEW hides_unlogged AS SELECT count(*), current_setting('port') AS p FROM unlogged;
"#;

/// Statements that say where they ran, which is to be the primary.
const ON_PRIMARY: &[&str] = &[
    "SELECT writes()",
    "SELECT WRITES()",
    "SELECT public.writes()",
    r#"SELECT odd."Writes It"(1)"#,
    "SELECT t.of_row FROM t LIMIT 1",
    "SELECT (t).of_row FROM t LIMIT 1",
    "SELECT looks()",
    "SELECT lies()",
    "SELECT (SELECT writes())",
    "SELECT p FROM (SELECT writes() AS p) AS q",
    "SELECT current_setting('port') WHERE EXISTS (SELECT 1 FROM t WHERE x::text = writes()) OR true",
    "WITH q AS (SELECT writes() AS p) SELECT p FROM q",
    "SELECT 1 <~> 2",
    "SELECT 1 OPERATOR(public.<~>) 2",
    "SELECT p FROM hides",
    "TABLE hides",
    "SELECT p FROM public.hides_deeper",
    r#"SELECT p FROM "hides_built_in""#,
    "SELECT p FROM hides_operator",
    "SELECT p FROM hides_unlogged",
    "SELECT current_setting('port') FROM (SELECT count(*) FROM unlogged) AS q",
    "SELECT current_setting('port') FROM nextval('s')",
    "SELECT current_setting('port') FROM (SELECT pg_advisory_xact_lock(1)) AS q",
    "SELECT current_setting('port') FROM pg_stat_activity LIMIT 1",
    "SELECT CASE WHEN NOT pg_is_in_recovery() THEN current_setting('port') END",
    "SELECT current_setting('port') FROM t LIMIT 1 FOR KEY SHARE",
    "SELECT current_setting('port') FROM t, (SELECT x FROM t LIMIT 1 FOR SHARE) AS q LIMIT 1",
    "WITH w AS (INSERT INTO t VALUES (3, 3) RETURNING 1) SELECT current_setting('port') FROM w",
];

#[test]
fn t65_what_writes_runs_on_the_primary_however_it_hides() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    scene.sql(HIDDEN);
    let mut wire = scene.login();
    wait_until("the functions are known", || {
        !wire.one("SELECT looks()").is_empty()
    });
    for sql in ON_PRIMARY {
        scene.assert_on_primary(&mut wire, sql);
    }
    // That these were not all of them there anyway.
    wait_until("reads are on replicas", || {
        scene.place(&wire.one(PORT)) != "primary"
    });
    scene.assert_local_reads(
        &mut wire,
        "SELECT current_setting('port') FROM t ORDER BY random() LIMIT 1",
    );
    for sql in ON_PRIMARY {
        let session = scene.login();
        let mut fresh = session;
        scene.assert_on_primary(&mut fresh, sql);
        fresh.leave();
    }
}

#[test]
fn what_is_defined_through_the_pooler_is_known_at_once() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    let mut wire = scene.login();
    scene.assert_local_reads(&mut wire, PORT);
    wire.rows("CREATE FUNCTION f() RETURNS text LANGUAGE sql STABLE AS $$SELECT current_setting('port')$$");
    let mut other = scene.login();
    // It has written nothing, so its reads may go to a replica as soon as the function is known.
    scene.hosts.wait_replayed();
    wait_until("it is known", || {
        scene.place(&other.one("SELECT f()")) != "primary"
    });
    wire.rows("CREATE OR REPLACE FUNCTION f() RETURNS text LANGUAGE sql VOLATILE AS $$SELECT current_setting('port')$$");
    assert_eq!(scene.place(&other.one("SELECT f()")), "primary");
    wait_until("reads are on replicas", || {
        scene.place(&other.one(PORT)) != "primary"
    });
    assert_eq!(scene.place(&other.one("SELECT f()")), "primary");
}

#[test]
fn t64_only_a_statement_by_itself_is_a_read() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    scene.sql("CREATE TABLE t (x int)");
    let mut wire = scene.login();
    wire.rows("SELECT 1; INSERT INTO t VALUES (1)");
    wire.rows("INSERT INTO t VALUES (1); SELECT 1");
    assert_eq!(wire.one("SELECT count(*) FROM t"), "2");
}

#[test]
fn what_is_defined_in_a_transaction_is_known_when_that_has_ended() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    let mut wire = scene.login();
    // One that has written nothing, and nothing that might have.
    let place = |sql: &str| {
        let mut fresh = scene.login();
        let place = scene.place(&fresh.one(sql));
        fresh.leave();
        place
    };
    let define = |kind: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION f() RETURNS text LANGUAGE plpgsql {kind} AS $$BEGIN RETURN current_setting('port'); END$$"
        )
    };
    wire.rows(&define("STABLE"));
    scene.hosts.wait_replayed();
    wait_until("it is known", || place("SELECT f()") != "primary");
    wire.rows("BEGIN");
    wire.rows(&define("VOLATILE"));
    wait_until("the functions are known again", || place(PORT) != "primary");
    wire.rows("COMMIT");
    scene.hosts.wait_replayed();
    for _ in 0..5 {
        assert_eq!(place("SELECT f()"), "primary");
    }
}
