//! Cancel requests: rows B01, B02 and traps 13 to 18.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    Opening, Pooler, Rig, ScriptedServer, ServerWire, Wire, bind, cancel_request, close, execute,
    parse, query, sync, wait_until,
};

const SLEEP: &str = "SELECT pg_sleep(100)";
const SLEEPING: &str = "count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(100)' AND wait_event = 'PgSleep' \
                        AND datname = current_database()";

#[test]
fn b01_t14_a_cancel_needs_no_free_server() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut wire = rig.login();
    let mut waiting = rig.login();
    wire.send(&[query(SLEEP)]);
    rig.wait_sql(SLEEPING);
    waiting.send(&[query("SELECT 'waited'")]);
    let began = Instant::now();
    wire.cancel();
    wire.expect("T E(57014) Z(I)");
    assert!(began.elapsed() < Duration::from_secs(5));
    waiting.expect("T D(waited) C(SELECT 1) Z(I)");
    assert_eq!(wire.one("SELECT 1"), "1");
    // In a transaction, and in the extended protocol.
    wire.send(&[
        query("BEGIN"),
        parse("", SLEEP),
        bind("", "", &[]),
        execute(""),
        sync(),
    ]);
    rig.wait_sql(SLEEPING);
    wire.cancel();
    wire.expect("C(BEGIN) Z(T) 1 2 E(57014) Z(E)");
    wire.send(&[query("ROLLBACK")]);
    wire.expect("C(ROLLBACK) Z(I)");
    rig.assert_sound();
}

#[test]
fn t16_a_client_that_waits_in_the_queue_is_answered_at_once() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    rig.sql("CREATE TABLE t (a int)");
    let mut holder = rig.login();
    holder.rows("BEGIN");
    let mut simple = rig.login();
    simple.send(&[query("INSERT INTO t VALUES (1)"), query("SELECT 'next'")]);
    let mut extended = rig.login();
    let insert = [
        parse("", "INSERT INTO t VALUES (2)"),
        bind("", "", &[]),
        execute(""),
    ]
    .concat();
    extended.send_bytes(&insert);
    simple.expect_silence(Duration::from_millis(300));
    simple.cancel();
    simple.expect("E(57014) Z(I)");
    extended.cancel();
    extended.expect("E(57014)");
    extended.expect_silence(Duration::from_millis(100));
    extended.send(&[query("INSERT INTO t VALUES (3)"), sync()]);
    extended.expect("Z(I)");
    holder.rows("COMMIT");
    simple.expect("T D(next) C(SELECT 1) Z(I)");
    assert_eq!(extended.one("SELECT count(*) FROM t"), "0");
    rig.assert_sound();
}

/// A Close and its Sync need no server, so what queues, and is cancelled, is the query behind them.
#[test]
fn t16_a_close_in_front_of_the_query_does_not_take_its_cancel() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut holder = rig.login();
    let mut wire = rig.login();
    wire.send(&[parse("s", "SELECT 7"), sync()]);
    wire.expect("1 Z(I)");
    holder.rows("BEGIN");
    wire.send(&[close("s"), sync(), close("unknown"), close("s"), sync()]);
    wire.expect("3 Z(I) 3 3 Z(I)");
    wire.send(&[close("s"), sync(), query(SLEEP)]);
    wire.expect("3 Z(I)");
    wire.expect_silence(Duration::from_millis(100));
    wire.cancel();
    wire.expect("E(57014) Z(I)");
    holder.rows("COMMIT");
    wire.send(&[bind("", "s", &[]), execute(""), sync()]);
    wire.expect("E(26000) Z(I)");
    rig.assert_sound();
}

/// The server is not handed on until the cancel has landed, however long that takes.
#[test]
fn b02_t13_a_cancel_never_hits_the_servers_next_owner() {
    let arrived = Arc::new(AtomicBool::new(false));
    let landed = Arc::new(AtomicBool::new(false));
    let early = Arc::new(AtomicUsize::new(0));
    let server = {
        let arrived = Arc::clone(&arrived);
        let (landed, early) = (Arc::clone(&landed), Arc::clone(&early));
        ScriptedServer::start(move |mut wire: ServerWire| match wire.read_opening() {
            Opening::Startup(_) => {
                wire.send(&ServerWire::login_reply(7));
                while let Some(message) = wire.recv() {
                    if message.is("Q(SELECT 'next')") && !landed.load(Ordering::Acquire) {
                        early.fetch_add(1, Ordering::AcqRel);
                    }
                    if message.is("Q(SELECT 'slow')") {
                        // Ends by itself, just when the cancel is on its way.
                        wait_until("a cancel", || arrived.load(Ordering::Acquire));
                    }
                    if message.tag == b'Q' {
                        wire.send(&ServerWire::row_reply("x"));
                    }
                }
            }
            Opening::Cancel(..) => {
                arrived.store(true, Ordering::Release);
                std::thread::sleep(Duration::from_millis(600));
                landed.store(true, Ordering::Release);
            }
            Opening::Closed => {}
        })
    };
    let pooler = Pooler::builder()
        .host(server.port())
        .set("pool_size = 1")
        .start();
    let mut a = pooler.login("u", "d");
    let mut b = pooler.login("u", "d");
    a.send(&[query("SELECT 'slow'")]);
    server.wait_received("Q(SELECT 'slow')");
    b.send(&[query("SELECT 'next'")]);
    let mut cancel = Wire::connect(pooler.port());
    cancel.send(&[cancel_request(a.key.0, &a.key.1)]);
    a.expect("T D(x) C(SELECT 1) Z(I)");
    b.expect("T D(x) C(SELECT 1) Z(I)");
    assert_eq!(early.load(Ordering::Acquire), 0, "{:?}", server.received());
    assert!(
        server
            .received()
            .iter()
            .any(|l| l.ends_with("cancel 7 [1, 2, 3, 4]"))
    );
    cancel.expect(".");
    assert!(pooler.ended().is_none());
}

/// A client that is taken from the queue and cancels at that moment: PostgreSQL gets the cancel before
/// the query, and does nothing. The client's query was sent long before, so it is cancelled again.
#[test]
fn b01_a_cancel_that_overtakes_its_query_is_sent_again() {
    let cancels = Arc::new(AtomicUsize::new(0));
    let server = {
        let cancels = Arc::clone(&cancels);
        ScriptedServer::start(move |mut wire: ServerWire| match wire.read_opening() {
            Opening::Startup(_) => {
                wire.send(&ServerWire::login_reply(7));
                while let Some(message) = wire.recv() {
                    if message.is("Q(SELECT 'long')") {
                        wait_until("a second cancel", || cancels.load(Ordering::Acquire) >= 2);
                        let error = ServerWire::error("ERROR", "57014", "canceled");
                        wire.send(&[error, b"Z\0\0\0\x05I".to_vec()].concat());
                    } else if message.tag == b'Q' {
                        wire.send(&ServerWire::row_reply("x"));
                    }
                }
            }
            Opening::Cancel(..) => {
                cancels.fetch_add(1, Ordering::AcqRel);
            }
            Opening::Closed => {}
        })
    };
    let pooler = Pooler::builder()
        .host(server.port())
        .set("pool_size = 1")
        .start();
    let mut a = pooler.login("u", "d");
    a.send(&[query("SELECT 'long'")]);
    server.wait_received("Q(SELECT 'long')");
    a.cancel();
    a.expect("E(57014) Z(I)");
    assert_eq!(a.one("SELECT 'next'"), "x");
    // Nothing is cancelled twice whose first cancel worked.
    let sent = cancels.load(Ordering::Acquire);
    a.expect_silence(Duration::from_millis(500));
    assert!(sent >= 2);
    assert_eq!(cancels.load(Ordering::Acquire), sent);
}

/// One that was given up may land at any time: its server goes to nobody.
#[test]
fn b02_t15_a_cancel_that_does_not_land_costs_the_server() {
    let server = ScriptedServer::start(|mut wire: ServerWire| match wire.read_opening() {
        Opening::Startup(_) => {
            wire.send(&ServerWire::login_reply(7));
            while let Some(message) = wire.recv() {
                if message.is("Q(SELECT 'slow')") {
                    std::thread::sleep(Duration::from_millis(1_500));
                }
                if message.tag == b'Q' {
                    wire.send(&ServerWire::row_reply("x"));
                }
            }
        }
        _ => wire.stall(Duration::from_secs(20)),
    });
    let builder = Pooler::builder().host(server.port()).set("pool_size = 1");
    let pooler = builder.set("cancel_wait_timeout = \"300ms\"").start();
    let mut a = pooler.login("u", "d");
    a.send(&[query("SELECT 'slow'")]);
    server.wait_received("Q(SELECT 'slow')");
    let mut cancel = Wire::connect(pooler.port());
    cancel.send(&[cancel_request(a.key.0, &a.key.1)]);
    cancel.expect(".");
    a.expect("T D(x) C(SELECT 1) Z(I)");
    let mut b = pooler.login("u", "d");
    b.send(&[query("SELECT 'next'")]);
    b.expect("T D(x) C(SELECT 1) Z(I)");
    let received = server.received();
    let of = |part: &str| {
        let line = received
            .iter()
            .find(|l| l.contains(part))
            .expect("received");
        line.split(' ').next().expect("a number").to_owned()
    };
    assert_ne!(of("SELECT 'slow'"), of("SELECT 'next'"), "{received:?}");
    assert!(pooler.ended().is_none());
}

#[test]
fn t13_random_cancels_hit_only_their_own() {
    let rig = Rig::with(|b| b.set("pool_size = 2"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // These are never cancelled and must never see 57014.
        let mut calm = Vec::new();
        for who in 0..2 {
            let (rig, stop) = (&rig, &stop);
            calm.push(scope.spawn(move || {
                let mut wire = rig.login();
                let mut n = 0;
                while !stop.load(Ordering::Acquire) {
                    n += 1;
                    let tag = format!("{who}.{n}");
                    wire.send(&[query(&format!("SELECT '{tag}'"))]);
                    wire.expect(&format!("T D({tag}) C(SELECT 1) Z(I)"));
                }
                n
            }));
        }
        let mut wire = rig.login();
        let mut hits = 0;
        for n in 0..150_u64 {
            // Some end just then, some would not.
            let long = if n % 10 == 9 { 0.2 } else { 0.003 };
            wire.send(&[query(&format!("SELECT pg_sleep({long})"))]);
            std::thread::sleep(Duration::from_micros(n % 5 * 1_000));
            wire.cancel();
            let got = wire.recv_to_ready();
            hits += usize::from(got.iter().any(|m| m.is("E(57014)")));
            wire.send(&[query("SELECT 'mine'")]);
            wire.expect("T D(mine) C(SELECT 1) Z(I)");
        }
        stop.store(true, Ordering::Release);
        for calm in calm {
            assert!(calm.join().expect("no foreign cancel") > 0);
        }
        assert!(hits > 0, "some must have hit");
    });
    rig.assert_sound();
}

#[test]
fn t15_a_flood_of_cancels_starves_nobody() {
    let rig = Rig::with(|b| b.set("pool_size = 2"));
    let mut wire = rig.login();
    wire.send(&[query(SLEEP)]);
    rig.wait_sql(SLEEPING);
    let (pid, key) = wire.key.clone();
    let mut flood: Vec<Wire> = (0..200).map(|_| rig.connect()).collect();
    for (n, cancel) in flood.iter_mut().enumerate() {
        let key = if n % 2 == 0 { key.clone() } else { vec![9; 4] };
        cancel.send(&[cancel_request(pid, &key)]);
    }
    rig.pooler.assert_serves("postgres", &rig.database);
    wire.expect("T E(57014) Z(I)");
    for cancel in &mut flood {
        cancel.expect(".");
    }
    drop(flood);
    let mut files = 0;
    wait_until("descriptors are given back", || {
        let now = rig.pooler.open_files().unwrap_or(0);
        let settled = now < 60 || now == files;
        files = now;
        settled
    });
    rig.assert_sound();
}

/// Nothing runs: nothing is cancelled, now or later.
#[test]
fn t13_a_cancel_of_an_idle_session_is_spent() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut wire = rig.login();
    wire.cancel();
    assert_eq!(wire.one("SELECT pg_sleep(0.2)::text || 'x'"), "x");
    wire.rows("BEGIN");
    wire.cancel();
    assert_eq!(wire.one("SELECT pg_sleep(0.2)::text || 'x'"), "x");
    wire.rows("COMMIT");
    rig.assert_sound();
}

/// The same key after the session has ended names nobody.
#[test]
fn t13_a_cancel_of_a_session_that_has_ended() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let old = rig.login();
    let (pid, key) = old.key.clone();
    old.leave();
    let mut wire = rig.login();
    wire.send(&[query("SELECT pg_sleep(0.3)")]);
    let mut cancel = rig.connect();
    cancel.send(&[cancel_request(pid, &key)]);
    cancel.expect(".");
    wire.expect("T D() C(SELECT 1) Z(I)");
    rig.assert_sound();
}
