//! What the time of a login tells, and whom it takes time from. Times are compared within one run only.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pooler_protocol::auth::derive;

use crate::support::{Pooler, Wire, postgres};
use crate::{refused, try_login};

fn verifier(password: &str, iterations: u32) -> String {
    let keys = derive(password.as_bytes(), b"salt of the test", iterations);
    keys.verifier().encode().to_string()
}

/// How often the times are looked at before they count as different.
const ROUNDS: usize = 6;

/// A user who does not exist, one with a password and one with a verifier: by no method can they be told apart by how long a
/// wrong password takes. They come in turns, so that whatever else the machine does meets all of them; it can only make a
/// login longer, so the shortest is what a login takes. Users who differ do so however often one looks.
#[test]
fn t57_unknown_users_take_as_long_as_wrong_passwords() {
    // Where keys are derived it is they that take the time, and a few logins tell.
    for (method, tries) in [("password", 9), ("md5", 41), ("scram-sha-256", 15)] {
        let pooler = Pooler::before(postgres())
            .auth(&format!("type = {method:?}"))
            .auth("max_login_failures = 0")
            .section(&format!(
                "[users.plain]\npassword = \"secret\"\n[users.verified]\npassword = \"{}\"",
                verifier("secret", 4096)
            ))
            .start();
        let users = ["plain", "verified", "nobody"];
        let take_turns = || {
            users.map(|user| {
                let began = Instant::now();
                let error = refused(pooler.port(), user, "postgres", "wrong");
                assert_eq!(error.sqlstate(), "28P01", "{method} {user}");
                began.elapsed()
            })
        };
        // The first ones make what is kept.
        for _ in 0..3 {
            take_turns();
        }
        let mut shortest = [Duration::MAX; 3];
        let differ = |[plain, verified, nobody]: [Duration; 3]| {
            let differs = |known: Duration| {
                let ratio = nobody.as_secs_f64() / known.as_secs_f64();
                !(0.6..1.67).contains(&ratio)
            };
            // md5 cannot check a verifier: its user is asked for SCRAM instead, as no other is.
            differs(plain) || (method != "md5" && differs(verified))
        };
        for round in 1.. {
            for _ in 0..tries {
                let took = take_turns();
                shortest = std::array::from_fn(|user| shortest[user].min(took[user]));
            }
            if !differ(shortest) {
                break;
            }
            assert!(round < ROUNDS, "{method}: {users:?} took {shortest:?}");
        }
    }
}

/// Keys are derived beside the worker: a client on the only one there is goes on working while logins have keys derived that
/// take as long as a hundred of its queries. On the worker it would have had a turn between two of them at most.
#[test]
fn t59_deriving_keys_takes_no_worker_from_its_clients() {
    const LOGINS: usize = 6;
    let pooler = Pooler::before(postgres())
        .set("workers = 1")
        .auth("type = \"password\"")
        .auth("max_login_failures = 0")
        .section(&format!(
            "[users.dear]\npassword = \"{}\"\n[users.postgres]\npassword = \"secret\"",
            verifier("secret", 20_000)
        ))
        .start();
    let port = pooler.port();
    let mut steady = try_login(port, "postgres", "postgres", "secret").expect("a login");
    let begun = AtomicUsize::new(0);
    let queries = std::thread::scope(|scope| {
        let one = || {
            begun.fetch_add(1, Ordering::AcqRel);
            refused(port, "dear", "postgres", "wrong");
        };
        let logins: Vec<_> = (0..LOGINS).map(|_| scope.spawn(one)).collect();
        let mut queries = 0;
        while !logins.iter().all(|l| l.is_finished()) {
            assert_eq!(steady.one("SELECT 1"), "1");
            queries += usize::from(begun.load(Ordering::Acquire) == LOGINS);
        }
        queries
    });
    assert!(
        queries > LOGINS * 5,
        "{queries} queries while {LOGINS} logins had their keys derived"
    );
    drop::<Wire>(steady);
}
