//! Deadlines of logins, kept by the sweep: a timer a login would cost more than the login's own
//! reads, and make each sleep of the worker dearer.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

/// The time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Elapsed;

#[derive(Debug)]
struct Deadline {
    /// None: only a shutdown ends it.
    at: Option<Instant>,
    passed: bool,
    waker: Option<Waker>,
}

/// The deadlines of a worker.
#[derive(Debug, Default)]
pub struct Deadlines {
    kept: RefCell<Slab<Deadline>>,
}

impl Deadlines {
    /// Runs `future` until it is done, a sweep finds that `limit` has passed, or all are ended.
    /// Dropped midway, the future is.
    pub(super) async fn within<F: Future>(
        &self,
        limit: Option<Duration>,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        let at = limit.and_then(|limit| Instant::now().checked_add(limit));
        let kept = Kept {
            deadlines: self,
            key: self.kept.borrow_mut().insert(Deadline {
                at,
                passed: false,
                waker: None,
            }),
        };
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Some(deadline) = self.kept.borrow_mut().get_mut(kept.key) {
                if deadline.passed {
                    return Poll::Ready(Err(Elapsed));
                }
                let known = deadline.waker.as_ref();
                if !known.is_some_and(|w| w.will_wake(cx.waker())) {
                    deadline.waker = Some(cx.waker().clone());
                }
            }
            future.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Ends what is overdue.
    pub(super) fn sweep(&self, now: Instant) {
        self.end(|at| at.is_some_and(|at| now >= at));
    }

    /// Ends all.
    pub(super) fn end_all(&self) {
        self.end(|_| true);
    }

    fn end(&self, is_over: impl Fn(Option<Instant>) -> bool) {
        for (_, deadline) in self.kept.borrow_mut().iter_mut() {
            if is_over(deadline.at) && !deadline.passed {
                deadline.passed = true;
                if let Some(waker) = deadline.waker.take() {
                    waker.wake();
                }
            }
        }
    }
}

struct Kept<'a> {
    deadlines: &'a Deadlines,
    key: usize,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.deadlines.kept.borrow_mut().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Context;

    #[test]
    fn a_deadline_ends_what_waits_and_leaves_nothing_behind() {
        let deadlines = Deadlines::default();
        let limit = Duration::from_secs(5);
        let began = Instant::now();
        let mut waits = Box::pin(deadlines.within(Some(limit), std::future::pending::<()>()));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        deadlines.sweep(began);
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        deadlines.sweep(Instant::now() + limit);
        assert_eq!(waits.as_mut().poll(&mut cx), Poll::Ready(Err(Elapsed)));
        drop(waits);
        assert!(deadlines.kept.borrow().is_empty());
    }
}
