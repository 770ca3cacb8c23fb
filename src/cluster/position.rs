//! Positions in the write-ahead log, and how the primary's moved over time.
//!
//! A session that wrote may read from a replica once that replica has replayed a position which was
//! sampled on the primary after the write had ended, or as much of it as is surely flushed. No clock is compared with another machine's:
//! what counts is that the sample was *asked for* after the write was *answered*.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// A position in the write-ahead log, in bytes (PostgreSQL documentation, "pg_lsn Type").
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Bytes of a page of the log (XLOG_BLCKSZ), unless PostgreSQL was built otherwise.
const PAGE_LEN: u64 = 8192;

/// Bytes of the headers that a page of the log may begin with: the short one, and that of a segment's
/// first page.
const PAGE_HEADER_LENS: [u64; 2] = [24, 40];

impl Position {
    /// As PostgreSQL writes it: two hexadecimal numbers with a slash between them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let number = |digits: &str| {
            let well_formed =
                (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            well_formed
                .then(|| u64::from_str_radix(digits, 16).ok())
                .flatten()
        };
        Some(Self(number(high)? << 32 | number(low)?))
    }

    /// Where the last record ends, of the place where the next would be inserted: that place is behind
    /// the header of a page that nothing is on yet, and a replica that has replayed everything is in
    /// front of it.
    #[must_use]
    pub fn end_of_last_record(self) -> Self {
        let on_page = self.0 % PAGE_LEN;
        if PAGE_HEADER_LENS.contains(&on_page) {
            return Self(self.0 - on_page);
        }
        self
    }

    /// Bytes from here to `later`.
    #[must_use]
    pub fn bytes_to(self, later: Self) -> u64 {
        later.0.saturating_sub(self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// The number of a look at the primary: later looks have larger ones.
pub type Look = u64;

#[derive(Debug, Clone, Copy)]
struct Sample {
    look: Look,
    at: Instant,
    position: Position,
    flushed: Position,
    /// How long it may take until what was committed asynchronously is flushed.
    flush_after: Duration,
}

/// What was asked of the primary at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Up to where its log goes.
    pub position: Position,
    /// Up to where that is flushed. Replicas get no more.
    pub flushed: Position,
    /// `wal_writer_delay`.
    pub writer_delay: Duration,
}

/// What a replica must have replayed for a session that wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// This.
    pub position: Position,
    /// It will not become less when more is known.
    pub is_settled: bool,
}

/// An asynchronous commit is flushed within three times `wal_writer_delay` (PostgreSQL documentation,
/// "Asynchronous Commit"); this is one more, and something for a busy machine.
fn flush_after(writer_delay: Duration) -> Duration {
    4 * writer_delay + Duration::from_millis(100)
}

/// How far back positions are known, in looks.
const SAMPLES_MAX: usize = 128;

/// Where the primary was at the last looks.
#[derive(Debug, Default)]
pub struct Samples(VecDeque<Sample>);

impl Samples {
    /// Notes what look `look`, asked for at `at`, showed. What comes out of order is left out.
    pub fn note(&mut self, look: Look, at: Instant, written: Written) {
        if self.0.back().is_some_and(|last| last.look >= look) {
            return;
        }
        if self.0.len() == SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Sample {
            look,
            at,
            position: written.position,
            flushed: written.flushed.min(written.position),
            flush_after: flush_after(written.writer_delay),
        });
    }

    /// Forgets everything: another host is the primary.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Up to where the log was flushed at the last look.
    #[must_use]
    pub fn latest(&self) -> Option<Position> {
        self.0.back().map(|s| s.flushed)
    }

    /// The number of the last look.
    #[must_use]
    pub fn last_look(&self) -> Option<Look> {
        self.0.back().map(|s| s.look)
    }

    /// What a replica must have replayed for a write that ended when look number `look` had begun: where the
    /// log went to at a later look. Others' open transactions may be in front of that, whose part of the log
    /// nobody flushes before they commit; but the write itself is flushed some time later, so what is flushed
    /// by then is enough.
    #[must_use]
    pub fn after(&self, look: Look) -> Option<Due> {
        let at = self.0.partition_point(|s| s.look <= look);
        let first = self.0.get(at)?;
        let flushed_at = first.at + first.flush_after;
        let mut later = self.0.range(at..);
        let settled = later.find(|s| s.at >= flushed_at);
        Some(Due {
            position: settled.map_or(first.position, |s| first.position.min(s.flushed)),
            is_settled: settled.is_some() || first.flushed >= first.position,
        })
    }

    /// For how long the primary has been known to have flushed more than `replayed`, at `now`: nothing if it
    /// is not known to have. On the pooler's clock alone.
    #[must_use]
    pub fn lag(&self, replayed: Position, now: Instant) -> Duration {
        let behind = self.0.partition_point(|s| s.flushed <= replayed);
        self.0
            .get(behind)
            .map_or(Duration::ZERO, |s| now.saturating_duration_since(s.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_and_written_as_postgresql_does() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            let position = Position::parse(text).expect(text);
            assert_eq!(position.to_string(), text);
        }
        assert_eq!(Position::parse("1/a"), Some(Position(0x1_0000_000a)));
        for bad in [
            "",
            "/",
            "1",
            "1/",
            "/1",
            "1/g",
            "+1/1",
            "1/123456789",
            "1/1/1",
            " 1/1",
        ] {
            assert_eq!(Position::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_page_without_records_counts_for_nothing() {
        let page = 7 * PAGE_LEN;
        for (at, end) in [
            (page + 24, page),
            (page + 40, page),
            (page, page),
            (page + 48, page + 48),
        ] {
            assert_eq!(Position(at).end_of_last_record(), Position(end));
        }
    }

    fn written(position: u64, flushed: u64) -> Written {
        Written {
            position: Position(position),
            flushed: Position(flushed),
            writer_delay: Duration::from_millis(200),
        }
    }

    fn settled(position: u64) -> Option<Due> {
        Some(Due {
            position: Position(position),
            is_settled: true,
        })
    }

    #[test]
    fn t68_only_what_was_asked_for_after_a_write_counts_for_it() {
        let start = Instant::now();
        let mut samples = Samples::default();
        assert_eq!(samples.after(0), None);
        for look in 1..=SAMPLES_MAX as u64 + 5 {
            let at = start + Duration::from_secs(look);
            samples.note(look, at, written(look * 10, look * 10));
        }
        let last = SAMPLES_MAX as u64 + 5;
        assert_eq!(samples.after(last), None);
        assert_eq!(samples.after(last - 1), settled(last * 10));
        // Older than what is remembered: the oldest is later still.
        assert_eq!(samples.after(1), settled(60));
        samples.note(last, start, written(1, 1));
        assert_eq!(samples.latest(), Some(Position(last * 10)));
    }

    #[test]
    fn what_others_have_not_committed_is_waited_for_no_longer_than_it_takes_to_flush_ones_own() {
        let start = Instant::now();
        let mut samples = Samples::default();
        let mut look = 0;
        let mut note = |samples: &mut Samples, ms: u64, position: u64, flushed: u64| {
            look += 1;
            samples.note(
                look,
                start + Duration::from_millis(ms),
                written(position, flushed),
            );
        };
        note(&mut samples, 0, 10, 10);
        // A write ended at 15, and behind it an open transaction has written up to 20.
        note(&mut samples, 500, 20, 15);
        let due = Due {
            position: Position(20),
            is_settled: false,
        };
        assert_eq!(samples.after(1), Some(due));
        note(&mut samples, 1000, 25, 15);
        assert_eq!(
            samples.after(1),
            Some(due),
            "it may be an asynchronous commit"
        );
        note(&mut samples, 1500, 30, 15);
        assert_eq!(samples.after(1), settled(15));
        // What is flushed further than it was written to then does not count.
        note(&mut samples, 3000, 90, 90);
        assert_eq!(samples.after(1), settled(15));
        assert_eq!(samples.after(4), settled(90));
    }

    #[test]
    fn lag_is_how_long_the_primary_has_been_further() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut samples = Samples::default();
        assert_eq!(samples.lag(Position(5), start), Duration::ZERO);
        samples.note(1, start, written(10, 10));
        samples.note(2, start + second, written(20, 10));
        samples.note(3, start + 2 * second, written(30, 30));
        let now = start + 5 * second;
        assert_eq!(samples.lag(Position(30), now), Duration::ZERO);
        assert_eq!(
            samples.lag(Position(10), now),
            3 * second,
            "what is not flushed is not missing"
        );
        assert_eq!(samples.lag(Position(9), now), 5 * second);
    }
}
