//! A real application with OpenTelemetry: one trace from its spans to the pooler's.

use std::path::{Path, PathBuf};
use std::process::Command;

use opentelemetry_proto::tonic::trace::v1::Span;

use crate::collector::{Collector, attribute, hex, seconds, toward};
use crate::support::{Rig, wait_until};

/// By how much a duration here may differ from the application's.
const SHARE_MAX: f64 = 0.05;

/// The Python of the environment that `scripts/install-traced-python.sh` makes.
fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = Command::new("sh")
        .arg(root.join("scripts/install-traced-python.sh"))
        .status();
    assert!(
        made.expect("a shell").success(),
        "scripts/install-traced-python.sh failed"
    );
    root.join("target/traced-python/bin/python")
}

#[test]
fn one_trace_from_the_applications_span_to_the_poolers() {
    // Of three tries, because the machine may keep the application from looking at its clock in one.
    let mut shares = (0..3).map(|_| differs_by());
    assert!(shares.any(|share| share <= SHARE_MAX), "all differ by more");
}

/// Runs the application, looks at its trace, and says by which share of the application's a duration here differs at most.
fn differs_by() -> f64 {
    let collector = Collector::start();
    let rig = Rig::with(toward(collector.port));
    let dsn = format!(
        "host=127.0.0.1 port={} user=postgres dbname={} sslmode=disable",
        rig.pooler.port(),
        rig.database
    );
    let ran = Command::new(python())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces/application.py"))
        .args([&dsn, &format!("http://127.0.0.1:{}", collector.port)])
        .output()
        .expect("Python");
    let said = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    // Of the application: the request, the block, three statements. Of the pooler: a transaction with one statement, one
    // with two and COMMIT.
    let mut spans = Vec::new();
    wait_until("the trace is whole", || {
        spans = collector.spans();
        spans.retain(|span| hex(&span.trace_id) == said);
        spans.len() >= 11
    });
    assert_eq!(spans.len(), 11, "{spans:#?}");
    let transaction = format!("transaction {}", rig.database);
    let transactions: Vec<&Span> = spans.iter().filter(|s| s.name == transaction).collect();
    let text = |span: &Span| {
        let new = attribute(&span.attributes, "db.query.text");
        new.or_else(|| attribute(&span.attributes, "db.statement"))
            .unwrap_or_default()
    };
    // The statement of the application whose text has this, and the transaction below it.
    let pair = |part: &str| {
        let is_callers =
            |s: &&Span| text(s).contains(part) && attribute(&s.attributes, "pooler.pool").is_none();
        let callers: Vec<&Span> = spans.iter().filter(is_callers).collect();
        let below = |s: &&&Span| callers.iter().any(|c| c.span_id == s.parent_span_id);
        let ours = *transactions
            .iter()
            .find(below)
            .expect("a transaction below it");
        let caller = *callers
            .iter()
            .find(|c| c.span_id == ours.parent_span_id)
            .expect("its parent");
        (caller, ours)
    };
    let (caller, ours) = pair("single");
    let mut most = share(seconds(ours), seconds(caller));
    // What it ran is told without what it was run with.
    let statement = spans
        .iter()
        .find(|s| s.parent_span_id == ours.span_id)
        .expect("a statement");
    assert!(
        text(statement).starts_with("SELECT pg_sleep(?), "),
        "{statement:?}"
    );
    assert!(!text(statement).contains("Hidden") && !text(statement).contains("/*"));
    // The block's first statement names the transaction's parent; it lasts as long as the block.
    let (first, ours) = pair("first");
    let block = spans.iter().find(|s| s.name == "block").expect("the block");
    assert_eq!(first.parent_span_id, block.span_id);
    most = most.max(share(seconds(ours), seconds(block)));
    let below: Vec<&Span> = spans
        .iter()
        .filter(|s| s.parent_span_id == ours.span_id)
        .collect();
    assert_eq!(below.len(), 3, "{below:#?}");
    // The second statement is linked to the application's span for it.
    let second = below
        .iter()
        .find(|s| text(s).contains("second"))
        .expect("a statement");
    let linked = &second.links.first().expect("a link").span_id;
    let theirs = spans
        .iter()
        .find(|s| s.span_id == *linked)
        .expect("the application's");
    assert_eq!(theirs.parent_span_id, block.span_id);
    most.max(share(seconds(second), seconds(theirs)))
}

fn share(ours: f64, theirs: f64) -> f64 {
    let share = (ours - theirs).abs() / theirs;
    println!(
        "{ours:.4} s here, {theirs:.4} s there: {:.2} %",
        share * 100.0
    );
    share
}
