//! What the spans of a transaction are: their parents, names, attributes, times and ends.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::collector::{Collector, attribute, hex, seconds, toward};
use crate::support as m;
use crate::support::{Rig, SERVERS, Wire};

const CALLER: &str = "b7ad6b7169203331";

/// A trace of the test's own, and the comment that names it.
fn traced(number: u32) -> (String, String) {
    let trace = format!("0af7651916cd43dd8448eb21{number:08x}");
    let comment = format!("/*app='shop',traceparent='00-{trace}-{CALLER}-01',tracestate='a%3D1'*/");
    (trace, comment)
}

fn of(span: &Span, key: &str) -> String {
    attribute(&span.attributes, key).unwrap_or_else(|| panic!("no {key}: {span:?}"))
}

/// The spans in the order in which they began; of two that began at once, the outer first.
fn in_order(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| {
        (
            span.start_time_unix_nano,
            std::cmp::Reverse(span.end_time_unix_nano),
        )
    });
    spans
}

/// All are one tree below the caller's span, and no child lies outside of the root.
fn root(spans: &[Span]) -> &Span {
    let is_root = |span: &&Span| hex(&span.parent_span_id) == CALLER;
    let mut roots = spans.iter().filter(is_root);
    let root = roots.next().expect("a child of the caller's span");
    assert!(roots.next().is_none(), "{spans:#?}");
    for span in spans {
        assert_eq!(span.trace_state, "a=1");
        let inside = span.start_time_unix_nano >= root.start_time_unix_nano
            && span.end_time_unix_nano <= root.end_time_unix_nano;
        assert!(
            inside || span.name == "connect",
            "{span:#?} outside of {root:#?}"
        );
        let has_parent = spans
            .iter()
            .any(|other| other.span_id == span.parent_span_id);
        assert!(has_parent || span.span_id == root.span_id, "{span:#?}");
    }
    root
}

#[test]
fn a_transaction_is_a_span_with_its_statements_below() {
    let collector = Collector::start();
    let rig = Rig::with(toward(collector.port));
    let mut client = rig.login_with(&[("application_name", "shop")]);
    let (trace, comment) = traced(1);
    client.rows("BEGIN");
    client.rows(&format!(
        "SELECT 'Hidden', g FROM generate_series(1, 7) g {comment}"
    ));
    client.rows("COMMIT");
    let spans = in_order(collector.wait_trace(&trace, 3));
    let root = root(&spans);
    assert_eq!(root.name, format!("transaction {}", rig.database));
    assert_eq!(root.kind(), SpanKind::Server);
    assert_eq!(root.status, None);
    let database = &*rig.database;
    let pool = format!("{database}/postgres");
    for (key, value) in [
        ("db.system.name", "postgresql"),
        ("db.namespace", database),
        ("server.address", "127.0.0.1"),
        ("client.address", "127.0.0.1"),
        ("user.name", "postgres"),
        ("pooler.application_name", "shop"),
        ("pooler.pool", &pool),
        ("pooler.role", "primary"),
        ("pooler.pinned", "false"),
    ] {
        assert_eq!(of(root, key), value, "{key}");
    }
    // What came before the caller was named has no span of its own, but its time counts.
    let select = &spans[1];
    assert_eq!(select.name, format!("SELECT {database}"));
    assert_eq!(select.kind(), SpanKind::Client);
    assert_eq!(of(select, "db.operation.name"), "SELECT");
    assert_eq!(
        of(select, "db.query.text"),
        "SELECT ?, g FROM generate_series(?, ?) g"
    );
    assert_eq!(of(select, "db.response.returned_rows"), "7");
    assert_eq!(spans[2].name, format!("COMMIT {database}"));
    assert!(select.start_time_unix_nano > root.start_time_unix_nano);
    let resource = collector.got()[0].request.resource_spans[0]
        .resource
        .clone()
        .unwrap();
    assert_eq!(
        attribute(&resource.attributes, "service.name").as_deref(),
        Some("pooler")
    );
    for key in ["service.version", "service.instance.id", "host.name"] {
        assert!(attribute(&resource.attributes, key).is_some(), "{key}");
    }
}

/// The first client opens the only server, the second waits until it is free.
#[test]
fn waiting_and_connecting_have_spans() {
    let collector = Collector::start();
    let rig = Rig::with(|b| toward(collector.port)(b).set("pool_size = 1"));
    // The login has opened one already, to hear what servers say.
    rig.login().leave();
    rig.sql(&format!("SELECT pg_terminate_backend(pid) {SERVERS}"));
    let (trace, comment) = traced(1);
    let mut holder = rig.login();
    let mut waiter = rig.login();
    rig.sql(&format!("SELECT pg_terminate_backend(pid) {SERVERS}"));
    rig.wait_sql(&format!("NOT EXISTS (SELECT {SERVERS})"));
    holder.rows(&format!("BEGIN {comment}"));
    let (waited, comment) = traced(2);
    waiter.send(&[m::query(&format!("SELECT 1 {comment}"))]);
    std::thread::sleep(Duration::from_secs(1));
    holder.rows("COMMIT");
    waiter.recv_to_ready();
    let spans = in_order(collector.wait_whole_trace(&trace, 5));
    let root_span = root(&spans);
    let find = |spans: &[Span], name: &str| {
        spans
            .iter()
            .find(|s| s.name == name)
            .cloned()
            .expect("a span")
    };
    let (wait, connect) = (find(&spans, "wait"), find(&spans, "connect"));
    assert_eq!(
        (wait.kind(), connect.kind()),
        (SpanKind::Internal, SpanKind::Client)
    );
    assert_eq!(wait.parent_span_id, root_span.span_id);
    assert_eq!(connect.parent_span_id, wait.span_id);
    let spans = in_order(collector.wait_whole_trace(&waited, 3));
    let root_span = root(&spans);
    let wait = find(&spans, "wait");
    assert!(seconds(&wait) >= 0.5, "{wait:?}");
    assert!(seconds(root_span) >= seconds(&wait));
    assert_eq!(wait.start_time_unix_nano, root_span.start_time_unix_nano);
}

#[test]
fn errors_carry_their_sqlstate() {
    let collector = Collector::start();
    let rig = Rig::with(toward(collector.port));
    let mut client = rig.login();
    let (trace, comment) = traced(1);
    let error = client
        .try_rows(&format!("SELECT 1/0 {comment}"))
        .expect_err("a division");
    assert_eq!(error.sqlstate(), "22012");
    for span in collector.wait_trace(&trace, 2) {
        assert_eq!(of(&span, "db.response.status_code"), "22012");
        assert_eq!(of(&span, "error.type"), "22012");
        assert_eq!(span.status.unwrap().code, 2);
    }
}

/// Only what the caller records is recorded here, and only the share that is asked for.
#[test]
fn callers_that_record_nothing_have_no_spans() {
    let collector = Collector::start();
    let rig = Rig::with(|b| {
        let half = "sample_ratio = 0.5\n";
        toward(collector.port)(b).section(half)
    });
    let mut client = rig.login();
    let trace = "0af7651916cd43dd0448eb211c80319c";
    let other = "0af7651916cd43ddf448eb211c80319c";
    for bad in [
        format!("00-{trace}-{CALLER}-00"),
        format!("00-{trace}-{CALLER}"),
        format!("ff-{trace}-{CALLER}-01"),
        format!("00-{trace}-0000000000000000-01"),
        "nonsense".to_owned(),
        // By its number it is one of the other half.
        format!("00-{other}-{CALLER}-01"),
    ] {
        client.rows(&format!("SELECT 1 /*traceparent='{bad}'*/"));
    }
    client.rows(&format!(
        "SELECT '/*traceparent=''00-{trace}-{CALLER}-01''*/'"
    ));
    let last = "0af7651916cd43dd0448eb2100000001";
    client.rows(&format!("SELECT 1 /*traceparent='00-{last}-{CALLER}-01'*/"));
    collector_has_only(&collector, last, 2);
}

fn collector_has_only(collector: &Collector, trace: &str, count: usize) {
    collector.wait_trace(trace, count);
    let others = collector
        .spans()
        .into_iter()
        .filter(|span| hex(&span.trace_id) != trace);
    assert_eq!(others.count(), 0);
}

/// A session can name its caller once for all statements; a comment counts more.
#[test]
fn a_session_names_its_caller_by_a_setting() {
    let collector = Collector::start();
    let rig = Rig::with(toward(collector.port));
    let trace = |n: u32| format!("0af7651916cd43dd8448eb21{n:08x}");
    let parent = |n: u32| format!("00-{}-{CALLER}-01", trace(n));
    let options = format!("-c pooler.traceparent={}", parent(1));
    let mut client = rig.login_with(&[("options", &options)]);
    client.rows("SELECT 1");
    let spans = collector.wait_trace(&trace(1), 2);
    assert_eq!(
        spans
            .iter()
            .filter(|s| hex(&s.parent_span_id) == CALLER)
            .count(),
        1
    );
    client.rows(&format!("SELECT 1 /*traceparent='{}'*/", parent(2)));
    collector.wait_trace(&trace(2), 2);
    client.rows(&format!("SET pooler.traceparent = '{}'", parent(3)));
    client.send(&[
        m::parse("", "SELECT 2"),
        m::bind("", "", &[]),
        m::execute(""),
        m::sync(),
    ]);
    client.recv_to_ready();
    let spans = collector.wait_trace(&trace(3), 2);
    assert!(
        spans.iter().any(|s| s.name.starts_with("SELECT ")),
        "{spans:?}"
    );
    client.rows("RESET ALL");
    client.rows(&format!(
        "SET pooler.traceparent = '{}'",
        parent(4).replace("-01", "-00")
    ));
    client.rows("SELECT 4");
    assert!(
        collector
            .spans()
            .iter()
            .all(|s| hex(&s.trace_id) != trace(4))
    );
}

/// The batches of several transactions are under way at once, each with a caller of its own.
#[test]
fn transactions_in_a_pipeline_have_a_span_each() {
    let collector = Collector::start();
    let rig = Rig::with(toward(collector.port));
    let mut client = rig.login();
    let mut batch = Vec::new();
    let mut put = |text: &str, sync: bool| {
        batch.extend([m::parse("", text), m::bind("", "", &[]), m::execute("")]);
        if sync {
            batch.push(m::sync());
        }
    };
    let ((first, one), (second, two)) = (traced(1), traced(2));
    put(&format!("SELECT pg_sleep(0.2) {one}"), false);
    put("SELECT 2", true);
    put("SELECT 'nobody asks'", true);
    put("BEGIN", true);
    put(&format!("SELECT 3 {two}"), true);
    put("COMMIT", true);
    client.send(&batch);
    for _ in 0..5 {
        client.recv_to_ready();
    }
    // One batch with two statements: a span each, and the first has slept.
    let spans = in_order(collector.wait_trace(&first, 3));
    let root_span = root(&spans);
    assert_eq!(spans[0].span_id, root_span.span_id);
    let times: Vec<f64> = spans[1..].iter().map(seconds).collect();
    assert!(times[0] >= 0.2 && times[1] < times[0], "{times:?}");
    let spans = in_order(collector.wait_trace(&second, 3));
    root(&spans);
    assert!(spans[2].name.starts_with("COMMIT "), "{spans:#?}");
}

/// The first caller of a pipeline is not the caller of what is too far behind it to be kept: that has none.
#[test]
fn in_a_long_pipeline_nobody_gets_the_first_callers_trace() {
    let collector = Collector::start();
    let rig = Rig::with(toward(collector.port));
    let mut client = rig.login();
    let (first, one) = traced(1);
    let (last, two) = traced(2);
    let padding = "x".repeat(200);
    let mut batch = vec![m::query(&format!("SELECT pg_sleep(0.2) {one}"))];
    batch.extend((0..200).map(|n| m::query(&format!("SELECT {n} /* {padding} */"))));
    client.send(&batch);
    for _ in &batch {
        client.recv_to_ready();
    }
    client.rows(&format!("SELECT 2 {two}"));
    collector.wait_trace(&last, 2);
    collector.wait_trace(&first, 2);
}

/// A batch that is longer than what is kept says who asked at its end; those before and behind it are nobody's.
#[test]
fn a_caller_who_is_named_late_in_a_long_batch_has_that_batch() {
    let collector = Collector::start();
    let rig = Rig::with(toward(collector.port));
    let mut client = rig.login();
    let (trace, comment) = traced(1);
    let padding = "x".repeat(300);
    let mut batch = vec![m::query("SELECT pg_sleep(0.2)")];
    let mut put = |text: &str| {
        batch.extend([m::parse("", text), m::bind("", "", &[]), m::execute("")]);
    };
    (0..60).for_each(|n| put(&format!("SELECT {n} /* {padding} */")));
    put(&format!("SELECT 'last' {comment}"));
    batch.push(m::sync());
    batch.push(m::query("SELECT 'behind it'"));
    client.send(&batch);
    for _ in 0..3 {
        client.recv_to_ready();
    }
    let (last, comment) = traced(2);
    client.rows(&format!("SELECT 2 {comment}"));
    collector.wait_trace(&last, 2);
    let spans = collector.spans();
    let roots = spans.iter().filter(|s| hex(&s.trace_id) == trace);
    let roots = roots.filter(|s| hex(&s.parent_span_id) == CALLER);
    assert_eq!(roots.count(), 1);
}

#[test]
fn a_copy_is_a_statement_like_others() {
    let collector = Collector::start();
    let rig = Rig::with(toward(collector.port));
    rig.sql("CREATE TABLE t (a int)");
    let mut client = rig.login();
    let (trace, comment) = traced(1);
    client.send(&[m::query(&format!("COPY t FROM STDIN {comment}"))]);
    client.expect("G");
    client.send(&[m::copy_data(b"1\n2\n3\n"), m::copy_done()]);
    client.recv_to_ready();
    let spans = in_order(collector.wait_trace(&trace, 2));
    root(&spans);
    assert_eq!(spans[1].name, format!("COPY {}", rig.database));
    assert_eq!(of(&spans[1], "db.response.returned_rows"), "3");
    assert_eq!(rig.sql("SELECT count(*) FROM t"), "3");
}

/// Whatever ends a transaction ends its span, and says how.
#[test]
fn transactions_that_break_end() {
    let collector = Collector::start();
    let rig = Rig::with(toward(collector.port));
    // Cancelled: an error like others.
    let (trace, comment) = traced(1);
    let mut client = rig.login();
    client.send(&[m::query(&format!("SELECT pg_sleep(60) {comment}"))]);
    rig.wait_sql("EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%' AND state = 'active')");
    client.cancel();
    client.recv_to_ready();
    for span in collector.wait_trace(&trace, 2) {
        assert_eq!(of(&span, "db.response.status_code"), "57014");
    }
    // The client goes away in the middle of a statement.
    let (trace, comment) = traced(2);
    let mut leaver = rig.login();
    leaver.rows(&format!("BEGIN {comment}"));
    leaver.send(&[m::query("SELECT pg_sleep(61)")]);
    rig.wait_sql("EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(61)%' AND state = 'active')");
    drop(leaver);
    let spans = in_order(collector.wait_trace(&trace, 3));
    let status = root(&spans).status.clone().unwrap();
    assert_eq!(
        (status.code, &*status.message),
        (2, "the client left in the middle of it")
    );
    assert_eq!(of(&spans[2], "db.query.text"), "SELECT pg_sleep(?)");
    // The server goes away, in a statement and between two.
    let (trace, comment) = traced(3);
    let mut client = rig.login();
    client.rows(&format!("BEGIN {comment}"));
    let pid = client.one("SELECT pg_backend_pid()");
    rig.sql(&format!("SELECT pg_terminate_backend({pid})"));
    client.recv_to_end();
    let spans = collector.wait_trace(&trace, 3);
    assert_eq!(root(&spans).status.clone().unwrap().code, 2);
}

/// Who waits in vain for a server has a span that says so.
#[test]
fn a_wait_in_vain_is_a_transaction_too() {
    let collector = Collector::start();
    let rig = Rig::with(|b| {
        let short = b.set("pool_size = 1").set("query_wait_timeout = \"300ms\"");
        toward(collector.port)(short)
    });
    let mut holder = rig.login();
    let mut waiter = rig.login();
    holder.rows("BEGIN");
    let (trace, comment) = traced(1);
    let error = waiter
        .try_rows(&format!("SELECT 'Hidden' {comment}"))
        .expect_err("no server");
    assert_eq!(error.sqlstate(), "53400");
    let spans = collector.wait_whole_trace(&trace, 2);
    let root = root(&spans);
    assert_eq!(of(root, "db.response.status_code"), "53400");
    assert_eq!(of(root, "db.query.text"), "SELECT ?");
    assert!(seconds(root) >= 0.3);
    holder.rows("COMMIT");
}

/// A client that keeps its server ends its transactions all the same.
#[test]
fn transactions_of_pinned_clients_and_of_session_pools_end() {
    let collector = Collector::start();
    let rig = Rig::with(toward(collector.port));
    let pinned = |client: &mut Wire, number: u32| {
        let (trace, comment) = traced(number);
        client.rows(&format!("SELECT 1 {comment}"));
        let spans = collector.wait_trace(&trace, 2);
        of(root(&spans), "pooler.pinned")
    };
    let mut client = rig.login();
    client.rows("SELECT pg_advisory_lock(1)");
    assert_eq!(pinned(&mut client, 1), "true");
    assert_eq!(pinned(&mut client, 2), "true");
    client.rows("SELECT pg_advisory_unlock(1)");
    assert_eq!(pinned(&mut client, 3), "false");
    let by_session = Rig::with(|b| toward(collector.port)(b).set("pool_mode = \"session\""));
    let mut client = by_session.login();
    pinned(&mut client, 4);
    pinned(&mut client, 5);
}

/// And a client that keeps its server may leave it: a transaction that has ended is not broken by that, nor is there one more.
#[test]
fn a_pinned_client_that_leaves_breaks_no_transaction() {
    let collector = Collector::start();
    let rig = Rig::with(toward(collector.port));
    let ((trace, _), (last, comment)) = (traced(1), traced(2));
    let options = format!("-c pooler.traceparent=00-{trace}-{CALLER}-01");
    let mut client = rig.login_with(&[("options", &options)]);
    client.rows("SELECT pg_advisory_lock(1)");
    client.leave();
    let here = "(SELECT oid FROM pg_database WHERE datname = current_database())";
    rig.wait_sql(&format!(
        "NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND database = {here})"
    ));
    rig.login().rows(&format!("SELECT 1 {comment}"));
    collector.wait_trace(&last, 2);
    let spans = collector.wait_trace(&trace, 2);
    assert!(spans.iter().all(|span| span.status.is_none()), "{spans:#?}");
}

/// A statement whose caller is another than the transaction's has a link to that.
#[test]
fn a_statement_of_another_caller_is_linked_to_it() {
    let collector = Collector::start();
    let rig = Rig::with(toward(collector.port));
    let mut client = rig.login();
    let (trace, comment) = traced(1);
    client.rows(&format!("BEGIN {comment}"));
    client.rows(&format!(
        "SELECT 1 {}",
        comment.replace(CALLER, "00f067aa0ba902b7")
    ));
    client.rows("COMMIT");
    let spans = in_order(collector.wait_trace(&trace, 4));
    root(&spans);
    let links: Vec<String> = spans[2]
        .links
        .iter()
        .map(|link| hex(&link.span_id))
        .collect();
    assert_eq!(links, ["00f067aa0ba902b7"]);
    assert!(spans[1].links.is_empty() && spans[3].links.is_empty());
}
