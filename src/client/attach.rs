//! The server of a client in a pool by session: there from the login on, and the client's until it
//! leaves, as on a direct connection.
//!
//! ```text
//!   (none) --logged in with the client's own parameters--> born --asked what its login depended on--> attached
//!   attached --the client leaves: rolled back, server_reset_query--> idle
//!   attached --the same, and somebody with other parameters has waited longer than anybody with these--> closed
//!   idle --a client with equal parameters; asked again, and nothing has changed--> attached
//!   idle --asked again, and something has changed--> closed, and the client waits for another
//!   born for somebody who did not wait --it cannot say what its login depended on--> closed, the same
//!   idle --the pool is full, and somebody waits who has other parameters--> closed
//! ```
//! What is reset goes back to what the server was born with. So one that served before is handed out
//! only if a server that is born now would be the same: its role and database, what they are allowed,
//! and what is set for them. Doubt closes.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pooler_protocol::backend::{read_data_row, tag};
use pooler_protocol::naming::{Facts, SETTING};
use pooler_protocol::settings::push_set_config;

use super::admit::Prepared;
use super::{Hub, farewell};
use crate::error::{ClientLoginError, Refusal, ServerFault};
use crate::net::{Peer, Stream, host_name};
use crate::pool::{Checkout, Pool};
use crate::timer;

/// Bytes that a client may send before it is let in.
const EARLY_LEN_MAX: usize = 64 * 1024;

/// How long a server may take to say what its login depended on.
const ASK_MAX: Duration = Duration::from_secs(5);

/// Who the server is logged in as, and what its login depended on besides: ASCII whatever
/// `client_encoding` is, and qualified, because `search_path` is the client's. A row that was
/// written anew has another `xmin` or `ctid`.
const BORN_AS: &str = "SELECT session_user, pg_catalog.concat_ws(' ', r.oid, r.rolsuper, r.rolcanlogin, d.oid, \
    d.datallowconn, pg_catalog.has_database_privilege(d.oid, 'CONNECT'), \
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws('/', s.setdatabase, s.setrole, s.xmin, s.ctid), ' ' \
        ORDER BY s.setdatabase, s.setrole) \
     FROM pg_catalog.pg_db_role_setting s \
     WHERE s.setdatabase OPERATOR(pg_catalog.=) ANY (ARRAY['0', d.oid]) \
     AND s.setrole OPERATOR(pg_catalog.=) ANY (ARRAY['0', r.oid]))) \
    FROM pg_catalog.pg_roles r, pg_catalog.pg_database d \
    WHERE r.rolname OPERATOR(pg_catalog.=) session_user \
    AND d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()";

/// A server that was started with what the client asked for. A client that leaves meanwhile leaves
/// the queue. Dropped midway, the server is closed.
///
/// # Errors
/// [`ClientLoginError`]: the server's own words if it refuses what the client asked for.
pub(super) async fn attach(
    hub: &Rc<Hub>,
    pool: &Arc<Pool>,
    stream: &mut Stream,
    received: &mut Vec<u8>,
) -> Result<Prepared, ClientLoginError> {
    let local = hub.pools.local(pool);
    let arrived = Instant::now();
    let server = loop {
        let served = tokio::select! {
            served = farewell::checkout(&local) => served,
            gone = until_gone(stream, received) => return Err(gone),
        };
        let mut server = served.map_err(|e| e.refusal_of_parameters())?;
        if !server.used {
            note_birth(&mut server, &pool.key.user).await?;
            if server.born_as.is_none() && server.born < arrived {
                // Opened for somebody else, and its role may be gone since.
                server.close();
                continue;
            }
            break server;
        }
        if is_as_born(&mut server, &pool.key.user).await {
            break server;
        }
    };
    Ok(Prepared {
        welcome: Arc::clone(&server.welcome),
        settings: hub.registry.commons.interners.no_settings(),
        server: Some(server),
    })
}

/// What a client is called toward its server, if that is not its own name: the server is told, and so is the client. It
/// goes when the server is reset.
///
/// # Errors
/// That the server is gone.
pub(super) async fn give_name(
    prepared: &mut Prepared,
    pool: &Pool,
    user: &str,
    peer: Peer,
) -> Result<(), Refusal> {
    let settings = Arc::clone(&pool.plan().settings);
    let template = &settings.application_name;
    let Some(server) = prepared.server.as_mut().filter(|_| !template.is_identity()) else {
        return Ok(());
    };
    let frame = template.frame(&Facts {
        client: &peer.to_string(),
        user,
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

/// Reads what a client says before it is let in; done when it has gone.
pub(super) async fn until_gone(stream: &mut Stream, received: &mut Vec<u8>) -> ClientLoginError {
    let mut buffer = [0; 1024];
    while received.len() < EARLY_LEN_MAX {
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => received.extend_from_slice(&buffer[..n]),
            Ok(_) => return ClientLoginError::Gone("while it waited to be let in".to_owned()),
            Err(e) => return e.into(),
        }
    }
    std::future::pending().await
}

/// Notes what the login of a server that was just opened depended on. One that cannot say, because of
/// a `statement_timeout` of the client's own, say, serves this client and no other.
async fn note_birth(server: &mut Checkout, user: &str) -> Result<(), Refusal> {
    match born_as(server, user).await {
        Ok(born_as) => server.born_as = born_as,
        Err(fault) => return Err(Refusal::server_gone(&server.identity.host, fault)),
    }
    Ok(())
}

/// Whether a server that is born now would be the same.
async fn is_as_born(server: &mut Checkout, user: &str) -> bool {
    let now = born_as(server, user).await.ok().flatten();
    now.is_some() && now == server.born_as
}

/// What the login depends on, as the server says now; nothing if it is not `user`'s, or cannot say.
async fn born_as(server: &mut Checkout, user: &str) -> Result<Option<Box<[u8]>>, ServerFault> {
    let mut says = None;
    let asked = server.ask(BORN_AS, |tag, body| {
        if tag == tag::DATA_ROW
            && let Some([Some(name), Some(rest)]) = read_data_row(body).as_deref()
            && *name == user.as_bytes()
        {
            says = Some(Box::from(*rest));
        }
    });
    match timer::timeout(ASK_MAX, asked).await {
        Ok(Ok(()) | Err(ServerFault::Settings(_))) if server.reusable().is_some() => Ok(says),
        Ok(Ok(()) | Err(ServerFault::Settings(_))) => Err(ServerFault::Closed),
        Ok(Err(fault)) => Err(fault),
        Err(_elapsed) => Err(ServerFault::Timeout),
    }
}
