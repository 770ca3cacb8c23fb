//! What the pooler knows of the functions of a database: which statements can be proven to read only
//! (see `pooler_protocol::route`). Shared by all pools of that database, and by all workers.
//!
//! ```text
//!   unknown --a server is opened--> known --a definition passes, or time--> stale --a server idles--> known
//! ```
//! While it is unknown or stale nothing is proven. What a replica refused as a write although it was proven
//! to be a read is remembered by its shape until the process ends: there are few of these.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pooler_protocol::route::{Catalogue, fingerprint};

/// How long it is good for: definitions may change past the pooler, too.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// It is not read more often than this, however often definitions change.
const REST: Duration = Duration::from_secs(1);

/// Shapes of statements that are remembered; beyond that the oldest memory is given up as a whole.
const REFUSED_MAX: usize = 10_000;

/// Versions are unique in the process: a statement's verdict is kept with the version that it is of.
static NEXT_VERSION: AtomicU64 = AtomicU64::new(1);

/// See the module.
#[derive(Debug, Default)]
pub struct Database {
    current: Mutex<Option<Arc<Catalogue>>>,
    /// Of `current`; 0: there is none.
    version: AtomicU64,
    /// Definitions that had been changed through the pooler when it was read.
    definitions: AtomicU64,
    reading: Mutex<Reading>,
    refused: Mutex<HashSet<u64>>,
    has_refused: AtomicBool,
}

/// When it was begun to be read last.
#[derive(Debug, Default)]
struct Reading {
    at: Option<Instant>,
    definitions: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Database {
    /// The version of what is known, if it is known and nothing was defined since: `definitions` have
    /// been changed through the pooler.
    #[inline]
    #[must_use]
    pub fn version(&self, definitions: u64) -> Option<u64> {
        let fresh = self.definitions.load(Ordering::Relaxed) == definitions;
        let version = self.version.load(Ordering::Acquire);
        (fresh && version != 0).then_some(version)
    }

    /// What is known.
    #[must_use]
    pub fn catalogue(&self) -> Option<Arc<Catalogue>> {
        lock(&self.current).clone()
    }

    /// Whether it is this caller's turn to read it; whoever is told so begins at once.
    #[must_use]
    pub fn begin_reading(&self, definitions: u64, now: Instant) -> bool {
        let mut reading = lock(&self.reading);
        let changed = reading.definitions != definitions;
        let good_for = if changed { REST } else { GOOD_FOR };
        let due = reading
            .at
            .is_none_or(|at| now.saturating_duration_since(at) >= good_for);
        if due {
            *reading = Reading {
                at: Some(now),
                definitions,
            };
        }
        due
    }

    /// It could not be read: the next who can tries again.
    pub fn fail_reading(&self) {
        lock(&self.reading).at = None;
    }

    /// It was read; the reading began when `definitions` had been changed.
    pub fn set(&self, catalogue: Catalogue, definitions: u64) {
        let mut current = lock(&self.current);
        *current = Some(Arc::new(catalogue));
        self.raise_version();
        self.definitions.store(definitions, Ordering::Relaxed);
    }

    fn raise_version(&self) {
        let version = NEXT_VERSION.fetch_add(1, Ordering::Relaxed);
        self.version.store(version, Ordering::Release);
    }

    /// A replica refused `text`, which was proven to be a read, as a write.
    #[cold]
    pub fn note_refused(&self, text: &[u8]) {
        let mut refused = lock(&self.refused);
        if refused.len() >= REFUSED_MAX {
            refused.clear();
        }
        if refused.insert(fingerprint(text)) {
            self.has_refused.store(true, Ordering::Release);
            // Verdicts that are kept are old now.
            let _current = lock(&self.current);
            self.raise_version();
        }
    }

    /// Whether a statement of this shape was refused.
    #[inline]
    #[must_use]
    pub fn was_refused(&self, text: &[u8]) -> bool {
        self.has_refused.load(Ordering::Acquire) && lock(&self.refused).contains(&fingerprint(text))
    }
}
