//! The text of the metrics, and the endpoint over real sockets.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;

use super::pools::Gauges;
use super::render::{Exporter, Format};
use super::table::{Each, ROWS, Unit};
use super::{Exposition, start};
use crate::admin::{self, Desk};
use crate::config::Config;
use crate::metrics::BUCKETS_US;
use crate::pool::{Commons, Locate, Numbers, Pool};
use crate::registry::Registry;
use crate::server::Interners;

pub(super) fn registry() -> Arc<Registry> {
    registry_with("")
}

/// A registry with this further section.
pub(super) fn registry_with(section: &str) -> Arc<Registry> {
    let text = "[clusters.main]\nhosts = [{ host = \"db1\", datacenter = \"dc1\" }]\n\
                [databases.\"*\"]\ncluster = \"main\"\n[users.ada]\npassword = \"x\"\n";
    let text = format!("{text}{section}\n");
    let config = Config::parse(&text, Path::new("pooler.toml")).expect("good");
    let workers = 2;
    let commons = Arc::new(Commons {
        interners: Interners::new(1 << 20),
        couriers: (0..workers).map(|_| unbounded_channel().0).collect(),
        beside: None,
    });
    Registry::new(config, crate::tls::Tls::none(), commons)
}

/// The console's desk; its two workers have nobody.
pub(super) fn desk(registry: &Arc<Registry>) -> Arc<Desk> {
    desk_of(registry, |_, reply| {
        drop(reply.send(admin::View::default()))
    })
}

/// The console's desk, whose two workers answer like this.
pub(super) fn desk_of(
    registry: &Arc<Registry>,
    answer: impl Fn(usize, oneshot::Sender<admin::View>) + Send + Sync + 'static,
) -> Arc<Desk> {
    let tell = move |worker, errand| {
        if let admin::Errand::Look(_, reply) = errand {
            answer(worker, reply);
        }
    };
    let (control, _controls) = unbounded_channel();
    Desk::new(Arc::clone(registry), control, 2, Box::new(tell))
}

/// The pool of `database` and ada.
pub(super) fn pool(registry: &Registry, database: &str) -> Arc<Pool> {
    registry
        .pool(database, "ada", |_| Ok(Vec::new()))
        .expect("any database")
}

/// The lines that name `metric`, without those of its comments.
fn lines(text: &str, metric: &str) -> Vec<String> {
    let samples = text.lines().filter(|line| {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        name.strip_prefix(metric)
            .is_some_and(|rest| matches!(rest, "" | "_bucket" | "_sum" | "_count"))
    });
    samples.map(str::to_owned).collect()
}

fn render(registry: &Arc<Registry>) -> String {
    let exporter = Exporter::new(Arc::clone(registry));
    exporter.render(Format::Prometheus).expect("to memory")
}

#[test]
fn a_pool_gives_these_lines() {
    let registry = registry();
    let pool = pool(&registry, "app");
    let _clients = [pool.seat(0), pool.seat(1), pool.seat(1)];
    for worker in [0, 1] {
        let counters = pool.counters(worker);
        counters.queries.add(3);
        counters.transactions.add(2);
        counters.received_bytes.add(100);
        counters.sent_bytes.add(1000);
        counters.statements_reused.add(7);
        counters.errors.note("23505");
        counters.cancels.add(1);
    }
    registry.logins.errors.note("28P01");
    let text = render(&registry);
    let expected = [
        ("pooler_clients", "state=\"idle\"", "3"),
        ("pooler_pool_size", "", "20"),
        ("pooler_queries_total", "", "6"),
        ("pooler_transactions_total", "", "4"),
        ("pooler_bytes_total", "direction=\"received\"", "200"),
        ("pooler_bytes_total", "direction=\"sent\"", "2000"),
        ("pooler_prepared_total", "event=\"reused\"", "14"),
        ("pooler_prepared_total", "event=\"evicted\"", "0"),
        ("pooler_cancels_total", "", "2"),
        ("pooler_oldest_checkout_seconds", "", "0.0"),
    ];
    for (name, more, value) in expected {
        let comma = if more.is_empty() { "" } else { "," };
        let line = format!("{name}{{database=\"app\",user=\"ada\"{comma}{more}}} {value}");
        assert!(lines(&text, name).contains(&line), "{line}\n{text}");
    }
    assert_eq!(
        lines(&text, "pooler_errors_total"),
        [
            "pooler_errors_total{sqlstate=\"28P01\"} 1",
            "pooler_errors_total{database=\"app\",user=\"ada\",sqlstate=\"23505\"} 2",
        ]
    );
    assert_eq!(lines(&text, "pooler_build_info").len(), 1);
}

/// Who asks for OpenMetrics is told of traced transactions, each behind the bucket that it is in.
#[test]
fn traced_transactions_are_exemplars_of_their_buckets() {
    let registry = registry();
    let (app, quiet) = (pool(&registry, "app"), pool(&registry, "quiet"));
    for (worker, ms) in [(0, 1), (1, 400), (1, 100_000)] {
        let took = Duration::from_millis(ms);
        app.counters(worker).transaction_seconds.record(took);
    }
    quiet
        .counters(0)
        .transaction_seconds
        .record(Duration::from_millis(400));
    let exemplars = |worker| &app.counters(worker).transaction_exemplars;
    exemplars(1).note(Duration::from_millis(400), [0xab; 16]);
    exemplars(0).note(Duration::from_secs(100), [0xcd; 16]);
    let exporter = Exporter::new(Arc::clone(&registry));
    let text = exporter.render(Format::OpenMetrics).expect("to memory");
    let with: Vec<&str> = text.lines().filter(|line| line.contains(" # {")).collect();
    let begins = |le: &str, n: u64, trace: &str, value: &str| {
        let labels = format!("{{le=\"{le}\",database=\"app\",user=\"ada\"}}");
        let trace = trace.repeat(16);
        format!("pooler_transaction_seconds_bucket{labels} {n} # {{trace_id=\"{trace}\"}} {value} ")
    };
    let wanted = [
        begins("0.5", 2, "ab", "0.4"),
        begins("+Inf", 3, "cd", "100"),
    ];
    assert_eq!(with.len(), wanted.len(), "{with:?}");
    for (line, wanted) in with.iter().zip(wanted) {
        let at = line
            .strip_prefix(&wanted)
            .unwrap_or_else(|| panic!("{line}: {wanted}"));
        assert!(at.parse::<f64>().expect("seconds") > 1.7e9, "{line}");
    }
    assert!(text.ends_with("# EOF\n"));
    let classic = exporter.render(Format::Prometheus).expect("to memory");
    assert!(!classic.contains("trace_id"));
    // Nothing is left aside for the next.
    assert_eq!(
        exporter
            .render(Format::OpenMetrics)
            .expect("to memory")
            .matches(" # {")
            .count(),
        2
    );
}

#[test]
fn buckets_are_cumulative_and_end_at_the_count() {
    let registry = registry();
    let pool = pool(&registry, "app");
    for (worker, us) in [(0, 40), (1, 60), (0, 60_000_000), (1, 90_000_000)] {
        let took = Duration::from_micros(us);
        pool.counters(worker).wait_seconds.record(took);
    }
    let lines = lines(&render(&registry), "pooler_wait_seconds");
    let labels = "database=\"app\",user=\"ada\"";
    assert_eq!(lines.len(), BUCKETS_US.len() + 3);
    assert_eq!(
        lines[0],
        format!("pooler_wait_seconds_sum{{{labels}}} 150.0001")
    );
    assert_eq!(lines[1], format!("pooler_wait_seconds_count{{{labels}}} 4"));
    let bucket =
        |le: &str, n: u64| format!("pooler_wait_seconds_bucket{{le=\"{le}\",{labels}}} {n}");
    assert_eq!(lines[2], bucket("0.00005", 1));
    assert_eq!(lines[3], bucket("0.00008", 2));
    assert_eq!(lines[4], bucket("0.000125", 2));
    assert_eq!(lines[BUCKETS_US.len()], bucket("45.0", 2));
    assert_eq!(lines[BUCKETS_US.len() + 1], bucket("60.0", 3));
    assert_eq!(lines[BUCKETS_US.len() + 2], bucket("+Inf", 4));
}

#[test]
fn both_formats_name_each_metric_once() {
    let registry = registry();
    let _pool = pool(&registry, "we\"ird\\\n");
    let exporter = Exporter::new(Arc::clone(&registry));
    let old = exporter.render(Format::Prometheus).expect("to memory");
    let new = exporter.render(Format::OpenMetrics).expect("to memory");
    for row in ROWS {
        let suffix = match row.unit {
            Unit::None => "",
            Unit::Seconds => "_seconds",
            Unit::Bytes => "_bytes",
        };
        let bare = row.name.strip_suffix("_total").unwrap_or(row.name);
        assert_eq!(row.family(), bare, "{}", row.name);
        assert!(bare.ends_with(suffix), "{}", row.name);
        assert!(row.help.ends_with('.'), "{}", row.help);
        let kind = row.kind.word();
        assert_eq!(bare != row.name, kind == "counter", "{}", row.name);
        let typed = |text: &str, name: &str| {
            let line = format!("# TYPE {name} {kind}");
            text.lines().filter(|l| *l == line).count()
        };
        assert_eq!(typed(&old, row.name), 1, "{}\n{old}", row.name);
        assert_eq!(typed(&new, bare), 1, "{}\n{new}", row.name);
    }
    assert!(new.ends_with("# EOF\n") && !old.contains("EOF"));
    assert!(new.contains("# UNIT pooler_bytes bytes\n") && !old.contains("# UNIT"));
    let samples = |text: &str| {
        let lines = text.lines().filter(|line| line.starts_with("pooler"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(samples(&old), samples(&new));
    assert!(old.contains("{database=\"we\\\"ird\\\\\\n\",user=\"ada\"} 20\n"));
}

#[test]
fn a_cluster_is_described_as_far_as_it_is_known() {
    let registry = registry();
    assert_eq!(lines(&render(&registry), "pooler_primary_up").len(), 0);
    let cluster = Arc::clone(&registry.current().clusters()["main"]);
    let _lost = cluster.nobody(Vec::new());
    let text = render(&registry);
    assert_eq!(
        lines(&text, "pooler_primary_up"),
        ["pooler_primary_up{cluster=\"main\"} 0"]
    );
    assert_eq!(lines(&text, "pooler_host_role").len(), 0);
}

#[test]
fn gauges_agree_with_each_other_however_the_numbers_were_taken() {
    let now = Instant::now();
    let mut numbers = Numbers {
        clients: 10,
        waiting: 3,
        oldest_since: now.checked_sub(Duration::from_millis(1500)),
        servers: 6,
        connecting: 1,
        idle: 2,
        oldest_checkout: now.checked_sub(Duration::from_secs(2)),
    };
    let gauges = Gauges::new(&numbers, 20, now);
    assert_eq!(
        (
            gauges.clients_active,
            gauges.clients_waiting,
            gauges.clients_idle
        ),
        (3, 3, 4)
    );
    assert_eq!((gauges.servers_active, gauges.servers_idle), (3, 2));
    assert_eq!(
        (gauges.oldest_wait_seconds, gauges.oldest_checkout_seconds),
        (1.5, 2.0)
    );
    numbers.idle = 9;
    numbers.clients = 1;
    let gauges = Gauges::new(&numbers, 20, now);
    assert_eq!((gauges.clients_active, gauges.clients_idle), (0, 0));
    assert_eq!(gauges.servers_active, 0);
}

/// The table of the documentation, from the rows.
fn documented() -> String {
    let mut text = String::from(
        "# Metrics\n\nAt `/metrics` of `[metrics] listen`, in Prometheus' text format or OpenMetrics. Made from the \
         program's own table\n(`POOLER_WRITE_EXAMPLE=1 cargo test --lib documentation_lists_every_metric`). \
         A name is never changed or\ngiven another meaning. Histograms have buckets from 50 us to 60 s, five a \
         decade.\n\nMetrics with `database` and `user` are of a pool; those of a replica's pool have its `host` \
         and `datacenter`, too, those\nof the primary's have not, since another host may be the primary \
         tomorrow (`pooler_host_role` says which it is). The\n`max_pools` busiest pools have series of their own, all \
         others are one: database and user `other`. What a pool counts goes\nto its own series or to that sum, \
         never to both, so rates add up, and no series falls before the process ends.\n\n| name | type | labels | \
         what |\n|---|---|---|---|\n",
    );
    for row in ROWS {
        let mut labels = match row.each {
            Each::Pool(_) | Each::Living(_) => vec!["database", "user", "host", "datacenter"],
            Each::Once(_) => Vec::new(),
        };
        labels.extend(row.labels);
        let (name, kind, help) = (row.name, row.kind.word(), row.help);
        let labels = labels.join(", ");
        text += &format!("| `{name}` | {kind} | {labels} | {help} |\n");
    }
    text
}

#[test]
fn documentation_lists_every_metric() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if std::env::var_os("POOLER_WRITE_EXAMPLE").is_some() {
        std::fs::write(&path, documented()).expect("a file");
    }
    let written = std::fs::read_to_string(&path).expect("docs/metrics.md");
    assert!(
        written == documented(),
        "docs/metrics.md is not what the table of metrics says: make it anew"
    );
}

/// What dashboards are made of: a name that goes away breaks them.
#[test]
fn what_was_promised_is_there() {
    let promised = [
        "pooler_clients state",
        "pooler_servers state",
        "pooler_waiting_clients",
        "pooler_oldest_wait_seconds",
        "pooler_oldest_checkout_seconds",
        "pooler_pool_size",
        "pooler_wait_seconds",
        "pooler_query_seconds",
        "pooler_transaction_seconds",
        "pooler_server_connect_seconds phase",
        "pooler_queries_total",
        "pooler_transactions_total",
        "pooler_bytes_total direction",
        "pooler_routed_total role datacenter reason",
        "pooler_retried_on_primary_total",
        "pooler_pinned_clients reason",
        "pooler_errors_total sqlstate",
        "pooler_logins_total result",
        "pooler_prepared_total event",
        "pooler_replica_lag_seconds",
        "pooler_replica_lag_bytes",
        "pooler_host_up",
        "pooler_host_role role",
        "pooler_failovers_total",
        "pooler_reloads_total result",
        "pooler_build_info",
    ];
    for line in promised {
        let mut words = line.split(' ');
        let name = words.next();
        let row = ROWS.iter().find(|row| Some(row.name) == name).expect(line);
        let kind = if row.name.ends_with("_total") {
            "counter"
        } else if ["wait", "query", "transaction", "server_connect"]
            .iter()
            .any(|h| row.name == format!("pooler_{h}_seconds"))
        {
            "histogram"
        } else {
            "gauge"
        };
        assert_eq!(row.kind.word(), kind, "{line}");
        assert!(words.all(|label| row.labels.contains(&label)), "{line}");
    }
}

#[test]
fn totals_of_a_database_outlive_its_pools() {
    let registry = registry();
    let shown = |registry: &Registry| {
        let totals = registry.totals();
        totals.get("app").map(|t| (t.transactions, t.query_us))
    };
    for round in 1..=2 {
        let pool = pool(&registry, "app");
        let counters = pool.counters(1);
        counters.transactions.add(5);
        counters.query_seconds.record(Duration::from_micros(7));
        assert_eq!(shown(&registry), Some((5 * round, 7 * round)));
        drop(pool);
        let later = Instant::now() + Duration::from_secs(3600);
        registry.prune(later, Duration::from_secs(60));
        assert!(registry.pools().is_empty());
        assert_eq!(shown(&registry), Some((5 * round, 7 * round)));
    }
}

pub(super) async fn served(registry: &Arc<Registry>) -> Exposition {
    let any = "127.0.0.1:0".parse().expect("an address");
    start(desk(registry), Some(any)).await.expect("a free port")
}

pub(super) async fn connect(endpoint: &Exposition) -> TcpStream {
    let address = endpoint.address().expect("it listens");
    TcpStream::connect(address).await.expect("it accepts")
}

/// What it answers to `request`, headers included.
pub(super) async fn ask(endpoint: &Exposition, request: &str) -> String {
    ask_by(endpoint, request, "\r\nHost: localhost").await
}

/// With this line for the name that is asked, or none.
pub(super) async fn ask_by(endpoint: &Exposition, request: &str, host: &str) -> String {
    let mut stream = connect(endpoint).await;
    let request = format!("{request}{host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(20), read).await;
    read.expect("in time").expect("a whole answer");
    answer
}

pub(super) fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a head").1
}

/// What a scrape costs: run by hand with `--release`, `--ignored` and `--nocapture`; the least and the median of 20, in CPU time.
#[test]
#[ignore = "a measurement"]
fn a_thousand_pools() {
    let [capped, every] = ["", "[metrics]\nmax_pools = 0\n"].map(registry_with);
    for registry in [capped, every] {
        measure(&registry);
    }
}

#[expect(clippy::print_stdout, reason = "the measurement's result")]
fn measure(registry: &Arc<Registry>) {
    for n in 0..1000 {
        let pool = pool(registry, &format!("customer_{n:04}"));
        pool.counters(0)
            .wait_seconds
            .record(Duration::from_micros(n));
    }
    let exporter = Exporter::new(Arc::clone(registry));
    for format in [Format::Prometheus, Format::OpenMetrics] {
        let mut text = exporter.render(format).expect("to memory");
        let mut took: Vec<_> = (0..20)
            .map(|_| {
                let began = cpu_time();
                text = exporter.render(format).expect("to memory");
                cpu_time() - began
            })
            .collect();
        took.sort();
        let (lines, bytes) = (text.lines().count(), text.len());
        println!(
            "{format:?}: {:?}, {:?}; {lines} lines, {bytes} bytes",
            took[0], took[10]
        );
    }
}

/// Of this thread, from the scheduler.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let ns = stat.split_whitespace().next().expect("three numbers");
    Duration::from_nanos(ns.parse().expect("a number"))
}
