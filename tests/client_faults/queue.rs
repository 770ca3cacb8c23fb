//! Clients that wait for a server: traps 10, 36 to 38, and what a pool that is full owes them.

use std::time::{Duration, Instant};

use crate::support::{
    Rig, Wire, bind, close, copy_data, describe, execute, flush, parse, query, sync,
};

fn full_pool(timeout: &str) -> (Rig, Wire) {
    let timeout = format!("query_wait_timeout = \"{timeout}\"");
    let rig = Rig::with(|b| b.set("pool_size = 1").set(&timeout));
    let mut holder = rig.login();
    holder.rows("BEGIN");
    (rig, holder)
}

#[test]
fn t10_no_server_in_time_in_the_middle_of_a_batch() {
    let (rig, mut holder) = full_pool("700ms");
    rig.sql("CREATE TABLE t (a int)");
    let mut simple = rig.login();
    simple.send(&[query("SELECT 1")]);
    let mut whole = rig.login();
    let insert = [
        parse("s", "INSERT INTO t VALUES (1)"),
        describe("s"),
        bind("", "s", &[]),
        execute(""),
    ]
    .concat();
    whole.send(&[insert.clone(), sync(), query("SELECT 'behind'")]);
    let mut part = rig.login();
    part.send(&[insert.clone(), flush()]);
    let got = simple.expect("E(53400) Z(I)");
    assert_eq!(got[0].field(b'V'), "ERROR");
    assert!(
        !got[0].field(b'H').is_empty() && !got[0].field(b'D').is_empty(),
        "{got:?}"
    );
    // One error and one ReadyForQuery; then the next one waits for itself.
    whole.expect("E(53400) Z(I) E(53400) Z(I)");
    // At once, not at Sync; and what comes up to Sync is thrown away.
    part.expect("E(53400)");
    part.send(&[
        parse("late", "SELECT 1"),
        query("INSERT INTO t VALUES (2)"),
        copy_data(b"x"),
        close("late"),
        flush(),
    ]);
    part.expect_silence(Duration::from_millis(200));
    holder.rows("COMMIT");
    part.send(&[execute("")]);
    part.expect_silence(Duration::from_millis(200));
    part.send(&[sync()]);
    part.expect("Z(I)");
    for wire in [&mut simple, &mut whole, &mut part] {
        assert_eq!(wire.one("SELECT count(*) FROM t"), "0");
        wire.send(&[bind("", "s", &[]), sync(), bind("", "late", &[]), sync()]);
        wire.expect("E(26000) Z(I) E(26000) Z(I)");
    }
    rig.assert_sound();
}

/// What a client sends while it waits is kept up to a bound, and all of it is done when its turn comes.
#[test]
fn t10_a_long_pipeline_waits_as_a_whole() {
    let (rig, mut holder) = full_pool("30s");
    for kilobytes in [1, 60, 64, 70, 100, 127, 200, 1_000] {
        let mut wire = rig.login();
        let text = "x".repeat(1_000);
        let one = query(&format!("SELECT length('{text}')"));
        let batch = one.repeat(kilobytes);
        let mut writer = wire.writer();
        let writing = std::thread::spawn(move || {
            std::io::Write::write_all(&mut writer, &batch).expect("a pooler that reads");
        });
        wire.expect_silence(Duration::from_millis(50));
        holder.rows("COMMIT");
        for _ in 0..kilobytes {
            wire.expect("T D(1000) C(SELECT 1) Z(I)");
        }
        writing.join().expect("no panic");
        holder.rows("BEGIN");
    }
    for length in [
        50_000,
        64 * 1024 - 30,
        64 * 1024,
        70_000,
        127_000,
        140_000,
        3_000_000,
    ] {
        let mut wire = rig.login();
        let text = "x".repeat(length);
        wire.send(&[
            query("SELECT 'first'"),
            parse("s", &format!("SELECT length('{text}')")),
            sync(),
            query("SELECT 'last'"),
            bind("", "s", &[]),
            execute(""),
            sync(),
        ]);
        wire.expect_silence(Duration::from_millis(50));
        holder.rows("COMMIT");
        wire.expect(&format!("T D(first) C(SELECT 1) Z(I) 1 Z(I) T D(last) C(SELECT 1) Z(I) 2 D({length}) C(SELECT 1) Z(I)"));
        holder.rows("BEGIN");
    }
    holder.rows("COMMIT");
    rig.assert_sound();
}

#[test]
fn t37_a_waiter_that_leaves_takes_no_server_along() {
    let (rig, mut holder) = full_pool("30s");
    rig.sql("CREATE TABLE t (a int)");
    let mut waiters = Vec::new();
    for n in 0..30 {
        let mut wire = rig.login();
        wire.send(&[query(&format!("INSERT INTO t VALUES ({n})"))]);
        waiters.push(wire);
    }
    let mut last = rig.login();
    last.send(&[query("SELECT 'last'")]);
    for (n, wire) in waiters.into_iter().enumerate() {
        match n % 3 {
            0 => wire.reset(),
            1 => drop(wire),
            _ => wire.shut_down_writing(),
        }
    }
    last.expect_silence(Duration::from_millis(200));
    let began = Instant::now();
    holder.rows("COMMIT");
    last.expect("T D(last) C(SELECT 1) Z(I)");
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(rig.sql("SELECT count(*) FROM t"), "0");
    rig.assert_sound();
}

/// First come, first served, over all workers; nobody passes.
#[test]
fn t38_the_queue_is_first_in_first_out() {
    let (rig, mut holder) = full_pool("30s");
    rig.sql("CREATE SEQUENCE turn");
    let mut waiters: Vec<Wire> = (0..20).map(|_| rig.login()).collect();
    for wire in &mut waiters {
        wire.send(&[query("SELECT nextval('turn')")]);
        // Only what has arrived is in the queue.
        std::thread::sleep(Duration::from_millis(10));
    }
    holder.rows("COMMIT");
    for (n, wire) in waiters.iter_mut().enumerate() {
        wire.expect(&format!("T D({}) C(SELECT 1) Z(I)", n + 1));
    }
    rig.assert_sound();
}

#[test]
fn t36_errors_in_the_queue_cost_no_server() {
    let (rig, mut holder) = full_pool("200ms");
    for _ in 0..5 {
        let mut waiters: Vec<Wire> = (0..10).map(|_| rig.login()).collect();
        for wire in &mut waiters {
            wire.send(&[query("SELECT 1")]);
        }
        for wire in &mut waiters {
            wire.expect("E(53400) Z(I)");
        }
    }
    holder.rows("COMMIT");
    rig.assert_sound();
}
