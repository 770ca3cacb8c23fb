//! Replicas that lag, and replicas that cancel what they run because of their recovery.

use std::time::{Duration, Instant};

use pooler::demo::postgres::Stop;

use crate::scene::{Hosts, PORT, Scene};
use crate::support::{query, wait_until};

#[test]
fn t69_a_replica_that_lags_serves_no_reads_until_it_has_caught_up() {
    let hosts = Hosts::start(&[]);
    let scene = Scene::on(&hosts, |b| b.cluster("max_replica_lag = \"500ms\""));
    let mut wire = scene.login();
    wire.rows("SET pooler.consistency = 'eventual'");
    wait_until("both serve reads", || {
        scene.places(&mut wire, PORT, 20).len() == 2
    });
    let late = &hosts.replicas[0];
    late.psql("SELECT pg_wal_replay_pause()").expect("paused");
    hosts
        .primary
        .psql_in(&scene.database, "CREATE TABLE t (x int)")
        .expect("written");
    wait_until("the laggard is left", || {
        !scene.places(&mut wire, PORT, 20).contains_key("a")
    });
    late.psql("SELECT pg_wal_replay_resume()").expect("resumed");
    wait_until("it is back", || {
        scene.places(&mut wire, PORT, 20).contains_key("a")
    });
}

#[test]
fn what_a_replica_cancels_for_its_recovery_is_done_elsewhere() {
    let hosts = Hosts::start(&[
        ("max_standby_streaming_delay", "0"),
        ("hot_standby_feedback", "off"),
    ]);
    let scene = Scene::on(&hosts, |b| b);
    scene.sql("CREATE TABLE t (x int); INSERT INTO t SELECT generate_series(1, 1000)");
    let mut wire = scene.login();
    scene.assert_local_reads(&mut wire, PORT);
    // It has its snapshot, and reads the table later.
    let slow = "SELECT count(*) FROM (SELECT pg_sleep(1)) AS q, t";
    let mut done = 0;
    for _ in 0..3 {
        wire.send(&[query(slow)]);
        std::thread::sleep(Duration::from_millis(200));
        let vacuum = "DELETE FROM t WHERE x > 500; INSERT INTO t SELECT generate_series(501, 1000)";
        hosts
            .primary
            .psql_in(&scene.database, vacuum)
            .expect("written");
        hosts
            .primary
            .psql_in(&scene.database, "VACUUM t")
            .expect("vacuumed");
        let replies = wire.recv_to_ready();
        let errors: Vec<_> = replies
            .iter()
            .filter(|m| m.tag == b'E')
            .map(crate::support::Message::text)
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
        done += 1;
    }
    assert_eq!(done, 3);
    let cancelled: u32 = hosts.replicas[..2]
        .iter()
        .map(|r| {
            let count = "SELECT sum(confl_snapshot + confl_lock + confl_bufferpin) FROM pg_stat_database_conflicts";
            r.psql(count).expect("a count").trim().parse::<u32>().unwrap_or(0)
        })
        .sum();
    assert!(cancelled > 0, "nothing was cancelled: this proves nothing");
}

#[test]
fn a_planned_switchover_fails_nothing_that_waits() {
    let hosts = Hosts::start(&[]);
    let scene = Scene::on(&hosts, |b| b);
    scene.sql("CREATE TABLE t (x int)");
    let mut wire = scene.login();
    wire.set_patience(Duration::from_secs(30));
    wire.rows("INSERT INTO t VALUES (1)");
    hosts.primary.stop(Stop::Fast).expect("stopped");
    // It waits for the new primary.
    wire.send(&[query("INSERT INTO t VALUES (2)")]);
    std::thread::sleep(Duration::from_millis(200));
    hosts.replicas[0].promote().expect("promoted");
    let promoted = Instant::now();
    let replies = wire.recv_to_ready();
    assert!(replies.iter().all(|m| m.tag != b'E'), "{replies:?}");
    assert!(
        promoted.elapsed() < Duration::from_secs(6),
        "{:?}",
        promoted.elapsed()
    );
    assert_eq!(wire.one("SELECT count(*) FROM t"), "2");
}
