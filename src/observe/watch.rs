//! What is kept of the work of one server while a client uses it: enough to say of a statement, when it turns out to
//! have been slow, what it was, and to make spans of a transaction whose caller records a trace.
//!
//! ```text
//!   a transaction:  nobody's --a text that is sent names such a caller--> expected
//!                   expected --its batch is answered--> followed; nobody is expected, unless it was not the last
//!                   followed --it ends, or breaks--> nobody's, and news for the session
//! ```
//! Who the caller of a batch is, is decided when it is answered, because in a pipeline the batches of several
//! transactions are under way. A caller may be named by any statement, since drivers send BEGIN by themselves: the
//! first that is named counts, and what was done before has no span of its own.

use std::time::{Duration, Instant};

use pooler_protocol::route::{Caller, TraceParent};

use super::transaction::{Broken, Step, Transaction};
use crate::metrics::SqlState;

/// Bytes of batches that are kept: the front of them is enough to say what they were.
const KEPT_LEN_MAX: usize = 8 * 1024;

/// Slow statements, and transactions, that may wait for the session, which takes them at the end of each poll.
const NEWS_MAX: usize = 256;

/// Statements of a transaction that have a span each.
pub const STEPS_MAX: usize = 64;

/// A request and its answer.
#[derive(Debug)]
pub struct Statement {
    /// Its text, or the front of it; empty if that is not known any more.
    pub text: Vec<u8>,
    /// The body of the first Bind, if all of it is here.
    pub bind: Vec<u8>,
    /// How long the server worked on it.
    pub ran: Duration,
    /// How long it had waited for the server.
    pub waited: Duration,
    /// Rows returned, or written.
    pub rows: u64,
    /// Bytes of its answer.
    pub bytes: u64,
    /// Its error.
    pub sqlstate: Option<SqlState>,
    /// Who asked, if that is known.
    pub caller: Option<TraceParent>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Watch {
    /// Batches that are not answered yet, the oldest first.
    kept: Vec<u8>,
    /// They did not all fit: only the first of them is known.
    is_cut: bool,
    rows: u64,
    sqlstate: Option<SqlState>,
    /// Bytes received from the server, up to the last read.
    received: u64,
    /// Those of them that belong to answers before this one.
    received_before: u64,
    /// What the transaction waited for this server, until that ends.
    waited: Duration,
    /// How long it took to open this server.
    opening: Duration,
    /// Somebody who records a trace has asked for something that is not answered.
    expected: Option<Box<Expected>>,
    /// While somebody is expected or followed: when each command of the batch was done, and its rows.
    commands: Vec<(Instant, u64)>,
    followed: Option<Box<Transaction>>,
    slow: Vec<Statement>,
    traced: Vec<Transaction>,
    /// Spans of transactions for which there was no room among those.
    lost: u64,
}

/// Who is expected. Requests are known by the numbers that the ledger gives them.
#[derive(Debug, Default)]
struct Expected {
    /// The first whom a text names that is not answered, and the request with that text.
    said: Option<(u64, Caller)>,
    /// Whom the session named first.
    set: Option<TraceParent>,
    /// The last request of any of them.
    last: u64,
}

impl Watch {
    /// These bytes go to the server.
    #[inline]
    pub fn keep(&mut self, sent: &[u8]) {
        if self.is_cut {
            return;
        }
        let room = KEPT_LEN_MAX - self.kept.len();
        self.is_cut = sent.len() > room;
        self.kept.extend_from_slice(&sent[..sent.len().min(room)]);
    }

    /// The batches that are not answered.
    #[must_use]
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// What they are is not known before all is answered: it was not looked at from the beginning.
    pub fn begin_late(&mut self) {
        self.forget_all();
        self.is_cut = true;
    }

    /// The first `len` bytes of them are answered.
    pub fn forget(&mut self, len: usize) {
        if self.is_cut || len >= self.kept.len() {
            self.kept.clear();
        } else {
            self.kept.drain(..len);
        }
    }

    /// Everything is answered, or will never be.
    #[inline]
    pub fn forget_all(&mut self) {
        self.kept.clear();
        self.commands.clear();
        self.is_cut = false;
        if self.expected.is_some() {
            self.expected = None;
        }
    }

    /// It took so long to open this server.
    pub fn note_opening(&mut self, took: Duration) {
        self.opening = took;
    }

    /// The text of request number `at` names a caller who records its trace.
    #[cold]
    pub fn expect(&mut self, caller: Caller, at: u64) {
        let expected = self.expected.get_or_insert_default();
        expected.said.get_or_insert((at, caller));
        expected.last = at;
    }

    /// The session, whose requests up to number `last` were sent, names a caller who records its trace.
    #[cold]
    pub fn expect_all(&mut self, caller: TraceParent, last: u64) {
        let expected = self.expected.get_or_insert_default();
        expected.set.get_or_insert(caller);
        expected.last = last;
    }

    /// All requests below number `end` are answered: their callers are expected no more.
    #[inline]
    pub fn note_answered(&mut self, end: u64) {
        if let Some(expected) = &mut self.expected {
            if expected.last < end {
                self.expected = None;
            } else if expected.said.as_ref().is_some_and(|(at, _)| *at < end) {
                // What is known of those behind it is in what was kept of their batches.
                expected.said = None;
            }
        }
    }

    /// Whether what is answered is to be looked at for the sake of a trace.
    #[inline]
    #[must_use]
    pub fn is_close(&self) -> bool {
        self.expected.is_some() || self.followed.is_some()
    }

    /// Whom a text of a request below number `end` names, the first that is not answered.
    #[must_use]
    pub fn said_below(&self, end: u64) -> Option<&Caller> {
        let (at, caller) = self.expected.as_ref()?.said.as_ref()?;
        (*at < end).then_some(caller)
    }

    /// Whom the session named when the first of the requests was sent that are not answered.
    #[must_use]
    pub fn set(&self) -> Option<TraceParent> {
        self.expected.as_ref()?.set
    }

    /// The first request of a transaction had waited so long for this server.
    #[inline]
    pub fn note_waited(&mut self, waited: Duration) {
        self.waited = waited;
    }

    /// The transaction that runs is this caller's, and began then; nothing if one is followed already. `born`
    /// says when a server was opened that nobody has had before.
    pub fn follow(&mut self, caller: Caller, began: Instant, born: Option<Instant>) {
        if self.followed.is_some() {
            return;
        }
        let mut transaction = Transaction::new(caller, began, self.waited);
        let opened = born.filter(|_| !self.waited.is_zero());
        let opening = self.opening;
        transaction.opening = opened.and_then(|born| Some((born.checked_sub(opening)?, born)));
        self.followed = Some(Box::new(transaction));
    }

    /// Whether the transaction that runs is followed.
    #[must_use]
    pub fn followed(&self) -> Option<&Transaction> {
        self.followed.as_deref()
    }

    /// A statement of it has ended.
    pub fn push(&mut self, step: Step) {
        if let Some(followed) = &mut self.followed {
            followed.push(step);
        }
    }

    /// Takes when each command of the batch was done, and its rows.
    #[must_use]
    pub fn take_commands(&mut self) -> Vec<(Instant, u64)> {
        std::mem::take(&mut self.commands)
    }

    /// The transaction that runs has ended.
    #[inline]
    pub fn end_transaction(&mut self, now: Instant) {
        self.waited = Duration::ZERO;
        if self.followed.is_some() {
            self.end_followed(now, None);
        }
    }

    /// The transaction that runs does not come to its end.
    pub fn break_transaction(&mut self, now: Instant, broken: Broken) {
        self.end_followed(now, Some(broken));
    }

    #[cold]
    fn end_followed(&mut self, now: Instant, broken: Option<Broken>) {
        let Some(mut transaction) = self.followed.take() else {
            return;
        };
        transaction.ended = now;
        transaction.broken = broken;
        self.commands = Vec::new();
        if self.traced.len() < NEWS_MAX {
            self.traced.push(*transaction);
        } else {
            self.lost += transaction.spans();
        }
    }

    /// A statement has ended, with this tag (PostgreSQL documentation, CommandComplete).
    #[inline]
    pub fn note_command(&mut self, body: &[u8]) {
        let tag = body.strip_suffix(b"\0").unwrap_or(body);
        let mut rows = 0;
        let mut unit = 1_u64;
        for byte in tag.iter().rev() {
            match byte {
                b'0'..=b'9' => rows = digit_added(rows, unit, *byte),
                _ => break,
            }
            unit = unit.wrapping_mul(10);
        }
        self.rows = self.rows.wrapping_add(rows);
        if self.is_close() {
            self.note_command_closely(rows);
        }
    }

    /// An error of its own.
    #[cold]
    pub fn note_error(&mut self, sqlstate: &str) {
        self.sqlstate = SqlState::try_from(sqlstate.as_bytes()).ok();
        if self.is_close() {
            self.note_command_closely(0);
        }
    }

    #[cold]
    fn note_command_closely(&mut self, rows: u64) {
        if self.commands.len() < STEPS_MAX {
            self.commands.push((Instant::now(), rows));
        }
    }

    /// So many bytes were read and judged.
    #[inline]
    pub fn note_received(&mut self, len: usize) {
        self.received = self.received.wrapping_add(len as u64);
    }

    /// Takes what is known of the answer that ended with the byte before `at` of what is being read: rows,
    /// bytes, error.
    #[inline]
    pub fn take_numbers(&mut self, at: usize) -> (u64, u64, Option<SqlState>) {
        let received = self.received.wrapping_add(at as u64);
        let bytes = received.wrapping_sub(self.received_before);
        self.received_before = received;
        (
            std::mem::take(&mut self.rows),
            bytes,
            std::mem::take(&mut self.sqlstate),
        )
    }

    /// The client has left, in the middle of its work perhaps: what it did concerns nobody any more.
    #[inline]
    pub fn abandon(&mut self) {
        self.forget_all();
        self.rows = 0;
        self.sqlstate = None;
        self.received_before = self.received;
        self.waited = Duration::ZERO;
        if self.followed.is_some() {
            self.followed = None;
        }
    }

    /// What has just ended was slow.
    #[cold]
    pub fn note_slow(&mut self, statement: Statement) {
        if self.slow.len() < NEWS_MAX {
            self.slow.push(statement);
        }
    }

    /// Whether there is something for the session to tell.
    #[inline]
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.slow.is_empty() || !self.traced.is_empty()
    }

    /// Takes what was slow.
    #[must_use]
    pub fn take_slow(&mut self) -> Vec<Statement> {
        std::mem::take(&mut self.slow)
    }

    /// Takes the transactions that have ended and were followed, and how many spans of further ones were lost.
    #[must_use]
    pub fn take_traced(&mut self) -> (Vec<Transaction>, u64) {
        let lost = std::mem::take(&mut self.lost);
        (std::mem::take(&mut self.traced), lost)
    }
}

/// A server may say any number.
#[inline]
fn digit_added(rows: u64, unit: u64, byte: u8) -> u64 {
    rows.wrapping_add(unit.wrapping_mul(u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_abandoned_leaves_no_command_to_the_next() {
        let parent = TraceParent {
            trace_id: [1; 16],
            span_id: [2; 8],
            sampled: true,
        };
        let state = None;
        let mut watch = Watch::default();
        watch.expect(Caller { parent, state }, 0);
        watch.note_command(b"SELECT 12\0");
        watch.note_error("25006");
        watch.abandon();
        assert!(watch.take_commands().is_empty());
    }

    #[test]
    fn a_caller_is_expected_until_its_request_is_answered() {
        let caller = |n: u8| Caller {
            parent: TraceParent {
                trace_id: [n; 16],
                span_id: [n; 8],
                sampled: true,
            },
            state: None,
        };
        let mut watch = Watch::default();
        watch.expect(caller(1), 3);
        watch.expect(caller(2), 7);
        assert_eq!(watch.said_below(3), None);
        watch.note_answered(3);
        assert_eq!(watch.said_below(5), Some(&caller(1)));
        watch.note_answered(5);
        // The second is not the first's, and its batch is looked at.
        assert_eq!(watch.said_below(8), None);
        assert!(watch.is_close());
        watch.note_answered(8);
        assert!(!watch.is_close());
        watch.expect_all(caller(3).parent, 9);
        watch.note_answered(9);
        assert_eq!(watch.set(), Some(caller(3).parent));
        watch.note_answered(10);
        assert_eq!(watch.set(), None);
    }

    #[test]
    fn rows_are_the_last_number_of_the_tag() {
        let mut watch = Watch::default();
        for tag in [
            &b"SELECT 12\0"[..],
            b"INSERT 0 3\0",
            b"BEGIN\0",
            b"COPY 1000",
            b"",
        ] {
            watch.note_command(tag);
        }
        assert_eq!(watch.take_numbers(0).0, 1015);
        watch.note_command(b"X 99999999999999999999999999\0");
    }

    #[test]
    fn of_long_batches_the_front_is_kept() {
        let mut watch = Watch::default();
        watch.keep(&[1; KEPT_LEN_MAX - 1]);
        watch.keep(&[2; 10]);
        watch.keep(&[3; 10]);
        assert_eq!(watch.kept().len(), KEPT_LEN_MAX);
        assert_eq!(watch.kept().last(), Some(&2));
        watch.forget(100);
        assert!(watch.kept().is_empty());
        watch.forget_all();
        watch.keep(&[4; 10]);
        watch.forget(4);
        assert_eq!(watch.kept(), [4; 6]);
    }

    #[test]
    fn bytes_belong_to_the_answer_that_they_came_with() {
        let mut watch = Watch::default();
        watch.note_received(100);
        assert_eq!(watch.take_numbers(30).1, 130);
        assert_eq!(watch.take_numbers(50).1, 20);
        watch.note_received(70);
        assert_eq!(watch.take_numbers(5).1, 25);
    }
}
