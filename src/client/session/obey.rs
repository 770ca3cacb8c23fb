//! What others ask of a session: to cancel, to stop waiting, to end. They leave orders on its seat,
//! and it obeys when it is polled next.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pooler_protocol::backend::{Report, write_notice};
use tokio::sync::oneshot;

use super::super::queue::waited_too_long;
use super::super::seat::Order;
use super::{CancelDue, Session, State, Step};
use crate::error::Refusal;
use crate::server::Server;

impl Session {
    /// Does what others asked for.
    pub(super) fn obey(&mut self) -> Step {
        for order in self.seat.take_orders() {
            if !self.hub.standstill.is_on() {
                // Nobody waits for that any more.
                self.unquiet = None;
            }
            match order {
                // Nobody will resume the pool for it.
                Order::LookUp if self.waits_for_a_paused_pool_to_drain() => {
                    self.end_with(&Refusal::shutting_down());
                }
                Order::LookUp => self.look_up_attention(),
                Order::Describe(census) => self.describe(&census),
                Order::StandStill(unquiet) => self.unquiet = Some(unquiet),
                Order::Introduce(pool) => self.introduce(&pool),
                Order::Abort => return Step::End,
                Order::End(refusal) => {
                    if !matches!(self.state, State::Closing) {
                        self.end_with(&refusal);
                    }
                }
                Order::Notify(waited) if matches!(self.state, State::Waiting(_)) => {
                    self.notify(waited);
                }
                Order::StopWaiting(refusal) if matches!(self.state, State::Waiting(_)) => {
                    // A replica's servers are not the only ones.
                    match Rc::ptr_eq(&self.local, &self.home) {
                        true => self.refuse(&refusal),
                        false => self.look_elsewhere(),
                    }
                }
                Order::WaitTimeout(limit) => {
                    if let State::Waiting(wait) = &self.state {
                        let refusal = waited_too_long(&self.hub.registry, wait, self.user(), limit);
                        self.refuse(&refusal);
                    }
                }
                Order::Cancel(done) => self.cancel(done),
                Order::Hosts(news) => {
                    if matches!(self.hear_of_hosts(&news), Step::End) {
                        return Step::End;
                    }
                }
                Order::Notify(_) | Order::StopWaiting(_) => {}
            }
        }
        Step::Again
    }

    fn waits_for_a_paused_pool_to_drain(&self) -> bool {
        matches!(self.state, State::Waiting(_))
            && self.hub.draining.get().is_some()
            && self.local.shared().is_paused()
    }

    fn notify(&mut self, waited: Duration) {
        let State::Waiting(wait) = &self.state else {
            return;
        };
        let message = format!(
            "waiting for a server connection for {:.1?}, number {} in the queue of {}",
            waited,
            wait.position(),
            self.local.shared().key
        );
        let holder = self.local.shared().holder();
        let detail = holder.map_or(String::new(), |holder| {
            format!("Longest of all, {}.", holder.told_to(self.user()))
        });
        let report = Report {
            severity: "NOTICE",
            sqlstate: "00000",
            message: &message,
            detail: &detail,
            hint: "",
        };
        self.client.outbox.append(|out| write_notice(out, &report));
    }

    /// Sends what is unsent, and reads nothing.
    #[cold]
    pub(super) fn stand_still(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let client = &mut self.client;
        let mut is_quiet = match client.outbox.poll_flush_all(&mut client.stream, cx) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Pending => false,
        };
        if let State::Active(checkout) = &mut self.state {
            let server: &mut Server = checkout;
            // If it is lost, that is found out when the session goes on.
            is_quiet &= server
                .outbox
                .poll_flush_all(&mut server.stream, cx)
                .is_ready();
        }
        if is_quiet {
            self.unquiet = None;
        }
        Poll::Pending
    }

    /// A cancel reaches what this session runs now, or nothing (traps 13, 16).
    pub(super) fn cancel(&mut self, done: Option<oneshot::Sender<()>>) {
        let checkout = match &self.state {
            State::Waiting(_) => return self.refuse(&Refusal::cancelled_in_queue()),
            State::Active(checkout) => checkout,
            State::Idle | State::Closing => return,
        };
        if !checkout.ledger.is_busy() || checkout.identity.cancel_key.is_empty() {
            return;
        }
        if checkout.ledger.is_asked_aside() {
            self.cancel_due = Some(CancelDue(done));
            return;
        }
        let Some(flying) = checkout.cancels.take_off() else {
            // Who asked is told when the one under way has landed.
            let cancels = Arc::clone(&checkout.cancels);
            tokio::task::spawn_local(async move {
                cancels.wait().await;
                drop(done);
            });
            return;
        };
        // The cancel must not overtake what it is to cancel.
        let _sent_all = checkout.stream.has_sent_all();
        self.local.counters().cancels.add(1);
        self.seat.note_cancel(self.meter.query);
        let settings = &self.local.shared().plan().settings;
        let limit = settings
            .cancel_wait_timeout
            .unwrap_or(Duration::from_secs(60));
        let identity = Arc::clone(&checkout.identity);
        let canceller = self.hub.canceller.clone();
        let seat = self.seat.share();
        tokio::task::spawn_local(async move {
            canceller.send(identity, flying, limit).await;
            // The session may have waited only for this to give its server back.
            seat.wake();
            drop(done);
        });
    }
}
