//! Counters and histograms of the hot path: written by one worker, read by the scrape.
//!
//! A worker's counter is written by that worker alone, so adding is a load and a store, without a
//! locked instruction and without a cache line that two cores fight for. The scrape adds up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use pooler_protocol::route::Reason;

/// A number that only grows, written by one thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only for the thread that owns the counter.
    #[inline]
    pub fn add(&self, n: u64) {
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(n), Ordering::Relaxed);
    }

    /// The sum so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the histograms' buckets, in microseconds: 50 us to 60 s, five a decade, so that
/// a percentile read from them is off by a quarter at most (trap 79).
pub const BUCKETS_US: [u64; 32] = [
    50, 80, 125, 200, 315, 500, 800, 1_250, 2_000, 3_150, 5_000, 8_000, 12_500, 20_000, 31_500,
    50_000, 80_000, 125_000, 200_000, 315_000, 500_000, 800_000, 1_250_000, 2_000_000, 3_150_000,
    5_000_000, 8_000_000, 12_500_000, 20_000_000, 31_500_000, 45_000_000, 60_000_000,
];

/// How often something took how long, written by one thread.
#[derive(Debug)]
pub struct Histogram {
    /// One for each bound, and one for what is longer.
    buckets: [Counter; BUCKETS_US.len() + 1],
    sum_us: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum_us: Counter::default(),
        }
    }
}

impl Histogram {
    /// Notes one. Only for the thread that owns the histogram.
    #[inline]
    pub fn record(&self, took: Duration) {
        let (bucket, us) = bucket_of(took);
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
    }

    /// Adds this one's numbers to `sum`.
    pub fn add_to(&self, sum: &mut HistogramSum) {
        for (bucket, total) in self.buckets.iter().zip(&mut sum.buckets) {
            *total += bucket.value();
        }
        sum.sum_us += self.sum_us.value();
    }
}

/// Which bucket it falls into, and how many microseconds it is.
#[inline]
fn bucket_of(took: Duration) -> (usize, u64) {
    let us = took.as_secs() * 1_000_000 + u64::from(took.subsec_micros());
    (BUCKETS_US.partition_point(|&bound| bound < us), us)
}

/// An observation of a histogram that can be looked into: it has a trace (OpenMetrics, "Exemplars").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    /// Microseconds.
    pub us: u64,
    /// The trace.
    pub trace_id: [u8; 16],
    /// When it was observed.
    pub at: SystemTime,
}

/// The last exemplar of each bucket, as in [`Histogram`].
pub type ExemplarRow = [Option<Exemplar>; BUCKETS_US.len() + 1];

/// Exemplars of a histogram. Few observations are traced, so a lock that hardly anybody else takes (the scrape does)
/// is nothing beside what a trace costs.
#[derive(Debug, Default)]
pub struct Exemplars(Mutex<Option<Box<ExemplarRow>>>);

impl Exemplars {
    /// Notes one that took so long and has just been observed.
    pub fn note(&self, took: Duration, trace_id: [u8; 16]) {
        let (bucket, us) = bucket_of(took);
        let at = SystemTime::now();
        let mut row = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row = row.get_or_insert_with(|| Box::new([None; BUCKETS_US.len() + 1]));
        row[bucket] = Some(Exemplar { us, trace_id, at });
    }

    /// Puts this one's into `row` where they are newer.
    pub fn add_to(&self, row: &mut Option<Box<ExemplarRow>>) {
        if let Some(mine) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let row = row.get_or_insert_with(|| Box::new([None; BUCKETS_US.len() + 1]));
            for (theirs, mine) in row.iter_mut().zip(mine.iter()) {
                let age = |one: &Option<Exemplar>| one.map(|exemplar| exemplar.at);
                if age(mine) > age(theirs) {
                    *theirs = *mine;
                }
            }
        }
    }
}

/// Several histograms added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramSum {
    /// As in [`Histogram`]: not cumulative.
    pub buckets: [u64; BUCKETS_US.len() + 1],
    /// Microseconds in all.
    pub sum_us: u64,
}

impl Default for HistogramSum {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS_US.len() + 1],
            sum_us: 0,
        }
    }
}

/// Five characters (PostgreSQL documentation, "PostgreSQL Error Codes").
pub type SqlState = [u8; 5];

/// Stands for all codes that are not counted apart: no SQLSTATE has small letters.
pub const OTHER_SQLSTATE: SqlState = *b"other";

/// Different codes that one [`ErrorCounts`] tells apart. A statement can raise any code it likes,
/// so without a bound a client could fill the memory with them.
pub const SQLSTATES_MAX: usize = 40;

/// How often which SQLSTATE was sent to clients. Errors are rare and their messages are made by
/// hand, so a lock that hardly anybody else takes (the scrape does) is nothing beside them.
#[derive(Debug, Default)]
pub struct ErrorCounts(Mutex<Vec<(SqlState, u64)>>);

impl ErrorCounts {
    /// Notes one.
    pub fn note(&self, sqlstate: &str) {
        let is_code = |b: &u8| b.is_ascii_digit() || b.is_ascii_uppercase();
        let code = SqlState::try_from(sqlstate.as_bytes())
            .ok()
            .filter(|code| code.iter().all(is_code))
            .unwrap_or(OTHER_SQLSTATE);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |counts: &[(SqlState, u64)], code| counts.iter().position(|(c, _)| *c == code);
        let code = if known(&counts, code).is_none() && counts.len() >= SQLSTATES_MAX {
            OTHER_SQLSTATE
        } else {
            code
        };
        match known(&counts, code) {
            Some(at) => counts[at].1 += 1,
            None => counts.push((code, 1)),
        }
    }

    /// Adds this one's numbers to `sum`.
    pub fn add_to(&self, sum: &mut BTreeMap<SqlState, u64>) {
        for (code, n) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            *sum.entry(*code).or_default() += n;
        }
    }
}

/// How many of something there are, as the difference of two counters.
#[derive(Debug, Default)]
pub struct Count {
    /// Came.
    pub begun: Counter,
    /// Went.
    pub ended: Counter,
}

/// Why a batch went where it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is proven to read only.
    Read,
    /// It begins a transaction block that reads only.
    ReadOnlyBlock,
    /// It is a read, but what the session wrote may not have reached the replicas.
    Consistency,
    /// It is a read, but no local replica can take it.
    Fallback,
    /// A hint, the session, the user or the database says so.
    Asked,
    /// A replica had it before, and could not do it.
    Again,
    /// It is proven to read only, but a replica has refused one like it.
    Refused,
    /// It begins a transaction block that may write.
    Block,
    /// Statements of different kinds.
    Mixed,
    /// No statement, or not a whole batch.
    Incomplete,
    /// It is not proven to be a read.
    Unproven(Reason),
}

impl Why {
    const PLAIN: [Self; 10] = [
        Self::Read,
        Self::ReadOnlyBlock,
        Self::Consistency,
        Self::Fallback,
        Self::Asked,
        Self::Again,
        Self::Refused,
        Self::Block,
        Self::Mixed,
        Self::Incomplete,
    ];

    /// How many there are.
    pub const COUNT: usize = Self::PLAIN.len() + Reason::ALL.len();

    /// All of them, each at its [`Why::index`].
    pub fn all() -> impl Iterator<Item = Self> {
        let unproven = Reason::ALL.iter().map(|reason| Self::Unproven(*reason));
        Self::PLAIN.into_iter().chain(unproven)
    }

    /// Its number, below [`Why::COUNT`].
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Read => 0,
            Self::ReadOnlyBlock => 1,
            Self::Consistency => 2,
            Self::Fallback => 3,
            Self::Asked => 4,
            Self::Again => 5,
            Self::Refused => 6,
            Self::Block => 7,
            Self::Mixed => 8,
            Self::Incomplete => 9,
            Self::Unproven(reason) => Self::PLAIN.len() + reason as usize,
        }
    }

    /// As it is called in metrics and in the console.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadOnlyBlock => "read_only_block",
            Self::Consistency => "consistency",
            Self::Fallback => "fallback",
            Self::Asked => "asked",
            Self::Again => "again",
            Self::Refused => "refused_before",
            Self::Block => "block",
            Self::Mixed => "mixed",
            Self::Incomplete => "incomplete",
            Self::Unproven(reason) => reason.name(),
        }
    }
}

/// What happens in one pool on one worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PoolCounters {
    /// Requests answered by ReadyForQuery.
    pub queries: Counter,
    /// Transactions ended.
    pub transactions: Counter,
    /// Bytes from clients.
    pub received_bytes: Counter,
    /// Bytes to clients.
    pub sent_bytes: Counter,
    /// From a request to its ReadyForQuery.
    pub query_seconds: Histogram,
    /// From the first request of a transaction to its end.
    pub transaction_seconds: Histogram,
    /// Of these, the ones that are traced.
    pub transaction_exemplars: Exemplars,
    /// From the wish for a server to having one, if there was none at once.
    pub wait_seconds: Histogram,
    /// To connect to a server.
    pub connect_seconds: Histogram,
    /// To log in to it.
    pub login_seconds: Histogram,
    /// Attempts to open a server that failed.
    pub connect_failures: Counter,
    /// Times that a client got a server.
    pub checkouts: Counter,
    /// Statements that clients gave a name to.
    pub statements_named: Counter,
    /// Statements prepared on a server.
    pub statements_prepared: Counter,
    /// Uses of a statement that the server held already.
    pub statements_reused: Counter,
    /// Statements closed on a server to make room.
    pub statements_evicted: Counter,
    /// Batches sent once more because a cached plan had become invalid.
    pub statements_retried: Counter,
    /// ErrorResponses of servers, and of the pooler in their place.
    pub errors: ErrorCounts,
    /// Batches that a replica could not do, and the primary did.
    pub retried_on_primary: Counter,
    /// Batches that came here, by [`Why::index`].
    pub routed: [Counter; Why::COUNT],
    /// Queries cancelled for clients, or because a client had vanished.
    pub cancels: Counter,
    /// Clients that keep a server for each of the reasons of `relay::KINDS`.
    pub pins: [Count; 8],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t79_buckets_are_narrow_enough_to_read_a_percentile_from() {
        for pair in BUCKETS_US.windows(2) {
            assert!(
                pair[0] < pair[1] && pair[1] * 10 <= pair[0] * 17,
                "{pair:?}"
            );
        }
        assert_eq!((BUCKETS_US[0], BUCKETS_US[31]), (50, 60_000_000));
    }

    #[test]
    fn reasons_are_numbered_in_their_order_and_have_different_names() {
        let mut names: Vec<_> = Why::all().map(Why::name).collect();
        assert_eq!(names.len(), Why::COUNT);
        for (index, why) in Why::all().enumerate() {
            assert_eq!(why.index(), index);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Why::COUNT);
    }

    #[test]
    fn times_fall_into_the_bucket_that_bounds_them() {
        let h = Histogram::default();
        for us in [0, 50, 51, 60_000_000, 60_000_001] {
            h.record(Duration::from_micros(us));
        }
        let mut sum = HistogramSum::default();
        h.add_to(&mut sum);
        assert_eq!((sum.buckets[0], sum.buckets[1]), (2, 1));
        assert_eq!((sum.buckets[31], sum.buckets[32]), (1, 1));
        assert_eq!(sum.sum_us, 120_000_102);
    }

    #[test]
    fn of_each_bucket_the_newest_exemplar_is_shown() {
        let (one, other) = (Exemplars::default(), Exemplars::default());
        let mut row = None;
        one.add_to(&mut row);
        assert!(row.is_none());
        one.note(Duration::from_millis(1), [1; 16]);
        other.note(Duration::from_micros(1001), [2; 16]);
        one.note(Duration::from_secs(100), [3; 16]);
        other.add_to(&mut row);
        one.add_to(&mut row);
        let row = row.expect("some");
        let shown: Vec<_> = row
            .iter()
            .flatten()
            .map(|e| (e.us, e.trace_id[0]))
            .collect();
        assert_eq!(shown, [(1001, 2), (100_000_000, 3)]);
    }

    #[test]
    fn codes_that_a_statement_makes_up_do_not_fill_the_memory() {
        let counts = ErrorCounts::default();
        counts.note("23505");
        for n in 0..10_000 {
            counts.note(&format!("Z{n:04}"));
        }
        for odd in ["", "2350", "235055", "a\nb{}", "other"] {
            counts.note(odd);
        }
        counts.note("23505");
        let mut sum = BTreeMap::new();
        counts.add_to(&mut sum);
        counts.add_to(&mut sum);
        assert_eq!(sum.len(), SQLSTATES_MAX + 1);
        assert_eq!(sum[b"23505"], 4);
        let other = 10_000 - (SQLSTATES_MAX as u64 - 1) + 5;
        assert_eq!(sum[&OTHER_SQLSTATE], 2 * other);
    }
}
