//! A logged-in client that breaks the protocol, or uses what it seldom does: rows B03 to B11.

use crate::support::{
    Opening, Pooler, Rig, ScriptedServer, ServerWire, Wire, bind, close, copy_data, copy_done,
    copy_fail, describe, describe_portal, execute, flush, function_call, lying, message, parse,
    query, sync,
};

/// Ends each batch with a Sync and shows that the session still works.
fn assert_usable(wire: &mut Wire) {
    wire.send(&[query("SELECT 'still here'")]);
    wire.expect("T D(still here) C(SELECT 1) Z(I)");
}

#[test]
fn b03_b04_what_is_no_message_ends_the_session() {
    let rig = Rig::new();
    for (what, bytes) in [
        ("type 0", message(0, b"")),
        ("type ?", message(b'?', b"abc")),
        ("type 255", message(255, &[0; 100])),
        ("a password", message(b'p', b"x\0")),
        ("a startup packet", vec![0, 0, 0, 8, 0, 3, 0, 0]),
        ("length 0", lying(b'Q', 0, b"")),
        ("length 1", lying(b'Q', 1, b"")),
        ("length 3", lying(b'P', 3, b"")),
        ("length -1", lying(b'Q', -1, b"")),
        ("a negative length", lying(b'd', i32::MIN, b"")),
        ("2 GB", lying(b'Q', i32::MAX, b"")),
        ("a Sync of 1 MB", lying(b'S', 1 << 20, b"")),
    ] {
        for in_transaction in [false, true] {
            let mut wire = rig.login();
            if in_transaction {
                wire.send(&[query("BEGIN")]);
                wire.expect("C(BEGIN) Z(T)");
            }
            wire.send_bytes(&bytes);
            let got = wire.recv_to_end();
            assert_eq!(got.len(), 1, "{what}: {got:?}");
            assert!(got[0].is("E(08P01)"), "{what}: {got:?}");
            assert_eq!(got[0].field(b'V'), "FATAL", "{what}");
        }
    }
    rig.assert_sound();
}

/// The answers before the offence are the client's still.
#[test]
fn b03_what_was_asked_before_the_offence_is_answered() {
    let rig = Rig::new();
    let mut wire = rig.login();
    wire.send(&[query("SELECT 1")]);
    wire.expect("T D(1) C(SELECT 1) Z(I)");
    wire.send(&[sync(), message(b'?', b"")]);
    wire.expect("Z(I) E(08P01) .");
    rig.assert_sound();
}

/// A body that the server cannot read is the server's to complain about: 08P01 up to Sync, and the session stays. What
/// PostgreSQL itself makes of the same bytes is the measure.
#[test]
fn b06_malformed_bodies_get_the_servers_own_error() {
    let rig = Rig::new();
    let bodies: [(u8, &[&[u8]]); 6] = [
        (
            b'P',
            &[
                b"",
                b"a",
                b"a\0",
                b"a\0SELECT 1",
                b"a\0SELECT 1\0",
                b"a\0SELECT 1\0\0",
                b"a\0SELECT 1\0\0\x02\0\0\0\x17",
                b"a\0SELECT 1\0\0\0junk",
            ],
        ),
        (
            b'B',
            &[
                b"",
                b"p",
                b"p\0",
                b"p\0s",
                b"\0\0",
                b"\0\0\0",
                b"\0\0\0\0\0\x01\0\0\0\x09ab",
                b"\0\0\xff\xff",
            ],
        ),
        (b'D', &[b"", b"S", b"Sx", b"X\0", b"Sx\0junk"]),
        (b'E', &[b"", b"p", b"p\0", b"p\0\0\0"]),
        (b'C', &[b"", b"S", b"Sx", b"X\0", b"Sx\0junk"]),
        (b'H', &[b"junk"]),
    ];
    let mut pooled = rig.login();
    let mut direct = rig.direct();
    for (tag, bodies) in bodies {
        for body in bodies {
            // A Bind of the unnamed statement needs one.
            let batch = [parse("", "SELECT 1"), message(tag, body), sync()];
            let say = |wire: &mut Wire| {
                wire.send(&batch);
                let got = wire.recv_to_ready();
                got.iter().map(|m| format!("{m:?}")).collect::<Vec<_>>()
            };
            let (ours, theirs) = (say(&mut pooled), say(&mut direct));
            assert_eq!(ours, theirs, "{:?} {body:?}", char::from(tag));
        }
    }
    for body in [
        &b""[..],
        b"\0\0",
        b"\0\0\x05\x25",
        b"\0\0\x05\x25\0\0\0\x01\0\0\0\x09a",
    ] {
        pooled.send(&[message(b'F', body)]);
        let got = pooled.recv_to_ready();
        assert!(got[0].is("E(08P01)") && got.len() == 2, "{body:?}: {got:?}");
    }
    assert_usable(&mut pooled);
    rig.assert_sound();
}

#[test]
fn b07_t28_an_unknown_statement_is_26000_until_sync() {
    let rig = Rig::new();
    let mut wire = rig.login();
    for request in [
        bind("", "nobody", &[]),
        describe("nobody"),
        bind("", "_p1", &[]),
        describe("_p1"),
    ] {
        wire.send(&[request, execute(""), query("SELECT 'skipped'"), sync()]);
        let error = wire.expect("E(26000) Z(I)").remove(0);
        assert!(
            error.text().contains("nobody") || error.text().contains("_p1"),
            "{error:?}"
        );
    }
    wire.send(&[bind("", "", &[]), sync()]);
    wire.expect("E(26000) Z(I)");
    wire.send(&[describe_portal("nobody"), sync()]);
    wire.expect("E(34000) Z(I)");
    wire.send(&[execute("nobody"), sync()]);
    wire.expect("E(34000) Z(I)");
    wire.send(&[close("nobody"), sync()]);
    wire.expect("3 Z(I)");
    assert_usable(&mut wire);
    rig.assert_sound();
}

#[test]
fn b08_t04_copy_messages_outside_of_copy_are_ignored() {
    let rig = Rig::new();
    let strays = [
        copy_data(b"1\n"),
        copy_done(),
        copy_fail("no"),
        copy_data(&[b'x'; 100_000]),
    ];
    let mut wire = rig.login();
    for stray in &strays {
        wire.send(&[stray.clone(), query("SELECT 1"), stray.clone()]);
        wire.expect("T D(1) C(SELECT 1) Z(I)");
        wire.send(&[
            query("BEGIN"),
            stray.clone(),
            query("COMMIT"),
            stray.clone(),
        ]);
        wire.expect("C(BEGIN) Z(T) C(COMMIT) Z(I)");
        wire.send(&[
            parse("", "SELECT 2"),
            stray.clone(),
            bind("", "", &[]),
            stray.clone(),
            execute(""),
            stray.clone(),
            sync(),
            stray.clone(),
        ]);
        wire.expect("1 2 D(2) C(SELECT 1) Z(I)");
        wire.send(&[query("BEGIN"), stray.clone()]);
        wire.expect("C(BEGIN) Z(T)");
        wire.send(&[stray.clone(), stray.clone()]);
        wire.send(&[query("ROLLBACK")]);
        wire.expect("C(ROLLBACK) Z(I)");
    }
    assert_usable(&mut wire);
    rig.assert_sound();
}

#[test]
fn b09_t09_answers_come_at_flush_and_the_server_stays_to_sync() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut wire = rig.login();
    wire.send(&[parse("s", "SELECT $1::int"), describe("s"), flush()]);
    wire.expect("1 t T");
    wire.send(&[bind("", "s", &["7"]), flush()]);
    wire.expect("2");
    wire.send(&[execute(""), flush()]);
    wire.expect("D(7) C(SELECT 1)");
    // Nobody else has got the only server meanwhile.
    let mut other = rig.login();
    other.send(&[query("SELECT 'other'")]);
    other.expect_silence(std::time::Duration::from_millis(300));
    wire.send(&[sync()]);
    wire.expect("Z(I)");
    other.expect("T D(other) C(SELECT 1) Z(I)");
    // What the server holds already is confirmed at Flush, too.
    wire.send(&[close("s"), parse("s", "SELECT $1::int"), flush()]);
    wire.expect("3 1");
    wire.send(&[sync()]);
    wire.expect("Z(I)");
    // Flush with nothing before it.
    wire.send(&[flush(), flush(), query("SELECT 1"), flush()]);
    wire.expect("T D(1) C(SELECT 1) Z(I)");
    rig.assert_sound();
}

#[test]
fn b10_t01_five_thousand_syncs() {
    let rig = Rig::new();
    let mut wire = rig.login();
    wire.send_bytes(&sync().repeat(5_000));
    wire.expect("Z(I)*5000");
    wire.send(&[query("BEGIN"), sync().repeat(5_000), query("COMMIT")]);
    wire.expect("C(BEGIN) Z(T) Z(T)*5000 C(COMMIT) Z(I)");
    let one = [
        parse("", "SELECT 1"),
        bind("", "", &[]),
        execute(""),
        sync(),
    ]
    .concat();
    wire.send_bytes(&one.repeat(2_000));
    for _ in 0..2_000 {
        wire.expect("1 2 D(1) C(SELECT 1) Z(I)");
    }
    rig.assert_sound();
}

#[test]
fn b11_t03_after_an_error_the_rest_of_the_batch_is_skipped() {
    let rig = Rig::new();
    rig.sql("CREATE TABLE t (a int)");
    let mut wire = rig.login();
    wire.send(&[
        parse("", "SELECT 1/0"),
        bind("", "", &[]),
        execute(""),
        parse("skipped", "INSERT INTO t VALUES (1)"),
        bind("", "skipped", &[]),
        execute(""),
        query("INSERT INTO t VALUES (2)"),
        function_call(1317, "abc"),
        flush(),
        close("skipped"),
        sync(),
        parse("", "SELECT 2"),
        bind("", "", &[]),
        execute(""),
        sync(),
    ]);
    wire.expect("1 E(22012) Z(I) 1 2 D(2) C(SELECT 1) Z(I)");
    wire.send(&[bind("", "skipped", &[]), sync()]);
    wire.expect("E(26000) Z(I)");
    // The error comes while the client is still sending the batch.
    wire.send(&[parse("", "SELEC"), flush()]);
    wire.expect("E(42601)");
    wire.send(&[
        parse("late", "SELECT 1"),
        query("INSERT INTO t VALUES (3)"),
        copy_data(b"x"),
    ]);
    wire.send(&[sync()]);
    wire.expect("Z(I)");
    wire.send(&[bind("", "late", &[]), sync()]);
    wire.expect("E(26000) Z(I)");
    assert_eq!(rig.sql("SELECT count(*) FROM t"), "0");
    rig.assert_sound();
}

#[test]
fn t09_a_simple_query_in_the_middle_of_a_batch() {
    let rig = Rig::new();
    let mut pooled = rig.login();
    let mut direct = rig.direct();
    // As PostgreSQL has it: the unnamed portal and statement die at the Query.
    for batch in [
        vec![
            parse("", "SELECT 1"),
            bind("", "", &[]),
            query("SELECT 2"),
            execute(""),
            sync(),
        ],
        vec![
            parse("", "SELECT 1"),
            query("SELECT 2"),
            bind("", "", &[]),
            execute(""),
            sync(),
        ],
        vec![
            parse("a", "SELECT 1"),
            query("SELECT 2"),
            bind("", "a", &[]),
            execute(""),
            sync(),
        ],
        vec![
            parse("b", "SELECT 1/0"),
            bind("", "b", &[]),
            execute(""),
            query("SELECT 2"),
            sync(),
        ],
        vec![
            query("SELECT 1; SELECT 2"),
            bind("", "a", &[]),
            execute(""),
            query(""),
            sync(),
        ],
        vec![
            bind("", "a", &[]),
            query("SELEC"),
            execute(""),
            sync(),
            query("SELECT 3"),
        ],
        vec![
            query("BEGIN"),
            bind("c", "a", &[]),
            query("SELECT 2"),
            execute("c"),
            sync(),
            query("COMMIT"),
            sync(),
        ],
    ] {
        let end = [batch, vec![query("SELECT 'end'")]].concat();
        let say = |wire: &mut Wire| {
            wire.send(&end);
            let mut got = Vec::new();
            while !got.iter().any(|m| m == "D(end)") {
                got.push(format!("{:?}", wire.recv()));
            }
            wire.expect("C(SELECT 1) Z(I)");
            got
        };
        assert_eq!(say(&mut pooled), say(&mut direct));
    }
    rig.assert_sound();
}

/// Several drivers parse and describe in one batch, and bind in the next.
#[test]
fn t09_the_unnamed_statement_lasts_over_two_syncs() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut a = rig.login();
    let mut b = rig.login();
    for n in 0..3 {
        a.send(&[parse("", &format!("SELECT 'a{n}'")), describe(""), sync()]);
        a.expect("1 t T Z(I)");
        b.send(&[parse("", &format!("SELECT 'b{n}'")), describe(""), sync()]);
        b.expect("1 t T Z(I)");
        a.send(&[bind("", "", &[]), execute(""), sync()]);
        a.expect(&format!("2 D(a{n}) C(SELECT 1) Z(I)"));
        b.send(&[bind("", "", &[]), execute(""), sync()]);
        b.expect(&format!("2 D(b{n}) C(SELECT 1) Z(I)"));
    }
    // A simple query of one drops its own unnamed statement, not the other's.
    a.send(&[query("SELECT 1")]);
    a.expect("T D(1) C(SELECT 1) Z(I)");
    a.send(&[bind("", "", &[]), sync()]);
    a.expect("E(26000) Z(I)");
    b.send(&[bind("", "", &[]), execute(""), sync()]);
    b.expect("2 D(b2) C(SELECT 1) Z(I)");
    rig.assert_sound();
}

#[test]
fn t09_function_calls_are_forwarded() {
    let rig = Rig::new();
    let mut wire = rig.login();
    // length(text) is 1317.
    wire.send(&[function_call(1317, "abcd")]);
    let got = wire.expect("V Z(I)");
    assert_eq!(got[0].body, b"\0\0\0\x014");
    wire.send(&[
        function_call(1317, "ab"),
        query("SELECT 1"),
        function_call(0, "x"),
        sync(),
    ]);
    wire.expect("V Z(I) T D(1) C(SELECT 1) Z(I) E(42883) Z(I) Z(I)");
    wire.send(&[query("BEGIN"), function_call(1317, "ab"), query("COMMIT")]);
    wire.expect("C(BEGIN) Z(T) V Z(T) C(COMMIT) Z(I)");
    rig.assert_sound();
}

/// Every byte of what the client says in a segment of its own.
#[test]
fn s40_t05_every_byte_of_the_client_alone() {
    let rig = Rig::new();
    rig.sql("CREATE TABLE t (a int)");
    let batches = [
        vec![query("SELECT 1")],
        vec![
            parse("s", "SELECT $1::text"),
            bind("", "s", &["x"]),
            describe_portal(""),
            execute(""),
            sync(),
        ],
        vec![
            bind("p", "s", &["y"]),
            execute("p"),
            close("s"),
            sync(),
            query("SELECT 2"),
        ],
        vec![
            query("TRUNCATE t"),
            query("COPY t FROM STDIN"),
            copy_data(b"1\n2\n"),
            copy_data(b"3\n"),
            copy_done(),
        ],
        vec![
            query("COPY t TO STDOUT"),
            query("SELECT 1/0"),
            bind("", "none", &[]),
            execute(""),
            sync(),
        ],
        vec![function_call(1317, "abcd")],
    ];
    let mut pooled = rig.login();
    let mut direct = rig.direct();
    for batch in batches {
        let end = [batch, vec![query("SELECT 'end'")]].concat().concat();
        pooled.send_byte_by_byte(&end);
        let mut ours = Vec::new();
        while !ours.iter().any(|m| m == "D(end)") {
            ours.push(format!("{:?}", pooled.recv()));
        }
        pooled.expect("C(SELECT 1) Z(I)");
        direct.send_bytes(&end);
        let theirs: Vec<String> = ours
            .iter()
            .map(|_| format!("{:?}", direct.recv()))
            .collect();
        direct.expect("C(SELECT 1) Z(I)");
        assert_eq!(ours, theirs);
    }
    rig.assert_sound();
}

/// Every byte of what the server says in a segment of its own, the login included.
#[test]
fn s40_t05_every_byte_of_the_server_alone() {
    let server = ScriptedServer::start(|mut wire: ServerWire| {
        if wire.read_opening() == Opening::Closed {
            return;
        }
        wire.send_byte_by_byte(&ServerWire::login_reply(1));
        while let Some(asked) = wire.recv() {
            if asked.tag == b'Q' {
                wire.send_byte_by_byte(&message(b'N', b"SNOTICE\0C00000\0Mby the way\0\0"));
                wire.send_byte_by_byte(&ServerWire::row_reply("x"));
            }
        }
    });
    let pooler = Pooler::builder()
        .host(server.port())
        .set("pool_size = 1")
        .start();
    let mut wire = pooler.login("u", "d");
    for _ in 0..3 {
        wire.send(&[query("SELECT 1"), query("SELECT 2")]);
        wire.expect("N(00000) T D(x) C(SELECT 1) Z(I) N(00000) T D(x) C(SELECT 1) Z(I)");
    }
    assert_eq!(server.connections(), 1, "{:?}", server.received());
}
