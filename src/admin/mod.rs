//! The console: the databases `pooler` and `pgbouncer`, in which operators look and take hold.
//!
//! One row a command (`command`), one row a column (`show/`). Commands, columns, their order and
//! their types are PgBouncer's where PgBouncer has them, so that what was made for it works here;
//! our own columns stand behind its own. A console session never uses a server connection and
//! counts for no limit of the clients'.
//!
//! What sessions know of themselves stays with them: a worker is asked by an [`Errand`], and each
//! session answers between two of its own steps. So nothing is kept for the console on the path of
//! a transaction, and no lock is taken there.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::config::{CONSOLE, Config};
use crate::error::Refusal;
use crate::pool::limit::Limit;
use crate::registry::Registry;
use crate::shutdown::Ask;
use crate::timer;

mod act;
mod census;
mod command;
mod hold;
mod holders;
mod portal;
mod serve;
mod sheet;
mod show;
mod stats;
mod status;
mod visits;
mod words;

pub use census::{Census, ClientLine, ServerLine, Standing, View};
pub use serve::{Visitor, serve};
pub use status::Sight;

use stats::Periods;
use visits::Visits;

/// Console sessions at a time: whoever leaves them open must not fill the process.
const VISITORS_MAX: usize = 100;

/// How long a worker may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What a worker is asked to do for the console.
#[derive(Debug)]
pub enum Errand {
    /// Say who is there.
    Look(Scope, oneshot::Sender<View>),
    /// End sessions with this. Answered with how many there were.
    End(Whom, Box<Refusal>, oneshot::Sender<usize>),
    /// Stand still: send what is unsent, and read nothing. Answered when nothing is unsent; dropped if it is to go on sooner.
    StandStill(oneshot::Sender<()>),
    /// End that.
    GoOn,
}

/// Whose sessions are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Nobody's: what all workers share is enough.
    Nobody,
    /// Those that have a server or wait for one.
    Busy,
    /// All.
    Everybody,
}

/// Which sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// The one of this number.
    Client(u64),
    /// Those of this database.
    Database(String),
    /// All.
    Everybody,
}

/// What the process as a whole is asked to do.
#[derive(Debug)]
pub enum Control {
    /// As a signal would.
    Ask(Ask),
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<Reloaded, String>>),
    /// Put this one in force.
    Adopt(Box<Config>, oneshot::Sender<Result<Reloaded, String>>),
}

/// What a reload has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// What is different now, a line each.
    pub changes: Vec<String>,
    /// Keys that changed but need a restart.
    pub restart: Vec<&'static str>,
    /// What the file's reader warns of.
    pub warnings: Vec<String>,
}

/// Gives an errand to the worker of this number.
pub type Tell = Box<dyn Fn(usize, Errand) + Send + Sync>;

/// What console sessions of all workers share.
pub struct Desk {
    /// What is configured, and every pool.
    pub registry: Arc<Registry>,
    control: UnboundedSender<Control>,
    workers: usize,
    tell: Tell,
    places: Arc<Limit>,
    visits: Arc<Visits>,
    periods: Mutex<Periods>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

/// Whether `database` is the console.
#[must_use]
pub fn is_console(database: &str) -> bool {
    CONSOLE.contains(&database)
}

impl Desk {
    /// Of a process with this many workers.
    #[must_use]
    pub fn new(
        registry: Arc<Registry>,
        control: UnboundedSender<Control>,
        workers: usize,
        tell: Tell,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry,
            control,
            workers,
            tell,
            places: Limit::new(Some(VISITORS_MAX)),
            visits: Arc::default(),
            periods: Mutex::new(Periods::new(Instant::now())),
        })
    }

    /// Keeps the averages up to date; to be called at least once a minute.
    pub fn tick(&self, now: Instant) {
        self.periods().tick(&self.registry, now);
    }

    fn periods(&self) -> MutexGuard<'_, Periods> {
        self.periods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every worker.
    fn tell_all(&self, errand: impl Fn() -> Errand) {
        (0..self.workers).for_each(|worker| (self.tell)(worker, errand()));
    }

    /// Asks every worker at once; where their answers will be.
    fn ask_each<T>(
        &self,
        errand: impl Fn(oneshot::Sender<T>) -> Errand,
    ) -> Vec<oneshot::Receiver<T>> {
        let ask = |worker| {
            let (reply, answer) = oneshot::channel();
            (self.tell)(worker, errand(reply));
            answer
        };
        (0..self.workers).map(ask).collect()
    }

    /// Asks every worker at once. Nothing comes from those that do not answer in time, or have stopped.
    async fn ask_all<T>(
        &self,
        within: Duration,
        errand: impl Fn(oneshot::Sender<T>) -> Errand,
    ) -> Vec<Option<T>> {
        let deadline = Instant::now() + within;
        let asked = self.ask_each(errand);
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            // An answer that is there counts, however late the one before it was given up.
            let answer = timer::timeout_at(deadline, answer).await;
            answers.push(answer.ok().and_then(Result::ok));
        }
        answers
    }

    /// Who is there.
    async fn look(&self, scope: Scope) -> View {
        if scope == Scope::Nobody {
            return View::default();
        }
        self.look_within(scope, ANSWER_MAX).await.0
    }

    /// Who is there, as far as workers have answered in time, and the numbers of those that have not.
    async fn look_within(&self, scope: Scope, within: Duration) -> (View, Vec<usize>) {
        let mut view = View::default();
        let mut silent = Vec::new();
        let parts = self.ask_all(within, |reply| Errand::Look(scope, reply));
        for (worker, part) in parts.await.into_iter().enumerate() {
            let Some(part) = part else {
                silent.push(worker);
                continue;
            };
            view.clients.extend(part.clients);
            view.servers.extend(part.servers);
        }
        if scope == Scope::Everybody {
            view.clients.extend(self.visitors());
        }
        view.clients.sort_unstable_by_key(|client| client.id);
        view.servers.sort_unstable_by_key(|server| server.id);
        (view, silent)
    }

    /// Ends sessions; how many there were.
    async fn end(&self, whom: &Whom, refusal: &Refusal) -> usize {
        let end = |reply| Errand::End(whom.clone(), Box::new(refusal.clone()), reply);
        let ended = self.ask_all(ANSWER_MAX, end).await;
        ended.into_iter().flatten().sum()
    }
}
