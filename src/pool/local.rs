//! A pool as one worker sees it: the servers that idle here and the clients that wait here.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pooler_protocol::settings::Settings;
use pooler_protocol::startup::Startup;
use slab::Slab;

use super::checkout::{Checkout, Pooled, Wait};
use super::state::{Ticket, Waiter};
use super::{Commons, Errand, Limit, Pool};
use crate::error::LoginError;
use crate::metrics::PoolCounters;
use crate::server::{Server, Welcome};
use crate::timer;

/// How long PostgreSQL may take to close a connection after a goodbye.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// A server that nobody uses. It cannot be written to; a checkout makes it usable.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) pooled: Box<Pooled>,
    pub(super) since: Instant,
}

/// Where a waiting client is told.
#[derive(Debug)]
struct WaitCell {
    ticket: Ticket,
    told: Option<Result<Box<Pooled>, Arc<LoginError>>>,
    waker: Option<Waker>,
}

/// See the module.
#[derive(Debug)]
pub struct LocalPool {
    shared: Arc<Pool>,
    worker: usize,
    /// The one used last is at the back and is used first; the others grow old at the front.
    pub(super) idle: RefCell<VecDeque<Idle>>,
    cells: RefCell<Slab<WaitCell>>,
    in_use: Cell<usize>,
    last_login: RefCell<Option<LastLogin>>,
}

/// What a login asked for, and what that came to: mostly the next one asks for the same.
#[derive(Debug)]
struct LastLogin {
    startup: Startup,
    /// Of the plan, and what servers said of themselves: it depended on both.
    version: u32,
    welcome: Arc<Welcome>,
    settings: Arc<Settings>,
}

impl LocalPool {
    fn new(shared: Arc<Pool>, worker: usize) -> Rc<Self> {
        Rc::new(Self {
            shared,
            worker,
            idle: RefCell::default(),
            cells: RefCell::default(),
            in_use: Cell::new(0),
            last_login: RefCell::default(),
        })
    }

    /// What `startup` came to at the last login, if that asked for the same and nothing has changed.
    #[must_use]
    pub fn settings_of_last_login(
        &self,
        startup: &Startup,
        welcome: &Arc<Welcome>,
    ) -> Option<Arc<Settings>> {
        let last = self.last_login.borrow();
        let last = last.as_ref()?;
        let same = last.version == self.shared.version()
            && Arc::ptr_eq(&last.welcome, welcome)
            && last.startup == *startup;
        same.then(|| Arc::clone(&last.settings))
    }

    /// Notes what `startup` came to, with version `version` of the plan.
    pub fn note_last_login(
        &self,
        startup: &Startup,
        version: u32,
        welcome: &Arc<Welcome>,
        settings: &Arc<Settings>,
    ) {
        *self.last_login.borrow_mut() = Some(LastLogin {
            startup: startup.clone(),
            version,
            welcome: Arc::clone(welcome),
            settings: Arc::clone(settings),
        });
    }

    /// The pool of all workers.
    #[inline]
    #[must_use]
    pub fn shared(&self) -> &Arc<Pool> {
        &self.shared
    }

    /// This worker's number.
    #[must_use]
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// This worker's counters.
    #[inline]
    #[must_use]
    pub fn counters(&self) -> &PoolCounters {
        self.shared.counters(self.worker)
    }

    /// What is shared by all pools.
    #[inline]
    #[must_use]
    pub fn commons(&self) -> &Arc<Commons> {
        &self.shared.commons
    }

    /// What its servers have to do for this worker: those in use here and those who wait here.
    #[inline]
    #[must_use]
    pub fn load(&self) -> usize {
        self.in_use.get() + self.cells.borrow().len()
    }

    /// A server that idles here, unless somebody waits for one: a newcomer never takes what the
    /// oldest waiter should get (trap 38).
    #[inline]
    pub fn try_checkout(self: &Rc<Self>) -> Option<Checkout> {
        if self.shared.waiting.0.load(Ordering::SeqCst) > 0 {
            return None;
        }
        loop {
            let idle = self.idle.borrow_mut().pop_back()?;
            self.idle_less();
            if let Some(pooled) = self.fit(idle.pooled) {
                return Some(self.hand_out(pooled));
            }
        }
    }

    /// Joins the queue. A server is opened, or fetched from a worker where one idles, if that can
    /// be done.
    ///
    /// # Errors
    /// Why none will be opened before something is changed by hand.
    pub fn wait(self: &Rc<Self>, now: Instant) -> Result<Wait, Arc<LoginError>> {
        let cell = self.cells.borrow_mut().insert(WaitCell {
            ticket: 0,
            told: None,
            waker: None,
        });
        let mut state = self.shared.state();
        if let Some(error) = state.permanent_failure(now) {
            drop(state);
            self.cells.borrow_mut().remove(cell);
            return Err(error);
        }
        let ticket = state.enqueue(Waiter {
            worker: self.worker,
            cell,
            since: now,
        });
        self.shared
            .waiting
            .0
            .store(state.waiting(), Ordering::SeqCst);
        // The common case of a full pool ends here; the reserve is the sweep's business.
        let room = state.servers() < self.shared.size.load(Ordering::Relaxed);
        drop(state);
        self.cells.borrow_mut()[cell].ticket = ticket;
        let wait = Wait {
            local: Rc::clone(self),
            cell,
            ticket,
            since: now,
        };
        self.serve_from_idle();
        if room {
            self.grow(now);
        }
        Ok(wait)
    }

    /// After somebody began to wait: what idles here goes to the oldest waiter; other workers on
    /// which servers idle are asked to do the same.
    fn serve_from_idle(self: &Rc<Self>) {
        self.yield_idle();
        if self.shared.waiting.0.load(Ordering::SeqCst) == 0 {
            return;
        }
        // All of them: what the first has may go to somebody else before it hears of us.
        for (worker, idle) in self.shared.idle.iter().enumerate() {
            if worker != self.worker && idle.0.load(Ordering::SeqCst) > 0 {
                self.shared
                    .send(worker, Errand::Yield(Arc::clone(&self.shared)));
            }
        }
    }

    /// Hands servers that idle here to those who wait, wherever they are.
    pub(super) fn yield_idle(self: &Rc<Self>) {
        while self.shared.waiting.0.load(Ordering::SeqCst) > 0 {
            let Some(idle) = self.idle.borrow_mut().pop_back() else {
                return;
            };
            self.idle_less();
            if let Some(pooled) = self.fit(idle.pooled) {
                self.in_use.set(self.in_use.get() + 1);
                self.take_back(pooled, idle.since);
            }
        }
    }

    /// The server, if it can still be used: not closed by its side, not too old, not replaced.
    #[inline]
    fn fit(&self, mut pooled: Box<Pooled>) -> Option<Box<Pooled>> {
        if pooled.generation != self.shared.generation.load(Ordering::Relaxed) {
            close(pooled);
            return None;
        }
        if let Err(e) = pooled.server.judge_idle() {
            tracing::debug!(server = %pooled.server.identity.host, "idle server closed: {e}");
            return None;
        }
        Some(pooled)
    }

    /// Whether it was opened before its pool was to have new ones.
    pub(super) fn is_outdated(&self, pooled: &Pooled) -> bool {
        pooled.generation != self.shared.generation.load(Ordering::Relaxed)
    }

    /// Calls `see` with each server that idles here, since when, and whether it is to be closed.
    pub fn each_idle(&self, mut see: impl FnMut(&Server, Instant, bool)) {
        for idle in &*self.idle.borrow() {
            let outdated = self.is_outdated(&idle.pooled);
            see(&idle.pooled.server, idle.since, outdated);
        }
    }

    /// Whether a server has had its time.
    pub(super) fn is_stale(&self, pooled: &Pooled, now: Instant) -> bool {
        pooled.generation != self.shared.generation.load(Ordering::Relaxed)
            || pooled.expires.is_some_and(|at| now >= at)
    }

    #[inline]
    fn hand_out(self: &Rc<Self>, pooled: Box<Pooled>) -> Checkout {
        self.counters().checkouts.add(1);
        self.in_use.set(self.in_use.get() + 1);
        Checkout::new(pooled, Rc::clone(self))
    }

    /// A server that was in use, or was just opened, goes to whoever waits longest, or idles here.
    #[inline]
    pub(super) fn take_back(self: &Rc<Self>, mut pooled: Box<Pooled>, now: Instant) {
        self.in_use_less();
        if self.is_stale(&pooled, now) {
            return close(pooled);
        }
        if self.shared.waiting.0.load(Ordering::SeqCst) > 0 {
            let Some(back) = self.hand_to_oldest(pooled) else {
                return;
            };
            pooled = back;
        }
        self.shared.idle[self.worker]
            .0
            .fetch_add(1, Ordering::SeqCst);
        self.idle
            .borrow_mut()
            .push_back(Idle { pooled, since: now });
        // Somebody may have begun to wait between the look at the queue and the count.
        if self.shared.waiting.0.load(Ordering::SeqCst) > 0 {
            self.yield_idle();
        }
    }

    /// Hands the server to the oldest waiter; gives it back if nobody waits any more.
    fn hand_to_oldest(self: &Rc<Self>, pooled: Box<Pooled>) -> Option<Box<Pooled>> {
        let mut state = self.shared.state();
        let oldest = state.pop_served();
        self.shared
            .waiting
            .0
            .store(state.waiting(), Ordering::SeqCst);
        drop(state);
        let Some((ticket, waiter)) = oldest else {
            return Some(pooled);
        };
        if waiter.worker == self.worker {
            self.tell(waiter.cell, ticket, Ok(pooled));
            return None;
        }
        match pooled.map(Server::detach) {
            Ok(server) => {
                let errand = Errand::Deliver {
                    pool: Arc::clone(&self.shared),
                    cell: waiter.cell,
                    ticket,
                    server,
                };
                self.shared.send(waiter.worker, errand);
            }
            // The server is lost; its waiter must not wait for it.
            Err(e) => {
                tracing::error!("cannot move a server connection to another worker: {e}");
                self.shared.fail_waiter(waiter, ticket);
            }
        }
        None
    }

    /// Tells a waiter of this worker; a server for one that has left goes to the next.
    fn tell(
        self: &Rc<Self>,
        cell: usize,
        ticket: Ticket,
        told: Result<Box<Pooled>, Arc<LoginError>>,
    ) {
        let mut cells = self.cells.borrow_mut();
        match cells.get_mut(cell).filter(|c| c.ticket == ticket) {
            Some(cell) => {
                cell.told = Some(told);
                if let Some(waker) = cell.waker.take() {
                    waker.wake();
                }
            }
            None => {
                drop(cells);
                if let Ok(pooled) = told {
                    self.in_use.set(self.in_use.get() + 1);
                    self.take_back(pooled, Instant::now());
                }
            }
        }
    }

    #[inline]
    pub(super) fn poll_cell(
        self: &Rc<Self>,
        cell: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Checkout, Arc<LoginError>>> {
        let mut cells = self.cells.borrow_mut();
        let cell = &mut cells[cell];
        match cell.told.take() {
            Some(Ok(pooled)) => {
                drop(cells);
                Poll::Ready(Ok(self.hand_out(pooled)))
            }
            Some(Err(error)) => Poll::Ready(Err(error)),
            None => {
                if !cell.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                    cell.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    pub(super) fn leave(self: &Rc<Self>, cell: usize, ticket: Ticket) {
        let cell = self.cells.borrow_mut().remove(cell);
        if let Some(Ok(pooled)) = cell.told {
            self.in_use.set(self.in_use.get() + 1);
            self.take_back(pooled, Instant::now());
            return;
        }
        let mut state = self.shared.state();
        if state.leave(ticket) {
            self.shared
                .waiting
                .0
                .store(state.waiting(), Ordering::SeqCst);
        }
    }

    /// Everybody who waits for this pool is told that it is in vain.
    pub(super) fn fail_all(self: &Rc<Self>, error: &Arc<LoginError>) {
        loop {
            let mut state = self.shared.state();
            let oldest = state.pop_oldest();
            self.shared
                .waiting
                .0
                .store(state.waiting(), Ordering::SeqCst);
            drop(state);
            let Some((ticket, waiter)) = oldest else {
                return;
            };
            let (cell, error) = (waiter.cell, Arc::clone(error));
            if waiter.worker == self.worker {
                self.tell(cell, ticket, Err(error));
            } else {
                let pool = Arc::clone(&self.shared);
                let errand = Errand::Fail {
                    pool,
                    cell,
                    ticket,
                    error,
                };
                self.shared.send(waiter.worker, errand);
            }
        }
    }

    fn idle_less(&self) {
        self.shared.idle[self.worker]
            .0
            .fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn drop_idle(&self, at: usize) {
        let idle = self.idle.borrow_mut().remove(at);
        if let Some(idle) = idle {
            self.idle_less();
            close(idle.pooled);
        }
    }

    pub(super) fn in_use_less(&self) {
        self.in_use.set(self.in_use.get() - 1);
    }

    pub(super) fn in_use_more(&self) {
        self.in_use.set(self.in_use.get() + 1);
    }
}

impl Pool {
    /// Tells a waiter whose server was lost on its way between two workers.
    fn fail_waiter(self: &Arc<Self>, waiter: Waiter, ticket: Ticket) {
        let error = Arc::new(LoginError::Protocol {
            host: self.key.to_string(),
            what: "the server connection was lost between two workers".to_owned(),
        });
        let errand = Errand::Fail {
            pool: Arc::clone(self),
            cell: waiter.cell,
            ticket,
            error,
        };
        self.send(waiter.worker, errand);
    }
}

/// Says goodbye to a server and keeps its place until PostgreSQL has closed its side, for a while:
/// before that it still counts there, and another would be one too many.
pub(super) fn close(mut pooled: Box<Pooled>) {
    pooled.server.terminate();
    tokio::task::spawn_local(async move {
        let mut unread = [0; 256];
        let gone = async {
            while matches!(pooled.server.stream.read(&mut unread).await, Ok(n) if n > 0) {}
        };
        // One that does not close is closed here.
        let _in_time = timer::timeout(CLOSE_MAX, gone).await;
    });
}

/// The pools that a worker has seen.
#[derive(Debug)]
pub struct LocalPools {
    worker: usize,
    /// In a tree: most workers have few, and a login looks its pool up.
    known: RefCell<BTreeMap<u64, Rc<LocalPool>>>,
}

impl LocalPools {
    /// Of worker `worker`.
    #[must_use]
    pub fn new(worker: usize) -> Self {
        Self {
            worker,
            known: RefCell::default(),
        }
    }

    /// This worker's side of `pool`.
    #[must_use]
    pub fn local(&self, pool: &Arc<Pool>) -> Rc<LocalPool> {
        let mut known = self.known.borrow_mut();
        let local = known
            .entry(pool.id)
            .or_insert_with(|| LocalPool::new(Arc::clone(pool), self.worker));
        Rc::clone(local)
    }

    /// Every pool that this worker has seen.
    #[must_use]
    pub fn all(&self) -> Vec<Rc<LocalPool>> {
        self.known.borrow().values().cloned().collect()
    }

    /// Does what another worker asked for.
    pub fn run(&self, errand: Errand) {
        match errand {
            Errand::Deliver {
                pool,
                cell,
                ticket,
                server,
            } => match server.map(Server::attach) {
                Ok(pooled) => self.local(&pool).tell(cell, ticket, Ok(pooled)),
                Err(e) => {
                    tracing::error!("cannot take a server connection from another worker: {e}");
                    let waiter = Waiter {
                        worker: self.worker,
                        cell,
                        since: Instant::now(),
                    };
                    pool.fail_waiter(waiter, ticket);
                }
            },
            Errand::Fail {
                pool,
                cell,
                ticket,
                error,
            } => self.local(&pool).tell(cell, ticket, Err(error)),
            Errand::Yield(pool) => self.local(&pool).yield_idle(),
            Errand::Grow(pool) => self.local(&pool).grow(Instant::now()),
            Errand::Spare {
                limit,
                asker,
                workers,
            } => self.spare(limit, asker, workers),
        }
    }

    /// Closes the server that idles longest among those that count for `limit`, if its pool can
    /// spare it; if none idles here, the next of `workers` workers is asked. One request closes one
    /// server at most.
    fn spare(&self, limit: Arc<Limit>, asker: Arc<Pool>, workers: usize) {
        let longest = self
            .all()
            .into_iter()
            .filter(|local| local.shared.waiting.0.load(Ordering::SeqCst) == 0)
            .filter_map(|local| {
                let idle = local.idle.borrow();
                let front = idle.front()?;
                let counts = front.pooled.slot.permits.0.iter().any(|p| p.is_of(&limit));
                let since = front.since;
                drop(idle);
                counts.then_some((since, local))
            })
            .min_by_key(|(since, _)| *since);
        match longest {
            Some((_, local)) => local.drop_idle(0),
            None if workers > 1 => {
                let next = (self.worker + 1) % asker.commons.couriers.len();
                let errand = Errand::Spare {
                    limit,
                    asker: Arc::clone(&asker),
                    workers: workers - 1,
                };
                asker.send(next, errand);
            }
            None => {}
        }
    }

    /// Forgets pools that nobody on this worker uses.
    pub fn prune(&self) {
        self.known.borrow_mut().retain(|_, local| {
            Rc::strong_count(local) > 1
                || !local.idle.borrow().is_empty()
                || local.shared.numbers().clients > 0
                || local.shared.is_wanted()
        });
    }
}
