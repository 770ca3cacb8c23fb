//! A pool's queue: clients that come to wait and leave in their order.

use std::time::Instant;

use pooler::pool::state::{State, Waiter};

/// Clients that wait at once.
const WAITING: usize = 200;

/// A queue in which some wait, and one more waiter.
pub(crate) fn queue() -> (State, Waiter) {
    let waiter = Waiter {
        worker: 0,
        cell: 0,
        since: Instant::now(),
    };
    let mut state = State::default();
    for _ in 0..WAITING {
        state.enqueue(waiter);
    }
    (state, waiter)
}

/// One joins at the end, the oldest is served: what a transaction costs under load.
pub(crate) fn pass(state: &mut State, waiter: Waiter) {
    state.enqueue(waiter);
    assert!(state.pop_oldest().is_some(), "somebody waits");
}
