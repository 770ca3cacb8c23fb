//! A connection to PostgreSQL that is logged in.
//!
//! [`login::login`] is the only way to get a [`Server`]. What it owes is in its ledger, what it
//! holds in its statements, what its session is set to in its settings; the relay keeps all three
//! true while a client uses it. Nothing here knows of pools.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pooler_protocol::frame::up_to_nul;
use pooler_protocol::frontend;
use pooler_protocol::ledger::{Deal, Ledger, Request, Reusable, Sent};
use pooler_protocol::prepared::{
    Interner, Journal, OutOfBudget, ServerStatements, Statement, Unnamed,
};
use pooler_protocol::route;
use pooler_protocol::settings::{Settings, SettingsInterner};
use pooler_protocol::statement::{Marks, vacated_database};
use tokio::sync::Notify;

use crate::buffer::{Carry, Outbox};
use crate::net::{Address, DetachedStream, Liveness, Stream};
use crate::observe::Watch;
use crate::tls::Connector;

mod absorb;
mod birth;
pub mod catalogue;
mod credentials;
pub mod listening;
pub mod login;
mod running;
mod suspects;
mod vacating;
mod welcome;

pub use running::{Running, Sent as RunningText};
use suspects::Suspects;
use vacating::Vacating;
pub use welcome::Welcome;

/// The text of a Parse, behind the name, without the caller's trace in its comments.
fn without_caller(text: &[u8]) -> Cow<'_, [u8]> {
    let query = up_to_nul(text);
    match route::without_caller(query) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(without) => Cow::Owned([&without[..], &text[query.len()..]].concat()),
    }
}

/// What several workers share so that equal things are one pointer. Locked when a client prepares
/// a new text or changes a setting, never by a transaction that does neither.
#[derive(Debug)]
pub struct Interners {
    settings: Mutex<SettingsInterner>,
    statements: Mutex<Interner>,
    custom: Mutex<Arc<Vec<Box<str>>>>,
    suspects: Suspects,
    vacating: Vacating,
}

/// Names of applications' own settings that are remembered; a program that makes up new ones without
/// end must not fill the memory, nor the questions.
const CUSTOM_SETTINGS_MAX: usize = 256;

impl Interners {
    /// `statement_bytes` bounds the texts of prepared statements.
    #[must_use]
    pub fn new(statement_bytes: usize) -> Self {
        Self {
            settings: Mutex::default(),
            statements: Mutex::new(Interner::new(statement_bytes)),
            custom: Mutex::default(),
            suspects: Suspects::default(),
            vacating: Vacating::default(),
        }
    }

    /// The one copy of `settings`.
    #[must_use]
    pub fn settings(&self, settings: Settings) -> Arc<Settings> {
        let mut interner = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        interner.intern(settings)
    }

    /// The set in which nothing is set.
    #[must_use]
    pub fn no_settings(&self) -> Arc<Settings> {
        let interner = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        interner.empty()
    }

    /// The one statement of this text.
    ///
    /// # Errors
    /// [`OutOfBudget`] if it is new and there is no room.
    pub fn statement(&self, text: &[u8]) -> Result<Arc<Statement>, OutOfBudget> {
        // Texts that differ in the caller's trace alone are one statement: a trace changes with every call.
        let text = &*without_caller(text);
        let mut interner = self
            .statements
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        interner.intern(text)
    }

    /// The statement of this text, if somebody refers to one.
    #[must_use]
    pub fn known_statement(&self, text: &[u8]) -> Option<Arc<Statement>> {
        let text = &*without_caller(text);
        let interner = self
            .statements
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        interner.find(text)
    }

    /// Remembers the name of a setting of an application's own: the server does not list these, so
    /// whoever asks what a session has set must ask for each by its name. False if there are too
    /// many.
    #[must_use]
    pub fn note_custom_setting(&self, name: &str) -> bool {
        let mut custom = self.custom.lock().unwrap_or_else(PoisonError::into_inner);
        if custom.iter().any(|n| n.eq_ignore_ascii_case(name)) {
            return true;
        }
        if custom.len() >= CUSTOM_SETTINGS_MAX {
            return false;
        }
        Arc::make_mut(&mut custom).push(name.into());
        true
    }

    /// Statements known, and the bytes that their texts take.
    #[must_use]
    pub fn statement_usage(&self) -> (usize, usize) {
        let interner = self.statements.lock();
        interner.unwrap_or_else(PoisonError::into_inner).usage()
    }

    /// The names remembered.
    #[must_use]
    pub fn custom_settings(&self) -> Arc<Vec<Box<str>>> {
        let custom = self.custom.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&custom)
    }

    /// What hides behind the names in `text`.
    #[inline]
    #[must_use]
    pub fn hidden(&self, text: &[u8]) -> Marks {
        self.suspects.scan(text)
    }

    /// As [`Interners::hidden`], of a statement that is used again and again.
    #[inline]
    #[must_use]
    pub fn hidden_in(&self, statement: &Statement) -> Marks {
        let version = self.suspects.version();
        if version == 0 {
            return Marks::NONE;
        }
        statement.hidden(version, |text| self.suspects.scan(text))
    }

    /// The names of a pool's database that are suspect.
    pub fn set_suspect_names(&self, pool: u64, names: Vec<Box<[u8]>>) {
        self.suspects.set(pool, names);
    }

    /// A function, a trigger or a view was defined anew.
    pub fn note_definition(&self) {
        self.suspects.definitions.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    #[must_use]
    pub fn definitions(&self) -> u64 {
        self.suspects.definitions.load(Ordering::Relaxed)
    }

    /// A text that may want a database for itself is on its way to a server.
    #[cold]
    pub fn note_vacated(&self, text: &[u8]) {
        if let Some(database) = vacated_database(text) {
            self.vacating.note(database);
        }
    }

    /// Databases whose idle servers are to be closed now.
    #[must_use]
    pub fn take_vacated(&self, now: Instant) -> Vec<Box<[u8]>> {
        self.vacating.take_due(now)
    }

    /// Changes the bound on texts, in bytes.
    pub fn set_statement_bytes(&self, bytes: usize) {
        let mut interner = self
            .statements
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        interner.set_limit(bytes);
    }
}

/// Where a server is and how to cancel what it runs.
#[derive(Debug)]
pub struct Identity {
    /// Unique in the process.
    pub id: u64,
    /// For logs and errors: host and port.
    pub host: String,
    /// Where it listens.
    pub address: Address,
    /// How the connection was encrypted, if it is: cancel requests go the same way (trap 19).
    pub tls: Option<Arc<Connector>>,
    /// For the sockets of cancel requests.
    pub liveness: Liveness,
    /// Process id of the backend; 0 if it sent no BackendKeyData.
    pub process_id: i32,
    /// What a cancel request must show; empty if it sent no BackendKeyData.
    pub cancel_key: Box<[u8]>,
}

/// Cancel requests that are on their way to a server. While there is one, the server is handed to
/// nobody: the cancel would hit the next query, whosever it is (trap 13).
#[derive(Debug, Default)]
pub struct CancelFlight {
    flying: AtomicU32,
    lost: AtomicBool,
    landed: Notify,
}

impl CancelFlight {
    /// Notes one more; it has landed when the guard is dropped. `None` if one is on its way
    /// already: a second would do nothing that the first does not (trap 15).
    #[must_use]
    pub fn take_off(self: &Arc<Self>) -> Option<Flying> {
        let first = self
            .flying
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        first.then(|| Flying(Arc::clone(self)))
    }

    /// Whether one is on its way.
    #[inline]
    #[must_use]
    pub fn is_flying(&self) -> bool {
        self.flying.load(Ordering::Acquire) > 0
    }

    /// Whether one was given up that may still land: the server must not be handed on.
    #[inline]
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Waits until none is. Dropped midway, nothing is lost.
    pub async fn wait(&self) {
        loop {
            let landed = self.landed.notified();
            tokio::pin!(landed);
            landed.as_mut().enable();
            if !self.is_flying() {
                return;
            }
            landed.await;
        }
    }
}

/// A cancel request on its way.
#[derive(Debug)]
pub struct Flying(Arc<CancelFlight>);

impl Flying {
    /// Nobody knows whether it will land.
    pub fn lose(self) {
        self.0.lost.store(true, Ordering::Release);
    }
}

impl Drop for Flying {
    fn drop(&mut self) {
        self.0.flying.store(0, Ordering::Release);
        self.0.landed.notify_waiters();
    }
}

/// The rest of a message whose header was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Bytes that are still to come.
    pub rest: usize,
    /// Who gets them.
    pub deal: Deal,
}

impl Pass {
    /// Between two messages.
    pub const NONE: Self = Self {
        rest: 0,
        deal: Deal::Skip,
    };
}

/// What was sent last, kept so that it can be sent once more (trap 26). Only a batch that began
/// outside a transaction, ends with its only Sync, and has had no reply yet may be repeated.
#[derive(Debug, Default)]
pub struct Replay {
    /// The client's own bytes; empty if they are not to be repeated.
    pub batch: Vec<u8>,
    /// The batch failed and is to be sent again when the server is ready.
    pub due: bool,
    /// The batch now running is a repetition; it is not repeated again.
    pub running: bool,
}

/// A connection to PostgreSQL that is logged in.
#[derive(Debug)]
pub struct Server<S = Stream> {
    /// The socket.
    pub stream: S,
    /// What it owes.
    pub ledger: Ledger,
    /// Changes to statements that it has not confirmed.
    pub journal: Journal,
    /// Statements that it holds.
    pub statements: ServerStatements,
    /// What its session is set to, beyond what it was born with.
    pub settings: Arc<Settings>,
    /// What it said of itself when it let the pooler in.
    pub welcome: Arc<Welcome>,
    /// Received, undecided.
    pub carry: Carry,
    /// The rest of the message that is coming in.
    pub pass: Pass,
    /// Decided, unsent.
    pub outbox: Outbox,
    /// The batch that may have to be sent again.
    pub replay: Replay,
    /// A client changed something that the next client must not find.
    pub dirty: bool,
    /// A client may have changed something, and the server has not been asked yet what.
    pub suspect: bool,
    /// Something was defined in the transaction that runs.
    pub defined: bool,
    /// The last message that it was sent is not whole.
    pub cut: bool,
    /// It said why it is closing the connection.
    pub said_goodbye: bool,
    /// Where it is.
    pub identity: Arc<Identity>,
    /// Cancel requests on their way to it.
    pub cancels: Arc<CancelFlight>,
    /// When its login began.
    pub conceived: Instant,
    /// When it was logged in.
    pub born: Instant,
    /// The beginning of what it was sent last by a client.
    pub running: Running,
    /// What it does, for those who want to know what was slow.
    pub watch: Watch,
    /// A client has had it.
    pub used: bool,
    /// What its login depended on beyond its parameters, if it was asked and could say.
    pub born_as: Option<Box<[u8]>>,
}

impl Server<Stream> {
    /// Proof that it can serve another client, if it can: nothing owed, nothing unread, nothing
    /// unsent, no cancel on its way. What was left behind by the last client ([`Server::dirty`])
    /// must be cleaned apart from this.
    #[inline]
    #[must_use]
    pub fn reusable(&self) -> Option<Reusable> {
        let quiet = self.carry.is_empty() && self.pass.rest == 0;
        self.ledger
            .reusable()
            .filter(|_| quiet && !self.stream.holds_unread())
            .filter(|_| !self.said_goodbye && !self.cancels.is_flying())
            // Last: it may have to send what is collected.
            .filter(|_| self.outbox.has_sent_all(&self.stream))
    }

    /// Brings it to the settings of a client: the question goes in front of the client's own
    /// message in the same write, and its answer to nobody.
    #[inline]
    pub fn adopt_settings(&mut self, settings: &Arc<Settings>, out: &mut Vec<u8>) {
        if Arc::ptr_eq(&self.settings, settings) {
            return;
        }
        if let Some(sql) = self.settings.query_to(settings) {
            self.put_own_query(&sql, out);
        }
        self.settings = Arc::clone(settings);
    }

    /// Writes a simple Query of the pooler's own, whose answer goes to nobody. Like any other it ends
    /// the unnamed statement.
    pub fn put_own_query(&mut self, sql: &str, out: &mut Vec<u8>) {
        frontend::write_query(out, sql);
        let sent = self.ledger.request(Request::Query, Deal::Skip, 0);
        debug_assert_eq!(sent, Sent::Entered);
        self.statements.unnamed = Unnamed::None;
    }

    /// Whether it must be cleaned before another client uses it.
    #[inline]
    #[must_use]
    pub fn needs_cleaning(&self) -> bool {
        self.dirty || self.suspect
    }

    /// Forgets what only the client of this checkout could use.
    #[inline]
    pub fn end_checkout(&mut self) {
        self.used = true;
        if self.statements.unnamed == Unnamed::Untracked {
            self.statements.unnamed = Unnamed::Unknown;
        }
    }

    /// Leaves the event loop of this thread, to go to another.
    ///
    /// # Errors
    /// What the system says; the connection is closed then.
    pub fn detach(self) -> std::io::Result<Server<DetachedStream>> {
        self.map_stream(Stream::detach)
    }

    /// Says goodbye, so that PostgreSQL does not have to log a lost connection. It waits for
    /// nothing. In the middle of a message it would be taken for the rest of that message.
    pub fn terminate(&mut self) {
        if !self.cut && self.outbox.has_sent_all(&self.stream) {
            let mut bytes = Vec::with_capacity(5);
            frontend::write_terminate(&mut bytes);
            // If it does not take five bytes, the close tells it as well.
            let _taken = self.stream.try_write(&bytes);
        }
    }
}

impl Server<DetachedStream> {
    /// Enters the event loop of this thread.
    ///
    /// # Errors
    /// What the system says; the connection is closed then.
    pub fn attach(self) -> std::io::Result<Server<Stream>> {
        self.map_stream(DetachedStream::attach)
    }
}

impl<S> Server<S> {
    fn map_stream<T>(
        self,
        map: impl FnOnce(S) -> std::io::Result<T>,
    ) -> std::io::Result<Server<T>> {
        Ok(Server {
            stream: map(self.stream)?,
            ledger: self.ledger,
            journal: self.journal,
            statements: self.statements,
            settings: self.settings,
            welcome: self.welcome,
            carry: self.carry,
            pass: self.pass,
            outbox: self.outbox,
            replay: self.replay,
            dirty: self.dirty,
            suspect: self.suspect,
            defined: self.defined,
            cut: self.cut,
            said_goodbye: self.said_goodbye,
            identity: self.identity,
            cancels: self.cancels,
            conceived: self.conceived,
            born: self.born,
            running: self.running,
            watch: self.watch,
            used: self.used,
            born_as: self.born_as,
        })
    }
}
