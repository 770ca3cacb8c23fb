//! Servers that do not let the pooler in, or do it in a way that no server should.

use std::time::{Duration, Instant};

use crate::faulty::{Faulty, each};
use crate::support::{ServerWire, lying, message, wait_until};

/// A name, what the server does with each connection, the SQLSTATE that the client gets.
type Case = (&'static str, fn(ServerWire), &'static str);

/// A client is refused with the reason before long, nobody hangs, the pooler does not hammer the server, and all is well
/// as soon as the server is.
fn refused_and_healed(&(name, fault, sqlstate): &Case) {
    let faulty = Faulty::new(fault);
    let began = Instant::now();
    let error = match faulty.try_login() {
        Ok(_) => panic!("{name}: logged in"),
        Err(error) => error,
    };
    assert_eq!(error.sqlstate(), sqlstate, "{name}: {error:?}");
    assert_ne!(error.text(), "", "{name}: says why");
    assert!(began.elapsed() < Duration::from_secs(6), "{name}");
    // Twelve in two seconds at most; without pauses it would be hundreds.
    let tries = faulty.server.connections();
    assert!(tries <= 30, "{name}: {tries} attempts");
    faulty.assert_sound();
}

fn start(mut wire: ServerWire, reply: &[u8]) {
    wire.read_opening();
    wire.send(reply);
    wire.stall(Duration::from_secs(3));
}

fn start_and_close(mut wire: ServerWire, reply: &[u8]) {
    wire.read_opening();
    wire.send(reply);
}

fn auth_ok() -> Vec<u8> {
    message(b'R', &[0; 4])
}

#[test]
fn s01_s02_s03_a_server_that_resets_closes_or_says_nothing() {
    let cases: [Case; 5] = [
        ("s01 reset at once", ServerWire::reset, "08001"),
        (
            "s01 reset after the startup packet",
            |mut wire| {
                wire.read_opening();
                wire.reset();
            },
            "08001",
        ),
        ("s02 closed at once", ServerWire::close, "08001"),
        (
            "s02 closed after the startup packet",
            |mut wire| drop(wire.read_opening()),
            "08001",
        ),
        (
            "s03 black hole",
            |mut wire| wire.stall(Duration::from_secs(5)),
            "08001",
        ),
    ];
    each(&cases, refused_and_healed);
}

/// In a session pool it is asked something at once. That it is well is not doubted by that, and it is tried again.
#[test]
fn a_server_that_lets_the_pooler_in_and_answers_nothing() {
    let faulty = Faulty::with(
        |mut wire| {
            if wire.accept_login() {
                wire.recv_until(b'Q');
            }
        },
        |b| b.set("pool_mode = \"session\""),
    );
    let error = faulty.try_login().err().expect("a refusal");
    assert_eq!(error.sqlstate(), "08006", "{error:?}");
    assert!(error.text().contains("answered nothing"), "{error:?}");
    let tries = faulty.server.connections();
    assert!((2..=30).contains(&tries), "{tries} attempts");
    faulty.assert_sound();
}

#[test]
fn s04_to_s08_and_s11_to_s15_nonsense_at_login() {
    let cases: [Case; 16] = [
        ("s04 garbage", |w| start(w, &[0xA5; 5000]), "08P01"),
        (
            "s04 HTTP",
            |w| start(w, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            "08P01",
        ),
        ("s05 zeros", |w| start(w, &[0; 5000]), "08P01"),
        (
            "s06 2 GB announced",
            |w| start(w, &lying(b'R', i32::MAX, b"")),
            "08P01",
        ),
        (
            "s06 a negative length",
            |w| start(w, &lying(b'R', -1, b"")),
            "08P01",
        ),
        ("s07 length 0", |w| start(w, &lying(b'R', 0, b"")), "08P01"),
        ("s07 length 3", |w| start(w, &lying(b'R', 3, b"")), "08P01"),
        (
            "s08 unknown method",
            |w| start(w, &message(b'R', &[0, 0, 0, 99])),
            "28P01",
        ),
        (
            "s11 short request",
            |w| start(w, &message(b'R', &[0, 0])),
            "08P01",
        ),
        (
            "s12 no SQLSTATE",
            |w| start_and_close(w, &message(b'E', b"SFATAL\0Mno\0\0")),
            "XX000",
        ),
        (
            "s13 empty error",
            |w| start_and_close(w, &message(b'E', b"")),
            "XX000",
        ),
        (
            "s13 error of one NUL",
            |w| start_and_close(w, &message(b'E', b"\0")),
            "XX000",
        ),
        (
            "s14 error without its end",
            |w| start_and_close(w, &message(b'E', b"SFATAL")),
            "XX000",
        ),
        (
            "s15 garbage after Ok",
            |w| start(w, &[auth_ok(), vec![b'?'; 4000]].concat()),
            "08P01",
        ),
        (
            "s15 a row after Ok",
            |w| start(w, &[auth_ok(), message(b'D', b"\0\0")].concat()),
            "08P01",
        ),
        (
            "s15 a transaction after Ok",
            |w| start(w, &[auth_ok(), message(b'Z', b"T")].concat()),
            "08P01",
        ),
    ];
    each(&cases, refused_and_healed);
}

#[test]
fn s09_s10_s22_a_server_that_cannot_take_the_pooler_now() {
    let cases: [Case; 4] = [
        (
            "s09 too many connections",
            |w| {
                start_and_close(
                    w,
                    &ServerWire::error("FATAL", "53300", "sorry, too many clients already"),
                )
            },
            "53300",
        ),
        (
            "s10 starting up",
            |w| {
                start_and_close(
                    w,
                    &ServerWire::error("FATAL", "57P03", "the database system is starting up"),
                )
            },
            "57P03",
        ),
        (
            "s22 fatal after Ok",
            |w| {
                let fatal =
                    ServerWire::error("FATAL", "57P03", "the database system is shutting down");
                start_and_close(w, &[auth_ok(), fatal].concat());
            },
            "57P03",
        ),
        (
            "s22 end after Ok",
            |w| start_and_close(w, &auth_ok()),
            "08001",
        ),
    ];
    each(&cases, refused_and_healed);
}

/// A session that is logged in outlives the outage: its query waits, gets an error in the end, and the next one works.
#[test]
fn s10_t43_sessions_wait_through_an_outage_and_outlive_one_that_lasts() {
    let faulty = Faulty::new(|mut wire| {
        if wire.number() > 0 {
            let starting =
                ServerWire::error("FATAL", "57P03", "the database system is starting up");
            wire.read_opening();
            wire.send(&starting);
        } else if wire.accept_login() {
            wire.recv_until(b'Q');
        }
    });
    let mut client = faulty.login();
    client.send(&[crate::support::query("SELECT 'lost'")]);
    client.expect("E(08006) .");
    let mut first = {
        faulty.heal();
        faulty.login()
    };
    assert_eq!(first.one("SELECT 1"), "1");
    faulty.assert_sound();
}

/// 28P01 and 3D000 fail only their own user and database, at once; the others of the same host are served.
#[test]
fn t43_permanent_failures_fail_at_once_and_only_their_own() {
    let faulty = Faulty::with(
        |mut wire| {
            let crate::support::Opening::Startup(parameters) = wire.read_opening() else {
                return;
            };
            let is =
                |name: &str, value: &str| parameters.iter().any(|(n, v)| n == name && v == value);
            if is("user", "wrong") {
                wire.send(&ServerWire::error(
                    "FATAL",
                    "28P01",
                    "password authentication failed",
                ));
            } else if is("database", "missing") {
                wire.send(&ServerWire::error(
                    "FATAL",
                    "3D000",
                    "database \"missing\" does not exist",
                ));
            } else {
                wire.send(&ServerWire::login_reply(7));
                wire.answer_queries("1");
            }
        },
        |b| b.set("server_connect_timeout = \"30s\""),
    );
    for (user, database, sqlstate) in [
        ("wrong", "shop", "28P01"),
        ("app", "missing", "3D000"),
        ("wrong", "missing", "28P01"),
    ] {
        let who = [("user", user), ("database", database)];
        let began = Instant::now();
        let refused = crate::support::Wire::try_login(faulty.pooler.port(), &who, "");
        let error = refused.err().expect("a refusal");
        assert_eq!(error.sqlstate(), sqlstate, "{error:?}");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "waited for nothing"
        );
        let mut other = faulty.login();
        assert_eq!(other.one("SELECT 1"), "1", "another user and database");
        other.leave();
    }
    faulty.assert_sound();
}

#[test]
fn s24_without_a_cancel_key_everything_but_cancel_works() {
    let faulty = Faulty::new(|mut wire| {
        wire.read_opening();
        wire.send(&[auth_ok(), message(b'Z', b"I")].concat());
        wire.recv_until(b'Q');
        // The answer is held back long enough for the cancel to go astray.
        std::thread::sleep(Duration::from_millis(300));
        wire.send(&ServerWire::row_reply("1"));
        wire.answer_queries("1");
    });
    let mut client = faulty.login();
    client.send(&[crate::support::query("SELECT 1")]);
    faulty.server.wait_received("Q(SELECT 1)");
    client.cancel();
    client.expect("T D(1) C(SELECT 1) Z(I)");
    let cancels = faulty.server.received();
    assert!(!cancels.iter().any(|l| l.contains("cancel")), "{cancels:?}");
    faulty.assert_sound();
}

#[test]
fn s25_a_megabyte_of_parameter_status_is_refused_and_bounded() {
    let faulty = Faulty::new(|mut wire| {
        wire.read_opening();
        let body = [b"server_version\0".to_vec(), vec![b'9'; 1 << 20], vec![0]].concat();
        wire.send(&[auth_ok(), message(b'S', &body), message(b'Z', b"I")].concat());
    });
    let error = faulty.try_login().err().expect("a refusal");
    assert_eq!(error.sqlstate(), "08P01");
    faulty.assert_sound();
}

#[test]
fn s25_parameter_status_without_end_is_refused_and_bounded() {
    let faulty = Faulty::new(|mut wire| {
        wire.read_opening();
        wire.send(&auth_ok());
        let status = message(b'S', &[&b"a\0"[..], &[b'b'; 1000], &[0]].concat());
        while wire.try_send(&status).is_ok() {}
    });
    let before = faulty.pooler.peak_rss_kb();
    let error = faulty.try_login().err().expect("a refusal");
    assert_eq!(error.sqlstate(), "08P01");
    let grown = faulty.pooler.peak_rss_kb().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} kB");
    faulty.assert_sound();
}

/// Nobody listens: the same, without a busy loop; and it heals by itself.
#[test]
fn s41_a_refused_connection_is_tried_again_without_a_busy_loop() {
    let faulty = Faulty::new(|_| ());
    let port = pooler::demo::free_port().expect("a free port");
    let pooler = crate::support::Pooler::builder()
        .host(port)
        .set("server_connect_timeout = \"2s\"")
        .start();
    let before = pooler.cpu_centiseconds();
    let refused = crate::support::Wire::try_login(pooler.port(), &crate::faulty::WHO, "");
    let error = refused.err().expect("a refusal");
    assert_eq!(error.sqlstate(), "08001");
    assert!(
        error.text().contains(&port.to_string()),
        "{error:?} names the host"
    );
    assert_ne!(error.field(b'H'), "", "has a hint");
    if let (Some(before), Some(after)) = (before, pooler.cpu_centiseconds()) {
        assert!(
            after - before < 50,
            "{} ms of CPU in 2 s",
            (after - before) * 10
        );
    }
    drop(pooler);
    faulty.assert_sound();
}

/// The pooler's waiters are served as soon as somebody listens again.
#[test]
fn s41_waiters_are_served_when_the_server_is_back() {
    let faulty = Faulty::with(ServerWire::close, |b| {
        b.set("server_connect_timeout = \"30s\"")
    });
    let mut client = crate::support::Wire::connect(faulty.pooler.port());
    client.send(&[crate::support::startup(&crate::faulty::WHO)]);
    wait_until("a few attempts", || faulty.server.connections() >= 4);
    let healed = Instant::now();
    faulty.heal();
    client.finish_login("app", "").expect("a login");
    assert!(
        healed.elapsed() < Duration::from_secs(2),
        "{:?}",
        healed.elapsed()
    );
    faulty.assert_sound();
}

/// A notice at login is nobody's error; the operator finds it in the log.
#[test]
fn t07_a_notice_at_login_is_logged() {
    let faulty = Faulty::new(|mut wire| {
        wire.read_opening();
        let notice = message(b'N', b"SWARNING\0C01000\0Mthe disk is nearly full\0\0");
        wire.send(&[notice.clone(), auth_ok(), notice, message(b'Z', b"I")].concat());
        wire.answer_queries("1");
    });
    let mut client = faulty.login();
    assert_eq!(client.one("SELECT 1"), "1");
    assert!(faulty.pooler.log().contains("the disk is nearly full"));
    faulty.assert_sound();
}
