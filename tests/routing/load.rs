//! A mixed load of pgbench, routed by statement: every read on a local replica, evenly, and not one error.

use std::process::Command;

use pooler::demo::find_program;

use crate::scene::{Hosts, Scene};
use crate::support::wait_until;

/// Seconds of each run; more with `POOLER_PGBENCH_SECONDS`.
fn seconds() -> String {
    std::env::var("POOLER_PGBENCH_SECONDS").unwrap_or_else(|_| "2".to_owned())
}

fn pgbench(port: u16, database: &str, arguments: &[&str]) -> String {
    let program = find_program("pgbench").expect("pgbench");
    let output = Command::new(program)
        .args([
            "-n",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
            &port.to_string(),
        ])
        .args(arguments)
        .arg(database)
        .output()
        .expect("pgbench");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{arguments:?}: {said}");
    for bad in ["ERROR", "FATAL", "aborted", "WARNING"] {
        assert!(!said.contains(bad), "{arguments:?}: {said}");
    }
    said
}

#[test]
fn a_mixed_load_reads_from_both_local_replicas_evenly() {
    let hosts = Hosts::start(&[]);
    let scene = Scene::on(&hosts, |b| b.set("pool_size = 10"));
    pgbench(
        hosts.primary.port(),
        &scene.database,
        &["-i", "-q", "-s", "2"],
    );
    hosts.wait_replayed();
    // Rows read by index: what pgbench's SELECTs do on whichever host they run.
    let reads = |host: &pooler::demo::postgres::Postgres| -> u64 {
        let sql = "SELECT coalesce(sum(idx_tup_fetch), 0) FROM pg_stat_all_tables WHERE relname = 'pgbench_accounts'";
        let counted = host.psql_in(&scene.database, sql).expect("a count");
        counted.trim().parse().expect("a number")
    };
    let before: Vec<u64> = hosts.replicas.iter().map(reads).collect();
    let seconds = seconds();
    std::thread::scope(|scope| {
        let (port, database) = (scene.pooler.port(), &*scene.database);
        for mode in ["simple", "extended", "prepared"] {
            let load = ["-M", mode, "-T", &*seconds, "-j", "1"].map(str::to_owned);
            let load = move |more: &[&str]| {
                let all: Vec<&str> = load
                    .iter()
                    .map(String::as_str)
                    .chain(more.iter().copied())
                    .collect();
                pgbench(port, database, &all);
            };
            let reading = load.clone();
            scope.spawn(move || reading(&["-c", "8", "-b", "select-only"]));
            // With fewer sessions than servers: a thread of pgbench waits for each PREPARE.
            scope.spawn(move || load(&["-c", "2", "-b", "tpcb-like"]));
        }
    });
    let grown = || -> Vec<u64> {
        hosts
            .replicas
            .iter()
            .map(reads)
            .zip(&before)
            .map(|(now, before)| now - before)
            .collect()
    };
    // Statistics come a moment later.
    wait_until("the replicas have counted", || {
        grown()[0] > 1000 && grown()[1] > 1000
    });
    let grown = grown();
    let (a, b, remote) = (grown[0], grown[1], grown[2]);
    assert_eq!(remote, 0, "{grown:?}");
    assert!(a.abs_diff(b) * 10 <= a.max(b), "{grown:?}");
}
