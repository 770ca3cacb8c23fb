//! Method ldap: a directory says whose password is right.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pooler::demo::postgres::Postgres;
use pooler::demo::{free_port, make_dir};
use pooler::ldap::{Question, check};
use pooler_protocol::hba::{Files, Rules};

use crate::slapd::Slapd;
use crate::support::{Builder, Message, Pooler, Wire, postgres, wait_until};
use crate::{refused, try_login};

/// A pooler with a database for each of these ways to ask, all of them `postgres` as `postgres`.
fn with_rules(name: &str, rules: &[(&str, String)]) -> Builder {
    let hba = make_dir(name).unwrap().join("pg_hba.conf");
    let line =
        |(database, options): &(&str, String)| format!("host {database} all all ldap {options}\n");
    let lines: String = rules.iter().map(line).collect();
    std::fs::write(&hba, format!("{lines}host all trusted all trust\n")).unwrap();
    let section = |(database, _): &(&str, String)| {
        format!(
            "[databases.{database}]\ncluster = \"main\"\ndbname = \"postgres\"\nuser = \"postgres\"\n"
        )
    };
    let sections: String = rules.iter().map(section).collect();
    Pooler::before(postgres())
        .auth("type = \"hba\"")
        .auth(&format!("hba_file = {hba:?}"))
        .section(&sections)
}

const SEARCH: &str = "ldapbasedn=\"dc=example,dc=org\" ldapbinddn=\"cn=reader,dc=example,dc=org\" ldapbindpasswd=readers";

/// What a client is told, with another name in place of its own.
fn told(error: &Message, user: &str) -> (String, String) {
    (error.sqlstate(), error.text().replace(user, "USER"))
}

/// Every way to ask, and names that would be more than names if they were not escaped (RFC 4514, RFC 4515).
#[test]
fn a_directory_says_who_gets_in() {
    let slapd = Slapd::start("slapd1", false);
    let server = format!("ldapserver=127.0.0.1 ldapport={}", slapd.port);
    let simple = "ldapprefix=\"uid=\" ldapsuffix=\",ou=people,dc=example,dc=org\"";
    let pooler = with_rules(
        "ldap1",
        &[
            ("simple", format!("{server} {simple}")),
            ("search", format!("{server} {SEARCH}")),
            ("nobody", format!("{server} ldapbasedn=\"dc=example,dc=org\"")),
            ("attribute", format!("{server} {SEARCH} ldapsearchattribute=sn")),
            ("filter", format!("{server} {SEARCH} \"ldapsearchfilter=(&(objectClass=person)(|(uid=$username)(description=$username)))\"")),
            ("url", format!("\"ldapurl=ldap://127.0.0.1:{}/dc=example,dc=org?uid?sub\"", slapd.port)),
            ("below", format!("\"ldapurl=ldap://127.0.0.1:{}/ou=people,dc=example,dc=org?uid?one\"", slapd.port)),
            ("base", format!("\"ldapurl=ldap://127.0.0.1:{}/dc=example,dc=org?uid\"", slapd.port)),
            // Nobody listens at the first.
            ("second", format!("ldapserver=\"127.0.0.2 127.0.0.1\" ldapport={} {SEARCH}", slapd.port)),
        ],
    )
    .auth("max_login_failures = 0")
    .start();
    let port = pooler.port();
    for (database, user, password, gets_in) in [
        ("simple", "bob", "bobs", true),
        ("simple", "bob", "anns", false),
        ("simple", "gone", "bobs", false),
        ("simple", "c,d", "c,ds", true),
        ("simple", "c\\,d", "c,ds", false),
        ("simple", "twin", "twins", true),
        ("search", "bob", "bobs", true),
        ("search", "bob", "readers", false),
        ("search", "gone", "bobs", false),
        ("search", "c,d", "c,ds", true),
        ("search", "star*", "star*s", true),
        ("search", "st*", "star*s", false),
        ("search", "*", "bobs", false),
        ("search", "bob)(uid=*", "bobs", false),
        ("search", "bob)(|(uid=bob", "bobs", false),
        ("search", "twin", "twins", false),
        ("nobody", "ann", "anns", true),
        ("nobody", "ann", "bobs", false),
        ("attribute", "reader", "readers", true),
        ("attribute", "none", "readers", false),
        ("filter", "bob", "bobs", true),
        ("filter", "bob@example.org", "bobs", true),
        ("filter", "bob@example.org", "x", false),
        ("filter", "*@example.org", "bobs", false),
        ("url", "bob", "bobs", true),
        ("below", "bob", "bobs", true),
        ("below", "none", "readers", false),
        ("base", "bob", "bobs", false),
        ("second", "bob", "bobs", true),
        ("second", "bob", "x", false),
    ] {
        let login = try_login(port, user, database, password);
        match login {
            Ok(mut client) => {
                assert!(gets_in, "{database}: {user:?} got in");
                assert_eq!(client.one("SELECT current_user"), "postgres");
            }
            Err(error) => {
                assert!(
                    !gets_in,
                    "{database}: {user:?}: {error:?}\n{}",
                    pooler.log()
                );
                let text = format!("LDAP authentication failed for user \"{user}\"");
                assert_eq!((error.sqlstate(), error.text()), ("28000".to_owned(), text));
            }
        }
    }
    let log = pooler.log();
    assert!(
        !log.contains("readers") && !log.contains("bobs"),
        "t63: {log}"
    );
}

struct OneFile(String);

impl Files for OneFile {
    fn read(&mut self, _path: &Path) -> Result<Option<String>, String> {
        Ok(Some(self.0.clone()))
    }

    fn list(&mut self, _directory: &Path) -> Result<Vec<PathBuf>, String> {
        Ok(Vec::new())
    }
}

/// RFC 4513, 5.1.2: a directory may take a name without a password for a bind as nobody, and say yes.
#[test]
fn an_empty_password_is_nobodys() {
    let slapd = Slapd::start("slapd2", false);
    let server = format!("ldapserver=127.0.0.1 ldapport={}", slapd.port);
    let pooler = with_rules(
        "ldap2",
        &[
            (
                "simple",
                format!("{server} ldapprefix=\"uid=\" ldapsuffix=\",ou=people,dc=example,dc=org\""),
            ),
            ("bare", format!("{server} ldapprefix=\"\"")),
            ("search", format!("{server} {SEARCH}")),
        ],
    )
    .start();
    for database in ["simple", "bare", "search"] {
        let error = refused(pooler.port(), "bob", database, "");
        assert_eq!(error.text(), "empty password returned by client");
    }
    // Nor is it sent if it came so far.
    let text = format!("host all all all ldap {server} ldapprefix=\"uid=\"");
    let rules = Rules::read(Path::new("hba"), &mut OneFile(text)).unwrap();
    let question = |password: &str| Question {
        directory: rules.all()[0].ldap.clone().unwrap(),
        user: "bob".to_owned(),
        password: password.to_owned().into(),
        tls: None,
        limit: Duration::from_secs(20),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let check = |password| runtime.block_on(check(question(password), runtime.handle()));
    assert!(!check("").unwrap());
    assert_eq!(slapd.operations(), Vec::<String>::new(), "nobody is asked");
    assert!(!check("x").unwrap());
    wait_until("slapd has logged it", || !slapd.operations().is_empty());
}

/// t57: who does not exist costs the directory the same steps, and is told the same.
#[test]
fn t57_a_user_whom_the_directory_does_not_have_looks_like_a_wrong_password() {
    let slapd = Slapd::start("slapd3", false);
    let server = format!("ldapserver=127.0.0.1 ldapport={}", slapd.port);
    let pooler = with_rules("ldap3", &[("search", format!("{server} {SEARCH}"))]).start();
    let mut seen = Vec::new();
    for user in ["bob", "gone"] {
        let before = slapd.operations().len();
        let error = refused(pooler.port(), user, "search", "wrong");
        wait_until("slapd has logged it", || {
            slapd.operations().len() >= before + 3
        });
        let kinds: Vec<String> = slapd.operations()[before..]
            .iter()
            .map(|o| o[..4].to_owned())
            .collect();
        seen.push((told(&error, user), kinds));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].1, ["BIND", "SRCH", "BIND"]);
}

/// By both kinds of TLS; a certificate of somebody else, or none at all, and no password goes out.
#[test]
fn the_way_to_the_directory_is_encrypted_and_verified() {
    let (slapd, plain) = (Slapd::start("slapd4", true), Slapd::start("slapd5", false));
    let mut rules = Vec::new();
    for (start_tls, ldaps, server) in [
        ("starttls", "ldaps", "127.0.0.1"),
        // The certificate does not have this name.
        ("starttls2", "ldaps2", "localhost"),
    ] {
        rules.push((
            start_tls,
            format!(
                "ldapserver={server} ldapport={} ldaptls=1 {SEARCH}",
                slapd.port
            ),
        ));
        rules.push((
            ldaps,
            format!(
                "ldapserver={server} ldapport={} ldapscheme=ldaps {SEARCH}",
                slapd.tls_port
            ),
        ));
    }
    rules.push((
        "none",
        format!(
            "ldapserver=127.0.0.1 ldapport={} ldaptls=1 {SEARCH}",
            plain.port
        ),
    ));
    let mut pooler = with_rules("ldap4", &rules)
        .auth(&format!("ldap_ca = {:?}", slapd.ca))
        .auth("max_login_failures = 0")
        .start();
    let port = pooler.port();
    for database in ["starttls", "ldaps"] {
        assert!(
            try_login(port, "bob", database, "bobs").is_ok(),
            "{database}: {}",
            pooler.log()
        );
        assert_eq!(refused(port, "bob", database, "x").sqlstate(), "28000");
    }
    let binds = |slapd: &Slapd| {
        slapd
            .operations()
            .iter()
            .filter(|o| o.starts_with("BIND"))
            .count()
    };
    // Its log may come after its answers.
    wait_until("four logins of two are logged", || binds(&slapd) >= 8);
    let before = binds(&slapd);
    for database in ["starttls2", "ldaps2", "none"] {
        let error = refused(port, "bob", database, "bobs");
        assert_eq!(error.sqlstate(), "08001", "{database}: {error:?}");
    }
    // Another authority: the same server is a stranger.
    pooler.reload(|builder| builder.auth(&format!("ldap_ca = {:?}", plain.ca)));
    wait_until("reloaded", || {
        pooler.log().contains("configuration reloaded")
    });
    for database in ["starttls", "ldaps"] {
        assert_eq!(refused(port, "bob", database, "bobs").sqlstate(), "08001");
    }
    assert_eq!(
        (binds(&slapd), binds(&plain)),
        (before, 0),
        "no password went out"
    );
}

/// Not there: the log says where, the client learns as much as with a wrong password, and no attempt is counted.
#[test]
fn a_directory_that_is_away_is_told_in_the_log() {
    let port = free_port().unwrap();
    let rule = format!("ldapserver=127.0.0.1 ldapport={port} {SEARCH}");
    let pooler = with_rules("ldap5", &[("away", rule)])
        .auth("max_login_failures = 1")
        .start();
    for _ in 0..4 {
        let error = refused(pooler.port(), "bob", "away", "bobs");
        assert_eq!(
            told(&error, "bob"),
            (
                "08001".to_owned(),
                "LDAP authentication failed for user \"USER\"".to_owned()
            )
        );
    }
    let log = pooler.log();
    assert!(
        log.contains(&format!("cannot connect to ldap://127.0.0.1:{port}: ")),
        "{log}"
    );
    assert!(
        !log.contains("readers") && !log.contains("bobs"),
        "t63: {log}"
    );
}

/// A directory that takes connections and says nothing holds up nobody but who asks for it, and that one not for ever.
#[test]
fn a_directory_that_hangs_holds_up_nobody_else() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = silent.local_addr().unwrap().port();
    let rule = format!("ldapserver=127.0.0.1 ldapport={to} {SEARCH}");
    let pooler = with_rules("ldap6", &[("hangs", rule)])
        .set("workers = 1")
        .auth("ldap_timeout = \"3s\"")
        .start();
    let port = pooler.port();
    let began = Instant::now();
    std::thread::scope(|scope| {
        // More than are asked at a time.
        let hanging: Vec<_> = (0..40)
            .map(|_| scope.spawn(|| refused(port, "bob", "hangs", "bobs")))
            .collect();
        let _asked = silent.accept().unwrap();
        let mut client =
            Wire::try_login(port, &[("user", "trusted"), ("database", "postgres")], "").err();
        // There is no such role; PostgreSQL itself says so, so the pooler let it in.
        assert!(
            client
                .take()
                .is_some_and(|e| e.text().contains("does not exist"))
        );
        assert!(
            hanging.iter().all(|h| !h.is_finished()) || began.elapsed() > Duration::from_secs(3)
        );
        for login in hanging {
            assert_eq!(login.join().unwrap().sqlstate(), "08001");
        }
    });
    assert!(
        pooler
            .log()
            .contains("no answer within auth.ldap_timeout (3s)"),
        "{}",
        pooler.log()
    );
}

/// A wrong password counts as any other, and waits.
#[test]
fn guesses_are_counted() {
    let slapd = Slapd::start("slapd7", false);
    let rule = format!("ldapserver=127.0.0.1 ldapport={} {SEARCH}", slapd.port);
    let pooler = with_rules("ldap7", &[("search", rule)])
        .auth("max_login_failures = 2")
        .start();
    let took = |password: &str| {
        let began = Instant::now();
        let login = try_login(pooler.port(), "bob", "search", password);
        (login.is_ok(), began.elapsed())
    };
    // After two: nothing, 0.1, 0.2 and 0.4 s, each behind the other.
    let times: Vec<_> = (0..6).map(|_| took("guess").1).collect();
    assert!(
        times.iter().sum::<Duration>() >= Duration::from_millis(700),
        "{times:?}"
    );
    assert!(took("bobs").0, "after a wait");
}

/// What was right in the clear logs in to the server as well, where the configuration knows no secret.
#[test]
fn the_password_that_was_right_logs_in_to_the_server() {
    let slapd = Slapd::start("slapd8", false);
    let server = Postgres::builder()
        .auth("scram-sha-256")
        .start()
        .expect("PostgreSQL");
    server
        .psql("CREATE ROLE bob LOGIN PASSWORD 'bobs'; CREATE ROLE ann LOGIN PASSWORD 'other'")
        .unwrap();
    let hba = make_dir("ldap8").unwrap().join("pg_hba.conf");
    let rule = format!(
        "host all all all ldap ldapserver=127.0.0.1 ldapport={} {SEARCH}\n",
        slapd.port
    );
    std::fs::write(&hba, rule).unwrap();
    let pooler = Pooler::before(&server)
        .auth("type = \"hba\"")
        .auth(&format!("hba_file = {hba:?}"))
        .start();
    let mut bob = try_login(pooler.port(), "bob", "postgres", "bobs").expect("a login");
    assert_eq!(bob.one("SELECT current_user"), "bob");
    // The directory knows ann by another password than PostgreSQL does.
    let error = try_login(pooler.port(), "ann", "postgres", "anns").map(|mut c| c.one("SELECT 1"));
    assert!(error.is_err_and(|e| e.sqlstate().starts_with("28")));
    let log = pooler.log();
    assert!(!log.contains("bobs") && !log.contains("anns"), "t63: {log}");
}
