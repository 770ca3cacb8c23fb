//! COPY in all its shapes: trap 4 and rows B18, B19, B22.

use crate::support::{
    Rig, Wire, bind, close, copy_data, copy_done, copy_fail, execute, flush, parse, query, sync,
};

const IN: &str = "COPY t FROM STDIN";

fn rig() -> Rig {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    rig.sql("CREATE TABLE t (a int)");
    rig
}

fn rows(rig: &Rig) -> String {
    rig.sql("SELECT coalesce(string_agg(a::text, ',' ORDER BY a), '') FROM t")
}

fn assert_usable(wire: &mut Wire) {
    wire.send(&[query("SELECT 'still here'")]);
    wire.expect("T D(still here) C(SELECT 1) Z(I)");
}

#[test]
fn t04_copy_in_by_a_simple_query() {
    let rig = rig();
    let mut wire = rig.login();
    wire.send(&[query(IN)]);
    wire.expect("G");
    wire.send(&[
        copy_data(b"1\n"),
        copy_data(b"2"),
        copy_data(b"\n"),
        copy_done(),
    ]);
    wire.expect("C(COPY 2) Z(I)");
    // All at once, with more behind it.
    wire.send(&[query(IN), copy_data(b"3\n"), copy_done(), query("SELECT 1")]);
    wire.expect("G C(COPY 1) Z(I) T D(1) C(SELECT 1) Z(I)");
    // Sync and Flush in the middle get no answer.
    wire.send(&[query(IN)]);
    wire.expect("G");
    wire.send(&[
        copy_data(b"4\n"),
        sync(),
        flush(),
        copy_data(b"5\n"),
        sync(),
        copy_done(),
    ]);
    wire.expect("C(COPY 2) Z(I)");
    wire.send(&[query(IN)]);
    wire.expect("G");
    wire.send(&[copy_data(b"6\n"), copy_fail("changed my mind")]);
    wire.expect("E(57014) Z(I)");
    // Two in one Query.
    wire.send(&[query("COPY t FROM STDIN; COPY t FROM STDIN")]);
    wire.expect("G");
    wire.send(&[copy_data(b"7\n"), copy_done()]);
    wire.expect("C(COPY 1) G");
    wire.send(&[copy_data(b"8\n"), copy_done()]);
    wire.expect("C(COPY 1) Z(I)");
    assert_usable(&mut wire);
    assert_eq!(rows(&rig), "1,2,3,4,5,7,8");
    rig.assert_sound();
}

#[test]
fn t04_copy_in_by_the_extended_protocol() {
    let rig = rig();
    let mut wire = rig.login();
    let begin = [parse("", IN), bind("", "", &[]), execute("")].concat();
    // libpq sends Sync before the data; the server swallows it, and the one behind CopyDone counts.
    wire.send(&[begin.clone(), sync()]);
    wire.expect("1 2 G");
    wire.send(&[copy_data(b"1\n"), copy_done(), sync()]);
    wire.expect("C(COPY 1) Z(I)");
    // With Flush instead, and all at once.
    wire.send(&[begin.clone(), flush()]);
    wire.expect("1 2 G");
    wire.send(&[copy_data(b"2\n"), copy_done(), sync()]);
    wire.expect("C(COPY 1) Z(I)");
    wire.send(&[
        begin.clone(),
        copy_data(b"3\n"),
        copy_done(),
        sync(),
        query("SELECT 1"),
    ]);
    wire.expect("1 2 G C(COPY 1) Z(I) T D(1) C(SELECT 1) Z(I)");
    wire.send(&[begin, sync()]);
    wire.expect("1 2 G");
    wire.send(&[copy_data(b"4\n"), copy_fail("no"), sync()]);
    wire.expect("E(57014) Z(I)");
    assert_usable(&mut wire);
    assert_eq!(rows(&rig), "1,2,3");
    rig.assert_sound();
}

#[test]
fn b22_t04_copy_in_fails_while_data_is_still_sent() {
    let rig = rig();
    let mut wire = rig.login();
    // Simple: one error, one ReadyForQuery; what follows of the COPY is dropped.
    wire.send(&[query(IN)]);
    wire.expect("G");
    wire.send(&[copy_data(b"no number\n"), copy_data(b"1\n")]);
    let mut rest = Vec::new();
    for _ in 0..200 {
        rest.extend(copy_data(&b"12345\n".repeat(1_000)));
    }
    rest.extend(copy_done());
    wire.send(&[rest.clone()]);
    wire.expect("E(22P02) Z(I)");
    assert_usable(&mut wire);
    // Extended: one ReadyForQuery for each Sync.
    for syncs in [1, 3] {
        wire.send(&[parse("", IN), bind("", "", &[]), execute(""), flush()]);
        wire.expect("1 2 G");
        wire.send(&[
            copy_data(b"no number\n"),
            rest.clone(),
            sync().repeat(syncs),
        ]);
        wire.expect(&format!("E(22P02) Z(I)*{syncs}"));
        assert_usable(&mut wire);
    }
    // A server that takes the next client on stands where that client thinks it does.
    let mut other = rig.login();
    assert_usable(&mut other);
    assert_eq!(rows(&rig), "");
    rig.assert_sound();
}

/// libpq's shape: the Sync in front of the data is swallowed if the server reads it before the data fails, and answered if it
/// does not. The client must in any case find itself aligned in the end.
/// The error, and all that was owed, come while one CopyData is half way through: its server is not free before the rest is.
#[test]
fn b22_t04_copy_in_fails_in_the_middle_of_a_message() {
    let rig = rig();
    let mut other = rig.login();
    for _ in 0..3 {
        let mut wire = rig.login();
        wire.send(&[query(IN)]);
        wire.expect("G");
        let long = copy_data(&[b'x'; 500_000]);
        wire.send(&[copy_data(b"no number\n"), long[..300_000].to_vec()]);
        wire.expect("E(22P02) Z(I)");
        other.send(&[query("SELECT 'other'")]);
        other.expect_silence(std::time::Duration::from_millis(100));
        wire.send(&[long[300_000..].to_vec(), copy_done()]);
        other.expect("T D(other) C(SELECT 1) Z(I)");
        assert_usable(&mut wire);
        // Who never sends the rest holds the server no longer than he lives.
        wire.send(&[query(IN)]);
        wire.expect("G");
        wire.send(&[copy_data(b"no number\n"), long[..300_000].to_vec()]);
        wire.expect("E(22P02) Z(I)");
        drop(wire);
        assert_usable(&mut other);
    }
    rig.assert_sound();
}

#[test]
fn b22_t04_copy_in_fails_behind_a_sync_before_the_data() {
    let rig = rig();
    for pause in [false, true] {
        let mut wire = rig.login();
        wire.send(&[parse("", IN), bind("", "", &[]), execute(""), sync()]);
        if pause {
            wire.expect("1 2 G");
        }
        wire.send(&[
            copy_data(b"no number\n"),
            copy_data(b"1\n"),
            copy_done(),
            sync(),
        ]);
        if !pause {
            wire.expect("1 2 G");
        }
        wire.expect("E(22P02) Z(I)");
        assert_usable(&mut wire);
        wire.leave();
        rig.assert_sound();
    }
    // A refused COPY is not one: the data are dropped, both Syncs answered.
    let mut wire = rig.login();
    wire.send(&[
        parse("", "COPY nothing FROM STDIN"),
        bind("", "", &[]),
        execute(""),
        sync(),
    ]);
    wire.send(&[copy_data(b"1\n"), copy_done(), sync()]);
    let got = wire.recv_to_ready();
    assert!(got.iter().any(|m| m.is("E(42P01)")), "{got:?}");
    wire.expect("Z(I)");
    assert_usable(&mut wire);
    rig.assert_sound();
}

#[test]
fn t04_a_message_that_does_not_belong_into_copy_ends_it() {
    let rig = rig();
    let mut wire = rig.login();
    wire.send(&[query(IN)]);
    wire.expect("G");
    wire.send(&[copy_data(b"1\n"), query("SELECT 1")]);
    // PostgreSQL has read that Query as a part of the COPY, and cannot know where the next message begins.
    wire.expect("E(08P01) E(08P01) .");
    assert_eq!(rows(&rig), "");
    rig.assert_sound();
}

#[test]
fn t04_copy_out() {
    let rig = rig();
    rig.sql("INSERT INTO t SELECT generate_series(1, 3)");
    let mut wire = rig.login();
    wire.send(&[query("COPY t TO STDOUT")]);
    wire.expect("H d(1\n) d(2\n) d(3\n) c C(COPY 3) Z(I)");
    wire.send(&[
        parse("", "COPY t TO STDOUT"),
        bind("", "", &[]),
        execute(""),
        sync(),
        query("SELECT 1"),
    ]);
    wire.expect("1 2 H d*3 c C(COPY 3) Z(I) T D(1) C(SELECT 1) Z(I)");
    wire.send(&[query("COPY (SELECT 1/(3-a) FROM t) TO STDOUT")]);
    wire.expect("H d*2 E(22012) Z(I)");
    wire.send(&[query("COPY t TO STDOUT; SELECT 1; COPY t TO STDOUT")]);
    wire.expect("H d*3 c C(COPY 3) T D(1) C(SELECT 1) H d*3 c C(COPY 3) Z(I)");
    assert_usable(&mut wire);
    rig.assert_sound();
}

#[test]
fn t04_a_transaction_goes_on_behind_copy() {
    let rig = rig();
    let mut wire = rig.login();
    wire.send(&[
        query("BEGIN"),
        query(IN),
        copy_data(b"1\n"),
        copy_done(),
        query("COMMIT"),
    ]);
    wire.expect("C(BEGIN) Z(T) G C(COPY 1) Z(T) C(COMMIT) Z(I)");
    wire.send(&[query("BEGIN"), query(IN), copy_data(b"x\n"), copy_done()]);
    wire.expect("C(BEGIN) Z(T) G E(22P02) Z(E)");
    wire.send(&[query("COMMIT")]);
    wire.expect("C(ROLLBACK) Z(I)");
    assert_eq!(rows(&rig), "1");
    rig.assert_sound();
}

#[test]
fn b18_b19_a_client_dies_in_the_middle_of_a_copy() {
    let rig = rig();
    rig.sql("CREATE TABLE big AS SELECT n, repeat('x', 1000) FROM generate_series(1, 20000) n");
    type End = fn(Wire);
    let ends: [(&str, End); 4] = [
        ("reset", Wire::reset),
        ("closed", drop),
        ("half closed", |wire| wire.shut_down_writing()),
        ("terminated", |mut wire| {
            wire.send(&[crate::support::terminate()])
        }),
    ];
    for (how, end) in ends {
        let mut wire = rig.login();
        wire.send(&[query(IN)]);
        wire.expect("G");
        wire.send(&[copy_data(b"1\n"), copy_data(b"2\n")]);
        end(wire);
        rig.assert_sound();
        assert_eq!(rows(&rig), "", "{how}");

        let mut wire = rig.login();
        wire.send(&[parse("", IN), bind("", "", &[]), execute(""), sync()]);
        wire.expect("1 2 G");
        wire.send(&[copy_data(b"1\n")]);
        // Half a message more.
        wire.send_bytes(&copy_data(b"2222\n")[..7]);
        end(wire);
        rig.assert_sound();
        assert_eq!(rows(&rig), "", "{how}");

        for sql in ["COPY big TO STDOUT", "SELECT * FROM big"] {
            let mut wire = rig.login();
            wire.shrink_receive_buffer();
            wire.send(&[query(sql)]);
            let first = wire.recv().tag;
            assert!(matches!(first, b'H' | b'T'));
            end(wire);
            rig.assert_sound();
        }
    }
}

/// As tokio-postgres does it: the Sync of the Execute is in front of the data, and a Close of the statement behind the
/// end of them. Whether the server swallowed that Sync is not known when the COPY fails, so the pooler cannot put its own
/// answer to the Close in its place.
#[test]
fn t02_t04_a_statement_is_closed_or_prepared_behind_a_copy_that_fails() {
    for mode in ["transaction", "session"] {
        let rig = Rig::with(|b| {
            b.set("pool_size = 1")
                .set(&format!("pool_mode = \"{mode}\""))
        });
        rig.sql("CREATE TABLE t (i int)");
        let mut wire = rig.login();
        let copy = "COPY t FROM STDIN";
        for turn in 0..6 {
            let data = if turn % 2 == 0 {
                "7\n"
            } else {
                "not a number\n"
            };
            let name = format!("s{turn}");
            wire.send(&[parse(&name, copy), sync()]);
            wire.expect("1 Z(I)");
            wire.send(&[bind("", &name, &[]), execute(""), sync()]);
            wire.expect("2 G");
            wire.send(&[
                copy_data(data.as_bytes()),
                copy_done(),
                sync(),
                close(&name),
                sync(),
                parse("", "SELECT 1"),
                bind("", "", &[]),
                execute(""),
                close(&name),
                sync(),
            ]);
            if turn % 2 == 0 {
                wire.expect("C(COPY 1) Z(I) 3 Z(I) 1 2 D(1) C(SELECT 1) 3 Z(I)");
            } else {
                wire.expect("E(22P02)");
                // One more ReadyForQuery, if the server did not swallow it.
                let rest = [
                    wire.recv_to_ready(),
                    wire.recv_to_ready(),
                    wire.recv_to_ready(),
                ];
                let tags: Vec<u8> = rest.iter().flatten().map(|m| m.tag).collect();
                if tags == *b"ZZ3Z" {
                    wire.expect("1 2 D(1) C(SELECT 1) 3 Z(I)");
                } else {
                    assert_eq!(tags, b"Z3Z12DC3Z", "{rest:?}");
                }
            }
        }
        wire.leave();
        rig.assert_sound();
    }
}
