//! What an idle client costs in memory: many log in, each asks once, and stays.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use rustls::ClientConfig;

use crate::client::{BUFFER, Client};
use crate::peers::{DATABASE, Running, SERVERS, USER};
use crate::pgbench::Link;
use crate::process::resident_bytes;
use crate::tls;

/// Long enough for an allocator to give back what it holds only for a while.
const SETTLE: Duration = Duration::from_secs(5);

/// What each client asks once.
const REPLY_3_KB: &str = "SELECT repeat('x', 3000)";

/// What one of them asks at the end.
const REPLY_10_MB: &str = "SELECT repeat('x', 10000000)";

/// Resident bytes of the contestant, a client.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) per_client: f64,
    /// The same after one of the clients had a reply of 10 MB.
    pub(crate) per_client_after_large: f64,
}

/// Logs in so many clients and looks at the contestant's memory before and after.
pub(crate) fn run(
    clients: usize,
    link: Link,
    peer: &Running,
    directory: &Path,
) -> io::Result<Memory> {
    let none = || io::Error::other("BUG: the memory of no process");
    let pid = peer.pid().ok_or_else(none)?;
    let mut buffer = vec![0; BUFFER];
    let tls = match link {
        Link::Plain => None,
        Link::Tls | Link::TlsScram => Some(tls::config(directory)?),
    };
    let mut log_in = |clients| log_in(clients, peer, tls.as_ref(), &mut buffer);
    // All server connections are there, and every path was taken once, before the first look.
    drop(log_in(SERVERS * 4)?);
    sleep(SETTLE);
    let before = resident_bytes(pid)?;
    let grown = |now: u64| (now as f64 - before as f64) / clients as f64;

    let mut idle = log_in(clients)?;
    sleep(SETTLE);
    let per_client = grown(resident_bytes(pid)?);

    let one = idle.first_mut().ok_or_else(none)?;
    one.query(REPLY_10_MB, &mut buffer, |_| ())?;
    sleep(SETTLE);
    Ok(Memory {
        per_client,
        per_client_after_large: grown(resident_bytes(pid)?),
    })
}

fn log_in(
    clients: usize,
    peer: &Running,
    tls: Option<&Arc<ClientConfig>>,
    buffer: &mut [u8],
) -> io::Result<Vec<Client>> {
    let one = |_| {
        let mut client = match tls {
            None => Client::connect(peer.port, USER, DATABASE)?,
            Some(tls) => Client::connect_by_tls(peer.port, USER, DATABASE, tls)?,
        };
        client.query(REPLY_3_KB, buffer, |_| ())?;
        Ok(client)
    };
    (0..clients).map(one).collect()
}
