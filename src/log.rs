//! Where the log goes: the standard error, one line an event.
//!
//! Names of users and databases, and errors that quote them, come from strangers. A line break in
//! one must not begin a line of the log that the pooler never wrote.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The standard error, for events that are each written at once.
#[derive(Debug, Clone, Copy)]
pub struct OneLine;

impl Write for OneLine {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = event.strip_suffix(b"\n").unwrap_or(event);
        if text.iter().any(|&b| breaks_line(b)) {
            io::stderr().write_all(&escape(text))?;
        } else {
            io::stderr().write_all(event)?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
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
