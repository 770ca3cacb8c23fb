//! What routing needs to know of a statement, small enough to be kept beside its text in one word.

use super::{Consistency, Hints, Reason, Route, TransactionMode, Verdict};

/// What a statement, or a batch of them, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Summary {
    /// Proven to read only.
    Read,
    /// The beginning of a transaction block.
    Begin(TransactionMode),
    /// No statement at all.
    Empty,
    /// Proven, but a replica has refused one like it.
    Refused,
    /// Statements of different kinds.
    Mixed,
    /// Anything else.
    Unproven(Reason),
}

impl From<Verdict> for Summary {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Read => Self::Read,
            Verdict::Begin(mode) => Self::Begin(mode),
            Verdict::Empty => Self::Empty,
            // Where its transaction is, it stays.
            Verdict::SetTransaction(_) => Self::Unproven(Reason::Command),
            Verdict::Unproven(doubt) => Self::Unproven(doubt.reason),
        }
    }
}

/// Bits of a [`Summary`] and [`Hints`] packed together.
pub const PACKED_BITS: u32 = 16;

const ROUTES: [Route; 4] = [
    Route::Auto,
    Route::Primary,
    Route::Replica,
    Route::PreferReplica,
];
const CONSISTENCIES: [Consistency; 2] = [Consistency::Eventual, Consistency::Session];
const READ_ONLY: [Option<bool>; 3] = [None, Some(false), Some(true)];
const PLAIN: [Summary; 4] = [
    Summary::Read,
    Summary::Empty,
    Summary::Refused,
    Summary::Mixed,
];

/// The place of `wanted` among `all`.
fn place<T: PartialEq>(all: &[T], wanted: &T) -> u64 {
    all.iter().position(|one| one == wanted).unwrap_or(0) as u64
}

/// What stands at `place`.
fn at<T: Copy>(all: &[T], place: u64) -> Option<T> {
    all.get(usize::try_from(place).ok()?).copied()
}

/// Packs both into [`PACKED_BITS`] bits.
#[must_use]
pub fn pack(summary: Summary, hints: Hints) -> u64 {
    let what = match summary {
        Summary::Begin(mode) => {
            1 << 8 | place(&READ_ONLY, &mode.read_only) << 1 | u64::from(mode.serializable)
        }
        Summary::Unproven(reason) => 2 << 8 | place(Reason::ALL, &reason),
        plain => place(&PLAIN, &plain),
    };
    let route = hints.route.map_or(0, |route| place(&ROUTES, &route) + 1);
    let consistency = hints
        .consistency
        .map_or(0, |c| place(&CONSISTENCIES, &c) + 1);
    consistency << 13 | route << 10 | what
}

/// The reverse of [`pack`].
#[must_use]
pub fn unpack(packed: u64) -> (Summary, Hints) {
    let what = packed & 0xff;
    let summary = match packed >> 8 & 0b11 {
        0 => at(&PLAIN, what).unwrap_or(Summary::Mixed),
        1 => Summary::Begin(TransactionMode {
            read_only: at(&READ_ONLY, what >> 1).flatten(),
            serializable: what & 1 == 1,
        }),
        _ => Summary::Unproven(at(Reason::ALL, what).unwrap_or(Reason::Unreadable)),
    };
    let route = (packed >> 10 & 0b111).checked_sub(1);
    let consistency = (packed >> 13 & 0b111).checked_sub(1);
    let hints = Hints {
        route: route.and_then(|place| at(&ROUTES, place)),
        consistency: consistency.and_then(|place| at(&CONSISTENCIES, place)),
    };
    (summary, hints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_fits_one_word_and_comes_back() {
        let mut summaries = PLAIN.to_vec();
        for read_only in [None, Some(false), Some(true)] {
            for serializable in [false, true] {
                summaries.push(Summary::Begin(TransactionMode {
                    read_only,
                    serializable,
                }));
            }
        }
        summaries.extend(Reason::ALL.iter().map(|reason| Summary::Unproven(*reason)));
        for route in ROUTES.map(Some).into_iter().chain([None]) {
            for consistency in CONSISTENCIES.map(Some).into_iter().chain([None]) {
                for summary in &summaries {
                    let hints = Hints { route, consistency };
                    let packed = pack(*summary, hints);
                    assert!(packed >> PACKED_BITS == 0);
                    assert_eq!(unpack(packed), (*summary, hints));
                }
            }
        }
    }
}
