//! Console sessions that are there: how many, and how each is cancelled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::census::ClientLine;
use super::{Desk, Visitor};
use crate::pool::limit::Permit;

/// The first process id that a console session is told: those of other sessions count up from 1.
const FIRST_PROCESS_ID: i32 = 1_500_000_000;

/// The database that console sessions are shown in: PgBouncer's name for it.
const CONSOLE_SHOWN: &str = "pgbouncer";

static NEXT: AtomicI32 = AtomicI32::new(FIRST_PROCESS_ID);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Visits(Mutex<ByProcess>);

/// By the process id that a session was told.
type ByProcess = HashMap<i32, Entry>;

#[derive(Debug)]
struct Entry {
    key: [u8; 4],
    /// Woken by a cancel.
    cancel: Arc<Notify>,
    /// Woken when somebody ends the session.
    end: Arc<Notify>,
    line: ClientLine,
}

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
    end: Arc<Notify>,
    visits: Arc<Visits>,
    _place: Permit,
}

impl Visit {
    /// Until somebody cancels what runs now.
    pub(super) async fn cancelled(&self) {
        self.cancel.notified().await;
    }

    /// For whoever waits until somebody ends the session.
    pub(super) fn end(&self) -> Arc<Notify> {
        Arc::clone(&self.end)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.visits.all().remove(&self.process_id);
    }
}

impl Desk {
    /// A place for one session more, if there is one.
    pub(super) fn visit(&self, visitor: &Visitor) -> Option<Visit> {
        let place = self.places.try_take()?;
        let process_id = NEXT.fetch_add(1, Ordering::Relaxed).max(FIRST_PROCESS_ID);
        let key = rand::random();
        let (cancel, end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let entry = Entry {
            key,
            cancel: Arc::clone(&cancel),
            end: Arc::clone(&end),
            line: line(visitor, process_id),
        };
        self.visits.all().insert(process_id, entry);
        Some(Visit {
            process_id,
            key,
            cancel,
            end,
            visits: Arc::clone(&self.visits),
            _place: place,
        })
    }

    /// Console sessions, as clients.
    pub(super) fn visitors(&self) -> Vec<ClientLine> {
        let all = self.visits.all();
        all.values().map(|entry| entry.line.clone()).collect()
    }

    /// Ends the console session that is shown with the number `id`; whether there is one.
    pub(super) fn end_visit(&self, id: u64) -> bool {
        let all = self.visits.all();
        let entry = all.values().find(|entry| entry.line.id == id);
        if let Some(entry) = entry {
            // Kept for it if it does not wait right now.
            entry.end.notify_one();
        }
        entry.is_some()
    }

    /// Cancels what the console session with this process id runs, if this is its key.
    pub fn cancel(&self, process_id: i32, key: &[u8]) {
        if let Some(Entry {
            key: its, cancel, ..
        }) = self.visits.all().get(&process_id)
            && its.len() == key.len()
            && its.iter().zip(key).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
        {
            // Only who waits now: a cancel that comes late must not hit the next command.
            cancel.notify_waiters();
        }
    }
}

/// A console session as PgBouncer shows it: a client that has no server. Its number is above all others'.
fn line(visitor: &Visitor, process_id: i32) -> ClientLine {
    let id = u64::from(process_id.unsigned_abs());
    let (user, stream) = (&visitor.user, &visitor.stream);
    ClientLine {
        pool_name: CONSOLE_SHOWN.to_owned(),
        application_name: visitor.application_name.clone(),
        ..ClientLine::idle(id, user, CONSOLE_SHOWN, stream, Instant::now())
    }
}
