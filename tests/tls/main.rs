//! TLS toward clients and toward servers: who is let in, what is refused, and that nothing else changes.
//!
//! Each test says which row of the table of faults it is, by its words, and which trap it covers, by its number.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod agreed;
mod bridge;
mod certs;
mod clients;
mod handshakes;
mod keys;
mod scripted;
mod servers;
