//! A session reads what it wrote, also through another session, and reads from replicas again when they have caught up.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::scene::{Hosts, PORT, Scene};
use crate::support::wait_until;

/// How long the replicas hold back what they have received.
const DELAY: &str = "200ms";

/// Rounds of writing and reading; many more with `POOLER_CONSISTENCY_ROUNDS`.
fn rounds() -> usize {
    let asked = std::env::var("POOLER_CONSISTENCY_ROUNDS").ok();
    asked.map_or(300, |n| n.parse().expect("a number"))
}

fn late() -> &'static Hosts {
    static LATE: OnceLock<Hosts> = OnceLock::new();
    LATE.get_or_init(|| Hosts::start(&[("recovery_min_apply_delay", DELAY)]))
}

#[test]
fn nobody_reads_older_data_than_its_own_writes() {
    let scene = Scene::on(late(), |b| b);
    let mut wire = scene.login();
    wire.rows("CREATE TABLE t (n int)");
    wire.rows("INSERT INTO t VALUES (0)");
    let mut places = BTreeMap::new();
    for n in 1..=rounds() {
        wire.rows(&format!("UPDATE t SET n = {n}"));
        let row = &wire.rows("SELECT n, current_setting('port') FROM t")[0];
        assert_eq!(row[0], n.to_string(), "on {}", scene.place(&row[1]));
        *places.entry(scene.place(&row[1])).or_insert(0) += 1;
        if n % 100 == 0 {
            // So that some are read from replicas, too.
            wait_until("the replicas have caught up", || {
                let row = &wire.rows("SELECT n, current_setting('port') FROM t")[0];
                assert_eq!(row[0], n.to_string());
                *places.entry(scene.place(&row[1])).or_insert(0) += 1;
                scene.place(&row[1]) != "primary"
            });
        }
    }
    assert!(places.len() > 1, "{places:?}");
}

#[test]
fn a_token_carries_that_to_another_session() {
    let scene = Scene::on(late(), |b| b);
    let (mut writer, mut reader) = (scene.login(), scene.login());
    writer.rows("CREATE TABLE t (n int)");
    writer.rows("INSERT INTO t VALUES (0)");
    for n in 1..=rounds() / 3 {
        writer.rows(&format!("UPDATE t SET n = {n}"));
        let token = writer.one("SHOW pooler.position");
        reader.rows(&format!("SET pooler.position = '{token}'"));
        let row = &reader.rows("SELECT n, current_setting('port') FROM t")[0];
        assert_eq!(row[0], n.to_string(), "on {}", scene.place(&row[1]));
    }
}

#[test]
fn without_it_stale_reads_are_seen() {
    for change in ["SET pooler.consistency = 'eventual'", ""] {
        let scene = Scene::on(late(), |b| match change {
            "" => b.set("read_consistency = \"eventual\""),
            _ => b,
        });
        let mut wire = scene.login();
        if !change.is_empty() {
            wire.rows(change);
        }
        wire.rows("CREATE TABLE t (n int)");
        wire.rows("INSERT INTO t VALUES (0)");
        scene.hosts.wait_replayed();
        let stale = (1..=50).filter(|n| {
            wire.rows(&format!("UPDATE t SET n = {n}"));
            wire.one("SELECT n FROM t") != n.to_string()
        });
        assert!(
            stale.count() > 0,
            "{change}: the tests beside this one prove nothing"
        );
    }
}

#[test]
fn reads_are_back_on_replicas_within_two_looks_after_these_have_caught_up() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    let mut wire = scene.login();
    wire.rows("CREATE TABLE t (n int)");
    for _ in 0..10 {
        wire.rows("INSERT INTO t VALUES (1)");
        scene.hosts.wait_replayed();
        let caught_up = Instant::now();
        wait_until("reads are on replicas", || {
            scene.place(&wire.one(PORT)) != "primary"
        });
        eprintln!(
            "reads on replicas {:?} after these caught up",
            caught_up.elapsed()
        );
        // Looks are 100 ms apart here; the bound is generous for a busy machine.
        assert!(
            caught_up.elapsed() < Duration::from_secs(5),
            "{:?}",
            caught_up.elapsed()
        );
        let places = scene.places(&mut wire, PORT, 10);
        assert!(!places.contains_key("primary"), "{places:?}");
    }
}

#[test]
fn a_block_that_might_have_gone_to_a_replica_counts_as_a_write_where_it_can_write() {
    let scene = Scene::on(late(), |b| b);
    let mut wire = scene.login();
    wire.rows("SET pooler.route = 'prefer-replica'");
    wire.rows("CREATE TABLE t (n int)");
    wire.rows("INSERT INTO t VALUES (0)");
    for n in 1..=3 {
        wire.rows("UPDATE t SET n = n");
        wire.rows("BEGIN");
        // What was written before is on the replicas meanwhile.
        std::thread::sleep(Duration::from_millis(600));
        wire.rows(&format!("UPDATE t SET n = {n}"));
        wire.rows("COMMIT");
        assert_eq!(wire.one("SELECT n FROM t"), n.to_string());
    }
}

#[test]
fn an_open_transaction_of_somebody_else_does_not_keep_reads_from_replicas() {
    // Nothing else writes here, so nobody flushes what the open transaction has written.
    let hosts = Hosts::start(&[]);
    let scene = Scene::on(&hosts, |b| b.cluster("max_replica_lag = \"2s\""));
    let (mut open, mut wire) = (scene.login(), scene.login());
    wire.rows("CREATE TABLE t (n int)");
    open.rows("BEGIN");
    wire.rows("INSERT INTO t VALUES (1)");
    open.rows("INSERT INTO t VALUES (2)");
    let wrote = Instant::now();
    wait_until("reads are on replicas", || {
        let row = &wire.rows("SELECT count(*), current_setting('port') FROM t")[0];
        assert_eq!(row[0], "1", "on {}", scene.place(&row[1]));
        scene.place(&row[1]) != "primary"
    });
    assert!(
        wrote.elapsed() < Duration::from_secs(5),
        "{:?}",
        wrote.elapsed()
    );
    // Nor do the replicas lag because of it.
    std::thread::sleep(Duration::from_secs(3));
    scene.assert_local_reads(&mut wire, PORT);
    open.rows("COMMIT");
}
