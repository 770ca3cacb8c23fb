//! auth_query: users that no file lists.

use std::time::{Duration, Instant};

use pooler::demo::postgres::{Postgres, Stop};

use crate::support::{Builder, Pooler, Wire, end_servers, wait_until};
use crate::{refused, try_login};

const QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END \
                     FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin";

/// A PostgreSQL where everybody needs a password, with a user who may look others up.
fn server() -> Postgres {
    let postgres = Postgres::builder()
        .auth("scram-sha-256")
        .start()
        .expect("PostgreSQL");
    let roles = "CREATE ROLE looker LOGIN SUPERUSER PASSWORD 'looks';\
        CREATE ROLE bob LOGIN PASSWORD 'bobs'; CREATE ROLE eve LOGIN; \
        CREATE ROLE old LOGIN PASSWORD 'olds' VALID UNTIL '2020-01-01'; \
        CREATE ROLE idle NOLOGIN PASSWORD 'idles'; \
        SET password_encryption = md5; CREATE ROLE hashed LOGIN PASSWORD 'hasheds'";
    postgres.psql(roles).expect("roles");
    postgres
}

fn before(postgres: &Postgres, query: &str) -> Builder {
    Pooler::before(postgres)
        .auth("type = \"scram-sha-256\"")
        .auth("user = \"looker\"")
        .auth(&format!("query = {query:?}"))
        .section("[users.looker]\npassword = \"looks\"\n[users.listed]\npassword = \"listeds\"")
}

/// Who is looked up gets in with the right password alone, and the proof of SCRAM opens the server: nobody's password is in
/// any file.
#[test]
fn scram_passes_through_with_a_verifier_that_was_looked_up() {
    let postgres = server();
    let pooler = before(&postgres, QUERY).start();
    let mut bob = try_login(pooler.port(), "bob", "postgres", "bobs").expect("a login");
    assert_eq!(bob.one("SELECT current_user"), "bob");
    assert_eq!(
        refused(pooler.port(), "bob", "postgres", "looks").sqlstate(),
        "28P01"
    );
    assert_eq!(
        refused(pooler.port(), "bob", "postgres", "x").sqlstate(),
        "28P01"
    );
    let log = pooler.log();
    for secret in ["bobs", "looks", "SCRAM-SHA-256$"] {
        assert!(!log.contains(secret), "t63: {log}");
    }
}

/// Every way of not being anybody looks the same.
#[test]
fn t57_t58_who_does_not_exist_or_may_not_log_in_looks_like_a_wrong_password() {
    let postgres = server();
    for method in ["scram-sha-256", "md5", "password"] {
        let pooler = before(&postgres, QUERY)
            .auth(&format!("type = {method:?}"))
            .start();
        let port = pooler.port();
        let model = refused(port, "bob", "postgres", "wrong");
        assert_eq!(model.sqlstate(), "28P01");
        // An unknown user must not become the one who looks up (CVE-2015-6817); names are data, however they look.
        for (user, password) in [
            ("nobody", "looks"),
            ("eve", ""),
            ("eve", "x"),
            ("old", "olds"),
            ("idle", "idles"),
            ("x' OR rolname = 'bob", "bobs"),
            ("$1", "bobs"),
        ] {
            if password.is_empty() && method == "password" {
                continue;
            }
            let error = refused(port, user, "postgres", password);
            assert_eq!(
                (error.sqlstate(), error.text()),
                (
                    "28P01".to_owned(),
                    format!("password authentication failed for user \"{user}\"")
                ),
                "{method} {user}"
            );
            for kind in [b'S', b'D', b'H'] {
                assert_eq!(error.field(kind), model.field(kind), "{method} {user}");
            }
        }
        if method != "scram-sha-256" {
            assert!(
                try_login(port, "hashed", "postgres", "hasheds").is_err(),
                "the server asks for SCRAM"
            );
        }
        assert!(
            try_login(port, "bob", "postgres", "bobs").is_ok(),
            "{method}"
        );
    }
}

/// A query that says another name than the one that was asked for lets nobody in, and the log says why.
#[test]
fn t58_the_name_that_comes_back_must_be_the_one_that_was_asked_for() {
    let postgres = server();
    let query = "SELECT 'bob'::name, rolpassword FROM pg_authid WHERE rolname = 'bob' AND $1 <> ''";
    let pooler = before(&postgres, query).start();
    assert_eq!(
        refused(pooler.port(), "mallory", "postgres", "bobs").sqlstate(),
        "28P01"
    );
    assert!(pooler.log().contains("another user"), "{}", pooler.log());
    let mut bob = try_login(pooler.port(), "bob", "postgres", "bobs").expect("himself");
    assert_eq!(bob.one("SELECT current_user"), "bob");
    // PostgreSQL cuts names: so does not the pooler.
    postgres
        .psql(&format!(
            "CREATE ROLE {} LOGIN PASSWORD 'longs'",
            "l".repeat(63)
        ))
        .unwrap();
    let pooler = before(&postgres, QUERY).start();
    assert!(try_login(pooler.port(), &"l".repeat(63), "postgres", "longs").is_ok());
    let error = refused(pooler.port(), &"l".repeat(70), "postgres", "longs");
    assert_eq!(error.sqlstate(), "28P01");
}

/// A changed password counts at once for who knows the new one, and for nobody longer than the time of the cache.
#[test]
fn a_failed_login_has_the_secret_looked_up_again() {
    let postgres = server();
    let pooler = before(&postgres, QUERY).auth("cache_time = \"1h\"").start();
    let port = pooler.port();
    let mut bob = try_login(port, "bob", "postgres", "bobs").expect("a login");
    assert_eq!(bob.one("SELECT 1"), "1");
    postgres.psql("ALTER ROLE bob PASSWORD 'new'").unwrap();
    // What is known is younger than a second only just after the first login.
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(
        refused(port, "bob", "postgres", "new").sqlstate(),
        "28P01",
        "by what is known"
    );
    let mut again = try_login(port, "bob", "postgres", "new").expect("the new one");
    assert_eq!(again.one("SELECT current_user"), "bob");
    assert_eq!(refused(port, "bob", "postgres", "bobs").sqlstate(), "28P01");
    // Servers that are opened from now on get the new one's proof.
    end_servers(&postgres, "bob");
    wait_until("another server", || again.try_rows("SELECT 1").is_ok());
    // In the clear it can be tried in the same login.
    let verified = postgres.psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'bob'");
    assert!(verified.unwrap().starts_with("SCRAM"));
    let pooler = before(&postgres, QUERY)
        .auth("type = \"password\"")
        .database("user = \"looker\"")
        .start();
    assert!(try_login(pooler.port(), "bob", "postgres", "new").is_ok());
    postgres.psql("ALTER ROLE bob PASSWORD 'newer'").unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert!(try_login(pooler.port(), "bob", "postgres", "newer").is_ok());
}

/// Five hundred logins of one name are one query, and a login that finds the answer known is none.
#[test]
fn look_ups_of_one_name_are_one_query() {
    let postgres = server();
    postgres
        .psql(
            "CREATE TABLE asked (name text); CREATE FUNCTION look(n text) RETURNS TABLE (u name, p text) LANGUAGE plpgsql \
             SECURITY DEFINER AS $$ BEGIN INSERT INTO public.asked VALUES (n); PERFORM pg_sleep(0.3); RETURN QUERY SELECT \
             rolname, rolpassword FROM pg_authid WHERE rolname = n; END $$",
        )
        .unwrap();
    let pooler = before(&postgres, "SELECT * FROM public.look($1)").start();
    let port = pooler.port();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                try_login(port, "bob", "postgres", "bobs")
                    .expect("a login")
                    .one("SELECT 1")
            });
        }
        for _ in 0..20 {
            scope.spawn(|| refused(port, "nobody", "postgres", "x"));
        }
    });
    let asked = postgres.psql("SELECT name, count(*) FROM asked GROUP BY 1 ORDER BY 1");
    assert_eq!(asked.unwrap().trim(), "bob|1\nnobody|1");
    let connections =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pooler auth'";
    let connections: u32 = postgres.psql(connections).unwrap().trim().parse().unwrap();
    assert!((1..=2).contains(&connections), "{connections}");
}

/// What a client asks its session to be never reaches the connection that looks it up (CVE-2025-12819).
#[test]
fn t34_no_setting_of_a_client_reaches_the_look_up() {
    let postgres = server();
    postgres
        .psql(
            "CREATE SCHEMA evil; CREATE TABLE evil.pg_authid (rolname name, rolpassword text, rolvaliduntil timestamptz, \
             rolcanlogin bool); INSERT INTO evil.pg_authid VALUES ('ghost', 'boo', NULL, true); \
             GRANT USAGE ON SCHEMA evil TO public; GRANT SELECT ON evil.pg_authid TO public; \
             ALTER ROLE looker SET search_path = evil, pg_catalog",
        )
        .unwrap();
    let query = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1 AND rolcanlogin";
    let pooler = before(&postgres, query).start();
    for options in [
        ("search_path", "evil, pg_catalog"),
        ("options", "-c search_path=evil,pg_catalog"),
        ("role", "postgres"),
        ("client_encoding", "LATIN1"),
    ] {
        let asked = [("user", "ghost"), ("database", "postgres"), options];
        let error = Wire::try_login(pooler.port(), &asked, "boo")
            .err()
            .expect("a refusal");
        assert_eq!(error.sqlstate(), "28P01", "{options:?}");
    }
    assert!(try_login(pooler.port(), "bob", "postgres", "bobs").is_ok());
}

/// While nobody can be asked, who is listed gets in as ever, and the others are told to come back; then they get in.
#[test]
fn a_look_up_that_is_down_is_no_wrong_password() {
    let postgres = server();
    let pooler = before(&postgres, QUERY)
        .auth("lookup_timeout = \"1s\"")
        .start();
    let port = pooler.port();
    postgres.stop(Stop::Fast).unwrap();
    for _ in 0..5 {
        let began = Instant::now();
        let error = refused(port, "bob", "postgres", "bobs");
        assert_eq!(error.sqlstate(), "08001", "{error:?}");
        assert!(began.elapsed() < Duration::from_secs(2));
        assert!(
            !error.text().contains("127.0.0.1"),
            "strangers learn no address"
        );
    }
    assert_eq!(
        refused(port, "listed", "postgres", "wrong").sqlstate(),
        "28P01"
    );
    assert_eq!(
        pooler.log().matches("a user cannot be looked up").count(),
        1,
        "{}",
        pooler.log()
    );
    postgres.start_again().unwrap();
    wait_until("bob gets in", || {
        try_login(port, "bob", "postgres", "bobs").is_ok()
    });
    // A connection that breaks while it idles is replaced without a word.
    postgres
        .psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pooler auth'")
        .unwrap();
    assert!(try_login(port, "hashed", "postgres", "x").is_err());
    let error = refused(port, "someone", "postgres", "x");
    assert_eq!(error.sqlstate(), "28P01", "{error:?}");
}

/// A query that fails is told to the operator, not to strangers.
#[test]
fn a_query_that_fails_says_why_in_the_log_alone() {
    let postgres = server();
    for (query, says) in [
        ("SELECT nothing FROM nowhere WHERE a = $1", "nowhere"),
        (
            "SELECT rolname FROM pg_authid WHERE rolname = $1",
            "two columns",
        ),
        (
            "SELECT 'bob', $1::text UNION ALL SELECT 'bob', 'x'",
            "more than one row",
        ),
        ("SELECT $1::text, 'SCRAM-SHA-256$no'", "gave no secret"),
    ] {
        let pooler = before(&postgres, query).start();
        for _ in 0..3 {
            let error = refused(pooler.port(), "bob", "postgres", "x");
            assert_eq!(error.sqlstate(), "28P01", "{query}");
        }
        let log = pooler.log();
        let said = log.matches("a user cannot be looked up").count();
        assert!(said == 1 && log.contains(says), "{query}: {log}");
    }
}

/// The console asks no server; listed users are never looked up, also those that are listed without a secret.
#[test]
fn who_is_listed_is_not_looked_up() {
    let postgres = server();
    let list = pooler::demo::make_dir("lists")
        .unwrap()
        .join("userlist.txt");
    std::fs::write(&list, "\"bob\" \"\"\n\"ops\" \"opss\"\n").unwrap();
    let pooler = before(&postgres, QUERY)
        .auth(&format!("file = {list:?}"))
        .set("admin_users = [\"ops\", \"hashed\"]")
        .section("[users.hashed]\npool_size = 1")
        .start();
    let port = pooler.port();
    assert_eq!(refused(port, "bob", "postgres", "bobs").sqlstate(), "28P01");
    assert!(try_login(port, "ops", "pooler", "opss").is_ok());
    assert_eq!(
        refused(port, "hashed", "pooler", "hasheds").sqlstate(),
        "28P01"
    );
}
