//! Turns: how many steps of logins, and of sessions that end, a worker does between two looks at its sockets.
//!
//! ```text
//!             a step is due
//!   nothing  --------------> done at once       (few have been done in this round)
//!      ^     --------------> waits for a turn   (others wait, or enough have been done)
//!      |                        | the usher calls it after the next look, behind whoever that has woken
//!      +------------------------+
//! ```
//! Tasks of a worker run in the order in which they became ready. So when hundreds of clients connect at once, a query that
//! arrives is behind as many logins, its reply behind as many again, and another crowd leaves likewise. Here all but a few of
//! them stand in a queue of their own: the worker looks at its sockets, and serves the sessions that have something to do,
//! before it takes up the next few. It takes them up also if it is never idle: so logins may be slow, and never stand still.
//!
//! A worker that sleeps has looked when it wakes ([`Looks`]), and then a new round begins by itself. Only while somebody
//! waits the usher makes it look at once, which is a system call.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::num::NonZero;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};

/// Steps between two looks at the sockets. A step is what a login does between two messages of its client, mostly some
/// tens of microseconds, beside which a look costs little.
const TURNS_A_ROUND: usize = 4;

/// How often a worker was about to sleep and has looked at its sockets. Its runtime counts, which knows no `Rc`.
#[derive(Debug, Clone, Default)]
pub struct Looks(Arc<AtomicU64>);

impl Looks {
    /// It has looked again.
    pub fn note(&self) {
        // One thread writes.
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before + 1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The turns of a worker.
#[derive(Debug)]
pub struct Turns {
    looks: Looks,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of this round.
    taken: usize,
    /// How many looks there had been when it began.
    looks: u64,
    /// All up to this ticket have been called.
    called: u64,
    waiting: VecDeque<Waker>,
    /// The usher, while nobody waits.
    usher: Option<Waker>,
}

impl State {
    fn begin_round(&mut self, looks: u64, taken: usize) {
        self.looks = looks;
        self.taken = taken;
    }
}

/// A place in the queue, or none.
#[derive(Debug, Default)]
pub(super) struct Ticket(Option<NonZero<u64>>);

impl Turns {
    /// Of the worker that notes `looks`.
    #[must_use]
    pub fn new(looks: Looks) -> Self {
        Self {
            looks,
            state: RefCell::default(),
        }
    }

    /// Waits for a turn. A task that is dropped meanwhile lets its turn pass.
    pub async fn take(&self) {
        let mut ticket = Ticket::default();
        poll_fn(|cx| self.poll_take(&mut ticket, cx)).await;
    }

    /// As [`Turns::take`]; `ticket` is one task's, and the same until there was a turn.
    pub(super) fn poll_take(&self, ticket: &mut Ticket, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if let Some(number) = ticket.0 {
            // Others wake the task too, such as its client: that is no turn.
            if number.get() > state.called {
                return Poll::Pending;
            }
            ticket.0 = None;
            return Poll::Ready(());
        }
        let looks = self.looks.count();
        if looks != state.looks {
            state.begin_round(looks, 0);
        }
        if state.waiting.is_empty() && state.taken < TURNS_A_ROUND {
            state.taken += 1;
            return Poll::Ready(());
        }
        if let Some(usher) = state.usher.take() {
            usher.wake();
        }
        state.waiting.push_back(cx.waker().clone());
        ticket.0 = NonZero::new(state.called + state.waiting.len() as u64);
        Poll::Pending
    }

    /// Calls those who wait, for ever.
    pub async fn usher(&self) {
        loop {
            poll_fn(|cx| self.poll_due(cx)).await;
            // Comes back when the worker has looked at its sockets, behind the tasks that this has woken.
            tokio::task::yield_now().await;
            self.begin_round();
        }
    }

    /// Until somebody waits.
    fn poll_due(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if !state.waiting.is_empty() {
            return Poll::Ready(());
        }
        state.usher = Some(cx.waker().clone());
        Poll::Pending
    }

    fn begin_round(&self) {
        let mut state = self.state.borrow_mut();
        let called = TURNS_A_ROUND.min(state.waiting.len());
        state.begin_round(self.looks.count(), called);
        state.called += called as u64;
        // In a worker waking queues a task, and runs nothing.
        state.waiting.drain(..called).for_each(Waker::wake);
    }
}

/// A future that takes a turn for each poll.
pub(super) struct Paced<F> {
    turns: Rc<Turns>,
    ticket: Ticket,
    future: F,
}

impl<F: Future + Unpin> Paced<F> {
    pub(super) fn new(turns: Rc<Turns>, future: F) -> Self {
        Self {
            turns,
            ticket: Ticket::default(),
            future,
        }
    }
}

impl<F: Future + Unpin> Future for Paced<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let paced = self.get_mut();
        ready!(paced.turns.poll_take(&mut paced.ticket, cx));
        Pin::new(&mut paced.future).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::sync::Notify;
    use tokio::task::{JoinHandle, spawn_local, yield_now};

    const CROWD: usize = 10 * TURNS_A_ROUND;

    /// What ran, in order: the number of a login, or a query, which is none.
    type Log = Rc<RefCell<Vec<Option<usize>>>>;

    fn on_a_worker<F: Future>(test: impl FnOnce(Rc<Turns>) -> F) {
        let looks = Looks::default();
        let turns = Rc::new(Turns::new(looks.clone()));
        let runtime = Builder::new_current_thread()
            .on_thread_unpark(move || looks.note())
            .build_local(LocalOptions::default());
        runtime.expect("a runtime").block_on(test(turns));
    }

    /// An usher, and a login for each number that takes so many turns.
    fn crowd(turns: &Rc<Turns>, steps: usize, log: &Log) -> Vec<JoinHandle<()>> {
        let ushered = Rc::clone(turns);
        spawn_local(async move { ushered.usher().await });
        let login = |number| {
            let log = Rc::clone(log);
            let login = Box::pin(async move {
                for step in 0..steps {
                    log.borrow_mut().push(Some(number));
                    if step + 1 < steps {
                        yield_now().await;
                    }
                }
            });
            spawn_local(Paced::new(Rc::clone(turns), login))
        };
        (0..CROWD).map(login).collect()
    }

    /// A session that has something to do after each look, as on a worker that is never idle.
    fn busy_session(log: &Log) -> JoinHandle<()> {
        let log = Rc::clone(log);
        spawn_local(async move {
            loop {
                log.borrow_mut().push(None);
                yield_now().await;
            }
        })
    }

    #[test]
    fn a_query_is_behind_few_logins_and_each_login_comes_to_its_end() {
        on_a_worker(|turns| async move {
            let log = Log::default();
            let session = busy_session(&log);
            for login in crowd(&turns, 3, &log) {
                login.await.expect("a login");
            }
            session.abort();
            let log = log.borrow();
            let ahead = log.split(Option::is_none).map(<[_]>::len).max();
            assert_eq!(ahead, Some(TURNS_A_ROUND));
            assert_eq!(log.iter().flatten().count(), 3 * CROWD);
        });
    }

    #[test]
    fn a_worker_that_has_slept_begins_a_round_by_itself() {
        let looks = Looks::default();
        let turns = Turns::new(looks.clone());
        let asleep = Arc::new(Notify::new());
        let goes_to_sleep = Arc::clone(&asleep);
        let runtime = Builder::new_current_thread()
            .on_thread_park(move || goes_to_sleep.notify_one())
            .on_thread_unpark(move || looks.note())
            .build_local(LocalOptions::default());
        // There is no usher: whoever had to wait would wait for ever.
        runtime.expect("a runtime").block_on(async {
            for step in 0..3 * TURNS_A_ROUND {
                let polled = |cx: &mut Context<'_>| turns.poll_take(&mut Ticket::default(), cx);
                let turn = poll_fn(|cx| Poll::Ready(polled(cx))).await;
                assert!(turn.is_ready(), "step {step}");
                asleep.notified().await;
            }
        });
    }

    #[test]
    fn turns_come_in_order_and_those_who_have_gone_hold_up_nobody() {
        on_a_worker(|turns| async move {
            let log = Log::default();
            let logins = crowd(&turns, 1, &log);
            // All but the first few wait now.
            yield_now().await;
            let gone = |number: usize| number > CROWD / 2 && !number.is_multiple_of(3);
            for (number, login) in logins.into_iter().enumerate() {
                if gone(number) {
                    login.abort();
                } else {
                    login.await.expect("a login");
                }
            }
            let ran: Vec<usize> = log.borrow().iter().copied().flatten().collect();
            assert!(ran.is_sorted(), "{ran:?}");
            assert!(
                (0..CROWD).filter(|n| !gone(*n)).all(|n| ran.contains(&n)),
                "{ran:?}"
            );
        });
    }
}
