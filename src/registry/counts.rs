//! Logins and reloads, counted since the start. They are rare, so all workers count in one place.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::log::Seldom;
use crate::metrics::ErrorCounts;

/// Numbers of logins since the start.
#[derive(Debug, Default)]
pub struct LoginCounts {
    /// Clients let in.
    pub accepted: AtomicU64,
    /// Clients that got an error.
    pub refused: AtomicU64,
    /// Clients that left before they were either.
    pub abandoned: AtomicU64,
    /// TLS handshakes that succeeded.
    pub encrypted: AtomicU64,
    /// TLS handshakes that failed, or were abandoned.
    pub not_encrypted: AtomicU64,
    /// What the refused were told.
    pub errors: ErrorCounts,
    /// Whose handshakes failed lately.
    pub handshakes: Seldom,
}

impl LoginCounts {
    /// Counts what became of a TLS handshake.
    ///
    /// # Errors
    /// Those of `result`.
    pub fn note_tls<E>(&self, result: Result<(), E>) -> Result<(), E> {
        let count = match result {
            Ok(()) => &self.encrypted,
            Err(_) => &self.not_encrypted,
        };
        count.fetch_add(1, Ordering::Relaxed);
        result
    }
}

/// Numbers of reloads since the start.
#[derive(Debug, Default)]
pub struct ReloadCounts {
    /// That took effect.
    pub done: AtomicU64,
    /// That were refused.
    pub failed: AtomicU64,
}
