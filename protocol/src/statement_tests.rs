//! What texts make one suspect, and what not.

use super::*;

#[track_caller]
fn expect(marks: Marks, texts: &[&str]) {
    for text in texts {
        assert_eq!(scan(text.as_bytes()), marks, "{text}");
    }
}

#[test]
fn what_leaves_nothing_is_not_suspected() {
    expect(
        Marks::NONE,
        &[
            "",
            ";",
            "SELECT 1",
            "UPDATE template_attempts SET temperature = 'household'",
            "UPDATE offset_table SET x = 1",
            "SET LOCAL work_mem = '1MB'",
            "set transaction isolation level serializable",
            "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2)",
            "SELECT set_config('app.user', 'it''s, (me)', true)",
            "SAVEPOINT a",
            "ROLLBACK TO SAVEPOINT a",
            "rollback work to a",
            "SELECT dolphins FROM callers",
            "SELECT threshold",
        ],
    );
}

#[test]
fn words_in_any_place_and_case() {
    expect(
        Marks::SETTINGS,
        &[
            "SET work_mem = '1MB'",
            "  -- hello; \n /* a /* b */ c */ sEt a.b to 1",
            "RESET ALL",
            "SELECT 1;set x to y",
            "SELECT pg_catalog.set_config('search_path', '', false)",
            "SELECT set_config($1, $2, $3)",
            "SELECT set_config('a.b', 'true', f(true))",
            "SELECT set_config('a.b', E'\\'', true), ')', true)",
            "SET SESSION AUTHORIZATION DEFAULT",
        ],
    );
    expect(
        Marks::TEMPORARY,
        &[
            "CREATE TEMP TABLE t (i int)",
            "create temporary sequence s",
            "SELECT 1 INTO TEMPORARY t",
            "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "SELECT * FROM pg_temp_3.t",
        ],
    );
    expect(
        Marks::LOCKS,
        &[
            "SELECT pg_advisory_lock(1)",
            "SELECT * FROM PG_TRY_ADVISORY_LOCK(1)",
            "SELECT pg_advisory_unlock_all()",
        ],
    );
    expect(Marks::CURSOR, &["DECLARE c CURSOR WITH HOLD FOR SELECT 1"]);
    expect(Marks::LISTEN, &["LISTEN a", "unlisten *"]);
    expect(Marks::PREPARED, &["PREPARE a AS SELECT 1", "DEALLOCATE a"]);
    expect(
        Marks::ALL | Marks::DRAWS,
        &["DO $$x$$", "CALL p()", "EXECUTE a(1)"],
    );
    expect(Marks::ALL, &["discard all"]);
    expect(
        Marks::BEGINS,
        &[
            "BEGIN",
            "start transaction",
            "(;BEGIN ISOLATION LEVEL SERIALIZABLE",
        ],
    );
    expect(
        Marks::ENDS,
        &[
            "COMMIT",
            "END",
            "ROLLBACK WORK",
            "abort;",
            "PREPARE TRANSACTION 'a'",
        ],
    );
    expect(
        Marks::NONE,
        &["COMMIT PREPARED 'a'", "ROLLBACK PREPARED 'a'"],
    );
    expect(Marks::COPIES | Marks::DRAWS, &["COPY t FROM STDIN"]);
    expect(
        Marks::DRAWS,
        &[
            "insert into t values (1)",
            "SELECT NextVal('s')",
            "select setval('s', 1)",
        ],
    );
    expect(Marks::DRAWN, &["SELECT currval('s')", "select lastval()"]);
}

#[test]
fn a_text_in_two_pieces_is_scanned_like_one() {
    let text = b"INSERT INTO t VALUES (1); SET x = 1; SELECT pg_advisory_lock(1) /* */";
    for cut in 1..text.len() {
        let (a, b) = text.split_at(cut);
        let seam = &text[cut.saturating_sub(WORD_LEN_MAX)..text.len().min(cut + WORD_LEN_MAX)];
        let marks = scan(a) | scan_on(seam) | scan_on(b);
        assert!(marks.has(Marks::SETTINGS | Marks::LOCKS), "cut at {cut}");
    }
}

#[test]
fn what_is_held_is_asked_about_when_it_may_be_gone() {
    let marks = scan(b"DROP TABLE t; CLOSE c");
    assert_eq!(marks.questions(Marks::NONE), Marks::NONE);
    assert_eq!(marks.questions(Marks::TEMPORARY), Marks::TEMPORARY);
    assert_eq!(
        marks.questions(Marks::ALL),
        Marks::TEMPORARY | Marks::CURSOR
    );
    assert_eq!(scan(b"SET a = 1").questions(Marks::NONE), Marks::SETTINGS);
}

#[test]
fn names_of_applications_settings() {
    let mut seen = Vec::new();
    custom_settings(
        b"SELECT pg_catalog.set_config('app.tenant', '1.5', false), x.y; SET\n SESSION my_app.Sub.name = a.b",
        |name| seen.push(name.to_owned()),
    );
    assert_eq!(seen, ["app.tenant", "my_app.Sub.name"]);
}

#[test]
fn statements_by_name() {
    let deallocate = |name: &str, from, to| {
        Some(ByName::Deallocate(Named {
            name: name.into(),
            place: from..to,
        }))
    };
    assert_eq!(by_name(b"DEALLOCATE A3"), deallocate("a3", 11, 13));
    assert_eq!(
        by_name(b" deallocate prepare \"Q\"\"x\" ;"),
        deallocate("Q\"x", 20, 26)
    );
    assert_eq!(
        by_name(b"DEALLOCATE prepare"),
        deallocate("prepare", 11, 18)
    );
    for other in [
        "DEALLOCATE ALL",
        "deallocate prepare all;",
        "DEALLOCATE a; SELECT 1",
        "DEALLOCATE",
        "SELECT",
    ] {
        assert_eq!(by_name(other.as_bytes()), None, "{other}");
    }
    let execute = |text: &str| match by_name(text.as_bytes()) {
        Some(ByName::Execute(named)) => String::from_utf8(named.name).ok(),
        _ => None,
    };
    assert_eq!(execute("EXECUTE foo(1, 'x')"), Some("foo".into()));
    assert_eq!(execute("EXECUTE \"Foo\" ; "), Some("Foo".into()));
    assert_eq!(execute("EXECUTE a; EXECUTE b;"), None);
}

#[test]
fn databases_that_everybody_must_leave() {
    for (text, name) in [
        ("DROP DATABASE shop", "shop"),
        ("drop database if exists Shop with (force);", "shop"),
        (" /* x */ DROP DATABASE \"Shop\"\"s\"", "Shop\"s"),
        ("ALTER DATABASE shop RENAME TO store", "shop"),
        ("ALTER DATABASE shop SET TABLESPACE fast", "shop"),
        ("CREATE DATABASE test WITH TEMPLATE = shop", "shop"),
        ("CREATE DATABASE template OWNER me TEMPLATE shop", "shop"),
        ("CREATE DATABASE test TEMPLATE \"Shop\" OWNER me", "Shop"),
    ] {
        assert!(scan(text.as_bytes()).has(Marks::DATABASE), "{text}");
        let found = vacated_database(text.as_bytes());
        assert_eq!(found.as_deref(), Some(name.as_bytes()), "{text}");
    }
    for text in [
        "CREATE DATABASE test",
        "CREATE DATABASE test OWNER templates",
        "ALTER DATABASE shop SET work_mem = '1MB'",
        "ALTER DATABASE shop OWNER TO me",
        "DROP DATABASE",
        "DROP TABLE database",
        "CREATE DATABASE test TEMPLATE",
        "SELECT 'DROP DATABASE shop'",
    ] {
        assert_eq!(vacated_database(text.as_bytes()), None, "{text}");
    }
    for text in [
        "DROP TABLE database",
        "DROP SCHEMA s",
        "CREATE TABLE t (i int)",
    ] {
        assert!(!scan(text.as_bytes()).has(Marks::DATABASE), "{text}");
    }
}
