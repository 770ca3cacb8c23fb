//! Cancelling what a server runs (PostgreSQL documentation, "Canceling Requests in Progress").
//!
//! A cancel names a server process, not a query: whoever has the server when it lands is hit. So
//! the server is handed to nobody while one flies ([`crate::server::CancelFlight`]), and it has
//! landed when PostgreSQL closes the connection that it came on: by then the signal is sent.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pooler_protocol::startup::encode_cancel_request;
use tokio::sync::Semaphore;

use crate::server::{Flying, Identity};
use crate::timer;
use crate::tls::Way;

/// Cancel requests that one worker has under way at a time; the others wait for their turn, so a
/// flood of them cannot take the descriptors that logins need (trap 15).
const UNDER_WAY_MAX: usize = 32;

/// The cancel requests of a worker.
#[derive(Debug, Clone)]
pub struct Canceller {
    turns: Rc<Semaphore>,
}

impl Default for Canceller {
    fn default() -> Self {
        Self {
            turns: Rc::new(Semaphore::new(UNDER_WAY_MAX)),
        }
    }
}

impl Canceller {
    /// Sends one and waits until it has landed, or `limit` has passed: then it is given up, and
    /// because it may still land, its server is not handed on. Returns whether it has landed.
    pub async fn send(&self, to: Arc<Identity>, flying: Flying, limit: Duration) -> bool {
        let under_way = Cell::new(false);
        let sent = timer::timeout(limit, async {
            let _turn = self.turns.acquire().await;
            deliver(&to, &under_way).await
        })
        .await;
        match sent {
            Ok(Ok(())) => true,
            Ok(Err(e)) => {
                // It may still be read.
                if under_way.get() {
                    flying.lose();
                }
                tracing::warn!(server = %to.host, "cannot send a cancel request: {e}");
                false
            }
            Err(_elapsed) => {
                flying.lose();
                tracing::warn!(server = %to.host, "a cancel request did not land in {limit:?}");
                false
            }
        }
    }
}

async fn deliver(to: &Identity, under_way: &Cell<bool>) -> std::io::Result<()> {
    let mut request = BytesMut::new();
    encode_cancel_request(to.process_id, &to.cancel_key, &mut request)
        .map_err(std::io::Error::other)?;
    let mut stream = match &to.tls {
        None => to.address.connect(to.liveness).await?,
        Some(tls) => {
            let opened = tls.open(Way::Tls, &to.address, to.liveness).await;
            opened.map_err(std::io::Error::other)?.stream
        }
    };
    under_way.set(true);
    stream.write_all(&request).await?;
    let mut nothing = [0; 64];
    while stream.read(&mut nothing).await? > 0 {}
    Ok(())
}
