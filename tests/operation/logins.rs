//! Users and passwords, on both sides.

use pooler::demo::postgres::Postgres;

use crate::support::{Message, Pooler, Rig, SERVERS, Wire, end_servers, wait_until};

const PLAIN: &str = "secret word";
/// md5 of "secret wordbob".
fn md5_of(user: &str) -> String {
    postgres_protocol::authentication::md5_hash(user.as_bytes(), PLAIN.as_bytes(), [0; 4]);
    postgres_protocol::password::md5(PLAIN.as_bytes(), user)
}

fn scram() -> String {
    postgres_protocol::password::scram_sha_256(PLAIN.as_bytes())
}

fn try_login(port: u16, user: &str, database: &str, password: &str) -> Result<Wire, Message> {
    Wire::try_login(port, &[("user", user), ("database", database)], password)
}

/// What a startup packet asks for is looked into once for all logins that ask for the same, one after the other: whoever asks
/// for something else gets that, and what servers are born with may change in between.
#[test]
fn a_login_gets_what_it_asks_for_whatever_the_last_one_got() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let zone_of = |zone| rig.login_with(&[("TimeZone", zone)]).one("SHOW TimeZone");
    let [west, east] = ["PST8PDT", "Asia/Tokyo"];
    for zone in [west, west, east, east, west] {
        assert_eq!(zone_of(zone), zone);
    }
    // Asks for nothing, and was there before: no login comes between the two below.
    let mut any = rig.login();
    for (default, before) in [(west, east), (east, west), (west, east)] {
        assert_eq!(zone_of(before), before);
        rig.sql(&format!(
            "ALTER DATABASE {} SET TimeZone = '{default}'",
            rig.database
        ));
        rig.sql(&format!("SELECT pg_terminate_backend(pid) {SERVERS}"));
        // A query that is sent while it ends would meet it.
        rig.wait_sql(&format!("NOT EXISTS (SELECT {SERVERS})"));
        wait_until("a server that is born with it", || {
            any.one("SHOW TimeZone") == default
        });
        // Servers were born with that when it was asked for last.
        assert_eq!(zone_of(before), before, "{default}");
    }
}

/// Each way to ask for a password, with each form in which it can be kept: the right one gets in, and a wrong one, an
/// empty one and an unknown user look exactly the same.
#[test]
fn a17_t57_password_authentication() {
    let users = format!(
        "[users.plain]\npassword = \"{PLAIN}\"\n[users.hashed]\npassword = \"{}\"\n[users.verified]\npassword = \"{}\"\n",
        md5_of("hashed"),
        scram()
    );
    // Method, and whether it can check: plain, md5, SCRAM.
    let methods = [
        ("password", [true, true, true]),
        ("md5", [true, true, true]),
        ("scram-sha-256", [true, false, true]),
    ];
    for (method, can) in methods {
        let rig = Rig::with(|b| {
            b.auth(&format!("type = \"{method}\""))
                .section(&users)
                .database("user = \"postgres\"")
        });
        let port = rig.pooler.port();
        let login = |user: &str, password: &str| try_login(port, user, &rig.database, password);
        for (user, can) in ["plain", "hashed", "verified"].into_iter().zip(can) {
            match login(user, PLAIN) {
                Ok(mut client) => {
                    assert!(can, "{method} {user}");
                    assert_eq!(client.one("SELECT 1"), "1");
                }
                Err(e) => assert!(!can, "{method} {user}: {e:?}"),
            }
            for wrong in ["secret", "", "secret word "] {
                let error = login(user, wrong).err().expect("a refusal");
                assert_eq!(error.sqlstate(), "28P01", "{method} {user} {wrong:?}");
                if !wrong.is_empty() {
                    let text = format!("password authentication failed for user \"{user}\"");
                    assert_eq!(error.text(), text, "{method} {user} {wrong:?}");
                }
            }
        }
        for unknown in ["nobody", "Plain", "plain "] {
            let error = login(unknown, PLAIN).err().expect("a refusal");
            let text = format!("password authentication failed for user \"{unknown}\"");
            assert_eq!(
                (error.sqlstate(), error.text()),
                ("28P01".to_owned(), text),
                "{method}"
            );
            let known = login("plain", "wrong").err().expect("a refusal");
            let same = |kind| known.field(kind) == error.field(kind);
            assert!(
                same(b'S') && same(b'D') && same(b'H'),
                "{known:?} {error:?}"
            );
        }
        let log = rig.pooler.log();
        assert!(!log.contains(PLAIN), "t63: {log}");
    }
}

/// The same verifier on both sides and no plain password anywhere: the client's proof opens the server.
#[test]
fn scram_passes_through_to_the_server() {
    let postgres = Postgres::builder()
        .auth("scram-sha-256")
        .start()
        .expect("PostgreSQL");
    let verifier = scram();
    postgres
        .psql(&format!("CREATE ROLE bob LOGIN PASSWORD '{verifier}'"))
        .expect("a role");
    let pooler = Pooler::before(&postgres)
        .auth("type = \"scram-sha-256\"")
        .section(&format!("[users.bob]\npassword = \"{verifier}\""))
        .start();
    let mut client = try_login(pooler.port(), "bob", "postgres", PLAIN).expect("a login");
    assert_eq!(client.one("SELECT current_user"), "bob");
    // Servers that are opened later need no client that logs in just then.
    end_servers(&postgres, "bob");
    assert_eq!(client.one("SELECT 1"), "1", "another server");
    let config = std::fs::read_to_string(pooler.dir().join("pooler.toml")).unwrap();
    assert!(!config.contains(PLAIN) && !pooler.log().contains(PLAIN));
    let error = try_login(pooler.port(), "bob", "postgres", "wrong")
        .err()
        .expect("a refusal");
    assert_eq!(error.sqlstate(), "28P01");
}

/// Each way in which a server asks for a password, and what is needed for it.
#[test]
fn the_pooler_logs_in_as_the_server_asks() {
    let hash = md5_of("bob");
    for (asks, stored, kept, works) in [
        ("password", PLAIN, PLAIN, true),
        ("password", PLAIN, &*hash, false),
        ("md5", &*hash, PLAIN, true),
        ("md5", &*hash, &*hash, true),
        ("scram-sha-256", PLAIN, PLAIN, true),
        ("scram-sha-256", PLAIN, &*hash, false),
        ("scram-sha-256", PLAIN, "another", false),
    ] {
        let postgres = Postgres::builder().auth(asks).start().expect("PostgreSQL");
        postgres
            .psql(&format!("CREATE ROLE bob LOGIN PASSWORD '{stored}'"))
            .expect("a role");
        let pooler = Pooler::before(&postgres)
            .section(&format!("[users.bob]\npassword = \"{kept}\""))
            .start();
        match try_login(pooler.port(), "bob", "postgres", "") {
            Ok(mut client) => {
                assert!(works, "{asks} {kept}");
                assert_eq!(client.one("SELECT current_user"), "bob");
            }
            Err(e) => {
                assert!(!works, "{asks}: {e:?}");
                assert_eq!(e.sqlstate(), "28P01", "{e:?}");
                assert!(!e.text().contains(kept), "t63");
            }
        }
    }
}

/// The server's password is changed: sessions stay, new servers need the new one, a reload brings it.
#[test]
fn server_password_rotated() {
    let postgres = Postgres::builder()
        .auth("scram-sha-256")
        .start()
        .expect("PostgreSQL");
    postgres
        .psql("CREATE ROLE bob LOGIN PASSWORD 'old'")
        .expect("a role");
    let users = |password: &str| format!("[users.bob]\npassword = \"{password}\"");
    let base = Pooler::before(&postgres);
    let pooler = base.clone().section(&users("old")).start();
    let mut client = try_login(pooler.port(), "bob", "postgres", "").expect("a login");
    assert_eq!(client.one("SELECT 1"), "1");
    postgres.psql("ALTER ROLE bob PASSWORD 'new'").expect("SQL");
    assert_eq!(client.one("SELECT 1"), "1", "open connections stay");
    end_servers(&postgres, "bob");
    let error = client
        .try_rows("SELECT 1")
        .expect_err("the old password is refused");
    assert_eq!(error.sqlstate(), "28P01");
    pooler.reload_text(&base.section(&users("new")).toml(pooler.port()));
    wait_until("the new one works", || client.try_rows("SELECT 1").is_ok());
    assert_eq!(
        client.one("SELECT current_user"),
        "bob",
        "in the same session"
    );
}

/// A password that was wrong from the start and is mended by a reload.
#[test]
fn a_wrong_server_password_is_mended_by_a_reload() {
    let postgres = Postgres::builder()
        .auth("scram-sha-256")
        .start()
        .expect("PostgreSQL");
    postgres
        .psql("CREATE ROLE bob LOGIN PASSWORD 'right'")
        .expect("a role");
    let users = |password: &str| format!("[users.bob]\npassword = \"{password}\"");
    let base = Pooler::before(&postgres);
    let pooler = base.clone().section(&users("wrong")).start();
    let error = try_login(pooler.port(), "bob", "postgres", "")
        .err()
        .expect("a refusal");
    assert_eq!(error.sqlstate(), "28P01");
    pooler.reload_text(&base.section(&users("right")).toml(pooler.port()));
    wait_until("the right one is used", || {
        try_login(pooler.port(), "bob", "postgres", "").is_ok()
    });
}
