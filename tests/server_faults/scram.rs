//! Servers that cheat in a SCRAM exchange: the pooler refuses them, because they could not prove that they know the
//! password.

use crate::faulty::{Faulty, each};
use crate::support::{Message, ServerWire, message};

/// Offers SCRAM and reads the client's nonce.
fn client_nonce(wire: &mut ServerWire) -> Option<String> {
    wire.read_opening();
    wire.send(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"));
    let Message { body, .. } = wire.recv()?;
    let text = String::from_utf8_lossy(&body).into_owned();
    Some(text.rsplit_once("r=")?.1.to_owned())
}

/// Answers with this challenge; `{n}` is the client's nonce.
fn challenge(mut wire: ServerWire, first: &str) -> Option<ServerWire> {
    let nonce = client_nonce(&mut wire)?;
    let body = [b"\0\0\0\x0b", first.replace("{n}", &nonce).as_bytes()].concat();
    wire.send(&message(b'R', &body));
    Some(wire)
}

/// A right challenge, and then this instead of the proof.
fn last(wire: ServerWire, body: &[u8]) {
    let Some(mut wire) = challenge(wire, "r={n}theirs,s=BwcHBwcHBwcHBwcHBwcHBw==,i=4096") else {
        return;
    };
    wire.recv();
    wire.send(&message(b'R', body));
    // What follows would be a login, were it believed.
    wire.send(&message(b'R', &[0; 4]));
    wire.send(&message(b'Z', b"I"));
    wire.answer_queries("stolen");
}

fn first(wire: ServerWire, text: &str) {
    if let Some(mut wire) = challenge(wire, text) {
        wire.answer_queries("stolen");
    }
}

#[test]
fn s16_to_s21_t55_a_server_that_cheats_is_refused() {
    type Case = (&'static str, fn(ServerWire));
    let cases: [Case; 14] = [
        ("s16 200 kB nonce", |w| {
            first(w, &format!("r={{n}}{},s=AAAA,i=4096", "x".repeat(200_000)))
        }),
        ("s16 60 kB nonce", |w| {
            first(w, &format!("r={{n}}{},s=AAAA,i=4096", "x".repeat(60_000)))
        }),
        ("s17 foreign nonce", |w| first(w, "r=another,s=AAAA,i=4096")),
        ("s17 nonce not continued", |w| {
            first(w, "r={n},s=AAAA,i=4096")
        }),
        ("s18 no iterations", |w| first(w, "r={n}x,s=AAAA,i=0")),
        ("s18 a billion iterations", |w| {
            first(w, "r={n}x,s=AAAA,i=1000000000")
        }),
        ("s19 no salt", |w| first(w, "r={n}x,i=4096")),
        ("s19 salt that is no base64", |w| {
            first(w, "r={n}x,s=!!!!,i=4096")
        }),
        ("s19 nothing at all", |w| first(w, "")),
        ("s19 no text", |w| first(w, "\u{0}\u{1}")),
        ("s20 wrong signature", |w| {
            last(
                w,
                b"\0\0\0\x0cv=CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=",
            );
        }),
        ("s20 no signature", |w| last(w, b"\0\0\0\x0ce=other-error")),
        ("s21 huge signature", |w| {
            last(w, format!("\0\0\0\x0cv={}", "A".repeat(60_000)).as_bytes())
        }),
        ("s21 Ok without a proof", |w| last(w, &[0; 4])),
    ];
    each(&cases, |(name, fault)| {
        let faulty = Faulty::with(*fault, |b| b.section("[users.app]\npassword = \"secret\""));
        let error = match faulty.try_login() {
            Ok(_) => panic!("{name}: believed"),
            Err(error) => error,
        };
        assert_eq!(error.sqlstate(), "08P01", "{name}: {error:?}");
        let log = faulty.pooler.log();
        assert!(!log.contains("secret"), "{name}: {log}");
        faulty.assert_sound();
    });
}
