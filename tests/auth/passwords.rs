//! Passwords that change: two that are right, and programs that print them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pooler::demo::make_dir;
use pooler::demo::postgres::Postgres;

use crate::support::{Pooler, wait_until};
use crate::{refused, try_login};

fn scram_server() -> Postgres {
    let server = Postgres::builder().auth("scram-sha-256").start();
    server.expect("PostgreSQL")
}

/// While a password is being changed, clients may come with either, by every method; the server is tried with both.
#[test]
fn clients_and_servers_may_have_either_password() {
    let server = scram_server();
    server
        .psql("CREATE ROLE bob LOGIN PASSWORD 'newest'")
        .unwrap();
    for method in ["password", "md5", "scram-sha-256"] {
        let pooler = Pooler::before(&server)
            .auth(&format!("type = {method:?}"))
            .auth("max_login_failures = 0")
            .section("[users.bob]\npassword = \"oldest\"\nsecond_password = \"newest\"")
            .start();
        for password in ["oldest", "newest"] {
            let login = try_login(pooler.port(), "bob", "postgres", password);
            let mut bob = login.unwrap_or_else(|e| panic!("{method} {password}: {e:?}"));
            assert_eq!(bob.one("SELECT current_user"), "bob");
        }
        for wrong in ["older", "oldestnewest"] {
            assert_eq!(
                refused(pooler.port(), "bob", "postgres", wrong).sqlstate(),
                "28P01",
                "{method}"
            );
        }
        let log = pooler.log();
        assert!(
            !log.contains("newest") && !log.contains("oldest"),
            "t63: {log}"
        );
    }
}

/// A program that prints the file `secret`, and complains with it.
fn program(dir: &Path) -> PathBuf {
    let path = dir.join("secret.sh");
    let script = "#!/bin/sh\ncat \"$1\"\necho \"asked for $(head -n 1 \"$1\")\" >&2\n";
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A password is changed on the server while clients work, through a file of two lines and through a program: every server
/// connection is replaced meanwhile, and no client sees it.
#[test]
fn no_client_sees_a_password_change() {
    let server = scram_server();
    server
        .psql("CREATE ROLE filed LOGIN PASSWORD 'first0'; CREATE ROLE printed LOGIN PASSWORD 'first0'")
        .unwrap();
    let dir = make_dir("passwords").unwrap();
    let secret = dir.join("secret");
    // At once, as whoever rotates passwords does.
    let write = |text: &str| {
        std::fs::write(dir.join("new"), text).unwrap();
        std::fs::rename(dir.join("new"), &secret).unwrap();
    };
    write("first0\n");
    let pooler = Pooler::before(&server)
        .set("server_lifetime = \"300ms\"")
        .section(&format!(
            "[users.filed]\npassword_file = {secret:?}\n[users.printed]\npassword_command = [{:?}, {secret:?}]",
            program(&dir)
        ))
        .start();
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = ["filed", "printed"]
            .into_iter()
            .flat_map(|user| [user; 3])
            .map(|user| {
                let (stop, done, port) = (&stop, &done, pooler.port());
                scope.spawn(move || {
                    let mut client = try_login(port, user, "postgres", "").expect("a login");
                    while !stop.load(Ordering::Acquire) {
                        assert_eq!(client.one("SELECT current_user"), user);
                        done.fetch_add(1, Ordering::AcqRel);
                    }
                })
            })
            .collect();
        for round in 0..2 {
            let (old, new) = (format!("first{round}"), format!("first{}", round + 1));
            write(&format!("{old}\n{new}\n"));
            let since = server.psql("SELECT now()").unwrap().trim().to_owned();
            server
                .psql(&format!(
                    "ALTER ROLE filed PASSWORD '{new}'; ALTER ROLE printed PASSWORD '{new}'"
                ))
                .unwrap();
            let mut later = done.load(Ordering::Acquire);
            for text in [format!("{old}\n{new}\n"), format!("{new}\n")] {
                write(&text);
                // Server connections of both that logged in after the change, and clients that went on.
                wait_until("new connections", || {
                    let of_both = format!(
                        "SELECT count(DISTINCT usename) FROM pg_stat_activity WHERE usename IN ('filed', 'printed') \
                         AND backend_start > '{since}' AND query LIKE 'SELECT current_user%'"
                    );
                    clients.iter().any(|c| c.is_finished())
                        || server.psql(&of_both).is_ok_and(|n| n.trim() == "2")
                            && done.load(Ordering::Acquire) > later + 20
                });
                later = done.load(Ordering::Acquire);
            }
        }
        stop.store(true, Ordering::Release);
        for client in clients {
            client.join().expect("no client saw an error");
        }
    });
    let log = pooler.log();
    assert!(log.contains("says: asked for ..."), "{log}");
    for secret in ["first0", "first1", "first2"] {
        assert!(!log.contains(secret), "t63: {log}");
    }
}

/// A program that fails is told in the log; the client learns as much as of a wrong password.
#[test]
fn a_program_that_fails_is_told_in_the_log() {
    let server = scram_server();
    server.psql("CREATE ROLE bob LOGIN PASSWORD 'x'").unwrap();
    let pooler = Pooler::before(&server)
        .section("[users.bob]\npassword_command = [\"/bin/sh\", \"-c\", \"exit 7\"]")
        .start();
    let login = try_login(pooler.port(), "bob", "postgres", "").map(|mut c| c.one("SELECT 1"));
    assert!(login.is_err());
    assert!(
        pooler
            .log()
            .contains("password_command \"/bin/sh\": exit status: 7"),
        "{}",
        pooler.log()
    );
    assert!(
        !pooler.log().contains("no password is known"),
        "{}",
        pooler.log()
    );
}
