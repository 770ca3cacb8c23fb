//! PostgreSQL on demand: clusters that live as long as this process, and `pooler demo` on top of them.
//!
//! Nothing here is on the path of a query: it starts programs, writes files and waits.

mod account;
mod builder;
mod faults;
mod leash;
mod page;
mod ports;
pub mod postgres;
mod process;
mod programs;
mod replica;
mod scratch;
mod show;

pub use leash::Leashed;
pub use ports::free_port;
pub use programs::{find_program, server_programs};
pub use show::{Options, run};

/// Stops and removes every cluster of this process, whoever holds it; returns when all is gone. For a program's end: clusters
/// go by themselves too, when they are dropped and when the process ends.
pub fn remove_all() {
    scratch::Scratch::remove();
}

#[cfg(test)]
mod tests;
