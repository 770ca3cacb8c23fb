//! Hosts that are promoted, stop, hang, come back.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pooler::demo::postgres::Stop;

use crate::scene::{Hosts, PORT, Scene};
use crate::support::{Message, query, wait_until};

/// Sessions that write or read all the time.
const CLIENTS: usize = 20;

/// How many there are; another number with `POOLER_FAILOVER_CLIENTS`.
fn clients() -> usize {
    let asked = std::env::var("POOLER_FAILOVER_CLIENTS").ok();
    asked.map_or(CLIENTS, |n| n.parse().expect("a number"))
}

/// What the sessions of a load saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    writes: AtomicUsize,
    reads: AtomicUsize,
    /// Writes that failed although no transaction of theirs was running on the old primary.
    failed: Mutex<Vec<String>>,
    /// Connections that were lost with a transaction running.
    lost: AtomicUsize,
}

fn is_lost_connection(error: &Message) -> bool {
    matches!(&*error.sqlstate(), "08006" | "57P01" | "57P02" | "57P03")
}

/// Writes its own rows one by one until told to stop; retries nothing but a lost connection.
fn write_on(scene: &Scene<'_>, seen: &Seen, client: usize) {
    let mut wire = scene.login();
    wire.set_patience(Duration::from_secs(30));
    let mut n = 0;
    while !seen.stop.load(Ordering::Relaxed) {
        n += 1;
        wire.send(&[query(&format!("INSERT INTO t VALUES ({client}, {n})"))]);
        let replies = wire.recv_to_ready_or_end();
        match replies.iter().find(|m| m.tag == b'E') {
            None => {
                seen.writes.fetch_add(1, Ordering::Relaxed);
            }
            Some(error) if is_lost_connection(error) => {
                seen.lost.fetch_add(1, Ordering::Relaxed);
                wire = scene.login();
                wire.set_patience(Duration::from_secs(30));
            }
            Some(error) => {
                seen.failed.lock().unwrap().push(error.text());
                return;
            }
        }
    }
}

fn read_on(scene: &Scene<'_>, seen: &Seen) {
    let mut wire = scene.login();
    wire.set_patience(Duration::from_secs(30));
    while !seen.stop.load(Ordering::Relaxed) {
        match wire.try_rows("SELECT count(*) FROM t") {
            Ok(_) => {
                seen.reads.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                seen.failed
                    .lock()
                    .unwrap()
                    .push(format!("read: {}", error.text()));
                return;
            }
        }
    }
}

#[test]
fn t72_a_promotion_under_load_loses_only_what_was_running_on_the_old_primary() {
    let mut hosts = Hosts::start(&[]);
    let scene = Scene::on(&hosts, |b| b.set("pool_size = 8"));
    scene.sql("CREATE TABLE t (client int, n int)");
    let seen = Seen::default();
    let first_write = std::thread::scope(|scope| {
        for client in 0..clients() {
            let (scene, seen) = (&scene, &seen);
            scope.spawn(move || match client % 2 {
                0 => write_on(scene, seen, client),
                _ => read_on(scene, seen),
            });
        }
        wait_until("the load runs", || {
            seen.writes.load(Ordering::Relaxed) > 100
        });
        scene.hosts.primary.stop(Stop::Immediate).expect("stopped");
        std::thread::sleep(Duration::from_millis(300));
        let before = seen.writes.load(Ordering::Relaxed);
        scene.hosts.replicas[0].promote().expect("promoted");
        let promoted = Instant::now();
        wait_until("writes go on", || {
            seen.writes.load(Ordering::Relaxed) > before
        });
        let first_write = promoted.elapsed();
        eprintln!("first write {first_write:?} after the promotion");
        for other in &scene.hosts.replicas[1..] {
            other.follow(&scene.hosts.replicas[0]).expect("followed");
        }
        let (reads, writes) = (
            seen.reads.load(Ordering::Relaxed),
            seen.writes.load(Ordering::Relaxed),
        );
        wait_until("reads and writes go on", || {
            seen.reads.load(Ordering::Relaxed) > reads + 100
                && seen.writes.load(Ordering::Relaxed) > writes + 100
        });
        // The old primary comes back as if nothing had happened, and gets nothing.
        scene.hosts.primary.start_again().expect("started");
        let old = || {
            scene
                .hosts
                .primary
                .psql_in(&scene.database, "SELECT count(*) FROM t")
                .expect("a count")
        };
        let there = old();
        let writes = seen.writes.load(Ordering::Relaxed);
        wait_until("writes go on", || {
            seen.writes.load(Ordering::Relaxed) > writes + 500
        });
        assert_eq!(old(), there, "the old primary was written to");
        seen.stop.store(true, Ordering::Relaxed);
        first_write
    });
    let failed = seen.failed.lock().unwrap();
    eprintln!("{:?} connections lost of {} sessions", seen.lost, clients());
    assert!(failed.is_empty(), "{failed:?}\n{}", scene.pooler.log());
    // At most one a server connection of the old primary.
    assert!(seen.lost.load(Ordering::Relaxed) <= 10, "{:?}", seen.lost);
    // Looks are 100 ms apart; a second is what users are promised, and this machine may be busy.
    assert!(first_write < Duration::from_secs(6), "{first_write:?}");
    drop(scene);
    hosts.replicas.clear();
}

#[test]
fn t67_one_that_hangs_or_is_killed_stalls_nobody_and_comes_back_without_a_storm() {
    let hosts = Hosts::start(&[]);
    let scene = Scene::on(&hosts, |b| b);
    let mut wire = scene.login();
    wire.set_patience(Duration::from_secs(30));
    scene.assert_local_reads(&mut wire, PORT);
    // It hangs: what it was asked is asked elsewhere when that is noticed.
    hosts.replicas[0].freeze().expect("frozen");
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    for _ in 0..200 {
        let asked = Instant::now();
        assert_ne!(scene.place(&wire.one(PORT)), "a");
        longest = longest.max(asked.elapsed());
    }
    assert!(
        longest < Duration::from_secs(10),
        "{longest:?} of {:?}",
        began.elapsed()
    );
    eprintln!("longest wait for a read while a replica hung: {longest:?}");
    hosts.replicas[0].thaw().expect("thawed");
    wait_until("it serves reads again", || {
        scene.place(&wire.one(PORT)) == "a"
    });
    // It is killed: nobody notices.
    hosts.replicas[1].crash().expect("crashed");
    for _ in 0..200 {
        assert_ne!(scene.place(&wire.one(PORT)), "b");
    }
    hosts.replicas[1].start_again().expect("started");
    wait_until("it serves reads again", || {
        scene.place(&wire.one(PORT)) == "b"
    });
    // Both local ones gone: the primary is here.
    hosts.replicas[0].stop(Stop::Immediate).expect("stopped");
    hosts.replicas[1].stop(Stop::Immediate).expect("stopped");
    for _ in 0..50 {
        assert_eq!(scene.place(&wire.one(PORT)), "primary");
    }
}

#[test]
fn t71_reads_go_on_while_there_is_no_primary() {
    let hosts = Hosts::start(&[]);
    let scene = Scene::on(&hosts, |b| b.set("query_wait_timeout = \"8s\""));
    let mut wire = scene.login();
    wire.set_patience(Duration::from_secs(30));
    scene.assert_local_reads(&mut wire, PORT);
    hosts.primary.stop(Stop::Immediate).expect("stopped");
    for _ in 0..50 {
        assert!(matches!(scene.place(&wire.one(PORT)), "a" | "b"));
    }
    // Writes wait, and are told why at the end.
    let error = wire.try_rows("CREATE TABLE t ()").unwrap_err();
    assert_eq!(error.sqlstate(), "53400");
    assert!(error.text().contains("has no primary"), "{}", error.text());
    scene.assert_local_reads(&mut wire, PORT);
    // A read that nobody can do waits for the first who can, however much is heard of others meanwhile.
    for replica in &hosts.replicas {
        replica.stop(Stop::Immediate).expect("stopped");
    }
    let mut wire = scene.login();
    wire.set_patience(Duration::from_secs(30));
    wire.send(&[query(PORT)]);
    std::thread::sleep(Duration::from_millis(500));
    hosts.replicas[2].start_again().expect("started");
    let row = wire.recv_to_ready();
    let row = row.iter().find(|m| m.tag == b'D').expect("a row");
    assert_eq!(scene.place(&row.columns()[0]), "remote");
}
