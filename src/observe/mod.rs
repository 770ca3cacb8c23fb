//! What statements and transactions were like, for the log of slow ones and for traces.
//!
//! ```text
//!  relay: each batch, each end --> Watch (with the server) --slow, or followed--> News
//!  session: News --> a line of the log;  a Transaction --> Spans --queue--> a thread --OTLP--> collector
//! ```
//! The watch is the only part on the path of a statement: it copies the front of what is sent into a buffer
//! that stays with the server, and adds a few numbers up. Everything else happens for the few that are slow, or
//! whose caller records a trace. With nothing asked for ([`Attention::is_on`]) it is a branch.

use std::time::Duration;

use pooler_protocol::route::TraceParent;

use crate::config::{Log, Tracing};

mod batches;
mod otlp;
mod slow;
mod spans;
mod transaction;
mod watch;

pub use batches::{SpanCounts, Spans};
pub use slow::{Origin, log_slow};
pub use spans::Record;
pub use transaction::{Broken, Step, TEXTS_LEN_MAX, Transaction};
pub use watch::{STEPS_MAX, Statement, Watch};

/// What is to be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention {
    /// Anything at all about statements.
    pub is_on: bool,
    /// Statements that take at least so long, waiting for a server included.
    pub slow: Duration,
    /// Transactions whose caller records a trace.
    pub traces: bool,
    /// Of these, the ones whose trace has a number below this: see [`Attention::records`].
    pub traces_below: u64,
    /// Clients that come and go.
    pub connections: bool,
}

impl Attention {
    /// Nothing.
    pub const NONE: Self = Self {
        is_on: false,
        slow: Duration::MAX,
        traces: false,
        traces_below: 0,
        connections: false,
    };

    /// As it is configured.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a ratio is from 0 to 1, and its last bits do not matter"
    )]
    pub fn of(log: &Log, tracing: &Tracing) -> Self {
        let traces = tracing.otlp_endpoint.is_some() && tracing.sample_ratio > 0.0;
        Self {
            is_on: log.slow_query.is_some() || traces,
            slow: log.slow_query.unwrap_or(Duration::MAX),
            traces,
            traces_below: (tracing.sample_ratio * NUMBERS as f64) as u64,
            connections: log.connections,
        }
    }

    /// Whether this caller's trace is recorded here: the caller does, and the trace is one of those that
    /// `sample_ratio` leaves. Its number decides, as OpenTelemetry's `TraceIdRatioBased` has it, so that whoever
    /// samples by the same share keeps the same traces.
    #[must_use]
    pub fn records(&self, caller: &TraceParent) -> bool {
        let [.., a, b, c, d, e, f, g, h] = caller.trace_id;
        let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
        self.traces && caller.sampled && number < self.traces_below
    }
}

/// How many numbers a trace can have.
const NUMBERS: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_traces_is_recorded_always_the_same_ones() {
        let share = |traces_below| Attention {
            traces: true,
            traces_below,
            ..Attention::NONE
        };
        let caller = |last: u64, sampled| TraceParent {
            trace_id: (1_u128 << 64 | u128::from(last)).to_be_bytes(),
            span_id: [1; 8],
            sampled,
        };
        let half = share(NUMBERS / 2);
        assert!(half.records(&caller(0, true)) && half.records(&caller(u64::MAX / 2, true)));
        assert!(!half.records(&caller(u64::MAX / 2 + 1, true)));
        assert!(!half.records(&caller(0, false)));
        assert!(share(NUMBERS).records(&caller(u64::MAX, true)));
        assert!(!Attention::NONE.records(&caller(0, true)));
    }
}
