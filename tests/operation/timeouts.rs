//! Timeouts: what ends, with which SQLSTATE, and that they count from the right moment (trap 47).

use std::time::{Duration, Instant};

use crate::support::{Rig, Wire, bind, execute, parse, query, startup, sync};

/// Expects the end `transcript`, and not before the limit has passed since what it counts from, which came after `began`.
fn ends_after(mut client: Wire, began: Instant, limit: Duration, transcript: &str) {
    client.expect(transcript);
    let took = began.elapsed();
    assert!(took >= limit, "{took:?}");
    assert!(took < limit + Duration::from_secs(5), "{took:?}");
}

#[test]
fn client_idle_timeout_counts_from_the_end_of_the_last_transaction() {
    let rig = Rig::with(|b| b.set("client_idle_timeout = \"2s\""));
    let mut client = rig.login();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(client.one("SELECT 1"), "1", "busy enough");
    }
    client.rows("SELECT pg_sleep(2.5)");
    client.rows("BEGIN");
    std::thread::sleep(Duration::from_millis(2500));
    let began = Instant::now();
    client.rows("COMMIT");
    ends_after(client, began, Duration::from_secs(2), "E(57P05) .");
    rig.assert_sound();
}

#[test]
fn idle_transaction_timeout_rolls_back_and_frees_the_server() {
    let rig = Rig::with(|b| {
        b.set("idle_transaction_timeout = \"700ms\"")
            .set("pool_size = 1")
    });
    rig.sql("CREATE TABLE t (i int)");
    let mut client = rig.login();
    client.rows("BEGIN");
    client.rows("INSERT INTO t VALUES (1)");
    let began = Instant::now();
    client.rows("SELECT pg_sleep(1)");
    let mut failed = rig.login();
    failed.send(&[query("SELECT 2")]);
    let limit = Duration::from_millis(1700);
    ends_after(client, began, limit, "E(25P03) .");
    failed.expect("T D(2) C(SELECT 1) Z(I)");
    assert_eq!(rig.sql("SELECT count(*) FROM t"), "0");
    rig.assert_sound();
}

#[test]
fn transaction_timeout_ends_busy_ones_too() {
    let rig = Rig::with(|b| b.set("transaction_timeout = \"2s\"").set("pool_size = 1"));
    let mut client = rig.login();
    client.rows("SELECT pg_sleep(1.1)");
    client.rows("SELECT pg_sleep(1.1)");
    let began = Instant::now();
    client.rows("BEGIN");
    client.send(&[query("SELECT pg_sleep(30)")]);
    ends_after(client, began, Duration::from_secs(2), "E(25P04) .");
    rig.assert_sound();
}

/// A query that PostgreSQL can cancel fails and its session goes on; each query has the whole time.
#[test]
fn query_timeout_cancels_first() {
    let rig = Rig::with(|b| b.set("query_timeout = \"2s\"").set("pool_size = 1"));
    let mut client = rig.login();
    for _ in 0..3 {
        client.rows("SELECT pg_sleep(0.8)");
    }
    client.rows("BEGIN");
    std::thread::sleep(Duration::from_millis(2200));
    client.rows("COMMIT");
    for _ in 0..2 {
        client.send(&[query("SELECT pg_sleep(30)")]);
        client.expect("T E(57014) Z(I)");
    }
    client.send(&[
        parse("", "SELECT pg_sleep(30)"),
        bind("", "", &[]),
        execute(""),
        sync(),
    ]);
    client.expect("1 2 E(57014) Z(I)");
    assert_eq!(client.one("SELECT 1"), "1");
    rig.assert_sound();
}

/// The deadline of a login is absolute: bytes that trickle do not move it. Those who are done are not hit by it.
#[test]
fn t47_client_login_timeout_is_absolute() {
    let rig = Rig::with(|b| b.set("client_login_timeout = \"1s\""));
    let mut inside = rig.login();
    let packet = startup(&[("user", "postgres"), ("database", &rig.database)]);
    let mut silent = rig.connect();
    let mut trickling = rig.connect();
    let began = Instant::now();
    for byte in &packet {
        if trickling.try_send_bytes(&[*byte]).is_err() || began.elapsed() > Duration::from_secs(3) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    for client in [&mut silent, &mut trickling] {
        let got = client.recv_to_end();
        assert!(got.len() <= 1, "{got:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(inside.one("SELECT 1"), "1");
    rig.assert_sound();
}

/// 0 is "never" on each of them.
#[test]
fn t46_zero_means_never_everywhere() {
    let names = [
        "client_idle_timeout",
        "idle_transaction_timeout",
        "transaction_timeout",
        "query_timeout",
        "query_wait_timeout",
        "query_wait_notify",
        "server_lifetime",
        "server_idle_timeout",
        "reserve_pool_timeout",
        "client_login_timeout",
        "cancel_wait_timeout",
        "tcp_keepalive",
        "tcp_user_timeout",
    ];
    let rig = Rig::with(|b| {
        names.iter().fold(b.set("pool_size = 1"), |b, name| {
            b.set(&format!("{name} = \"0\""))
        })
    });
    let mut client = rig.login();
    client.rows("BEGIN");
    let pid = client.one("SELECT pg_backend_pid()");
    let mut waiting = rig.login();
    waiting.send(&[query("SELECT pg_backend_pid()")]);
    waiting.expect_silence(Duration::from_secs(1));
    client.rows("COMMIT");
    let got = waiting.recv_to_ready();
    assert!(got.iter().any(|m| m.is(&format!("D({pid})"))), "{got:?}");
    client.send(&[query("SELECT pg_sleep(60)")]);
    rig.wait_sql("EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT pg_sleep(60)')");
    client.cancel();
    client.expect("T E(57014) Z(I)");
    rig.assert_sound();
}
