//! A real PostgreSQL that loses backends, freezes, crashes and reloads.

use std::process::Command;
use std::time::{Duration, Instant};

use pooler::demo::postgres::Postgres;

use crate::support::{Pooler, Rig, Wire, bind, execute, parse, query, terminate, wait_until};

#[test]
fn c01_an_idle_server_that_is_terminated_is_replaced_silently() {
    let rig = Rig::new();
    let mut client = rig.login();
    for _ in 0..3 {
        let pid = client.one("SELECT pg_backend_pid()");
        rig.sql(&format!("SELECT pg_terminate_backend({pid})"));
        rig.wait_sql(&format!(
            "NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"
        ));
        assert_ne!(client.one("SELECT pg_backend_pid()"), pid, "another server");
    }
    rig.assert_sound();
}

#[test]
fn c02_a_server_that_is_terminated_in_a_query() {
    let rig = Rig::new();
    let mut client = rig.login();
    let mut other = rig.login();
    client.send(&[query("SELECT pg_sleep(60)")]);
    rig.wait_sql("EXISTS (SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND datname = current_database() AND wait_event = 'PgSleep')");
    let asked = Instant::now();
    rig.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND datname = current_database()");
    client.expect("T E(57P01) .");
    assert!(asked.elapsed() < Duration::from_secs(3));
    assert_eq!(other.one("SELECT 1"), "1");
    rig.assert_sound();
}

/// PostgreSQL restarts all sessions when one backend dies: a transaction is reported broken and never goes on elsewhere.
#[test]
fn c03_a_backend_that_is_killed_takes_the_transactions_with_it() {
    let postgres = Postgres::builder().start().expect("PostgreSQL");
    let pooler = Pooler::before(&postgres).start();
    let mut busy = pooler.login("postgres", "postgres");
    let mut idle = pooler.login("postgres", "postgres");
    assert_eq!(idle.one("SELECT 1"), "1");
    busy.rows("CREATE TABLE c03 (i int)");
    busy.rows("BEGIN");
    busy.rows("INSERT INTO c03 VALUES (1)");
    postgres.crash_children().expect("a crash");
    wait_until("PostgreSQL is back", || postgres.psql("SELECT 1").is_ok());
    busy.send(&[query("INSERT INTO c03 VALUES (2)"), query("COMMIT")]);
    let got = busy.recv_to_end();
    assert!(!got.iter().any(|m| m.tag == b'C'), "{got:?}");
    let error = got.last().expect("an error");
    assert!(
        ["57P02", "57P01", "08006"].contains(&&*error.sqlstate()),
        "{got:?}"
    );
    assert_eq!(
        idle.one("SELECT count(*) FROM c03"),
        "0",
        "an idle session stays"
    );
    pooler.assert_serves("postgres", "postgres");
}

fn signal(name: &str, pid: &str) {
    let kill = Command::new("kill").args(["-s", name, pid]).status();
    assert!(kill.expect("kill").success());
}

/// One backend hangs: its client gets query_timeout, the others notice nothing.
#[test]
fn c04_s39_a_frozen_backend_hurts_only_its_client() {
    let rig = Rig::with(|b| b.set("query_timeout = \"1s\""));
    let mut stuck = rig.login();
    let mut other = rig.login();
    stuck.rows("BEGIN");
    let pid = stuck.one("SELECT pg_backend_pid()");
    signal("STOP", &pid);
    stuck.send(&[query("SELECT 1")]);
    let began = Instant::now();
    for _ in 0..10 {
        assert_eq!(other.one("SELECT 1"), "1");
    }
    assert!(began.elapsed() < Duration::from_secs(3));
    stuck.expect("E(57014) .");
    signal("CONT", &pid);
    rig.assert_sound();
}

#[test]
fn c05_a_notice_and_an_error_of_300_kb_are_passed_whole() {
    let rig = Rig::new();
    let mut client = rig.login();
    for kind in ["NOTICE", "EXCEPTION"] {
        let sql = format!("DO $$ BEGIN RAISE {kind} '%', repeat('x', 300000); END $$");
        client.send(&[query(&sql)]);
        let got = client.recv_to_ready();
        let text = got
            .iter()
            .find(|m| matches!(m.tag, b'N' | b'E'))
            .expect("it")
            .text();
        assert_eq!(text.len(), 300_000, "{kind}");
        assert!(text.bytes().all(|b| b == b'x'));
    }
    assert_eq!(client.one("SELECT 1"), "1");
    rig.assert_sound();
}

/// ParameterStatus comes whenever PostgreSQL reloads: to idle servers, to one in a transaction, to one in a query.
#[test]
fn c06_t07_t35_a_reload_of_postgresql_disturbs_nobody() {
    let postgres = Postgres::builder().start().expect("PostgreSQL");
    let pooler = Pooler::before(&postgres).start();
    let mut idle = pooler.login("postgres", "postgres");
    let mut busy = pooler.login("postgres", "postgres");
    let mut sleeping = pooler.login("postgres", "postgres");
    busy.rows("BEGIN");
    sleeping.send(&[query("SELECT pg_sleep(1)")]);
    assert_eq!(idle.one("SELECT 1"), "1");
    for zone in ["Asia/Tokyo", "Africa/Nairobi"] {
        postgres.set_conf("timezone", zone).expect("a setting");
        postgres.reload().expect("a reload");
        // A backend reads the file when its next statement comes, which may still run with the old value.
        wait_until("the setting is there", || idle.one("SHOW timezone") == zone);
        wait_until("in a transaction too", || busy.one("SHOW timezone") == zone);
    }
    busy.rows("COMMIT");
    let got = sleeping.recv_to_ready();
    assert!(got.iter().any(|m| m.is("C(SELECT 1)")), "{got:?}");
    pooler.assert_serves("postgres", "postgres");
}

#[test]
fn c07_t44_t45_two_hundred_clients_that_die_in_four_ways() {
    let rig = Rig::with(|b| b.set("pool_size = 8"));
    rig.sql("CREATE TABLE c07 (i int)");
    let mut clients: Vec<Wire> = (0..200).map(|_| rig.login()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        match at % 4 {
            // Terminate ends no query: one of these may have been sent on before its client left.
            0 if at / 4 % 4 == 3 => client.send(&[query("SELECT pg_sleep(0.2)")]),
            0 => client.send(&[query("SELECT pg_sleep(30)")]),
            1 => client.send(&[query("BEGIN; INSERT INTO c07 VALUES (1)")]),
            2 => client.send(&[
                parse("s", "INSERT INTO c07 VALUES (2)"),
                bind("", "s", &[]),
                execute(""),
            ]),
            _ => client.send_bytes(&query("INSERT INTO c07 VALUES (3)")[..20]),
        }
    }
    for (at, mut client) in clients.into_iter().enumerate() {
        match at / 4 % 4 {
            0 => client.reset(),
            1 => drop(client),
            2 => client.shut_down_writing(),
            _ => drop(client.try_send_bytes(&terminate())),
        }
    }
    rig.assert_sound();
    assert_eq!(
        rig.sql("SELECT count(*) FROM c07"),
        "0",
        "nothing unfinished was committed"
    );
    assert_eq!(
        rig.sql("SELECT count(*) FROM pg_locks WHERE relation = 'c07'::regclass"),
        "0"
    );
}

/// All servers are lost at once: in a transaction that is an error and nothing was committed; idle sessions notice
/// nothing; the service is back within a second of PostgreSQL, and the outage costs little processor time.
#[test]
fn s42_s43_a_crash_and_restart_of_postgresql() {
    // Of three tries, because the machine may be busy in one.
    let took = (0..3).map(|_| crash_and_restart());
    let mut took = took.skip_while(|took| *took >= Duration::from_secs(1));
    assert!(
        took.next().is_some(),
        "served a second after PostgreSQL was back"
    );
}

/// How long clients had no service after PostgreSQL was back.
fn crash_and_restart() -> Duration {
    let postgres = Postgres::builder().start().expect("PostgreSQL");
    let pooler = Pooler::before(&postgres).start();
    postgres.psql("CREATE TABLE s42 (i int)").expect("a table");
    let mut busy: Vec<Wire> = (0..3)
        .map(|_| pooler.login("postgres", "postgres"))
        .collect();
    let mut idle: Vec<Wire> = (0..10)
        .map(|_| pooler.login("postgres", "postgres"))
        .collect();
    for client in &mut busy {
        client.rows("BEGIN");
        client.rows("INSERT INTO s42 VALUES (1)");
    }
    for client in &mut idle {
        client.rows("SELECT 1");
    }
    postgres.crash().expect("a crash");
    let before = pooler.cpu_centiseconds();
    for client in &mut busy {
        drop(client.try_send_bytes(&query("COMMIT")));
        let got = client.recv_to_end();
        assert!(!got.iter().any(|m| m.tag == b'C'), "{got:?}");
    }
    for client in &mut idle {
        client.send(&[query("SELECT 2")]);
    }
    std::thread::sleep(Duration::from_secs(2));
    if let (Some(before), Some(after)) = (before, pooler.cpu_centiseconds()) {
        assert!(
            after - before < 60,
            "{} ms of CPU in an outage of 2 s",
            (after - before) * 10
        );
    }
    postgres.start_again().expect("a start");
    let back = Instant::now();
    for client in &mut idle {
        client.expect("T D(2) C(SELECT 1) Z(I)");
    }
    let took = back.elapsed();
    eprintln!("served {took:?} after PostgreSQL was back");
    assert_eq!(idle[0].one("SELECT count(*) FROM s42"), "0");
    pooler.assert_serves("postgres", "postgres");
    took
}

/// Frozen as a whole: connects hang and queries hang. A cancel does not help, query_timeout does; all is well afterwards.
#[test]
fn s03_s39_a_frozen_postgresql() {
    let postgres = Postgres::builder().start().expect("PostgreSQL");
    let pooler = Pooler::before(&postgres)
        .set("query_timeout = \"1s\"")
        .set("server_connect_timeout = \"2s\"")
        .start();
    let mut stuck = pooler.login("postgres", "postgres");
    let mut late = pooler.login("postgres", "postgres");
    stuck.rows("BEGIN");
    postgres.freeze().expect("a freeze");
    stuck.send(&[query("SELECT 1")]);
    stuck.expect("E(57014) .");
    late.send(&[query("SELECT 1")]);
    postgres.thaw().expect("a thaw");
    let got = late.recv_to_ready();
    assert!(got.iter().any(|m| m.is("D(1)")), "{got:?}");
    pooler.assert_serves("postgres", "postgres");
}
