//! `make parity`: beside a real PgBouncer. What it says of itself is the only proof that our columns are its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pooler::demo::{Leashed, find_program, free_port, make_dir, server_account};

use crate::columns::{columns, sheets};
use crate::support::{Wire, postgres, query, wait_until};
use crate::{console, described, rig};

/// From `POOLER_PGBOUNCER`, from where `scripts/install-bench-peers.sh` puts it, or from PATH.
fn program() -> PathBuf {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-peers/pgbouncer");
    let named = std::env::var_os("POOLER_PGBOUNCER").map(PathBuf::from);
    let found = named.or_else(|| Some(fetched).filter(|path| path.is_file()));
    let found = found.or_else(|| find_program("pgbouncer"));
    found.expect("PgBouncer: run scripts/install-bench-peers.sh")
}

/// A PgBouncer before the tests' PostgreSQL, its port, and a session in its console.
fn pgbouncer() -> (Leashed, u16, Wire) {
    let port = free_port().unwrap();
    let dir = make_dir(&format!("pgbouncer{port}")).unwrap();
    let users = dir.join("users.txt");
    std::fs::write(&users, "\"postgres\" \"\"\n").unwrap();
    // It refuses to run as root, but changes to another user by itself.
    let account = server_account().unwrap();
    let account = account.map_or(String::new(), |name| format!("user = {name}\n"));
    let text = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n\n[pgbouncer]\n{account}listen_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = trust\nauth_file = {}\nadmin_users = postgres\npool_mode = transaction\n",
        postgres().port(),
        users.display(),
    );
    let config = dir.join("pgbouncer.ini");
    std::fs::write(&config, text).unwrap();
    let log = File::create(dir.join("log")).unwrap();
    let mut command = Command::new(program());
    command.arg(&config).stdin(Stdio::null()).stderr(log);
    let process = Leashed::start(&mut command).unwrap();
    wait_until("PgBouncer listens", || Wire::try_connect(port).is_ok());
    Wire::login(port, "postgres", "postgres").one("SELECT 1");
    (process, port, Wire::login(port, "postgres", "pgbouncer"))
}

fn heads(wire: &mut Wire, sql: &str) -> Result<Vec<(String, u32)>, String> {
    wire.send(&[query(sql)]);
    let got = wire.recv_to_ready();
    match got.iter().find(|m| m.tag == b'T') {
        Some(heads) => Ok(described(&heads.body)),
        None => Err(format!("{sql}: {got:?}")),
    }
}

/// Since 1.26, behind the counts and behind the averages of SHOW STATS and its parts: clients that logged in.
const LATER: &[&str] = &[
    "total_client_login_count",
    "avg_client_login_count",
    "client_login_count",
];

#[test]
#[ignore = "needs PgBouncer 1.24 or later: make parity"]
fn every_show_begins_with_the_columns_of_pgbouncer() {
    let (mut process, _, mut theirs) = pgbouncer();
    let version = theirs.one("SHOW VERSION");
    println!("{version}");
    let rig = rig();
    let mut ours = console(&rig);
    for (name, sheet) in sheets().into_iter().filter(|(name, _)| *name != "SETTINGS") {
        let sql = format!("SHOW {name}");
        let mut its = heads(&mut theirs, &sql).unwrap_or_else(|e| panic!("{version}: {e}"));
        its.retain(|(name, _)| !LATER.contains(&&**name));
        let before_ours = sheet.split(" + ").next().unwrap_or_default();
        assert_eq!(columns(before_ours), its, "{version}: {sql}");
        let shown = heads(&mut ours, &sql).unwrap();
        assert_eq!(shown[..its.len()], its, "{version}: {sql}");
    }
    for sql in ["SHOW LISTS", "SHOW TOTALS", "SHOW STATE"] {
        let lines = |wire: &mut Wire| -> Vec<String> {
            let rows = wire.rows(sql).into_iter();
            let names = rows.map(|row| row[0].clone());
            names.filter(|name| !LATER.contains(&&**name)).collect()
        };
        let (shown, its) = (lines(&mut ours), lines(&mut theirs));
        // 1.26 has no `suspended` any more.
        let last = its.len();
        assert_eq!(shown[..last], its, "{version}: {sql}");
        assert!(shown[last..].iter().all(|name| name == "suspended"));
    }
    process.stop().unwrap();
}

/// How a session of the console, one that idles and one in a transaction are called.
#[test]
#[ignore = "needs PgBouncer 1.25 or later: make parity"]
fn states_of_clients_are_called_as_by_pgbouncer() {
    let (mut process, port, mut theirs) = pgbouncer();
    let version = theirs.one("SHOW VERSION");
    let rig = rig();
    let mut ours = console(&rig);
    let states = |wire: &mut Wire, port: u16| -> Vec<String> {
        let (mut busy, mut idle) = (
            Wire::login(port, "postgres", "postgres"),
            Wire::login(port, "postgres", "postgres"),
        );
        busy.rows("BEGIN");
        idle.one("SELECT 1");
        let rows = crate::table(wire, "SHOW CLIENTS").into_iter();
        let mut states: Vec<_> = rows
            .map(|row| format!("{} {} {}", row["type"], row["replication"], row["state"]))
            .collect();
        busy.rows("COMMIT");
        states.sort();
        states
    };
    let its = states(&mut theirs, port);
    // Which has no idle state yet.
    if !version.starts_with("PgBouncer 1.24") {
        assert_eq!(states(&mut ours, rig.pooler.port()), its, "{version}");
    }
    process.stop().unwrap();
}
