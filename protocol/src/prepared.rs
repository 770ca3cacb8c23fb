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
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What every name under which a server holds a client's statement begins with.
pub const SERVER_NAME_PREFIX: &str = "_p";

/// One text with its parameter types, as a Parse carries them.
#[derive(Debug)]
pub struct Statement {
    id: u64,
    text: Box<[u8]>,
    budget: Arc<AtomicUsize>,
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
        let statement = Arc::new(Statement {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            text: text.into(),
            budget: Arc::clone(&self.used),
        });
        self.known.insert(ByText(Arc::clone(&statement)));
        Ok(statement)
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

/// A change to the client's names or the server's holdings that is on its way to the server.
#[derive(Debug)]
enum Op {
    /// The server is to hold this one.
    Hold(u64),
    /// The server is to give this one up.
    Release(u64),
    /// The client named this one.
    Name(Box<[u8]>, Arc<Statement>),
    /// The client gave up a name.
    Forget(Box<[u8]>, Arc<Statement>),
    /// The unnamed statement was replaced or dropped; these were the client's and the server's
    /// before.
    Unnamed(Option<Arc<Statement>>, Unnamed),
    /// The pooler put the client's unnamed statement on the server, or took a foreign one away;
    /// this was the server's before.
    Replay(Unnamed),
    /// Of no effect any more.
    Nothing,
}

/// Changes made in the order sent, the oldest first, until the server confirms or refuses them.
/// Each stands with one entry of the ledger, which says when it is kept or voided.
#[derive(Debug, Default)]
pub struct Journal {
    ops: VecDeque<Op>,
}

impl Journal {
    /// Changes that are not confirmed yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether everything is confirmed.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// A Parse that makes the server hold `id` is sent.
    pub fn hold(&mut self, server: &mut ServerStatements, id: u64) {
        server.insert(id);
        self.ops.push_back(Op::Hold(id));
    }

    /// A Close that makes the server give up `id` is sent.
    pub fn release(&mut self, server: &mut ServerStatements, id: u64) {
        server.held.remove(&id);
        self.ops.push_back(Op::Release(id));
    }

    /// The client gives `name` to `statement`.
    pub fn name(&mut self, client: &mut ClientStatements, name: &[u8], statement: Arc<Statement>) {
        client.named.insert(name.into(), Arc::clone(&statement));
        self.ops.push_back(Op::Name(name.into(), statement));
    }

    /// The client gives up `name`; false if it had no such statement (nothing is noted then).
    pub fn forget(&mut self, client: &mut ClientStatements, name: &[u8]) -> bool {
        let Some((name, statement)) = client.named.remove_entry(name) else {
            return false;
        };
        self.ops.push_back(Op::Forget(name, statement));
        true
    }

    /// The client's unnamed statement becomes `statement` on both sides: by a Parse, or `None` by a
    /// Close or a simple Query.
    pub fn replace_unnamed(
        &mut self,
        client: &mut ClientStatements,
        server: &mut ServerStatements,
        statement: Option<Arc<Statement>>,
    ) {
        let now = Unnamed::of(statement.as_ref());
        let server_before = std::mem::replace(&mut server.unnamed, now);
        let before = std::mem::replace(&mut client.unnamed, statement);
        self.ops.push_back(Op::Unnamed(before, server_before));
    }

    /// The client's unnamed statement becomes one whose text is too long to keep.
    pub fn replace_unnamed_untracked(
        &mut self,
        client: &mut ClientStatements,
        server: &mut ServerStatements,
    ) {
        self.replace_unnamed(client, server, None);
        server.unnamed = Unnamed::Untracked;
    }

    /// The pooler brings the server's unnamed statement to what the client's is.
    pub fn replay_unnamed(&mut self, client: &ClientStatements, server: &mut ServerStatements) {
        let now = Unnamed::of(client.unnamed.as_ref());
        let before = std::mem::replace(&mut server.unnamed, now);
        self.ops.push_back(Op::Replay(before));
    }

    /// The server has just said that it holds no named statement any more (DEALLOCATE ALL, DISCARD
    /// ALL). What was sent behind that command comes after it, and still counts.
    pub fn deallocate_all(&mut self, client: &mut ClientStatements, server: &mut ServerStatements) {
        client.clear_named();
        server.held.clear();
        for op in &mut self.ops {
            let still_true = match op {
                Op::Hold(id) => {
                    server.insert(*id);
                    true
                }
                Op::Name(name, statement) => {
                    client.named.insert(name.clone(), Arc::clone(statement));
                    true
                }
                Op::Release(id) => server.held.remove(id).is_some(),
                Op::Forget(name, _) => client.named.remove(name).is_some(),
                Op::Unnamed(..) | Op::Replay(_) | Op::Nothing => true,
            };
            if !still_true {
                *op = Op::Nothing;
            }
        }
    }

    /// The oldest `count` changes are true now.
    #[inline]
    pub fn keep(&mut self, count: u32) {
        for _ in 0..count {
            self.ops.pop_front();
        }
    }

    /// The oldest `count` changes will never be; of these the oldest `failed` belong to the request
    /// that the server refused, the others to requests that it skipped.
    pub fn void(
        &mut self,
        client: &mut ClientStatements,
        server: &mut ServerStatements,
        count: u32,
        failed: u32,
    ) {
        let count = (count as usize).min(self.ops.len());
        let voided: Vec<Op> = self.ops.drain(..count).collect();
        for (at, op) in voided.into_iter().enumerate().rev() {
            let skipped = at >= failed as usize;
            match op {
                Op::Hold(id) => {
                    server.held.remove(&id);
                }
                Op::Release(id) => server.insert(id),
                Op::Name(name, statement) => {
                    if client
                        .named
                        .get(&name)
                        .is_some_and(|now| Arc::ptr_eq(now, &statement))
                    {
                        client.named.remove(&name);
                    }
                }
                Op::Forget(name, statement) => {
                    client.named.entry(name).or_insert(statement);
                }
                // A Parse that fails has dropped the old unnamed statement already, unless its
                // text was not even valid in the client's encoding; one that is skipped has not.
                Op::Unnamed(before, server_before) => {
                    client.unnamed = before.filter(|_| skipped);
                    server.unnamed = if skipped {
                        server_before
                    } else {
                        Unnamed::Unknown
                    };
                }
                Op::Replay(before) => {
                    server.unnamed = if skipped { before } else { Unnamed::Unknown };
                }
                Op::Nothing => {}
            }
        }
    }
}

#[cfg(test)]
#[path = "prepared_tests.rs"]
mod tests;
