//! The server of a client in a pool by session: there from the login on, and the client's until it
//! leaves, as on a direct connection.
//!
//! ```text
//!   (none) --logged in with the client's own parameters, asked what that depended on--> born
//!   born --all of that since the client has come--> attached
//!   born --for somebody who did not wait, or for min_pool_size--> idle
//!   attached --the client leaves: rolled back, server_reset_query--> idle
//!   attached --the same, and somebody with other parameters has waited longer than anybody with these--> closed
//!   idle --a client with equal parameters; asked again, and nothing has changed--> attached
//!   idle --asked again, and something has changed--> closed, and the client waits for another
//!   idle --the pool is full, and somebody waits who has other parameters--> closed
//! ```
//! What is reset goes back to what the server was born with. So one that is older than the wish for it is handed out only
//! if a server that is born now would be the same (`server/birth.rs`). Doubt closes.

use std::sync::Arc;
use std::time::Duration;

use pooler_protocol::naming::{Facts, SETTING};
use pooler_protocol::settings::push_set_config;

use super::admit::Prepared;
use super::queue::Newcomer;
use crate::error::{ClientLoginError, Refusal, ServerFault};
use crate::net::host_name;
use crate::timer;

/// How long a server may take to answer.
const ASK_MAX: Duration = Duration::from_secs(5);

/// A server that was started with what the client asked for. A client that leaves meanwhile leaves
/// the queue. Dropped midway, the server is closed.
///
/// # Errors
/// [`ClientLoginError`]: the server's own words if it refuses what the client asked for.
pub(super) async fn attach(newcomer: &Newcomer<'_>) -> Result<Prepared, ClientLoginError> {
    let server = loop {
        let served = newcomer.checkout().await;
        let mut server = served.map_err(|e| e.refusal_of_parameters())?;
        let is_new = !server.used && server.conceived >= newcomer.since();
        if is_new || server.is_as_born(&newcomer.pool().key.user).await {
            break server;
        }
        server.close();
    };
    let mut prepared = Prepared {
        welcome: Arc::clone(&server.welcome),
        settings: newcomer.local.commons().interners.no_settings(),
        server: Some(server),
    };
    give_name(&mut prepared, newcomer).await?;
    Ok(prepared)
}

/// What a client is called toward its server, if that is not its own name: the server is told, and so is the client. It
/// goes when the server is reset.
///
/// # Errors
/// That the server is gone.
async fn give_name(prepared: &mut Prepared, newcomer: &Newcomer<'_>) -> Result<(), Refusal> {
    let pool = newcomer.pool();
    let settings = Arc::clone(&pool.plan().settings);
    let template = &settings.application_name;
    let Some(server) = prepared.server.as_mut().filter(|_| !template.is_identity()) else {
        return Ok(());
    };
    let frame = template.frame(&Facts {
        client: &newcomer.line.peer.to_string(),
        user: &newcomer.line.user,
        database: &pool.key.database,
        pooler: host_name(),
    });
    let asked = pool.key.startup.iter().rev();
    let own = asked
        .clone()
        .find(|(name, _)| name.eq_ignore_ascii_case(SETTING));
    let mut sql = String::new();
    let name = frame.fill(own.map_or("", |(_, value)| value));
    push_set_config(&mut sql, SETTING, Some(&name));
    let told = timer::timeout(ASK_MAX, server.ask(&sql, |_, _| ())).await;
    match told.unwrap_or(Err(ServerFault::Timeout)) {
        Ok(()) => {}
        Err(fault) => return Err(Refusal::server_gone(&server.identity.host, fault)),
    }
    prepared.welcome = Arc::clone(&server.welcome);
    Ok(())
}
