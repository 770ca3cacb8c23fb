//! The system runs out of descriptors or memory.

use std::time::{Duration, Instant};

use crate::support::{
    PATIENCE, Received, Rig, SERVERS, Wire, query, startup, wait_until, wait_within,
};

/// 100 clients and 64 descriptors: accepting pauses without a busy loop, those inside are served, servers can still be
/// opened, and all is well when clients leave.
#[test]
fn t50_out_of_descriptors() {
    let rig = Rig::with(|b| b.set("pool_size = 3").files(64));
    let hello = startup(&[("user", "postgres"), ("database", &rig.database)]);
    let mut inside = rig.login();
    let mut others: Vec<Wire> = (0..100)
        .map(|_| {
            let mut wire = rig.connect();
            wire.send_bytes(&hello);
            wire
        })
        .collect();
    wait_until("accepting pauses", || {
        rig.pooler.log().contains("cannot accept connections")
    });
    let (began, before) = (Instant::now(), rig.pooler.cpu_centiseconds());
    // Three servers are wanted at once, of which two are not open yet: they find descriptors.
    let mut some = Vec::new();
    for mut client in std::mem::take(&mut others) {
        client.set_patience(Duration::from_millis(50));
        // Which of them were taken is the system's choice.
        if some.len() < 3 && matches!(client.poll(), Received::Message(_)) {
            client.set_patience(PATIENCE);
            some.push(client);
        } else {
            others.push(client);
        }
    }
    assert_eq!(some.len(), 3);
    for client in &mut some {
        client.finish_login("postgres", "").expect("a login");
        client.rows("BEGIN");
    }
    for client in &mut some {
        client.rows("COMMIT");
    }
    while began.elapsed() < Duration::from_secs(2) {
        assert_eq!(inside.one("SELECT 1"), "1");
        std::thread::sleep(Duration::from_millis(100));
    }
    if let (Some(before), Some(after)) = (before, rig.pooler.cpu_centiseconds()) {
        assert!(
            after - before < 50,
            "{} ms of CPU in 2 s",
            (after - before) * 10
        );
    }
    let times = rig
        .pooler
        .log()
        .matches("cannot accept connections")
        .count();
    assert!(times < 10, "{times} lines in the log");
    drop(others);
    rig.assert_sound();
}

/// Nothing that the pooler opens is inherited by a program that it might start.
#[test]
fn t51_every_descriptor_is_close_on_exec() {
    let rig = Rig::new();
    let mut client = rig.login();
    client.rows("BEGIN");
    let dir = format!("/proc/{}/fdinfo", rig.pooler.pid());
    let Ok(all) = std::fs::read_dir(&dir) else {
        return;
    };
    let mut seen = 0;
    for entry in all {
        let name = entry
            .expect("an entry")
            .file_name()
            .into_string()
            .expect("a number");
        // Standard input, output and error come from outside.
        if name.parse::<u32>().expect("a number") <= 2 {
            continue;
        }
        let Ok(info) = std::fs::read_to_string(format!("{dir}/{name}")) else {
            continue;
        };
        let what = std::fs::read_link(format!("/proc/{}/fd/{name}", rig.pooler.pid()));
        let what = what.map(|p| p.display().to_string()).unwrap_or_default();
        // Others may come from whoever started the tests.
        if !what.starts_with("socket:") && !what.starts_with("anon_inode:") {
            continue;
        }
        let flags = info
            .lines()
            .find_map(|l| l.strip_prefix("flags:"))
            .expect("flags");
        let flags = u32::from_str_radix(flags.trim(), 8).expect("octal");
        assert!(flags & 0o2_000_000 != 0, "{name} {what}");
        seen += 1;
    }
    assert!(seen > 5, "{seen}");
}

/// Hundreds of clients that ask for much and read nothing: each is slowed, nothing grows.
#[test]
fn memory_stays_bounded_under_unread_results() {
    let rig = Rig::with(|b| b.set("pool_size = 20"));
    let mut warm: Vec<Wire> = (0..20).map(|_| rig.login()).collect();
    for client in &mut warm {
        client.rows("SELECT 1");
    }
    drop(warm);
    let before = rig.pooler.rss_kb();
    let mut clients: Vec<Wire> = (0..300).map(|_| rig.login()).collect();
    for client in &mut clients {
        client.shrink_receive_buffer();
        client.send(&[query(
            "SELECT repeat('x', 1000000) FROM generate_series(1, 50)",
        )]);
    }
    let mut most = 0;
    for _ in 0..20 {
        most = most.max(rig.pooler.rss_kb());
        std::thread::sleep(Duration::from_millis(50));
    }
    let grown = most.saturating_sub(before);
    assert!(
        grown < 24 * 1024,
        "{grown} kB for 20 results of 50 MB and 280 waiters"
    );
    drop(clients);
    // Each of the servers has a result of 50 MB to get rid of.
    wait_within(Duration::from_secs(30), "the servers are free", || {
        rig.sql(&format!("SELECT count(*) {SERVERS} AND state <> 'idle'")) == "0"
    });
    rig.assert_sound();
}
