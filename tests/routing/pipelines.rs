//! What clients send in one go, in pieces, or behind each other, with a server lost or a block open in the middle of it.

use std::time::Duration;

use crate::scene::{Hosts, Scene};
use crate::support::{Wire, bind, describe, execute, parse, query, sync, terminate, wait_until};

/// A read that takes a second or so; `number` tells it from those of other tests.
fn slow(number: u32) -> String {
    format!("SELECT 'slow', count(*) FROM generate_series(1, {number})")
}

/// Ends what runs on a replica and has `number` in its text.
fn end_on_replica(scene: &Scene<'_>, number: u32) {
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE state = 'active' AND query LIKE '%{number}%' AND pid <> pg_backend_pid()"
    );
    wait_until("it runs on a replica, and is ended", || {
        let ended = |replica: &pooler::demo::postgres::Postgres| replica.psql(&sql).unwrap() != "0";
        scene.hosts.replicas.iter().any(ended)
    });
}

fn patient(scene: &Scene<'_>) -> Wire {
    let mut wire = scene.login();
    wire.set_patience(Duration::from_secs(30));
    wire
}

#[test]
fn t05_a_query_in_pieces_goes_through_a_block_on_a_replica() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    let mut wire = scene.login();
    wire.rows("BEGIN READ ONLY");
    for len in [1_000, 200_000] {
        let long = query(&format!("SELECT length('{}')", "x".repeat(len)));
        wire.send_bytes(&long[..500]);
        std::thread::sleep(Duration::from_millis(100));
        wire.send_bytes(&long[500..]);
        wire.expect(&format!("T D({len}) C(SELECT 1) Z(T)"));
    }
    wire.rows("COMMIT");
}

#[test]
fn t02_an_answer_of_the_poolers_own_is_given_once_when_its_batch_is_done_again() {
    const NUMBER: u32 = 10_000_001;
    let scene = Scene::on(Hosts::shared(), |b| b.set("pool_size = 1"));
    let mut wire = patient(&scene);
    // So that both replicas hold it.
    for n in 0..6 {
        let name = format!("p{n}");
        wire.send(&[parse(&name, &slow(NUMBER)), describe(&name), sync()]);
        wire.expect("1 t T Z(I)");
    }
    wire.send(&[
        query("SELECT 1"),
        parse("p", &slow(NUMBER)),
        bind("", "p", &[]),
        execute(""),
        sync(),
    ]);
    wire.expect("T D(1) C(SELECT 1) Z(I)");
    end_on_replica(&scene, NUMBER);
    wire.expect(&format!("1 2 D(slow|{NUMBER}) C(SELECT 1) Z(I)"));
}

#[test]
fn t09_the_unnamed_statement_is_the_one_that_it_was_when_a_batch_is_done_again() {
    const NUMBER: u32 = 10_000_002;
    let scene = Scene::on(Hosts::shared(), |b| b);
    let mut wire = patient(&scene);
    for next in [
        [
            parse("", "SELECT 'second'"),
            bind("", "", &[]),
            execute(""),
            sync(),
        ]
        .concat(),
        query("SELECT 'second'"),
    ] {
        wire.send(&[parse("", &slow(NUMBER)), describe(""), sync()]);
        wire.expect("1 t T Z(I)");
        wire.send(&[bind("", "", &[]), execute(""), sync(), next]);
        end_on_replica(&scene, NUMBER);
        wire.expect(&format!("2 D(slow|{NUMBER}) C(SELECT 1) Z(I)"));
        let second = wire.recv_to_ready();
        let row = second.iter().find(|m| m.tag == b'D').expect("a row");
        assert_eq!(row.columns(), ["second"]);
    }
}

#[test]
fn what_was_begun_on_a_replica_by_choice_ends_there() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    let mut wire = scene.login();
    wire.rows("SET pooler.route = 'replica'");
    wire.send(&[query("BEGIN; SELECT 1")]);
    wire.expect("C(BEGIN) T D(1) C(SELECT 1) Z(T)");
    assert_eq!(wire.one("SELECT 2"), "2");
    wire.rows("COMMIT");
    wire.send(&[
        parse("", "BEGIN"),
        bind("", "", &[]),
        execute(""),
        parse("", "SELECT 3"),
        bind("", "", &[]),
        execute(""),
        sync(),
    ]);
    wire.expect("1 2 C(BEGIN) 1 2 D(3) C(SELECT 1) Z(T)");
    wire.rows("COMMIT");
}

#[test]
fn t09_a_query_in_the_middle_of_a_failed_batch_is_passed_over() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    let mut wire = scene.login();
    for route in ["auto", "replica"] {
        wire.rows(&format!("SET pooler.route = '{route}'"));
        wire.send(&[parse("", "SELECT * FROM nope"), query("SELECT 1"), sync()]);
        wire.expect("E(42P01) Z(I)");
        assert_eq!(wire.one("SELECT 2"), "2");
    }
}

#[test]
fn t26_what_is_sent_behind_a_statement_with_an_old_plan_is_not_forgotten() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    scene.sql("CREATE TABLE t (x int); INSERT INTO t VALUES (1)");
    let mut wire = scene.login();
    wire.send(&[parse("p", "SELECT * FROM t"), sync()]);
    wire.expect("1 Z(I)");
    for _ in 0..6 {
        wire.send(&[bind("", "p", &[]), execute(""), sync()]);
        wire.expect("2 D(1) C(SELECT 1) Z(I)");
    }
    scene.sql("ALTER TABLE t ADD y int DEFAULT 5");
    wire.send(&[
        bind("", "p", &[]),
        execute(""),
        sync(),
        query("INSERT INTO t VALUES (2)"),
    ]);
    wire.expect("2 D(1|5) C(SELECT 1) Z(I) C(INSERT 0 1) Z(I)");
}

#[test]
fn t49_what_waits_behind_a_batch_that_is_done_again_fits() {
    const NUMBER: u32 = 10_000_003;
    let scene = Scene::on(Hosts::shared(), |b| b);
    let mut wire = patient(&scene);
    let first = query(&format!("{} /* {} */", slow(NUMBER), "x".repeat(16_000)));
    let small = query("SELECT 1");
    let fill = |len: usize| small.repeat(len / small.len());
    let (some, more) = (fill(60_000), fill(120_000));
    let behind = (some.len() + more.len()) / small.len();
    wire.send_bytes(&first);
    std::thread::sleep(Duration::from_millis(100));
    wire.send_bytes(&some);
    std::thread::sleep(Duration::from_millis(100));
    wire.send_bytes(&more);
    end_on_replica(&scene, NUMBER);
    wire.expect(&format!("T D(slow|{NUMBER}) C(SELECT 1) Z(I)"));
    for _ in 0..behind {
        wire.expect("T D(1) C(SELECT 1) Z(I)");
    }
}

#[test]
fn what_was_asked_before_terminate_is_done_although_a_read_is_in_front_of_it() {
    let scene = Scene::on(Hosts::shared(), |b| b.set("pool_size = 1"));
    scene.sql("CREATE TABLE t (x int)");
    // Whoever leaves while it waits for a server leaves the queue: here are some.
    let (mut other, mut wire) = (scene.login(), scene.login());
    for _ in 0..4 {
        wire.rows("SELECT 1");
    }
    other.rows("DELETE FROM t");
    wire.send(&[
        query(&slow(5_000_004)),
        query("INSERT INTO t VALUES (1)"),
        terminate(),
    ]);
    wire.shut_down_writing();
    let count = || {
        let hosts = scene.hosts;
        hosts
            .primary
            .psql_in(&scene.database, "SELECT count(*) FROM t")
    };
    wait_until("the write is done", || count().unwrap() == "1");
}
