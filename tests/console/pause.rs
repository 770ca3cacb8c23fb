//! PAUSE and RESUME: nobody gets a server, nobody is lost, and it always ends.

use std::time::{Duration, Instant};

use crate::support::{Rig, SERVERS, Wire, query, wait_until};
use crate::{console, error, rig, rig_with, table};

fn servers(rig: &Rig) -> String {
    rig.sql(&format!("SELECT count(*) {SERVERS}"))
}

fn is_paused(console: &mut Wire, rig: &Rig) -> bool {
    let databases = table(console, "SHOW DATABASES");
    databases
        .iter()
        .any(|d| d["name"] == rig.database && d["paused"] == "1")
}

/// 76: it returns when the transactions have ended, with all servers closed; who comes meanwhile waits.
#[test]
fn t76_pause_lets_transactions_end_and_returns_when_no_server_is_left() {
    let rig = rig();
    let mut console = console(&rig);
    let mut busy = rig.login();
    busy.rows("BEGIN");
    console.send(&[query(&format!("PAUSE {}", rig.database))]);
    console.expect_silence(Duration::from_millis(300));
    let mut waiting = rig.login();
    waiting.send(&[query("SELECT 1")]);
    assert_eq!(busy.one("SELECT 2"), "2", "the transaction goes on");
    busy.rows("COMMIT");
    console.expect("C(PAUSE) Z(I)");
    assert_eq!(servers(&rig), "0");
    waiting.expect_silence(Duration::from_millis(300));
    assert!(is_paused(&mut console, &rig));
    console.rows(&format!("RESUME {}", rig.database));
    waiting.expect("T D(1) C(SELECT 1) Z(I)");
    assert_eq!(busy.one("SELECT 3"), "3");
    assert!(!is_paused(&mut console, &rig));
}

#[test]
fn t76_a_pause_that_takes_too_long_is_undone_and_says_who_is_in_the_way() {
    let rig = rig();
    let mut console = console(&rig);
    let mut busy = rig.login_with(&[("application_name", "nightly")]);
    busy.rows("BEGIN");
    let began = Instant::now();
    let failed = console.try_rows(&format!("PAUSE {} 400ms", rig.database));
    let failed = failed.expect_err("a transaction is open");
    assert_eq!(failed.sqlstate(), "57014");
    let detail = failed.field(b'D');
    for part in [
        &*format!("1 of {}/postgres", rig.database),
        "\"nightly\"",
        "idle in transaction for",
    ] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(400) && took < Duration::from_secs(3),
        "{took:?}"
    );
    assert!(!is_paused(&mut console, &rig));
    assert_eq!(rig.login().one("SELECT 1"), "1");
    busy.rows("COMMIT");
}

/// What only its server knows keeps a client there, and so a PAUSE from ending: it says who it is, and why.
#[test]
fn t76_a_pause_names_who_is_pinned_and_who_listens() {
    let rig = rig();
    let mut console = console(&rig);
    let pause = format!("PAUSE {} 400ms", rig.database);
    let mut in_the_way = |part: &str| {
        let failed = console.try_rows(&pause).expect_err(part);
        let detail = failed.field(b'D');
        assert!(detail.contains(part), "{part}: {detail}");
    };
    let mut locker = rig.login_with(&[("application_name", "locker")]);
    locker.rows("SELECT pg_advisory_lock(76)");
    in_the_way("\"locker\"");
    in_the_way("kept on its server by advisory_lock");
    locker.rows("SELECT pg_advisory_unlock(76)");
    let mut ear = rig.login_with(&[("application_name", "ear")]);
    ear.rows("LISTEN somebody");
    in_the_way("\"ear\"");
    in_the_way("listening");
    // It is no less a listener after that.
    rig.direct().rows("NOTIFY somebody, 'still'");
    assert_eq!(ear.recv().tag, b'A');
    ear.rows("UNLISTEN *");
    console.rows(&format!("PAUSE {} 10s", rig.database));
    wait_until("no server is left", || servers(&rig) == "0");
    console.rows("RESUME");
    assert_eq!(ear.one("SELECT 1"), "1");
}

#[test]
fn t76_a_pause_ends_with_whoever_asked_for_it_unless_it_was_reached() {
    let rig = rig();
    let mut watch = rig.pooler.login("watch", "pgbouncer");
    let mut busy = rig.login();
    busy.rows("BEGIN");
    for leave in [Wire::reset as fn(Wire), |wire| wire.cancel()] {
        let mut operator = console(&rig);
        operator.send(&[query("PAUSE")]);
        wait_until("it is paused", || is_paused(&mut watch, &rig));
        leave(operator);
        wait_until("it is open again", || !is_paused(&mut watch, &rig));
    }
    assert_eq!(rig.login().one("SELECT 1"), "1");
    busy.rows("COMMIT");
    let mut operator = console(&rig);
    operator.rows("PAUSE 5s");
    operator.leave();
    assert!(is_paused(&mut watch, &rig), "that one is done");
    console(&rig).rows("RESUME");
}

#[test]
fn a_cancel_ends_the_command_and_not_the_session() {
    let rig = rig();
    let (mut operator, mut watch) = (console(&rig), console(&rig));
    let mut busy = rig.login();
    busy.rows("BEGIN");
    operator.send(&[query("PAUSE")]);
    wait_until("it is paused", || is_paused(&mut watch, &rig));
    operator.cancel();
    operator.expect("E(57014) Z(I)");
    assert_eq!(table(&mut operator, "SHOW STATE")[0]["value"], "yes");
    busy.rows("COMMIT");
}

#[test]
fn pauses_of_all_and_of_one_are_told_apart() {
    let rig = rig();
    let mut console = console(&rig);
    let name = &rig.database;
    rig.login().one("SELECT 1");
    console.rows("PAUSE");
    assert_eq!(error(&mut console, "PAUSE"), "55000");
    assert_eq!(error(&mut console, &format!("PAUSE {name}")), "55000");
    assert_eq!(error(&mut console, "SUSPEND"), "55000");
    assert_eq!(error(&mut console, &format!("RESUME {name}")), "55000");
    let state = table(&mut console, "SHOW STATE");
    assert_eq!((&*state[0]["value"], &*state[1]["value"]), ("no", "yes"));
    console.rows("RESUME");
    console.rows("SUSPEND 5s");
    assert_eq!(table(&mut console, "SHOW STATE")[2]["value"], "yes");
    console.rows("RESUME");
    console.rows(&format!("PAUSE {name}"));
    assert_eq!(table(&mut console, "SHOW STATE")[0]["value"], "yes");
    console.rows("RESUME");
    assert!(!is_paused(&mut console, &rig), "RESUME opens everything");
    assert_eq!(rig.login().one("SELECT 1"), "1");
}

/// A pool that is made while its database is paused is paused, and its first client waits for RESUME, not for an error.
#[test]
fn a_database_can_be_paused_before_anybody_has_asked_for_it() {
    let rig = rig_with(|b| b.set("server_connect_timeout = \"1s\""));
    let mut console = console(&rig);
    console.rows(&format!("PAUSE {}", rig.database));
    let mut early = rig.connect();
    early.send(&[crate::support::startup(&[
        ("user", "postgres"),
        ("database", &rig.database),
    ])]);
    early.expect_silence(Duration::from_millis(2500));
    assert_eq!(servers(&rig), "0");
    console.rows("RESUME");
    early.finish_login("postgres", "").unwrap();
    assert_eq!(early.one("SELECT 1"), "1");
}

/// Many clients on several workers through many pauses: each query is answered once, none fails.
#[test]
fn pauses_under_load_lose_nothing() {
    let rig = rig_with(|b| b.set("pool_size = 3"));
    let mut operator = console(&rig);
    let deadline = Instant::now() + Duration::from_secs(3);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let mut client = rig.login();
            scope.spawn(move || {
                let mut n = 0;
                while Instant::now() < deadline {
                    n += 1;
                    assert_eq!(client.one(&format!("SELECT {n}")), n.to_string());
                }
                client.leave();
            });
        }
        while Instant::now() < deadline {
            operator.rows("PAUSE 5s");
            assert_eq!(servers(&rig), "0");
            operator.rows("RESUME");
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    rig.assert_sound();
}

/// Who waits for a pool that nobody will resume does not keep the pooler from ending.
#[test]
fn t75_a_pause_does_not_keep_the_pooler_from_ending() {
    for signal in ["TERM", "INT"] {
        let rig = rig();
        let mut console = console(&rig);
        let mut waiting = rig.login();
        console.rows("PAUSE 5s");
        waiting.send(&[query("SELECT 1")]);
        waiting.expect_silence(Duration::from_millis(200));
        rig.pooler.signal(signal);
        waiting.expect("E(57P01) .");
        assert_eq!(rig.pooler.wait_exit().code(), Some(0), "{signal}");
    }
}
