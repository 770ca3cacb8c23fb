//! Signals that end the pooler, and what becomes of those inside.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pooler::demo::make_dir;

use crate::support::{Rig, SERVERS, Wire, query, wait_until};

fn drained(rig: &Rig) {
    wait_until("the signal is heard", || {
        rig.pooler.log().contains("received a signal")
    });
}

#[test]
fn t75_sigterm_lets_transactions_end() {
    let rig = Rig::new();
    let mut idle = rig.login();
    let mut busy = rig.login();
    busy.rows("CREATE TABLE t (i int)");
    busy.rows("BEGIN");
    rig.pooler.signal("TERM");
    let got = idle.recv_to_end();
    assert_eq!(got.last().expect("an error").sqlstate(), "57P01", "{got:?}");
    drained(&rig);
    wait_until("nobody new gets in", || {
        Wire::try_connect(rig.pooler.port()).is_err()
    });
    busy.rows("INSERT INTO t VALUES (1)");
    busy.send(&[query("COMMIT")]);
    busy.expect("C(COMMIT) Z(I) E(57P01) .");
    assert_eq!(rig.pooler.wait_exit().code(), Some(0));
    assert_eq!(rig.sql("SELECT count(*) FROM t"), "1");
}

#[test]
fn sigint_ends_transactions_and_lets_no_new_one_begin() {
    let rig = Rig::new();
    let mut idle = rig.login();
    let mut busy = rig.login();
    let mut greedy = rig.login();
    busy.rows("BEGIN");
    idle.rows("SELECT 1");
    rig.pooler.signal("INT");
    drained(&rig);
    assert_eq!(busy.one("SELECT 1"), "1");
    // One that always has another query must not keep the pooler alive.
    greedy.send(&[query("SELECT 2")]);
    idle.send(&[query("SELECT 3")]);
    busy.send(&[query("COMMIT")]);
    let got = busy.recv_to_end();
    assert!(got.iter().any(|m| m.is("C(COMMIT)")), "{got:?}");
    assert_eq!(got.last().expect("an error").sqlstate(), "57P01", "{got:?}");
    for client in [&mut idle, &mut greedy] {
        let got = client.recv_to_end();
        assert_eq!(got.last().expect("an error").sqlstate(), "57P01", "{got:?}");
    }
    assert_eq!(rig.pooler.wait_exit().code(), Some(0));
}

/// Under load there is always a query running; SIGINT ends the process all the same.
#[test]
fn sigint_under_load_ends_the_process() {
    let rig = Rig::with(|b| b.set("pool_size = 3"));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            let mut client = rig.login();
            scope.spawn(move || {
                loop {
                    if client
                        .try_send_bytes(&query("SELECT pg_sleep(0.01)"))
                        .is_err()
                    {
                        return;
                    }
                    loop {
                        match client.poll() {
                            crate::support::Received::Message(m) if m.tag == b'Z' => break,
                            crate::support::Received::Message(_) => {}
                            _ => return,
                        }
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(200));
        rig.pooler.signal("INT");
        let deadline = Instant::now() + crate::support::PATIENCE;
        while rig.pooler.ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let status = rig.pooler.ended();
        if status.is_none() {
            rig.pooler.signal("KILL");
        }
        assert_eq!(status.expect("an end in time").code(), Some(0));
    });
}

#[test]
fn sigquit_and_a_second_signal_end_at_once() {
    for signals in [
        &["QUIT"][..],
        &["TERM", "TERM"],
        &["INT", "TERM"],
        &["TERM", "INT"],
    ] {
        let rig = Rig::new();
        rig.sql("CREATE TABLE t (i int)");
        let mut busy = rig.login();
        let mut running = rig.login();
        busy.rows("BEGIN");
        busy.rows("INSERT INTO t VALUES (1)");
        running.send(&[query("SELECT pg_sleep(60)")]);
        rig.wait_sql("EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT pg_sleep(60)')");
        let began = Instant::now();
        for signal in signals {
            rig.pooler.signal(signal);
            drained(&rig);
        }
        for client in [&mut busy, &mut running] {
            let got = client.recv_to_end();
            assert_eq!(
                got.last().expect("an error").sqlstate(),
                "57P01",
                "{signals:?} {got:?}"
            );
        }
        assert_eq!(rig.pooler.wait_exit().code(), Some(0), "{signals:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{signals:?}");
        rig.wait_sql(&format!("NOT EXISTS (SELECT {SERVERS})"));
        assert_eq!(rig.sql("SELECT count(*) FROM t"), "0");
    }
}

#[test]
fn shutdown_timeout_bounds_the_wait() {
    let rig = Rig::with(|b| b.set("shutdown_timeout = \"1s\""));
    let mut busy = rig.login();
    busy.rows("BEGIN");
    let began = Instant::now();
    rig.pooler.signal("TERM");
    busy.expect("E(57P01) .");
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(900) && took < Duration::from_secs(5),
        "{took:?}"
    );
    assert_eq!(rig.pooler.wait_exit().code(), Some(0));
    assert!(rig.pooler.log().contains("shutdown_timeout"));
}

/// Waiters, half logins and peers that read nothing do not keep it from ending.
#[test]
fn t75_nobody_keeps_the_pooler_from_ending() {
    let rig = Rig::with(|b| b.set("pool_size = 1").set("admin_users = [\"postgres\"]"));
    let mut holder = rig.login();
    holder.rows("BEGIN");
    let mut waiting = rig.login();
    waiting.send(&[query("SELECT 1")]);
    let mut operator = rig.pooler.login("postgres", "pooler");
    wait_until("it waits", || operator.rows("SHOW QUEUE").len() == 1);
    operator.leave();
    let mut deaf = rig.connect();
    deaf.send_bytes(&[0, 0]);
    rig.pooler.signal("TERM");
    drained(&rig);
    holder.send(&[query("COMMIT")]);
    holder.expect("C(COMMIT) Z(I) E(57P01) .");
    waiting.expect("T D(1) C(SELECT 1) Z(I) E(57P01) .");
    assert_eq!(rig.pooler.wait_exit().code(), Some(0));
}

/// Nor does who comes by the Unix socket, which operators may use to the end, and says nothing.
#[test]
fn t75_a_late_login_does_not_keep_the_pooler_from_ending() {
    let dir = make_dir("late").expect("a directory");
    let rig = Rig::with(|b| {
        b.listen(&dir.display().to_string())
            .set("workers = 1")
            .set("client_login_timeout = \"60s\"")
    });
    let mut holder = rig.login();
    holder.rows("BEGIN");
    rig.pooler.signal("TERM");
    drained(&rig);
    let socket = dir.join(format!(".s.PGSQL.{}", rig.pooler.port()));
    let _silent = UnixStream::connect(socket).expect("a connection");
    // When this is answered, the worker has taken the connection.
    holder.rows("SELECT 1");
    holder.send(&[query("COMMIT")]);
    holder.expect("C(COMMIT) Z(I) E(57P01) .");
    assert_eq!(rig.pooler.wait_exit().code(), Some(0));
}
