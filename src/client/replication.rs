//! Replication connections: each has a server connection of its own, and every byte goes through
//! as it is (PostgreSQL documentation, "Streaming Replication Protocol").

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use pooler_protocol::startup::{Replication, Startup};
use pooler_protocol::statement::Marks;

use super::admit::{Admission, Parts};
use super::seat::{CancelKey, Order, Phase, Seated};
use super::session::server_line;
use super::{Drain, Hub};
use crate::admin::{Census, ClientLine, ServerLine, Standing};
use crate::error::{ClientLoginError, LoginError, Refusal};
use crate::net::Stream;
use crate::pool::{Pool, liveness};
use crate::server::Server;
use crate::server::login::{Target, login};

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
    let (mut server, connection) = server;
    server.welcome.write(&server.settings, &mut out);
    pooler_protocol::backend::write_ready_idle(&mut out);
    stream.write_all(&out).await?;
    server.stream.write_all(&received).await?;
    let (key, now) = (CancelKey::random(0), Instant::now());
    let seat = hub.seats.take(Arc::clone(&pool), key, now);
    // Never overdue: what is within the stream is not looked at.
    seat.enter(Phase::Active, Instant::now());
    let lines = Lines::new(&pool, &startup, &stream, &server, now);
    let mut copy = pin!(tokio::io::copy_bidirectional(
        &mut stream,
        &mut server.stream
    ));
    std::future::poll_fn(|cx| {
        seat.set_waker(cx.waker());
        if is_told_to_end(hub, &seat, &pool, &lines) {
            // It has no end of its own, and an error could stand in the middle of a message.
            tracing::debug!("replication connection closed");
            return Poll::Ready(());
        }
        if hub.standstill.is_on() {
            return Poll::Pending;
        }
        let ended = std::task::ready!(copy.as_mut().poll(cx));
        if let Err(e) = ended {
            tracing::debug!("replication connection ended: {e}");
        }
        Poll::Ready(())
    })
    .await;
    drop((connection, permits));
    Ok(())
}

/// By a shutdown, by an operator, or by a reload that took its database away.
fn is_told_to_end(hub: &Hub, seat: &Seated, pool: &Pool, lines: &Lines) -> bool {
    let mut ended = false;
    for order in seat.take_orders() {
        match order {
            Order::Describe(census) => lines.describe(seat.id(), &census),
            Order::End(_) | Order::Abort => ended = true,
            _ => {}
        }
    }
    let draining = matches!(hub.draining.get(), Some(Drain::Clients | Drain::Now));
    ended || draining || pool.is_retired()
}

/// What the console shows of a replication connection: nothing of it changes.
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
        let client = ClientLine {
            id: 0,
            user: startup.user().to_owned(),
            database: pool.key.database.clone(),
            // It holds no server of any pool, and nobody waits for it.
            pool_name: String::new(),
            standing: Standing::Active,
            since: now,
            peer: stream.peer(),
            local: stream.local(),
            tls: stream.encryption(),
            replication,
            connected: now,
            waiting: None,
            transaction: None,
            query: None,
            text: String::new(),
            application_name: name.map_or(String::new(), |(_, v)| v.to_owned()),
            statements: 0,
            server: Some((server.identity.id, server.identity.process_id)),
            pins: Marks::default(),
            pinned: None,
            held: None,
            doing: "active",
            listens: false,
            received: 0,
            unsent: 0,
        };
        let server = ServerLine {
            replication,
            ..server_line(&pool.key, server)
        };
        Self { client, server }
    }

    fn describe(&self, id: u64, census: &Census) {
        census.add_client(ClientLine {
            id,
            ..self.client.clone()
        });
        census.add_server(ServerLine {
            client: Some(id),
            ..self.server.clone()
        });
    }
}

type Opened = (Server, crate::pool::limit::Permit);

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
        let tried = tokio::time::timeout(limit, login(&target)).await;
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
