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
fn opening() {
    feed(targets::opening::run);
    let mut chance = Chance::new(5);
    for _ in 0..50_000 {
        let len = 2 + chance.below(40);
        let data: Vec<u8> = (0..len).map(|_| chance.next().to_be_bytes()[0]).collect();
        targets::opening::run(&data);
    }
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

#[test]
fn mask() {
    feed(targets::mask::run);
    // Pieces of every kind behind and before each other.
    let mut chance = Chance::new(3);
    for _ in 0..20_000 {
        let len = 1 + chance.below(12);
        let mut data = vec![255];
        data.extend((0..len).map(|_| chance.next().to_be_bytes()[0]));
        targets::mask::run(&data);
    }
}

#[test]
fn hba() {
    const WORDS: &[&str] = &[
        "local",
        "host",
        "hostssl",
        " ",
        "\t",
        "\n",
        ",",
        "all",
        "a",
        "+a",
        "/^a",
        "/(.)@",
        "\\1",
        "\"",
        "#",
        "\\\n",
        "@x",
        "include x\n",
        "include_dir d\n",
        "127.0.0.1/32",
        "::1",
        "samenet",
        "x.org",
        "md5",
        "trust",
        "cert",
        "map=m",
        "m",
        "host all all all trust",
        "hostssl all a all cert map=m",
        "m a@b a\n",
    ];
    let mut chance = Chance::new(2);
    for _ in 0..20_000 {
        let mut data = vec![
            chance.next().to_be_bytes()[0],
            chance.next().to_be_bytes()[0] % 40,
        ];
        for _ in 0..chance.below(40) {
            let word = usize::try_from(chance.below(WORDS.len() as u64)).expect("few");
            data.extend(WORDS[word].as_bytes());
            if chance.next() & 1 == 0 {
                data.push(b' ');
            }
        }
        targets::hba::run(&data);
    }
    feed(targets::hba::run);
}
