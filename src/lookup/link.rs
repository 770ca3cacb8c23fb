//! The connections that look-ups go by.

use std::time::Instant;

use pooler_protocol::backend::{ErrorView, read_data_row, tag};
use pooler_protocol::frame::write_message;
use pooler_protocol::frontend::{self, write_parse, write_sync};
use pooler_protocol::ledger::{Deal, Request};
use zeroize::Zeroizing;

use super::{Address, DOWN_FOR, Lookup, LookupError, Row, Server, lock};
use crate::error::ServerFault;
use crate::pool::Locate as _;
use crate::server::login::{Target, login};
use crate::timer;

/// Bytes of an answer.
const ANSWER_LEN_MAX: usize = 1 << 20;

impl Lookup {
    /// The first `rows_max` rows of `sql` with `value` for `$1`.
    pub(super) async fn ask(
        &self,
        sql: &str,
        value: &str,
        rows_max: u32,
    ) -> Result<Vec<Row>, LookupError> {
        let turn = self.turns.acquire().await;
        let _turn = turn.map_err(|_closed| LookupError::Ending)?;
        // One that idled may have broken: then a fresh one is asked.
        if let Some(mut server) = self.take_idle() {
            match ask(&mut server, sql, value, rows_max).await {
                Err(ServerFault::Settings(message)) => {
                    self.keep(server);
                    return Err(LookupError::Query(message));
                }
                Ok(rows) => {
                    self.keep(server);
                    return Ok(rows);
                }
                Err(fault) => tracing::debug!("the connection for look-ups was lost: {fault}"),
            }
        }
        let mut server = self.log_in().await?;
        match ask(&mut server, sql, value, rows_max).await {
            Ok(rows) => {
                self.keep(server);
                Ok(rows)
            }
            Err(ServerFault::Settings(message)) => {
                self.keep(server);
                Err(LookupError::Query(message))
            }
            Err(fault) => Err(LookupError::Unreachable(format!(
                "{}: {fault}",
                server.identity.host
            ))),
        }
    }

    /// A connection that is good for another question; to the primary, if it is known which that is.
    fn take_idle(&self) -> Option<Server> {
        let primary = self.recipe.cluster.primary().map(|host| &host.address);
        let mut idle = lock(&self.idle);
        while let Some((server, _)) = idle.pop() {
            let Ok(mut server) = server.attach() else {
                continue;
            };
            let right = primary.is_none_or(|primary| *primary == server.identity.address);
            if right && server.judge_idle().is_ok() {
                return Some(server);
            }
            server.terminate();
        }
        None
    }

    fn keep(&self, mut server: Server) {
        if server.reusable().is_some() && !self.recipe.cluster.is_retired() {
            if let Ok(server) = server.detach() {
                lock(&self.idle).push((server, Instant::now()));
            }
        } else {
            server.terminate();
        }
    }

    /// Where to ask: the primary, or whoever may be it; then the others, which have the same users.
    fn addresses(&self) -> Vec<Address> {
        let cluster = &self.recipe.cluster;
        let candidates = cluster.candidates();
        let mut addresses: Vec<_> = candidates.into_iter().map(|c| c.address).collect();
        for host in cluster.hosts() {
            if !addresses.contains(&host.address) {
                addresses.push(host.address.clone());
            }
        }
        addresses
    }

    async fn log_in(&self) -> Result<Server, LookupError> {
        if let Some((at, error)) = &*lock(&self.down)
            && at.elapsed() < DOWN_FOR
        {
            return Err(error.clone());
        }
        let addresses = self.addresses();
        // One that does not answer must leave time for the others.
        let limit = self.recipe.timeout / u32::try_from(addresses.len() + 1).unwrap_or(u32::MAX);
        let mut errors = Vec::new();
        for address in addresses {
            let host = address.to_string();
            match timer::timeout(limit, self.log_in_at(address)).await {
                Ok(Ok(server)) => return Ok(server),
                Ok(Err(e)) => errors.push(e),
                Err(_elapsed) => errors.push(format!("{host} does not answer")),
            }
        }
        let error = LookupError::Unreachable(errors.join("; "));
        *lock(&self.down) = Some((Instant::now(), error.clone()));
        Err(error)
    }

    async fn log_in_at(&self, address: Address) -> Result<Server, String> {
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let target = Target {
            address,
            database: &self.recipe.dbname,
            user: &self.recipe.user,
            credentials: &self.recipe.credentials,
            // What is set for the database or for auth.user must not change what a query means.
            parameters: &[
                own("application_name", "pooler auth"),
                own("search_path", "pg_catalog"),
                own("client_encoding", "UTF8"),
            ],
            liveness: self.recipe.liveness,
            no_settings: self.recipe.no_settings.clone(),
            tls: self.recipe.tls.clone(),
        };
        let opened = login(&target).await;
        opened.map(|(server, _)| server).map_err(|e| e.to_string())
    }
}

/// Asks by the extended protocol: a value is never part of the text.
async fn ask(
    server: &mut Server,
    sql: &str,
    value: &str,
    rows_max: u32,
) -> Result<Vec<Row>, ServerFault> {
    let mut out = Vec::new();
    let text = [sql.as_bytes(), b"\0\0\0"].concat();
    write_parse(&mut out, b"", &text);
    write_message(&mut out, frontend::tag::BIND, |b| {
        // Portal and statement without names, no formats, one parameter, no formats of results.
        b.extend_from_slice(b"\0\0\0\0\0\x01");
        let len = u32::try_from(value.len()).expect("BUG: a startup packet is short");
        b.extend_from_slice(&len.to_be_bytes());
        b.extend_from_slice(value.as_bytes());
        b.extend_from_slice(b"\0\0");
    });
    write_message(&mut out, frontend::tag::EXECUTE, |b| {
        b.push(0);
        b.extend_from_slice(&rows_max.to_be_bytes());
    });
    write_sync(&mut out);
    for request in [
        Request::Parse,
        Request::Bind,
        Request::Execute,
        Request::Sync,
    ] {
        let _entered = server.ledger.request(request, Deal::Skip, 0);
    }
    server.outbox.append(|bytes| bytes.append(&mut out));
    let (mut rows, mut failed) = (Vec::new(), None);
    let mut see = |tag, body: &[u8]| match tag {
        tag::DATA_ROW => {
            let own = |column: Option<&[u8]>| column.map(|c| Zeroizing::new(c.to_vec()));
            let row = read_data_row(body).unwrap_or_default();
            rows.push(row.into_iter().map(own).collect());
        }
        tag::ERROR_RESPONSE => {
            let error = ErrorView::new(body);
            let sqlstate = error.sqlstate().unwrap_or("XX000");
            failed = Some(format!("{} (SQLSTATE {sqlstate})", error.message()));
        }
        _ => {}
    };
    server.absorb_at_most(ANSWER_LEN_MAX, &mut see).await?;
    match failed {
        Some(message) => Err(ServerFault::Settings(message)),
        None => Ok(rows),
    }
}
