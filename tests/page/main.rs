//! The status page in a real browser, what stands behind it, and the same in a terminal.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod overloaded;
mod pictures;
mod shown;
mod terminal;
