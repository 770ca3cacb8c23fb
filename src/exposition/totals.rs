//! What a pool has counted since it was made, added up over the workers, and sums and differences of
//! it.

use std::collections::BTreeMap;

use crate::metrics::{HistogramSum, OTHER_SQLSTATE, PoolCounters, SqlState, Why};
use crate::pool::Pool;

/// SQLSTATEs that are told apart in one pool; the rest is "other".
const SQLSTATES_MAX: usize = 200;

/// The fields are those of [`PoolCounters`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) queries: u64,
    pub(super) transactions: u64,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    pub(super) query_seconds: HistogramSum,
    pub(super) transaction_seconds: HistogramSum,
    pub(super) wait_seconds: HistogramSum,
    pub(super) connect_seconds: HistogramSum,
    pub(super) login_seconds: HistogramSum,
    pub(super) connect_failures: u64,
    pub(super) statements_prepared: u64,
    pub(super) statements_reused: u64,
    pub(super) statements_evicted: u64,
    pub(super) statements_retried: u64,
    pub(super) errors: BTreeMap<SqlState, u64>,
    pub(super) cancels: u64,
    pub(super) retried_on_primary: u64,
    /// Batches that came to the pool, by `Why::index`.
    pub(super) routed: [u64; Why::COUNT],
}

impl Totals {
    /// Of a pool, now.
    pub(super) fn of(pool: &Pool) -> Self {
        let mut totals = Self::default();
        for counters in pool.all_counters() {
            totals.add_counters(counters);
        }
        totals
    }

    fn add_counters(&mut self, counters: &PoolCounters) {
        self.queries += counters.queries.value();
        self.transactions += counters.transactions.value();
        self.received_bytes += counters.received_bytes.value();
        self.sent_bytes += counters.sent_bytes.value();
        counters.query_seconds.add_to(&mut self.query_seconds);
        counters
            .transaction_seconds
            .add_to(&mut self.transaction_seconds);
        counters.wait_seconds.add_to(&mut self.wait_seconds);
        counters.connect_seconds.add_to(&mut self.connect_seconds);
        counters.login_seconds.add_to(&mut self.login_seconds);
        self.connect_failures += counters.connect_failures.value();
        self.statements_prepared += counters.statements_prepared.value();
        self.statements_reused += counters.statements_reused.value();
        self.statements_evicted += counters.statements_evicted.value();
        self.statements_retried += counters.statements_retried.value();
        counters.errors.add_to(&mut self.errors);
        self.cancels += counters.cancels.value();
        self.retried_on_primary += counters.retried_on_primary.value();
        for (sum, count) in self.routed.iter_mut().zip(&counters.routed) {
            *sum += count.value();
        }
    }

    /// Adds what was counted between `before` and `now`, two looks at one pool.
    pub(super) fn add_grown(&mut self, now: &Self, before: Option<&Self>) {
        self.combine(now, u64::wrapping_add);
        if let Some(before) = before {
            // One look later each number is at least what it was: after both, the sum is right.
            self.combine(before, u64::wrapping_sub);
        }
        for (code, n) in &now.errors {
            let was = before.and_then(|b| b.errors.get(code));
            self.add_errors(*code, n.saturating_sub(was.copied().unwrap_or_default()));
        }
    }

    /// A code that is told apart once stays so; one that comes when there are too many is "other".
    fn add_errors(&mut self, code: SqlState, n: u64) {
        let full = self.errors.len() >= SQLSTATES_MAX && !self.errors.contains_key(&code);
        let code = if full { OTHER_SQLSTATE } else { code };
        *self.errors.entry(code).or_default() += n;
    }

    /// Tells the same codes apart as `other` does, next time.
    pub(super) fn know_codes_of(&mut self, other: &Self) {
        for code in other.errors.keys() {
            self.errors.entry(*code).or_default();
        }
    }

    fn combine(&mut self, other: &Self, with: fn(u64, u64) -> u64) {
        for (mine, its) in [
            (&mut self.queries, other.queries),
            (&mut self.transactions, other.transactions),
            (&mut self.received_bytes, other.received_bytes),
            (&mut self.sent_bytes, other.sent_bytes),
            (&mut self.connect_failures, other.connect_failures),
            (&mut self.statements_prepared, other.statements_prepared),
            (&mut self.statements_reused, other.statements_reused),
            (&mut self.statements_evicted, other.statements_evicted),
            (&mut self.statements_retried, other.statements_retried),
            (&mut self.cancels, other.cancels),
            (&mut self.retried_on_primary, other.retried_on_primary),
        ] {
            *mine = with(*mine, its);
        }
        for (mine, its) in self.routed.iter_mut().zip(other.routed) {
            *mine = with(*mine, its);
        }
        for (mine, its) in [
            (&mut self.query_seconds, &other.query_seconds),
            (&mut self.transaction_seconds, &other.transaction_seconds),
            (&mut self.wait_seconds, &other.wait_seconds),
            (&mut self.connect_seconds, &other.connect_seconds),
            (&mut self.login_seconds, &other.login_seconds),
        ] {
            mine.sum_us = with(mine.sum_us, its.sum_us);
            for (mine, its) in mine.buckets.iter_mut().zip(its.buckets) {
                *mine = with(*mine, its);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grew_between_two_looks_is_added_and_no_more() {
        let look = |queries: u64, unique: u64, other: u64| {
            let mut totals = Totals {
                queries,
                ..Totals::default()
            };
            totals.query_seconds.buckets[3] = queries;
            totals.query_seconds.sum_us = queries * 100;
            totals.errors.insert(*b"23505", unique);
            totals.errors.insert(OTHER_SQLSTATE, other);
            totals
        };
        let mut sum = look(1, 1, 1);
        sum.add_grown(&look(10, 4, 0), None);
        sum.add_grown(&look(15, 4, 2), Some(&look(10, 4, 0)));
        assert_eq!(sum, look(16, 5, 3));
    }

    #[test]
    fn codes_are_bounded_and_their_sum_is_right() {
        let mut sum = Totals::default();
        for n in 0..1000 {
            let code = format!("Z{n:04}");
            let mut look = Totals::default();
            look.errors
                .insert(code.as_bytes().try_into().expect("five"), 2);
            sum.add_grown(&look, None);
        }
        assert_eq!(sum.errors.len(), SQLSTATES_MAX + 1);
        assert_eq!(sum.errors.values().sum::<u64>(), 2000);
    }
}
