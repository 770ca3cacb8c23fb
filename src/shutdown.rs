//! Signals and what they ask for.
//!
//! ```text
//! serving --SIGTERM--> draining clients --second signal, shutdown_timeout--> stopping --> exit 0
//!         --SIGINT---> draining servers --/
//!         --SIGQUIT--> stopping
//!         --SIGHUP---> reload, serving
//! ```

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// SIGTERM: clients leave at the end of their transactions.
    DrainClients,
    /// SIGINT: transactions end, then the process does.
    DrainServers,
    /// SIGQUIT: stop at once.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals that the pooler listens to.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
}

impl Signals {
    /// From now on these signals no longer kill the process.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one. Dropped midway, none is lost.
    pub async fn next(&mut self) -> Ask {
        tokio::select! {
            _ = self.terminate.recv() => Ask::DrainClients,
            _ = self.interrupt.recv() => Ask::DrainServers,
            _ = self.quit.recv() => Ask::Stop,
            _ = self.hangup.recv() => Ask::Reload,
        }
    }
}
