//! `pgbench` with many clients on few servers: no error, and never more connections than the pool has.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pooler::demo::find_program;

use crate::support::{Rig, SERVERS, Wire};

const CLIENTS: &str = "200";
const SIZE: usize = 10;

/// Seconds of each run; `POOLER_PGBENCH_SECONDS` for longer ones.
const SECONDS: usize = 2;

#[test]
fn pgbench_200_clients_on_10_servers() {
    let seconds = crate::number("POOLER_PGBENCH_SECONDS")
        .unwrap_or(SECONDS)
        .to_string();
    let rig = Rig::with(|b| {
        b.set(&format!("pool_size = {SIZE}"))
            .set("max_client_conn = 1000")
    });
    let direct = crate::support::postgres().port();
    pgbench(&rig, direct, &["-i", "-q", "-s", "5"]);
    rig.wait_sql(&format!("NOT EXISTS (SELECT {SERVERS})"));
    // One for all runs: the connection of an earlier one may still be there when the next begins to count.
    let mut observer = rig.direct();
    for script in ["tpcb-like", "select-only"] {
        for mode in ["simple", "extended", "prepared"] {
            // With prepared statements a thread of pgbench waits for each PREPARE of one client while other clients of
            // that thread hold servers in open transactions: the pooler must not need a server for it.
            let arguments = [
                "-n", "-c", CLIENTS, "-j", "2", "-T", &seconds, "-M", mode, "-b", script,
            ];
            let over = AtomicBool::new(false);
            let (said, most) = std::thread::scope(|scope| {
                let most = scope.spawn(|| most_connections(&mut observer, &over));
                let said = pgbench(&rig, rig.pooler.port(), &arguments);
                over.store(true, Ordering::Relaxed);
                (said, most.join().unwrap())
            });
            let failed = said.lines().find(|l| l.contains("failed transactions"));
            assert!(
                failed.is_some_and(|l| l.contains(": 0 (")),
                "{mode} {script}: {said}"
            );
            assert!(most <= SIZE, "{mode} {script}: {most} connections");
            let tps = said
                .lines()
                .find(|l| l.starts_with("tps"))
                .unwrap_or_default();
            eprintln!("{script} {mode}: {tps}, {most} connections at most");
        }
    }
    rig.assert_sound();
}

/// Runs it to its end: what it printed.
fn pgbench(rig: &Rig, port: u16, arguments: &[&str]) -> String {
    let program = find_program("pgbench").expect("pgbench");
    let out = Command::new(program)
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"])
        .args(arguments)
        .arg(&rig.database)
        .stdin(Stdio::null())
        .output()
        .expect("pgbench");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(out.status.success(), "{arguments:?}: {said}");
    assert!(
        !said.contains("ERROR") && !said.contains("aborted"),
        "{arguments:?}: {said}"
    );
    said
}

fn most_connections(direct: &mut Wire, over: &AtomicBool) -> usize {
    let mut most = 0;
    while !over.load(Ordering::Relaxed) {
        let count = direct.one(&format!("SELECT count(*) {SERVERS}"));
        most = most.max(count.parse().unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    most
}
