//! Clients that are hostile, broken or gone: what the pooler must do for the others, and for them.
//!
//! Each test is named after its row of the table of faults, and after the trap that it covers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod login;
