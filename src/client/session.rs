//! A session: idle, waiting for a server, or with one.
//!
//! ```text
//!          a message that needs a server
//!   Idle ------------------------------> Active     (a server idles on this worker)
//!    ^ ------------> Waiting ----------> Active     (it does not)
//!    |                  | cancelled, timed out: the error, then Idle
//!    +-- the server owes nothing -------- Active
//!   any --Terminate, end of stream--> gone;   any --an error that ends it--> Closing --> gone
//! ```
//! One task, polled by hand: the whole path of a query is in this file and the relay's. Nothing
//! here is kept in a timer; deadlines come as orders from the sweep.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pooler_protocol::backend::write_ready_idle;
use pooler_protocol::frame::{HEADER_LEN, Header};
use pooler_protocol::frontend::tag;
use pooler_protocol::ledger::Deal;
use pooler_protocol::statement::Marks;

use super::admit::Holdings;
use super::seat::{Phase, Seated};
use super::standstill::Unquiet;
use super::turns::Ticket;
use super::{Drain, Hub, farewell};
use crate::buffer::{SCRATCH_LEN, Scratch};
use crate::config::{OnSessionState, PoolMode, Routing};
use crate::error::{Refusal, ServerFault};
use crate::observe::{Attention, Broken};
use crate::pool::{Checkout, LocalPool, Wait};
use crate::relay::{
    ClientSide, Ended, Fill, HeldBack, KINDS, Leftovers, Meter, Outcome, Relay, Rules, Stint,
};

mod describe;
mod listening;
mod local;
mod noticed;
mod obey;
mod route;

use noticed::broken_by;
use route::Routed;

pub(super) use describe::server_line;

#[derive(Debug)]
enum State {
    Idle,
    Waiting(Wait),
    Active(Checkout),
    Closing,
}

/// What the bytes at hand call for.
enum Need {
    /// Nothing more.
    Nothing,
    /// A server, for the bytes from here on.
    Server(usize),
    /// The end of the session.
    Leave,
}

/// What a step of the session came to.
enum Step {
    /// The state has changed: go on.
    Again,
    /// Nothing to do until something happens.
    Sleep,
    /// It is over.
    End,
}

/// Told, if anybody, when the cancel has landed or is dropped.
#[derive(Debug)]
struct CancelDue(Option<tokio::sync::oneshot::Sender<()>>);

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    hub: Rc<Hub>,
    client: ClientSide,
    state: State,
    /// The pool of the primary.
    home: Rc<LocalPool>,
    /// The pool whose server it has, waits for, or had last.
    local: Rc<LocalPool>,
    /// What decides which of the pools that is; nothing if it is always the primary's.
    routed: Option<Box<Routed>>,
    rules: Rules,
    meter: Meter,
    seat: Seated,
    /// The version of the pool's plan that the rules are from.
    version: u32,
    /// After an error without a server: everything up to Sync is dropped.
    discarding: bool,
    /// A cancel came while the server worked on a question of the pooler's own, and waits for the
    /// end of that: an error in it would cost the client its server.
    cancel_due: Option<CancelDue>,
    /// What the counters say keeps it on its server.
    pins: Marks,
    /// Why it was ended, if not by the client.
    ended_by: Option<Box<Broken>>,
    /// Others know how to wake it.
    started: bool,
    /// It is to stand still, and has something unsent.
    unquiet: Option<Rc<Unquiet>>,
    /// It is over, and waits for its turn to close what it has: thousands can end at once.
    leaving: Option<Ticket>,
    holdings: Holdings,
}

/// Serves the client to the end. Dropped midway, its server is closed.
impl Future for Session {
    type Output = ();

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let session = self.get_mut();
        if let Some(ticket) = &mut session.leaving {
            return session.hub.turns.poll_take(ticket, cx);
        }
        if !session.started {
            session.started = true;
            session.seat.set_waker(cx.waker());
            let client = &mut session.client;
            if client.outbox.send_first(&mut client.stream, cx).is_err() {
                session.leave_server();
                return Poll::Ready(());
            }
        }
        let polled = session.step(cx);
        ready!(polled);
        session.leave_server();
        let ticket = session.leaving.insert(Ticket::default());
        session.hub.turns.poll_take(ticket, cx)
    }
}

/// Dropped midway it keeps nothing any more either.
impl Drop for Session {
    fn drop(&mut self) {
        self.count_pins(Marks::NONE);
        if self.rules.attention.connections {
            self.log_logout();
        }
    }
}

impl Session {
    /// Of a client that has just been let in, so long after it connected.
    #[must_use]
    pub(super) fn new(
        hub: Rc<Hub>,
        client: ClientSide,
        local: Rc<LocalPool>,
        seat: Seated,
        holdings: Holdings,
        login: Duration,
    ) -> Self {
        let mut session = Self {
            hub,
            client,
            state: State::Idle,
            rules: Rules {
                pool: 0,
                max_prepared_statements: 0,
                release_between_transactions: true,
                refuse_transactions: false,
                leftovers: Leftovers::Keep,
                keep_sequences: false,
                shows_position: false,
                attention: Attention::NONE,
            },
            meter: Meter::default(),
            seat,
            version: 0,
            discarding: false,
            cancel_due: None,
            pins: Marks::NONE,
            ended_by: None,
            started: false,
            unquiet: None,
            leaving: None,
            holdings,
            home: Rc::clone(&local),
            local,
            routed: None,
        };
        session.look_up_attention();
        session.look_up_rules();
        if session.rules.attention.connections {
            session.log_login(login);
        }
        session
    }

    /// In a pool by session the server is there from the login on.
    pub(super) fn begin_with(&mut self, server: Checkout, now: Instant) {
        self.state = State::Active(server);
        self.meter.now = Some(now);
        self.seat.note(self.meter);
        self.seat.enter(Phase::Active, now);
    }

    fn look_up_rules(&mut self) {
        let pool = self.home.shared();
        self.version = pool.version();
        let settings = Arc::clone(&pool.plan().settings);
        self.rules = Rules {
            pool: pool.id,
            max_prepared_statements: settings.max_prepared_statements,
            release_between_transactions: settings.pool_mode != PoolMode::Session,
            refuse_transactions: settings.pool_mode == PoolMode::Statement,
            leftovers: match settings.on_session_state {
                OnSessionState::Pin => Leftovers::Keep,
                OnSessionState::Error => Leftovers::Refuse,
                OnSessionState::Ignore => Leftovers::Drop,
            },
            keep_sequences: settings.keep_sequences,
            shows_position: settings.routing != Routing::Off,
            attention: self.rules.attention,
        };
        self.look_up_name(&settings);
        self.look_up_routes(&settings);
        self.seat.set_settings(settings);
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let scratch = Rc::clone(&self.hub.scratch);
        let mut scratch = scratch.borrow_mut();
        let scratch = scratch.whole();
        if self.seat.has_orders() && matches!(self.obey(), Step::End) {
            return Poll::Ready(());
        }
        if self.hub.standstill.is_on() && !matches!(self.state, State::Closing) {
            return self.stand_still(cx);
        }
        loop {
            let step = match &self.state {
                State::Idle => self.poll_idle(cx, scratch),
                State::Waiting(_) => self.poll_waiting(cx, scratch),
                State::Active(_) => self.poll_active(cx, scratch, None),
                State::Closing => self.poll_closing(cx),
            };
            match step {
                Step::Again => {}
                Step::Sleep if self.client.possessions.listening.is_none() => return Poll::Pending,
                Step::Sleep if self.tend_listening(cx) => {}
                Step::Sleep => return Poll::Pending,
                Step::End => return Poll::Ready(()),
            }
        }
    }

    #[inline]
    fn poll_idle(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Step {
        let client = &mut self.client;
        match client.outbox.poll_flush(&mut client.stream, cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Step::End,
            Poll::Pending => return Step::Sleep,
        }
        if self.client.possessions.is_parting() {
            return Step::Sleep;
        }
        if self.version != self.home.shared().version() {
            self.look_up_rules();
        }
        if self.home.shared().is_retired() {
            return self.end_with(&Refusal::reconfigured());
        }
        match self.hub.draining.get() {
            Some(Drain::Clients) => return self.end_with(&Refusal::shutting_down()),
            // No transaction begins any more; the end comes as an order.
            Some(Drain::Servers) => return Step::Sleep,
            Some(Drain::Now) | None => {}
        }
        let n = match self.client.poll_fill(cx, scratch) {
            Poll::Ready(Ok(Fill::Bytes(n))) => n,
            Poll::Ready(Ok(Fill::End)) => return self.end(),
            Poll::Ready(Err(_)) => return Step::End,
            Poll::Pending => return Step::Sleep,
        };
        match self.inspect(&scratch.input[..n]) {
            Ok(Need::Nothing) => Step::Again,
            Ok(Need::Server(from)) => self.need_server(cx, scratch, from..n),
            Ok(Need::Leave) => {
                self.client.ended = Ended::Terminate;
                self.end()
            }
            Err(refusal) => self.end_with(&refusal),
        }
    }

    #[inline]
    fn need_server(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        range: Range<usize>,
    ) -> Step {
        if let Err(refusal) = self.route(&scratch.input[range.clone()]) {
            self.client.carry.replace(&scratch.input[range]);
            self.refuse(&refusal);
            return Step::Again;
        }
        if let Some(checkout) = self.local.try_checkout() {
            self.state = State::Active(checkout);
            self.meter = Meter::default();
            return self.poll_active(cx, scratch, Some(range));
        }
        self.client.carry.replace(&scratch.input[range]);
        self.wait();
        Step::Again
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Step {
        let State::Waiting(wait) = &mut self.state else {
            return Step::Again;
        };
        let since = wait.since();
        match wait.poll(cx) {
            Poll::Ready(Ok(checkout)) => {
                let now = Instant::now();
                self.local.counters().wait_seconds.record(now - since);
                self.state = State::Active(checkout);
                self.meter = Meter {
                    now: Some(now),
                    fresh: true,
                    waited: now - since,
                    ..Meter::default()
                };
                self.client.unread = true;
                return Step::Again;
            }
            Poll::Ready(Err(error)) => {
                self.wait_elsewhere(&error);
                return Step::Again;
            }
            Poll::Pending => {}
        }
        // A client that leaves the queue is seen at once; what it says meanwhile is kept.
        while self.client.carry.len() < SCRATCH_LEN {
            let room = &mut scratch.input[..SCRATCH_LEN];
            match self.client.poll_read(cx, room) {
                Poll::Ready(Ok(n)) if n > 0 => self.client.carry.push(&scratch.input[..n]),
                Poll::Ready(_) => {
                    self.note_vain_wait(noticed::left);
                    return Step::End;
                }
                Poll::Pending => break,
            }
        }
        let client = &mut self.client;
        match client.outbox.poll_flush(&mut client.stream, cx) {
            Poll::Ready(Err(_)) => Step::End,
            _ => Step::Sleep,
        }
    }

    #[inline]
    fn poll_active(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        fresh: Option<Range<usize>>,
    ) -> Step {
        if let Some(refusal) = self.must_part() {
            return self.end_with(&refusal);
        }
        let State::Active(checkout) = &mut self.state else {
            return Step::Again;
        };
        let polled = Relay {
            client: &mut self.client,
            server: checkout,
            scratch,
            interners: &self.hub.registry.commons.interners,
            counters: self.local.counters(),
            meter: &mut self.meter,
            rules: self.rules,
        }
        .poll(cx, fresh);
        let has_news = checkout.watch.has_news();
        self.count_pins(self.client.possessions.held());
        if has_news {
            self.tell();
        }
        let Poll::Ready(outcome) = polled else {
            if let Some(refusal) = self.must_part() {
                return self.end_with(&refusal);
            }
            self.seat.note(self.meter);
            self.seat.set_pool(self.local.shared());
            self.seat
                .enter(Phase::Active, self.meter.now.unwrap_or_else(Instant::now));
            if let Some(CancelDue(done)) = self.cancel_due.take() {
                self.cancel(done);
            }
            return Step::Sleep;
        };
        self.cancel_due = None;
        match outcome {
            Outcome::Done(proof) => {
                let now = self.meter.now.unwrap_or_else(Instant::now);
                self.note_end();
                if let Some(checkout) = self.take_server() {
                    if checkout.needs_cleaning() {
                        farewell::clean_and_release(checkout);
                    } else {
                        checkout.release(proof, now);
                    }
                }
                self.seat.enter(Phase::Idle, now);
                Step::Again
            }
            Outcome::ClientLeft if self.client.ended == Ended::Terminate => self.end(),
            Outcome::ClientLeft => Step::End,
            Outcome::Refused(refusal) => {
                self.ended_by = Some(Box::new(broken_by(&refusal)));
                // What was read with the offence was not sent; the ledger cannot know.
                if let Some(checkout) = self.take_server() {
                    farewell::close(&self.hub, checkout);
                }
                self.end_with(&refusal)
            }
            Outcome::ServerLost(fault) => self.server_lost(&fault),
            Outcome::Elsewhere(again) => self.elsewhere(again),
        }
    }

    fn server_lost(&mut self, fault: &ServerFault) -> Step {
        if let Some(step) = self.lost_replica(fault) {
            return step;
        }
        self.note_end();
        self.home.shared().plan().recipe.locate.alarm();
        let in_message = self.is_in_message();
        let bereft = self.client.possessions.are_somewhere();
        let Some(checkout) = self.take_server() else {
            return Step::End;
        };
        let host = checkout.identity.host.clone();
        tracing::info!(server = %host, pool = %self.local.shared().key, "server connection lost: {fault}");
        let at_rest = self.client.pass == 0
            && self.client.carry.is_empty()
            && checkout.ledger.is_at_rest()
            && !checkout.said_goodbye;
        if at_rest && !in_message && !bereft && self.rules.release_between_transactions {
            // It has had all its replies: the next transaction finds another server.
            self.seat.enter(Phase::Idle, Instant::now());
            return Step::Again;
        }
        if checkout.said_goodbye || in_message {
            // PostgreSQL has told the client already; or the client would take the error for the
            // rest of a row.
            self.state = State::Closing;
            self.seat.enter(Phase::Closing, Instant::now());
            return Step::Again;
        }
        self.end_with(&Refusal::server_gone(&host, fault))
    }

    /// Why a client that keeps its server between transactions cannot keep it any longer.
    #[inline]
    fn must_part(&self) -> Option<Refusal> {
        let keeps =
            !self.rules.release_between_transactions || !self.client.possessions.held().is_empty();
        let at_rest = |checkout: &Checkout| self.client.pass == 0 && checkout.reusable().is_some();
        if !keeps || !matches!(&self.state, State::Active(checkout) if at_rest(checkout)) {
            return None;
        }
        match self.hub.draining.get() {
            Some(Drain::Clients | Drain::Servers) => Some(Refusal::shutting_down()),
            _ if self.home.shared().is_retired() => Some(Refusal::reconfigured()),
            _ => None,
        }
    }

    fn take_server(&mut self) -> Option<Checkout> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Active(mut checkout) => {
                if self.rules.attention.is_on {
                    self.look_back(&mut checkout);
                }
                // It waited for this server's answers.
                self.client.held_back = HeldBack::No;
                self.client.possessions.part();
                self.client.stint = Stint::Free;
                self.count_pins(Marks::NONE);
                Some(checkout)
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// Whether the client has got a part of a message whose rest is still to come.
    fn is_in_message(&self) -> bool {
        matches!(&self.state, State::Active(server)
            if server.pass.rest > 0 && server.pass.deal == Deal::Forward)
    }

    /// What remains of a server when the client has gone.
    fn leave_server(&mut self) {
        let by_session = !self.rules.release_between_transactions;
        let Some(mut checkout) = self.take_server() else {
            return;
        };
        checkout.dirty |= by_session;
        let sent_all = checkout.outbox.has_sent_all(&checkout.stream);
        let half_sent = self.client.pass > 0 || !sent_all;
        let interrupt = self.client.ended != Ended::Terminate;
        farewell::settle(&self.hub, checkout, half_sent, interrupt);
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Step {
        let client = &mut self.client;
        match client.outbox.poll_flush_all(&mut client.stream, cx) {
            Poll::Pending => Step::Sleep,
            Poll::Ready(_) => Step::End,
        }
    }

    /// The client has said its last, and what it was sent is still to get there.
    fn end(&mut self) -> Step {
        if self.client.outbox.has_sent_all(&self.client.stream) {
            return Step::End;
        }
        self.leave_server();
        self.state = State::Closing;
        self.seat.enter(Phase::Closing, Instant::now());
        Step::Again
    }

    /// Tells the client why, and closes when it has taken that in.
    fn end_with(&mut self, refusal: &Refusal) -> Step {
        self.local.counters().errors.note(&refusal.sqlstate);
        self.ended_by = Some(Box::new(broken_by(refusal)));
        let in_message = self.is_in_message();
        self.leave_server();
        // Within a message the end of the connection must do: an error would be read as a part of
        // that message.
        if !in_message {
            self.client.outbox.append(|out| refusal.write(out));
        }
        self.state = State::Closing;
        self.seat.enter(Phase::Closing, Instant::now());
        Step::Again
    }

    /// An error in place of the reply to the message that waits: as a server would give it, the
    /// rest of an extended batch is dropped and ReadyForQuery comes at its Sync (trap 10).
    fn refuse(&mut self, refusal: &Refusal) {
        self.local.counters().errors.note(&refusal.sqlstate);
        self.note_vain_wait(|| broken_by(refusal));
        self.state = State::Idle;
        self.client.stint = Stint::Free;
        if let Some(routed) = &mut self.routed {
            routed.forget_attempts();
        }
        self.seat.enter(Phase::Idle, Instant::now());
        self.client.outbox.append(|out| refusal.write(out));
        let carried = self.client.carry.take();
        let simple = matches!(carried.first(), Some(&(tag::QUERY | tag::FUNCTION_CALL)));
        if !simple {
            self.discarding = true;
            self.client.carry.replace(&carried);
            self.client.unread = true;
            return;
        }
        self.client.outbox.append(write_ready_idle);
        let len = match Header::read(&carried) {
            Ok(Some(header)) => header.len,
            _ => HEADER_LEN,
        };
        let here = len.min(carried.len());
        self.client.drop = len - here;
        self.client.carry.replace(&carried[here..]);
        self.client.unread = here < carried.len();
    }
}
