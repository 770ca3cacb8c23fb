//! Changes that are on their way to the server, and how an error takes them back.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{ClientStatements, ServerStatements, Statement, Unnamed};

/// Unconfirmed changes among which it is looked for one; with more the answer is to wait.
const WAIT_LOOK_MAX: u64 = 256;

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
    /// The client gave a name that is taken: the server is about to refuse it.
    Taken(Box<[u8]>),
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
///
/// A change counts as soon as it is sent, for what follows it up to the next Sync fails if it does.
/// What comes behind that Sync does not fail with it, so it must not build upon a change that is
/// not confirmed yet: it waits ([`Journal::must_wait`], [`Journal::must_wait_for_unnamed`]).
#[derive(Debug, Default)]
pub struct Journal {
    ops: VecDeque<Op>,
    /// The number of the oldest of them; each has the next one.
    oldest: u64,
    /// The first number behind the last Sync.
    synced: u64,
    /// The first number behind the last change of the unnamed statement.
    unnamed: u64,
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

    /// A Sync is sent: what was sent before it can fail without what is sent from here on.
    #[inline]
    pub fn note_sync(&mut self) {
        self.synced = self.next();
    }

    /// Whether all that was sent before the last Sync is confirmed: then nothing must wait.
    #[inline]
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced <= self.oldest
    }

    /// Whether a message that is about the client's statement `name`, and about the statement `id`
    /// if there is one, must wait until more is confirmed.
    #[inline]
    #[must_use]
    pub fn must_wait(&self, name: &[u8], id: Option<u64>) -> bool {
        let before_sync = self.synced.saturating_sub(self.oldest);
        before_sync > 0 && self.concerns(name, id, before_sync)
    }

    /// Whether a message that uses the unnamed statement must wait until more is confirmed.
    #[inline]
    #[must_use]
    pub fn must_wait_for_unnamed(&self) -> bool {
        self.oldest < self.unnamed && self.unnamed <= self.synced
    }

    fn concerns(&self, name: &[u8], id: Option<u64>, before_sync: u64) -> bool {
        if before_sync > WAIT_LOOK_MAX {
            return true;
        }
        let count = usize::try_from(before_sync).expect("BUG: more changes than memory");
        self.ops.iter().take(count).any(|op| match op {
            Op::Hold(other) | Op::Release(other) => Some(*other) == id,
            Op::Name(other, _) | Op::Forget(other, _) => **other == *name,
            Op::Taken(_) | Op::Unnamed(..) | Op::Replay(_) | Op::Nothing => false,
        })
    }

    fn next(&self) -> u64 {
        self.oldest + self.ops.len() as u64
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

    /// A Parse of a `name` that is taken is sent, so that the server says so. It changes nothing, but
    /// [`Journal::void`] then knows the name.
    pub fn note_taken(&mut self, name: &[u8]) {
        self.ops.push_back(Op::Taken(name.into()));
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
        self.unnamed = self.next();
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
        self.unnamed = self.next();
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
                Op::Taken(_) | Op::Unnamed(..) | Op::Replay(_) | Op::Nothing => true,
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
            if self.ops.pop_front().is_some() {
                self.oldest += 1;
            }
        }
    }

    /// The oldest `count` changes will never be; of these the oldest `failed` belong to the request
    /// that the server refused, the others to requests that it skipped. Returns the client's name of
    /// the statement that the refused request would have made.
    pub fn void(
        &mut self,
        client: &mut ClientStatements,
        server: &mut ServerStatements,
        count: u32,
        failed: u32,
    ) -> Option<Box<[u8]>> {
        let count = (count as usize).min(self.ops.len());
        let voided: Vec<Op> = self.ops.drain(..count).collect();
        self.oldest += count as u64;
        let (mut client_unnamed, mut server_unnamed) = (None, None);
        let unnamed_changed = voided
            .iter()
            .any(|op| matches!(op, Op::Unnamed(..) | Op::Replay(_)));
        let mut refused = None;
        // What the server held before, of the statements that are concerned.
        let mut held_before = HashMap::new();
        for (at, op) in voided.into_iter().enumerate().rev() {
            let skipped = at >= failed as usize;
            match op {
                Op::Hold(id) => {
                    held_before.insert(id, false);
                }
                Op::Release(id) => {
                    held_before.insert(id, true);
                }
                Op::Name(name, statement) => {
                    let named = client.named.get(&name);
                    if named.is_some_and(|now| Arc::ptr_eq(now, &statement)) {
                        client.named.remove(&name);
                    }
                    refused = Some(name).filter(|_| !skipped);
                }
                Op::Forget(name, statement) => {
                    client.named.entry(name).or_insert(statement);
                }
                Op::Taken(name) => refused = Some(name).filter(|_| !skipped),
                // A Parse that fails has dropped the old unnamed statement already, unless its
                // text was not even valid in the client's encoding; one that is skipped has not.
                Op::Unnamed(before, server_before) => {
                    client_unnamed = Some(before.filter(|_| skipped));
                    server_unnamed = Some(server_before).filter(|_| skipped);
                }
                Op::Replay(before) => server_unnamed = Some(before).filter(|_| skipped),
                Op::Nothing => {}
            }
        }
        if !held_before.is_empty() {
            self.restore_held(server, held_before);
        }
        if unnamed_changed {
            let server_was = server_unnamed.unwrap_or(Unnamed::Unknown);
            self.restore_unnamed(client, server, client_unnamed, server_was);
        }
        refused
    }

    /// The server holds again what it held, but for changes behind the next Sync that are under way
    /// already: one such gives up, to make room, what was to be held before it.
    fn restore_held(&mut self, server: &mut ServerStatements, before: HashMap<u64, bool>) {
        let mut now = before;
        for op in &mut self.ops {
            match op {
                Op::Hold(id) => {
                    now.entry(*id).and_modify(|held| *held = true);
                }
                Op::Release(id) => {
                    if let Some(held) = now.get_mut(id)
                        && !std::mem::take(held)
                    {
                        // There will be nothing to give up, and nothing to get back.
                        *op = Op::Nothing;
                    }
                }
                _ => {}
            }
        }
        for (id, held) in now {
            if !held {
                server.held.remove(&id);
            } else if !server.held.contains_key(&id) {
                server.insert(id);
            }
        }
    }

    /// The unnamed statement is again what it was, unless a change behind the next Sync is under way
    /// already: then that change is what would go back to it.
    fn restore_unnamed(
        &mut self,
        client: &mut ClientStatements,
        server: &mut ServerStatements,
        client_was: Option<Option<Arc<Statement>>>,
        server_was: Unnamed,
    ) {
        if self.unnamed <= self.oldest {
            server.unnamed = server_was;
        } else {
            for op in &mut self.ops {
                match op {
                    Op::Unnamed(before, server_before) => {
                        *server_before = server_was;
                        if let Some(was) = client_was {
                            *before = was;
                        }
                        return;
                    }
                    // It was made for what the client's was taken to be.
                    Op::Replay(before) => *before = Unnamed::Unknown,
                    _ => {}
                }
            }
            server.unnamed = Unnamed::Unknown;
        }
        if let Some(was) = client_was {
            client.unnamed = was;
        }
    }
}
