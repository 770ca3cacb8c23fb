//! Who waits, how many servers there are, and whether another may be opened: the arithmetic of a
//! pool, without a clock, a socket or a thread.
//!
//! ```text
//!  begin_connect      connected               closed
//!  ------------> connecting ---> open ------------------> (gone)
//!                    | connect_failed
//!                    v
//!                  (gone), and no other attempt before retry_at
//! ```
//! Paused, it opens nothing and serves nobody; who waits waits on.
//!
//! Invariant: `connecting <= servers`; servers are only ever begun below the pool's size (with the
//! reserve, once somebody has waited for it); waiters leave in the order in which they came.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{LoginError, Outlook};

/// The longest pause between two attempts to log in.
pub const RETRY_MAX: Duration = Duration::from_secs(15);

/// The longest pause between two attempts while the server may be back at any moment.
pub const RETURNING_RETRY_MAX: Duration = Duration::from_millis(400);

/// How long after an attempt was due its predecessor still speaks for the server: the next is begun by a sweep.
const TRIED_WITHIN: Duration = Duration::from_secs(1);

/// Limits of a pool, as configured now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Servers at most.
    pub size: usize,
    /// Servers to keep open even if nobody asks.
    pub min: usize,
    /// Servers beyond the size for those who wait too long.
    pub reserve: usize,
    /// How long is too long; `None`: the reserve is not used.
    pub reserve_after: Option<Duration>,
    /// First pause after a failed login.
    pub retry_first: Duration,
}

/// A client that waits for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// The worker on which it lives.
    pub worker: usize,
    /// Where it is to be told, on that worker.
    pub cell: usize,
    /// Since when it waits.
    pub since: Instant,
}

/// Identifies a waiter; never used twice.
pub type Ticket = u64;

/// See the module.
#[derive(Debug, Default)]
pub struct State {
    queue: VecDeque<Option<Waiter>>,
    first_ticket: Ticket,
    waiting: usize,
    servers: usize,
    connecting: usize,
    failures: u32,
    failing_since: Option<Instant>,
    retry_at: Option<Instant>,
    failure: Option<Arc<LoginError>>,
    /// Logins of clients that wait for what a first server says of itself.
    waiting_for_welcome: BTreeMap<Instant, usize>,
    /// It has said so.
    welcomed: bool,
    paused: bool,
    /// When that ended last.
    resumed: Option<Instant>,
}

impl State {
    /// Joins the queue at its end.
    pub fn enqueue(&mut self, waiter: Waiter) -> Ticket {
        self.queue.push_back(Some(waiter));
        self.waiting += 1;
        self.first_ticket + self.queue.len() as u64 - 1
    }

    /// Leaves the queue; false if the waiter was served already.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        let Some(at) = ticket.checked_sub(self.first_ticket) else {
            return false;
        };
        let left = usize::try_from(at)
            .ok()
            .and_then(|at| self.queue.get_mut(at))
            .and_then(Option::take)
            .is_some();
        if left {
            self.waiting -= 1;
            self.drop_gaps();
        }
        left
    }

    /// The waiter that came first, if any; it leaves the queue.
    pub fn pop_oldest(&mut self) -> Option<(Ticket, Waiter)> {
        self.drop_gaps();
        let waiter = self.queue.pop_front()??;
        let ticket = self.first_ticket;
        self.first_ticket += 1;
        self.waiting -= 1;
        self.drop_gaps();
        Some((ticket, waiter))
    }

    /// The waiter that is served next, if any; it leaves the queue. Nobody is while the pool is paused.
    pub fn pop_served(&mut self) -> Option<(Ticket, Waiter)> {
        if self.paused {
            return None;
        }
        self.pop_oldest()
    }

    /// From now on nobody is served. Returns whether that is new.
    pub fn pause(&mut self) -> bool {
        !std::mem::replace(&mut self.paused, true)
    }

    /// Ends that. Returns whether it was paused.
    pub fn resume(&mut self, now: Instant) -> bool {
        let was_paused = std::mem::replace(&mut self.paused, false);
        if was_paused {
            self.resumed = Some(now);
            // Of before it: they say nothing about the server now.
            self.forget_failures();
        }
        was_paused
    }

    /// Whether nobody is served.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    fn drop_gaps(&mut self) {
        while let Some(None) = self.queue.front() {
            self.queue.pop_front();
            self.first_ticket += 1;
        }
    }

    /// A login waits from now on for what a first server says of itself.
    pub fn await_welcome(&mut self, now: Instant) {
        *self.waiting_for_welcome.entry(now).or_default() += 1;
    }

    /// One that has waited since then does not any more.
    pub fn end_welcome(&mut self, since: Instant) {
        if let Some(count) = self.waiting_for_welcome.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.waiting_for_welcome.remove(&since);
            }
        }
    }

    /// How many logins wait for that, and since when the first of them does.
    #[must_use]
    pub fn awaiting_welcome(&self) -> (usize, Option<Instant>) {
        let first = self.waiting_for_welcome.keys().next();
        (self.waiting_for_welcome.values().sum(), first.copied())
    }

    /// Whether servers are to be opened without another event: somebody waits, or there is a
    /// minimum to keep.
    #[must_use]
    pub fn is_wanted(&self, bounds: &Bounds) -> bool {
        self.waiting > 0 || !self.waiting_for_welcome.is_empty() || self.min(bounds) > 0
    }

    /// Servers to keep open. None before a first login: the user may have been made up.
    fn min(&self, bounds: &Bounds) -> usize {
        if self.welcomed { bounds.min } else { 0 }
    }

    /// Clients that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Since when the oldest waits.
    #[must_use]
    pub fn oldest_since(&self) -> Option<Instant> {
        self.queue.iter().flatten().next().map(|w| w.since)
    }

    /// Since when the first waits for whom no server is being opened.
    #[must_use]
    pub fn unserved_since(&self) -> Option<Instant> {
        let mut waiters = self.queue.iter().flatten();
        waiters.nth(self.connecting).map(|w| w.since)
    }

    /// How many have waited since before `since`.
    #[must_use]
    pub fn waiting_before(&self, since: Instant) -> usize {
        let waiters = self.queue.iter().flatten();
        waiters.take_while(|w| w.since < since).count()
    }

    /// How many came before the holder of `ticket` and still wait, and one for itself.
    #[must_use]
    pub fn position(&self, ticket: Ticket) -> usize {
        let ahead = usize::try_from(ticket.saturating_sub(self.first_ticket)).unwrap_or(usize::MAX);
        self.queue.iter().take(ahead).flatten().count() + 1
    }

    /// Servers, those that are being opened included.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.servers
    }

    /// Servers that are being opened.
    #[must_use]
    pub fn connecting(&self) -> usize {
        self.connecting
    }

    /// Why the last attempt to open one failed, if it was the last thing that happened.
    #[must_use]
    pub fn failure(&self) -> Option<&Arc<LoginError>> {
        self.failure.as_ref()
    }

    /// The same, while attempts are made: of one that nobody repeats, because nothing may be opened now, nobody knows
    /// whether it would fail again.
    #[must_use]
    pub fn current_failure(&self, now: Instant) -> Option<&Arc<LoginError>> {
        let tried = self.connecting > 0 || self.retry_at.is_some_and(|at| now < at + TRIED_WITHIN);
        self.failure.as_ref().filter(|_| tried && !self.paused)
    }

    /// When it was resumed last, if it ever was paused.
    #[must_use]
    pub fn resumed(&self) -> Option<Instant> {
        self.resumed
    }

    /// Since when no attempt has succeeded.
    #[must_use]
    pub fn failing_since(&self) -> Option<Instant> {
        self.failing_since
    }

    /// How many servers should be opened now.
    #[must_use]
    pub fn connects_due(&self, bounds: &Bounds, now: Instant) -> usize {
        if self.paused || self.retry_at.is_some_and(|at| now < at) {
            return 0;
        }
        let overdue = |after| {
            self.oldest_since()
                .is_some_and(|since| now - since >= after)
        };
        let reserve = match bounds.reserve_after {
            Some(after) if overdue(after) => bounds.reserve,
            _ => 0,
        };
        let room = (bounds.size + reserve).saturating_sub(self.servers);
        let welcome = !self.waiting_for_welcome.is_empty() && !self.welcomed;
        let asked = self.waiting.max(usize::from(welcome));
        let wanted = asked
            .saturating_sub(self.connecting)
            .max(self.min(bounds).saturating_sub(self.servers));
        // While it fails, one attempt at a time is enough to see when it stops failing.
        let most = if self.failures > 0 {
            1_usize.saturating_sub(self.connecting)
        } else {
            usize::MAX
        };
        room.min(wanted).min(most)
    }

    /// An attempt begins.
    pub fn begin_connect(&mut self, now: Instant) {
        // Nobody has tried for a while: what failed then may be well by now.
        if self.retry_at.is_some_and(|at| now >= at + TRIED_WITHIN) {
            self.forget_failures();
        }
        self.servers += 1;
        self.connecting += 1;
    }

    /// An attempt succeeded.
    pub fn connected(&mut self) {
        self.connecting -= 1;
        self.forget_failures();
        self.welcomed = true;
    }

    /// An attempt failed; [`State::closed`] follows when its slot is given back. `jitter` is from
    /// `0.0..1.0`.
    pub fn connect_failed(
        &mut self,
        error: Arc<LoginError>,
        bounds: &Bounds,
        now: Instant,
        jitter: f64,
    ) {
        self.connecting -= 1;
        self.failing_since.get_or_insert(now);
        let doubled = bounds
            .retry_first
            .saturating_mul(1 << self.failures.min(10));
        let most = match error.outlook() {
            Outlook::Returning => RETURNING_RETRY_MAX,
            Outlook::Temporary => RETRY_MAX,
            Outlook::Permanent => bounds.retry_first,
        };
        // Between half and the whole of it, so that pools do not ask in step (trap 42).
        let pause = doubled.min(most).mul_f64(0.5 + jitter / 2.0);
        self.retry_at = Some(now + pause);
        self.failures = self.failures.saturating_add(1);
        self.failure = Some(error);
    }

    /// Attempts that failed say nothing any more: one has succeeded, or they were made elsewhere or before something changed.
    pub fn forget_failures(&mut self) {
        self.failures = 0;
        self.failing_since = None;
        self.retry_at = None;
        self.failure = None;
    }

    /// A server, or an attempt at one, is gone.
    pub fn closed(&mut self) {
        self.servers -= 1;
    }

    /// The failure that everybody gets at once who asks now: nobody who waited would be served
    /// before something is changed by hand.
    #[must_use]
    pub fn permanent_failure(&self, now: Instant) -> Option<Arc<LoginError>> {
        let failure = self.failure.as_ref()?;
        let stands = self.retry_at.is_some_and(|at| now < at)
            && failure.outlook() == Outlook::Permanent
            && self.servers == self.connecting;
        stands.then(|| Arc::clone(failure))
    }

    /// Asserts what must hold between any two calls; for tests.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn check_invariants(&self) {
        assert!(self.connecting <= self.servers);
        assert_eq!(self.waiting, self.queue.iter().flatten().count());
        assert!(
            !matches!(self.queue.front(), Some(None)),
            "the oldest place is a waiter's"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        size: 4,
        min: 0,
        reserve: 2,
        reserve_after: Some(Duration::from_secs(5)),
        retry_first: Duration::from_secs(1),
    };

    fn waiter(cell: usize, since: Instant) -> Waiter {
        Waiter {
            worker: 0,
            cell,
            since,
        }
    }

    fn refused(sqlstate: &str) -> Arc<LoginError> {
        Arc::new(LoginError::Refused {
            host: "h".into(),
            sqlstate: sqlstate.into(),
            message: String::new(),
            said: Box::default(),
        })
    }

    #[test]
    fn t38_waiters_leave_in_the_order_in_which_they_came() {
        let now = Instant::now();
        let mut s = State::default();
        let tickets: Vec<_> = (0..5).map(|c| s.enqueue(waiter(c, now))).collect();
        assert!(s.leave(tickets[0]) && s.leave(tickets[2]) && !s.leave(tickets[2]));
        assert_eq!(s.position(tickets[3]), 2);
        assert_eq!(s.unserved_since(), Some(now));
        for _ in 0..3 {
            s.begin_connect(now);
        }
        assert_eq!(s.unserved_since(), None, "one is being opened for each");
        let order: Vec<_> = std::iter::from_fn(|| s.pop_oldest())
            .map(|(t, w)| (t, w.cell))
            .collect();
        assert_eq!(order, [(tickets[1], 1), (tickets[3], 3), (tickets[4], 4)]);
        assert!(!s.leave(tickets[1]), "served waiters have left");
        s.check_invariants();
    }

    #[test]
    fn t40_a_cold_pool_opens_all_it_may_at_once() {
        let now = Instant::now();
        let mut s = State::default();
        for c in 0..200 {
            s.enqueue(waiter(c, now));
        }
        assert_eq!(s.connects_due(&BOUNDS, now), 4);
        for _ in 0..4 {
            s.begin_connect(now);
        }
        assert_eq!(s.connects_due(&BOUNDS, now), 0);
    }

    #[test]
    fn t76_a_paused_pool_opens_nothing_serves_nobody_and_forgets_nobody() {
        let now = Instant::now();
        let mut s = State::default();
        s.begin_connect(now);
        s.connected();
        assert!(s.pause() && !s.pause(), "only the first is new");
        let ticket = s.enqueue(waiter(0, now));
        let min = Bounds { min: 3, ..BOUNDS };
        assert_eq!(s.connects_due(&min, now + Duration::from_secs(9)), 0);
        assert!(s.pop_served().is_none());
        assert_eq!((s.waiting(), s.position(ticket)), (1, 1));
        s.closed();
        s.check_invariants();
        assert!(s.resume(now) && !s.resume(now));
        assert_eq!(s.connects_due(&min, now), 3);
        assert_eq!(s.pop_served().map(|(t, _)| t), Some(ticket));
    }

    #[test]
    fn no_more_is_opened_than_is_waited_for() {
        let now = Instant::now();
        let mut s = State::default();
        s.enqueue(waiter(0, now));
        assert_eq!(s.connects_due(&BOUNDS, now), 1);
        s.begin_connect(now);
        assert_eq!(s.connects_due(&BOUNDS, now), 0);
        let min = Bounds { min: 3, ..BOUNDS };
        assert_eq!(s.connects_due(&min, now), 0, "nobody has logged in yet");
        s.connected();
        assert_eq!(s.connects_due(&min, now), 2);
    }

    #[test]
    fn the_reserve_is_for_those_who_waited_long() {
        let now = Instant::now();
        let mut s = State::default();
        for c in 0..9 {
            s.enqueue(waiter(c, now));
        }
        for _ in 0..4 {
            s.begin_connect(now);
            s.connected();
        }
        assert_eq!(s.connects_due(&BOUNDS, now + Duration::from_secs(4)), 0);
        assert_eq!(s.connects_due(&BOUNDS, now + Duration::from_secs(5)), 2);
    }

    #[test]
    fn a_failure_speaks_for_the_server_while_attempts_are_made() {
        let now = Instant::now();
        let mut s = State::default();
        s.enqueue(waiter(0, now));
        s.begin_connect(now);
        s.connect_failed(refused("53300"), &BOUNDS, now, 0.0);
        s.closed();
        let due = s.retry_at.expect("a pause");
        assert!(s.current_failure(due).is_some());
        // A limit keeps it from trying again.
        assert!(s.current_failure(due + Duration::from_secs(2)).is_none());
        assert!(s.failure().is_some());
        // It does: the old one counts no more.
        s.begin_connect(due + Duration::from_secs(2));
        assert!(s.failure().is_none() && s.failing_since().is_none());
        s.connect_failed(refused("53300"), &BOUNDS, now, 0.0);
        s.pause();
        assert!(s.current_failure(now).is_none());
        s.resume(now);
        assert!(s.failure().is_none());
    }

    #[test]
    fn t43_failures_that_pass_leave_waiters_waiting_and_others_do_not() {
        let now = Instant::now();
        for (sqlstate, permanent) in [
            ("57P03", false),
            ("53300", false),
            ("28P01", true),
            ("3D000", true),
        ] {
            let mut s = State::default();
            s.enqueue(waiter(0, now));
            s.begin_connect(now);
            s.connect_failed(refused(sqlstate), &BOUNDS, now, 0.0);
            s.closed();
            assert_eq!(s.permanent_failure(now).is_some(), permanent, "{sqlstate}");
            assert_eq!(s.waiting(), 1);
            s.check_invariants();
        }
    }

    #[test]
    fn pauses_double_up_to_their_bound_and_end_with_success() {
        let mut now = Instant::now();
        let mut s = State::default();
        s.enqueue(waiter(0, now));
        for pause_ms in [500, 1000, 2000, 4000, 7500, 7500] {
            assert_eq!(s.connects_due(&BOUNDS, now), 1);
            s.begin_connect(now);
            s.connect_failed(refused("53300"), &BOUNDS, now, 0.0);
            s.closed();
            let pause = Duration::from_millis(pause_ms);
            assert_eq!(
                s.connects_due(&BOUNDS, now + pause - Duration::from_millis(1)),
                0
            );
            now += pause;
        }
        s.begin_connect(now);
        s.connected();
        assert!(s.failure().is_none() && s.failing_since().is_none());
    }

    #[test]
    fn a_server_that_may_be_back_at_any_moment_is_asked_often() {
        let now = Instant::now();
        let mut s = State::default();
        s.enqueue(waiter(0, now));
        for _ in 0..20 {
            s.begin_connect(now);
            s.connect_failed(refused("57P03"), &BOUNDS, now, 0.99);
            s.closed();
        }
        assert_eq!(s.connects_due(&BOUNDS, now + RETURNING_RETRY_MAX), 1);
        assert_eq!(s.connects_due(&BOUNDS, now), 0);
    }

    #[test]
    fn t36_no_count_is_lost_over_any_history() {
        let mut seed = 7_u64;
        let mut random = move |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % n
        };
        let now = Instant::now();
        let mut s = State::default();
        let mut tickets = Vec::new();
        let mut open = 0;
        for step in 0..100_000 {
            match random(6) {
                0 => tickets.push(s.enqueue(waiter(step, now))),
                1 if !tickets.is_empty() => {
                    let at = usize::try_from(random(tickets.len() as u64)).expect("small");
                    s.leave(tickets.swap_remove(at));
                }
                2 => {
                    s.pop_oldest();
                }
                3 if s.connects_due(&BOUNDS, now) > 0 => s.begin_connect(now),
                4 if s.connecting() > 0 => {
                    s.connected();
                    open += 1;
                }
                5 if open > 0 => {
                    s.closed();
                    open -= 1;
                }
                _ => {}
            }
            s.check_invariants();
            assert_eq!(s.servers(), open + s.connecting());
            assert!(s.servers() <= BOUNDS.size);
        }
    }
}
