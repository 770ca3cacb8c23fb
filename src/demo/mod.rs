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
mod skip;

use std::io;
use std::path::PathBuf;

use scratch::Scratch;

pub use leash::Leashed;
pub use ports::free_port;
pub use programs::{NAME, find_program, server_programs};
pub use show::{Options, run};
pub use skip::skipped;

/// The user that servers run as when this process is root; `None` when it is not.
///
/// # Errors
/// This process is root, and there is no such user.
pub fn server_account() -> io::Result<Option<&'static str>> {
    Ok(account::Account::for_servers()?.map(|account| account.name))
}

/// A new directory of this name that goes when this process ends, however it ends.
///
/// # Errors
/// There is one of this name, or it cannot be made.
pub fn make_dir(name: &str) -> io::Result<PathBuf> {
    Scratch::current()?.make_dir(name)
}

/// Stops and removes every cluster of this process, whoever holds it; returns when all is gone. For a program's end: clusters
/// go by themselves too, when they are dropped and when the process ends.
pub fn remove_all() {
    Scratch::remove();
}

#[cfg(test)]
mod tests;
