//! What the service manager is told (sd_notify(3)): that the process is ready, reloads, stops, and that
//! it lives. Nobody is told anything where `NOTIFY_SOCKET` is not set.
//!
//! ```text
//! READY=1 --SIGHUP--> RELOADING=1, MONOTONIC_USEC=.. --read, or refused--> READY=1
//!    |
//!    `-- the first order to drain or to stop --> STOPPING=1
//! ```
//! `WATCHDOG=1` comes at half of what `WATCHDOG_USEC` allows, from the loop that keeps deadlines, looks at hosts and heeds
//! signals, as long as every worker has shown within `WATCHDOG_USEC` that it goes round: a process of which one worker is stuck
//! serves some of its clients not at all, and is to be started anew. A message that cannot be sent is not sent again: a manager
//! that is not there is no reason to stop serving.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Beats that a worker may miss before it counts as stuck, however little `WATCHDOG_USEC` allows.
const BEATS_MISSED_MAX: u32 = 3;

/// How often each worker has gone round: written by it when it looks at deadlines, read by the [`Watchdog`].
#[derive(Debug, Clone)]
pub struct Heartbeats(Arc<[AtomicU64]>);

impl Heartbeats {
    /// Of so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| AtomicU64::new(0)).collect())
    }

    /// The worker of this number lives.
    pub fn beat(&self, worker: usize) {
        self.0[worker].fetch_add(1, Ordering::Relaxed);
    }
}

/// Tells the service manager that it lives.
#[derive(Debug)]
pub struct Watchdog {
    limit: Option<Duration>,
    next: Instant,
    workers: Workers,
}

impl Watchdog {
    /// As the environment says; silent if that says nothing. The workers beat once in `every`.
    #[must_use]
    pub fn new(heartbeats: Heartbeats, every: Duration, now: Instant) -> Self {
        let limit = sd_notify::watchdog_enabled();
        let patience = limit.unwrap_or_default().max(every * BEATS_MISSED_MAX);
        Self {
            limit,
            next: now,
            workers: Workers::new(heartbeats, patience, now),
        }
    }

    /// To be called more often than that.
    pub fn tick(&mut self, now: Instant) {
        let Some(limit) = self.limit else {
            return;
        };
        if now < self.next {
            return;
        }
        self.next = now + limit / 2;
        if self.workers.are_alive(now) {
            send(&[NotifyState::Watchdog]);
        }
    }
}

/// When each worker was seen to have beaten.
#[derive(Debug)]
struct Workers {
    heartbeats: Heartbeats,
    patience: Duration,
    seen: Vec<(u64, Instant)>,
    /// The one that was said to be stuck.
    stuck: Option<usize>,
}

impl Workers {
    fn new(heartbeats: Heartbeats, patience: Duration, now: Instant) -> Self {
        Self {
            seen: vec![(0, now); heartbeats.0.len()],
            heartbeats,
            patience,
            stuck: None,
        }
    }

    /// Whether each has beaten within the patience.
    fn are_alive(&mut self, now: Instant) -> bool {
        for (beats, seen) in self.heartbeats.0.iter().zip(&mut self.seen) {
            let beats = beats.load(Ordering::Relaxed);
            if beats != seen.0 {
                *seen = (beats, now);
            }
        }
        let is_late = |(_, at): &(u64, Instant)| now.saturating_duration_since(*at) > self.patience;
        let stuck = self.seen.iter().position(is_late);
        if stuck != self.stuck {
            match stuck {
                Some(worker) => tracing::error!(
                    "worker {worker} has not gone round for {:?}: the service manager gets no sign of life",
                    self.patience
                ),
                None => tracing::warn!("every worker goes round again"),
            }
            self.stuck = stuck;
        }
        stuck.is_none()
    }
}

/// It serves: after the start, and after a reload.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// It reads its configuration again.
pub fn reloading() {
    // The time is what systemd 253 and later tell one reload from another by (Type=notify-reload).
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(_) => send(&[NotifyState::Reloading]),
    }
}

/// It serves no new clients any more, and will end.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::debug!("the service manager cannot be told: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_that_does_not_go_round_is_enough() {
        let (heartbeats, begin) = (Heartbeats::new(3), Instant::now());
        let mut workers = Workers::new(heartbeats.clone(), Duration::from_secs(1), begin);
        let at = |ms| begin + Duration::from_millis(ms);
        // None has beaten yet, and none is late.
        assert!(workers.are_alive(at(900)));
        for round in 1..=10 {
            for worker in 0..3 {
                heartbeats.beat(worker);
            }
            assert!(workers.are_alive(at(900 * round)), "{round}");
        }
        for worker in [0, 2] {
            heartbeats.beat(worker);
        }
        assert!(workers.are_alive(at(9_900)));
        heartbeats.beat(0);
        heartbeats.beat(2);
        assert!(!workers.are_alive(at(10_100)));
        assert_eq!(workers.stuck, Some(1));
        heartbeats.beat(1);
        assert!(workers.are_alive(at(10_200)));
        assert_eq!(workers.stuck, None);
    }
}
