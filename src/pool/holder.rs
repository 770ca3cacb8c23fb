//! Who has had a server of a pool for longest, for those who wait for one: each worker notes its own while
//! somebody waits (`client/oldest.rs`), and a client that gives up is told of the oldest of them.
//!
//! A pool and its branches share a size, so they share this, too: it is kept by the trunk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Pool;
use crate::net::Peer;

/// How long a pool counts as waited for after a sweep has seen somebody wait.
const WAITED_FOR: Duration = Duration::from_secs(1);

/// A client that has a server.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Its number, as in SHOW CLIENTS.
    pub client: u64,
    /// As it calls itself; short, and on one line.
    pub application_name: String,
    /// As whom it logged in.
    pub user: String,
    /// Its address.
    pub peer: Peer,
    /// As `state` of `pg_stat_activity`.
    pub state: &'static str,
    /// Since when it has the server.
    pub since: Instant,
}

impl Holder {
    /// In the words for a client that waits, who is `user`. What it runs is not said: one client may not see another's
    /// statements. Nor does another user's client hear who it is and where: the number tells it to an operator.
    #[must_use]
    pub fn told_to(&self, user: &str) -> String {
        let Self {
            client,
            application_name,
            user: own,
            peer,
            state,
            since,
        } = self;
        let who = match own == user {
            true => format!("application {application_name:?}, user {own:?}, {peer}"),
            false => "of another user".to_owned(),
        };
        let held = since.elapsed();
        format!("client {client} ({who}) has had one for {held:.1?} and is {state}")
    }
}

/// What a trunk keeps.
#[derive(Debug)]
pub(super) struct Holders {
    by_worker: Box<[Mutex<Option<Holder>>]>,
    /// In microseconds after the pool was made: when somebody was last seen to wait; 0: never.
    waited_us: AtomicU64,
}

impl Holders {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            by_worker: (0..workers).map(|_| Mutex::default()).collect(),
            waited_us: AtomicU64::new(0),
        }
    }
}

fn lock(holder: &Mutex<Option<Holder>>) -> MutexGuard<'_, Option<Holder>> {
    holder.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    fn family(&self) -> &Self {
        self.trunk().map_or(self, |trunk| trunk)
    }

    fn age_us(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.born);
        u64::try_from(age.as_micros()).unwrap_or(u64::MAX)
    }

    /// Somebody waits for a server; a few times a second for each who does.
    pub fn note_waiter(&self, now: Instant) {
        let family = self.family();
        let us = family.age_us(now).max(1);
        family.holders.waited_us.store(us, Ordering::Relaxed);
    }

    /// Whether somebody has waited lately.
    #[must_use]
    pub fn is_waited_for(&self, now: Instant) -> bool {
        let family = self.family();
        let us = family.holders.waited_us.load(Ordering::Relaxed);
        let since = Duration::from_micros(family.age_us(now).saturating_sub(us));
        us > 0 && since < WAITED_FOR
    }

    /// Notes who of `worker` has had a server for longest.
    pub fn note_holder(&self, worker: usize, holder: Option<Holder>) {
        *lock(&self.family().holders.by_worker[worker]) = holder;
    }

    /// This client has left: it holds nothing any more.
    pub fn forget_holder(&self, client: u64) {
        let holders = &self.family().holders;
        if holders.waited_us.load(Ordering::Relaxed) == 0 {
            return;
        }
        for holder in &holders.by_worker {
            let mut holder = lock(holder);
            if holder
                .as_ref()
                .is_some_and(|holder| holder.client == client)
            {
                *holder = None;
            }
        }
    }

    /// Who has had a server for longest, as of the last sweep; nothing, if nobody was asked.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        let noted = self.family().holders.by_worker.iter();
        let holders = noted.filter_map(|holder| lock(holder).clone());
        holders.min_by_key(|holder| (holder.since, holder.client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_described_on_one_line() {
        let holder = Holder {
            client: 7,
            application_name: "re\"port".to_owned(),
            user: "ada".to_owned(),
            peer: Peer::Unix,
            state: "idle in transaction",
            since: Instant::now(),
        };
        for (asker, who) in [
            ("ada", "application \"re\\\"port\", user \"ada\", unix"),
            ("bob", "of another user"),
        ] {
            let text = holder.told_to(asker);
            let begins = format!("client 7 ({who}) has had one for ");
            assert!(text.starts_with(&begins), "{text}");
            assert!(text.ends_with("s and is idle in transaction"), "{text}");
        }
    }
}
