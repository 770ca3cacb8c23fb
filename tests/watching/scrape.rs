//! Scrapes: what promtool says of them, that a real Prometheus takes them, and what they cost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pooler::demo::free_port;
use pooler::demo::postgres::Postgres;

use crate::prometheus::{Prometheus, get, metrics_port, promtool, scrape};
use crate::support::{Builder, Pooler, Rig, Wire, postgres, query, wait_until};

const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:0\"";

fn databases(n: usize) -> String {
    let section = |n| format!("[databases.d{n:04}]\ncluster = \"main\"\ndbname = \"postgres\"\n");
    (0..n).map(section).collect()
}

#[test]
fn promtool_finds_nothing_to_say() {
    let rig = Rig::with(|b| b.section(METRICS));
    let mut wire = rig.login();
    wire.one("SELECT 1");
    assert!(wire.try_rows("SELECT 1/0").is_err());
    let port = metrics_port(&rig.pooler);
    let text = scrape(port);
    assert!(text.contains("sqlstate=\"22012\""), "{text}");
    assert_eq!(promtool(&["check", "metrics"], &text), "");
}

/// From a slow bucket of a histogram to a trace: a real Prometheus asks for OpenMetrics by itself, and keeps them.
#[test]
fn a_real_prometheus_takes_the_traces_of_slow_transactions() {
    // Nobody is there to take the spans.
    let away = format!("http://127.0.0.1:{}", free_port().unwrap());
    let tracing = format!("{METRICS}\n[tracing]\notlp_endpoint = \"{away}\"");
    let rig = Rig::with(|b| b.section(&tracing));
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let comment = format!("/*traceparent='00-{trace}-b7ad6b7169203331-01'*/");
    rig.login().rows(&format!("SELECT pg_sleep(0.2) {comment}"));
    let port = metrics_port(&rig.pooler);
    let interval = Duration::from_millis(500);
    let prometheus = Prometheus::start(port, interval, "prometheus-exemplars");
    let mut found = Vec::new();
    wait_until("Prometheus has the exemplar", || {
        found = prometheus.exemplars("pooler_transaction_seconds_bucket");
        !found.is_empty()
    });
    let (labels, value) = &found[0];
    assert_eq!(labels["trace_id"], trace);
    assert!(*value >= 0.2, "{value}");
    prometheus.stop();
}

/// The cap holds, Prometheus takes everything, and what it adds up is what was done.
#[test]
fn a_real_prometheus_scrapes_more_pools_than_have_places() {
    let pools = 30;
    let metrics = format!("{METRICS}\nmax_pools = 10");
    let pooler = Pooler::before(postgres())
        .set("pool_size = 1")
        .section(&databases(pools))
        .section(&metrics)
        .start();
    let mut wires: Vec<Wire> = (0..pools)
        .map(|n| pooler.login("postgres", &format!("d{n:04}")))
        .collect();
    let port = metrics_port(&pooler);
    let interval = Duration::from_millis(500);
    let prometheus = Prometheus::start(port, interval, "prometheus-places");
    for wire in &mut wires {
        for _ in 0..3 {
            wire.one("SELECT 1");
        }
    }
    let count = "count(count by (database, user) (pooler_queries_total))";
    wait_until("all queries are scraped", || {
        prometheus.value("sum(pooler_queries_total)") == Some(90.0)
    });
    assert_eq!(prometheus.value(count), Some(11.0));
    let buckets = "sum(pooler_query_seconds_bucket{le=\"+Inf\"})";
    assert_eq!(prometheus.value(buckets), Some(90.0));
    assert_eq!(prometheus.value("min(up)"), Some(1.0));
    prometheus.stop();
}

/// A worker that does nothing for a while holds no scrape up: it is not asked.
#[test]
fn t78_a_scrape_asks_no_worker() {
    let rig = Rig::with(|b| b.set("workers = 1").section(METRICS));
    let port = metrics_port(&rig.pooler);
    let mut wire = rig.login();
    wire.one("SELECT 1");
    let mut other = rig.login();
    other.one("SELECT 1");
    let threads = format!("/proc/{}/task", rig.pooler.pid());
    let worker = std::fs::read_dir(threads).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap();
        name.starts_with("worker").then_some(path)
    });
    let worker = worker.expect("a thread of that name");
    let slept = || {
        let status = std::fs::read_to_string(worker.join("status")).unwrap();
        let line = status.lines().find(|l| l.starts_with("voluntary_ctxt"));
        let count = line.unwrap().split_whitespace().nth(1).unwrap();
        count.parse::<u64>().unwrap()
    };
    // It wakes five times a second to look at deadlines, scrapes or not; 300 scrapes must not show.
    let began = Instant::now();
    let before = slept();
    for _ in 0..300 {
        let (status, _) = get(port, "/metrics");
        assert!(status.ends_with("200 OK"), "{status}");
    }
    let woken = slept() - before;
    let sweeps = began.elapsed().as_millis() as u64 / 200 + 2;
    assert!(
        woken <= 4 * sweeps + 20,
        "woken {woken} times, swept {sweeps} times"
    );
}

/// `make prometheus`: rounds with and without a scraper, in turns.
#[test]
#[ignore = "a measurement of two minutes"]
fn a_thousand_pools_for_a_minute() {
    let pools = 1000;
    let server = Postgres::builder().max_connections(1100).start().unwrap();
    let builder: Builder = Pooler::before(&server);
    let pooler = builder
        .set("pool_size = 1")
        .set("workers = 2")
        .section(&databases(pools))
        .section(METRICS)
        .start();
    let port = metrics_port(&pooler);
    let threads = 10;
    let mut mine: Vec<Vec<Wire>> = (0..threads).map(|_| Vec::new()).collect();
    for n in 0..pools {
        let mut wire = pooler.login("postgres", &format!("d{n:04}"));
        wire.one("SELECT 1");
        mine[n % threads].push(wire);
    }
    let text = scrape(port);
    println!(
        "{} lines, {} bytes a scrape",
        text.lines().count(),
        text.len()
    );
    let mut table = Vec::new();
    for round in 0..3 {
        let without = load(&mut mine, Duration::from_secs(20));
        let name = format!("prometheus-minute{round}");
        let prometheus = Prometheus::start(port, Duration::from_secs(1), &name);
        let cpu = pooler.cpu_centiseconds().unwrap_or_default();
        let with = load(&mut mine, Duration::from_secs(20));
        let cpu = pooler.cpu_centiseconds().unwrap_or_default() - cpu;
        let over =
            |f: &str| prometheus.value(&format!("{f}_over_time(scrape_duration_seconds[1m])"));
        let ms = |f| over(f).unwrap() * 1e3;
        println!(
            "round {round}: scrape_duration_seconds mean {:.1} ms, max {:.1} ms; CPU {cpu} cs; up {:?}",
            ms("avg"),
            ms("max"),
            prometheus.value("min_over_time(up[20s])"),
        );
        assert_eq!(prometheus.value("min_over_time(up[20s])"), Some(1.0));
        table.push((without, with));
        prometheus.stop();
    }
    println!("transactions, p50 and p99 in us, without and with the scraper:");
    for (without, with) in table {
        println!("  {without:?}  {with:?}");
    }
}

/// Each thread goes round its clients, a pause of 5 ms between two. How many, and their p50 and p99 in
/// microseconds.
fn load(clients: &mut [Vec<Wire>], time: Duration) -> (usize, u128, u128) {
    let stop = AtomicBool::new(false);
    let mut all: Vec<u128> = std::thread::scope(|scope| {
        let running: Vec<_> = clients
            .iter_mut()
            .map(|mine| {
                let stop = &stop;
                scope.spawn(move || {
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
                })
            })
            .collect();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        running
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    all.sort_unstable();
    (all.len(), all[all.len() / 2], all[all.len() * 99 / 100])
}
