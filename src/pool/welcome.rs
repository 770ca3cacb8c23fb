//! What servers of a pool say of themselves, for the logins of clients that need no server yet.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::Pool;
use crate::error::Refusal;
use crate::server::Welcome;
use crate::timer;

impl Pool {
    /// What servers of this pool say of themselves; waits for a first server if there was none.
    /// Dropped midway, nothing is lost.
    ///
    /// # Errors
    /// What the client is to be told, if no server can be opened.
    pub async fn welcome(self: &Arc<Self>) -> Result<Arc<Welcome>, Refusal> {
        let patience = self.plan().settings.server_connect_timeout;
        let began = Instant::now();
        let mut waiting = None;
        loop {
            let changed = self.welcome_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(welcome) = self.known_welcome() {
                return Ok(welcome);
            }
            let (failure, paused, resumed) = {
                let state = self.state();
                let failure = state.permanent_failure(Instant::now());
                (failure, state.is_paused(), state.resumed())
            };
            if let Some(error) = failure {
                return Err(error.refusal());
            }
            waiting.get_or_insert_with(|| AwaitsWelcome::new(self, began));
            self.ask_to_grow();
            // Nothing is opened in a pause: who has waited through one has the whole time after it.
            let since = resumed.map_or(began, |at| at.max(began));
            let left = match paused {
                true => patience,
                false => patience.saturating_sub(since.elapsed()),
            };
            if left.is_zero() {
                return Err(self.no_first_server());
            }
            let _changed = timer::timeout(left, changed).await;
        }
    }

    /// What servers of this pool say of themselves, if there was one.
    #[must_use]
    pub fn known_welcome(&self) -> Option<Arc<Welcome>> {
        self.welcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn no_first_server(&self) -> Refusal {
        let failure = self.state().failure().cloned();
        failure.map_or_else(
            || {
                Refusal::fatal(
                    "08001",
                    format!(
                        "no server connection of {} could be opened in time",
                        self.key
                    ),
                )
                .hint("See SHOW POOLS and the limits on server connections.")
            },
            |e| e.refusal(),
        )
    }

    /// Notes what a server said that was just opened.
    pub(super) fn note_welcome(&self, welcome: &Arc<Welcome>) {
        let mut known = self.welcome.lock().unwrap_or_else(PoisonError::into_inner);
        let news = known.as_ref().is_none_or(|k| k != welcome);
        if news {
            *known = Some(Arc::clone(welcome));
        }
        drop(known);
        if news {
            self.welcome_changed.notify_waiters();
        }
    }
}

/// A login that waits for what a first server says of itself, counted until dropped.
struct AwaitsWelcome<'a>(&'a Pool, Instant);

impl<'a> AwaitsWelcome<'a> {
    fn new(pool: &'a Pool, since: Instant) -> Self {
        pool.state().await_welcome(since);
        Self(pool, since)
    }
}

impl Drop for AwaitsWelcome<'_> {
    fn drop(&mut self) {
        self.0.state().end_welcome(self.1);
    }
}
