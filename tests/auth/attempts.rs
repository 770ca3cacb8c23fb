//! Guessing passwords, and passwords that change.

use std::time::{Duration, Instant};

use pooler::demo::make_dir;
use pooler::demo::postgres::Postgres;

use crate::support::{Pooler, Wire, end_servers, postgres, startup};
use crate::try_login;

/// Who fails too often waits, longer each time; others do not, and the right password ends it.
#[test]
fn failed_logins_are_made_to_wait() {
    let pooler = Pooler::before(postgres())
        .auth("type = \"scram-sha-256\"")
        .auth("max_login_failures = 3")
        .section("[users.postgres]\npassword = \"right\"\n[users.other]\npassword = \"others\"")
        .start();
    let port = pooler.port();
    let took = |user: &str, password: &str| {
        let began = Instant::now();
        let login = try_login(port, user, "postgres", password);
        (login.is_ok(), began.elapsed())
    };
    let times: Vec<Duration> = (0..8).map(|_| took("postgres", "wrong").1).collect();
    // After three: nothing, 0.1, 0.2, 0.4 and 0.8 s, each from the one before.
    let all = times.iter().sum::<Duration>();
    assert!(all >= Duration::from_millis(1500), "{times:?}");
    // The last of those waits. Of three tries, because the machine may be busy in one.
    let waited = times[..3]
        .iter()
        .min()
        .map(|t| *t + Duration::from_millis(700));
    let fastest = |user: &str, password: &str| (0..3).map(|_| took(user, password).1).min();
    assert!(fastest("other", "wrong") < waited);
    assert!(fastest("nobody", "wrong") < waited);
    assert!(took("postgres", "right").0, "after a wait");
    assert!(fastest("postgres", "right") < waited);
    assert!(took("postgres", "right").0);
    // Guessing on many connections at once is no faster: the crowd is refused.
    let guess = || {
        let mut wire = Wire::connect(port);
        // Some of them have to wait for 20 s.
        wire.set_patience(Duration::from_secs(40));
        wire.send(&[startup(&[("user", "postgres"), ("database", "postgres")])]);
        let error = wire.finish_login("postgres", "guess").err();
        error.expect("a refusal").sqlstate()
    };
    std::thread::scope(|scope| {
        let tries: Vec<_> = (0..60).map(|_| scope.spawn(guess)).collect();
        let states: Vec<_> = tries.into_iter().map(|t| t.join().unwrap()).collect();
        assert!(
            states.iter().all(|s| s == "28P01" || s == "53300"),
            "{states:?}"
        );
    });
}

/// A password is changed on the server and then in its file, without a reload: new server connections read it again.
#[test]
fn passwords_are_read_again_when_a_server_refuses_them() {
    let postgres = Postgres::builder()
        .auth("scram-sha-256")
        .start()
        .expect("PostgreSQL");
    postgres
        .psql("CREATE ROLE bob LOGIN PASSWORD 'old'; CREATE ROLE ann LOGIN PASSWORD 'old'")
        .unwrap();
    let dir = make_dir("rotation").unwrap();
    let (secret, list) = (dir.join("secret"), dir.join("userlist.txt"));
    let write = |password: &str| {
        std::fs::write(&secret, format!("{password}\n")).unwrap();
        std::fs::write(&list, format!("\"ann\" \"{password}\"\n")).unwrap();
    };
    write("old");
    let pooler = Pooler::before(&postgres)
        .auth(&format!("file = {list:?}"))
        .section(&format!("[users.bob]\npassword_file = {secret:?}"))
        .start();
    for user in ["bob", "ann"] {
        write("old");
        let mut client = try_login(pooler.port(), user, "postgres", "").expect("a login");
        assert_eq!(client.one("SELECT current_user"), user);
        postgres
            .psql(&format!("ALTER ROLE {user} PASSWORD 'new'"))
            .unwrap();
        write("new");
        end_servers(&postgres, user);
        assert_eq!(
            client.one("SELECT current_user"),
            user,
            "no client saw it fail"
        );
    }
    let log = pooler.log();
    assert_eq!(
        log.matches("the password was read again").count(),
        2,
        "{log}"
    );
    assert!(!log.contains("configuration reloaded"));
}
