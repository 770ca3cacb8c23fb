//! The ledger: what a server still owes, and to whom.
//!
//! Every message sent to a server adds what it must be answered with; every message that comes
//! back is checked against the oldest entry. So a reply goes to the client that asked, a reply to
//! the pooler's own question goes to nobody, and a reply that nobody asked for is a violation
//! instead of somebody else's rows.
//!
//! ```text
//!                request()                      response()
//!  client --------------------> [ entries ] <-------------------- server
//!                                   |
//!          Forward: to the client   |   Skip: the pooler asked, swallow it (Read: and look at it)
//!          Answer:  the server was not asked, the pooler replies when its turn comes
//!
//!  flow      --ErrorResponse in the extended protocol, no Sync queued--> discarding
//!  discarding --Sync sent--> flow                (the server ignores all until Sync)
//!  flow      --CopyInResponse--> copying in      (the server ignores Sync and Flush)
//!  copying in --CopyDone or CopyFail sent, ErrorResponse--> flow
//! ```
//!
//! One thing cannot be known: when a COPY fails, whether the server had already read, and ignored,
//! a Sync that was sent before the end of the data. Each such Sync may still bring a ReadyForQuery,
//! a *stray*; the first reply to anything asked later shows that no more of them come.
//!
//! Invariant: [`Reusable`] can be had only while nothing is owed, the last Sync is answered, the
//! transaction status is idle, and no rule of the protocol left doubt about what the server will
//! send next.

use std::collections::VecDeque;

use crate::backend::{TransactionStatus, tag};

mod copy;
mod effect;
mod entry;

use copy::CopyIn;
use effect::{Effect, Phase, effect_of};
use entry::Entry;
pub use entry::{Answer, Deal, Request, Sent, Verdict, Violation};

/// Entries above which the caller stops reading from the client, so that a pipeline that nobody
/// reads the replies of cannot grow the ledger without bound.
pub const OUTSTANDING_MAX: usize = 65_536;

/// Proof that a server can be handed to another client: nothing is owed and nothing is in doubt.
/// Only [`Ledger::reusable`] makes one.
#[derive(Debug)]
pub struct Reusable(());

/// The outstanding requests of one server connection, oldest first.
#[derive(Debug)]
pub struct Ledger {
    entries: VecDeque<Entry>,
    /// How many there have been.
    entered: u64,
    status: TransactionStatus,
    /// How far the first of them is answered.
    phase: Phase,
    /// Those of them that may be a COPY.
    copyable: usize,
    /// The server ignores everything until Sync.
    discarding: bool,
    /// Something was sent behind which the server waits for a Sync, its transaction open.
    unsynced: bool,
    copy_in: CopyIn,
    /// Syncs that the COPY now running swallows, unless it fails before the server reads them.
    swallowed: u32,
    /// ReadyForQuery messages that a failed COPY may have left behind.
    strays: u32,
    /// The server may send something that no entry expects.
    doubt: bool,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    /// The ledger of a server that has just sent its first ReadyForQuery.
    #[must_use]
    pub fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            entered: 0,
            status: TransactionStatus::Idle,
            phase: Phase::Start,
            copyable: 0,
            discarding: false,
            unsynced: false,
            copy_in: CopyIn::No,
            swallowed: 0,
            strays: 0,
            doubt: false,
        }
    }

    /// The transaction status of the last ReadyForQuery.
    #[inline]
    #[must_use]
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Requests that are not answered yet.
    #[inline]
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.entries.len()
    }

    /// The number of the next request: they are counted from 0 on.
    #[inline]
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.entered
    }

    /// All requests below this number are answered.
    #[inline]
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.entered - self.entries.len() as u64
    }

    /// All requests below this number are answered when the next ReadyForQuery has come, as far as they have been sent.
    #[must_use]
    pub fn answered_next(&self) -> u64 {
        let ends = |e: &Entry| e.asked().is_some_and(Request::ends_ready);
        let last = self.entries.iter().position(ends);
        let len = last.map_or(self.entries.len(), |last| last + 1);
        self.answered() + len as u64
    }

    /// Whether the server ignores everything until Sync.
    #[must_use]
    pub fn is_discarding(&self) -> bool {
        self.discarding
    }

    /// Whether the server reads COPY data from the client.
    #[must_use]
    pub fn is_copying_in(&self) -> bool {
        self.copy_in != CopyIn::No
    }

    /// Whether the server has work of a client's: a cancel would have something to hit.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.entries.iter().any(|e| e.asked().is_some())
    }

    /// Whether the server works on a simple Query of the pooler's own.
    #[must_use]
    pub fn is_asked_aside(&self) -> bool {
        let head = self.entries.front();
        matches!(
            head,
            Some(Entry::Owed {
                request: Request::Query,
                deal: Deal::Skip | Deal::Read,
                ..
            })
        )
    }

    /// Whether the client is still to get a reply to something that was sent.
    #[must_use]
    pub fn owes_client(&self) -> bool {
        let to_client = |e: &Entry| match e {
            Entry::Owed { deal, .. } => *deal == Deal::Forward,
            Entry::Answer { .. } => true,
        };
        self.entries.iter().any(to_client)
    }

    /// Whether a ReadyForQuery is owed.
    #[must_use]
    pub fn owes_ready(&self) -> bool {
        let mut asked = self.entries.iter().filter_map(|e| e.asked());
        asked.any(Request::ends_ready)
    }

    /// Whether something was sent behind which no Sync was: what it did is not committed.
    #[must_use]
    pub fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    /// Whether no reply of the pooler's own is due for want of a server message to go along with:
    /// the server owes something, or nothing at all is owed.
    #[inline]
    #[must_use]
    pub fn is_busy_or_quiet(&self) -> bool {
        match self.entries.front() {
            Some(Entry::Answer { .. }) => self.is_busy(),
            _ => true,
        }
    }

    /// Proof that the server can serve another client, if it can.
    #[inline]
    #[must_use]
    pub fn reusable(&self) -> Option<Reusable> {
        let clean = self.is_settled()
            && self.status == TransactionStatus::Idle
            && self.strays == 0
            && !self.doubt;
        clean.then_some(Reusable(()))
    }

    /// Whether the client has had all its replies, outside a transaction and with nothing begun: if
    /// the server is lost now, nothing of the client's is.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.is_settled() && self.status == TransactionStatus::Idle
    }

    /// Whether only a stray ReadyForQuery may still come. Any question of the pooler's own decides:
    /// a Close of the unnamed portal and a Sync cost nothing and work in a failed transaction.
    #[must_use]
    pub fn needs_question(&self) -> bool {
        self.is_settled() && self.strays > 0 && !self.doubt
    }

    /// Whether a ReadyForQuery may come, or may yet turn out to come, that no entry expects. An
    /// [`Answer`] cannot find its place behind one: let the server itself reply meanwhile.
    #[inline]
    #[must_use]
    pub fn may_stray(&self) -> bool {
        self.strays > 0 || self.swallowed > 0
    }

    fn is_settled(&self) -> bool {
        self.entries.is_empty() && !self.discarding && !self.unsynced && self.copy_in == CopyIn::No
    }

    /// Notes that `request` is about to be sent. `ops` entries of the caller's journal stand or
    /// fall with it; a Sync and an end of COPY have none.
    #[inline]
    pub fn request(&mut self, request: Request, deal: Deal, ops: u8) -> Sent {
        if self.discarding {
            if request != Request::Sync {
                // A stray Sync would have woken the server: it may do what is dropped here.
                self.doubt |= self.strays > 0 && request != Request::CopyEnd;
                return Sent::Discard;
            }
            self.discarding = false;
        }
        match request {
            Request::CopyEnd => return self.request_copy_end(),
            Request::Sync if self.copy_in == CopyIn::Open => {
                self.swallowed = self.swallowed.saturating_add(1);
                return Sent::Unanswered;
            }
            Request::Sync => {}
            _ if self.copy_in == CopyIn::Open => self.copy_in = CopyIn::Cut,
            _ => {}
        }
        self.unsynced = !request.ends_ready();
        self.copyable += usize::from(request.may_copy());
        self.enter(Entry::Owed { request, deal, ops });
        Sent::Entered
    }

    /// Notes a reply that the pooler gives itself, behind all that is owed so far. Returns false
    /// if the server would have ignored the request. See [`Ledger::may_stray`].
    pub fn answer(&mut self, answer: Answer, ops: u8) -> bool {
        if self.discarding {
            return false;
        }
        self.enter(Entry::Answer { answer, ops });
        true
    }

    /// The next reply of the pooler's own, if its turn has come, and how many entries of the
    /// journal it makes true.
    #[inline]
    pub fn take_answer(&mut self) -> Option<(Answer, u32)> {
        let &Entry::Answer { answer, ops } = self.entries.front()? else {
            return None;
        };
        self.pop();
        Some((answer, u32::from(ops)))
    }

    /// Whether a DataRow or CopyData is due: for these the full check of [`Ledger::response`] need
    /// not be made for each of a million.
    #[inline]
    #[must_use]
    pub fn rows_to(&self) -> Option<Deal> {
        match self.entries.front()? {
            _ if self.copy_in != CopyIn::No => None,
            Entry::Owed {
                request: Request::Query,
                deal,
                ..
            } if self.phase == Phase::Within => Some(*deal),
            Entry::Owed {
                request: Request::Execute,
                deal,
                ..
            } if self.phase != Phase::Copying => Some(*deal),
            _ => None,
        }
    }

    /// Judges a message of type `tag` from the server. `status` is the first byte of its body and
    /// matters for ReadyForQuery alone.
    ///
    /// # Errors
    /// [`Violation`] if it answers nothing that was asked: the server must be closed.
    #[inline]
    pub fn response(&mut self, tag: u8, status: u8) -> Result<Verdict, Violation> {
        match tag {
            tag::NOTICE_RESPONSE | tag::PARAMETER_STATUS => Ok(Verdict::to(self.head_deal())),
            // It is for who listens, whoever's reply it travels with.
            tag::NOTIFICATION_RESPONSE => Ok(Verdict::to(Deal::Forward)),
            tag::ERROR_RESPONSE => self.error(),
            tag::READY_FOR_QUERY => self.ready(status),
            _ => self.reply(tag),
        }
    }

    /// Asynchronous messages go where the reply of the hour goes.
    fn head_deal(&self) -> Deal {
        match self.entries.front() {
            Some(Entry::Owed { deal, .. }) => *deal,
            _ => Deal::Forward,
        }
    }

    fn reply(&mut self, tag: u8) -> Result<Verdict, Violation> {
        let Some(&Entry::Owed {
            request, deal, ops, ..
        }) = self.entries.front()
        else {
            return Err(Violation::Unasked { tag });
        };
        let effect = match self.copy_in {
            CopyIn::No => effect_of(tag, request, self.phase),
            CopyIn::Open | CopyIn::Cut => None,
        };
        let Some(effect) = effect else {
            return Err(Violation::Mismatch {
                tag,
                expected: request,
            });
        };
        self.strays = 0;
        let mut verdict = Verdict::to(deal);
        match effect {
            Effect::Enters(phase) => {
                self.phase = phase;
                match tag {
                    tag::COPY_IN_RESPONSE => self.begin_copy_in(),
                    // The server has read the end of the data, and every Sync before it.
                    tag::COMMAND_COMPLETE => self.swallowed = 0,
                    tag::PARAMETER_DESCRIPTION => {
                        self.entries[0] = Entry::Owed {
                            request: Request::DescribePortal,
                            deal,
                            ops,
                        };
                    }
                    _ => {}
                }
            }
            Effect::Answers => {
                self.swallowed = 0;
                verdict.kept = u32::from(ops);
                self.pop();
            }
        }
        Ok(verdict)
    }

    fn ready(&mut self, status: u8) -> Result<Verdict, Violation> {
        let status = TransactionStatus::from_byte(status).ok_or(Violation::BadStatus { status })?;
        let tag = tag::READY_FOR_QUERY;
        let head = self.entries.front().copied();
        match head {
            Some(Entry::Owed { request, deal, ops }) if self.may_be_ready(request) => {
                self.status = status;
                self.pop();
                Ok(Verdict {
                    kept: u32::from(ops),
                    ..Verdict::to(deal)
                })
            }
            _ if self.strays > 0 && self.phase == Phase::Start => {
                self.strays -= 1;
                self.status = status;
                if self.discarding {
                    self.discarding = false;
                    self.unsynced = false;
                }
                Ok(Verdict::to(Deal::Forward))
            }
            Some(Entry::Owed {
                request: expected, ..
            }) => Err(Violation::Mismatch { tag, expected }),
            _ => Err(Violation::Unasked { tag }),
        }
    }

    fn may_be_ready(&self, request: Request) -> bool {
        match request {
            Request::Sync => true,
            Request::Query | Request::FunctionCall => {
                matches!(self.phase, Phase::Ended | Phase::Failed)
            }
            _ => false,
        }
    }

    /// After an error inside a simple Query ReadyForQuery follows by itself. After one in the
    /// extended protocol the server ignores everything up to Sync, a Query included.
    fn error(&mut self) -> Result<Verdict, Violation> {
        self.copy_in = CopyIn::No;
        let swallowed = std::mem::take(&mut self.swallowed);
        if swallowed > 0
            && self
                .entries
                .iter()
                .any(|e| matches!(e, Entry::Answer { .. }))
        {
            return Err(Violation::Undecidable);
        }
        let head = match self.entries.front() {
            // Nothing was asked: the server is going away, and says why.
            None => {
                self.doubt = true;
                return Ok(Verdict::to(Deal::Forward));
            }
            Some(&Entry::Owed { request, deal, .. }) => {
                if request != Request::Sync {
                    self.strays = swallowed;
                }
                if request.ends_ready() {
                    self.phase = Phase::Failed;
                    return Ok(Verdict::to(deal));
                }
                self.entries[0]
            }
            Some(&answer) => answer,
        };
        let mut verdict = Verdict {
            failed: head.ops(),
            ..Verdict::to(Deal::Forward)
        };
        self.pop();
        verdict.voided = head.ops();
        while let Some(&entry) = self.entries.front() {
            if entry.is(Request::Sync) {
                return Ok(verdict);
            }
            if swallowed > 0 {
                return Err(Violation::Undecidable);
            }
            verdict.voided += entry.ops();
            self.pop();
        }
        self.discarding = true;
        Ok(verdict)
    }

    #[inline]
    fn enter(&mut self, entry: Entry) {
        self.entered += 1;
        self.entries.push_back(entry);
    }

    /// Takes the oldest entry away, and the ends of COPYs that were none.
    fn pop(&mut self) {
        self.phase = Phase::Start;
        while let Some(entry) = self.entries.pop_front() {
            self.copyable -= usize::from(entry.asked().is_some_and(Request::may_copy));
            if !self.entries.front().is_some_and(|e| e.is(Request::CopyEnd)) {
                break;
            }
        }
        // One deep pipeline must not hold its room for the life of the connection.
        if self.entries.is_empty() && self.entries.capacity() > 1024 {
            self.entries.shrink_to(64);
        }
    }

    /// Asserts what must hold between any two calls; for tests and fuzzing.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn check_invariants(&self) {
        let asked = || self.entries.iter().filter_map(|e| e.asked());
        let head = self.entries.front().copied();
        assert!(
            !head.is_some_and(|e| e.is(Request::CopyEnd)),
            "an end of COPY is owed nothing"
        );
        assert!(
            !self.discarding || self.entries.is_empty(),
            "a discarding server owes nothing until Sync"
        );
        assert_eq!(
            self.copyable,
            asked().filter(|r| r.may_copy()).count(),
            "every request that may copy is counted"
        );
        if let Some(last) = asked().next_back() {
            assert_eq!(
                self.unsynced,
                !last.ends_ready(),
                "the last request decides"
            );
        }
        if self.copy_in != CopyIn::No || self.swallowed > 0 {
            assert!(
                head.and_then(Entry::asked).is_some_and(Request::may_copy),
                "the oldest request is the COPY"
            );
        }
        assert!(
            self.phase == Phase::Start || head.is_some(),
            "only a request can be half answered"
        );
        if self.reusable().is_some() {
            assert!(!self.is_busy(), "a reusable server is not busy");
            assert!(
                !self.needs_question(),
                "a reusable server leaves no question"
            );
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
