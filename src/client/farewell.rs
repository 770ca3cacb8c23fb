//! What becomes of a server whose client has left it in the middle of something, or changed.
//!
//! ```text
//! busy --cancel--> draining --nothing owed--> (in a transaction --ROLLBACK-->) (dirty --reset-->) released
//!   any state --deadline, or too much to read--> closed
//! ```
//! This runs beside the clients: the reply that a client waits for is sent before its server is
//! cleaned (trap 11).

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pooler_protocol::backend::TransactionStatus;
use pooler_protocol::frame::write_message;
use pooler_protocol::frontend::{self, tag};
use pooler_protocol::ledger::{Deal, Request};
use pooler_protocol::prepared::NO_STATEMENT;

use super::{Counted, Hub};
use crate::config::PoolMode;
use crate::error::ServerFault;
use crate::pool::Checkout;
use crate::server::Server;
use crate::timer;

/// When a server still works after a cancel, another is sent; then after twice that, and so on.
const CANCEL_AGAIN: Duration = Duration::from_millis(200);

/// A Bind behind its names: no formats, no values, no formats of results.
const NO_VALUES: [u8; 6] = [0; 6];

/// How long a server may take to come to rest.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// What may be read and thrown away for a client that has gone; a connection is cheaper than more.
const DISCARD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Gives a server back that owes nothing: at once if nothing was changed, else when it is clean.
pub(super) fn clean_and_release(checkout: Checkout) {
    if !checkout.needs_cleaning() {
        return release_if_reusable(checkout);
    }
    tokio::task::spawn_local(async move {
        let mut checkout = checkout;
        let host = checkout.identity.host.clone();
        match timer::timeout(SETTLE_MAX, clean(&mut checkout)).await {
            Ok(Ok(())) => release_if_reusable(checkout),
            Ok(Err(e)) => tracing::debug!(server = %host, "closed instead of cleaned: {e}"),
            Err(_elapsed) => tracing::warn!(server = %host, "closed: not clean in {SETTLE_MAX:?}"),
        }
    });
}

fn release_if_reusable(checkout: Checkout) {
    // Without proof it is closed.
    let Some(proof) = checkout.reusable() else {
        return;
    };
    // It serves only clients with its own parameters: they must not pass those with others.
    let by_session = checkout.pool().shared().plan().settings.pool_mode == PoolMode::Session;
    if by_session && checkout.is_due_elsewhere() {
        checkout.close();
    } else {
        checkout.release(proof, Instant::now());
    }
}

/// Brings a server whose client has left to rest, and gives it back or closes it. `interrupt`: what
/// runs is cancelled, because nobody waits for it.
pub(super) fn settle(hub: &Rc<Hub>, checkout: Checkout, half_sent: bool, interrupt: bool) {
    // The rest of that message will never come; PostgreSQL forgets the half when it sees the end.
    if half_sent || checkout.said_goodbye {
        return close(hub, checkout);
    }
    if checkout.ledger.outstanding() == 0 && checkout.ledger.reusable().is_some() {
        return clean_and_release(checkout);
    }
    let hub = Rc::clone(hub);
    tokio::task::spawn_local(async move {
        let mut checkout = checkout;
        let host = checkout.identity.host.clone();
        let rest = bring_to_rest(&hub, &mut checkout, interrupt);
        match timer::timeout(SETTLE_MAX, rest).await {
            Ok(Ok(())) => release_if_reusable(checkout),
            Ok(Err(e)) => tracing::debug!(server = %host, "closed after its client left: {e}"),
            Err(_elapsed) => {
                tracing::warn!(server = %host, "closed: did not come to rest in {SETTLE_MAX:?}");
            }
        }
    });
}

async fn bring_to_rest(
    hub: &Rc<Hub>,
    checkout: &mut Checkout,
    interrupt: bool,
) -> Result<(), ServerFault> {
    let interrupt = interrupt && is_working(checkout);
    abandon_batch(checkout);
    let mut pause = CANCEL_AGAIN;
    loop {
        // It may have begun after the client left.
        fail_copy(checkout);
        // A cancel that lands between two statements hits neither of them: hence again and again.
        if interrupt && checkout.ledger.is_busy() {
            cancel(hub, checkout);
        }
        if let Ok(rested) = timer::timeout(pause, drain(checkout)).await {
            rested?;
            break;
        }
        pause *= 2;
    }
    checkout.cancels.wait().await;
    if checkout.ledger.status() != TransactionStatus::Idle {
        checkout.ask("ROLLBACK", |_, _| ()).await?;
    }
    clean(checkout).await
}

/// Whether it runs something that a cancel can end.
fn is_working(server: &Server) -> bool {
    server.ledger.is_busy() && !server.ledger.is_copying_in()
}

/// Closes a server that cannot be brought to rest. What it runs is cancelled first: PostgreSQL sees
/// a closed connection only when it next reads or writes.
pub(super) fn close(hub: &Rc<Hub>, checkout: Checkout) {
    if !is_working(&checkout) {
        return;
    }
    cancel(hub, &checkout);
    tokio::task::spawn_local(async move {
        checkout.cancels.wait().await;
    });
}

fn cancel(hub: &Rc<Hub>, checkout: &Checkout) {
    if checkout.identity.cancel_key.is_empty() {
        return;
    }
    let Some(flying) = checkout.cancels.take_off() else {
        return;
    };
    // The cancel must not overtake what it is to cancel.
    let _sent_all = checkout.stream.has_sent_all();
    checkout.pool().counters().cancels.add(1);
    let limit = cancel_limit(checkout);
    let identity = Arc::clone(&checkout.identity);
    let canceller = hub.canceller.clone();
    // A shutdown waits for it as for a session: what runs would go on without the pooler.
    let counted = Counted::new(&hub.registry);
    tokio::task::spawn_local(async move {
        canceller.send(identity, flying, limit).await;
        drop(counted);
    });
}

fn cancel_limit(checkout: &Checkout) -> Duration {
    let limit = checkout.pool().shared().plan().settings.cancel_wait_timeout;
    limit.unwrap_or(SETTLE_MAX)
}

/// Ends a batch that the client left open, so that ReadyForQuery comes. The client never sent the
/// Sync that would have committed it: an error in front of ours undoes it.
fn abandon_batch(server: &mut Server) {
    fail_copy(server);
    if server.ledger.is_unsynced() && !server.ledger.is_discarding() {
        let names = frontend::BindView {
            portal: b"",
            statement: b"",
        };
        server.outbox.append(|out| {
            frontend::write_bind_front(out, &names, NO_VALUES.len() + 2, NO_STATEMENT);
            out.extend_from_slice(&NO_VALUES);
        });
        let _sent = server.ledger.request(Request::Bind, Deal::Skip, 0);
    }
    put_sync(server);
}

/// Breaks off a COPY that the server waits for data of.
fn fail_copy(server: &mut Server) {
    if !server.ledger.is_copying_in() {
        return;
    }
    server.outbox.append(|out| {
        write_message(out, tag::COPY_FAIL, |b| {
            b.extend_from_slice(b"the client went away\0");
        });
    });
    let _sent = server.ledger.request(Request::CopyEnd, Deal::Skip, 0);
    put_sync(server);
}

/// One Sync too many is answered like any other.
fn put_sync(server: &mut Server) {
    server.outbox.append(frontend::write_sync);
    let _sent = server.ledger.request(Request::Sync, Deal::Skip, 0);
}

async fn drain(server: &mut Server) -> Result<(), ServerFault> {
    let nobody = &mut |_: u8, _: &[u8]| ();
    server.absorb_at_most(DISCARD_BYTES_MAX, nobody).await
}

/// Takes away what the last client changed.
async fn clean(checkout: &mut Checkout) -> Result<(), ServerFault> {
    if !checkout.needs_cleaning() {
        return Ok(());
    }
    // In a pool by session the operator chooses how to clean, or not to; elsewhere everything goes.
    let settings = Arc::clone(&checkout.pool().shared().plan().settings);
    let query = match settings.pool_mode {
        PoolMode::Session => settings.server_reset_query.as_str(),
        PoolMode::Transaction | PoolMode::Statement => "DISCARD ALL",
    };
    if query.is_empty() {
        checkout.dirty = false;
        checkout.suspect = false;
        return Ok(());
    }
    checkout.ask(query, |_, _| ()).await?;
    let nothing = checkout.pool().commons().interners.no_settings();
    checkout.settings = nothing;
    checkout.statements.clear();
    checkout.dirty = false;
    checkout.suspect = false;
    Ok(())
}
