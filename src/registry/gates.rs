//! What an operator has closed for a while: databases that are paused, and those that let nobody new in.
//!
//! A gate and the pools that it closes are changed in one step, under the lock of the pools, under
//! which a pool that is made later looks at its gate.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard};

use super::{Registry, lock};
use crate::pool::Pool;

/// See the module.
#[derive(Debug, Default, Clone)]
pub struct Gates {
    /// All databases at once.
    pub everything: Closed,
    /// Each for itself.
    pub paused: BTreeSet<String>,
    /// Nobody new gets in.
    pub disabled: BTreeSet<String>,
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
        self.everything == Closed::Paused || self.paused.contains(database)
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
