//! One client and one server, until the server is free again.
//!
//! ```text
//!            requests                        replies
//!  client -----------> ledger ----> server ----------> ledger ----> client
//! ```
//! Both directions are polled whatever one of them is doing. A direction that has bytes its peer
//! would not take is not read, so a slow reader slows its own sender and nothing grows. The relay
//! knows no pool and no configuration; it ends with an [`Outcome`], and what becomes of the server
//! is its caller's business. What the client leaves in the session is `questions`' business.
//!
//! Dropped midway, the ledger still says what the server owes: such a server is settled or closed,
//! never handed on.

use std::ops::Range;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pooler_protocol::backend::TransactionStatus;
use pooler_protocol::frontend::{tag, write_statement_target, write_sync};
use pooler_protocol::ledger::{Deal, Request, Reusable};
use pooler_protocol::prepared::NO_STATEMENT;

use crate::buffer::{SCRATCH_LEN, Scratch};
use crate::error::{Refusal, ServerFault};
use crate::metrics::PoolCounters;
use crate::observe::Attention;
use crate::server::{Interners, Server};

mod client_side;
mod listening;
mod naming;
mod position;
mod questions;
mod replies;
mod requests;
mod statements;
mod stint;
mod watching;

pub use client_side::{ClientSide, Ended, Fill, HeldBack};
pub use listening::{Heard, Listening};
pub use naming::Naming;
pub use position::asks_position;
pub(crate) use questions::may_name_statement;
pub use questions::{KINDS, Kind, Leftovers, Possessions, reasons};
pub use stint::{Again, Rerun, Stint, each_message, first_batch_len, forget_names};
pub use watching::break_transaction;

/// What the relay does differently for one client and another.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Number of the pool.
    pub pool: u64,
    /// Statements that one server may hold.
    pub max_prepared_statements: usize,
    /// End when the server is free, not only when the client leaves.
    pub release_between_transactions: bool,
    /// Refuse transaction blocks.
    pub refuse_transactions: bool,
    /// What to do about what only one connection can hold.
    pub leftovers: Leftovers,
    /// A client that has drawn from a sequence keeps its server.
    pub keep_sequences: bool,
    /// `SHOW pooler.position` is answered with the server's position.
    pub shows_position: bool,
    /// What is to be noticed.
    pub attention: Attention,
}

/// Times of the work now running, for the sweep and for the histograms.
#[derive(Debug, Default, Clone, Copy)]
pub struct Meter {
    /// When the transaction began.
    pub transaction: Option<Instant>,
    /// When the request was sent that the server works on.
    pub query: Option<Instant>,
    /// When the server last became ready inside a transaction, while it has nothing to do.
    pub idle_since: Option<Instant>,
    /// The last look at the clock.
    pub now: Option<Instant>,
    /// How long the first request waited for the server, until that is answered.
    pub waited: Duration,
    /// It was looked at in this very poll, before the server got anything to do.
    pub fresh: bool,
}

impl Meter {
    /// As `state` of `pg_stat_activity`.
    #[must_use]
    pub fn doing(&self) -> &'static str {
        match (self.query, self.transaction) {
            (Some(_), _) => "active",
            (None, Some(_)) => "idle in transaction",
            (None, None) => "idle",
        }
    }
}

/// How it ended.
#[derive(Debug)]
pub enum Outcome {
    /// The server owes nothing and can be handed on.
    Done(Reusable),
    /// The client has left; the server may still owe replies.
    ClientLeft,
    /// The client broke a rule and is to be told so; the server may still owe replies.
    Refused(Box<Refusal>),
    /// The server is of no use any more.
    ServerLost(Box<ServerFault>),
    /// It was the wrong server: what it was sent last is to be sent to another, and the client knows
    /// nothing of it.
    Elsewhere(Again),
}

/// See the module.
#[derive(Debug)]
pub struct Relay<'a> {
    /// One side.
    pub client: &'a mut ClientSide,
    /// The other.
    pub server: &'a mut Server,
    /// The worker's buffers.
    pub scratch: &'a mut Scratch,
    /// The process's statements and settings.
    pub interners: &'a Interners,
    /// The pool's counters.
    pub counters: &'a PoolCounters,
    /// Times.
    pub meter: &'a mut Meter,
    /// Rules.
    pub rules: Rules,
}

impl Relay<'_> {
    /// Moves what can be moved. `fresh` is a part of the scratch buffer's input that was read from
    /// the client in this very poll.
    #[inline]
    pub fn poll(&mut self, cx: &mut Context<'_>, fresh: Option<Range<usize>>) -> Poll<Outcome> {
        let polled = match self.run(cx, fresh) {
            Ok(polled) => polled,
            Err(outcome) => Poll::Ready(outcome),
        };
        self.server.cut = self.client.pass > 0;
        polled
    }

    #[inline]
    fn run(
        &mut self,
        cx: &mut Context<'_>,
        fresh: Option<Range<usize>>,
    ) -> Result<Poll<Outcome>, Outcome> {
        if let Some(range) = fresh {
            self.take_requests(cx, range)?;
        }
        loop {
            let mut moved = self.read_requests(cx)?;
            moved |= self.read_replies(cx)?;
            if self.server.ledger.needs_question()
                && (self.rules.release_between_transactions
                    || self.client.held_back != HeldBack::No)
            {
                self.ask_whether_settled();
                moved = true;
            }
            moved |= self.ask_at_rest();
            moved |= self.hand_over_listening();
            if let Some(outcome) = self.outcome() {
                return Ok(Poll::Ready(outcome));
            }
            if !moved {
                return Ok(Poll::Pending);
            }
        }
    }

    /// A ReadyForQuery may still come that nobody waits for: after the answer to a question of the
    /// pooler's own it is known. Closing a statement that cannot exist does nothing.
    #[cold]
    fn ask_whether_settled(&mut self) {
        let server = &mut *self.server;
        server.outbox.append(|out| {
            write_statement_target(out, tag::CLOSE, NO_STATEMENT);
            write_sync(out);
        });
        let _close = server.ledger.request(Request::Close, Deal::Skip, 0);
        let _sync = server.ledger.request(Request::Sync, Deal::Skip, 0);
    }

    /// How it has ended, if it has.
    #[inline]
    fn outcome(&mut self) -> Option<Outcome> {
        match self.client.ended {
            Ended::No => {
                if !self.rules.release_between_transactions || self.is_within_message() {
                    return None;
                }
                // It waits for what was sent in front of it: on another server it would wait again.
                if self.client.held_back != HeldBack::No && self.client.unread {
                    return None;
                }
                if self.client.possessions.are_somewhere() && !self.may_drop_leftovers() {
                    return None;
                }
                self.server.reusable().map(Outcome::Done)
            }
            // PostgreSQL, too, does what was asked before Terminate and then ends. What no Sync
            // follows, and a COPY whose data break off, never get to an end.
            Ended::Terminate => {
                let ledger = &self.server.ledger;
                let at_rest = !ledger.owes_ready() || ledger.is_copying_in();
                let server = &*self.server;
                (at_rest && server.outbox.has_sent_all(&server.stream))
                    .then_some(Outcome::ClientLeft)
            }
            Ended::Gone => Some(Outcome::ClientLeft),
        }
    }

    /// Whether what the client has left on the server is of no more use to it.
    fn may_drop_leftovers(&self) -> bool {
        let possessions = &self.client.possessions;
        self.rules.leftovers == Leftovers::Drop && !possessions.is_due() && !possessions.is_asked()
    }

    /// Whether the server has had a part of a message, or is to have a long one of which a part is
    /// here: COPY can fail, and the server be idle, before its data have all come in.
    #[inline]
    fn is_within_message(&self) -> bool {
        let client = &*self.client;
        client.pass > 0 || (client.carry.len() > SCRATCH_LEN && !client.unread)
    }

    /// A look at the clock that also serves the sweep.
    #[inline]
    fn look_at_clock(&mut self) -> Instant {
        let now = Instant::now();
        self.meter.now = Some(now);
        now
    }

    /// The server is about to get work.
    #[inline]
    fn begin_work(&mut self) {
        let known = self.meter.now.filter(|_| self.meter.fresh);
        let now = known.unwrap_or_else(|| self.look_at_clock());
        self.meter.fresh = false;
        self.meter.query = Some(now);
        self.meter.idle_since = None;
        self.meter.transaction.get_or_insert(now);
    }

    /// The server said ReadyForQuery to the client; it ends at `at` of what is being read.
    #[inline]
    fn end_work(&mut self, at: usize) -> Result<(), Outcome> {
        let now = self.look_at_clock();
        self.counters.queries.add(1);
        if let Some(began) = self.meter.query {
            self.counters.query_seconds.record(now - began);
            if self.rules.attention.is_on {
                self.watch_end(began, now, at);
            }
        }
        let more = self.server.ledger.outstanding() > 0;
        self.meter.query = more.then_some(now);
        if self.server.ledger.status() == TransactionStatus::Idle {
            if std::mem::take(&mut self.server.defined) {
                self.interners.note_definition();
            }
            self.counters.transactions.add(1);
            if let Some(began) = self.meter.transaction {
                self.counters.transaction_seconds.record(now - began);
            }
            if self.rules.attention.traces {
                self.server.watch.end_transaction(now);
            }
            self.meter.transaction = more.then_some(now);
            self.meter.idle_since = None;
        } else if self.rules.refuse_transactions {
            let refusal = Refusal::transaction_in_statement_mode();
            return Err(Outcome::Refused(Box::new(refusal)));
        } else {
            self.meter.idle_since = (!more).then_some(now);
        }
        Ok(())
    }
}

impl From<ServerFault> for Outcome {
    fn from(fault: ServerFault) -> Self {
        Self::ServerLost(Box::new(fault))
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}
