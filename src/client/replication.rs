//! Replication connections: each has a server connection of its own, and every byte goes through
//! as it is (PostgreSQL documentation, "Streaming Replication Protocol").

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use pooler_protocol::startup::{Replication, Startup};

use super::admit::{Admission, Parts};
use super::seat::{CancelKey, Order, Phase, Seated};
use super::session::server_line;
use super::standstill::Unquiet;
use super::{Drain, Hub};
use crate::admin::{Census, ClientLine, ServerLine, Standing};
use crate::error::{ClientLoginError, LoginError, Refusal};
use crate::net::Stream;
use crate::pool::limit::{Limit, Permit};
use crate::pool::{Holder, Pool, liveness};
use crate::server::Server;
use crate::server::login::{Target, login};
use crate::status;
use crate::timer;

mod pump;

use pump::Way;

/// Serves one to its end.
///
/// # Errors
/// [`ClientLoginError`]; a refusal has been sent already.
pub(super) async fn serve(
    hub: &Rc<Hub>,
    admission: Box<Admission>,
) -> Result<(), ClientLoginError> {
    let Parts {
        mut stream,
        mut out,
        received,
        startup,
        pool,
        permits,
    } = admission.into_parts();
    let server = match open(hub, &pool, &startup).await {
        Ok(server) => server,
        Err(refusal) => {
            refusal.write(&mut out);
            stream.write_all(&out).await?;
            return Err(refusal.into());
        }
    };
    let (server, connection) = server;
    server.welcome.write(&server.settings, &mut out);
    pooler_protocol::backend::write_ready_idle(&mut out);
    stream.write_all(&out).await?;
    let (key, now) = (CancelKey::random(0), Instant::now());
    let seat = hub.seats.take(Arc::clone(&pool), key, now);
    // Never overdue: what is within the stream is not looked at.
    seat.enter(Phase::Active, now);
    seat.set_outside(connection.limit());
    let mut link = Link {
        hub,
        lines: Lines::new(&pool, &startup, &stream, &server, now),
        pool,
        seat,
        limit: Arc::clone(connection.limit()),
        client: stream,
        server,
        to_server: Way::new(&received),
        to_client: Way::new(&[]),
        unquiet: None,
        introduced: Vec::new(),
    };
    std::future::poll_fn(|cx| link.poll(cx)).await;
    drop((link, connection, permits));
    Ok(())
}

/// One that is open.
struct Link<'a> {
    hub: &'a Hub,
    pool: Arc<Pool>,
    seat: Seated,
    /// What its connection to the server counts for.
    limit: Arc<Limit>,
    lines: Lines,
    client: Stream,
    server: Server,
    to_server: Way,
    to_client: Way,
    /// It is to stand still, and has something unsent.
    unquiet: Option<Rc<Unquiet>>,
    /// Pools whose waiters were told of it.
    introduced: Vec<Arc<Pool>>,
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        for pool in &self.introduced {
            pool.forget_holder(self.seat.id());
        }
    }
}

impl Link<'_> {
    /// Ready when it is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.seat.set_waker(cx.waker());
        if self.is_told_to_end() {
            // It has no end of its own, and an error could stand in the middle of a message.
            tracing::debug!("replication connection closed");
            return Poll::Ready(());
        }
        let moves = !self.hub.standstill.is_on();
        let (client, server) = (&mut self.client, &mut self.server.stream);
        let there = self.to_server.poll(cx, client, server, moves);
        let back = self.to_client.poll(cx, server, client, moves);
        if moves || self.unsent_len() == 0 {
            self.unquiet = None;
        }
        match (there, back) {
            (Poll::Ready(Err(e)), _) | (_, Poll::Ready(Err(e))) => {
                tracing::debug!("replication connection ended: {e}");
                Poll::Ready(())
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    fn unsent_len(&self) -> usize {
        self.to_server.unsent_len() + self.to_client.unsent_len()
    }

    /// By a shutdown, by an operator, or by a reload that took its database away.
    fn is_told_to_end(&mut self) -> bool {
        let mut ended = false;
        for order in self.seat.take_orders() {
            match order {
                Order::Describe(census) => self.describe(&census),
                Order::Introduce(pool) => self.introduce(pool),
                Order::StandStill(unquiet) => self.unquiet = Some(unquiet),
                Order::End(_) | Order::Abort => ended = true,
                _ => {}
            }
        }
        let draining = matches!(self.hub.draining.get(), Some(Drain::Clients | Drain::Now));
        ended || draining || self.pool.is_retired()
    }

    /// Tells those who wait for a server of the pool who has their place among the connections of the host.
    fn introduce(&mut self, waited_for: Arc<Pool>) {
        let line = &self.lines.client;
        let holder = Holder {
            client: self.seat.id(),
            application_name: status::name(&line.application_name),
            user: status::name(&line.user),
            peer: line.peer,
            state: line.doing,
            since: line.since,
        };
        waited_for.note_holder(self.hub.worker, Some(holder));
        if !self.introduced.iter().any(|pool| pool.id == waited_for.id) {
            self.introduced.push(waited_for);
        }
    }

    fn describe(&self, census: &Census) {
        let id = self.seat.id();
        let pools = self.limit.keeps_waiting(Instant::now());
        let names: Vec<String> = pools.iter().map(|pool| pool.key.to_string()).collect();
        census.add_client(ClientLine {
            id,
            unsent: self.to_client.unsent_len(),
            held: (!names.is_empty()).then_some(self.lines.client.since),
            keeps_waiting: names,
            ..self.lines.client.clone()
        });
        census.add_server(ServerLine {
            client: Some(id),
            unsent: self.to_server.unsent_len(),
            ..self.lines.server.clone()
        });
    }
}

/// What the console shows of a replication connection, as far as it does not change.
struct Lines {
    client: ClientLine,
    server: ServerLine,
}

impl Lines {
    fn new(pool: &Pool, startup: &Startup, stream: &Stream, server: &Server, now: Instant) -> Self {
        let replication = match startup.replication() {
            Replication::Database => "logical",
            Replication::Physical | Replication::No => "physical",
        };
        let name = startup.settings().find(|(n, _)| *n == "application_name");
        let database = &pool.key.database;
        let client = ClientLine {
            // Of no pool.
            standing: Standing::Active,
            replication,
            application_name: name.map_or(String::new(), |(_, v)| v.to_owned()),
            server: Some((server.identity.id, server.identity.process_id)),
            doing: "active",
            ..ClientLine::idle(0, startup.user(), database, stream, now)
        };
        let server = ServerLine {
            replication,
            ..server_line(&pool.key, server)
        };
        Self { client, server }
    }
}

type Opened = (Server, Permit);

async fn open(
    hub: &Rc<Hub>,
    pool: &Arc<Pool>,
    startup: &pooler_protocol::startup::Startup,
) -> Result<Opened, Refusal> {
    let plan = pool.plan();
    let value = match startup.replication() {
        Replication::Database => "database",
        Replication::Physical | Replication::No => "true",
    };
    let mut parameters = vec![("replication".to_owned(), value.to_owned())];
    let settings = startup.settings();
    parameters.extend(settings.map(|(n, v)| (n.to_owned(), v.to_owned())));
    let mut last = None;
    for candidate in plan.recipe.locate.candidates() {
        let Some(connection) = candidate.connections.try_take() else {
            continue;
        };
        let target = Target {
            address: candidate.address.clone(),
            database: &plan.recipe.dbname,
            user: &pool.key.user,
            credentials: &plan.recipe.credentials,
            parameters: &parameters,
            liveness: liveness(&plan.settings),
            no_settings: hub.registry.commons.interners.no_settings(),
            tls: Arc::clone(&plan.recipe.tls),
        };
        let limit = plan.settings.server_connect_timeout;
        let tried = timer::timeout(limit, login(&target)).await;
        match tried {
            Ok(Ok((server, _))) => {
                if plan
                    .recipe
                    .locate
                    .inspect(&candidate.address, &server.welcome)
                {
                    return Ok((server, connection));
                }
            }
            Ok(Err(e)) => last = Some(e),
            Err(_elapsed) => {
                let host = candidate.address.to_string();
                last = Some(LoginError::Timeout { host, limit });
            }
        }
    }
    Err(last.map_or_else(
        || Refusal::fatal("53300", "no host can take another replication connection"),
        |e| e.refusal_of_parameters(),
    ))
}
