//! How fast the pooler was over the last minutes: the counters of all pools, looked at every [`EVERY`].
//!
//! The workers write these counters anyway; a look adds them up beside the event loop, and only percentiles
//! and rates of what was added since the last look are kept, [`KEPT`] of them.
//!
//! A pool that is forgotten between two looks is looked at once more: what it did last is not lost, and no
//! difference is negative.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::{BUCKETS_US, HistogramSum, OTHER_SQLSTATE, SqlState};
use crate::pool::Pool;
use crate::registry::Registry;
use crate::status::{self, ERRORS_MAX};

/// Between two looks.
pub(super) const EVERY: Duration = Duration::from_secs(5);

/// Looks that are kept: ten minutes.
const KEPT: usize = 120;

/// SQLSTATEs that one look tells apart; the rest is "other".
const SQLSTATES_MAX: usize = 40;

/// What was counted, over all pools and workers.
#[derive(Debug, Clone, Default)]
struct Sum {
    transactions: u64,
    transaction_seconds: HistogramSum,
    query_seconds: HistogramSum,
    wait_seconds: HistogramSum,
    errors: BTreeMap<SqlState, u64>,
}

impl Sum {
    fn add(&mut self, pool: &Pool) {
        for counters in pool.all_counters() {
            self.transactions += counters.transactions.value();
            counters
                .transaction_seconds
                .add_to(&mut self.transaction_seconds);
            counters.query_seconds.add_to(&mut self.query_seconds);
            counters.wait_seconds.add_to(&mut self.wait_seconds);
            counters.errors.add_to(&mut self.errors);
        }
    }

    /// What was added since `before`.
    fn since(&self, before: &Self) -> Self {
        let mut errors = BTreeMap::new();
        let mut counts: Vec<(SqlState, u64)> = self
            .errors
            .iter()
            .map(|(code, n)| {
                let was = before.errors.get(code).copied().unwrap_or_default();
                (*code, n.saturating_sub(was))
            })
            .filter(|(_, n)| *n > 0)
            .collect();
        counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        for (at, (code, n)) in counts.into_iter().enumerate() {
            let told_apart = if at < SQLSTATES_MAX {
                code
            } else {
                OTHER_SQLSTATE
            };
            *errors.entry(told_apart).or_default() += n;
        }
        Self {
            transactions: self.transactions.saturating_sub(before.transactions),
            transaction_seconds: grown(&self.transaction_seconds, &before.transaction_seconds),
            query_seconds: grown(&self.query_seconds, &before.query_seconds),
            wait_seconds: grown(&self.wait_seconds, &before.wait_seconds),
            errors,
        }
    }
}

fn grown(now: &HistogramSum, before: &HistogramSum) -> HistogramSum {
    let mut grown = now.clone();
    for (bucket, was) in grown.buckets.iter_mut().zip(before.buckets) {
        *bucket = bucket.saturating_sub(was);
    }
    grown.sum_us = grown.sum_us.saturating_sub(before.sum_us);
    grown
}

/// One look.
#[derive(Debug)]
struct Point {
    at: Instant,
    shown: status::Point,
    errors: BTreeMap<SqlState, u64>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The last look: when, which pools, and what they had counted.
    last: Option<(Instant, Vec<Arc<Pool>>, Sum)>,
    points: VecDeque<Point>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Inner>);

impl History {
    /// Looks. With many pools it takes milliseconds: not for an event loop.
    pub(super) fn look(&self, registry: &Registry, now: Instant) {
        let mut pools = registry.pools();
        // What servers with startup parameters of their own do is counted by their trunk.
        pools.retain(|pool| pool.trunk().is_none());
        let mut sum = Sum::default();
        pools.iter().for_each(|pool| sum.add(pool));
        registry.logins.errors.add_to(&mut sum.errors);
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, before, was)) = inner.last.take() {
            let living: HashSet<u64> = pools.iter().map(|pool| pool.id).collect();
            let mut whole = sum.clone();
            for gone in before.iter().filter(|pool| !living.contains(&pool.id)) {
                whole.add(gone);
            }
            let over = now.saturating_duration_since(at);
            if inner.points.len() >= KEPT {
                inner.points.pop_front();
            }
            inner.points.push_back(point(now, over, whole.since(&was)));
        }
        inner.last = Some((now, pools, sum));
    }

    /// Forgets everything: nobody is to see it.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Inner::default();
    }

    /// Fills in what is kept.
    pub(super) fn describe(&self, now: Instant, status: &mut status::Status) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ago = |at: Instant| rounded(now.saturating_duration_since(at).as_secs_f64(), 10.0);
        let points = inner.points.iter().map(|point| status::Point {
            ago_seconds: ago(point.at),
            ..point.shown.clone()
        });
        status.history = status::History {
            every_seconds: EVERY.as_secs_f64(),
            points: points.collect(),
        };
        let mut counts: BTreeMap<SqlState, (u64, Instant)> = BTreeMap::new();
        for point in &inner.points {
            for (code, n) in &point.errors {
                let (sum, last) = counts.entry(*code).or_insert((0, point.at));
                *sum += n;
                *last = point.at;
            }
        }
        let error = |(code, (count, last)): (SqlState, (u64, Instant))| status::Errors {
            sqlstate: String::from_utf8_lossy(&code).into_owned(),
            class: class(&code).to_owned(),
            count,
            last_seconds: ago(last),
        };
        let mut errors: Vec<status::Errors> = counts.into_iter().map(error).collect();
        errors.sort_by_key(|error| std::cmp::Reverse(error.count));
        status.left_out.errors = errors.len().saturating_sub(ERRORS_MAX);
        errors.truncate(ERRORS_MAX);
        status.errors = errors;
    }
}

fn point(at: Instant, over: Duration, sum: Sum) -> Point {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = sum.transactions as f64 / over.as_secs_f64().max(1e-3);
    Point {
        at,
        shown: status::Point {
            ago_seconds: 0.0,
            transactions_per_second: rounded(rate, 10.0),
            transaction_p50_seconds: percentile(&sum.transaction_seconds, 0.50),
            transaction_p99_seconds: percentile(&sum.transaction_seconds, 0.99),
            query_p50_seconds: percentile(&sum.query_seconds, 0.50),
            query_p99_seconds: percentile(&sum.query_seconds, 0.99),
            wait_p99_seconds: percentile(&sum.wait_seconds, 0.99),
            waited: sum.wait_seconds.buckets.iter().sum(),
            errors: sum.errors.values().sum(),
        },
        errors: sum.errors,
    }
}

/// What the share `part` of all times do not exceed, in seconds: within its bucket by its place among those
/// that fell into it, as Prometheus' histogram_quantile does. Nothing, if there were none.
#[expect(clippy::cast_precision_loss, reason = "a time for people")]
fn percentile(histogram: &HistogramSum, part: f64) -> Option<f64> {
    let count: u64 = histogram.buckets.iter().sum();
    if count == 0 {
        return None;
    }
    let rank = part * count as f64;
    let mut below = 0.0;
    for (at, &n) in histogram.buckets.iter().enumerate() {
        let n = n as f64;
        if n > 0.0 && below + n >= rank {
            let from = at.checked_sub(1).map_or(0, |before| BUCKETS_US[before]) as f64;
            // What is longer than the last bound is at least that long.
            let to = BUCKETS_US.get(at).map_or(from, |&bound| bound as f64);
            let us = from + (to - from) * ((rank - below) / n).clamp(0.0, 1.0);
            return Some(rounded(us, 1.0) / 1e6);
        }
        below += n;
    }
    None
}

fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

/// What codes of its class are about (PostgreSQL documentation, "PostgreSQL Error Codes").
fn class(code: &SqlState) -> &'static str {
    match &code[..2] {
        b"08" => "connection exception",
        b"0A" => "feature not supported",
        b"21" => "cardinality violation",
        b"22" => "data exception",
        b"23" => "integrity constraint violation",
        b"25" => "invalid transaction state",
        b"26" => "invalid SQL statement name",
        b"28" => "invalid authorization",
        b"2B" => "dependent objects still exist",
        b"34" => "invalid cursor name",
        b"3D" => "invalid database name",
        b"3F" => "invalid schema name",
        b"40" => "transaction rollback",
        b"42" => "syntax error or access rule violation",
        b"44" => "WITH CHECK OPTION violation",
        b"53" => "insufficient resources",
        b"54" => "program limit exceeded",
        b"55" => "object not in prerequisite state",
        b"57" => "operator intervention",
        b"58" => "system error",
        b"F0" => "configuration file error",
        b"P0" => "PL/pgSQL error",
        b"XX" => "internal error",
        _ if *code == OTHER_SQLSTATE => "codes that are not told apart",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{pool, registry};
    use super::*;
    use crate::status::Status;

    fn shown(history: &History, now: Instant) -> Status {
        let mut status = Status::default();
        history.describe(now, &mut status);
        status
    }

    #[test]
    fn percentiles_are_within_the_bucket_that_the_times_fell_into() {
        let mut sum = HistogramSum::default();
        assert_eq!(percentile(&sum, 0.5), None);
        // 80 to 125 us.
        sum.buckets[2] = 98;
        assert_eq!(percentile(&sum, 0.5), Some(0.000_103));
        assert_eq!(percentile(&sum, 1.0), Some(0.000_125));
        // Longer than all bounds.
        sum.buckets[BUCKETS_US.len()] = 2;
        assert_eq!(percentile(&sum, 0.99), Some(60.0));
        assert!(percentile(&sum, 0.97).is_some_and(|p| p < 0.000_126));
    }

    #[test]
    fn what_was_done_between_two_looks_is_a_point_whoever_comes_and_goes() {
        let registry = registry();
        let history = History::default();
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let counters = |name: &str, transactions: u64, took_us: u64, sqlstate: &str| {
            let pool = pool(&registry, name);
            let counters = pool.counters(0);
            counters.transactions.add(transactions);
            for _ in 0..transactions {
                let took = Duration::from_micros(took_us);
                counters.transaction_seconds.record(took);
            }
            counters.errors.note(sqlstate);
        };
        counters("a", 1000, 9, "42601");
        history.look(&registry, at(0));
        assert!(shown(&history, at(0)).history.points.is_empty());
        counters("a", 100, 300, "23505");
        counters("b", 400, 300, "23505");
        history.look(&registry, at(5));
        let status = shown(&history, at(7));
        let point = &status.history.points[0];
        assert_eq!(
            (
                point.ago_seconds,
                point.transactions_per_second,
                point.errors
            ),
            (2.0, 100.0, 2)
        );
        let p50 = point.transaction_p50_seconds.expect("some ended");
        assert!((0.0002..=0.000_315).contains(&p50), "{p50}");
        assert_eq!(point.wait_p99_seconds, None);
        assert_eq!(
            (&*status.errors[0].sqlstate, status.errors[0].count),
            ("23505", 2)
        );
        assert_eq!(status.errors[0].class, "integrity constraint violation");
        // Both pools do some more, and are forgotten.
        counters("a", 7, 300, "40001");
        let much_later = Instant::now() + Duration::from_secs(3600);
        registry.prune(much_later, Duration::from_secs(1));
        assert!(registry.pools().is_empty());
        counters("c", 3, 300, "40001");
        history.look(&registry, at(6));
        let status = shown(&history, at(6));
        assert_eq!(status.history.points[1].transactions_per_second, 10.0);
        assert_eq!(status.history.points[1].errors, 2);
        let last: Vec<f64> = status.errors.iter().map(|e| e.last_seconds).collect();
        assert_eq!(last, [1.0, 0.0]);
        history.clear();
        assert_eq!(shown(&history, at(6)).errors, []);
    }

    #[test]
    fn it_has_an_end_however_long_it_goes_on() {
        let registry = registry();
        let history = History::default();
        let busy = pool(&registry, "a");
        let began = Instant::now();
        for look in 0..300_u32 {
            for code in 0..100 {
                let code = format!("{:02}{:03}", look % 100, code);
                busy.counters(0).errors.note(&code);
            }
            history.look(&registry, began + EVERY * look);
        }
        let status = shown(&history, began + EVERY * 300);
        assert_eq!(status.history.points.len(), KEPT);
        assert!(status.errors.len() <= ERRORS_MAX);
        let oldest = status.history.points[0].ago_seconds;
        assert_eq!(oldest, EVERY.as_secs_f64() * KEPT as f64);
    }
}
