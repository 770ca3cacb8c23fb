//! What an operator sees of routing: SHOW HOSTS, SHOW ROUTES, EXPLAIN ROUTE, the metrics.

use pooler::demo::free_port;

use crate::scene::{Hosts, PORT, Scene, scrape};
use crate::support::{Wire, wait_until};

fn operator(scene: &Scene<'_>) -> Wire {
    scene.pooler.login("postgres", "pooler")
}

#[test]
fn the_console_says_how_hosts_are_and_where_statements_went() {
    let scene = Scene::on(Hosts::shared(), |b| b.set("admin_users = [\"postgres\"]"));
    scene.sql("CREATE TABLE t (x int)");
    let mut wire = scene.login();
    scene.assert_local_reads(&mut wire, PORT);
    wire.rows("INSERT INTO t VALUES (1)");
    let mut operator = operator(&scene);
    let hosts = operator.rows("SHOW HOSTS");
    let seen: Vec<(&str, &str, &str)> = hosts
        .iter()
        .map(|row| (&*row[2], &*row[3], &*row[4]))
        .collect();
    assert_eq!(
        seen,
        [
            ("dc1", "primary", "up"),
            ("dc1", "replica", "up"),
            ("dc1", "replica", "up"),
            ("dc2", "replica", "up"),
        ]
    );
    assert!(
        hosts.iter().all(|row| row[8] == "1"),
        "timelines: {hosts:?}"
    );
    let routes = operator.rows("SHOW ROUTES");
    let count = |role: &str, why: &str| {
        let mine = routes
            .iter()
            .find(|row| row[0] == scene.database && row[1] == role && row[3] == why);
        mine.map_or(0, |row| row[4].parse::<u64>().unwrap())
    };
    assert!(count("replica", "read") >= 20, "{routes:?}");
    assert_eq!(count("primary", "write"), 1, "{routes:?}");
}

#[test]
fn a_statement_can_be_explained_without_being_run() {
    let scene = Scene::on(Hosts::shared(), |b| b.set("admin_users = [\"postgres\"]"));
    scene.sql("CREATE FUNCTION f() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'");
    let mut wire = scene.login();
    scene.assert_local_reads(&mut wire, PORT);
    let mut operator = operator(&scene);
    let mut explain = |statement: &str| {
        let rows = operator.rows(&format!("EXPLAIN ROUTE {statement}"));
        let row = rows
            .iter()
            .find(|row| row[0] == scene.database)
            .expect("a line")
            .clone();
        (row[1].clone(), row[3].clone(), row[4].clone())
    };
    let line = |to: &str, why: &str, word: &str| (to.to_owned(), why.to_owned(), word.to_owned());
    assert_eq!(explain("SELECT 1"), line("replica", "read", "NULL"));
    assert_eq!(
        explain("SELECT x FROM t WHERE y = 'a;b'"),
        line("replica", "read", "NULL")
    );
    assert_eq!(explain("INSERT INTO t VALUES (1)").0, "primary");
    assert_eq!(
        explain("SELECT nextval('s')"),
        line("primary", "function", "nextval")
    );
    assert_eq!(explain("BEGIN"), line("primary", "block", "NULL"));
    assert_eq!(
        explain("BEGIN READ ONLY"),
        line("replica", "read_only_block", "NULL")
    );
    assert_eq!(explain("/*pooler.route='primary'*/ SELECT 1").0, "primary");
    let (to, why, word) = explain("SELECT f()");
    assert_eq!(to, "primary", "{why} {word}");
}

#[test]
fn the_metrics_say_where_statements_went_and_how_hosts_are() {
    let port = free_port().expect("a port");
    let scene = Scene::on(Hosts::shared(), |b| {
        b.section(&format!("[metrics]\nlisten = \"127.0.0.1:{port}\""))
    });
    let mut wire = scene.login();
    scene.assert_local_reads(&mut wire, PORT);
    let scrape = || scrape(port);
    wait_until("all hosts are up", || {
        scrape()
            .lines()
            .filter(|l| l.starts_with("pooler_host_up{") && l.ends_with(" 1"))
            .count()
            == 4
    });
    let text = scrape();
    let lines = |start: &str, part: &str| {
        text.lines()
            .filter(|l| l.starts_with(start) && l.contains(part))
            .count()
    };
    assert_eq!(lines("pooler_host_role{", "role=\"replica\""), 3);
    assert_eq!(lines("pooler_replica_lag_seconds{", ""), 3);
    assert_eq!(lines("pooler_replica_lag_bytes{", ""), 3);
    assert!(
        lines("pooler_routed_total{", "reason=\"read\"") >= 2,
        "{text}"
    );
    assert_eq!(lines("pooler_failovers_total{", "main"), 1);
}
