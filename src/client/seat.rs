//! Where a session can be found by others on its worker: by the sweep that enforces its deadlines,
//! by a cancel request, and by a shutdown.
//!
//! Nobody touches a session from outside: they leave an [`Order`] on its seat and wake it, and the
//! session obeys at its next poll. So a session needs no timer and no lock.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::oneshot;

use super::standstill::{Standstill, Unquiet};
use crate::admin::Census;
use crate::config::PoolSettings;
use crate::error::{LoginError, Refusal};
use crate::pool::Pool;
use crate::pool::limit::Limit;
use crate::relay::Meter;

/// How long a cancelled query may take to end before its session is ended instead.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// How often a query is cancelled that goes on.
const CANCELS_MAX: u8 = 5;

/// How long a session that was told to end may take to take in its last message.
const CLOSING_MAX: Duration = Duration::from_secs(5);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What a session is asked to do.
#[derive(Debug)]
pub enum Order {
    /// Cancel what is running; tell the sender when it is done.
    Cancel(Option<oneshot::Sender<()>>),
    /// Tell the client that it waits.
    Notify(Duration),
    /// Stop waiting for a server.
    StopWaiting(Box<Refusal>),
    /// Stop waiting, and say how the queue is.
    WaitTimeout(Duration),
    /// End the session with this.
    End(Box<Refusal>),
    /// Close, whatever is unsent.
    Abort,
    /// Look at what has changed (a reload, a shutdown).
    LookUp,
    /// Hear what has changed about the hosts.
    Hosts(Arc<HostNews>),
    /// Say what it is doing.
    Describe(Rc<Census>),
    /// Stand still, and drop this when nothing is unsent.
    StandStill(Rc<Unquiet>),
    /// Say to those who wait in this pool who it is: nobody here has had a server for longer.
    Introduce(Arc<Pool>),
}

/// What has changed about the hosts of a cluster.
#[derive(Debug)]
pub struct HostNews {
    /// This one can be reached no more, or is no replica any more.
    pub lost: Option<String>,
    /// This one is the primary now.
    pub primary: Option<String>,
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is being let in, and the pooler is at work for it.
    Entering,
    /// Between transactions.
    Idle,
    /// In the queue for a server.
    Waiting,
    /// It has a server.
    Active,
    /// It is ending, and sends what is unsent.
    Closing,
}

/// What a cancel request must show.
#[derive(Debug)]
pub enum CancelKey {
    /// Up to protocol 3.1.
    Short([u8; 4]),
    /// From protocol 3.2 on.
    Long(Box<[u8; 32]>),
}

impl CancelKey {
    /// A random one for a session that speaks protocol 3.`minor`.
    #[must_use]
    pub fn random(minor: u16) -> Self {
        if minor >= 2 {
            Self::Long(Box::new(rand::random()))
        } else {
            Self::Short(rand::random())
        }
    }

    /// The key as it is sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(key) => key,
            Self::Long(key) => &**key,
        }
    }

    /// Whether `shown` is the key, in a time that does not tell how much of it is (trap 18).
    #[must_use]
    pub fn matches(&self, shown: &[u8]) -> bool {
        let key = self.bytes();
        key.len() == shown.len()
            && key.iter().zip(shown).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
    }
}

/// See the module.
#[derive(Debug)]
pub struct Seat {
    /// Unique in the process.
    id: u64,
    key: CancelKey,
    orders: RefCell<Vec<Order>>,
    waker: RefCell<Option<Waker>>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    meter: Cell<Meter>,
    /// The deadline that was acted upon, so that it is not twice.
    done: Cell<Option<Instant>>,
    /// When the query began that a cancel was meant for, and how many sweeps it may still outlive
    /// that: a cancel that PostgreSQL gets before the query finds nothing to end.
    cancelled: Cell<(Option<Instant>, u8)>,
    /// Since when its client is kept on its server.
    pinned: Cell<Option<Instant>>,
    /// The pool whose server the session has or waits for.
    pool: RefCell<Arc<Pool>>,
    settings: RefCell<Arc<PoolSettings>>,
    /// Of a replication connection: what its server's connection counts for. It is of no pool.
    outside: RefCell<Option<Arc<Limit>>>,
}

impl Seat {
    /// Enters a phase.
    #[inline]
    pub fn enter(&self, phase: Phase, now: Instant) {
        self.phase.set(phase);
        self.since.set(now);
    }

    /// Notes the times of the work running.
    #[inline]
    pub fn note(&self, meter: Meter) {
        self.meter.set(meter);
    }

    /// A cancel is on its way for the query that runs now.
    pub fn note_cancel(&self, query: Option<Instant>) {
        if self.cancelled.get().0 != query {
            self.cancelled.set((query, CANCELS_MAX));
        }
    }

    /// Since when the client is kept on its server; nothing: it is not.
    pub fn set_pinned(&self, since: Option<Instant>) {
        self.pinned.set(since);
    }

    /// Since when the client is kept on its server.
    #[must_use]
    pub fn pinned(&self) -> Option<Instant> {
        self.pinned.get()
    }

    /// Since when the session has its server: its transaction began, or something else keeps it there.
    #[must_use]
    pub fn held_since(&self) -> Option<Instant> {
        if self.phase.get() != Phase::Active {
            return None;
        }
        let since = [self.meter.get().transaction, self.pinned.get()];
        Some(
            since
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(self.since.get()),
        )
    }

    /// It has a server that is of no pool, a connection within `limit`.
    pub fn set_outside(&self, limit: &Arc<Limit>) {
        *self.outside.borrow_mut() = Some(Arc::clone(limit));
    }

    /// The session's settings have changed.
    pub fn set_settings(&self, settings: Arc<PoolSettings>) {
        *self.settings.borrow_mut() = settings;
    }

    /// The session has a server of this pool, or waits for one.
    #[inline]
    pub fn set_pool(&self, pool: &Arc<Pool>) {
        if !Arc::ptr_eq(&self.pool.borrow(), pool) {
            *self.pool.borrow_mut() = Arc::clone(pool);
        }
    }

    /// The pool whose server the session has, waits for, or had last.
    #[must_use]
    pub fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.pool.borrow())
    }

    /// Its number, unique in the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What the session is doing, and since when.
    #[must_use]
    pub fn standing(&self) -> (Phase, Instant) {
        (self.phase.get(), self.since.get())
    }

    /// Where the session is woken.
    pub fn set_waker(&self, waker: &Waker) {
        *self.waker.borrow_mut() = Some(waker.clone());
    }

    /// Orders to obey, in the order in which they came.
    #[inline]
    #[must_use]
    pub fn has_orders(&self) -> bool {
        !self.orders.borrow().is_empty()
    }

    /// Takes the orders.
    #[must_use]
    pub fn take_orders(&self) -> Vec<Order> {
        std::mem::take(&mut self.orders.borrow_mut())
    }

    /// Leaves an order and wakes the session.
    pub fn order(&self, order: Order) {
        self.orders.borrow_mut().push(order);
        self.wake();
    }

    /// Wakes the session.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// What is overdue at `now`; the time of a standstill does not count.
    fn overdue(&self, now: Instant, still: &Standstill) -> Option<Order> {
        let settings = self.settings.borrow();
        let worked = |since| still.worked(since, now);
        let passed = |limit: Option<Duration>| limit.filter(|l| worked(self.since.get()) >= *l);
        match self.phase.get() {
            Phase::Entering => None,
            Phase::Idle => passed(settings.client_idle_timeout)
                .map(|limit| Order::End(Box::new(Refusal::idle_timeout(limit)))),
            Phase::Waiting => self.overdue_waiting(&settings, now, worked(self.since.get())),
            Phase::Active => self.overdue_active(&settings, worked),
            Phase::Closing => passed(Some(CLOSING_MAX)).map(|_| Order::Abort),
        }
    }

    fn overdue_waiting(
        &self,
        settings: &PoolSettings,
        now: Instant,
        waited: Duration,
    ) -> Option<Order> {
        self.pool.borrow().note_waiter(now);
        let since = self.since.get();
        if let Some(limit) = settings.query_wait_timeout.filter(|l| waited >= *l) {
            return Some(Order::WaitTimeout(limit));
        }
        if let Some(error) = self.pool().hopeless(waited, now) {
            return Some(Order::StopWaiting(Box::new(waiting_in_vain(&error))));
        }
        let notify = settings.query_wait_notify.is_some_and(|l| waited >= l);
        if notify && self.done.replace(Some(since)) != Some(since) {
            return Some(Order::Notify(now.saturating_duration_since(since)));
        }
        None
    }

    fn overdue_active(
        &self,
        settings: &PoolSettings,
        worked: impl Fn(Instant) -> Duration,
    ) -> Option<Order> {
        let meter = self.meter.get();
        let passed = |since: Option<Instant>, limit: Option<Duration>| {
            limit.filter(|l| since.is_some_and(|s| worked(s) >= *l))
        };
        let end = |refusal| Some(Order::End(Box::new(refusal)));
        if let Some(limit) = passed(meter.transaction, settings.transaction_timeout) {
            return end(Refusal::transaction_timeout(limit));
        }
        if let Some(limit) = passed(meter.idle_since, settings.idle_transaction_timeout) {
            return end(Refusal::idle_transaction_timeout(limit));
        }
        if let Some(limit) = passed(meter.query, settings.query_timeout) {
            // First as statement_timeout does it; a server that does not react is given up.
            if self.done.replace(meter.query) != meter.query {
                return Some(Order::Cancel(None));
            }
            if passed(meter.query, Some(limit + CANCEL_GRACE)).is_some() {
                return end(Refusal::query_timeout(limit));
            }
        }
        let (cancelled, tries) = self.cancelled.get();
        if cancelled.is_some() && cancelled == meter.query && tries > 0 {
            self.cancelled.set((cancelled, tries - 1));
            return Some(Order::Cancel(None));
        }
        let quiet = meter.query.is_none() && meter.transaction.is_none();
        let limit = passed(meter.now, settings.client_idle_timeout).filter(|_| quiet);
        limit.and_then(|limit| end(Refusal::idle_timeout(limit)))
    }
}

/// What a client is told whose server cannot be reached; the session may outlive the outage.
#[must_use]
pub(super) fn waiting_in_vain(error: &LoginError) -> Refusal {
    Refusal {
        fatal: false,
        ..error.refusal()
    }
}

/// The sessions of a worker.
#[derive(Debug, Default)]
pub struct Seats {
    taken: RefCell<Slab<Rc<Seat>>>,
    /// Those whose clients were told the process id of their server.
    by_process: RefCell<HashMap<i32, Vec<usize>>>,
}

impl Seats {
    /// A seat for a session of `pool`.
    pub fn take(self: &Rc<Self>, pool: Arc<Pool>, key: CancelKey, now: Instant) -> Seated {
        let settings = Arc::clone(&pool.plan().settings);
        let seat = Rc::new(Seat {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            key,
            orders: RefCell::default(),
            waker: RefCell::default(),
            phase: Cell::new(Phase::Idle),
            since: Cell::new(now),
            meter: Cell::default(),
            done: Cell::new(None),
            cancelled: Cell::new((None, 0)),
            pinned: Cell::new(None),
            pool: RefCell::new(pool),
            settings: RefCell::new(settings),
            outside: RefCell::default(),
        });
        let number = self.taken.borrow_mut().insert(Rc::clone(&seat));
        Seated {
            seat,
            number,
            seats: Rc::clone(self),
            process_id: None,
        }
    }

    /// The seat whose client was told that its server is this process, if `shown` is its key. Two
    /// hosts may have processes of one number.
    #[must_use]
    pub fn find_by_process(&self, process_id: i32, shown: &[u8]) -> Option<Rc<Seat>> {
        let by_process = self.by_process.borrow();
        let numbers = by_process.get(&process_id)?;
        numbers.iter().find_map(|&number| self.find(number, shown))
    }

    /// The seat of this number, if `shown` is its key.
    #[must_use]
    pub fn find(&self, number: usize, shown: &[u8]) -> Option<Rc<Seat>> {
        let taken = self.taken.borrow();
        taken
            .get(number)
            .filter(|seat| seat.key.matches(shown))
            .cloned()
    }

    /// Acts upon what is overdue.
    pub fn sweep(&self, now: Instant, still: &Standstill) {
        let overdue: Vec<(Rc<Seat>, Order)> = self
            .taken
            .borrow()
            .iter()
            .filter(|(_, seat)| !seat.has_orders())
            .filter_map(|(_, seat)| {
                seat.overdue(now, still)
                    .map(|order| (Rc::clone(seat), order))
            })
            .collect();
        for (seat, order) in overdue {
            seat.order(order);
        }
    }

    /// Calls `see` with each session that has a server: its pool, when its transaction began, if it is in one,
    /// and since when it has the server. With a replication connection, once for each pool that waits for its place.
    pub fn each_holder(
        &self,
        now: Instant,
        mut see: impl FnMut(&Rc<Seat>, &Arc<Pool>, Option<Instant>, Instant),
    ) {
        for (_, seat) in &*self.taken.borrow() {
            let Some(since) = seat.held_since() else {
                continue;
            };
            match &*seat.outside.borrow() {
                None => {
                    let transaction = seat.meter.get().transaction;
                    see(seat, &seat.pool.borrow(), transaction, since);
                }
                Some(limit) => {
                    for pool in limit.keeps_waiting(now) {
                        see(seat, &pool, None, since);
                    }
                }
            }
        }
    }

    /// Gives every session of these pools the same order.
    pub fn order_those_of(&self, pools: &HashSet<u64>, order: impl Fn() -> Order) {
        let taken = self.taken.borrow();
        let concerned = taken.iter().filter(|(_, seat)| {
            let pool = seat.pool.borrow();
            pools.contains(&pool.id)
        });
        let concerned: Vec<Rc<Seat>> = concerned.map(|(_, s)| Rc::clone(s)).collect();
        drop(taken);
        for seat in concerned {
            seat.order(order());
        }
    }

    /// Gives every session the same order.
    pub fn order_all(&self, order: impl Fn() -> Order) {
        self.order_some(|_| true, order);
    }

    /// Gives those sessions the same order that are `meant`; how many they are.
    pub fn order_some(&self, meant: impl Fn(&Seat) -> bool, order: impl Fn() -> Order) -> usize {
        let taken = self.taken.borrow();
        let all = taken.iter().map(|(_, seat)| seat);
        let some: Vec<Rc<Seat>> = all.filter(|seat| meant(seat)).cloned().collect();
        drop(taken);
        for seat in &some {
            seat.order(order());
        }
        some.len()
    }

    /// How many sessions are in `phase`.
    #[must_use]
    pub fn count(&self, phase: Phase) -> usize {
        let taken = self.taken.borrow();
        taken.iter().filter(|(_, s)| s.phase.get() == phase).count()
    }
}

/// A seat that is free again when dropped.
#[derive(Debug)]
pub struct Seated {
    seat: Rc<Seat>,
    number: usize,
    seats: Rc<Seats>,
    /// The server's process id, if the client was told that.
    process_id: Option<i32>,
}

impl Seated {
    /// Notes that the client is told this process id.
    pub fn show_process(&mut self, process_id: i32) {
        self.process_id = Some(process_id);
        let mut by_process = self.seats.by_process.borrow_mut();
        by_process.entry(process_id).or_default().push(self.number);
    }

    /// Its number among those of its worker.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// What a cancel request must show.
    #[must_use]
    pub fn cancel_key(&self) -> &[u8] {
        self.seat.key.bytes()
    }

    /// The seat itself.
    #[must_use]
    pub fn share(&self) -> Rc<Seat> {
        Rc::clone(&self.seat)
    }
}

impl std::ops::Deref for Seated {
    type Target = Seat;
    #[inline]
    fn deref(&self) -> &Seat {
        &self.seat
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.seats.taken.borrow_mut().remove(self.number);
        self.seat.pool.borrow().forget_holder(self.seat.id);
        let mut by_process = self.seats.by_process.borrow_mut();
        if let Some(process_id) = self.process_id
            && let Some(numbers) = by_process.get_mut(&process_id)
        {
            numbers.retain(|&number| number != self.number);
            if numbers.is_empty() {
                by_process.remove(&process_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t18_keys_are_compared_whole() {
        let key = CancelKey::Short([1, 2, 3, 4]);
        assert!(key.matches(&[1, 2, 3, 4]));
        for wrong in [
            &[1, 2, 3][..],
            &[1, 2, 3, 5],
            &[0, 2, 3, 4],
            &[1, 2, 3, 4, 0],
            &[],
        ] {
            assert!(!key.matches(wrong));
        }
        assert_eq!(CancelKey::random(2).bytes().len(), 32);
        assert_eq!(CancelKey::random(0).bytes().len(), 4);
    }
}
