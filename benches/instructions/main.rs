//! `make instructions`: how many instructions the hot path takes, counted by callgrind. The counts
//! are the same from run to run but for a hundredth or less, whatever else the machine does, so a
//! small change shows. What the kernel does is not counted.
//!
//! The program does one piece so many times: `instructions PIECE TIMES`, and without arguments it
//! names the pieces. scripts/instructions.sh runs it under callgrind for two numbers of times; the
//! difference is the piece's alone, without what is made beforehand.

#![allow(clippy::print_stdout, reason = "the names are what is asked for")]

#[path = "../work/mod.rs"]
mod work;

mod rig;

use std::hint::black_box;
use std::process::ExitCode;

use crate::rig::{PREPARED, Rig, SIMPLE};
use crate::work::{frames, ledger, names, scram, settings, waiters};

/// Does a piece so many times.
type Piece = fn(usize);

/// Every piece by its name, in the order of the table.
const PIECES: &[(&str, Piece)] = &[
    ("transaction, simple", |n| Rig::new().run(SIMPLE, n)),
    ("transaction, prepared", |n| Rig::new().run(PREPARED, n)),
    ("transaction, simple, watched", |n| {
        Rig::new().watching().run(SIMPLE, n);
    }),
    ("transaction, prepared, watched", |n| {
        Rig::new().watching().run(PREPARED, n);
    }),
    ("frames, 64 kB of rows", |n| {
        let bytes = frames::rows();
        times(n, || frames::split(black_box(&bytes)));
    }),
    ("frames, 64 kB of short messages", |n| {
        let bytes = frames::short();
        times(n, || frames::split(black_box(&bytes)));
    }),
    ("ledger, simple", |n| {
        let mut used = ledger::used();
        times(n, || ledger::simple(black_box(&mut used)));
    }),
    ("ledger, prepared", |n| {
        let mut used = ledger::used();
        times(n, || ledger::prepared(black_box(&mut used)));
    }),
    ("ledger, pipeline of 100", |n| {
        let mut used = ledger::used();
        times(n, || ledger::pipeline(black_box(&mut used)));
    }),
    ("statement name of a Bind", |n| {
        let mut prepared = names::prepared();
        times(n, || names::splice(black_box(&mut prepared)));
    }),
    ("settings, one of five differs", |n| {
        let (from, to) = settings::pair();
        times(n, || settings::difference(&from, black_box(&to)));
    }),
    ("SCRAM, four messages", |n| {
        let (keys, verifier) = scram::account();
        times(n, || scram::exchange(black_box(&keys), &verifier));
    }),
    ("queue, one comes and one goes", |n| {
        let (mut state, waiter) = waiters::queue();
        times(n, || waiters::pass(black_box(&mut state), waiter));
    }),
];

fn main() -> ExitCode {
    // cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let [name, count] = arguments.as_slice() else {
        for (name, _) in PIECES {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    let piece = PIECES.iter().find(|(known, _)| known == name);
    match (piece, count.parse()) {
        (Some((_, piece)), Ok(count)) => {
            piece(count);
            ExitCode::SUCCESS
        }
        _ => {
            println!("no such piece, or not a number of times: {name}, {count}");
            ExitCode::FAILURE
        }
    }
}

fn times<T>(count: usize, mut piece: impl FnMut() -> T) {
    for _ in 0..count {
        black_box(piece());
    }
}
