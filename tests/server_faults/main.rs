//! Servers that are hostile, broken, frozen or gone: what the clients are told, and that the pool comes out of it whole.
//!
//! Each test is named after its row of the table of faults, and after the trap that it covers. What a real PostgreSQL
//! would not do is done by a scripted one.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and reports"
)]

#[path = "../support/mod.rs"]
mod support;

mod faulty;
mod login;
mod real;
mod replies;
mod scram;
