//! Prepared statements that outlive a server: the client's names, the server's holdings, and the
//! journal that takes back what an error undid.
//!
//! A client's named statement is a [`Statement`]: its text under an id of the pooler's. Every
//! server that is asked to use it holds it under [`Statement::write_server_name`], prepared when
//! first needed. The unnamed statement keeps its empty name on both sides, and is prepared again
//! when the client meets a server that holds another one.
//!
//! Invariant: a name in [`ClientStatements`] or an id in [`ServerStatements`] stands for a Parse
//! that the server confirmed, or for one that is on its way there and has an entry in the
//! [`Journal`]. Nothing that an error skipped stays behind (traps 3, 21).

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::frame::split_cstr;
use crate::route::{Hints, PACKED_BITS, Summary, pack, unpack};
use crate::statement::{Marks, scan};

mod journal;

pub use journal::Journal;

/// What every name under which a server holds a client's statement begins with.
pub const SERVER_NAME_PREFIX: &str = "_p";

/// A name that no server holds: those that they do are the prefix and a number.
pub const NO_STATEMENT: &[u8] = b"_p?";

/// One text with its parameter types, as a Parse carries them.
#[derive(Debug)]
pub struct Statement {
    id: u64,
    text: Box<[u8]>,
    marks: Marks,
    /// Version of the names that were looked for, twice, and one more if one was found.
    hidden: AtomicU64,
    /// What routing needs to know of it, below the version of what that is of.
    routed: AtomicU64,
    budget: Arc<AtomicUsize>,
    /// Where a server has accepted it last; 0 is nowhere.
    accepted_by: AtomicU64,
}

impl Statement {
    /// The pooler's number for it, unique in the process.
    #[inline]
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Query, NUL and parameter types: the body of a Parse behind the name.
    #[inline]
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// What its query makes one suspect whoever runs it.
    #[inline]
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// What hides behind the names in its query; `look` is asked once for each `version` of the names.
    #[inline]
    #[must_use]
    pub fn hidden(&self, version: u64, look: impl FnOnce(&[u8]) -> Marks) -> Marks {
        let known = self.hidden.load(Ordering::Relaxed);
        let found = if known >> 1 == version {
            known & 1 == 1
        } else {
            let found = !look(self.query()).is_empty();
            let known = version << 1 | u64::from(found);
            self.hidden.store(known, Ordering::Relaxed);
            found
        };
        if found {
            Marks::ALL | Marks::DRAWS
        } else {
            Marks::NONE
        }
    }

    /// What routing needs to know of it; `look` is asked once for each `version` of the catalogue.
    #[inline]
    pub fn routed(
        &self,
        version: u64,
        look: impl FnOnce(&[u8]) -> (Summary, Hints),
    ) -> (Summary, Hints) {
        let known = self.routed.load(Ordering::Relaxed);
        if known >> PACKED_BITS == version {
            return unpack(known & ((1 << PACKED_BITS) - 1));
        }
        let (summary, hints) = look(self.query());
        let known = version << PACKED_BITS | pack(summary, hints);
        self.routed.store(known, Ordering::Relaxed);
        (summary, hints)
    }

    /// Its query, without the NUL and the parameter types.
    #[must_use]
    pub fn query(&self) -> &[u8] {
        split_cstr(&self.text).map_or(&self.text, |(query, _)| query)
    }

    /// Notes that a server of the pool of this number has accepted it.
    #[inline]
    pub fn note_accepted(&self, pool: u64) {
        if !self.is_accepted_by(pool) {
            self.accepted_by.store(pool, Ordering::Relaxed);
        }
    }

    /// Whether a server of the pool of this number has accepted it, as far as is remembered.
    #[inline]
    #[must_use]
    pub fn is_accepted_by(&self, pool: u64) -> bool {
        self.accepted_by.load(Ordering::Relaxed) == pool
    }

    /// Appends the name under which servers hold it.
    #[inline]
    pub fn write_server_name(&self, out: &mut Vec<u8>) {
        write_server_name(self.id, out);
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        self.budget.fetch_sub(cost(&self.text), Ordering::Relaxed);
    }
}

/// Appends the name under which servers hold the statement of this id.
#[inline]
pub fn write_server_name(id: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(SERVER_NAME_PREFIX.as_bytes());
    write!(out, "{id}").expect("BUG: writing to memory failed");
}

/// Bytes that a statement counts for: its text and what keeps it.
fn cost(text: &[u8]) -> usize {
    text.len() + 128
}

/// Texts above the bound of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("prepared statements take more than {limit} bytes")]
pub struct OutOfBudget {
    /// The bound, in bytes.
    pub limit: usize,
}

/// Every statement that somebody still refers to, each text once.
#[derive(Debug)]
pub struct Interner {
    known: HashSet<ByText>,
    sweep_at: usize,
    next_id: AtomicU64,
    used: Arc<AtomicUsize>,
    limit: usize,
}

#[derive(Debug)]
struct ByText(Arc<Statement>);

impl Borrow<[u8]> for ByText {
    fn borrow(&self) -> &[u8] {
        self.0.text()
    }
}
impl Hash for ByText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text().hash(state);
    }
}
impl PartialEq for ByText {
    fn eq(&self, other: &Self) -> bool {
        self.0.text() == other.0.text()
    }
}
impl Eq for ByText {}

impl Interner {
    /// An empty one that keeps at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            known: HashSet::new(),
            sweep_at: 64,
            next_id: AtomicU64::new(1),
            used: Arc::new(AtomicUsize::new(0)),
            limit,
        }
    }

    /// The statement of this text (see [`Statement::text`]): texts are compared, not hashes.
    ///
    /// # Errors
    /// [`OutOfBudget`] if the text is new and no room is left for it.
    pub fn intern(&mut self, text: &[u8]) -> Result<Arc<Statement>, OutOfBudget> {
        if let Some(ByText(statement)) = self.known.get(text) {
            return Ok(Arc::clone(statement));
        }
        if self.known.len() >= self.sweep_at || self.is_full_with(text) {
            self.sweep();
        }
        if self.is_full_with(text) {
            return Err(OutOfBudget { limit: self.limit });
        }
        self.used.fetch_add(cost(text), Ordering::Relaxed);
        let query = split_cstr(text).map_or(text, |(query, _)| query);
        let statement = Arc::new(Statement {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            marks: scan(query),
            hidden: AtomicU64::new(0),
            routed: AtomicU64::new(0),
            text: text.into(),
            budget: Arc::clone(&self.used),
            accepted_by: AtomicU64::new(0),
        });
        self.known.insert(ByText(Arc::clone(&statement)));
        Ok(statement)
    }

    /// The statement of this text, if somebody refers to one.
    #[must_use]
    pub fn find(&self, text: &[u8]) -> Option<Arc<Statement>> {
        self.known.get(text).map(|ByText(s)| Arc::clone(s))
    }

    /// Changes the bound; what is over it stays until it is given up.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Statements known and the bytes that they take.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        (self.known.len(), self.used.load(Ordering::Relaxed))
    }

    fn is_full_with(&self, text: &[u8]) -> bool {
        self.used.load(Ordering::Relaxed) + cost(text) > self.limit
    }

    /// Forgets what nobody refers to. Runs when the number known has doubled, so its cost a
    /// statement is constant.
    fn sweep(&mut self) {
        self.known.retain(|ByText(s)| Arc::strong_count(s) > 1);
        self.sweep_at = (self.known.len() * 2).max(64);
    }
}

/// The statements that a client has prepared, by its own names.
#[derive(Debug, Default)]
pub struct ClientStatements {
    named: HashMap<Box<[u8]>, Arc<Statement>>,
    unnamed: Option<Arc<Statement>>,
}

impl ClientStatements {
    /// The statement of this name; the unnamed one for an empty name.
    #[inline]
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        if name.is_empty() {
            self.unnamed.as_ref()
        } else {
            self.named.get(name)
        }
    }

    /// Gives `name` to a statement that needs no server's word: one has accepted it already.
    pub fn adopt(&mut self, name: &[u8], statement: Arc<Statement>) {
        self.named.insert(name.into(), statement);
    }

    /// Forgets the one of this name, of which the server need not know (DEALLOCATE by SQL).
    pub fn remove(&mut self, name: &[u8]) {
        self.named.remove(name);
    }

    /// Whether there is no statement at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.unnamed.is_none()
    }

    /// Number of named statements.
    #[must_use]
    pub fn named_len(&self) -> usize {
        self.named.len()
    }

    /// Forgets the named ones (DEALLOCATE ALL, DISCARD ALL).
    pub fn clear_named(&mut self) {
        self.named = HashMap::new();
    }

    /// The name under which the client has the statement of this id. Looks at all: for errors.
    #[must_use]
    pub fn name_of(&self, id: u64) -> Option<&[u8]> {
        let mut named = self.named.iter();
        named.find(|(_, s)| s.id() == id).map(|(name, _)| &**name)
    }

    /// The unnamed statement.
    #[inline]
    #[must_use]
    pub fn unnamed(&self) -> Option<&Arc<Statement>> {
        self.unnamed.as_ref()
    }
}

/// What a server's unnamed statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unnamed {
    /// There is none.
    #[default]
    None,
    /// The statement of this id.
    Is(u64),
    /// The client of this checkout put one there that is too long to keep a copy of: it can use it
    /// while it has this server, and nobody can afterwards.
    Untracked,
    /// An error left it open: it must be replaced or closed before anybody uses it.
    Unknown,
}

impl Unnamed {
    fn of(statement: Option<&Arc<Statement>>) -> Self {
        statement.map_or(Self::None, |s| Self::Is(s.id()))
    }
}

/// The statements that a server connection holds under the pooler's names.
#[derive(Debug, Default)]
pub struct ServerStatements {
    /// Id to the time of its last use, counted in uses.
    held: HashMap<u64, u64>,
    clock: u64,
    /// What its unnamed statement is.
    pub unnamed: Unnamed,
}

impl ServerStatements {
    /// Whether the statement is held; counts as a use.
    #[inline]
    pub fn touch(&mut self, id: u64) -> bool {
        self.clock += 1;
        match self.held.get_mut(&id) {
            Some(used) => {
                *used = self.clock;
                true
            }
            None => false,
        }
    }

    /// The statement that must go before another fits under `limit`, if one must. The one used
    /// longest ago goes.
    #[must_use]
    pub fn evictable(&self, limit: usize) -> Option<u64> {
        if self.held.len() < limit.max(1) {
            return None;
        }
        self.held
            .iter()
            .min_by_key(|(_, used)| **used)
            .map(|(id, _)| *id)
    }

    /// Statements held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Forgets everything (the server ran DISCARD ALL or DEALLOCATE ALL).
    pub fn clear(&mut self) {
        self.held.clear();
        self.unnamed = Unnamed::Unknown;
    }

    fn insert(&mut self, id: u64) {
        self.clock += 1;
        self.held.insert(id, self.clock);
    }
}

#[cfg(test)]
#[path = "prepared_tests.rs"]
mod tests;
