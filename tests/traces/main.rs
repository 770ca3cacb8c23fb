//! Traces: spans of transactions whose caller records a trace, as a collector gets them; and the names by which servers
//! know clients.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests: what is not there fails them, and measurements print"
)]

#[path = "../support/mod.rs"]
mod support;

mod application;
mod collector;
mod export;
mod names;
mod spans;
