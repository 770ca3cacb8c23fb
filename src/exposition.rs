//! The metrics endpoint: `/metrics`, `/healthz`, `/readyz`.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::registry::Registry;

/// The endpoint, and what it has to say of the process.
#[derive(Debug)]
pub(crate) struct Exposition {
    accepting: Cell<bool>,
}

impl Exposition {
    /// Whether new clients are let in.
    pub(crate) fn set_accepting(&self, accepting: bool) {
        self.accepting.set(accepting);
    }
}

/// Starts it.
#[expect(clippy::unused_async, reason = "stub")]
pub(crate) async fn start(
    _registry: Arc<Registry>,
    _listen: Option<SocketAddr>,
) -> io::Result<Exposition> {
    Ok(Exposition {
        accepting: Cell::new(true),
    })
}
