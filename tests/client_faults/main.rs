//! Clients that are hostile, broken or gone: what the pooler must do for the others, and for them.
//!
//! Each test is named after its row of the table of faults (`a04_`, `b12_`), and after the trap that it covers (`t53_`). It
//! ends with what must hold after every fault: [`support::Rig::assert_sound`].

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod cancel;
mod copy;
mod login;
mod memory;
mod misuse;
mod prepared;
mod queue;
mod rest;
mod state;
mod vanish;
