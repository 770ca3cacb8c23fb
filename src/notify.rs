//! What the service manager is told (sd_notify(3)): that the process is ready, reloads, stops, and that
//! it lives. Nobody is told anything where `NOTIFY_SOCKET` is not set.
//!
//! ```text
//! READY=1 --SIGHUP--> RELOADING=1, MONOTONIC_USEC=.. --read, or refused--> READY=1
//!    |
//!    `-- the first order to drain or to stop --> STOPPING=1
//! ```
//! `WATCHDOG=1` comes at half of what `WATCHDOG_USEC` allows, from the loop that keeps deadlines, looks
//! at hosts and heeds signals. A message that cannot be sent is not sent again: a manager that is not
//! there is no reason to stop serving.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Tells the service manager that it lives.
#[derive(Debug)]
pub struct Watchdog {
    every: Option<Duration>,
    next: Instant,
}

impl Watchdog {
    /// As the environment says; silent if that says nothing.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            every: sd_notify::watchdog_enabled().map(|limit| limit / 2),
            next: now,
        }
    }

    /// To be called more often than that.
    pub fn tick(&mut self, now: Instant) {
        if let Some(every) = self.every
            && now >= self.next
        {
            self.next = now + every;
            send(&[NotifyState::Watchdog]);
        }
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
