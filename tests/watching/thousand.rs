//! `make prometheus`: what scrapes of a thousand pools cost, and whether clients notice.
//!
//! Short windows with and without a scraper in turns, whichever first, so that what else the machine does meets both alike; the
//! medians of the windows are compared. The scraper of the windows only reads, once a second: what a Prometheus on the same
//! machine takes from the clients' cores is not the pooler's. A real one comes last.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pooler::demo::postgres::Postgres;

use crate::prometheus::{Prometheus, metrics_port, scrape};
use crate::scrape::{METRICS, databases};
use crate::support::{Builder, Pooler, Wire, query};

const POOLS: usize = 1000;

/// Threads of clients; each goes round its own, with a pause of 5 ms between two.
const THREADS: usize = 10;

const PAIRS: usize = 10;

const WINDOW: Duration = Duration::from_secs(3);

const EVERY: Duration = Duration::from_secs(1);

#[test]
#[ignore = "a measurement of three minutes"]
fn a_thousand_pools_with_the_default_bound() {
    measure("default-bound", "", EVERY);
}

#[test]
#[ignore = "a measurement of three minutes"]
fn a_thousand_pools_with_series_of_their_own() {
    // Two hundred thousand series are more than Prometheus takes in a second on a small machine.
    measure("all-series", "max_pools = 0\n", 10 * EVERY);
}

/// What one window has shown.
struct Seen {
    transactions: usize,
    p50_us: u128,
    p99_us: u128,
    scrapes: usize,
    /// CPU time of the threads that are no workers.
    beside_us: f64,
}

fn measure(name: &str, more: &str, interval: Duration) {
    let server = Postgres::builder().max_connections(1100).start().unwrap();
    let builder: Builder = Pooler::before(&server);
    let pooler = builder
        .set("pool_size = 1")
        .set("workers = 2")
        .section(&databases(POOLS))
        .section(&format!("{METRICS}\n{more}"))
        .start();
    let port = metrics_port(&pooler);
    let mut mine: Vec<Vec<Wire>> = (0..THREADS).map(|_| Vec::new()).collect();
    for n in 0..POOLS {
        let mut wire = pooler.login("postgres", &format!("d{n:04}"));
        wire.one("SELECT 1");
        mine[n % THREADS].push(wire);
    }
    let text = scrape(port);
    let (lines, bytes) = (text.lines().count(), text.len());
    println!("{lines} lines, {bytes} bytes a scrape");
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        for is_scraped in [pair % 2 == 0, pair % 2 != 0] {
            let seen = window(&pooler, &mut mine, is_scraped.then_some(port));
            let windows = if is_scraped { &mut with } else { &mut without };
            windows.push(seen);
        }
    }
    for (name, windows) in [("without", &without), ("with", &with)] {
        println!(
            "{name:>7}: {} transactions a window, p50 {} us, p99 {} us (medians of {PAIRS} windows of {WINDOW:?})",
            median(windows, |w| w.transactions as f64),
            median(windows, |w| w.p50_us as f64),
            median(windows, |w| w.p99_us as f64),
        );
    }
    let mut ratios: Vec<f64> = without
        .iter()
        .zip(&with)
        .map(|(without, with)| with.p99_us as f64 / without.p99_us as f64)
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!("p99 with to p99 without, pair by pair: {ratios:.2?}");
    let idle = median(&without, |w| w.beside_us);
    let scrape = median(&with, |w| (w.beside_us - idle) / w.scrapes as f64);
    println!("CPU a scrape: {:.1} ms, beside the workers", scrape / 1e3);
    assert!(with.iter().all(|window| window.scrapes > 0));
    let prometheus = Prometheus::start(port, interval, &format!("prometheus-{name}"));
    window(&pooler, &mut mine, None);
    for _ in 0..10 {
        window(&pooler, &mut mine, None);
    }
    let over = |f: &str| prometheus.value(&format!("{f}_over_time(scrape_duration_seconds[30s])"));
    println!(
        "Prometheus: scrape_duration_seconds mean {:.1} ms, max {:.1} ms",
        over("avg").unwrap() * 1e3,
        over("max").unwrap() * 1e3,
    );
    assert_eq!(prometheus.value("min_over_time(up[30s])"), Some(1.0));
    prometheus.stop();
}

fn median(windows: &[Seen], of: impl Fn(&Seen) -> f64) -> f64 {
    let mut all: Vec<f64> = windows.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn window(pooler: &Pooler, clients: &mut [Vec<Wire>], scraped: Option<u16>) -> Seen {
    let stop = AtomicBool::new(false);
    let before = beside_us(pooler.pid());
    let (mut all, scrapes): (Vec<u128>, usize) = std::thread::scope(|scope| {
        let stop = &stop;
        let running: Vec<_> = clients
            .iter_mut()
            .map(|mine| scope.spawn(move || round(mine, stop)))
            .collect();
        let scraper = scraped.map(|port| {
            scope.spawn(move || {
                let mut scrapes = 0;
                while !stop.load(Ordering::Relaxed) {
                    scrape(port);
                    scrapes += 1;
                    std::thread::sleep(EVERY);
                }
                scrapes
            })
        });
        std::thread::sleep(WINDOW);
        stop.store(true, Ordering::Relaxed);
        let took = running.into_iter().flat_map(|t| t.join().unwrap());
        let took = took.collect();
        (took, scraper.map_or(0, |s| s.join().unwrap()))
    });
    let beside_us = beside_us(pooler.pid()) - before;
    all.sort_unstable();
    Seen {
        transactions: all.len(),
        p50_us: all[all.len() / 2],
        p99_us: all[all.len() * 99 / 100],
        scrapes,
        beside_us,
    }
}

/// How long each transaction took, in microseconds.
fn round(mine: &mut [Wire], stop: &AtomicBool) -> Vec<u128> {
    let mut took = Vec::new();
    for at in (0..mine.len()).cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        mine[at].send(&[query("SELECT 1")]);
        mine[at].recv_to_ready();
        took.push(began.elapsed().as_micros());
        std::thread::sleep(Duration::from_millis(5));
    }
    took
}

/// CPU time of the threads that are no workers so far, from the scheduler; a thread that has ended takes its own with it.
fn beside_us(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |path: std::path::PathBuf| {
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        let stat = std::fs::read_to_string(path.join("schedstat")).ok()?;
        let ns: f64 = stat.split_whitespace().next()?.parse().ok()?;
        (!name.starts_with("worker")).then_some(ns)
    };
    let ns: f64 = tasks.filter_map(|entry| of(entry.ok()?.path())).sum();
    ns / 1e3
}
