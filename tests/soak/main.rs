//! Many clients on two server connections, each doing everything at random, each knowing what its replies must be.
//!
//! ```text
//! cargo test --test soak                                                                     a short run, for every change
//! POOLER_SOAK_QUERIES=1000000 cargo test --release --test soak workers_2 -- --nocapture      the long one
//! POOLER_SOAK_SEED=7 ...                                                                     the choices of an earlier run
//! ```
//! Every text that a query asks for is known to its sender alone, so a reply that is foreign, shifted, torn or doubled is
//! seen at once. Clients are cancelled, run into timeouts, and go away in the middle of anything; what they wrote is
//! compared with what they were told. Meanwhile PostgreSQL itself is asked how many connections there are.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and reports"
)]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod dice;
mod observer;
mod pgbench;
mod plan;

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use client::{Client, Tally, Written};
use dice::Dice;
use observer::{Observed, Observer};
use pooler_protocol::backend::ErrorView;
use support::{Builder, Rig, SERVERS, Wire, cancel_request, metrics_port, wait_until};

const CLIENTS: usize = 8;
const POOL_SIZE: usize = 2;
const QUERY_TIMEOUT: Duration = Duration::from_millis(1_000);
const IDLE_TRANSACTION_TIMEOUT: Duration = Duration::from_millis(300);
const QUERY_WAIT_TIMEOUT: Duration = Duration::from_millis(600);

/// Statements of one run when nobody asks for more.
const STATEMENTS: usize = 12_000;

/// What the threads share.
struct Arena {
    port: u16,
    database: String,
    seed: u64,
    /// Once in so many statements something happens that takes long.
    rare: usize,
    target: usize,
    /// Answered and checked.
    statements: AtomicUsize,
    /// A thread has panicked: the others need not go on.
    failed: AtomicBool,
    seats: Vec<Seat>,
    cancels: Mutex<Sender<usize>>,
}

/// What others know of a client.
#[derive(Default)]
struct Seat {
    /// Process id and key of its present session.
    key: Mutex<Option<(i32, Vec<u8>)>>,
    /// Cancels for it that were begun.
    begun: AtomicUsize,
    /// Those of them that have landed or come to nothing.
    over: AtomicUsize,
}

impl Arena {
    fn is_over(&self) -> bool {
        self.statements.load(Ordering::Relaxed) >= self.target
            || self.failed.load(Ordering::Relaxed)
    }

    /// Has this client cancelled at once.
    fn cancel_now(&self, client: usize) {
        // When all is over nobody takes it any more.
        let _sent = self.cancels.lock().unwrap().send(client);
    }

    fn cancel(&self, client: usize) {
        let seat = &self.seats[client];
        let Some((pid, key)) = seat.key.lock().unwrap().clone() else {
            return;
        };
        seat.begun.fetch_add(1, Ordering::SeqCst);
        let mut wire = Wire::connect(self.port);
        wire.send(&[cancel_request(pid, &key)]);
        wire.expect(".");
        seat.over.fetch_add(1, Ordering::SeqCst);
    }
}

/// Cancels somebody now and then, and whoever asks for it. Returns how many there were.
fn cancel_at_random(arena: &Arena, wishes: &Receiver<usize>) -> usize {
    let mut dice = Dice::new(arena.seed, 0);
    let mut count = 0;
    while !arena.is_over() {
        let pause = Duration::from_micros(dice.below(30_000) as u64);
        let client = match wishes.recv_timeout(pause) {
            Ok(client) => client,
            Err(RecvTimeoutError::Timeout) => dice.below(CLIENTS),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        arena.cancel(client);
        count += 1;
    }
    count
}

/// Tells the others when its thread panics.
struct Alarm<'a>(&'a Arena);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::Relaxed);
        }
    }
}

fn number(variable: &str) -> Option<usize> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect(variable))
}

fn soak(workers: usize) {
    let target = number("POOLER_SOAK_QUERIES").unwrap_or(STATEMENTS);
    let seed = number("POOLER_SOAK_SEED").map_or_else(rand::random::<u64>, |n| n as u64);
    eprintln!("workers {workers}: POOLER_SOAK_SEED={seed}");
    let mut rig = Rig::with(|b| {
        b.set(&format!("workers = {workers}"))
            .set(&format!("pool_size = {POOL_SIZE}"))
            .set(&format!(
                "query_timeout = \"{}ms\"",
                QUERY_TIMEOUT.as_millis()
            ))
            .set(&format!(
                "idle_transaction_timeout = \"{}ms\"",
                IDLE_TRANSACTION_TIMEOUT.as_millis()
            ))
            .set(&format!(
                "query_wait_timeout = \"{}ms\"",
                QUERY_WAIT_TIMEOUT.as_millis()
            ))
            .set("max_prepared_statements = 12")
            .section("[metrics]\nlisten = \"127.0.0.1:0\"")
    });
    let metrics = metrics_port(&rig.pooler);
    rig.sql("CREATE TABLE written (tag text)");
    let (sender, wishes) = channel();
    let arena = Arena {
        port: rig.pooler.port(),
        database: rig.database.clone(),
        seed,
        rare: if target > 100_000 { 6_000 } else { 800 },
        target,
        statements: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        seats: (0..CLIENTS).map(|_| Seat::default()).collect(),
        cancels: Mutex::new(sender),
    };
    let began = Instant::now();
    let (results, cancels, observed) = std::thread::scope(|scope| {
        let arena = &arena;
        let rig = &rig;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn(move || {
                    let _alarm = Alarm(arena);
                    let mut client = Client::new(arena, number);
                    client.run();
                    (client.written, client.tally)
                })
            })
            .collect();
        let canceller = scope.spawn(move || {
            let _alarm = Alarm(arena);
            cancel_at_random(arena, &wishes)
        });
        let observer = scope.spawn(move || {
            let _alarm = Alarm(arena);
            Observer::new(rig).watch(arena)
        });
        let results: Vec<(Written, Tally)> =
            clients.into_iter().map(|c| c.join().unwrap()).collect();
        (results, canceller.join().unwrap(), observer.join().unwrap())
    });
    let took = began.elapsed();
    let mut sum = Tally::default();
    for (_, tally) in &results {
        sum.add(tally);
    }
    eprintln!("workers {workers}: {took:.1?}, {cancels} cancels, {sum:?}, {observed:?}");
    check_written(&rig, &results);
    // What comes now is to be in nobody's way.
    rig.pooler.reload(|b| {
        let calm = |b: Builder, name| b.set(&format!("{name}_timeout = \"30s\""));
        ["query", "idle_transaction", "query_wait"]
            .into_iter()
            .fold(b, calm)
    });
    wait_until("it has reloaded", || {
        rig.pooler.log().contains("configuration reloaded")
    });
    check_end(&rig, metrics, &observed, sum.sessions);
}

/// What is in the table is what the clients were told.
fn check_written(rig: &Rig, results: &[(Written, Tally)]) {
    rig.wait_sql(&format!("count(*) = 0 {SERVERS} AND state <> 'idle'"));
    let mut direct = rig.direct();
    let rows = direct.rows("SELECT tag FROM written");
    let mut found: HashSet<String> = HashSet::with_capacity(rows.len());
    for mut row in rows {
        let tag = row.remove(0);
        assert!(!found.contains(&tag), "{tag} was written twice");
        found.insert(tag);
    }
    let (mut committed, mut unknown) = (0, 0);
    for (written, _) in results {
        for tag in &written.committed {
            assert!(found.remove(tag), "{tag} was committed and is gone");
        }
        committed += written.committed.len();
        for tag in &written.unknown {
            unknown += usize::from(found.remove(tag));
        }
    }
    eprintln!("{committed} rows committed, {unknown} of clients that did not wait to hear it");
    assert!(
        found.is_empty(),
        "visible, though never committed: {found:?}"
    );
}

/// Nothing is left behind: both servers serve, and nobody holds anything.
fn check_end(rig: &Rig, metrics: u16, observed: &Observed, sessions: usize) {
    assert!(
        observed.excess < Duration::from_secs(5),
        "too many connections for {:?}",
        observed.excess
    );
    assert_eq!(
        observed.foreign_log_lines,
        0,
        "the log:\n{}",
        rig.pooler.log()
    );
    rig.assert_sound();
    let mut holders: Vec<Wire> = (0..POOL_SIZE).map(|_| rig.login()).collect();
    let mut pids: Vec<String> = holders
        .iter_mut()
        .map(|w| {
            w.rows("BEGIN");
            w.one("SELECT pg_backend_pid()")
        })
        .collect();
    pids.sort();
    pids.dedup();
    assert_eq!(
        pids.len(),
        POOL_SIZE,
        "every server connection is to be had"
    );
    for holder in holders {
        holder.leave();
    }
    let gauges = observer::gauges(
        metrics,
        &[
            "pooler_clients{state=\"active\"",
            "pooler_clients{state=\"waiting\"",
            "pooler_clients{state=\"idle\"",
            "pooler_servers{state=\"active\"",
            "pooler_servers{state=\"connecting\"",
        ],
    );
    assert!(
        gauges.iter().all(|g| *g == 0),
        "left in the books: {gauges:?}"
    );
    let _ = sessions;
    let (files, memory) = (rig.pooler.open_files(), rig.pooler.rss_kb());
    eprintln!("at the end: {files:?} files, {memory} kB");
    if let (Some(before), Some(after)) = (observed.files_before, files) {
        assert!(
            after <= before + 4 * POOL_SIZE,
            "{before} files before, {after} at the end"
        );
    }
    let (early, late) = (observed.early_kb, observed.late_kb.min(memory));
    assert!(
        late < early * 3 / 2 + 8 * 1024,
        "{early} kB at first, {late} kB at the end"
    );
}

#[test]
fn workers_2_every_reply_is_the_senders() {
    soak(2);
}

#[test]
fn workers_1_every_reply_is_the_senders() {
    soak(1);
}

/// A Parse that an error before it skips was taken for done by what came behind the next Sync in the same write: its Bind
/// then failed with a name of the pooler's, and the books on the server's statements were wrong from there on.
#[test]
fn what_builds_upon_a_parse_waits_until_its_sync_is_answered() {
    use support::{bind, execute, parse, sync};
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut wire = rig.login();
    let used = [bind("", "a", &["x"]), execute(""), sync()].concat();
    let skipped = [parse("", "SELEC"), parse("a", "SELECT $1::text"), sync()].concat();
    wire.send(&[skipped, used.clone()]);
    wire.expect("E(42601) Z(I) E(26000) Z(I)");
    wire.send(&[parse("a", "SELECT $1::text"), sync(), used.clone(), used]);
    wire.expect("1 Z(I) 2 D(x) C(SELECT 1) Z(I) 2 D(x) C(SELECT 1) Z(I)");
    rig.assert_sound();
}

/// A reply of the pooler's own that was due when its client had left took its part of the books along: every later error
/// on that server connection then took back what was true, and left what was not.
#[test]
fn a_client_that_leaves_takes_nothing_of_the_books_along() {
    use support::{bind, execute, parse, query, sync};
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut first = rig.login();
    first.send(&[parse("a", "SELECT $1::text"), sync()]);
    first.expect("1 Z(I)");
    let mut leaver = rig.login();
    let sleep = query("SELECT pg_sleep(0.3)");
    leaver.send(&[sleep.clone(), parse("b", "SELECT $1::text"), sleep]);
    drop(leaver);
    first.send(&[parse("x", "SELECT 1"), sync()]);
    first.expect("1 Z(I)");
    first.send(&[bind("", "nothing", &[]), parse("y", "SELECT 2"), sync()]);
    first.expect("E(26000) Z(I)");
    let used = |name: &str| [bind("", name, &[]), execute(""), sync()].concat();
    first.send(&[used("x")]);
    first.expect("2 D(1) C(SELECT 1) Z(I)");
    first.send(&[parse("y", "SELECT 2"), used("y")]);
    first.expect("1 2 D(2) C(SELECT 1) Z(I)");
    rig.assert_sound();
}

/// A statement that is given up for want of room in one batch, and was to be prepared in the one before, is not held when
/// both are skipped. And a name that is taken is the one that the error names, though another has the same text.
#[test]
fn what_is_given_up_before_it_is_there_is_not_held() {
    use support::{bind, execute, parse, query, sync};
    let rig = Rig::with(|b| b.set("pool_size = 1").set("max_prepared_statements = 1"));
    let mut wire = rig.login();
    let fails = || query("SELECT pg_sleep(0.1)");
    let skipped =
        |name: &str, text: &str| [bind("", "nothing", &[]), parse(name, text), sync()].concat();
    wire.send(&[fails(), skipped("x", "SELECT 1"), skipped("y", "SELECT 2")]);
    wire.expect("T D() C(SELECT 1) Z(I) E(26000) Z(I) E(26000) Z(I)");
    for (name, n) in [("x", 1), ("y", 2)] {
        let text = format!("SELECT {n}");
        wire.send(&[parse(name, &text), bind("", name, &[]), execute(""), sync()]);
        wire.expect(&format!("1 2 D({n}) C(SELECT 1) Z(I)"));
    }
    for name in ["a", "b", "c", "d"] {
        wire.send(&[parse(name, "SELECT 1"), sync()]);
        wire.expect("1 Z(I)");
    }
    for name in ["a", "b", "c", "d", "x"] {
        wire.send(&[parse(name, "SELECT 1"), sync()]);
        let error = wire.expect("E(42P05) Z(I)").remove(0);
        let text = ErrorView::new(&error.body).message();
        assert!(text.contains(&format!("\"{name}\"")), "{text}");
    }
    rig.assert_sound();
}
