//! The metrics: one row each, which drives how it is named, described and filled in.
//!
//! A name is never changed or given another meaning: dashboards and alerts are made of them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::clusters;
use super::pools::{Gauges, PoolSample};
use super::process::Process;
use super::render::{Series, Snapshot, labels_of};
use crate::metrics::SqlState;
use crate::relay::KINDS;

/// A metric.
#[derive(Debug)]
pub(super) struct Row {
    /// In full, as it is queried.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) unit: Unit,
    pub(super) kind: Kind,
    /// Labels beside those that [`Row::each`] brings.
    pub(super) labels: Labels,
    pub(super) each: Each,
}

/// What kind of number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

impl Kind {
    /// As both formats call it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// What it is measured in; the name ends in it (before `_total`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    None,
    Seconds,
    Bytes,
}

/// Names of labels.
type Labels = &'static [&'static str];

/// Where its numbers come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Each {
    /// Each pool; it has the labels `database` and `user` already.
    Pool(fn(&PoolSample, &mut Series<'_>) -> fmt::Result),
    /// Each pool that lives, likewise.
    Living(fn(&Gauges, &mut Series<'_>) -> fmt::Result),
    /// The process.
    Once(fn(&Snapshot, &mut Series<'_>) -> fmt::Result),
}

impl Row {
    /// What OpenMetrics calls it in its comments.
    pub(super) fn family(&self) -> &'static str {
        match self.kind {
            Kind::Counter => self.name.strip_suffix("_total").unwrap_or(self.name),
            Kind::Gauge | Kind::Histogram => self.name,
        }
    }
}

const fn gauge(
    name: &'static str,
    unit: Unit,
    help: &'static str,
    labels: Labels,
    each: Each,
) -> Row {
    row(Kind::Gauge, name, unit, help, labels, each)
}

const fn counter(
    name: &'static str,
    unit: Unit,
    help: &'static str,
    labels: Labels,
    each: Each,
) -> Row {
    row(Kind::Counter, name, unit, help, labels, each)
}

const fn histogram(name: &'static str, help: &'static str, labels: Labels, each: Each) -> Row {
    row(Kind::Histogram, name, Unit::Seconds, help, labels, each)
}

const fn row(
    kind: Kind,
    name: &'static str,
    unit: Unit,
    help: &'static str,
    labels: Labels,
    each: Each,
) -> Row {
    Row {
        name,
        help,
        unit,
        kind,
        labels,
        each,
    }
}

/// All of them, in the order in which they are rendered.
pub(super) static ROWS: &[Row] = &[
    gauge(
        "pooler_clients",
        Unit::None,
        "Clients that are logged in: active with a server, waiting for one, or idle.",
        &["state"],
        Each::Living(|pool, out| {
            out.gauge(&[("state", "active")], pool.clients_active)?;
            out.gauge(&[("state", "waiting")], pool.clients_waiting)?;
            out.gauge(&[("state", "idle")], pool.clients_idle)
        }),
    ),
    gauge(
        "pooler_servers",
        Unit::None,
        "Server connections: active for a client, idle, or connecting (being opened).",
        &["state"],
        Each::Living(|pool, out| {
            out.gauge(&[("state", "active")], pool.servers_active)?;
            out.gauge(&[("state", "idle")], pool.servers_idle)?;
            out.gauge(&[("state", "connecting")], pool.servers_connecting)
        }),
    ),
    gauge(
        "pooler_pool_size",
        Unit::None,
        "Server connections that the pool may have (pool_size).",
        &[],
        Each::Living(|pool, out| out.gauge(&[], pool.size)),
    ),
    gauge(
        "pooler_waiting_clients",
        Unit::None,
        "Clients that wait for a server connection now.",
        &[],
        Each::Living(|pool, out| out.gauge(&[], pool.clients_waiting)),
    ),
    gauge(
        "pooler_oldest_wait_seconds",
        Unit::Seconds,
        "How long the first client in the queue has waited; 0 if nobody waits.",
        &[],
        Each::Living(|pool, out| out.gauge(&[], pool.oldest_wait_seconds)),
    ),
    gauge(
        "pooler_oldest_checkout_seconds",
        Unit::Seconds,
        "How long the longest transaction has had its server connection; 0 if there is none.",
        &[],
        Each::Living(|pool, out| out.gauge(&[], pool.oldest_checkout_seconds)),
    ),
    histogram(
        "pooler_wait_seconds",
        "How long clients waited for a server connection, of those that got none at once.",
        &[],
        Each::Pool(|pool, out| out.histogram(&[], &pool.totals.wait_seconds)),
    ),
    histogram(
        "pooler_query_seconds",
        "From a request to the end of its reply (ReadyForQuery).",
        &[],
        Each::Pool(|pool, out| out.histogram(&[], &pool.totals.query_seconds)),
    ),
    histogram(
        "pooler_transaction_seconds",
        "From a transaction's first request to its end.",
        &[],
        Each::Pool(|pool, out| {
            let exemplars = pool.exemplars.as_deref();
            out.histogram_with(&[], &pool.totals.transaction_seconds, exemplars)
        }),
    ),
    histogram(
        "pooler_server_connect_seconds",
        "How long it took to open a server connection, by phase: to connect, then to log in.",
        &["phase"],
        Each::Pool(|pool, out| {
            out.histogram(&[("phase", "connect")], &pool.totals.connect_seconds)?;
            out.histogram(&[("phase", "login")], &pool.totals.login_seconds)
        }),
    ),
    counter(
        "pooler_server_connect_failures_total",
        Unit::None,
        "Attempts to open a server connection that failed.",
        &[],
        Each::Pool(|pool, out| out.counter(&[], pool.totals.connect_failures)),
    ),
    counter(
        "pooler_queries_total",
        Unit::None,
        "Requests answered (ReadyForQuery sent).",
        &[],
        Each::Pool(|pool, out| out.counter(&[], pool.totals.queries)),
    ),
    counter(
        "pooler_transactions_total",
        Unit::None,
        "Transactions ended, single statements included.",
        &[],
        Each::Pool(|pool, out| out.counter(&[], pool.totals.transactions)),
    ),
    counter(
        "pooler_bytes_total",
        Unit::Bytes,
        "Bytes received from clients and sent to them.",
        &["direction"],
        Each::Pool(|pool, out| {
            out.counter(&[("direction", "received")], pool.totals.received_bytes)?;
            out.counter(&[("direction", "sent")], pool.totals.sent_bytes)
        }),
    ),
    counter(
        "pooler_errors_total",
        Unit::None,
        "Errors that clients got, of PostgreSQL and of the pooler; those of logins without a pool.",
        &["database", "user", "host", "datacenter", "sqlstate"],
        Each::Once(errors),
    ),
    counter(
        "pooler_prepared_total",
        Unit::None,
        "Prepared statements on servers: prepared, reused, evicted for room, retried unseen.",
        &["event"],
        Each::Pool(|pool, out| {
            out.counter(&[("event", "prepared")], pool.totals.statements_prepared)?;
            out.counter(&[("event", "reused")], pool.totals.statements_reused)?;
            out.counter(&[("event", "evicted")], pool.totals.statements_evicted)?;
            out.counter(&[("event", "retried")], pool.totals.statements_retried)
        }),
    ),
    gauge(
        "pooler_pinned_clients",
        Unit::None,
        "Clients that keep a server connection between transactions, by what only it can hold.",
        &["reason"],
        Each::Living(|pool, out| {
            for (kind, pinned) in KINDS.iter().zip(&pool.pins) {
                out.gauge(&[("reason", kind.reason)], *pinned as f64)?;
            }
            Ok(())
        }),
    ),
    counter(
        "pooler_cancels_total",
        Unit::None,
        "Queries cancelled for clients, or because a client had gone.",
        &[],
        Each::Pool(|pool, out| out.counter(&[], pool.totals.cancels)),
    ),
    counter(
        "pooler_logins_total",
        Unit::None,
        "Logins of clients: accepted, refused with an error, or abandoned by the client.",
        &["result"],
        Each::Once(|all, out| {
            let logins = &all.registry.logins;
            out.counter(&[("result", "accepted")], load(&logins.accepted))?;
            out.counter(&[("result", "refused")], load(&logins.refused))?;
            out.counter(&[("result", "abandoned")], load(&logins.abandoned))
        }),
    ),
    counter(
        "pooler_tls_handshakes_total",
        Unit::None,
        "TLS handshakes of clients: done, or failed (also for their leaving).",
        &["result"],
        Each::Once(|all, out| {
            let logins = &all.registry.logins;
            out.counter(&[("result", "done")], load(&logins.encrypted))?;
            out.counter(&[("result", "failed")], load(&logins.not_encrypted))
        }),
    ),
    gauge(
        "pooler_primary_up",
        Unit::None,
        "Whether the cluster's primary is known; absent until somebody has looked.",
        &["cluster"],
        Each::Once(clusters::primary_up),
    ),
    gauge(
        "pooler_host_up",
        Unit::None,
        "1 for hosts that were reached when last tried, 0 for those that were not.",
        &["cluster", "host", "datacenter"],
        Each::Once(clusters::host_up),
    ),
    gauge(
        "pooler_host_role",
        Unit::None,
        "1 for the role that a host was seen in.",
        &["cluster", "host", "datacenter", "role"],
        Each::Once(clusters::host_role),
    ),
    gauge(
        "pooler_replica_lag_seconds",
        Unit::Seconds,
        "For how long the primary has been known to be further than the replica.",
        &["cluster", "host", "datacenter"],
        Each::Once(clusters::lag_seconds),
    ),
    gauge(
        "pooler_replica_lag_bytes",
        Unit::Bytes,
        "How much WAL the replica has not replayed yet.",
        &["cluster", "host", "datacenter"],
        Each::Once(clusters::lag_bytes),
    ),
    counter(
        "pooler_failovers_total",
        Unit::None,
        "How often another host became the primary.",
        &["cluster"],
        Each::Once(clusters::failovers),
    ),
    gauge(
        "pooler_failover_seconds",
        Unit::Seconds,
        "The last failover: from the last look that showed the new primary as a replica to the first \
         server connection that could write there.",
        &["cluster"],
        Each::Once(clusters::failover_seconds),
    ),
    counter(
        "pooler_routed_total",
        Unit::None,
        "Batches by the role and datacenter of the host that they went to, and why (routing).",
        &["database", "user", "host", "role", "datacenter", "reason"],
        Each::Once(clusters::routed),
    ),
    counter(
        "pooler_retried_on_primary_total",
        Unit::None,
        "Batches that a replica refused as a write, and the primary did.",
        &[],
        Each::Pool(|pool, out| out.counter(&[], pool.totals.retried_on_primary)),
    ),
    counter(
        "pooler_reloads_total",
        Unit::None,
        "Reloads of the configuration that took effect (done) or were refused (failed).",
        &["result"],
        Each::Once(|all, out| {
            let reloads = &all.registry.reloads;
            out.counter(&[("result", "done")], load(&reloads.done))?;
            out.counter(&[("result", "failed")], load(&reloads.failed))
        }),
    ),
    counter(
        "pooler_log_dropped_total",
        Unit::None,
        "Lines of the log that were dropped because the standard error did not take them.",
        &[],
        Each::Once(|_, out| out.counter(&[], crate::log::dropped())),
    ),
    counter(
        "pooler_spans_exported_total",
        Unit::None,
        "Spans of traces that the collector has taken.",
        &[],
        Each::Once(|all, out| out.counter(&[], load(&all.registry.spans.counts.exported))),
    ),
    counter(
        "pooler_spans_dropped_total",
        Unit::None,
        "Spans that the collector has not: no room in the queue, it is away or busy, it refused them, or tracing ended.",
        &["reason"],
        Each::Once(|all, out| {
            let counts = &all.registry.spans.counts;
            out.counter(&[("reason", "queue_full")], load(&counts.full))?;
            out.counter(&[("reason", "unavailable")], load(&counts.unavailable))?;
            out.counter(&[("reason", "refused")], load(&counts.refused))?;
            out.counter(&[("reason", "stopped")], load(&counts.stopped))
        }),
    ),
    gauge(
        "pooler_build_info",
        Unit::None,
        "1; the label is the version that runs.",
        &["version"],
        Each::Once(|_, out| out.gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1)),
    ),
    counter(
        "process_cpu_seconds_total",
        Unit::Seconds,
        "CPU time used, user and system.",
        &[],
        Each::Once(|all, out| of_process(all, |p| out.counter_seconds(p.cpu_seconds))),
    ),
    gauge(
        "process_resident_memory_bytes",
        Unit::Bytes,
        "Memory that is resident.",
        &[],
        Each::Once(|all, out| of_process(all, |p| out.gauge(&[], p.resident_bytes))),
    ),
    gauge(
        "process_virtual_memory_bytes",
        Unit::Bytes,
        "Memory that is mapped.",
        &[],
        Each::Once(|all, out| of_process(all, |p| out.gauge(&[], p.virtual_bytes))),
    ),
    gauge(
        "process_threads",
        Unit::None,
        "Threads.",
        &[],
        Each::Once(|all, out| of_process(all, |p| out.gauge(&[], p.threads))),
    ),
    gauge(
        "process_open_fds",
        Unit::None,
        "Open file descriptors.",
        &[],
        Each::Once(|all, out| of_process(all, |p| out.gauge(&[], p.open_fds))),
    ),
    gauge(
        "process_max_fds",
        Unit::None,
        "File descriptors that may be open.",
        &[],
        Each::Once(|all, out| of_process(all, |p| out.gauge(&[], p.max_fds))),
    ),
    gauge(
        "process_start_time_seconds",
        Unit::Seconds,
        "When the process started, in seconds since 1970.",
        &[],
        Each::Once(|all, out| of_process(all, |p| out.gauge(&[], p.started_seconds))),
    ),
];

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn of_process(all: &Snapshot, emit: impl FnOnce(&Process) -> fmt::Result) -> fmt::Result {
    all.process.as_ref().map_or(Ok(()), emit)
}

/// A refused login belongs to no pool: whose it would have been is not known, or not believed.
fn errors(all: &Snapshot, out: &mut Series<'_>) -> fmt::Result {
    fn text(code: &SqlState) -> &str {
        std::str::from_utf8(code).unwrap_or("other")
    }
    let mut logins = std::collections::BTreeMap::new();
    all.registry.logins.errors.add_to(&mut logins);
    for (code, n) in &logins {
        out.counter(&[("sqlstate", text(code))], *n)?;
    }
    for pool in &all.pools {
        for (code, n) in &pool.totals.errors {
            let mut labels = labels_of(pool);
            labels.push(("sqlstate", text(code)));
            out.counter(&labels, *n)?;
        }
    }
    Ok(())
}
