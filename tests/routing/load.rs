//! A mixed load of pgbench, routed by statement: every read on a local replica, evenly, and not one error.

use std::process::Command;

use pooler::demo::{find_program, free_port};

use crate::scene::{Hosts, Scene, scrape};

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
    let metrics = free_port().expect("a port");
    let scene = Scene::on(&hosts, |b| {
        b.set("pool_size = 10")
            .section(&format!("[metrics]\nlisten = \"127.0.0.1:{metrics}\""))
    });
    pgbench(
        hosts.primary.port(),
        &scene.database,
        &["-i", "-q", "-s", "2"],
    );
    hosts.wait_replayed();
    let seconds = seconds();
    std::thread::scope(|scope| {
        let (port, database) = (scene.pooler.port(), &*scene.database);
        for mode in ["simple", "extended", "prepared"] {
            let load = ["-M", mode, "-T", &*seconds, "-j", "1"].map(str::to_owned);
            let load = move |more: &[&str]| {
                let all = load.iter().map(String::as_str).chain(more.iter().copied());
                pgbench(port, database, &all.collect::<Vec<_>>());
            };
            let reading = load.clone();
            scope.spawn(move || reading(&["-c", "8", "-b", "select-only"]));
            // With fewer sessions than servers: a thread of pgbench waits for each PREPARE.
            scope.spawn(move || load(&["-c", "2", "-b", "tpcb-like"]));
        }
    });
    let text = scrape(metrics);
    let reads = |host: &pooler::demo::postgres::Postgres| -> u64 {
        let port = format!(":{}\"", host.port());
        let lines = text
            .lines()
            .filter(|line| line.starts_with("pooler_routed_total{"));
        let mine = lines.filter(|l| l.contains(&port) && l.contains("role=\"replica\""));
        mine.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    };
    let reads: Vec<u64> = hosts.replicas.iter().map(reads).collect();
    eprintln!("reads on the replicas: {reads:?}");
    let (a, b, remote) = (reads[0], reads[1], reads[2]);
    assert!(a > 500 && b > 500, "{reads:?}");
    assert_eq!(remote, 0, "{reads:?}");
    assert!(a.abs_diff(b) * 4 <= a.max(b), "{reads:?}");
    // The primary had no read but those of sessions that had just written, and those of transactions.
    let on_primary = |reason: &str| {
        let role = format!("role=\"primary\",datacenter=\"dc1\",reason=\"{reason}\"");
        text.lines()
            .any(|l| l.starts_with("pooler_routed_total{") && l.contains(&role))
    };
    assert!(on_primary("block") && !on_primary("fallback"), "{text}");
}
