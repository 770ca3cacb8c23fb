//! Reads on replicas, writes on the primary: a real primary with three replicas, two of them where the pooler stands.
//!
//! Where a statement ran is seen by `current_setting('port')`, which each host answers with its own.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and tells its figures to whoever runs it with --nocapture"
)]

#[path = "../support/mod.rs"]
mod support;

mod consistency;
mod console;
mod failover;
mod functions;
mod lag;
mod load;
mod overrides;
mod scene;
mod statements;
