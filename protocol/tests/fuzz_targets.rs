//! Every fuzz target on a few thousand inputs that a seed decides, so that they are built and run
//! without a fuzzer. `make fuzz` searches further.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "public in the fuzzer's own crate")]
mod targets;

#[allow(dead_code, reason = "the rest of it is for other tests")]
mod model;

use model::Chance;

/// Bytes of which many are such as messages have.
fn input(chance: &mut Chance) -> Vec<u8> {
    const LIKELY: &[u8] = b"\0\0\0\0\x01\x03\x04\x05\x08\x10QPBDECSFZTIESCMR,=nrps";
    let len = chance.below(120);
    (0..len)
        .map(|_| {
            let n = chance.next();
            match n & 3 {
                0 => n.to_be_bytes()[0],
                _ => LIKELY[usize::from(n.to_be_bytes()[0]) % LIKELY.len()],
            }
        })
        .collect()
}

fn feed(run: fn(&[u8])) {
    let mut chance = Chance::new(1);
    run(b"");
    for _ in 0..5_000 {
        run(&input(&mut chance));
    }
}

#[test]
fn frames() {
    feed(targets::frames::run);
}

#[test]
fn startup() {
    feed(targets::startup::run);
}

#[test]
fn messages() {
    feed(targets::messages::run);
}

#[test]
fn sasl() {
    feed(targets::sasl::run);
}

#[test]
fn ledger() {
    feed(targets::ledger::run);
}

#[test]
fn route() {
    feed(targets::route::run);
}
