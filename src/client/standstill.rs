//! SUSPEND, on one worker: every session sends what is unsent, and reads from nobody until it may go on.
//!
//! ```text
//!   running --StandStill--> still (each session: flushing --nothing unsent--> quiet) --GoOn, Drain--> running
//! ```
//! A session looks at the flag once a poll. What arrives stays with the system; deadlines are not looked at, because nobody
//! could meet them, and the time counts against none of them afterwards ([`Standstill::worked`]). Who logs in meanwhile
//! waits behind the login, but for operators: they must be able to end it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::Hub;
use super::seat::Order;

/// Standstills that are remembered one by one.
const SPELLS_MAX: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub struct Standstill {
    /// Since when, if it is on.
    since: Cell<Option<Instant>>,
    /// From when to when sessions stood still, the oldest first.
    spells: RefCell<Vec<(Instant, Instant)>>,
    over: Notify,
}

impl Standstill {
    /// Whether sessions are to stand still.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.since.get().is_some()
    }

    /// Until they may go on. Dropped midway, nothing is lost.
    pub(super) async fn wait_until_over(&self) {
        while self.is_on() {
            self.over.notified().await;
        }
    }

    /// How much of the time from `since` to `now` was no standstill: what counts against a deadline.
    #[must_use]
    pub fn worked(&self, since: Instant, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(since);
        let spells = self.spells.borrow();
        let stood = |&(began, ended): &(Instant, Instant)| {
            ended.min(now).saturating_duration_since(began.max(since))
        };
        passed.saturating_sub(spells.iter().map(stood).sum())
    }

    fn begin(&self, now: Instant) {
        if self.since.get().is_none() {
            self.since.set(Some(now));
        }
    }

    /// Whether it was on.
    fn end(&self, now: Instant) -> bool {
        let Some(since) = self.since.take() else {
            return false;
        };
        let mut spells = self.spells.borrow_mut();
        spells.push((since, now));
        if spells.len() > SPELLS_MAX {
            // One that is as long as the two oldest: whoever came between them gets a little more time.
            let (began, ended) = spells.remove(0);
            spells[0].0 -= ended - began;
        }
        true
    }
}

/// Held by every session that has something unsent; the last of them says that all is quiet.
#[derive(Debug)]
pub struct Unquiet(RefCell<Option<oneshot::Sender<()>>>);

impl Drop for Unquiet {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            // Who asked may have left.
            let _heard = reply.send(());
        }
    }
}

impl Hub {
    /// Has every session stand still; `reply` is sent when nothing is unsent.
    pub(super) fn stand_still(&self, reply: oneshot::Sender<()>) {
        if self.draining.get().is_some() {
            // It could not end. Who asked hears that from the gates.
            return;
        }
        self.standstill.begin(Instant::now());
        let unquiet = Rc::new(Unquiet(RefCell::new(Some(reply))));
        self.seats
            .order_all(|| Order::StandStill(Rc::clone(&unquiet)));
    }

    /// Ends that.
    pub(super) fn go_on(&self) {
        if self.standstill.end(Instant::now()) {
            self.standstill.over.notify_waiters();
            self.seats.order_all(|| Order::LookUp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_standstill_counts_against_no_deadline() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let still = Standstill::default();
        assert_eq!(still.worked(at(0), at(7)), Duration::from_secs(7));
        still.begin(at(10));
        // Asked for once more, it is one all the same.
        still.begin(at(12));
        assert!(still.is_on());
        assert!(still.end(at(20)));
        assert!(!still.end(at(21)));
        for (since, now, worked) in [
            (0, 10, 10),
            (0, 15, 10),
            (0, 20, 10),
            (0, 25, 15),
            (15, 25, 5),
            (20, 25, 5),
            (25, 30, 5),
            (30, 25, 0),
        ] {
            let took = still.worked(at(since), at(now));
            assert_eq!(took, Duration::from_secs(worked), "{since} to {now}");
        }
        still.begin(at(30));
        still.end(at(31));
        assert_eq!(still.worked(at(0), at(40)), Duration::from_secs(29));
    }

    #[test]
    fn of_many_standstills_none_is_forgotten_by_who_was_there_before() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let still = Standstill::default();
        for n in 0..100 {
            still.begin(at(10 * n + 5));
            still.end(at(10 * n + 10));
        }
        assert_eq!(still.spells.borrow().len(), SPELLS_MAX);
        assert_eq!(still.worked(at(0), at(1000)), Duration::from_secs(500));
        assert_eq!(still.worked(at(990), at(1000)), Duration::from_secs(5));
    }
}
