//! SHOW STATS and what is cut out of it.

use std::time::Instant;

use super::super::Desk;
use super::super::sheet::{Sheet, is, numeric, text};
use super::super::stats::Average;
use crate::registry::{ByDatabase, Totals};

/// A database.
pub(in super::super) struct Line {
    database: String,
    total: Totals,
    avg: Totals,
}

fn lines(desk: &Desk) -> Vec<Line> {
    let now = desk.registry.totals();
    let periods = desk.periods();
    let (since, before) = periods.base();
    let over = Instant::now().saturating_duration_since(since);
    let was = |database: &String| before.get(database).copied().unwrap_or_default();
    let line = |(database, total): (String, Totals)| Line {
        avg: total.average(&was(&database), over),
        database,
        total,
    };
    now.into_iter().map(line).collect()
}

/// SHOW STATS
pub(in super::super) static STATS: Sheet<Line> = Sheet {
    columns: &[
        text("database", |l| is(&l.database)),
        numeric("total_server_assignment_count", |l| is(l.total.checkouts)),
        numeric("total_xact_count", |l| is(l.total.transactions)),
        numeric("total_query_count", |l| is(l.total.queries)),
        numeric("total_received", |l| is(l.total.received)),
        numeric("total_sent", |l| is(l.total.sent)),
        numeric("total_xact_time", |l| is(l.total.transaction_us)),
        numeric("total_query_time", |l| is(l.total.query_us)),
        numeric("total_wait_time", |l| is(l.total.wait_us)),
        numeric("total_client_parse_count", |l| is(l.total.named)),
        numeric("total_server_parse_count", |l| is(l.total.prepared)),
        numeric("total_bind_count", |l| is(l.total.used)),
        numeric("avg_server_assignment_count", |l| is(l.avg.checkouts)),
        numeric("avg_xact_count", |l| is(l.avg.transactions)),
        numeric("avg_query_count", |l| is(l.avg.queries)),
        numeric("avg_recv", |l| is(l.avg.received)),
        numeric("avg_sent", |l| is(l.avg.sent)),
        numeric("avg_xact_time", |l| is(l.avg.transaction_us)),
        numeric("avg_query_time", |l| is(l.avg.query_us)),
        numeric("avg_wait_time", |l| is(l.avg.wait_us)),
        numeric("avg_client_parse_count", |l| is(l.avg.named)),
        numeric("avg_server_parse_count", |l| is(l.avg.prepared)),
        numeric("avg_bind_count", |l| is(l.avg.used)),
        // As it was called before PgBouncer 1.8, for exporters of that time (Debian 12 has one).
        numeric("total_requests", |l| is(l.total.queries)),
    ],
    lines: |desk, _| lines(desk),
};

/// SHOW STATS_TOTALS
pub(in super::super) static STATS_TOTALS: Sheet<Line> = Sheet {
    columns: &[
        text("database", |l| is(&l.database)),
        numeric("server_assignment_count", |l| is(l.total.checkouts)),
        numeric("xact_count", |l| is(l.total.transactions)),
        numeric("query_count", |l| is(l.total.queries)),
        numeric("bytes_received", |l| is(l.total.received)),
        numeric("bytes_sent", |l| is(l.total.sent)),
        numeric("xact_time", |l| is(l.total.transaction_us)),
        numeric("query_time", |l| is(l.total.query_us)),
        numeric("wait_time", |l| is(l.total.wait_us)),
        numeric("client_parse_count", |l| is(l.total.named)),
        numeric("server_parse_count", |l| is(l.total.prepared)),
        numeric("bind_count", |l| is(l.total.used)),
    ],
    lines: |desk, _| lines(desk),
};

/// SHOW STATS_AVERAGES
pub(in super::super) static STATS_AVERAGES: Sheet<Line> = Sheet {
    columns: &[
        text("database", |l| is(&l.database)),
        numeric("server_assignment_count", |l| is(l.avg.checkouts)),
        numeric("xact_count", |l| is(l.avg.transactions)),
        numeric("query_count", |l| is(l.avg.queries)),
        numeric("bytes_received", |l| is(l.avg.received)),
        numeric("bytes_sent", |l| is(l.avg.sent)),
        numeric("xact_time", |l| is(l.avg.transaction_us)),
        numeric("query_time", |l| is(l.avg.query_us)),
        numeric("wait_time", |l| is(l.avg.wait_us)),
        numeric("avg_client_parse_count", |l| is(l.avg.named)),
        numeric("avg_server_parse_count", |l| is(l.avg.prepared)),
        numeric("avg_bind_count", |l| is(l.avg.used)),
    ],
    lines: |desk, _| lines(desk),
};

/// SHOW TOTALS: all databases together, a line a number.
pub(in super::super) static TOTALS: Sheet<(String, u64)> = Sheet {
    columns: &[
        text("name", |l: &(String, u64)| is(&l.0)),
        numeric("value", |l| is(l.1)),
    ],
    lines: |desk, _| {
        let all = |by: &ByDatabase| {
            by.values().fold(Totals::default(), |mut sum, totals| {
                sum.add(totals);
                sum
            })
        };
        let total = all(&desk.registry.totals());
        let periods = desk.periods();
        let (since, before) = periods.base();
        let over = Instant::now().saturating_duration_since(since);
        let avg = total.average(&all(before), over);
        let named = |prefix: &'static str, totals: &Totals| {
            let values = named(totals).into_iter();
            values.map(move |(name, value)| (format!("{prefix}_{name}"), value))
        };
        named("total", &total).chain(named("avg", &avg)).collect()
    },
};

fn named(totals: &Totals) -> [(&'static str, u64); 11] {
    [
        ("server_assignment_count", totals.checkouts),
        ("xact_count", totals.transactions),
        ("query_count", totals.queries),
        ("client_bytes", totals.received),
        ("server_bytes", totals.sent),
        ("xact_time", totals.transaction_us),
        ("query_time", totals.query_us),
        ("wait_time", totals.wait_us),
        ("ps_client_parse_count", totals.named),
        ("ps_server_parse_count", totals.prepared),
        ("ps_bind_count", totals.used),
    ]
}
