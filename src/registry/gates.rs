//! What an operator has closed for a while: databases that are paused, and those that let nobody new in.
//!
//! A gate and the pools that it closes are changed in one step, under the lock of the pools, under
//! which a pool that is made later looks at its gate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard};

use super::{Registry, lock};
use crate::pool::Pool;

/// A closing: who closes something has a number for it, by which it is told from what others close later.
pub type Closing = u64;

/// See the module.
#[derive(Debug, Default, Clone)]
pub struct Gates {
    /// All databases at once.
    pub everything: Closed,
    /// The last closing of all databases.
    everything_by: Closing,
    /// Each for itself.
    paused: BTreeMap<String, Closing>,
    last: Closing,
    /// Nobody new gets in.
    pub disabled: BTreeSet<String>,
    /// The pooler ends: nothing is paused or suspended any more.
    draining: bool,
}

/// Whether all databases are closed at once.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// They are not.
    #[default]
    No,
    /// By PAUSE.
    Paused,
    /// By SUSPEND: sessions stand still, and keep their servers.
    Suspended,
}

impl Gates {
    /// Whether clients of `database` get no server.
    #[must_use]
    pub fn is_paused(&self, database: &str) -> bool {
        self.everything == Closed::Paused || self.paused.contains_key(database)
    }

    /// Whether something is paused or suspended.
    #[must_use]
    pub fn is_any_closed(&self) -> bool {
        self.everything != Closed::No || !self.paused.is_empty()
    }

    /// The pooler ends, and needs everything to go on for that.
    pub fn drain(&mut self) {
        self.draining = true;
        if self.everything == Closed::Suspended {
            self.everything = Closed::No;
        }
    }

    /// Whether the pooler ends.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Closes everything.
    pub fn close_everything(&mut self, how: Closed) -> Closing {
        self.last += 1;
        self.everything = how;
        self.everything_by = self.last;
        self.last
    }

    /// Pauses `database`; `None` if it is paused.
    pub fn pause(&mut self, database: &str) -> Option<Closing> {
        if self.paused.contains_key(database) {
            return None;
        }
        self.last += 1;
        self.paused.insert(database.to_owned(), self.last);
        Some(self.last)
    }

    /// Opens `database`, whoever has paused it; whether anybody had.
    pub fn resume(&mut self, database: &str) -> bool {
        self.paused.remove(database).is_some()
    }

    /// Opens everything, whoever has closed it; whether anything was closed.
    pub fn resume_everything(&mut self) -> bool {
        let any = self.is_any_closed();
        self.everything = Closed::No;
        self.paused.clear();
        any
    }

    /// Undoes this closing if it still stands.
    pub fn undo(&mut self, closing: Closing) {
        if self.everything_by == closing {
            self.everything = Closed::No;
        }
        self.paused.retain(|_, by| *by != closing);
    }

    /// Whether this closing, of everything, still stands.
    #[must_use]
    pub fn stands(&self, closing: Closing) -> bool {
        self.everything != Closed::No && self.everything_by == closing
    }

    /// Whether `database` lets nobody new in.
    #[must_use]
    pub fn is_disabled(&self, database: &str) -> bool {
        self.disabled.contains(database)
    }
}

impl Registry {
    pub(super) fn gates(&self) -> MutexGuard<'_, Gates> {
        lock(&self.gates)
    }

    /// How they stand.
    #[must_use]
    pub fn gates_now(&self) -> Gates {
        self.gates().clone()
    }

    /// Whether `database` lets nobody new in.
    #[must_use]
    pub fn is_disabled(&self, database: &str) -> bool {
        self.gates().is_disabled(database)
    }

    /// Changes them, and has every pool follow. What `change` returns is returned.
    pub fn change_gates<T>(&self, change: impl FnOnce(&mut Gates) -> T) -> T {
        let pools = lock(&self.pools);
        let mut gates = self.gates();
        let result = change(&mut gates);
        for pool in pools.values() {
            if gates.is_paused(&pool.key.database) {
                pool.pause();
            } else {
                pool.resume();
            }
        }
        result
    }

    /// The pools of `database`, or all.
    #[must_use]
    pub fn pools_of(&self, database: Option<&str>) -> Vec<Arc<Pool>> {
        let mut pools = self.pools();
        pools.retain(|pool| database.is_none_or(|name| name == pool.key.database));
        pools
    }
}
