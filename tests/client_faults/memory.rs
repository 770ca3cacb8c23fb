//! Clients that send or ask for much and read little: rows B05, B23 to B25 and traps 6, 48, 49.

use std::time::{Duration, Instant};

use crate::support::{
    Pooler, Rig, Wire, bind, copy_data, execute, lying, parse, query, sync, wait_until,
};

/// What resident memory may grow by.
const SLACK_KB: u64 = 16 * 1024;

/// Rows of 1 MB.
fn megabytes(n: u32) -> String {
    format!("SELECT repeat('x', 1048576) FROM generate_series(1, {n})")
}

/// Runs something and sees that memory stays where it was.
fn flat<T>(pooler: &Pooler, what: &str, run: impl FnOnce() -> T) -> T {
    pooler.forget_peak();
    let before = pooler.rss_kb();
    let result = run();
    let peak = pooler.peak_rss_kb();
    assert!(
        peak < before + SLACK_KB,
        "{what}: from {before} kB to {peak} kB"
    );
    result
}

fn assert_quick(rig: &Rig) {
    let began = Instant::now();
    rig.pooler.assert_serves("postgres", &rig.database);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "others are served"
    );
}

/// Reads on to ReadyForQuery: the bytes of all rows.
fn drain(wire: &mut Wire) -> usize {
    let mut bytes = 0;
    loop {
        let message = wire.recv();
        match message.tag {
            b'D' => bytes += message.body.len() - 6,
            b'Z' => return bytes,
            b'E' => panic!("{message:?}"),
            _ => {}
        }
    }
}

#[test]
fn b05_an_announced_length_is_not_allocated() {
    let rig = Rig::with(|b| b.set("pool_size = 10"));
    rig.assert_sound();
    let types = *b"QPBDEdFfC";
    let clients: Vec<Wire> = flat(&rig.pooler, "announced lengths", || {
        let of = |length: i32| types.iter().map(move |tag| (*tag, length));
        let all = of(i32::MAX).chain(of(0x3fff_fff0)).chain(of(900_000_000));
        let clients = all.map(|(tag, length)| {
            let mut wire = rig.login();
            wire.send_bytes(&lying(tag, length, &[b'x'; 1_000]));
            wire
        });
        clients.collect()
    });
    drop(clients);
    rig.assert_sound();
}

#[test]
fn b23_t06_slow_readers_of_large_results() {
    let rig = Rig::with(|b| b.set("pool_size = 5"));
    rig.assert_sound();
    let mut slow: Vec<Wire> = (0..3).map(|_| rig.login()).collect();
    flat(&rig.pooler, "unread results", || {
        for wire in &mut slow {
            wire.shrink_receive_buffer();
            wire.send(&[query(&megabytes(64))]);
        }
        rig.wait_sql("count(*) = 3 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'ClientWrite'");
        assert_quick(&rig);
        // Two read on, one leaves.
        slow.pop();
        for wire in &mut slow {
            assert_eq!(drain(wire), 64 << 20);
        }
    });
    drop(slow);
    rig.assert_sound();
}

#[test]
fn b24_t48_rows_and_queries_of_64_megabytes() {
    let rig = Rig::with(|b| b.set("pool_size = 2"));
    rig.assert_sound();
    let mut wire = rig.login();
    flat(&rig.pooler, "a large row", || {
        wire.send(&[query("SELECT repeat('x', 67108864)")]);
        assert_eq!(drain(&mut wire), 64 << 20);
    });
    let large = "x".repeat(64 << 20);
    flat(&rig.pooler, "a large query", || {
        wire.send(&[query(&format!("SELECT length('{large}')"))]);
        wire.expect("T D(67108864) C(SELECT 1) Z(I)");
    });
    flat(
        &rig.pooler,
        "a large unnamed statement and a large value",
        || {
            wire.send(&[
                parse("", &format!("SELECT length('{large}')")),
                bind("", "", &[]),
                execute(""),
                sync(),
            ]);
            wire.expect("1 2 D(67108864) C(SELECT 1) Z(I)");
            wire.send(&[
                parse("v", "SELECT length($1)"),
                bind("", "v", &[&large]),
                execute(""),
                sync(),
            ]);
            wire.expect("1 2 D(67108864) C(SELECT 1) Z(I)");
        },
    );
    rig.sql("CREATE TABLE t (a text)");
    flat(&rig.pooler, "large COPY data", || {
        wire.send(&[query("COPY t FROM STDIN")]);
        wire.expect("G");
        wire.send(&[
            copy_data(&large.as_bytes()[..50 << 20]),
            copy_data(b"\n"),
            crate::support::copy_done(),
        ]);
        wire.expect("C(COPY 1) Z(I)");
        wire.send(&[query("COPY t TO STDOUT")]);
        let got = wire.recv_to_ready();
        assert_eq!(
            got.iter()
                .filter(|m| m.tag == b'd')
                .map(|m| m.body.len())
                .sum::<usize>(),
            (50 << 20) + 1
        );
    });
    rig.assert_sound();
}

/// Both sides write and neither is read: whoever then begins to read gets everything.
#[test]
fn b25_t06_a_writer_that_never_reads() {
    let rig = Rig::with(|b| b.set("pool_size = 2"));
    rig.assert_sound();
    let mut wire = rig.login();
    wire.shrink_receive_buffer();
    flat(&rig.pooler, "3000 unread results", || {
        // 20 kB of answer and 5 kB of question each.
        let filler = "y".repeat(5_000);
        let all: Vec<u8> = (0..3_000)
            .flat_map(|n| query(&format!("SELECT {n}, repeat('x', 20000) /* {filler} */")))
            .collect();
        let mut writer = wire.writer();
        let writing = std::thread::spawn(move || {
            writer.set_write_timeout(None).expect("no timeout");
            std::io::Write::write_all(&mut writer, &all).expect("a pooler that reads in the end");
        });
        rig.wait_sql("count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'ClientWrite'");
        assert_quick(&rig);
        for n in 0..3_000 {
            let got = wire.recv_to_ready();
            assert_eq!(got.len(), 4, "{got:?}");
            assert_eq!(got[1].columns()[0], n.to_string());
        }
        writing.join().expect("no panic");
    });
    rig.assert_sound();
}

#[test]
fn b25_t49_a_pipeline_that_nobody_reads_is_bounded() {
    let rig = Rig::with(|b| b.set("pool_size = 1"));
    rig.assert_sound();
    let mut wire = rig.login();
    wire.shrink_receive_buffer();
    let one = [
        parse("", "SELECT 1"),
        bind("", "", &[]),
        execute(""),
        sync(),
    ]
    .concat();
    flat(&rig.pooler, "an endless pipeline", || {
        let taken = wire.send_until_full(&one.repeat(600_000));
        assert!(taken < one.len() * 600_000, "somebody takes it all in");
    });
    drop(wire);
    rig.assert_sound();
}

/// What a session once needed it does not keep.
#[test]
fn t48_memory_is_given_back() {
    let rig = Rig::with(|b| b.set("pool_size = 5"));
    rig.assert_sound();
    let before = rig.pooler.rss_kb();
    let mut wires: Vec<Wire> = (0..40).map(|_| rig.login()).collect();
    for wire in &mut wires {
        wire.shrink_receive_buffer();
        wire.send(&[query(&megabytes(3))]);
    }
    for wire in &mut wires {
        assert_eq!(drain(wire), 3 << 20);
    }
    wait_until("memory is where it was", || {
        rig.pooler.rss_kb() < before + SLACK_KB
    });
    drop(wires);
    rig.assert_sound();
}
