//! Which statements go where.

use crate::scene::{Hosts, PORT, Scene};
use crate::support::{bind, describe, execute, parse, query, sync};

#[test]
fn reads_are_spread_over_the_local_replicas_and_writes_go_to_the_primary() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    let mut wire = scene.login();
    let places = scene.places(&mut wire, PORT, 200);
    assert!(
        (90..=110).contains(&places["a"]) && (90..=110).contains(&places["b"]),
        "{places:?}"
    );
    wire.rows("CREATE TABLE t (x int)");
    wire.rows("INSERT INTO t VALUES (1)");
    scene.assert_on_primary(
        &mut wire,
        "INSERT INTO t VALUES (2) RETURNING current_setting('port')",
    );
    scene.assert_on_primary(
        &mut wire,
        "SELECT current_setting('port') FROM t LIMIT 1 FOR UPDATE",
    );
}

#[test]
fn transaction_blocks_go_where_they_say() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    let mut wire = scene.login();
    wire.rows("BEGIN");
    assert_eq!(scene.place(&wire.one(PORT)), "primary");
    wire.rows("COMMIT");
    let mut fresh = scene.login();
    fresh.rows("BEGIN READ ONLY");
    let place = scene.place(&fresh.one(PORT));
    assert!(matches!(place, "a" | "b"), "{place}");
    assert_eq!(scene.place(&fresh.one(PORT)), place, "all of it");
    assert_eq!(
        fresh.try_rows("CREATE TABLE t ()").unwrap_err().sqlstate(),
        "25006"
    );
    fresh.rows("ROLLBACK");
    fresh.rows("CREATE TABLE t ()");
}

#[test]
fn the_extended_protocol_is_routed_in_all_its_shapes() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    let mut wire = scene.login();
    // Parse and Describe in one batch, Bind and Execute in the next.
    wire.send(&[parse("p", PORT), describe("p"), sync()]);
    wire.expect("1 t T Z(I)");
    for _ in 0..4 {
        wire.send(&[bind("", "p", &[]), execute(""), sync()]);
        let row = &wire.expect("2 D C Z(I)")[1];
        assert!(matches!(scene.place(&row.columns()[0]), "a" | "b"));
    }
    // Several batches at once, reads and a write among them: each in its place, all in order.
    wire.rows("CREATE TABLE t (x int)");
    let read = |n: &str| {
        [
            parse("", &format!("SELECT '{n}'")),
            bind("", "", &[]),
            execute(""),
            sync(),
        ]
        .concat()
    };
    let write = |n: &str| query(&format!("INSERT INTO t VALUES ({n}) RETURNING 'w{n}'"));
    wire.send(&[
        read("r1"),
        read("r2"),
        write("1"),
        read("r3"),
        write("2"),
        write("3"),
        read("r4"),
    ]);
    let mut said = Vec::new();
    for _ in 0..7 {
        let batch = wire.recv_to_ready();
        let row = batch.iter().find(|m| m.tag == b'D').expect("a row");
        said.push(row.columns().concat());
    }
    assert_eq!(said, ["r1", "r2", "w1", "r3", "w2", "w3", "r4"]);
}

#[test]
fn what_a_replica_refuses_is_done_by_the_primary_and_the_client_sees_nothing_of_it() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    // A lie that PostgreSQL believes: it is called stable and calls what writes.
    scene.sql(
        "CREATE TABLE t (x int); \
         CREATE FUNCTION writes() RETURNS text LANGUAGE sql VOLATILE AS $$INSERT INTO t VALUES (1); SELECT current_setting('port')$$; \
         CREATE FUNCTION lies() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN writes(); END'",
    );
    let mut wire = scene.login();
    scene.assert_on_primary(&mut wire, "SELECT lies()");
    scene.assert_on_primary(&mut wire, "SELECT lies() /* another */");
    wire.send(&[
        parse("p", "SELECT lies()"),
        bind("", "p", &[]),
        execute(""),
        sync(),
    ]);
    let row = &wire.expect("1 2 D C Z(I)")[2];
    assert_eq!(scene.place(&row.columns()[0]), "primary");
    wire.send(&[bind("", "p", &[]), execute(""), sync()]);
    wire.expect("2 D C Z(I)");
    assert_eq!(wire.one("SELECT count(*) FROM t"), "12");
}

#[test]
fn a_read_only_block_and_its_first_read_may_come_in_one_batch() {
    let scene = Scene::on(Hosts::shared(), |b| b);
    let mut wire = scene.login();
    let run = |sql: &str| [parse("", sql), bind("", "", &[]), execute("")].concat();
    let place = |wire: &mut crate::support::Wire, begin: &str| {
        wire.send(&[run(begin), run(PORT), sync()]);
        let batch = wire.recv_to_ready();
        let row = batch.iter().find(|m| m.tag == b'D').expect("a row");
        let place = scene.place(&row.columns()[0]);
        assert_eq!(scene.place(&wire.one(PORT)), place, "all of it");
        wire.rows("COMMIT");
        place
    };
    assert!(matches!(place(&mut wire, "BEGIN READ ONLY"), "a" | "b"));
    assert_eq!(place(&mut wire, "BEGIN"), "primary");
    assert_eq!(
        place(&mut wire, "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY"),
        "primary"
    );
}
