//! How a pool is doing, in numbers: for the metrics, the console, and those who ask why they wait.
//! They are read one by one while the workers go on, so they need not add up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Alone, Pool};

/// How a pool is doing.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// Clients logged in.
    pub clients: usize,
    /// Clients that wait for a server.
    pub waiting: usize,
    /// Since when the oldest of them waits.
    pub oldest_since: Option<Instant>,
    /// Servers, those that are being opened included.
    pub servers: usize,
    /// Servers that are being opened.
    pub connecting: usize,
    /// Servers that nobody uses.
    pub idle: usize,
    /// When the transaction began that has had a server for longest, as of the last sweep.
    pub oldest_checkout: Option<Instant>,
}

impl Numbers {
    /// Adds those of a branch.
    pub fn add(&mut self, other: &Self) {
        let earlier = |a: Option<Instant>, b: Option<Instant>| a.into_iter().chain(b).min();
        self.clients += other.clients;
        self.waiting += other.waiting;
        self.oldest_since = earlier(self.oldest_since, other.oldest_since);
        self.servers += other.servers;
        self.connecting += other.connecting;
        self.idle += other.idle;
        self.oldest_checkout = earlier(self.oldest_checkout, other.oldest_checkout);
    }
}

impl Pool {
    /// Notes since when the longest transaction of `worker` has had its server, as the sweep saw it.
    pub fn note_oldest_checkout(&self, worker: usize, since: Option<Instant>) {
        let after = since.map(|since| since.saturating_duration_since(self.born).as_micros());
        let after = after.map_or(u64::MAX, |us| u64::try_from(us).unwrap_or(u64::MAX));
        self.oldest_checkout[worker].store(after, Ordering::Relaxed);
    }

    fn oldest_checkout(&self) -> Option<Instant> {
        let noted = self.oldest_checkout.iter();
        let oldest = noted.map(|n| n.load(Ordering::Relaxed)).min();
        let us = oldest.filter(|&us| us != u64::MAX)?;
        self.born.checked_add(Duration::from_micros(us))
    }

    /// A snapshot for metrics and the console.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        let sum =
            |row: &[Alone<AtomicUsize>]| row.iter().map(|n| n.0.load(Ordering::Relaxed)).sum();
        let state = self.state();
        let (newcomers, first) = state.awaiting_welcome();
        Numbers {
            clients: sum(&self.clients),
            waiting: state.waiting() + newcomers,
            oldest_since: state.oldest_since().into_iter().chain(first).min(),
            servers: state.servers(),
            connecting: state.connecting(),
            idle: sum(&self.idle),
            oldest_checkout: self.oldest_checkout(),
        }
    }
}
