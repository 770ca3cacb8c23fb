//! Clients that go in the middle of something: rows B13 to B17, B20 and B21.

use crate::support::{Rig, Wire, bind, execute, flush, parse, query, sync, terminate};

type End = fn(Wire);

const ENDS: [(&str, End); 4] = [
    ("reset", Wire::reset),
    ("closed", drop),
    ("half closed", |wire| {
        wire.shut_down_writing();
        drop(wire);
    }),
    ("terminated", |mut wire| wire.send(&[terminate()])),
];

fn rig() -> Rig {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    rig.sql("CREATE TABLE t (a int); INSERT INTO t VALUES (0)");
    rig
}

fn assert_free(rig: &Rig, what: &str) {
    rig.assert_sound();
    assert_eq!(
        rig.sql("SELECT string_agg(a::text, ',') FROM t"),
        "0",
        "{what}"
    );
    let mut other = rig.login();
    assert_eq!(
        other.one("SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass"),
        "0",
        "{what}"
    );
    // The lock is free.
    other.rows("UPDATE t SET a = 0");
    other.leave();
}

#[test]
fn b13_b14_b15_b16_a_transaction_left_open_is_rolled_back() {
    let rig = rig();
    for (how, end) in ENDS {
        for failed in [false, true] {
            let mut wire = rig.login();
            wire.send(&[query(
                "BEGIN; INSERT INTO t VALUES (1); UPDATE t SET a = 2; LOCK TABLE t",
            )]);
            wire.expect("C(BEGIN) C(INSERT 0 1) C(UPDATE 2) C(LOCK TABLE) Z(T)");
            if failed {
                wire.send(&[query("SELECT 1/0")]);
                wire.expect("E(22012) Z(E)");
            }
            end(wire);
            assert_free(&rig, how);
        }
    }
}

#[test]
fn b13_a_query_that_nobody_waits_for_is_cancelled() {
    let rig = rig();
    for (how, end) in &ENDS[..2] {
        for in_transaction in [false, true] {
            let mut wire = rig.login();
            if in_transaction {
                wire.rows("BEGIN; UPDATE t SET a = 3");
            }
            wire.send(&[query("SELECT pg_sleep(100)")]);
            rig.wait_sql("count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(100)' AND state = 'active' AND datname = current_database()");
            end(wire);
            assert_free(&rig, how);
        }
    }
}

/// The same where the server has to be closed, because it has had half a message or nobody knows what.
#[test]
fn b17_b03_a_query_runs_on_for_nobody_when_its_server_is_closed() {
    let rig = rig();
    let running = "count(*) = 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(100)' AND state = 'active' AND datname = current_database()";
    let half = query(&"x".repeat(200_000));
    for last in [&half[..150_000], b"?\0\0\0\x04"] {
        let mut wire = rig.login();
        wire.send(&[query("SELECT pg_sleep(100)")]);
        rig.wait_sql(running);
        wire.send_bytes(last);
        if last[0] == b'?' {
            wire.recv_to_end();
        }
        drop(wire);
        assert_free(&rig, "closed");
    }
}

#[test]
fn b17_half_a_message_is_never_executed() {
    let rig = rig();
    let messages = [
        query("INSERT INTO t VALUES (1)"),
        [
            parse("", "INSERT INTO t VALUES (2)"),
            bind("", "", &[]),
            execute(""),
            sync(),
        ]
        .concat(),
        // Larger than any buffer: it streams, and the server has had a part of it.
        query(&format!(
            "INSERT INTO t VALUES (3) /* {} */",
            "x".repeat(300_000)
        )),
    ];
    for (how, end) in ENDS {
        if how == "terminated" {
            continue;
        }
        for (n, message) in messages.iter().enumerate() {
            for in_transaction in [false, true] {
                let mut wire = rig.login();
                if in_transaction {
                    wire.rows("BEGIN");
                }
                // Of the batch, the whole Sync is missing, or a part of it.
                let missing = if n == 1 && in_transaction { 5 } else { 1 };
                wire.send_bytes(&message[..message.len() - missing]);
                end(wire);
                assert_free(&rig, how);
            }
        }
    }
}

/// Sync is what commits a batch: the pooler must not send it in the client's name.
#[test]
fn b20_a_batch_without_sync_is_not_committed() {
    let rig = rig();
    for (how, end) in ENDS {
        for see in [false, true] {
            for leading in [false, true] {
                let mut wire = rig.login();
                if leading {
                    wire.send(&[
                        query("SELECT 1"),
                        parse("", "SELECT 2"),
                        bind("", "", &[]),
                        execute(""),
                        sync(),
                    ]);
                }
                wire.send(&[
                    parse("i", "INSERT INTO t VALUES (1)"),
                    bind("", "i", &[]),
                    execute(""),
                    flush(),
                ]);
                if see && leading {
                    wire.expect("T D(1) C(SELECT 1) Z(I) 1 2 D(2) C(SELECT 1) Z(I)");
                }
                if see {
                    wire.expect("1 2 C(INSERT 0 1)");
                }
                end(wire);
                assert_free(&rig, how);
            }
        }
    }
}

#[test]
fn b20_b21_t21_a_client_that_dies_in_a_batch_poisons_no_statement() {
    let rig = rig();
    for (how, end) in ENDS {
        // What was asked before Terminate is done; what nobody says goodbye to is cancelled.
        let last = if how == "terminated" {
            "SELECT 1"
        } else {
            "SELECT pg_sleep(50)"
        };
        // Parsed and never synced, half parsed, in a pipeline, failed.
        let batches = [
            vec![parse("s", "SELECT 'his'")],
            vec![parse("s", "SELECT 'his'"), flush()],
            vec![parse("s", "SELECT 'his'"), bind("", "s", &[]), execute("")],
            vec![
                parse("s", "SELECT 'his'"),
                sync(),
                parse("u", "SELECT 1/0"),
                bind("", "u", &[]),
                execute(""),
            ],
            vec![
                query("SELEC"),
                parse("s", "SELECT 'his'"),
                bind("", "s", &[]),
                execute(""),
                parse("s2", last),
                bind("", "s2", &[]),
                execute(""),
                sync(),
            ],
            vec![parse("x", "SELEC"), parse("s", "SELECT 'his'")],
        ];
        for (n, batch) in batches.into_iter().enumerate() {
            let mut wire = rig.login();
            wire.send(&batch);
            end(wire);
            for name in ["s", "", "his"] {
                for text in ["SELECT 'mine'", "SELECT 'his'"] {
                    let mut other = rig.login();
                    other.send(&[parse(name, text), bind("", name, &[]), execute(""), sync()]);
                    let value = &text[8..text.len() - 1];
                    other.expect(&format!("1 2 D({value}) C(SELECT 1) Z(I)"));
                    other.leave();
                }
            }
            rig.assert_sound();
            assert_eq!(rig.sql("SELECT count(*) FROM t"), "1", "{how} {n}");
        }
    }
}

/// What was asked before Terminate is done, as PostgreSQL does it.
#[test]
fn b16_what_was_asked_before_terminate_is_done() {
    let rig = rig();
    let mut wire = rig.login();
    wire.send(&[query("INSERT INTO t VALUES (7)"), terminate()]);
    wire.recv_to_end();
    rig.wait_sql("count(*) = 1 FROM t WHERE a = 7");
    let mut wire = rig.login();
    wire.send(&[
        parse("", "INSERT INTO t VALUES (8)"),
        bind("", "", &[]),
        execute(""),
        sync(),
        terminate(),
    ]);
    drop(wire);
    rig.wait_sql("count(*) = 1 FROM t WHERE a = 8");
    rig.assert_sound();
}

/// Two hundred at once: servers are cleaned, not closed by the hundred (trap 44).
#[test]
fn c07_t44_two_hundred_clients_die_at_once() {
    let rig = Rig::with(|b| b.set("pool_size = 5"));
    rig.sql("CREATE TABLE t (a int); INSERT INTO t VALUES (0)");
    let mut clients: Vec<Wire> = (0..200).map(|_| rig.login()).collect();
    for (n, wire) in clients.iter_mut().enumerate() {
        match n % 4 {
            0 => wire.send(&[query("BEGIN; INSERT INTO t VALUES (1)")]),
            1 => wire.send(&[query("SELECT pg_sleep(100)")]),
            2 => wire.send(&[
                parse("s", "SELECT pg_sleep(100)"),
                bind("", "s", &[]),
                execute(""),
            ]),
            _ => wire.send_bytes(&query("SELECT 1")[..5]),
        }
    }
    for (n, wire) in clients.into_iter().enumerate() {
        ENDS[n % 4].1(wire);
    }
    rig.assert_sound();
    assert_eq!(rig.sql("SELECT count(*) FROM t"), "1");
}
