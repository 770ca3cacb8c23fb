//! Servers that break the protocol, the connection or the flow of a result.

use std::io::Read;
use std::time::Duration;

use crate::faulty::{Faulty, each, said};
use crate::support::{
    ServerWire, Wire, bind, execute, lying, message, parse, query, sync, wait_until,
};

/// The beginning of a result: its description and one row.
fn beginning() -> Vec<u8> {
    let whole = ServerWire::row_reply("part");
    let end = message(b'C', b"SELECT 1\0").len() + message(b'Z', b"I").len();
    whole[..whole.len() - end].to_vec()
}

fn done() -> Vec<u8> {
    message(b'C', b"SELECT 1\0")
}

/// The client gets what was right, an error, and the end; never CommandComplete of a result that had none.
fn ends_with_an_error(client: &mut Wire, name: &str, complete: bool) {
    let got = client.recv_to_end();
    let error = got
        .last()
        .unwrap_or_else(|| panic!("{name}: closed without an error"));
    assert_eq!(error.sqlstate(), "08006", "{name}: {got:?}");
    assert_eq!(
        got.iter().any(|m| m.tag == b'C'),
        complete,
        "{name}: {got:?}"
    );
    assert!(!got.iter().any(|m| m.tag == b'Z'), "{name}: {got:?}");
}

#[test]
fn s26_to_s29_a_result_that_breaks_the_protocol() {
    type Case = (&'static str, bool, fn() -> Vec<u8>);
    let cases: [Case; 13] = [
        ("s26 unknown type", false, || message(b'?', b"what")),
        ("s26 a frontend's type", false, || {
            message(b'Q', b"SELECT 1\0")
        }),
        ("s26 a second login", false, || message(b'R', &[0; 4])),
        ("s26 a new cancel key", false, || message(b'K', &[0; 8])),
        ("s27 length 0", false, || lying(b'D', 0, b"")),
        ("s27 length 3", false, || lying(b'D', 3, b"")),
        ("s27 a negative length", false, || lying(b'C', -5, b"")),
        ("s27 2 GB in CommandComplete", false, || {
            lying(b'C', i32::MAX, b"SELECT")
        }),
        ("s28 unknown status", true, || {
            [done(), message(b'Z', b"X")].concat()
        }),
        ("s29 status missing", true, || {
            [done(), message(b'Z', b"")].concat()
        }),
        ("s29 status too long", true, || {
            [done(), message(b'Z', b"II")].concat()
        }),
        ("s29 ready for nobody", true, || [done(), done()].concat()),
        ("s29 a batch's reply to a query", false, || {
            message(b'2', b"")
        }),
    ];
    each(&cases, |(name, complete, rest)| {
        let rest = *rest;
        let faulty = Faulty::at_query(move |mut wire| {
            wire.send(&[beginning(), rest()].concat());
            wire.stall(Duration::from_secs(3));
        });
        let mut client = faulty.login();
        client.send(&[query("SELECT 1")]);
        ends_with_an_error(&mut client, name, *complete);
        faulty.assert_sound();
    });
}

#[test]
fn s31_t56_an_error_without_sqlstate_is_passed_on() {
    let bodies: [&[u8]; 4] = [b"SERROR\0Moops\0\0", b"\0", b"", b"SERROR"];
    each(&bodies, |body| {
        let body: &'static [u8] = body;
        let faulty = Faulty::new(move |mut wire| {
            wire.accept_login();
            wire.recv_until(b'Q');
            wire.send(&[message(b'E', body), message(b'Z', b"I")].concat());
            wire.answer_queries("1");
        });
        let mut client = faulty.login();
        client.send(&[query("SELECT 1")]);
        let got = client.recv_to_ready();
        assert_eq!(got[0].body, body, "{got:?}");
        assert_eq!(client.one("SELECT 1"), "1", "the session goes on");
        faulty.assert_sound();
    });
}

#[test]
fn s32_ten_megabytes_of_notices_are_passed_on() {
    const NOTICES: usize = 160;
    let faulty = Faulty::new(|mut wire| {
        wire.accept_login();
        wire.recv_until(b'Q');
        let text = [&b"SNOTICE\0C00000\0M"[..], &[b'n'; 65_000], b"\0\0"].concat();
        for _ in 0..NOTICES {
            wire.send(&message(b'N', &text));
        }
        wire.send(&ServerWire::row_reply("1"));
        wire.answer_queries("1");
    });
    let mut client = faulty.login();
    let before = faulty.pooler.peak_rss_kb();
    client.send(&[query("SELECT 1")]);
    client.expect(&format!("N(00000)*{NOTICES} T D(1) C(SELECT 1) Z(I)"));
    let grown = faulty.pooler.peak_rss_kb().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} kB");
    assert_eq!(client.one("SELECT 1"), "1");
    faulty.assert_sound();
}

/// A second result behind the end of the first, in the same segment, later, while the server idles, and half of one.
#[test]
fn s33_s34_rows_that_nobody_asked_for_reach_nobody() {
    type Case = (&'static str, u64, fn() -> Vec<u8>);
    let cases: [Case; 6] = [
        ("s33 in the same segment", 0, || {
            ServerWire::row_reply("foreign")
        }),
        ("s33 half of it", 0, beginning),
        ("s33 one byte", 0, || vec![b'T']),
        ("s34 a little later", 20, || {
            ServerWire::row_reply("foreign")
        }),
        ("s34 while idle", 300, || ServerWire::row_reply("foreign")),
        ("s34 ready once more", 300, || message(b'Z', b"I")),
    ];
    each(&cases, |&(name, pause_ms, extra)| {
        let faulty = Faulty::new(move |mut wire| {
            wire.accept_login();
            wire.recv_until(b'Q');
            let reply = ServerWire::row_reply("1");
            if pause_ms == 0 {
                wire.send(&[reply, extra()].concat());
            } else {
                wire.send(&reply);
                std::thread::sleep(Duration::from_millis(pause_ms));
                wire.send(&extra());
            }
            wire.answer_queries("from the liar");
        });
        let mut client = faulty.login();
        client.send(&[query("SELECT 1")]);
        client.expect("T D(1) C(SELECT 1) Z(I)");
        faulty.heal();
        faulty.server.wait_received("0 closed");
        // The session either goes on with a good server or has been told why not.
        match said(&mut client) {
            Some(error) => assert_eq!(error.sqlstate(), "08006", "{name}"),
            None => assert_eq!(client.one("SELECT 2"), "1", "{name}"),
        }
        faulty.assert_sound();
    });
}

/// A server that says goodbye while nobody uses it is replaced, and nobody hears of it.
#[test]
fn s35_a_fatal_error_on_an_idle_server_is_nobodys() {
    let faulty = Faulty::new(|mut wire| {
        wire.accept_login();
        wire.recv_until(b'Q');
        wire.send(&ServerWire::row_reply("1"));
        wire.send(&ServerWire::error(
            "FATAL",
            "57P01",
            "terminating connection",
        ));
    });
    let mut client = faulty.login();
    client.send(&[query("SELECT 1")]);
    client.expect("T D(1) C(SELECT 1) Z(I)");
    faulty.heal();
    client.expect_silence(Duration::from_millis(500));
    assert_eq!(client.one("SELECT 1"), "1", "with another server");
    faulty.assert_sound();
}

#[test]
fn s36_s37_s38_a_connection_that_breaks_in_a_result() {
    type Case = (&'static str, fn(ServerWire));
    let cases: [Case; 7] = [
        ("s36 reset in a row", |mut w| {
            w.send(&beginning()[..40]);
            w.reset();
        }),
        ("s36 reset after a row", |mut w| {
            w.send(&beginning());
            w.reset();
        }),
        ("s37 end in a row", |mut w| w.send(&beginning()[..40])),
        ("s37 end in a header", |mut w| {
            w.send(&[beginning(), vec![b'C', 0]].concat())
        }),
        ("s37 end after a row", |mut w| w.send(&beginning())),
        ("s38 reset before the first byte", ServerWire::reset),
        ("s38 end before the first byte", ServerWire::close),
    ];
    each(&cases, |&(name, fault)| {
        let faulty = Faulty::at_query(fault);
        let mut client = faulty.login();
        client.send(&[query("SELECT 1")]);
        if name.contains("in a row") {
            // An error behind half a row would be read as the rest of it: the end itself says it.
            let mut bytes = Vec::new();
            // A reset is an end as well.
            drop(client.writer().read_to_end(&mut bytes));
            assert!(beginning().starts_with(&bytes), "{name}: {bytes:?}");
        } else {
            ends_with_an_error(&mut client, name, false);
        }
        faulty.assert_sound();
    });
}

/// What the server said last is what the client hears: no second error behind it.
#[test]
fn s38_a_servers_own_goodbye_is_passed_on() {
    let faulty = Faulty::at_query(|mut wire| {
        wire.send(&ServerWire::error(
            "FATAL",
            "57P01",
            "terminating connection",
        ));
    });
    let mut client = faulty.login();
    client.send(&[query("SELECT 1")]);
    client.expect("E(57P01) .");
    faulty.assert_sound();
}

/// The server sends half a result and no more: cancel reaches it, the others are served, and query_timeout ends it.
#[test]
fn s39_a_server_that_stalls_in_a_result() {
    let faulty = Faulty::with(
        |mut wire| {
            if wire.number() == 0 {
                wire.accept_login();
                wire.recv_until(b'Q');
                wire.send(&beginning());
                wire.stall(Duration::from_secs(8));
            } else if wire.accept_login() {
                wire.answer_queries("1");
            }
        },
        |b| b.set("pool_size = 2").set("query_timeout = \"1s\""),
    );
    let mut stuck = faulty.login();
    stuck.send(&[query("SELECT 'stuck'")]);
    stuck.expect("T D(part)");
    let mut other = faulty.login();
    assert_eq!(other.one("SELECT 1"), "1", "with another server");
    stuck.expect("E(57014) .");
    faulty.server.wait_received("cancel 1 [1, 2, 3, 4]");
    assert_eq!(other.one("SELECT 1"), "1");
    faulty.assert_sound();
}

#[test]
fn s40_every_byte_alone_gives_the_same() {
    let script: Vec<Vec<u8>> = vec![
        ServerWire::row_reply("one"),
        [
            message(b'1', b""),
            message(b'2', b""),
            ServerWire::row("part"),
            done(),
            message(b'N', b"SNOTICE\0C00000\0Mby the way\0\0"),
            message(b'S', b"TimeZone\0UTC\0"),
            message(b'Z', b"I"),
        ]
        .concat(),
        [
            ServerWire::error("ERROR", "22012", "division by zero"),
            message(b'Z', b"I"),
        ]
        .concat(),
        [
            message(b'H', &[0, 0, 0]),
            message(b'd', b"a\tb\n"),
            message(b'c', b""),
        ]
        .concat(),
        [message(b'C', b"COPY 1\0"), message(b'Z', b"I")].concat(),
    ];
    let faulty = Faulty::new(move |mut wire| {
        wire.read_opening();
        wire.send_byte_by_byte(&ServerWire::login_reply(1));
        for (at, reply) in script.iter().enumerate() {
            if at != 4 && !wire.recv_until(if at == 1 { b'S' } else { b'Q' }) {
                return;
            }
            wire.send_byte_by_byte(reply);
        }
        wire.answer_queries("1");
    });
    let mut client = faulty.login();
    client.send(&[query("SELECT 1")]);
    client.expect("T D(one) C(SELECT 1) Z(I)");
    client.send(&[
        parse("", "SELECT 1"),
        bind("", "", &[]),
        execute(""),
        sync(),
    ]);
    client.expect("1 2 D(part) C(SELECT 1) N(00000) S(TimeZone=UTC) Z(I)");
    client.send(&[query("SELECT 1/0")]);
    client.expect("E(22012) Z(I)");
    client.send(&[query("COPY t TO STDOUT")]);
    client.expect("H d(a\tb\n) c C(COPY 1) Z(I)");
    faulty.assert_sound();
}

/// What one client asked, and what the pooler asked on the side, is cancelled by nobody else's cancel.
#[test]
fn t17_a_cancel_hits_nothing_while_the_pooler_cleans_the_server() {
    let faulty = Faulty::with(
        |mut wire| {
            if !wire.accept_login() {
                return;
            }
            while let Some(got) = wire.recv() {
                if got.tag != b'Q' {
                    continue;
                }
                if got.is("Q(DISCARD ALL)") {
                    std::thread::sleep(Duration::from_millis(500));
                    wire.send(&[message(b'C', b"DISCARD ALL\0"), message(b'Z', b"I")].concat());
                } else if got.is("Q(LISTEN x)") {
                    wire.send(&[message(b'C', b"LISTEN\0"), message(b'Z', b"I")].concat());
                } else {
                    wire.send(&ServerWire::row_reply("1"));
                }
            }
        },
        |b| b.set("on_session_state = \"ignore\""),
    );
    let mut client = faulty.login();
    client.send(&[query("LISTEN x")]);
    client.expect("C(LISTEN) Z(I)");
    client.cancel();
    assert_eq!(client.one("SELECT 1"), "1");
    wait_until("the server was cleaned", || {
        faulty
            .server
            .received()
            .iter()
            .any(|l| l.contains("DISCARD ALL"))
    });
    let received = faulty.server.received();
    assert!(
        !received.iter().any(|l| l.contains("cancel")),
        "{received:?}"
    );
    faulty.assert_sound();
}
