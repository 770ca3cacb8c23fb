//! Session and statement pooling, replication connections, Unix sockets.

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use pooler::demo::postgres::Postgres;
use pooler::demo::{find_program, make_dir};

use crate::support::{Pooler, Rig, Wire, query, startup, wait_until};

#[test]
fn b26_session_pooling_keeps_the_server_and_cleans_it_for_the_next() {
    let rig = Rig::with(|b| b.set("pool_mode = \"session\"").set("pool_size = 1"));
    let mut first = rig.login();
    let pid = first.one("SELECT pg_backend_pid()");
    first.rows("SET work_mem = '7MB'");
    first.rows("CREATE TEMP TABLE mine (i int)");
    first.rows("PREPARE p AS SELECT 7");
    first.rows("LISTEN news");
    first.rows("SELECT pg_advisory_lock(7)");
    first.rows("DECLARE c CURSOR WITH HOLD FOR SELECT 7");
    let mut second = Wire::connect(rig.pooler.port());
    second.send(&[startup(&[
        ("user", "postgres"),
        ("database", &rig.database),
    ])]);
    second.expect_silence(Duration::from_millis(400));
    assert_eq!(first.one("EXECUTE p"), "7", "all of it is still there");
    assert_eq!(first.one("SHOW work_mem"), "7MB");
    first.leave();
    second.finish_login("postgres", "").expect("its turn");
    assert_eq!(second.one("SELECT pg_backend_pid()"), pid);
    for (what, expected) in [
        ("SHOW work_mem", "4MB"),
        ("SELECT to_regclass('pg_temp.mine') IS NULL", "t"),
        ("SELECT count(*) FROM pg_prepared_statements", "0"),
        ("SELECT count(*) FROM pg_listening_channels()", "0"),
        (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
            "0",
        ),
        ("SELECT count(*) FROM pg_cursors", "0"),
    ] {
        assert_eq!(second.one(what), expected, "{what}");
    }
    second.leave();
    rig.assert_sound();
}

#[test]
fn session_pooling_survives_a_client_that_vanishes_in_a_transaction() {
    let rig = Rig::with(|b| b.set("pool_mode = \"session\"").set("pool_size = 1"));
    rig.sql("CREATE TABLE t (i int)");
    let mut first = rig.login();
    first.rows("BEGIN");
    first.rows("INSERT INTO t VALUES (1)");
    first.reset();
    let mut second = rig.login();
    assert_eq!(second.one("SELECT count(*) FROM t"), "0");
    second.leave();
    rig.assert_sound();
}

#[test]
fn statement_pooling_refuses_transaction_blocks_and_pools_the_rest() {
    let rig = Rig::with(|b| b.set("pool_mode = \"statement\"").set("pool_size = 1"));
    let (mut a, mut b) = (rig.login(), rig.login());
    for _ in 0..5 {
        assert_eq!(a.one("SELECT 1"), "1");
        assert_eq!(b.one("SELECT 2"), "2");
    }
    a.send(&[query("BEGIN")]);
    let got = a.recv_to_end();
    let error = got.iter().find(|m| m.tag == b'E').expect("an error");
    assert!(
        error.text().contains("transaction") && !error.field(b'H').is_empty(),
        "{error:?}"
    );
    assert_eq!(b.one("SELECT 2"), "2");
    rig.assert_sound();
}

fn psql(host: &str, port: u16, connection: &str, sql: &str) -> String {
    let mut psql = Command::new(find_program("psql").expect("psql"));
    let target = format!("host={host} port={port} user=postgres {connection}");
    let out = psql
        .args(["-X", "-At", &target, "-c", sql])
        .output()
        .expect("psql");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{}", text(&out.stderr));
    text(&out.stdout)
}

#[test]
fn replication_connections_have_a_server_of_their_own() {
    let postgres = Postgres::builder().start().expect("PostgreSQL");
    let pooler = Pooler::before(&postgres).set("pool_size = 1").start();
    let port = pooler.port();
    for kind in [
        "replication=database dbname=postgres",
        "replication=true dbname=postgres",
    ] {
        let system = psql("127.0.0.1", port, kind, "IDENTIFY_SYSTEM");
        assert!(system.contains('|') && system.contains('/'), "{system}");
    }
    let target = make_dir("basebackup").expect("a directory");
    let Some(program) = find_program("pg_basebackup") else {
        return;
    };
    let mut holder = pooler.login("postgres", "postgres");
    holder.rows("BEGIN");
    let out = Command::new(program)
        .args([
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-X",
            "stream",
            "-c",
            "fast",
            "-p",
            &port.to_string(),
            "-D",
        ])
        .arg(target.join("copy"))
        .output()
        .expect("pg_basebackup");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(target.join("copy/PG_VERSION").exists());
    // Written by whoever runs the tests, which may not be the account that clears up.
    std::fs::remove_dir_all(target.join("copy")).expect("the copy removed");
    holder.rows("COMMIT");
    let mut watch = Wire::login(postgres.port(), "postgres", "postgres");
    wait_until("no walsender is left", || {
        watch.one("SELECT count(*) FROM pg_stat_replication") == "0"
    });
    pooler.assert_serves("postgres", "postgres");
}

/// A replication connection does not keep the pooler from ending.
#[test]
fn sigterm_ends_replication_connections() {
    let postgres = Postgres::builder().start().expect("PostgreSQL");
    let pooler = Pooler::before(&postgres).start();
    let parameters = [
        ("user", "postgres"),
        ("database", "postgres"),
        ("replication", "database"),
    ];
    let mut stream = Wire::login_with(pooler.port(), &parameters, "");
    stream.send(&[query("IDENTIFY_SYSTEM")]);
    stream.recv_to_ready();
    pooler.signal("TERM");
    stream.recv_to_end();
    assert!(pooler.wait_exit().success());
}

#[test]
fn unix_sockets_on_both_sides() {
    let postgres = Postgres::builder().start().expect("PostgreSQL");
    let dir = make_dir("sockets").expect("a directory");
    let pooler = Pooler::builder()
        .unix_host(postgres.socket_dir(), postgres.port())
        .listen(&dir.display().to_string())
        .start();
    let socket = dir.join(format!(".s.PGSQL.{}", pooler.port()));
    // It binds that one last.
    wait_until("the socket is there", || {
        UnixStream::connect(&socket).is_ok()
    });
    let dir = dir.to_str().expect("a plain name");
    assert_eq!(
        psql(dir, pooler.port(), "dbname=postgres", "SELECT 42").trim(),
        "42"
    );
    pooler.signal("TERM");
    assert!(pooler.wait_exit().success());
    assert!(!socket.exists(), "the file goes with the pooler");
}
