//! Waiting for a server of a pool: what a client is told that has waited in vain, and logins that wait.
//!
//! A login has no session yet. While it waits for servers it has the seat of its session all the same, so that it is seen
//! and reached as a session is that waits: SHOW CLIENTS and SHOW QUEUE name it, the sweep ends it when its time is up, and
//! so do KILL_CLIENT, a reload that takes its database away, and a shutdown.
//!
//! ```text
//!   seated --its pool never had a server, or none is free--> waiting --its turn--> seated
//!   seated --it has what it needs, and nothing stands still--> the session's
//!   seated, waiting --told to end, overdue, in vain, the pooler drains--> refused
//!   seated, waiting --its client leaves--> gone
//! ```

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pooler_protocol::naming::SETTING;
use pooler_protocol::startup::Startup;

use super::Hub;
use super::seat::{CancelKey, Order, Phase, Seated, waiting_in_vain};
use crate::admin::{ClientLine, Standing};
use crate::error::{ClientLoginError, LoginError, Refusal};
use crate::net::Stream;
use crate::pool::{Checkout, LocalPool, Pool, Wait};
use crate::registry::Registry;
use crate::status;

/// Bytes that a client may send before it is let in.
const EARLY_LEN_MAX: usize = 64 * 1024;

/// A client that has proved who it is, and has to wait for its session.
pub(super) struct Newcomer<'a> {
    hub: &'a Hub,
    pub(super) local: &'a Rc<LocalPool>,
    /// What is shown of it, as far as that stays the same.
    pub(super) line: ClientLine,
    seat: Seated,
    /// Its place in the queue, while it has one.
    wait: RefCell<Option<Wait>>,
}

impl<'a> Newcomer<'a> {
    pub(super) fn new(
        hub: &'a Hub,
        local: &'a Rc<LocalPool>,
        user: &str,
        startup: &Startup,
        stream: &Stream,
    ) -> Self {
        let pool = local.shared();
        let key = CancelKey::random(startup.accepted_minor());
        let now = Instant::now();
        let seat = hub.seats.take(Arc::clone(pool), key, now);
        let named = startup
            .settings()
            .filter(|(n, _)| n.eq_ignore_ascii_case(SETTING));
        let line = ClientLine {
            pool_name: pool.key.to_string(),
            application_name: named.last().map_or(String::new(), |(_, v)| status::name(v)),
            ..ClientLine::idle(seat.id(), user, &pool.key.database, stream, now)
        };
        Self {
            hub,
            local,
            line,
            seat,
            wait: RefCell::default(),
        }
    }

    /// The pool in which it is to have its session.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        self.local.shared()
    }

    /// When it began to wait.
    pub(super) fn since(&self) -> Instant {
        self.line.since
    }

    /// The seat, for its session.
    pub(super) fn into_seat(self) -> Seated {
        self.seat
    }

    /// Does `work`, within which it waits; others can reach it meanwhile. Dropped midway, it has left.
    ///
    /// # Errors
    /// Those of `work`, and that it was told to end, or has left.
    pub(super) async fn attend<T>(
        &self,
        stream: &mut Stream,
        received: &mut Vec<u8>,
        work: impl Future<Output = Result<T, ClientLoginError>>,
    ) -> Result<T, ClientLoginError> {
        let gone = until_gone(stream, received);
        tokio::pin!(gone, work);
        std::future::poll_fn(|cx| {
            self.seat.set_waker(cx.waker());
            for order in self.seat.take_orders() {
                if let Some(end) = self.obey(order) {
                    return Poll::Ready(Err(end));
                }
            }
            // Not by an order: it may have come here behind that.
            if self.hub.draining.get().is_some() {
                return Poll::Ready(Err(Refusal::draining().into()));
            }
            match work.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(done),
                Poll::Pending => gone.as_mut().poll(cx).map(Err),
            }
        })
        .await
    }

    /// Waits until `event`, as one who waits for a server.
    pub(super) async fn wait_for<T>(&self, event: impl Future<Output = T>) -> T {
        // However often it has to wait, it has one time for all.
        self.seat.enter(Phase::Waiting, self.since());
        let done = event.await;
        self.seat.enter(Phase::Idle, Instant::now());
        done
    }

    /// A server, waited for like one for a transaction. Dropped midway, it leaves the queue.
    ///
    /// # Errors
    /// Why none can be opened.
    pub(super) async fn checkout(&self) -> Result<Checkout, Arc<LoginError>> {
        if let Some(checkout) = self.local.try_checkout() {
            return Ok(checkout);
        }
        let now = Instant::now();
        let wait = self.local.wait(now)?;
        self.pool().line_up();
        let place = Place::take(self, wait);
        let served = self
            .wait_for(std::future::poll_fn(|cx| place.poll(cx)))
            .await;
        if served.is_ok() {
            self.local.counters().wait_seconds.record(now.elapsed());
        }
        served
    }

    /// What nothing of a login comes before: that nothing stands still any more, and its turn among other logins.
    pub(super) async fn step_in(&self) {
        while self.hub.standstill.is_on() {
            self.hub.standstill.wait_until_over().await;
        }
        self.hub.turns.take().await;
    }

    /// How the login ends, if it is to.
    fn obey(&self, order: Order) -> Option<ClientLoginError> {
        let refusal = match order {
            Order::Describe(census) => {
                census.add_client(self.describe());
                return None;
            }
            Order::LookUp if self.pool().is_retired() => Refusal::reconfigured(),
            Order::LookUp => {
                let settings = Arc::clone(&self.pool().plan().settings);
                self.seat.set_settings(settings);
                return None;
            }
            Order::End(refusal) | Order::StopWaiting(refusal) => *refusal,
            Order::WaitTimeout(limit) => self.waited_too_long(limit),
            Order::Abort => return Some(ClientLoginError::Gone("it was told to".to_owned())),
            // It runs nothing, has nothing unsent, and drivers expect no notice here.
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

    fn describe(&self) -> ClientLine {
        let (phase, since) = self.seat.standing();
        let waiting = self.wait.borrow().as_ref().map(Wait::since);
        ClientLine {
            standing: match phase {
                Phase::Waiting => Standing::Waiting,
                _ => Standing::Idle,
            },
            since,
            waiting,
            ..self.line.clone()
        }
    }

    fn waited_too_long(&self, limit: Duration) -> Refusal {
        match &*self.wait.borrow() {
            Some(wait) => waited_too_long(&self.hub.registry, wait, &self.line.user, limit),
            None => self.pool().no_first_server(),
        }
    }
}

/// A login's place in the queue, until this is dropped.
struct Place<'a>(&'a RefCell<Option<Wait>>, &'a Hub);

impl<'a> Place<'a> {
    fn take(newcomer: &'a Newcomer<'_>, wait: Wait) -> Self {
        *newcomer.wait.borrow_mut() = Some(wait);
        Self(&newcomer.wait, newcomer.hub)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Checkout, Arc<LoginError>>> {
        // What ends that wakes it.
        if self.1.standstill.is_on() {
            return Poll::Pending;
        }
        match &mut *self.0.borrow_mut() {
            Some(wait) => wait.poll(cx),
            None => Poll::Pending,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let _left = self.0.take();
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
    if let Some(error) = pool.failing(Instant::now()) {
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
