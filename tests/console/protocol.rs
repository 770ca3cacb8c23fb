//! The console speaks both forms of the protocol, and nothing that a client sends harms it.

use crate::support::{
    bind, close, describe, describe_portal, execute, flush, lying, message, parse, query, sync,
};
use crate::{console, described, error, rig, table};

#[test]
fn commands_are_prepared_described_and_run() {
    let rig = rig();
    let mut console = console(&rig);
    console.send(&[parse("s", "SHOW VERSION"), describe("s"), flush()]);
    console.expect("1 t T");
    console.send(&[
        bind("p", "s", &[]),
        describe_portal("p"),
        execute("p"),
        sync(),
    ]);
    let got = console.recv_to_ready();
    assert_eq!(got.iter().map(|m| m.tag).collect::<Vec<_>>(), b"2TDCZ");
    // The unnamed ones, as most drivers use them.
    console.send(&[
        parse("", "SHOW STATE"),
        bind("", "", &[]),
        describe_portal(""),
        execute(""),
        sync(),
    ]);
    console.expect("1 2 T D(active|yes) D(paused|no) D(suspended|no) C(SHOW) Z(I)");
    console.send(&[
        parse("", "BEGIN"),
        describe(""),
        bind("", "", &[]),
        execute(""),
        sync(),
    ]);
    console.expect("1 t n 2 C(BEGIN) Z(I)");
    console.send(&[parse("", ""), bind("", "", &[]), execute(""), sync()]);
    console.expect("1 2 I Z(I)");
    console.send(&[close("s"), sync(), bind("", "s", &[]), sync()]);
    console.expect("3 Z(I) E(26000) Z(I)");
}

/// Drivers with a binary format of their own, such as asyncpg, ask for it in all columns.
#[test]
fn results_come_in_binary_if_asked_for() {
    let rig = rig();
    let mut console = console(&rig);
    let all_binary = b"\0\0\0\0\0\0\0\x01\0\x01";
    console.send(&[
        parse("", "SHOW LISTS"),
        message(b'B', all_binary),
        describe_portal(""),
        execute(""),
        sync(),
    ]);
    let got = console.recv_to_ready();
    let heads = &got.iter().find(|m| m.tag == b'T').unwrap().body;
    assert_eq!(described(heads)[1], ("items".to_owned(), 23));
    assert_eq!(&heads[heads.len() - 2..], [0, 1], "the format");
    let row = &got.iter().find(|m| m.tag == b'D').unwrap().body;
    assert_eq!(
        row[row.len() - 8..],
        [0, 0, 0, 4, 0, 0, 0, 1],
        "one database"
    );
}

#[test]
fn an_error_drops_the_batch_up_to_its_sync() {
    let rig = rig();
    let mut console = console(&rig);
    console.send(&[
        parse("", "SHOW NOTHING"),
        bind("", "", &[]),
        execute(""),
        parse("", "SHOW STATE"),
        sync(),
        query("SHOW VERSION"),
    ]);
    console.expect("E(42601) Z(I)");
    console.recv_to_ready();
    for (batch, sqlstate) in [
        (vec![bind("", "nobody", &[])], "26000"),
        (vec![execute("nobody")], "34000"),
        (vec![parse("", "SHOW STATE"), bind("", "", &["a"])], "08P01"),
        (vec![message(b'B', b"x")], "08P01"),
        (vec![message(b'P', b"x")], "08P01"),
        (vec![message(b'D', b"")], "08P01"),
        (
            vec![parse("a", "SHOW STATE"), parse("a", "SHOW STATE")],
            "42P05",
        ),
        (vec![parse("", "SHOW \u{0}")], "08P01"),
    ] {
        console.send(&batch);
        console.send(&[sync()]);
        let got = console.recv_to_ready();
        let codes: Vec<_> = got
            .iter()
            .filter(|m| m.tag == b'E')
            .map(|m| m.sqlstate())
            .collect();
        assert_eq!(codes, [sqlstate], "{got:?}");
    }
    console.send(&[message(b'Q', b"SHOW \xff\0")]);
    console.expect("E(22021) Z(I)");
    assert_eq!(table(&mut console, "SHOW VERSION").len(), 1);
}

#[test]
fn what_breaks_the_protocol_ends_the_session_and_nothing_else() {
    let rig = rig();
    for bytes in [
        message(b'F', b"\0\0"),
        message(b'?', b""),
        lying(b'Q', 1 << 20, b"SHOW"),
        lying(b'Q', -5, b"SHOW"),
        vec![0xff; 5],
    ] {
        let mut console = console(&rig);
        console.send_bytes(&bytes);
        let got = console.recv_to_end();
        assert_eq!(
            got.last().unwrap().sqlstate(),
            "08P01",
            "{bytes:?}: {got:?}"
        );
    }
    let mut slow = console(&rig);
    slow.send_byte_by_byte(&query("SHOW VERSION"));
    slow.recv_to_ready();
}

#[test]
fn statements_and_sessions_are_bounded() {
    let rig = rig();
    let mut console = console(&rig);
    let mut refused = false;
    for n in 0..300 {
        console.send(&[parse(&format!("s{n}"), "SHOW STATE"), sync()]);
        refused |= console
            .recv_to_ready()
            .iter()
            .any(|m| m.tag == b'E' && m.sqlstate() == "53400");
    }
    assert!(refused);
    let mut others = Vec::new();
    let refusal = (0..200).find_map(|_| {
        let parameters = [("user", "ops"), ("database", "pooler")];
        match crate::support::Wire::try_login(rig.pooler.port(), &parameters, "") {
            Ok(wire) => {
                others.push(wire);
                None
            }
            Err(refusal) => Some(refusal.sqlstate()),
        }
    });
    assert_eq!(refusal.as_deref(), Some("53300"));
    drop(others);
    assert_eq!(error(&mut console, "NOTHING"), "42601");
}
