//! What an operator sees: queues, limits, timeouts, logins, reloads, shutdowns, and the system running out of things.
//!
//! Each test says which row of the table of faults it is, by its words, and which trap it covers, by its number.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod as_direct;
mod by_session;
mod descriptors;
mod hidden;
mod limits;
mod listen;
mod logins;
mod modes;
mod noticed;
mod pools;
mod queue;
mod reload;
mod shutdown;
mod start;
mod timeouts;
