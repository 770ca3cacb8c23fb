//! What was done since the start and over the last minute or two, by database.
//!
//! Averages are as PgBouncer makes them: a mark is set once a minute, and they are over the time since
//! the mark before the last.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::metrics::{Histogram, HistogramSum, PoolCounters};
use crate::registry::Registry;

/// Between two marks.
const PERIOD: Duration = Duration::from_secs(60);

/// Since the start. Times are in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) checkouts: u64,
    pub(super) transactions: u64,
    pub(super) queries: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) transaction_us: u64,
    pub(super) query_us: u64,
    pub(super) wait_us: u64,
    pub(super) named: u64,
    pub(super) prepared: u64,
    pub(super) used: u64,
}

impl Totals {
    pub(super) fn add_counters(&mut self, counters: &PoolCounters) {
        let us = |histogram: &Histogram| {
            let mut sum = HistogramSum::default();
            histogram.add_to(&mut sum);
            sum.sum_us
        };
        self.add(&Self {
            checkouts: counters.checkouts.value(),
            transactions: counters.transactions.value(),
            queries: counters.queries.value(),
            received: counters.received_bytes.value(),
            sent: counters.sent_bytes.value(),
            transaction_us: us(&counters.transaction_seconds),
            query_us: us(&counters.query_seconds),
            wait_us: us(&counters.wait_seconds),
            named: counters.statements_named.value(),
            prepared: counters.statements_prepared.value(),
            used: counters.statements_prepared.value() + counters.statements_reused.value(),
        });
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.combine(other, |a, b| a + b);
    }

    fn combine(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        for (mine, its) in [
            (&mut self.checkouts, other.checkouts),
            (&mut self.transactions, other.transactions),
            (&mut self.queries, other.queries),
            (&mut self.received, other.received),
            (&mut self.sent, other.sent),
            (&mut self.transaction_us, other.transaction_us),
            (&mut self.query_us, other.query_us),
            (&mut self.wait_us, other.wait_us),
            (&mut self.named, other.named),
            (&mut self.prepared, other.prepared),
            (&mut self.used, other.used),
        ] {
            *mine = with(*mine, its);
        }
    }

    /// The averages over the time `over` in which it grew from `before` to this: numbers a second, times
    /// of one transaction, query or checkout.
    pub(super) fn average(&self, before: &Self, over: Duration) -> Self {
        let mut grown = *self;
        // A pool that nobody used for long was forgotten with its numbers.
        grown.combine(before, u64::saturating_sub);
        let seconds = over.as_secs_f64().max(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an average of whole numbers, rounded down"
        )]
        let each_second = |n: u64| (n as f64 / seconds) as u64;
        let each = |us: u64, n: u64| us.checked_div(n).unwrap_or(0);
        Self {
            checkouts: each_second(grown.checkouts),
            transactions: each_second(grown.transactions),
            queries: each_second(grown.queries),
            received: each_second(grown.received),
            sent: each_second(grown.sent),
            transaction_us: each(grown.transaction_us, grown.transactions),
            query_us: each(grown.query_us, grown.queries),
            wait_us: each(grown.wait_us, grown.checkouts),
            named: each_second(grown.named),
            prepared: each_second(grown.prepared),
            used: each_second(grown.used),
        }
    }
}

/// By database.
pub(super) type ByDatabase = BTreeMap<String, Totals>;

/// The numbers of all pools now.
pub(super) fn totals(registry: &Registry) -> ByDatabase {
    let mut all = ByDatabase::new();
    // What servers with startup parameters of their own do is counted by their trunk.
    for pool in registry.pools().iter().filter(|p| p.trunk().is_none()) {
        let totals = all.entry(pool.key.database.clone()).or_default();
        for counters in pool.all_counters() {
            totals.add_counters(counters);
        }
    }
    all
}

/// The last two marks.
#[derive(Debug)]
pub(super) struct Periods {
    before: (Instant, ByDatabase),
    last: (Instant, ByDatabase),
}

impl Periods {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            before: (now, ByDatabase::new()),
            last: (now, ByDatabase::new()),
        }
    }

    /// Sets a mark if it is time.
    pub(super) fn tick(&mut self, registry: &Registry, now: Instant) {
        if now.saturating_duration_since(self.last.0) >= PERIOD {
            let new = (now, totals(registry));
            self.before = std::mem::replace(&mut self.last, new);
        }
    }

    /// What averages are over: since when, and how it was then.
    pub(super) fn base(&self) -> (Instant, &ByDatabase) {
        (self.before.0, &self.before.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_of_what_was_added_since() {
        let before = Totals {
            transactions: 100,
            transaction_us: 1_000,
            ..Totals::default()
        };
        let now = Totals {
            transactions: 700,
            transaction_us: 13_000,
            received: 60,
            ..Totals::default()
        };
        let average = now.average(&before, Duration::from_secs(60));
        assert_eq!((average.transactions, average.transaction_us), (10, 20));
        assert_eq!((average.received, average.query_us), (1, 0));
        let fallen = before.average(&now, Duration::ZERO);
        assert_eq!(fallen, Totals::default());
    }
}
