//! A transaction whose caller records a trace: what is noted of it while it runs, to make spans of it later.
//!
//! Everything is bounded: [`STEPS_MAX`] statements, and [`TEXTS_LEN_MAX`] bytes of their texts and of what their callers'
//! traces carry along.

use std::time::{Duration, Instant};

use pooler_protocol::route::Caller;

use super::watch::STEPS_MAX;
use crate::metrics::SqlState;

/// Bytes of the texts of one transaction that are kept, all together.
pub const TEXTS_LEN_MAX: usize = 8 * 1024;

/// A statement of such a transaction, or another request.
#[derive(Debug)]
pub struct Step {
    /// Its text, or the front of it; empty if that is not known.
    pub text: Vec<u8>,
    /// When it was sent to the server, or when what was sent in front of it was answered.
    pub began: Instant,
    /// When it was answered.
    pub ended: Instant,
    /// Rows returned, or written.
    pub rows: u64,
    /// Its error.
    pub sqlstate: Option<SqlState>,
    /// Who asked for it, if it says so itself and is not the transaction's first caller.
    pub caller: Option<Caller>,
}

/// Why a transaction did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// What the client was told, if it could be.
    pub sqlstate: Option<SqlState>,
    /// In words.
    pub why: String,
}

/// See the module. While it runs `ended` is when it was last heard of.
#[derive(Debug)]
pub struct Transaction {
    /// Who asked for it first.
    pub caller: Caller,
    /// When its first request was there and a server too.
    pub began: Instant,
    /// How long that had waited for the server.
    pub waited: Duration,
    /// When the server that it waited for was being opened, if it did.
    pub opening: Option<(Instant, Instant)>,
    /// When the server was free again, or lost.
    pub ended: Instant,
    /// Its statements, from the first that named the caller on.
    pub steps: Vec<Step>,
    /// Statements beyond those.
    pub left_out: u64,
    /// The last error in it.
    pub sqlstate: Option<SqlState>,
    /// Set if it did not come to its end.
    pub broken: Option<Broken>,
    texts_len: usize,
}

impl Transaction {
    /// That began then for this caller, and has done nothing yet.
    #[must_use]
    pub fn new(caller: Caller, began: Instant, waited: Duration) -> Self {
        Self {
            caller,
            began,
            waited,
            opening: None,
            ended: began,
            steps: Vec::new(),
            left_out: 0,
            sqlstate: None,
            broken: None,
            texts_len: 0,
        }
    }

    /// Notes a statement.
    pub fn push(&mut self, mut step: Step) {
        self.sqlstate = step.sqlstate.or(self.sqlstate);
        self.ended = self.ended.max(step.ended);
        if self.steps.len() >= STEPS_MAX {
            self.left_out += 1;
            return;
        }
        step.text.truncate(TEXTS_LEN_MAX - self.texts_len);
        step.text.shrink_to_fit();
        self.texts_len += step.text.len();
        step.caller = step.caller.filter(|caller| *caller != self.caller);
        if let Some(caller) = &mut step.caller {
            if self.texts_len + caller.state_len() > TEXTS_LEN_MAX {
                // A link is one without it.
                caller.state = None;
            }
            self.texts_len += caller.state_len();
        }
        self.steps.push(step);
    }

    /// How many bytes it takes in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        let why = self.broken.as_ref().map_or(0, |broken| broken.why.len());
        let steps = self.steps.capacity() * size_of::<Step>();
        size_of::<Self>() + self.caller.state_len() + steps + self.texts_len + why
    }

    /// How many spans it becomes: its own, those of waiting and connecting, one a statement.
    #[must_use]
    pub fn spans(&self) -> u64 {
        let waits = u64::from(!self.waited.is_zero()) + u64::from(self.opening.is_some());
        1 + waits + self.steps.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pooler_protocol::route::TraceParent;

    #[test]
    fn what_is_kept_of_a_transaction_is_bounded() {
        let now = Instant::now();
        let parent = TraceParent {
            trace_id: [1; 16],
            span_id: [2; 8],
            sampled: true,
        };
        let caller = Caller {
            parent,
            state: None,
        };
        let mut transaction = Transaction::new(caller, now, Duration::ZERO);
        for n in 0..STEPS_MAX + 7 {
            transaction.push(Step {
                text: vec![b'x'; 3000],
                began: now,
                ended: now,
                rows: 0,
                sqlstate: (n == 3).then_some(*b"22012"),
                caller: Some(Caller {
                    parent,
                    state: Some("s".repeat(512)),
                }),
            });
        }
        let state_of = |step: &Step| step.caller.as_ref().map_or(0, Caller::state_len);
        let texts = transaction.steps.iter();
        let texts = texts.map(|step| step.text.len() + state_of(step));
        assert_eq!(texts.sum::<usize>(), TEXTS_LEN_MAX);
        assert!(transaction.size() < 2 * TEXTS_LEN_MAX + STEPS_MAX * 2 * size_of::<Step>());
        assert_eq!(transaction.left_out, 7);
        assert_eq!(transaction.spans(), 1 + STEPS_MAX as u64);
        assert_eq!(transaction.sqlstate, Some(*b"22012"));
    }
}
