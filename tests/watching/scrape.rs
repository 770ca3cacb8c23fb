//! Scrapes: what promtool says of them, that a real Prometheus takes them, and whom they wake.

use std::time::{Duration, Instant};

use pooler::demo::free_port;

use crate::prometheus::{Prometheus, get, metrics_port, promtool, scrape};
use crate::stuck::{Stuck, id_of};
use crate::support::{Pooler, Rig, Wire, postgres, query, wait_until};

pub(crate) const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:0\"";

pub(crate) fn databases(n: usize) -> String {
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
    let buckets = "sum(pooler_query_seconds_bucket{le=\"+Inf\"})";
    // One that is late, on a busy machine, has no values.
    wait_until("all queries are scraped", || {
        prometheus.value("sum(pooler_queries_total)") == Some(90.0)
            && prometheus.value(count) == Some(11.0)
            && prometheus.value(buckets) == Some(90.0)
            && prometheus.value("min(up)") == Some(1.0)
    });
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
    let worker = rig.pooler.thread("worker-0").expect("a worker");
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

/// Nor does it wait for one, or for a lock that one could hold when it stops.
#[test]
fn t78_a_scrape_is_answered_while_a_worker_stands_still() {
    let rig = Rig::with(|b| b.set("workers = 2").section(METRICS));
    let port = metrics_port(&rig.pooler);
    let mut wires: Vec<Wire> = (0..8).map(|_| rig.login()).collect();
    for wire in &mut wires {
        wire.one("SELECT 1");
    }
    let worker = rig.pooler.thread("worker-0").expect("a worker");
    let Some(stuck) = Stuck::new(id_of(&worker)) else {
        return;
    };
    for wire in &mut wires {
        wire.send(&[query("SELECT 2")]);
    }
    for path in ["/metrics", "/healthz", "/metrics"] {
        let (status, _) = get(port, path);
        assert!(status.ends_with("200 OK"), "{path}: {status}");
    }
    drop(stuck);
    for wire in &mut wires {
        wire.expect("T D(2) C(SELECT 1) Z(I)");
    }
}
