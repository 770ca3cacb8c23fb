//! Where the log goes: the standard error, one line an event, by a thread of its own.
//!
//! ```text
//! an event --floods: may it be said?--> formatted where it happens --queue--> thread --> stderr
//! ```
//! The queue is bounded and nobody waits for it: with a full disk or a stalled pipe behind the standard
//! error lines are dropped and counted ([`dropped`]), and no query waits.
//!
//! Names of users and databases, and errors that quote them, come from strangers. A line break in
//! one must not begin a line of the log that the pooler never wrote.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry, reload};

mod floods;
mod queue;

pub use floods::AS_OFTEN_AS_IT_HAPPENS;
use floods::Floods;
pub use queue::{dropped, finish};

/// Changes what is logged, if the log is this process's ([`start`]).
static LEVEL: Mutex<Option<reload::Handle<LevelFilter, tracing_subscriber::Registry>>> =
    Mutex::new(None);

/// Starts the log. A second one in one process (in tests) logs as the first one does.
pub fn start(json: bool, level: LevelFilter) {
    queue::start();
    let (filter, handle) = reload::Layer::new(level);
    // It would say so on the very same stderr, and panic if that is closed.
    let lines = fmt::layer()
        .with_writer(|| OneLine)
        .log_internal_errors(false)
        .with_target(false);
    let log = registry().with(filter).with(Floods);
    let started = if json {
        log.with(lines.json()).try_init()
    } else {
        let is_terminal = io::IsTerminal::is_terminal(&io::stderr());
        log.with(lines.with_ansi(is_terminal)).try_init()
    };
    if started.is_ok() {
        *LEVEL.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
    }
}

/// Logs what is at least as severe as `level` from now on.
pub fn set_level(level: LevelFilter) {
    if let Some(handle) = &*LEVEL.lock().unwrap_or_else(PoisonError::into_inner) {
        // It lives as long as the process.
        let _changed = handle.modify(|now| *now = level);
    }
}

/// The standard error, for events that are each written at once.
#[derive(Debug, Clone, Copy)]
struct OneLine;

impl Write for OneLine {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = event.strip_suffix(b"\n").unwrap_or(event);
        queue::put(match text.iter().any(|&b| breaks_line(b)) {
            true => escape(text),
            false => event.to_vec(),
        });
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Control characters, save those that colours are made of: these the formatter escapes where they
/// are not its own.
fn breaks_line(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\x1b'
}

/// Lets what each of many strangers does wrong be logged once in a while.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<HashMap<Option<IpAddr>, Instant>>);

/// How long one address is not mentioned again.
const SELDOM: Duration = Duration::from_secs(60);

/// Addresses that are remembered.
const STRANGERS_MAX: usize = 1024;

impl Seldom {
    /// Whether `address` may be mentioned. With too many addresses, none is that is not known.
    pub fn may_say(&self, address: Option<IpAddr>, now: Instant) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= STRANGERS_MAX {
            said.retain(|_, at| now.duration_since(*at) < SELDOM);
        }
        match said.get(&address) {
            Some(at) if now.duration_since(*at) < SELDOM => false,
            None if said.len() >= STRANGERS_MAX => false,
            _ => {
                said.insert(address, now);
                true
            }
        }
    }
}

fn escape(text: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(text.len() + 16);
    for &byte in text {
        if breaks_line(byte) {
            line.extend(byte.escape_ascii());
        } else {
            line.push(byte);
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_begin_a_line() {
        assert_eq!(
            escape("x\nERROR\r\0 \u{e9}".as_bytes()),
            "x\\nERROR\\r\\x00 \u{e9}\n".as_bytes()
        );
    }
}
