//! `cargo bench --bench micro`: how long the pieces of the hot path take, each by itself. A name
//! behind `--` picks some. To compare two versions of the code use the instruction counts beside
//! this: they do not depend on what else the machine does.

#[path = "../work/mod.rs"]
mod work;

use std::time::Duration;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};

use crate::work::{frames, ledger, names, scram, settings, waiters};

fn main() {
    divan::Divan::from_args()
        .max_time(Duration::from_millis(200))
        .main();
}

#[divan::bench]
fn frames_rows(bencher: Bencher<'_, '_>) {
    let bytes = frames::rows();
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .bench_local(|| frames::split(divan::black_box(&bytes)));
}

#[divan::bench]
fn frames_short(bencher: Bencher<'_, '_>) {
    let bytes = frames::short();
    bencher
        .counter(ItemsCount::new(frames::split(&bytes)))
        .bench_local(|| frames::split(divan::black_box(&bytes)));
}

#[divan::bench]
fn ledger_simple(bencher: Bencher<'_, '_>) {
    let mut ledger = ledger::used();
    bencher.bench_local(|| ledger::simple(divan::black_box(&mut ledger)));
}

#[divan::bench]
fn ledger_prepared(bencher: Bencher<'_, '_>) {
    let mut ledger = ledger::used();
    bencher.bench_local(|| ledger::prepared(divan::black_box(&mut ledger)));
}

#[divan::bench]
fn ledger_pipeline_of_100(bencher: Bencher<'_, '_>) {
    let mut ledger = ledger::used();
    bencher.bench_local(|| ledger::pipeline(divan::black_box(&mut ledger)));
}

#[divan::bench]
fn names_bind(bencher: Bencher<'_, '_>) {
    let mut prepared = names::prepared();
    bencher.bench_local(|| names::splice(divan::black_box(&mut prepared)));
}

#[divan::bench]
fn settings_equal(bencher: Bencher<'_, '_>) {
    let (from, _) = settings::pair();
    bencher.bench_local(|| settings::difference(&from, divan::black_box(&from)));
}

#[divan::bench]
fn settings_one_differs(bencher: Bencher<'_, '_>) {
    let (from, to) = settings::pair();
    bencher.bench_local(|| settings::difference(&from, divan::black_box(&to)));
}

#[divan::bench]
fn scram_messages(bencher: Bencher<'_, '_>) {
    let (keys, verifier) = scram::account();
    bencher.bench_local(|| scram::exchange(divan::black_box(&keys), &verifier));
}

#[divan::bench]
fn waiters_pass(bencher: Bencher<'_, '_>) {
    let (mut state, waiter) = waiters::queue();
    bencher.bench_local(|| waiters::pass(divan::black_box(&mut state), waiter));
}
