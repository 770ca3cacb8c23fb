//! The names of all databases behind which something hides that changes the session.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use pooler_protocol::statement::Marks;
use pooler_protocol::vigilance::Vigilance;

/// See the module. While no database has such a name, looking costs one load.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    by_pool: Mutex<HashMap<u64, Vec<Box<[u8]>>>>,
    all: RwLock<Arc<Vigilance>>,
    /// Raised with each change of the names; 0 while there is none.
    version: AtomicU64,
    /// Definitions changed through the pooler.
    pub(super) definitions: AtomicU64,
}

impl Suspects {
    #[inline]
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn scan(&self, text: &[u8]) -> Marks {
        if self.version() == 0 {
            return Marks::NONE;
        }
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.scan(text)
    }

    /// Replaces the names of one pool.
    pub(super) fn set(&self, pool: u64, mut names: Vec<Box<[u8]>>) {
        names.sort_unstable();
        let mut by_pool = self.by_pool.lock().unwrap_or_else(PoisonError::into_inner);
        let old = by_pool.get(&pool).map_or(&[][..], Vec::as_slice);
        if old == names {
            return;
        }
        if names.is_empty() {
            by_pool.remove(&pool);
        } else {
            by_pool.insert(pool, names);
        }
        let all = by_pool.values().flatten().map(|name| &**name);
        let all = Arc::new(Vigilance::new(all));
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = all;
        self.version.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_pools_count_until_their_own_are_replaced() {
        let suspects = Suspects::default();
        suspects.set(1, vec![Box::from(&b"f"[..])]);
        suspects.set(2, vec![Box::from(&b"g"[..])]);
        assert!(!suspects.scan(b"SELECT f(), 1").is_empty());
        assert!(!suspects.scan(b"SELECT g()").is_empty());
        suspects.set(1, Vec::new());
        assert!(suspects.scan(b"SELECT f()").is_empty());
        assert!(!suspects.scan(b"SELECT g()").is_empty());
    }
}
