//! Pools: the server connections of one database and user, shared by all workers.
//!
//! A server idles on the worker that used it last. A checkout takes one that idles on its own
//! worker without a lock; only when there is none it goes through the pool's [`State`], which opens
//! another, fetches one that idles elsewhere, or lets the client wait in the one queue of the pool.
//!
//! Lock order: none is taken while another is held, except a [`Limit`]'s inside nothing. The lock of
//! [`State`] is held for arithmetic only, never over I/O.
//!
//! Lost wake-ups are ruled out by two counters that are written before the other is read: a worker
//! that lets a server idle raises `idle` and then reads `waiting`; a client that begins to wait
//! raises `waiting` and then reads `idle`. At least one of them sees the other.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pooler_protocol::settings::Settings;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use crate::config::PoolSettings;
use crate::error::LoginError;
use crate::metrics::PoolCounters;
use crate::net::{Address, DetachedStream};
use crate::server::catalogue::Database;
use crate::server::login::Credentials;
use crate::server::{Interners, Welcome};
use crate::tls::Connector;

mod checkout;
mod connect;
mod holder;
mod janitor;
pub mod limit;
mod listen;
mod local;
mod numbers;
pub mod state;
mod vigilance;
mod welcome;

pub use checkout::{Checkout, Pooled, Slot, Wait};
pub use connect::liveness;
pub use holder::Holder;
pub use local::{LocalPool, LocalPools};
pub use numbers::Numbers;

use limit::{Limit, Permit};
use state::{Bounds, State, Ticket};

/// What tells pools apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolKey {
    /// The name that clients ask for.
    pub database: String,
    /// The user as whom servers are logged in.
    pub user: String,
    /// Startup parameters of the servers. In a pool by session they are the client's own, so that
    /// what it resets goes back to them; there are none elsewhere.
    pub startup: StartupParameters,
    /// The replica whose servers they are; nothing for those of the primary.
    pub replica: Option<Arc<str>>,
}

/// Names and values as a client sent them, in order.
pub type StartupParameters = Arc<[(String, String)]>;

impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.database, self.user)?;
        match &self.replica {
            Some(host) => write!(f, "@{host}"),
            None => Ok(()),
        }
    }
}

/// Where the servers of a pool are: the cluster's side of a pool.
pub trait Locate: fmt::Debug + Send + Sync {
    /// The hosts to try, the likeliest first.
    fn candidates(&self) -> Vec<Candidate>;
    /// Says what a login at `address` showed. Returns whether the pool wants this server.
    fn inspect(&self, address: &Address, welcome: &Welcome) -> bool;
    /// Says that a login at `address` failed.
    fn failed(&self, address: &Address, error: &LoginError);
    /// What none of the candidates accepting means.
    fn nobody(&self, errors: Vec<String>) -> LoginError;
    /// Why there is no candidate, for those who wait for one.
    fn trouble(&self) -> Option<String>;
    /// Says that a server said something which calls for a look at its host.
    fn alarm(&self);
}

/// A host that may be the one.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Where.
    pub address: Address,
    /// Logins that it has to take at a time.
    pub logins: Arc<Limit>,
    /// Connections that it has to hold.
    pub connections: Arc<Limit>,
}

/// What it takes to open a server of a pool.
#[derive(Debug)]
pub struct Recipe {
    /// Where.
    pub locate: Arc<dyn Locate>,
    /// Database on the server.
    pub dbname: String,
    /// The proof.
    pub credentials: Arc<Credentials>,
    /// What is known of the functions of the database, if statements are routed by it.
    pub catalogue: Option<Arc<Database>>,
    /// How connections are encrypted.
    pub tls: Arc<Connector>,
}

/// What a pool is made of besides its name: replaced as a whole by a reload.
#[derive(Debug)]
pub struct Plan {
    /// How to open servers.
    pub recipe: Arc<Recipe>,
    /// Sizes and times.
    pub settings: Arc<PoolSettings>,
    /// Limits on servers that it shares with other pools.
    pub limits: Vec<Arc<Limit>>,
}

/// What one worker asks of another.
#[derive(Debug)]
pub enum Errand {
    /// Here is the server that one of your clients waits for.
    Deliver {
        /// Of which pool.
        pool: Arc<Pool>,
        /// For whom.
        cell: usize,
        /// The waiter's ticket: if another has the cell by now, the waiter has left.
        ticket: Ticket,
        /// The server.
        server: Box<Pooled<DetachedStream>>,
    },
    /// One of your clients waits in vain.
    Fail {
        /// Of which pool.
        pool: Arc<Pool>,
        /// Who.
        cell: usize,
        /// The waiter's ticket.
        ticket: Ticket,
        /// Why.
        error: Arc<LoginError>,
    },
    /// Somebody waits: hand over what idles with you.
    Yield(Arc<Pool>),
    /// See whether servers should be opened.
    Grow(Arc<Pool>),
    /// A limit is full: close one of the servers that idle with you and count for it; if there is
    /// none, pass it on to as many other workers.
    Spare {
        /// The limit.
        limit: Arc<Limit>,
        /// The pool that needs room under it.
        asker: Arc<Pool>,
        /// Workers that are still to be asked, this one included.
        workers: usize,
    },
}

/// Where a worker takes errands.
pub type Courier = UnboundedSender<Errand>;

/// What all pools share.
#[derive(Debug)]
pub struct Commons {
    /// Equal things as one pointer.
    pub interners: Interners,
    /// One for each worker.
    pub couriers: Vec<Courier>,
    /// Where that is run which no worker waits for; none: nothing is.
    pub beside: Option<tokio::runtime::Handle>,
}

/// A counter that has a cache line to itself.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Alone<T>(T);

/// The servers of one database and user; see the module.
///
/// Servers that were started with parameters of a client's own serve only clients with the same. They
/// are a pool to themselves, a branch of that which has the database's and user's name alone: both
/// share its size and its counters.
#[derive(Debug)]
pub struct Pool {
    /// Its name.
    pub key: PoolKey,
    /// Unique in the process.
    pub id: u64,
    commons: Arc<Commons>,
    plan: Mutex<Arc<Plan>>,
    /// Copy of the plan's `pool_size` that is read without its lock.
    size: AtomicUsize,
    /// Raised when the plan is replaced: servers of an older generation are closed between two
    /// transactions if how to open them has changed.
    generation: AtomicU32,
    /// Raised when anything about the plan changes, so that sessions look again.
    version: AtomicU32,
    state: Mutex<State>,
    /// Copy of [`State::waiting`] that is read without the lock.
    waiting: Alone<AtomicUsize>,
    /// Servers that idle on each worker.
    idle: Box<[Alone<AtomicUsize>]>,
    /// Clients that live on each worker.
    clients: Box<[Alone<AtomicUsize>]>,
    counters: Arc<[PoolCounters]>,
    /// That which this is a branch of.
    trunk: Option<Arc<Pool>>,
    /// Of a replica's pool, the number of the primary's: its clients live where those of that do.
    home: Option<u64>,
    /// Of each worker, in microseconds after `born`: the longest transaction that has a server now.
    /// `u64::MAX`: none has.
    oldest_checkout: Box<[AtomicU64]>,
    holders: holder::Holders,
    born: Instant,
    welcome: Mutex<Option<Arc<Welcome>>>,
    welcome_changed: Notify,
    /// Settings that clients asked for at login, and what they are in the server's own words.
    known_settings: Mutex<KnownSettings>,
    /// Of the names of functions that change a session.
    reading: Mutex<vigilance::Reading>,
    /// The connection that listens for its clients.
    listener: listen::Listener,
    /// It is no longer in the configuration.
    retired: AtomicBool,
    /// When it was last seen with a client or a server.
    last_used: Mutex<Instant>,
}

/// What clients asked for, and what servers made of it.
type KnownSettings = HashMap<Vec<(String, String)>, Arc<Settings>>;

/// Sets of startup settings that a pool remembers; beyond that it begins anew.
const KNOWN_SETTINGS_MAX: usize = 1000;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Servers of a pool for each worker that its clients live on. Fewer workers mean that a server
/// which becomes free is more likely where the oldest waiter is; more mean more cores.
const SERVERS_PER_WORKER: usize = 16;

impl Pool {
    /// A pool without servers.
    #[must_use]
    pub fn new(
        key: PoolKey,
        plan: Plan,
        commons: Arc<Commons>,
        trunk: Option<Arc<Self>>,
        home: Option<u64>,
    ) -> Arc<Self> {
        fn row<T: Default>(workers: usize) -> Box<[T]> {
            (0..workers).map(|_| T::default()).collect()
        }
        let workers = commons.couriers.len();
        let counters = match &trunk {
            Some(trunk) => Arc::clone(&trunk.counters),
            None => row(workers).into(),
        };
        Arc::new(Self {
            key,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            commons,
            size: AtomicUsize::new(plan.settings.pool_size),
            plan: Mutex::new(Arc::new(plan)),
            generation: AtomicU32::new(0),
            version: AtomicU32::new(0),
            state: Mutex::default(),
            waiting: Alone::default(),
            idle: row(workers),
            clients: row(workers),
            counters,
            trunk,
            home,
            oldest_checkout: (0..workers).map(|_| AtomicU64::new(u64::MAX)).collect(),
            holders: holder::Holders::new(workers),
            born: Instant::now(),
            welcome: Mutex::default(),
            welcome_changed: Notify::new(),
            known_settings: Mutex::default(),
            reading: Mutex::default(),
            listener: listen::Listener::default(),
            retired: AtomicBool::new(false),
            last_used: Mutex::new(Instant::now()),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the pool is made of now.
    #[must_use]
    pub fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes with each change of the plan.
    #[inline]
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version.load(Ordering::Relaxed)
    }

    /// Replaces the plan. With `renew`, servers opened by the old one are closed as they come back.
    pub fn replace_plan(&self, plan: Plan, renew: bool) {
        self.size.store(plan.settings.pool_size, Ordering::Relaxed);
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(plan);
        if renew {
            self.renew();
        }
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Has every server closed that is open now, between two transactions.
    pub fn renew(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// From now on nobody gets a server; each is closed as it comes back. In one step, so that none
    /// that could still be handed out is left behind.
    pub fn pause(&self) {
        let mut state = self.state();
        if state.pause() {
            self.renew();
        }
    }

    /// Serves again.
    pub fn resume(self: &Arc<Self>) {
        if self.state().resume(Instant::now()) {
            self.ask_to_grow();
        }
    }

    /// Whether nobody gets a server.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.state().is_paused()
    }

    /// It is no longer in the configuration: clients leave it at the end of their transactions.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.renew();
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Whether it is no longer in the configuration.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// What servers made of these startup settings earlier.
    #[must_use]
    pub fn known_settings(&self, asked: &[(String, String)]) -> Option<Arc<Settings>> {
        let known = self.known_settings.lock();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        known.get(asked).cloned()
    }

    /// Remembers what a server made of these startup settings.
    pub fn keep_settings(&self, asked: Vec<(String, String)>, settings: Arc<Settings>) {
        let known = self.known_settings.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_SETTINGS_MAX {
            known.clear();
        }
        known.insert(asked, settings);
    }

    fn bounds(&self) -> Bounds {
        let settings = &self.plan().settings;
        Bounds {
            size: settings.pool_size,
            min: if self.is_retired() || self.trunk.is_some() || self.home.is_some() {
                0
            } else {
                settings.min_pool_size
            },
            reserve: settings.reserve_pool_size,
            reserve_after: settings.reserve_pool_timeout,
            retry_first: settings.server_login_retry,
        }
    }

    /// The pool of the same database and user whose servers have no startup parameters, if this
    /// one's have.
    #[must_use]
    pub fn trunk(&self) -> Option<&Arc<Self>> {
        self.trunk.as_ref()
    }

    /// Of a replica's pool: it logs in with what clients have shown at logins to `home` since.
    pub fn learn_from(&self, home: &Self) {
        let theirs = &home.plan().recipe.credentials;
        self.plan().recipe.credentials.inherit(theirs);
    }

    /// Of a replica's pool, the number of the primary's.
    #[must_use]
    pub fn home_id(&self) -> Option<u64> {
        self.home
    }

    /// The counters of `worker`: only that worker writes them.
    #[must_use]
    pub fn counters(&self, worker: usize) -> &PoolCounters {
        &self.counters[worker]
    }

    /// The counters of all workers.
    #[must_use]
    pub fn all_counters(&self) -> &[PoolCounters] {
        &self.counters
    }

    /// The worker on which a client that logs in on `here` is to live: one of the few that this
    /// pool's clients live on, the least busy of them.
    #[must_use]
    pub fn home(&self, here: usize) -> usize {
        let workers = self.clients.len();
        let wanted = self.plan().settings.pool_size.div_ceil(SERVERS_PER_WORKER);
        let span = wanted.clamp(1, workers);
        let id = self.home.unwrap_or(self.id);
        let first = usize::try_from(id).unwrap_or(0) % workers;
        let load = |w: usize| self.clients[w].0.load(Ordering::Relaxed);
        let members = (0..span).map(|n| (first + n) % workers);
        // Among equals the one where the client is already.
        members
            .min_by_key(|&w| (load(w), w != here))
            .unwrap_or(here)
    }

    /// Counts a client of `worker` until the guard is dropped.
    #[must_use]
    pub fn seat(self: &Arc<Self>, worker: usize) -> Seated {
        self.clients[worker].0.fetch_add(1, Ordering::Relaxed);
        Seated {
            pool: Arc::clone(self),
            worker,
        }
    }

    /// Whether a waiter that has waited for `waited` should give up: nothing has answered for
    /// longer than a login may take, and no server is left that could be waited for.
    #[must_use]
    pub fn hopeless(&self, waited: Duration, now: Instant) -> Option<Arc<LoginError>> {
        let patience = self.plan().settings.server_connect_timeout;
        let state = self.state();
        let failing = state
            .failing_since()
            .is_some_and(|since| now - since >= patience);
        let nobody = state.servers() == state.connecting();
        let failure = (waited >= patience && failing && nobody)
            .then(|| state.current_failure(now).cloned())
            .flatten();
        drop(state);
        // While there is no primary nothing is tried, and what was tried before says nothing.
        failure.filter(|_| self.plan().recipe.locate.trouble().is_none())
    }

    /// Since when the client waits that has waited longest.
    fn oldest_since(&self) -> Option<Instant> {
        self.state().oldest_since()
    }

    /// Since when that client waits for which it would open a server now if its limits let it.
    fn wants_since(&self, now: Instant) -> Option<Instant> {
        let bounds = self.bounds();
        let state = self.state();
        let due = state.connects_due(&bounds, now) > 0;
        due.then(|| state.unserved_since()).flatten()
    }

    fn has_waiters(&self) -> bool {
        self.waiting.0.load(Ordering::SeqCst) > 0
    }

    /// Says that clients wait for it, where that gives it a turn.
    pub fn line_up(self: &Arc<Self>) {
        for limit in &self.plan().limits {
            limit.line_up(self);
        }
    }

    /// Why no server can be opened now.
    #[must_use]
    pub fn failing(&self, now: Instant) -> Option<Arc<LoginError>> {
        self.state().current_failure(now).cloned()
    }

    /// Its host is another now, or is back: what failed before says nothing any more.
    pub fn try_again(self: &Arc<Self>) {
        self.state().forget_failures();
        self.ask_to_grow();
    }

    /// Has a worker of this pool see whether servers should be opened.
    pub fn ask_to_grow(self: &Arc<Self>) {
        let worker = self.home(0);
        self.send(worker, Errand::Grow(Arc::clone(self)));
    }

    fn send(&self, worker: usize, errand: Errand) {
        // A worker that has stopped takes no errands; what they carried closes.
        let _stopped = self.commons.couriers[worker].send(errand);
    }

    /// Whether servers are to be opened without another event.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let bounds = self.bounds();
        self.state().is_wanted(&bounds)
    }

    /// Whether nobody has used it for `unused` or longer: it can be forgotten.
    #[must_use]
    pub fn is_forgettable(&self, now: Instant, unused: Duration) -> bool {
        let numbers = self.numbers();
        let mut last_used = self
            .last_used
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if numbers.clients > 0 || numbers.servers > 0 || self.is_wanted() {
            *last_used = now;
        }
        now - *last_used >= unused
    }
}

/// A client counted on a worker.
#[derive(Debug)]
pub struct Seated {
    pool: Arc<Pool>,
    worker: usize,
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.pool.clients[self.worker]
            .0
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// Permits of the limits that a server counts for, given back together.
#[derive(Debug, Default)]
pub struct Permits(Vec<Permit>);
