//! Clients that listen, and hold no server meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{Received, Rig, SERVERS, Wire, query, wait_until};

/// Servers of the pool that have listened and are free of it again, that which listens for all, and what they do.
fn wait_shared(rig: &Rig, listeners: usize) {
    let metric = || {
        rig.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'UNLISTEN *%' OR query = 'DISCARD ALL'")
    };
    wait_until("handed over", || metric() != "0" && listeners > 0);
}

/// The payload of the next notification on `channel`.
fn payload(wire: &mut Wire, channel: &str) -> String {
    let got = wire.recv();
    assert_eq!(got.tag, b'A', "{got:?}");
    let text = got.body[4..]
        .split(|b| *b == 0)
        .map(String::from_utf8_lossy);
    let [heard, payload, _] = text.collect::<Vec<_>>().try_into().expect("two strings");
    assert_eq!(heard, channel);
    payload.into_owned()
}

#[test]
fn listeners_hold_no_server_and_hear_everything_in_order() {
    let rig = Rig::with(|b| b.set("pool_size = 2"));
    let mut direct = rig.direct();
    let mut listeners: Vec<Wire> = (0..10).map(|_| rig.login()).collect();
    for (n, wire) in listeners.iter_mut().enumerate() {
        wire.rows("LISTEN everybody");
        wire.rows(&format!("LISTEN \"Only {n}\""));
    }
    // More listeners than servers: everybody else is served all the same.
    let mut other = rig.login();
    assert_eq!(other.one("SELECT 1"), "1");
    for n in 0..50 {
        direct.rows(&format!("NOTIFY everybody, '{n}'"));
    }
    for n in 0..10 {
        direct.rows(&format!("NOTIFY \"Only {n}\", 'x{n}'"));
    }
    for (n, wire) in listeners.iter_mut().enumerate() {
        for i in 0..50 {
            assert_eq!(payload(wire, "everybody"), i.to_string());
        }
        assert_eq!(payload(wire, &format!("Only {n}")), format!("x{n}"));
        wire.expect_silence(Duration::from_millis(20));
    }
    // They work, too, and what they notify reaches themselves.
    for wire in &mut listeners {
        assert_eq!(wire.one("SELECT 2"), "2");
    }
    let first = &mut listeners[0];
    // As on a direct connection: in front of ReadyForQuery, statement by statement.
    for n in 0..20 {
        first.send(&[query(&format!("NOTIFY everybody, '{n}'"))]);
        first.expect("C(NOTIFY)");
        assert_eq!(payload(first, "everybody"), n.to_string());
        first.expect("Z(I)");
    }
    first.send(&[
        query("LISTEN two"),
        query("NOTIFY two, 'a'"),
        query("NOTIFY everybody, 'b'"),
    ]);
    let replies =
        first.recv_to_ready().len() + first.recv_to_ready().len() + first.recv_to_ready().len();
    let more = 8 - replies;
    for _ in 0..more {
        assert_eq!(first.recv().tag, b'A');
    }
    assert_eq!(first.one("SELECT 3"), "3");
    for wire in &mut listeners[1..] {
        for n in 0..20 {
            assert_eq!(payload(wire, "everybody"), n.to_string());
        }
        assert_eq!(payload(wire, "everybody"), "b");
    }
    let servers = rig.sql(&format!("SELECT count(*) {SERVERS}"));
    assert!(servers.parse::<u32>().unwrap() <= 4, "{servers}");
    wait_shared(&rig, listeners.len());
    // A transaction is not interrupted.
    let wire = &mut listeners[1];
    wire.rows("BEGIN");
    direct.rows("NOTIFY everybody, 'later'");
    wire.expect_silence(Duration::from_millis(200));
    wire.send(&[query("COMMIT")]);
    wire.expect("C(COMMIT) A(everybody|later) Z(I)");
    drop(listeners);
    rig.assert_sound();
}

#[test]
fn listen_and_unlisten_take_effect_at_commit() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    let mut direct = rig.direct();
    let mut wire = rig.login();
    let mut say = |n: u32| {
        for channel in ["a", "b", "c"] {
            direct.rows(&format!("NOTIFY {channel}, '{n}'"));
        }
    };
    wire.rows("LISTEN a");
    say(1);
    assert_eq!(payload(&mut wire, "a"), "1");
    // Rolled back: as before.
    for sql in ["BEGIN", "LISTEN b", "UNLISTEN a", "ROLLBACK"] {
        wire.rows(sql);
    }
    say(2);
    assert_eq!(payload(&mut wire, "a"), "2");
    wire.expect_silence(Duration::from_millis(50));
    for sql in [
        "BEGIN",
        "LISTEN b",
        "SAVEPOINT s",
        "LISTEN c",
        "ROLLBACK TO s",
        "UNLISTEN a",
        "COMMIT",
    ] {
        wire.rows(sql);
    }
    say(3);
    assert_eq!(payload(&mut wire, "b"), "3");
    wire.expect_silence(Duration::from_millis(50));
    // In any shape.
    wire.rows("DO $$BEGIN EXECUTE 'LISTEN c'; END$$");
    say(4);
    assert_eq!(payload(&mut wire, "b"), "4");
    assert_eq!(payload(&mut wire, "c"), "4");
    assert_eq!(wire.rows("SELECT pg_listening_channels()"), [["b"], ["c"]]);
    for end in ["UNLISTEN *", "DISCARD ALL"] {
        wire.rows("LISTEN a");
        wire.rows(end);
        say(5);
        wire.expect_silence(Duration::from_millis(50));
    }
    // A lock keeps the server; what is heard comes all the same.
    wire.rows("LISTEN a");
    wire.rows("SELECT pg_advisory_lock(1)");
    say(6);
    assert_eq!(payload(&mut wire, "a"), "6");
    wire.rows("LISTEN b");
    say(7);
    let mut both = [wire.recv(), wire.recv()].map(|m| m.body);
    both.sort_by(|x, y| x[4..].cmp(&y[4..]));
    assert!(both[0][4..].starts_with(b"a\x007\0") && both[1][4..].starts_with(b"b\x007\0"));
    wire.rows("SELECT pg_advisory_unlock(1)");
    // Behind the question that the unlock leaves: from then on what is heard comes in the order in which it was said.
    wire.rows("SELECT 1");
    say(8);
    assert_eq!(payload(&mut wire, "a"), "8");
    assert_eq!(payload(&mut wire, "b"), "8");
    wire.expect_silence(Duration::from_millis(50));
    wire.leave();
    rig.assert_sound();
}

/// While somebody notifies without a pause, sessions begin to listen and are handed over, with statements of their own
/// in between: each hears every number from its first one on, once and in order, and what comes on another channel in its
/// place between them.
#[test]
fn nothing_is_lost_or_doubled_when_a_listener_is_handed_over() {
    let rig = Rig::with(|b| b.set("pool_size = 2"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let notifying = scope.spawn(|| {
            let mut direct = rig.direct();
            let mut n = 0;
            while !done.load(Ordering::Acquire) {
                n += 1;
                direct.rows(&format!("NOTIFY numbers, '{n}'"));
                direct.rows(&format!("NOTIFY more, '{n}'"));
            }
            n
        });
        let listening: Vec<_> = (0..6)
            .map(|session| {
                let rig = &rig;
                scope.spawn(move || {
                    let mut last = 0;
                    for _turn in 0..8 {
                        let mut wire = rig.login();
                        wire.send(&[query("LISTEN numbers")]);
                        let mut expected: Option<u64> = None;
                        let mut heard = 0;
                        let mut latest = 0;
                        let mut asked = 0;
                        while heard < 60 {
                            let message = match wire.poll() {
                                Received::Message(message) => message,
                                other => panic!("{other:?}, {heard} heard, {asked} asked"),
                            };
                            if message.tag == b'Z' && asked < 5 {
                                asked += 1;
                                let sql = ["SELECT 1", "LISTEN more", "SELECT 2", "UNLISTEN more"]
                                    [asked % 4];
                                wire.send(&[query(sql)]);
                            }
                            if message.tag == b'E' {
                                panic!("{message:?}");
                            }
                            if message.tag != b'A' {
                                continue;
                            }
                            let body = String::from_utf8_lossy(&message.body[4..]).into_owned();
                            let (channel, n) =
                                body.trim_end_matches('\0').split_once('\0').unwrap();
                            let n = n.parse::<u64>().unwrap();
                            let place = 2 * n + u64::from(channel == "more");
                            assert!(place > latest, "session {session}: {channel} {n} too late");
                            latest = place;
                            if channel == "more" {
                                continue;
                            }
                            heard += 1;
                            if let Some(expected) = expected {
                                assert_eq!(
                                    n, expected,
                                    "session {session}, heard {heard}, asked {asked}"
                                );
                            }
                            expected = Some(n + 1);
                            last = n;
                        }
                        wire.reset();
                    }
                    last
                })
            })
            .collect();
        let heard: Vec<_> = listening
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::Release);
        let said = notifying.join().expect("it does not panic");
        for last in heard {
            assert!(last.expect("nothing is lost or doubled") <= said);
        }
    });
    rig.assert_sound();
}

#[test]
fn listeners_are_closed_when_the_connection_that_listens_is_lost() {
    let rig = Rig::with(|b| b.set("pool_size = 2"));
    let mut listeners: Vec<Wire> = (0..3).map(|_| rig.login()).collect();
    for wire in &mut listeners {
        wire.rows("LISTEN a");
    }
    let listens = "query LIKE 'LISTEN \"a\"%' AND state = 'idle' AND datname = current_database()";
    rig.wait_sql(&format!(
        "count(*) = 1 FROM pg_stat_activity WHERE {listens}"
    ));
    rig.sql(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {listens}"
    ));
    for wire in &mut listeners {
        wire.expect("E(08006) .");
    }
    // Whoever comes then gets another.
    let mut wire = rig.login();
    wire.rows("LISTEN a");
    rig.wait_sql(&format!(
        "count(*) = 1 FROM pg_stat_activity WHERE {listens}"
    ));
    rig.sql("NOTIFY a, 'again'");
    assert_eq!(payload(&mut wire, "a"), "again");
    // It is not kept for nobody.
    wire.leave();
    rig.wait_sql("count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'UNLISTEN \"a\"%' AND datname = current_database()");
    rig.assert_sound();
}
