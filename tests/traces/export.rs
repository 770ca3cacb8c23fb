//! What becomes of spans when the collector is slow, away, busy, or says no; and where they go.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use pooler::demo::free_port;
use prost::Message;

use crate::collector::{Collector, Says, hex, toward};
use crate::support::{Rig, Wire, get, metrics_port, wait_until};

const CALLER: &str = "b7ad6b7169203331";

/// Runs so many traced transactions; each has two spans. The id of the first one's trace.
fn work(client: &mut Wire, transactions: u32) -> String {
    let trace = |n: u32| format!("0af7651916cd43dd8448eb21{n:08x}");
    for n in 0..transactions {
        client.rows(&format!(
            "SELECT {n} /*traceparent='00-{}-{CALLER}-01'*/",
            trace(n)
        ));
    }
    trace(0)
}

/// The value of a metric of the pooler's.
fn metric(rig: &Rig, name: &str) -> u64 {
    let (_, text) = get(metrics_port(&rig.pooler), "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name}: {text}"));
    value.trim().parse().expect("a whole number")
}

fn roots(collector: &Collector) -> usize {
    let spans = collector.spans();
    spans
        .iter()
        .filter(|s| hex(&s.parent_span_id) == CALLER)
        .count()
}

fn wait_metric(rig: &Rig, name: &str, wanted: u64) {
    wait_until(&format!("{name} is {wanted}"), || {
        metric(rig, name) == wanted
    });
}

const EXPORTED: &str = "pooler_spans_exported_total ";
const UNAVAILABLE: &str = "pooler_spans_dropped_total{reason=\"unavailable\"} ";
const REFUSED: &str = "pooler_spans_dropped_total{reason=\"refused\"} ";
const FULL: &str = "pooler_spans_dropped_total{reason=\"queue_full\"} ";

fn rig(port: u16) -> Rig {
    Rig::with(|b| {
        let b = toward(port)(b).set("workers = 1");
        b.section("[metrics]\nlisten = \"127.0.0.1:0\"\n")
    })
}

/// A collector that takes nothing in: transactions go on, the queue fills, the rest is dropped and counted.
#[test]
fn a_slow_collector_costs_spans_and_no_transaction() {
    let collector = Collector::start();
    let rig = rig(collector.port);
    collector.say(vec![Says::Nothing(Duration::from_secs(300)); 8]);
    let mut client = rig.login();
    let began = Instant::now();
    work(&mut client, 3000);
    assert!(began.elapsed() < Duration::from_secs(290));
    let dropped = metric(&rig, FULL);
    // One batch is under way, 2048 transactions wait.
    assert!(dropped >= 2 * (3000 - 2048 - 512), "{dropped}");
    assert_eq!(metric(&rig, EXPORTED), 0);
}

#[test]
fn a_collector_that_is_away_at_first_gets_what_waited() {
    let port = free_port().expect("a port");
    let rig = rig(port);
    let trace = work(&mut rig.login(), 3);
    // At least one attempt is in vain.
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(metric(&rig, EXPORTED), 0);
    let collector = Collector::on(port);
    collector.wait_trace(&trace, 2);
    wait_metric(&rig, EXPORTED, 6);
    assert_eq!(metric(&rig, UNAVAILABLE), 0);
}

/// 429 and 503 are "later", as the collector says when; what it says no to is counted and not sent again.
#[test]
fn a_busy_collector_is_asked_again_and_one_that_refuses_is_not() {
    let collector = Collector::start();
    let rig = rig(collector.port);
    let mut client = rig.login();
    collector.say([
        Says::Status(503, "Retry-After: 2\r\n", Vec::new()),
        Says::Status(429, "", Vec::new()),
    ]);
    let began = Instant::now();
    let trace = work(&mut client, 1);
    collector.wait_trace(&trace, 2);
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    wait_metric(&rig, EXPORTED, 2);
    collector.say([Says::Status(400, "", Vec::new())]);
    work(&mut client, 1);
    wait_metric(&rig, REFUSED, 2);
    let partly = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 1,
            error_message: "one too many".to_owned(),
        }),
    };
    collector.say([Says::Status(200, "", partly.encode_to_vec())]);
    work(&mut client, 1);
    wait_metric(&rig, REFUSED, 3);
    wait_metric(&rig, EXPORTED, 3);
}

/// Headers go along, and are shown nowhere; a reload sends what follows elsewhere, or nowhere.
#[test]
fn t63_a_reload_changes_where_traces_go_and_shows_no_secret() {
    let (first, second) = (Collector::start(), Collector::start());
    let rig = Rig::with(|b| {
        let b = b.set("workers = 1").set("admin_users = [\"postgres\"]");
        toward(first.port)(b).section("headers = { authorization = \"Bearer Hidden\" }\n")
    });
    let mut client = rig.login();
    let trace = work(&mut client, 1);
    first.wait_trace(&trace, 2);
    let head = first.got()[0].head.to_ascii_lowercase();
    assert!(head.contains("authorization: bearer hidden\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf\r\n"),
        "{head}"
    );
    let text = std::fs::read_to_string(rig.pooler.dir().join("pooler.toml")).expect("a file");
    let elsewhere = text.replace(&format!(":{}", first.port), &format!(":{}", second.port));
    rig.pooler.reload_text(&elsewhere);
    wait_until("it has reloaded", || {
        rig.pooler.log().contains("configuration reloaded")
    });
    let trace = work(&mut client, 1);
    second.wait_trace(&trace, 2);
    let mut console = Wire::login(rig.pooler.port(), "postgres", "pooler");
    let shown = console.rows("SHOW CONFIG");
    let headers = shown
        .iter()
        .find(|row| row[0] == "tracing.headers")
        .expect("a row");
    assert_eq!(headers[1], "authorization (not shown)");
    rig.pooler
        .reload_text(&text.replace("otlp_endpoint", "#otlp_endpoint"));
    wait_until("it has reloaded again", || {
        rig.pooler.log().matches("configuration reloaded").count() == 2
    });
    client.rows("SELECT 1");
    work(&mut client, 1);
    rig.pooler.signal("INT");
    client.leave();
    rig.pooler.wait_exit();
    // Of the last one nothing went anywhere.
    assert_eq!((roots(&first), roots(&second)), (1, 1));
    assert!(!rig.pooler.log().contains("Hidden"));
}

/// What is still in the queue when the process ends is sent, within bounds.
#[test]
fn the_last_traces_are_sent_at_the_end() {
    // Within two seconds, which may be too short for a busy machine: one of three poolers.
    let sent = || {
        let collector = Collector::start();
        let rig = rig(collector.port);
        let mut client = rig.login();
        work(&mut client, 1);
        client.leave();
        rig.pooler.signal("TERM");
        rig.pooler.wait_exit();
        collector.spans().len()
    };
    assert!((0..3).any(|_| sent() == 2));
    // One that is away does not keep it.
    let rig = self::rig(free_port().expect("a port"));
    let mut client = rig.login();
    work(&mut client, 1);
    client.leave();
    let began = Instant::now();
    rig.pooler.signal("TERM");
    rig.pooler.wait_exit();
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    assert!(
        rig.pooler.log().contains("spans were dropped"),
        "{}",
        rig.pooler.log()
    );
}
