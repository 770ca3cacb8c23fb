//! What was done since the start and over the last minute or two, by database.
//!
//! Averages are as PgBouncer makes them: a mark is set once a minute, and they are over the time since
//! the mark before the last.

use std::time::{Duration, Instant};

use crate::registry::{ByDatabase, Registry, Totals};

/// Between two marks.
const PERIOD: Duration = Duration::from_secs(60);

/// Averages of one database.
pub(super) trait Average {
    /// The averages over the time `over` in which it grew from `before` to this: numbers a second, times
    /// of one transaction, query or checkout.
    fn average(&self, before: &Self, over: Duration) -> Self;
}

impl Average for Totals {
    fn average(&self, before: &Self, over: Duration) -> Self {
        let mut grown = *self;
        // A database may have been taken out of the configuration and put back.
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
            let new = (now, registry.totals());
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
