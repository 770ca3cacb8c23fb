//! What the scan says of statements, one by one. That it agrees with PostgreSQL's own grammar is
//! shown in `protocol/grammar`.

use super::*;

/// Of a database with these names; those behind `!` are unsafe functions, behind `#` relations, behind
/// `?` types, behind `$` operators.
fn catalogue(names: &str) -> Catalogue {
    let rows = names.split_whitespace().map(|name| {
        let (kind, name) = match name.split_at(1) {
            ("!", rest) => ("function", rest),
            ("#", rest) => ("relation", rest),
            ("?", rest) => ("type", rest),
            ("$", rest) => ("operator", rest),
            _ => ("safe", name),
        };
        (kind.as_bytes(), name.as_bytes())
    });
    Catalogue::from_rows(rows)
}

fn usual() -> Catalogue {
    catalogue(
        "lower now count sum row_number unnest generate_series substring left bernoulli myfunc \
         current_setting !nextval !set_config !make_report !Mixed #pg_stat_activity #hides ?checked",
    )
}

fn assert_all(expected: Result<(), Reason>, catalogue: &Catalogue, texts: &[&str]) {
    for text in texts {
        let said = match classify(text.as_bytes(), catalogue) {
            Verdict::Read => Ok(()),
            Verdict::Unproven(doubt) => Err(doubt.reason),
            other => panic!("{other:?}: {text}"),
        };
        assert_eq!(said, expected, "{text}");
    }
}

fn assert_reads(texts: &[&str]) {
    assert_all(Ok(()), &usual(), texts);
}

fn assert_doubts(reason: Reason, texts: &[&str]) {
    assert_all(Err(reason), &usual(), texts);
}

#[test]
fn reads_are_found_in_all_their_shapes() {
    assert_reads(&[
        "SELECT 1",
        "select 1;",
        ";; SELECT 1 ; ; -- end",
        "/* a /* nested */ comment */ SELECT 1",
        "-- a line\nSELECT 1",
        "SELECT * FROM t WHERE id = $1",
        "SELECT abalance FROM pgbench_accounts WHERE aid = 1;",
        "(SELECT 1)",
        "((SELECT 1) UNION ALL (SELECT 2)) ORDER BY 1 LIMIT (1)",
        "VALUES (1, 'a'), (2, 'b')",
        "TABLE t",
        "SELECT lower(a), \"lower\"(b), pg_catalog.lower(c), count(*) FROM t GROUP BY (1)",
        "SELECT count(*) FILTER (WHERE a > 1), sum(a) OVER (PARTITION BY (b)), row_number() over w FROM t WINDOW w AS (ORDER BY (a))",
        "SELECT a::numeric(10, 2), CAST(b AS varchar(10)), c::timestamp (3) with time zone FROM t",
        "SELECT coalesce(a, b), nullif(a, b), greatest(1, 2), ARRAY(SELECT 1), ROW(1, 2), (1 IN (1, 2)), NOT (true)",
        "SELECT * FROM t WHERE EXISTS (SELECT 1) AND a = ANY ($1) OR b <> ALL (ARRAY[1]) AND (c OR (d))",
        "SELECT * FROM unnest($1::int[]) AS u(a), unnest($2) v (b), (SELECT 1) w(c), s.tab t(x), LATERAL (SELECT 1) z",
        "SELECT * FROM generate_series(1, 3) WITH ORDINALITY AS g(a, b) JOIN t USING (a) LEFT JOIN u ON (u.a = t.a)",
        "SELECT * FROM generate_series(1, 3) WITH ORDINALITY g(a, b) JOIN tab x(q) ON (true)",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "WITH RECURSIVE x(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM x), y(b) AS NOT MATERIALIZED (SELECT 2), \
         z (c) as materialized (select 3) TABLE x",
        "SELECT a OPERATOR(pg_catalog.+) (b), a AT TIME ZONE ('utc') FROM t GROUP BY GROUPING SETS ((a), (b))",
        "SELECT 1 GROUP BY ROLLUP (a)",
        "SELECT 1 FROM t TABLESAMPLE bernoulli (10)",
        "SELECT DISTINCT ON (a) b FROM t",
        "SELECT substring(a FOR 3), extract(year FROM b), trim(both FROM c) FROM t",
        "SELECT 'it''s', E'a\\'b', $$ ; DELETE $$, $t$ ' $$ $t$, B'01', x'ff', N'x', 1.5e10, .5, 1., a[1:2]",
        "SELECT 'INSERT INTO', \"update\", 'a\\b' FROM t -- FOR UPDATE",
        "SELECT a <> b, a != b, a->>'b', a @> b, -1, a*-1 FROM t",
        "SELECT current_setting('search_path')",
        "SELECT größe, \"Größe\" FROM straße WHERE ü = 1",
        "SELECT interval '1' second(2)",
        "SELECT interval '1 day', timestamp '2001-01-01', current_user",
        "SHOW search_path",
        "show TimeZone;",
        "SHOW TIME ZONE",
        "SHOW TRANSACTION ISOLATION LEVEL",
        "SHOW SESSION AUTHORIZATION",
        "SHOW app.tenant",
        "EXPLAIN SELECT 1",
        "EXPLAIN (COSTS off, FORMAT json) SELECT 1",
        "EXPLAIN ANALYZE VERBOSE SELECT 1",
        "EXPLAIN (ANALYZE, BUFFERS on) SELECT 1",
        "EXPLAIN (SELECT 1)",
        "EXPLAIN INSERT INTO t(a) VALUES (1)",
        "EXPLAIN (ANALYZE off) UPDATE t SET a = 1",
        "EXPLAIN WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
    ]);
}

#[test]
fn what_is_said_without_a_catalogue() {
    let none = Catalogue::default();
    assert!(!none.is_read() && none.is_empty());
    assert_all(
        Err(Reason::NoCatalogue),
        &none,
        &["SELECT 1", "INSERT", "("],
    );
    for text in ["", " ;; \n", "-- only\n/* comments */;"] {
        assert_eq!(classify(text.as_bytes(), &none), Verdict::Empty, "{text}");
    }
}

#[test]
fn the_mode_of_a_transaction_is_read() {
    let none = Catalogue::default();
    let mode = |read_only, serializable| TransactionMode {
        read_only,
        serializable,
    };
    for (text, expected) in [
        ("BEGIN", mode(None, false)),
        ("begin work;", mode(None, false)),
        ("BEGIN TRANSACTION READ ONLY", mode(Some(true), false)),
        ("START TRANSACTION READ WRITE", mode(Some(false), false)),
        ("BEGIN READ ONLY, READ WRITE", mode(Some(false), false)),
        ("START TRANSACTION", mode(None, false)),
        (
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
            mode(Some(true), true),
        ),
        (
            "BEGIN ISOLATION LEVEL READ COMMITTED, NOT DEFERRABLE",
            mode(None, false),
        ),
        (
            "/* x */ BEGIN ISOLATION LEVEL REPEATABLE READ -- y",
            mode(None, false),
        ),
    ] {
        assert_eq!(
            classify(text.as_bytes(), &none),
            Verdict::Begin(expected),
            "{text}"
        );
    }
    let set = "SET TRANSACTION READ ONLY";
    let expected = Verdict::SetTransaction(mode(Some(true), false));
    assert_eq!(classify(set.as_bytes(), &none), expected);
    for text in [
        "SET TRANSACTION SNAPSHOT '1'",
        "SET TRANSACTION",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET LOCAL transaction_read_only = on",
        "BEGIN READ",
        "BEGIN ATOMIC",
        "BEGIN; SELECT 1",
        "BEGIN READ ONLY; INSERT INTO t VALUES (1)",
        "START x",
    ] {
        let verdict = classify(text.as_bytes(), &none);
        assert!(matches!(verdict, Verdict::Unproven(_)), "{text}");
    }
}

#[test]
fn t64_a_statement_behind_the_first_counts() {
    assert_doubts(
        Reason::SeveralStatements,
        &[
            "SELECT 1; DELETE FROM t",
            "SELECT 1; SELECT 2",
            "SELECT 1;;/* x */ SELECT 2",
            "SHOW search_path; DELETE FROM t",
            "SELECT 'a;'; DROP TABLE t",
            "SELECT $$;$$; DROP TABLE t",
            "SELECT 1 /* ; */; --\nDROP TABLE t",
            "SELECT 1 --;\r; DROP TABLE t",
            "BEGIN; DELETE FROM t",
        ],
    );
}

/// What is no read, though much of it looks like one.
const WRITES: &[(Reason, &[&str])] = &[
    (
        Reason::Into,
        &[
            "SELECT 1 INTO t",
            "SELECT a inTO TEMP t FROM u",
            "(SELECT 1 INTO t)",
        ],
    ),
    (
        Reason::Locking,
        &[
            "SELECT * FROM t FOR UPDATE",
            "SELECT * FROM t FOR NO KEY UPDATE",
            "SELECT * FROM t FOR SHARE",
            "SELECT * FROM t FOR/**/KEY--\nSHARE",
            "SELECT * FROM (SELECT * FROM t for update) x",
        ],
    ),
    (
        Reason::ModifyingWith,
        &[
            "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
            "WITH x AS (DELETE FROM t RETURNING *) TABLE x",
            "SELECT * FROM (WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x) y",
            "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
            "WITH x AS (SELECT 1) MERGE INTO t USING x ON true",
        ],
    ),
    (
        Reason::Write,
        &[
            "INSERT INTO t VALUES (1)",
            "update t set a = 1",
            "DELETE FROM t",
            "MERGE INTO t",
            "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
            "EXPLAIN (ANALYZE) DELETE FROM t",
            "EXPLAIN (ANALYZE off, ANALYZE 1) DELETE FROM t",
        ],
    ),
    (
        Reason::Function,
        &[
            "SELECT nextval('s')",
            "SELECT NextVal ('s')",
            "SELECT \"nextval\"('s')",
            "SELECT pg_catalog.nextval('s')",
            "SELECT pg_catalog . \"nextval\" /* x */ ('s')",
            "SELECT 1 FROM t WHERE a = (SELECT b FROM u WHERE c IN (SELECT set_config('a', 'b', false)))",
            "SELECT (t).make_report FROM t",
            "SELECT t.make_report FROM t",
            "SELECT \"Mixed\"(1)",
            "SELECT * FROM make_report AS m(a)",
            "VALUES (nextval('s'))",
            "WITH nextval(a) AS (SELECT 1) SELECT 1",
            "EXPLAIN ANALYZE SELECT nextval('s')",
            "SELECT * FROM ROWS FROM (make_report(1), lower('a'))",
            "SELECT lower(x => nextval('s'))",
        ],
    ),
    (
        Reason::UnknownFunction,
        &[
            "SELECT fresh()",
            "SELECT \"coalesce\"(1)",
            "SELECT mixed(1)",
            "SELECT a, fresh (1)",
            "SELECT (1), fresh(1)",
            "SELECT DISTINCT ON (a) fresh(1) FROM t",
            "SELECT 1 OPERATOR(pg_catalog.+) fresh(1)",
            "SELECT NOT fresh(1)",
            "SELECT a AT TIME ZONE fresh(1)",
            "SELECT * FROM t, fresh(1)",
            "SELECT * FROM (SELECT 1) t, fresh(1) AS x(a)",
            "SELECT CASE WHEN (a) THEN fresh(1) END",
            "SELECT over(1)",
            "SELECT filter(1)",
            "SELECT operator(1)",
            "SELECT cube(1)",
            "SELECT second(1)",
            "SELECT second(1)",
            "SELECT timestamp with time zone 'now', fresh(1)",
            "WITH x AS (SELECT 1) SELECT (2), fresh(1)",
            "SELECT 1 FETCH FIRST fresh(1) ROWS ONLY",
            "SELECT a.b(1)",
            "SELECT straße(1)",
            "SELECT * FROM LATERAL fresh(1)",
            "SELECT * FROM t WHERE a BETWEEN fresh(1) AND 2",
        ],
    ),
    (
        Reason::Relation,
        &[
            "SELECT * FROM hides",
            "TABLE s.hides",
            "EXPLAIN SELECT * FROM \"hides\"",
        ],
    ),
    (
        Reason::Type,
        &["SELECT 1::checked", "SELECT CAST(a AS s.checked)"],
    ),
    (
        Reason::Command,
        &[
            "COPY (DELETE FROM t RETURNING *) TO STDOUT",
            "COPY t TO STDOUT",
            "EXECUTE x",
            "PREPARE x AS SELECT 1",
            "DECLARE c CURSOR FOR SELECT 1",
            "FETCH c",
            "CALL p()",
            "DO $$ BEGIN END $$",
            "SET a = 1",
            "CREATE TABLE t AS SELECT 1",
            "REFRESH MATERIALIZED VIEW v",
            "LOCK t",
            "LISTEN x",
            "COMMIT",
            "\"select\" 1",
            "EXPLAIN EXECUTE x",
            "EXPLAIN CREATE TABLE t AS SELECT 1",
            "EXPLAIN ANALYZE EXECUTE x",
            "(DELETE FROM t)",
        ],
    ),
    (
        Reason::Explain,
        &[
            "EXPLAIN (SIDEWAYS) SELECT 1",
            "EXPLAIN (ANALYZE",
            "EXPLAIN (COSTS 'a' 'b') SELECT 1",
        ],
    ),
];

#[test]
fn t65_what_writes_in_the_shape_of_a_read() {
    for (reason, texts) in WRITES {
        for text in *texts {
            let verdict = classify(text.as_bytes(), &usual());
            let Verdict::Unproven(doubt) = verdict else {
                panic!("{verdict:?}: {text}");
            };
            // A parenthesis in front hides which command it is.
            let same = doubt.reason == *reason || text.starts_with("(D");
            assert!(same, "{doubt:?}: {text}");
        }
    }
}

#[test]
fn t66_what_cannot_be_read_is_not_proven() {
    assert_doubts(
        Reason::Unreadable,
        &[
            "SELECT 'a",
            "SELECT \"a",
            "SELECT \"\"",
            "SELECT $$a",
            "SELECT $t$a$$",
            "SELECT /* a",
            "SELECT /* /* a */",
            "SELECT 'a\\'', nextval('s') --'",
            "SELECT E'\u{8a}\\'",
            "SELECT U&'\\0061'",
            "SELECT U&\"a\"",
            "SELECT u&\"a\"(1)",
            "SELECT 'a' 'b'",
            "SELECT 'a'\n'b'",
            "SELECT 1_000",
            "SELECT 0x1F",
            "SELECT 1a",
            "SELECT $1a",
            "SELECT $a",
            "SELECT {1}",
            "SELECT \\x",
            "SELECT 1\u{b}",
            "SELECT a)",
            "SELECT ü@lower(1)",
            "SELECT İ",
            "SELECT aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ],
    );
    let nested = format!("SELECT {}1{}", "(".repeat(64), ")".repeat(64));
    assert_doubts(Reason::Unreadable, &[&nested]);
    let nested = format!("SELECT {}1{}", "(".repeat(63), ")".repeat(63));
    assert_reads(&[&nested]);
    let long = format!("SELECT '{}'", "a".repeat(TEXT_LEN_MAX));
    assert_doubts(Reason::TooLong, &[&long]);
    assert!(matches!(
        classify(b"SELECT E'\x8a\\' ", &usual()),
        Verdict::Unproven(_)
    ));
    assert!(matches!(
        classify(b"SELECT 1\0; DELETE FROM t", &usual()),
        Verdict::Unproven(_)
    ));
}

#[test]
fn what_tells_a_primary_from_a_replica_is_asked_of_the_primary() {
    assert_doubts(
        Reason::HostSetting,
        &[
            "SHOW transaction_read_only",
            "show \"Transaction_Read_Only\"",
            "SHOW in_hot_standby",
            "SHOW ALL",
            "SHOW port",
            "SHOW pooler.position",
            "SELECT current_setting('transaction_read_only')",
            "SELECT current_setting($$in_hot_standby$$)",
            "SELECT setting FROM x WHERE name = 'TRANSACTION_READ_ONLY'",
        ],
    );
    assert_doubts(Reason::Relation, &["SELECT count(*) FROM pg_stat_activity"]);
}

#[test]
fn an_unsafe_operator_is_found_as_the_server_spells_it() {
    let names = catalogue("lower $## $*-* $<+>");
    assert_all(
        Err(Reason::Operator),
        &names,
        &[
            "SELECT a ## b",
            "SELECT a OPERATOR(s.##) b",
            "SELECT 1 <+> 2",
        ],
    );
    assert_all(
        Ok(()),
        &names,
        &[
            "SELECT a # b",
            "SELECT a ##- b",
            "SELECT a <+ > b",
            "SELECT '##'",
        ],
    );
    // These are used without being named.
    let equal = catalogue("lower $=");
    assert_all(Err(Reason::Operator), &equal, &["SELECT DISTINCT a FROM t"]);
    let unequal = catalogue("$<>x $<>");
    assert_all(Err(Reason::Operator), &unequal, &["SELECT 1"]);
    let cast = Catalogue::from_rows([(&b"cast"[..], &b"x"[..])]);
    assert_all(Err(Reason::Type), &cast, &["SELECT 1"]);
}

#[test]
fn unsafe_names_beyond_ascii_make_all_such_names_suspect() {
    let names = catalogue("lower !schreibe_ü");
    assert_all(
        Err(Reason::Unreadable),
        &names,
        &["SELECT ä", "SELECT \"ö\""],
    );
    assert_all(Ok(()), &names, &["SELECT 'ä'", "SELECT a"]);
}

#[test]
fn a_doubt_names_its_word() {
    for (text, word) in [
        ("SELECT a, pg_catalog.\"nextval\" ('s')", "\"nextval\""),
        ("SELECT fresh (1)", "fresh"),
        ("SELECT 1; DELETE FROM t", "DELETE"),
        ("WITH x AS (insert into", "insert"),
        ("COPY t", "COPY"),
    ] {
        let Verdict::Unproven(doubt) = classify(text.as_bytes(), &usual()) else {
            panic!("{text}");
        };
        assert_eq!(doubt.word(text.as_bytes()), word.as_bytes(), "{text}");
    }
}

#[test]
fn reasons_have_names_of_their_own() {
    let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Reason::ALL.len());
}

#[test]
fn a_name_is_as_unsafe_as_the_worst_of_that_name() {
    let both = catalogue("f !f g #g");
    assert_all(Err(Reason::Function), &both, &["SELECT f(1)"]);
    assert_all(Err(Reason::Relation), &both, &["SELECT g(1)"]);
    let many = (0..=NAMES_MAX).map(|n| format!("f{n}")).collect::<Vec<_>>();
    let many = Catalogue::from_rows(many.iter().map(|name| (&b"safe"[..], name.as_bytes())));
    assert_all(Err(Reason::TooManyNames), &many, &["SELECT 1"]);
}

#[test]
fn hints_stand_in_comments_at_either_end() {
    let replica = Some(Route::Replica);
    for (text, route, consistency) in [
        ("SELECT 1", None, None),
        ("/*pooler.route='replica'*/ SELECT 1", replica, None),
        ("SELECT 1 /*pooler.route='replica'*/", replica, None),
        ("SELECT 1 /* POOLER.Route = replica */ ; \n", replica, None),
        ("SELECT 1; /*pooler.route='replica'*/", replica, None),
        (
            "-- first\n/*a='b'*/ /*pooler.route='replica'*/ SELECT 1",
            replica,
            None,
        ),
        (
            "SELECT 1 /*action='%2Fa%27',pooler.consistency='eventual',pooler.route='prefer%2Dreplica',traceparent='00-x'*/",
            Some(Route::PreferReplica),
            Some(Consistency::Eventual),
        ),
        (
            "SELECT 1 /*pooler.route='replica'*/ /*traceparent='00'*/",
            replica,
            None,
        ),
        (
            "/*pooler.route='primary'*/ SELECT 1 /*pooler.route='replica'*/",
            replica,
            None,
        ),
        (
            "/*pooler.route='replica'*/ SELECT 1 /*pooler.route='nowhere'*/",
            replica,
            None,
        ),
        ("SELECT '/*pooler.route=''replica''*/'", None, None),
        ("SELECT '/*pooler.route=replica*/", None, None),
        ("SELECT $$/*pooler.route=replica*/", None, None),
        ("SELECT 1 -- /*pooler.route='replica'*/", None, None),
        ("SELECT /*pooler.route='replica'*/ 1", None, None),
        ("SELECT 1 /*pooler.route='nowhere'*/", None, None),
        ("SELECT 1 /*pooler.routes='replica'*/", None, None),
        ("/*pooler.route='replica'", None, None),
        ("/*pooler.route='%'*/ SELECT 1", None, None),
        ("/*", None, None),
        ("*/", None, None),
        ("", None, None),
    ] {
        let expected = Hints { route, consistency };
        assert_eq!(hints(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn settings_are_parsed_in_any_case() {
    for route in [
        Route::Auto,
        Route::Primary,
        Route::Replica,
        Route::PreferReplica,
    ] {
        assert_eq!(
            Route::parse(route.name().to_uppercase().as_bytes()),
            Some(route)
        );
    }
    for it in [Consistency::Eventual, Consistency::Session] {
        assert_eq!(Consistency::parse(it.name().as_bytes()), Some(it));
    }
    assert_eq!(
        (Route::parse(b""), Consistency::parse(b"strong")),
        (None, None)
    );
}

#[test]
fn commands_that_define_change_the_catalogue() {
    for tag in ["CREATE FUNCTION", "ALTER TABLE", "DROP VIEW", "DO"] {
        assert!(changes_catalogue(tag.as_bytes()), "{tag}");
    }
    for tag in [
        "SELECT 1",
        "INSERT 0 1",
        "UPDATE 1",
        "BEGIN",
        "DELETE 0",
        "COPY 1",
    ] {
        assert!(!changes_catalogue(tag.as_bytes()), "{tag}");
    }
}
