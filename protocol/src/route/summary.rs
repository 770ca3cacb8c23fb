//! What routing needs to know of a statement, small enough to be kept beside its text in one word.

use super::{Consistency, Hints, Reason, Route};

/// How a transaction block begins.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// What it says of itself, if anything.
    pub read_only: Option<bool>,
    /// It asks for the isolation level that replicas do not serve.
    pub serializable: bool,
}

/// What a statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Summary {
    /// Proven to read only.
    Read,
    /// The beginning of a transaction block.
    Begin(Begin),
    /// Anything else.
    Unproven(Reason),
}

/// Bits of a [`Summary`] and [`Hints`] packed together.
pub const PACKED_BITS: u32 = 16;

/// Packs both into [`PACKED_BITS`] bits.
#[must_use]
pub fn pack(summary: Summary, hints: Hints) -> u64 {
    let what = match summary {
        Summary::Read => 0,
        Summary::Begin(begin) => {
            let read_only = match begin.read_only {
                None => 0,
                Some(false) => 1,
                Some(true) => 2,
            };
            1 << 8 | read_only << 1 | u64::from(begin.serializable)
        }
        Summary::Unproven(reason) => 2 << 8 | reason as u64,
    };
    let route = hints.route.map_or(0, |route| route as u64 + 1);
    let consistency = hints.consistency.map_or(0, |c| c as u64 + 1);
    consistency << 13 | route << 10 | what
}

/// The reverse of [`pack`].
#[must_use]
pub fn unpack(packed: u64) -> (Summary, Hints) {
    let what = packed & 0xff;
    let summary = match packed >> 8 & 0b11 {
        0 => Summary::Read,
        1 => Summary::Begin(Begin {
            read_only: match what >> 1 {
                1 => Some(false),
                2 => Some(true),
                _ => None,
            },
            serializable: what & 1 == 1,
        }),
        _ => {
            let reason = Reason::ALL.iter().find(|r| **r as u64 == what);
            Summary::Unproven(reason.copied().unwrap_or(Reason::Unreadable))
        }
    };
    let hints = Hints {
        route: Route::ALL
            .into_iter()
            .find(|r| *r as u64 + 1 == packed >> 10 & 0b111),
        consistency: Consistency::ALL
            .into_iter()
            .find(|c| *c as u64 + 1 == packed >> 13 & 0b111),
    };
    (summary, hints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_fits_one_word_and_comes_back() {
        let mut summaries = vec![Summary::Read];
        for read_only in [None, Some(false), Some(true)] {
            for serializable in [false, true] {
                summaries.push(Summary::Begin(Begin {
                    read_only,
                    serializable,
                }));
            }
        }
        summaries.extend(Reason::ALL.iter().map(|reason| Summary::Unproven(*reason)));
        let routes = Route::ALL.map(Some).into_iter().chain([None]);
        for route in routes {
            for consistency in Consistency::ALL.map(Some).into_iter().chain([None]) {
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
