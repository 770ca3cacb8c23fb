//! What a session changes: rows B26 to B28 and trap 7.

use std::time::Duration;

use crate::support::{Rig, Wire, bind, execute, parse, query, sync, wait_until};

/// What may be left on a server, and the question that finds it.
const LEFT_BEHIND: [(&str, &str); 8] = [
    ("SET statement_timeout = '77s'", "SHOW statement_timeout"),
    ("SET search_path = evil", "SHOW search_path"),
    ("SET ROLE pg_monitor", "SELECT current_user"),
    (
        "PREPARE p AS SELECT 1",
        "SELECT count(*) FROM pg_prepared_statements WHERE name = 'p'",
    ),
    (
        "LISTEN evil",
        "SELECT count(*) FROM pg_listening_channels()",
    ),
    (
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "SELECT count(*) FROM pg_cursors",
    ),
    (
        "CREATE TEMP TABLE left_behind (a int)",
        "SELECT count(*) FROM pg_class WHERE relname = 'left_behind'",
    ),
    (
        "SELECT pg_advisory_lock(1)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
    ),
];

fn assert_nothing_left(rig: &Rig, cases: &[(&str, &str)]) {
    for (command, question) in cases {
        let clean = rig.direct().one(question);
        for extended in [false, true] {
            let mut wire = rig.login();
            if extended {
                wire.send(&[parse("", command), bind("", "", &[]), execute(""), sync()]);
            } else {
                wire.send(&[query(command)]);
            }
            let got = wire.recv_to_ready();
            assert!(got.iter().any(|m| m.tag == b'C'), "{command}: {got:?}");
            wire.leave();
            let mut other = rig.login();
            assert_eq!(other.one(question), clean, "{command}");
            other.leave();
        }
    }
}

#[test]
fn b26_t29_a_session_pool_is_reset_between_clients() {
    let rig = Rig::with(|b| b.set("pool_size = 1").set("pool_mode = \"session\""));
    assert_nothing_left(&rig, &LEFT_BEHIND);
    rig.assert_sound();
}

#[test]
fn b26_t29_what_commands_leave_behind_reaches_nobody_else() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    assert_nothing_left(&rig, &LEFT_BEHIND[..6]);
    rig.assert_sound();
}

#[test]
fn b27_b28_a_reported_setting_follows_its_client_over_all_servers() {
    let rig = Rig::with(|b| b.set("pool_size = 2"));
    let mut a = rig.login_with(&[("application_name", "of a"), ("TimeZone", "Asia/Tokyo")]);
    let mut b = rig.login_with(&[("application_name", "of b"), ("DateStyle", "German")]);
    assert_eq!(a.parameters["TimeZone"], "Asia/Tokyo");
    assert_eq!(b.parameters["DateStyle"], "German, DMY");
    a.send(&[query("SET TimeZone = 'Europe/Paris'")]);
    let got = a.recv_to_ready();
    assert!(
        got.iter().any(|m| m.is("S(TimeZone=Europe/Paris)")),
        "{got:?}"
    );
    b.send(&[query("SET application_name = 'renamed'")]);
    let got = b.recv_to_ready();
    assert!(
        got.iter().any(|m| m.is("S(application_name=renamed)")),
        "{got:?}"
    );
    let home = rig.direct().one("SHOW TimeZone");
    let style = rig.direct().one("SHOW DateStyle");
    let mut plain = rig.login();
    let mut holder = rig.login();
    for round in 0..6 {
        // Another server each time.
        if round % 2 == 0 {
            holder.rows("BEGIN");
        } else {
            holder.rows("COMMIT");
        }
        assert_eq!(a.one("SHOW TimeZone"), "Europe/Paris");
        assert_eq!(a.one("SHOW application_name"), "of a");
        assert_eq!(b.one("SHOW application_name"), "renamed");
        assert_eq!(b.one("SHOW DateStyle"), "German, DMY");
        assert_eq!(plain.one("SHOW TimeZone"), home);
        assert_eq!(plain.one("SHOW DateStyle"), style);
        assert_eq!(plain.one("SHOW application_name"), "");
    }
    // In the extended protocol the settings go in front, too, and nothing of it is seen.
    for wire in [&mut a, &mut b, &mut plain] {
        wire.send(&[
            parse("", "SELECT 1"),
            bind("", "", &[]),
            execute(""),
            sync(),
        ]);
        wire.expect("1 2 D(1) C(SELECT 1) Z(I)");
    }
    rig.assert_sound();
}

#[test]
fn t31_a_setting_that_is_rolled_back_is_not_kept() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut wire = rig.login();
    let mut other = rig.login();
    let home = wire.one("SHOW TimeZone");
    wire.rows("BEGIN; SET TimeZone = 'Asia/Tokyo'");
    wire.rows("ROLLBACK");
    assert_eq!(other.one("SHOW TimeZone"), home);
    assert_eq!(wire.one("SHOW TimeZone"), home);
    wire.rows("BEGIN; SET LOCAL TimeZone = 'Asia/Tokyo'");
    wire.rows("COMMIT");
    assert_eq!(other.one("SHOW TimeZone"), home);
    assert_eq!(wire.one("SHOW TimeZone"), home);
    wire.rows("BEGIN; SET TimeZone = 'Asia/Tokyo'; SAVEPOINT s; SET TimeZone = 'Europe/Paris'");
    wire.rows("ROLLBACK TO s; COMMIT");
    assert_eq!(other.one("SHOW TimeZone"), home);
    assert_eq!(wire.one("SHOW TimeZone"), "Asia/Tokyo");
    rig.assert_sound();
}

#[test]
fn t07_notices_and_notifications_reach_who_is_in_a_transaction() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut wire = rig.login();
    wire.send(&[query(
        "DO $$ BEGIN RAISE NOTICE 'hello'; RAISE WARNING 'world'; END $$",
    )]);
    let got = wire.expect("N(00000) N(01000) C(DO) Z(I)");
    assert_eq!(
        (got[0].text(), got[1].text()),
        ("hello".to_owned(), "world".to_owned())
    );
    wire.send(&[query("BEGIN; LISTEN c; NOTIFY c, 'self'; COMMIT")]);
    wire.expect("C(BEGIN) C(LISTEN) C(NOTIFY) C(COMMIT) A(c|self) Z(I)");
    // When it leaves, its server listens no longer: what is notified then disturbs no client.
    drop(wire);
    let mut other = rig.login();
    assert_eq!(other.one("SELECT 1"), "1");
    rig.sql("NOTIFY c, 'nobody'");
    assert_eq!(other.one("SELECT 2"), "2");
    rig.assert_sound();
}

/// A reload of PostgreSQL makes it send ParameterStatus to idle sessions, a client's or the pool's.
#[test]
fn t07_parameter_status_may_come_at_any_time() {
    let rig = Rig::with(|b| b.set("pool_size = 2"));
    let mut idle = rig.login();
    assert_eq!(idle.one("SELECT 1"), "1");
    let mut open = rig.login();
    open.rows("BEGIN");
    rig.sql(&format!(
        "ALTER DATABASE {} SET TimeZone = 'Asia/Tokyo'",
        rig.database
    ));
    assert_eq!(open.one("SELECT 2"), "2");
    open.rows("COMMIT");
    assert_eq!(idle.one("SELECT 3"), "3");
    rig.assert_sound();
}

/// A backend that ends while it idles is replaced, and no client sees it (rows C01, C02).
#[test]
fn c01_c02_a_backend_is_terminated() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut wire = rig.login();
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for _ in 0..3 {
        assert_eq!(wire.one("SELECT 1"), "1");
        rig.direct().one(kill);
        rig.wait_sql("count(*) = 1 FROM pg_stat_activity WHERE datname = current_database()");
    }
    wire.send(&[query("SELECT pg_sleep(100)")]);
    rig.wait_sql("count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(100)' AND state = 'active' AND datname = current_database()");
    rig.direct().one(kill);
    let got = wire.recv_to_end();
    assert!(got.iter().any(|m| m.is("E(57P01)")), "{got:?}");
    let mut wire: Wire = rig.login();
    wire.rows("BEGIN");
    rig.direct().one(kill);
    wait_until("the client hears of it", || {
        wire.set_patience(Duration::from_millis(100));
        !matches!(wire.poll(), crate::support::Received::Silence)
    });
    rig.assert_sound();
}
