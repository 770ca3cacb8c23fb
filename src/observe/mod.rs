//! What statements were like, for the log of slow ones.
//!
//! ```text
//!  relay: each batch, each end --> Watch (with the server) --slow--> session --> a line of the log
//! ```
//! The watch is the only part on the path of a statement: it copies the front of what is sent into a buffer
//! that stays with the server, and adds a few numbers up. With nothing asked for ([`Attention::is_on`]) it is
//! a branch.

use std::time::Duration;

use crate::config::Log;

mod slow;
mod watch;

pub use slow::{Origin, log_slow};
pub use watch::{Statement, Watch};

/// What is to be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention {
    /// Anything at all about statements.
    pub is_on: bool,
    /// Statements that take at least so long, waiting for a server included.
    pub slow: Duration,
    /// Clients that come and go.
    pub connections: bool,
}

impl Attention {
    /// Nothing.
    pub const NONE: Self = Self {
        is_on: false,
        slow: Duration::MAX,
        connections: false,
    };

    /// As it is configured.
    #[must_use]
    pub fn of(log: &Log) -> Self {
        Self {
            is_on: log.slow_query.is_some(),
            slow: log.slow_query.unwrap_or(Duration::MAX),
            connections: log.connections,
        }
    }
}
