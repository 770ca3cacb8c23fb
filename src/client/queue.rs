//! Waiting for a server of a pool: what a client is told that has waited in vain, and logins that wait.
//!
//! A login has no session yet. In the queue it has a seat all the same, so that it is seen and reached as a session is that
//! waits: SHOW QUEUE and SHOW CLIENTS name it, by the number that its session has later, the sweep ends it when its time is
//! up, and so do KILL_CLIENT and a shutdown.
//!
//! ```text
//!   no server is free --a seat--> waiting --its turn--> served
//!   waiting --told to end, overdue, in vain, the pooler drains--> refused
//!   waiting --its client leaves--> gone
//! ```

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pooler_protocol::startup::Startup;

use super::Hub;
use super::seat::{CancelKey, Order, Phase, Seated, waiting_in_vain};
use crate::admin::{ClientLine, Standing};
use crate::error::{ClientLoginError, LoginError, Refusal};
use crate::net::{Peer, Stream};
use crate::pool::{Checkout, LocalPool, Pool, Wait};
use crate::registry::Registry;

/// Bytes that a client may send before it is let in.
const EARLY_LEN_MAX: usize = 64 * 1024;

/// A client that has proved who it is and has no session yet.
pub(super) struct Newcomer<'a> {
    pub(super) hub: &'a Rc<Hub>,
    pub(super) local: &'a Rc<LocalPool>,
    pub(super) user: &'a str,
    pub(super) startup: &'a Startup,
    pub(super) peer: Peer,
    pub(super) stream: &'a mut Stream,
    /// What it says before it is let in.
    pub(super) received: &'a mut Vec<u8>,
    /// The number that it was shown with.
    pub(super) id: Option<u64>,
}

/// Why a login gets no server.
#[derive(Debug)]
pub(super) enum NoServer {
    /// None can be opened.
    Login(Arc<LoginError>),
    /// It need not wait any longer.
    Ended(ClientLoginError),
}

impl NoServer {
    /// What becomes of the login.
    pub(super) fn end(self) -> ClientLoginError {
        match self {
            Self::Login(e) => e.refusal().into(),
            Self::Ended(end) => end,
        }
    }

    /// The same, if the server is to be started with parameters of the client's own.
    pub(super) fn end_of_parameters(self) -> ClientLoginError {
        match self {
            Self::Login(e) => e.refusal_of_parameters().into(),
            Self::Ended(end) => end,
        }
    }
}

impl Newcomer<'_> {
    /// The pool in which it is to have its session.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        self.local.shared()
    }

    /// A server, waited for like one for a transaction. Dropped midway, the login leaves the queue.
    ///
    /// # Errors
    /// [`NoServer`].
    pub(super) async fn checkout(&mut self) -> Result<Checkout, NoServer> {
        match self.local.try_checkout() {
            Some(checkout) => Ok(checkout),
            // Boxed: nearly no login waits.
            None => Box::pin(self.wait_in_line()).await,
        }
    }

    async fn wait_in_line(&mut self) -> Result<Checkout, NoServer> {
        let wait = self.local.wait(Instant::now()).map_err(NoServer::Login)?;
        self.pool().line_up();
        let since = wait.since();
        let seats = &self.hub.seats;
        let seat = seats.take(
            self.id,
            Arc::clone(self.pool()),
            CancelKey::random(0),
            since,
        );
        seat.enter(Phase::Waiting, since);
        self.id = Some(seat.id());
        let mut place = Place {
            hub: self.hub,
            user: self.user,
            line: self.line(seat.id(), since),
            wait,
            seat,
        };
        let gone = until_gone(self.stream, self.received);
        tokio::pin!(gone);
        std::future::poll_fn(|cx| match place.poll(cx) {
            Poll::Ready(served) => Poll::Ready(served),
            Poll::Pending => gone
                .as_mut()
                .poll(cx)
                .map(|gone| Err(NoServer::Ended(gone))),
        })
        .await
    }

    fn line(&self, id: u64, since: Instant) -> ClientLine {
        let key = &self.pool().key;
        let name = self
            .startup
            .settings()
            .find(|(n, _)| *n == "application_name");
        ClientLine {
            pool_name: key.to_string(),
            standing: Standing::Waiting,
            waiting: Some(since),
            application_name: name.map_or(String::new(), |(_, v)| v.to_owned()),
            ..ClientLine::idle(id, self.user, &key.database, self.stream, since)
        }
    }
}

/// A login's place in the queue.
struct Place<'a> {
    hub: &'a Hub,
    user: &'a str,
    line: ClientLine,
    wait: Wait,
    seat: Seated,
}

impl Place<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Checkout, NoServer>> {
        self.seat.set_waker(cx.waker());
        for order in self.seat.take_orders() {
            if let Some(end) = self.obey(order) {
                return Poll::Ready(Err(NoServer::Ended(end)));
            }
        }
        self.wait.poll(cx).map_err(NoServer::Login)
    }

    /// How the login ends, if it is to.
    fn obey(&self, order: Order) -> Option<ClientLoginError> {
        let refusal = match order {
            Order::Describe(census) => {
                census.add_client(self.line.clone());
                return None;
            }
            Order::LookUp => {
                let settings = &self.wait.pool().plan().settings;
                self.seat.set_settings(Arc::clone(settings));
                self.hub.draining.get()?;
                Refusal::draining()
            }
            Order::End(refusal) | Order::StopWaiting(refusal) => *refusal,
            Order::WaitTimeout(limit) => {
                waited_too_long(&self.hub.registry, &self.wait, self.user, limit)
            }
            Order::Abort => return Some(ClientLoginError::Gone("it was told to".to_owned())),
            // It runs nothing, has nothing unsent, and no server; drivers expect no notice here.
            Order::Cancel(_)
            | Order::Notify(_)
            | Order::Hosts(_)
            | Order::StandStill(_)
            | Order::Introduce(_) => return None,
        };
        Some(ClientLoginError::from(Refusal {
            fatal: true,
            ..refusal
        }))
    }
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

/// What a client is told whose `query_wait_timeout` has passed: how the queue is, and who is in the way.
pub(super) fn waited_too_long(
    registry: &Registry,
    wait: &Wait,
    user: &str,
    limit: Duration,
) -> Refusal {
    let pool = wait.pool();
    if let Some(trouble) = pool.plan().recipe.locate.trouble() {
        return Refusal::error("53400", format!("query_wait_timeout: {trouble}"))
            .detail(format!("This session has waited for {:.1?}.", wait.since().elapsed()))
            .hint("See whether a host was promoted, and whether the pooler's monitor_user can log in there.");
    }
    if let Some(error) = pool.last_failure() {
        return waiting_in_vain(&error);
    }
    let crowd = wait.crowd(&registry.family(pool));
    Refusal::error(
        "53400",
        format!(
            "query_wait_timeout: no server connection of {} became free in {limit:?}",
            pool.key
        ),
    )
    .detail(format!(
        "{} of {} server connections are in use; this session is number {} of {} in the \
         queue and has waited for {:.1?}; {}.",
        crowd.in_use,
        pool.plan().settings.pool_size,
        crowd.position,
        crowd.waiting,
        wait.since().elapsed(),
        match pool.holder() {
            Some(holder) => format!("longest of all, {}", holder.told_to(user)),
            None => "nobody has had one for long".to_owned(),
        }
    ))
    .hint(
        "Look for long transactions in this pool (SHOW QUEUE in the pooler's console says what they run), \
         raise pool_size, or raise query_wait_timeout.",
    )
}
