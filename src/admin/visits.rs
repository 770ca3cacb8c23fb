//! Console sessions that are there: how many, and how each is cancelled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Desk;
use crate::pool::limit::Permit;

/// The first process id that a console session is told: those of other sessions count up from 1.
const FIRST_PROCESS_ID: i32 = 1_500_000_000;

static NEXT: AtomicI32 = AtomicI32::new(FIRST_PROCESS_ID);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Visits(Mutex<ByProcess>);

/// By the process id that a session was told: its key, and whom a cancel wakes.
type ByProcess = HashMap<i32, ([u8; 4], Arc<Notify>)>;

impl Visits {
    fn all(&self) -> MutexGuard<'_, ByProcess> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) process_id: i32,
    pub(super) key: [u8; 4],
    cancel: Arc<Notify>,
    visits: Arc<Visits>,
    _place: Permit,
}

impl Visit {
    /// Until somebody cancels what runs now.
    pub(super) async fn cancelled(&self) {
        self.cancel.notified().await;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.visits.all().remove(&self.process_id);
    }
}

impl Desk {
    /// A place for one session more, if there is one.
    pub(super) fn visit(&self) -> Option<Visit> {
        let place = self.places.try_take()?;
        let process_id = NEXT.fetch_add(1, Ordering::Relaxed).max(FIRST_PROCESS_ID);
        let key = rand::random();
        let cancel = Arc::new(Notify::new());
        let entry = (key, Arc::clone(&cancel));
        self.visits.all().insert(process_id, entry);
        Some(Visit {
            process_id,
            key,
            cancel,
            visits: Arc::clone(&self.visits),
            _place: place,
        })
    }

    /// Cancels what the console session with this process id runs, if this is its key.
    pub fn cancel(&self, process_id: i32, key: &[u8]) {
        if let Some((its, cancel)) = self.visits.all().get(&process_id)
            && its.len() == key.len()
            && its.iter().zip(key).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
        {
            // Only who waits now: a cancel that comes late must not hit the next command.
            cancel.notify_waiters();
        }
    }
}
