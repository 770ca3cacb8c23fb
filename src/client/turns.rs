//! Turns: how many steps of logins, and of sessions that end, a worker does between two looks at its sockets.
//!
//! ```text
//!             a step is due
//!   nothing  --------------> done at once       (few have been done since the last look)
//!      ^     --------------> waits for a turn   (others wait, or enough have been done)
//!      |                        | the usher calls it after the next look, behind whoever that has woken
//!      +------------------------+
//! ```
//! Tasks of a worker run in the order in which they became ready. So when hundreds of clients connect at once, a query that
//! arrives is behind as many logins, its reply behind as many again, and another crowd leaves likewise. Here all but a few of
//! them stand in a queue of their own: the worker looks at its sockets, and serves the sessions that have something to do,
//! before it takes up the next few. It takes them up also if it is never idle: so logins may be slow, and never stand still.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::num::NonZero;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

/// Steps between two looks at the sockets. A step is what a login does between two messages of its client, mostly some
/// tens of microseconds, beside which a look costs little.
const TURNS_A_ROUND: usize = 4;

/// The turns of a worker.
#[derive(Debug, Default)]
pub struct Turns {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of this round.
    taken: usize,
    /// All up to this ticket have been called.
    called: u64,
    waiting: VecDeque<Waker>,
    /// The usher, while there is nothing to do for it.
    usher: Option<Waker>,
}

/// A place in the queue, or none.
#[derive(Debug, Default)]
pub(super) struct Ticket(Option<NonZero<u64>>);

impl Turns {
    /// Waits for a turn. A task that is dropped meanwhile lets its turn pass.
    pub async fn take(&self) {
        let mut ticket = Ticket::default();
        poll_fn(|cx| self.poll_take(&mut ticket, cx)).await;
    }

    /// As [`Turns::take`]; `ticket` is one task's, and the same until there was a turn.
    pub(super) fn poll_take(&self, ticket: &mut Ticket, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if let Some(number) = ticket.0 {
            // Others wake the task too, such as its client: that is no turn.
            if number.get() > state.called {
                return Poll::Pending;
            }
            ticket.0 = None;
            return Poll::Ready(());
        }
        if let Some(usher) = state.usher.take() {
            usher.wake();
        }
        if state.waiting.is_empty() && state.taken < TURNS_A_ROUND {
            state.taken += 1;
            return Poll::Ready(());
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

    /// Until a turn was taken, or asked for.
    fn poll_due(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if state.taken > 0 || !state.waiting.is_empty() {
            return Poll::Ready(());
        }
        state.usher = Some(cx.waker().clone());
        Poll::Pending
    }

    fn begin_round(&self) {
        let mut state = self.state.borrow_mut();
        let called = TURNS_A_ROUND.min(state.waiting.len());
        state.taken = called;
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
    use tokio::task::{JoinHandle, spawn_local, yield_now};

    const CROWD: usize = 10 * TURNS_A_ROUND;

    /// What ran, in order: the number of a login, or a query, which is none.
    type Log = Rc<RefCell<Vec<Option<usize>>>>;

    fn on_a_worker(test: impl Future) {
        let runtime = Builder::new_current_thread().build_local(LocalOptions::default());
        runtime.expect("a runtime").block_on(test);
    }

    /// An usher, and a login for each number that takes so many turns.
    fn crowd(steps: usize, log: &Log) -> Vec<JoinHandle<()>> {
        let turns = Rc::<Turns>::default();
        let ushered = Rc::clone(&turns);
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
            spawn_local(Paced::new(Rc::clone(&turns), login))
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
        on_a_worker(async {
            let log = Log::default();
            let session = busy_session(&log);
            for login in crowd(3, &log) {
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
    fn turns_come_in_order_and_those_who_have_gone_hold_up_nobody() {
        on_a_worker(async {
            let log = Log::default();
            let logins = crowd(1, &log);
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
