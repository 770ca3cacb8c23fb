//! Free ports on the loopback address.
//!
//! They lie below 32768, where no system takes the near end of an outgoing connection from, so that a port stays free
//! between the look and the use. Another process can still take it: whoever binds must be ready to try again.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

const FIRST: u16 = 10_240;
const LAST: u16 = 32_767;
const TRIES_MAX: usize = 500;

/// A port that nobody listens on at 127.0.0.1 just now; this process is never given the same one twice.
///
/// # Errors
/// `AddrInUse` when none was found in many tries.
pub fn free_port() -> io::Result<u16> {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_default();
    for _ in 0..TRIES_MAX {
        let port = rand::random_range(FIRST..=LAST);
        if given.contains(&port) {
            continue;
        }
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    let none = format!("no free port between {FIRST} and {LAST} on 127.0.0.1");
    Err(io::Error::new(io::ErrorKind::AddrInUse, none))
}
