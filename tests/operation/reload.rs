//! SIGHUP: all of a file or nothing of it, while clients are in transactions.

use std::time::Duration;

use crate::support::{Message, Rig, SERVERS, Wire, query, wait_until};

fn reloaded(rig: &Rig, times: usize) {
    wait_until("the reload", || {
        rig.pooler.log().matches("configuration reloaded").count() >= times
    });
}

#[test]
fn t74_a_bad_file_changes_nothing_and_is_named_with_its_line() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut busy = rig.login();
    busy.rows("BEGIN");
    let good = std::fs::read_to_string(rig.pooler.dir().join("pooler.toml")).unwrap();
    for (number, (bad, says)) in [
        (
            good.replace("pool_size = 1", "pool_size = 2\npool_sise = 1"),
            "pool_sise",
        ),
        (
            good.replace("pool_size = 1", "pool_size = \"many\""),
            "pool_size",
        ),
        (
            good.replace("[clusters.main]", "[clusters.main"),
            "pooler.toml",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        rig.pooler.reload_text(&bad);
        wait_until("the reload fails", || {
            rig.pooler.log().matches("reload failed").count() > number
        });
        let log = rig.pooler.log();
        let message = log.rsplit_once("reload failed").unwrap().1;
        assert!(
            message.contains(says) && message.contains("pooler.toml:"),
            "{message}"
        );
    }
    let mut second = rig.login();
    second.send(&[query("SELECT 1")]);
    second.expect_silence(Duration::from_millis(400));
    busy.rows("COMMIT");
    second.expect("T D(1) C(SELECT 1) Z(I)");
    rig.assert_sound();
}

#[test]
fn t74_a_larger_pool_is_there_at_once_and_a_smaller_one_when_servers_come_back() {
    let mut rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut first = rig.login();
    first.rows("BEGIN");
    let pid = first.one("SELECT pg_backend_pid()");
    let mut second = rig.login();
    second.send(&[query("BEGIN")]);
    second.expect_silence(Duration::from_millis(300));
    rig.pooler.reload(|b| b.set("pool_size = 2"));
    second.expect("C(BEGIN) Z(T)");
    assert_eq!(first.one("SELECT pg_backend_pid()"), pid);
    rig.pooler.reload(|b| b.set("pool_size = 1"));
    reloaded(&rig, 2);
    first.rows("COMMIT");
    second.rows("COMMIT");
    rig.wait_sql(&format!("count(*) <= 1 {SERVERS}"));
    rig.assert_sound();
}

#[test]
fn t74_an_unchanged_pool_keeps_its_servers() {
    let mut rig = Rig::new();
    let mut client = rig.login();
    let pid = client.one("SELECT pg_backend_pid()");
    rig.pooler.reload(|b| {
        b.set("query_wait_timeout = \"77s\"")
            .set("server_connect_parallel = 7")
    });
    reloaded(&rig, 1);
    assert_eq!(client.one("SELECT pg_backend_pid()"), pid);
    rig.assert_sound();
}

/// Another target: transactions end where they began, the next ones begin at the new one.
#[test]
fn a_changed_database_is_drained() {
    let mut rig = Rig::new();
    let mut client = rig.login();
    client.rows("BEGIN");
    let pid = client.one("SELECT pg_backend_pid()");
    rig.pooler.reload(|b| b.database("dbname = \"postgres\""));
    reloaded(&rig, 1);
    assert_eq!(client.one("SELECT current_database()"), rig.database);
    assert_eq!(client.one("SELECT pg_backend_pid()"), pid);
    client.rows("COMMIT");
    assert_eq!(client.one("SELECT current_database()"), "postgres");
    rig.wait_sql(&format!("NOT EXISTS (SELECT {SERVERS})"));
    rig.pooler.assert_serves("postgres", "anything");
}

/// Its clients' transactions end normally, then they are told; its servers go, the minimum included.
#[test]
fn a_removed_database_is_drained() {
    let rig = Rig::with(|b| b.set("min_pool_size = 2"));
    let mut idle = rig.login();
    let mut busy = rig.login();
    busy.rows("BEGIN");
    let text = std::fs::read_to_string(rig.pooler.dir().join("pooler.toml")).unwrap();
    rig.pooler
        .reload_text(&text.replace("[databases.\"*\"]", "[databases.other]"));
    reloaded(&rig, 1);
    idle.expect("E(57P01) .");
    assert_eq!(busy.one("SELECT 1"), "1");
    busy.send(&[query("COMMIT")]);
    busy.expect("C(COMMIT) Z(I) E(57P01) .");
    let refused: Result<Wire, Message> = Wire::try_login(
        rig.pooler.port(),
        &[("user", "postgres"), ("database", &*rig.database)],
        "",
    );
    assert_eq!(refused.err().expect("a refusal").sqlstate(), "3D000");
    rig.wait_sql(&format!("NOT EXISTS (SELECT {SERVERS})"));
    std::thread::sleep(Duration::from_millis(600));
    rig.wait_sql(&format!("NOT EXISTS (SELECT {SERVERS})"));
    rig.pooler.reload_text(&text);
    reloaded(&rig, 2);
    rig.assert_sound();
}

/// What cannot change without a restart is named, and the rest of the file is in force.
#[test]
fn what_needs_a_restart_is_named() {
    let mut rig = Rig::with(|b| b.set("max_client_conn = 50"));
    rig.pooler
        .reload(|b| b.set("workers = 1").set("max_client_conn = 1"));
    reloaded(&rig, 1);
    wait_until("it is named", || {
        let log = rig.pooler.log();
        log.lines()
            .any(|l| l.contains("restart") && l.contains("workers"))
    });
    let _inside = rig.login();
    let who = [("user", "postgres"), ("database", &*rig.database)];
    let refused = Wire::try_login(rig.pooler.port(), &who, "");
    assert_eq!(refused.err().expect("a refusal").sqlstate(), "53300");
}
