//! What the integration tests share: the real pooler, a PostgreSQL of this run, a client and a server that speak the wire.
//!
//! A scripted peer sends and expects messages as a transcript (`wire.expect("T D(1) C(SELECT 1) Z(I)")`). Every read has a
//! deadline, so a test fails and never hangs; every process started here ends with the test's.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::print_stderr,
    reason = "shared by several test crates, none of which uses all of it"
)]

mod http;
mod message;
mod messages;
mod pooler;
mod rig;
mod scripted;
mod wire;

use std::time::{Duration, Instant};

pub use http::{get, metrics_port};
pub use message::Message;
pub use messages::*;
pub use pooler::{Builder, Pooler, start_program};
pub use rig::{Rig, SERVERS, end_servers, postgres};
pub use scripted::{Opening, ScriptedServer, ServerWire};
pub use wire::{Received, Wire};

/// How long anything here waits at most, unless a test says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at `condition` until it holds.
///
/// # Panics
/// If it does not within [`PATIENCE`]; `what` says what was waited for.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, condition);
}

/// As [`wait_until`], within `limit`.
pub fn wait_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not in {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
