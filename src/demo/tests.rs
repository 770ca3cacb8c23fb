//! The clusters, against the PostgreSQL installed here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::postgres::{Postgres, Stop};
use super::process::wait_until;

const GONE_WITHIN: Duration = Duration::from_secs(20);

/// For what has to be made or started first.
const THERE_WITHIN: Duration = Duration::from_secs(120);

#[test]
fn settings_files_and_hba_lines_reach_the_server() {
    let pg = Postgres::builder()
        .max_connections(7)
        .setting("search_path", "\"it's quoted\"")
        .hba("host all bob 127.0.0.1/32 reject")
        .file("note.txt", "hello")
        .start()
        .unwrap();
    let sql = "SHOW max_connections;
        SHOW search_path;
        SELECT pg_read_file('note.txt');
        SELECT auth_method FROM pg_hba_file_rules WHERE user_name = '{bob}';";
    assert_eq!(pg.psql(sql).unwrap(), "7\n\"it's quoted\"\nhello\nreject");
    assert!(
        pg.psql("SELEC 1")
            .unwrap_err()
            .to_string()
            .contains("syntax error")
    );

    pg.set_conf("work_mem", "7MB").unwrap();
    pg.reload().unwrap();
    assert_eq!(pg.psql("SHOW work_mem").unwrap(), "7MB");
}

#[test]
fn a_server_that_cannot_start_says_why_and_leaves_nothing() {
    let error = Postgres::builder()
        .setting("bogus", "1")
        .start()
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("unrecognized configuration parameter \"bogus\""),
        "{error}"
    );
}

#[test]
fn it_stops_crashes_freezes_and_comes_back_on_its_port() {
    let pg = Postgres::builder().start().unwrap();
    let port = pg.port();
    pg.psql("CREATE TABLE t AS SELECT 1 AS i").unwrap();
    pg.restart().unwrap();
    pg.crash().unwrap();
    assert_eq!(pg.pid(), None);
    assert!(pg.psql("SELECT 1").is_err());
    pg.start_again().unwrap();
    assert_eq!(
        (pg.port(), pg.psql("SELECT i FROM t").unwrap().as_str()),
        (port, "1")
    );

    pg.crash_children().unwrap();
    assert!(wait_until(THERE_WITHIN, || Ok(pg.psql("SELECT 1").is_ok())).unwrap());
    pg.freeze().unwrap();
    pg.thaw().unwrap();
    assert_eq!(pg.psql("SELECT i FROM t").unwrap(), "1");
    pg.freeze().unwrap();

    let dir = pg.data_dir().to_owned();
    drop(pg);
    assert!(!dir.exists());
}

#[test]
fn a_replica_streams_is_promoted_and_followed() {
    let primary = Postgres::builder().start().unwrap();
    let first = primary.replica(&[("work_mem", "5MB")]).unwrap();
    let second = primary.replica(&[]).unwrap();
    primary
        .psql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")
        .unwrap();
    first.wait_for(&primary).unwrap();
    assert_eq!(
        first.psql("SELECT count(*) FROM t; SHOW work_mem").unwrap(),
        "1000\n5MB"
    );

    primary.stop(Stop::Fast).unwrap();
    first.promote().unwrap();
    first.psql("INSERT INTO t VALUES (0)").unwrap();
    second.follow(&first).unwrap();
    second.wait_for(&first).unwrap();
    assert_eq!(second.psql("SELECT count(*) FROM t").unwrap(), "1001");
}

/// The victim of the next test: a process with a cluster in a static, as test programs have.
#[test]
#[ignore = "runs only as a child of another test"]
fn victim() {
    static PG: std::sync::OnceLock<Postgres> = std::sync::OnceLock::new();
    let pg = PG.get_or_init(|| Postgres::builder().start().unwrap());
    let name = pg.data_dir().parent().unwrap().display().to_string();
    std::fs::write(std::env::var_os("POOLER_VICTIM").unwrap(), name).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn nothing_stays_behind_when_the_process_is_killed() {
    let told = std::env::temp_dir().join(format!("pooler-victim-{:08x}", rand::random::<u32>()));
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim
        .args(["--ignored", "--exact", "demo::tests::victim"])
        .env("POOLER_VICTIM", &told);
    let mut victim = victim.stdout(Stdio::piped()).spawn().unwrap();
    let read = || std::fs::read_to_string(&told).unwrap_or_default();
    assert!(wait_until(THERE_WITHIN, || Ok(!read().is_empty())).unwrap());
    let dir = read();
    let lock_file = std::fs::read_to_string(Path::new(&dir).join("1/postmaster.pid")).unwrap();
    let postmaster = lock_file.lines().next().unwrap();

    victim.kill().unwrap();
    victim.wait().unwrap();
    std::fs::remove_file(&told).unwrap();
    // Nobody else holds its output open: this ends.
    let printed = BufReader::new(victim.stdout.take().unwrap())
        .lines()
        .count();
    assert!(printed > 0);
    assert!(
        wait_until(GONE_WITHIN, || Ok(!Path::new(&dir).exists())).unwrap(),
        "{dir} stays"
    );
    let probe = format!("! kill -s 0 {postmaster} 2>/dev/null");
    let gone = || {
        Command::new("sh")
            .args(["-c", &probe])
            .status()
            .is_ok_and(|s| s.success())
    };
    // A process that nobody waits for may stay as a zombie: it has no memory, only a name.
    let stat = format!("/proc/{postmaster}/stat");
    let zombie = || std::fs::read_to_string(&stat).is_ok_and(|s| s.contains(") Z "));
    assert!(
        wait_until(GONE_WITHIN, || Ok(gone() || zombie())).unwrap(),
        "process {postmaster} stays"
    );
}
