//! Waiting for a server of a pool: what a client is told that has waited in vain, and logins that wait.
//!
//! A login has no session yet. While it waits for servers it has the seat of its session all the same, so that it is seen
//! and reached as a session is that waits: SHOW CLIENTS and SHOW QUEUE name it, the sweep ends it when its time is up, and
//! so do KILL_CLIENT, a reload that takes its database away, and a shutdown.
//!
//! ```text
//!   entering --its pool never had a server, or none is free--> waiting --its turn--> entering
//!   entering --it has what it needs, nothing stands still, and its server is still of the pool--> the session's
//!   waiting --told to end, overdue, in vain, the pooler drains, its client leaves--> refused or gone
//!   entering --the same--> refused or gone, when the server that it has can be given back
//! ```

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pooler_protocol::naming::SETTING;
use pooler_protocol::startup::Startup;
use tokio::sync::Notify;

use super::Hub;
use super::seat::{CancelKey, Order, Phase, Seated, waiting_in_vain};
use crate::admin::{ClientLine, Standing};
use crate::error::{ClientLoginError, LoginError, Refusal};
use crate::net::Stream;
use crate::pool::{Checkout, LocalPool, Pool, Wait};
use crate::registry::Registry;
use crate::server::Welcome;
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
    /// It had to wait.
    has_waited: Cell<bool>,
    /// How it ends, if it is to, and what it asked a server for had to be finished first.
    end: RefCell<Option<ClientLoginError>>,
    /// Woken when that is set.
    ended: Notify,
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
        seat.enter(Phase::Entering, now);
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
            has_waited: Cell::new(false),
            end: RefCell::default(),
            ended: Notify::new(),
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

    /// How it ends, if it is to.
    pub(super) fn end(&self) -> Option<ClientLoginError> {
        self.end.take()
    }

    /// The seat, for its session.
    pub(super) fn into_seat(self) -> Seated {
        self.seat
    }

    /// Does `work`, within which it waits; others can reach it meanwhile. Dropped midway, it has left.
    ///
    /// # Errors
    /// Those of `work`; and that it was told to end or has left while it waited. Otherwise [`Newcomer::end`] says that
    /// afterwards: a server that is asked something is not to be lost by it.
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
            let mut end = None;
            for order in self.seat.take_orders() {
                end = end.or(self.obey(order));
            }
            if self.end.borrow().is_none() {
                let end = end.or_else(|| self.overtaken());
                let end = end.or_else(|| match gone.as_mut().poll(cx) {
                    Poll::Ready(gone) => Some(gone),
                    Poll::Pending => None,
                });
                if end.is_some() {
                    *self.end.borrow_mut() = end;
                    self.ended.notify_one();
                }
            }
            if !self.may_end() {
                match work.as_mut().poll(cx) {
                    // It may be about to wait for something more.
                    Poll::Pending if self.may_end() => {}
                    done => return done,
                }
            }
            match self.end() {
                Some(end) => Poll::Ready(Err(end)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Whether it is to end, and has no server that it could lose by that.
    fn may_end(&self) -> bool {
        self.end.borrow().is_some() && self.seat.standing().0 == Phase::Waiting
    }

    /// What may have happened before it came here, so that no order tells it.
    fn overtaken(&self) -> Option<ClientLoginError> {
        if self.hub.draining.get().is_some() {
            return Some(Refusal::draining().into());
        }
        let retired = self.pool().is_retired();
        retired.then(|| Refusal::reconfigured().into())
    }

    /// Waits for `event`, as one who waits for a server.
    async fn wait_for<T>(&self, event: impl Future<Output = T>) -> T {
        self.has_waited.set(true);
        // However often it has to wait, it has one time for all.
        self.seat.enter(Phase::Waiting, self.since());
        let done = event.await;
        self.seat.enter(Phase::Entering, Instant::now());
        done
    }

    /// What servers of the pool say of themselves, also if there was none yet.
    ///
    /// # Errors
    /// What the client is to be told, if none can be opened.
    pub(super) async fn first_welcome(&self) -> Result<Arc<Welcome>, Refusal> {
        loop {
            match self.wait_for(self.pool().welcome()).await {
                // That time counts against nobody.
                Err(_) if self.hub.standstill.is_on() => self.wait_out_standstill().await,
                done => return done,
            }
        }
    }

    /// A server, waited for like one for a transaction. Dropped midway, it leaves the queue.
    ///
    /// # Errors
    /// Why none can be opened.
    pub(super) async fn checkout(&self) -> Result<Checkout, Arc<LoginError>> {
        self.wait_out_standstill().await;
        if self.end.borrow().is_some() {
            // Nothing more is begun for one that is to end, and here it may.
            return self.wait_for(std::future::pending()).await;
        }
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

    /// Waits until nothing stands still any more, and for its turn among other logins, if it has waited; not if it is to end.
    pub(super) async fn step_in(&self) {
        let ready = async {
            if self.has_waited.get() {
                self.hub.turns.take().await;
            }
            while self.hub.standstill.is_on() {
                self.hub.standstill.wait_until_over().await;
                self.hub.turns.take().await;
            }
        };
        tokio::select! {
            biased;
            () = self.ended.notified() => {}
            () = ready => {}
        }
    }

    async fn wait_out_standstill(&self) {
        if self.hub.standstill.is_on() {
            self.wait_for(self.hub.standstill.wait_until_over()).await;
        }
    }

    /// How the login ends, if it is to.
    fn obey(&self, order: Order) -> Option<ClientLoginError> {
        let refusal = match order {
            Order::Describe(census) => {
                census.add_client(self.describe());
                return None;
            }
            Order::LookUp => {
                let settings = Arc::clone(&self.pool().plan().settings);
                self.seat.set_settings(settings);
                return None;
            }
            Order::End(refusal) | Order::StopWaiting(refusal) => *refusal,
            Order::WaitTimeout(limit) => self.waited_too_long(limit),
            Order::Abort => return Some(ClientLoginError::Gone("it was told to".to_owned())),
            // Nothing of its client's runs or is unsent; drivers expect no notice here; and a server that is outdated is
            // noticed before it steps in.
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
        let waits = phase == Phase::Waiting;
        ClientLine {
            standing: Standing::Waiting,
            since,
            waiting: waits.then(|| self.since()),
            ..self.line.clone()
        }
    }

    fn waited_too_long(&self, limit: Duration) -> Refusal {
        let (pool, key) = (self.pool(), &self.pool().key);
        if let Some(wait) = &*self.wait.borrow() {
            return waited_too_long(&self.hub.registry, wait, &self.line.user, limit);
        }
        if let Some(refusal) = no_server_to_be_had(pool, self.since()) {
            return refusal;
        }
        if pool.is_paused() {
            let message = format!("query_wait_timeout: {key} was paused for all of {limit:?}");
            return Refusal::error("53400", message)
                .hint("An operator has said PAUSE in the pooler's console; RESUME ends it.");
        }
        let message =
            format!("query_wait_timeout: no server of {key} could be opened in {limit:?}");
        Refusal::error("53400", message)
            .hint("See SHOW POOLS and the limits on server connections.")
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

/// What a client is told that has waited since then, if it is not for others that it got nothing.
fn no_server_to_be_had(pool: &Pool, since: Instant) -> Option<Refusal> {
    let Some(trouble) = pool.plan().recipe.locate.trouble() else {
        let error = pool.failing(Instant::now())?;
        return Some(waiting_in_vain(&error));
    };
    let refusal = Refusal::error("53400", format!("query_wait_timeout: {trouble}"))
        .detail(format!("This session has waited for {:.1?}.", since.elapsed()))
        .hint("See whether a host was promoted, and whether the pooler's monitor_user can log in there.");
    Some(refusal)
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
