//! Clients: from an accepted socket to the end of its session.
//!
//! ```text
//! accepted --authenticate--> Authenticated --settle on a worker of its pool--> admit --> session
//! ```
//! A client logs in where it was accepted. Only then is its pool known, and with it the worker on
//! which it is to live; from there on it never moves.

use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::admin::{self, Desk};
use crate::buffer::SharedScratch;
use crate::cancel::Canceller;
use crate::error::{ClientLoginError, Refusal};
use crate::net::{DetachedStream, Peer, Stream};
use crate::pool::LocalPools;
use crate::registry::Registry;

mod account;
mod admit;
mod attach;
mod authenticate;
mod batch;
mod deadline;
mod door;
mod farewell;
mod gate;
mod oldest;
mod outside;
mod queue;
mod reception;
mod replication;
mod routes;
mod seat;
mod session;
mod standstill;
mod startup_settings;
mod talk;
mod turns;

use admit::Admission;
use authenticate::Admitted;
pub use deadline::Deadlines;
pub use door::{Door, Doorkeeper};
pub use oldest::Oldest;
pub use routes::RouteTable;
pub use seat::{HostNews, Order, Phase, Seats};
pub use standstill::Standstill;
use turns::Paced;
pub use turns::{Looks, Turns};

/// How long a login may take that begins while the worker drains. It is refused, unless it is an operator's by a Unix
/// socket; one that says nothing must not hold up the end.
const LATE_LOGIN_MAX: Duration = Duration::from_secs(2);

/// What a worker is asked to do about clients.
#[derive(Debug)]
pub enum Errand {
    /// This client lives with you.
    Settle(Box<Admission<DetachedStream>>, Counted),
    /// Cancel what the session on this seat runs, if this is its key.
    Cancel {
        /// The process id that it was told.
        process_id: i32,
        /// What the request shows.
        key: Box<[u8]>,
        /// Told when the cancel has landed; dropped if there is nothing to cancel.
        done: oneshot::Sender<()>,
    },
    /// The configuration has changed.
    Reloaded,
    /// Something has changed about the hosts of these pools' cluster.
    Hosts(Arc<HostNews>, Arc<HashSet<u64>>),
    /// Look at deadlines. It comes from outside so that a worker needs no timer: one would make
    /// each of its sleeps dearer.
    Sweep,
    /// The console asks.
    Console(admin::Errand),
    /// Stop serving.
    Drain(Drain),
    /// Nothing is left to do: end the worker.
    Stop,
}

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Clients leave at the end of their transactions.
    Clients,
    /// Transactions end, clients stay until the process does.
    Servers,
    /// Everything ends now.
    Now,
}

/// Where a worker takes errands about clients.
pub type Courier = UnboundedSender<Errand>;

/// What the clients of a worker share.
#[derive(Debug)]
pub struct Hub {
    /// The worker's number.
    pub worker: usize,
    /// What is configured.
    pub registry: Arc<Registry>,
    /// One for each worker.
    pub couriers: Vec<Courier>,
    /// The console's.
    pub desk: Arc<Desk>,
    /// The worker's buffers.
    pub scratch: SharedScratch,
    /// The worker's pools.
    pub pools: LocalPools,
    /// The worker's sessions.
    pub seats: Rc<Seats>,
    /// The longest transactions of its pools, as they were published last.
    pub oldest: Oldest,
    /// The worker's cancel requests.
    pub canceller: Canceller,
    /// The deadlines of logins under way.
    pub deadlines: Deadlines,
    /// How much of logins it does at once.
    pub turns: Rc<Turns>,
    /// Where its new clients went.
    pub doorkeeper: Doorkeeper,
    /// Where the statements of its pools may go.
    pub routes: RouteTable,
    /// Whether and how the worker is stopping.
    pub draining: Cell<Option<Drain>>,
    /// Whether its sessions are to stand still.
    pub standstill: Standstill,
}

/// A session that a shutdown waits for.
#[derive(Debug)]
pub struct Counted(Arc<Registry>);

impl Counted {
    fn new(registry: &Arc<Registry>) -> Self {
        registry.sessions.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(registry))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Hub {
    /// Begins to serve a client that was just accepted, to the end of its session or until it has
    /// settled on another worker.
    pub fn begin(self: &Rc<Self>, stream: Stream, peer: Peer) {
        // Boxed: a login is large, and tokio moves a task's future several times.
        let login = Box::pin(Rc::clone(self).let_in(stream, peer));
        tokio::task::spawn_local(Paced::new(Rc::clone(&self.turns), login));
    }

    async fn let_in(self: Rc<Self>, stream: Stream, peer: Peer) {
        let counted = Counted::new(&self.registry);
        let arrived = Instant::now();
        let limit = self.login_timeout();
        let login = authenticate::authenticate(&self, stream, peer, limit).await;
        let admission = match self.note_login(peer, login) {
            None => return,
            Some(Admitted::Session(mut admission)) => {
                admission.note_arrival(arrived);
                admission
            }
            Some(Admitted::Console(visitor)) => {
                // A shutdown does not wait for it: it is not counted.
                tokio::task::spawn_local(admin::serve(Arc::clone(&self.desk), visitor));
                return;
            }
        };
        let home = admission.home(self.worker);
        self.doorkeeper.note(home);
        if home == self.worker {
            return self.admit(admission, counted).await;
        }
        match admission.detach() {
            Ok(admission) => {
                let errand = Errand::Settle(Box::new(admission), counted);
                let settled = self.couriers[home].send(errand);
                if settled.is_err() {
                    tracing::debug!(%peer, "the worker has stopped");
                }
            }
            Err(e) => tracing::warn!(%peer, "cannot move a client to another worker: {e}"),
        }
    }

    /// Serves a client that has settled here.
    async fn serve_settled(self: Rc<Self>, admission: Admission<DetachedStream>, counted: Counted) {
        match admission.attach() {
            Ok(admission) => self.admit(Box::new(admission), counted).await,
            Err(e) => tracing::warn!("cannot take a client from another worker: {e}"),
        }
    }

    /// Ends with the login: what it leads to is a task of its own, because a session that lasts for
    /// days is not as large as its login was.
    async fn admit(self: &Rc<Self>, mut admission: Box<Admission>, counted: Counted) {
        let peer = admission.peer();
        if self.standstill.is_on() {
            let waited = self.wait_until_over(&mut admission).await;
            if self.note_login(peer, waited).is_none() {
                return;
            }
        }
        if admission.is_replication() {
            let hub = Rc::clone(self);
            tokio::task::spawn_local(async move {
                let served = replication::serve(&hub, admission).await;
                hub.note_login(peer, served);
                drop(counted);
            });
            return;
        }
        match admit::at_once(self, &admission) {
            Ok(Some(entry)) => self.begin_session(admission, counted, entry),
            Ok(None) => {
                // Not in the turns of logins: it may wait for long, and answers those who look.
                let hub = Rc::clone(self);
                tokio::task::spawn_local(Box::pin(hub.admit_in_time(admission, counted)));
            }
            Err(refusal) => self.end_login(&mut admission, refusal.into()).await,
        }
    }

    async fn admit_in_time(self: Rc<Self>, mut admission: Box<Admission>, counted: Counted) {
        match admit::in_time(&self, &mut admission).await {
            Ok(entry) => self.begin_session(admission, counted, entry),
            Err(end) => self.end_login(&mut admission, end).await,
        }
    }

    fn begin_session(
        self: &Rc<Self>,
        admission: Box<Admission>,
        counted: Counted,
        entry: admit::Entry,
    ) {
        let session = admit::begin(self, admission, counted, entry);
        let accepted = &self.registry.logins.accepted;
        accepted.fetch_add(1, Ordering::Relaxed);
        tokio::task::spawn_local(session);
    }

    async fn end_login(&self, admission: &mut Admission, end: ClientLoginError) {
        if let ClientLoginError::Refused(refusal) = &end {
            admission.refuse(refusal).await;
        }
        self.note_login(admission.peer(), Err::<(), _>(end));
    }

    /// While everything stands still nobody is let in; the login's time goes on, and a client that leaves gives its place
    /// back.
    async fn wait_until_over(&self, admission: &mut Admission) -> Result<(), ClientLoginError> {
        let limit = self.login_timeout();
        let left = limit.map(|limit| limit.saturating_sub(admission.age()));
        let waits = self.deadlines.within(left, async {
            tokio::select! {
                () = self.standstill.wait_until_over() => Ok(()),
                gone = admission.until_gone() => Err(gone),
            }
        });
        match waits.await {
            Ok(over) => over,
            Err(_elapsed) => {
                let refusal = match self.draining.get() {
                    Some(_) => Refusal::draining(),
                    None => Refusal::suspended(limit.unwrap_or_default()),
                };
                admission.refuse(&refusal).await;
                Err(refusal.into())
            }
        }
    }

    fn note_login<T>(&self, peer: Peer, result: Result<T, ClientLoginError>) -> Option<T> {
        let logins = &self.registry.logins;
        match result {
            Ok(value) => return Some(value),
            Err(ClientLoginError::Gone(why)) => {
                logins.abandoned.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%peer, "client left during login: {why}");
            }
            Err(ClientLoginError::Handshake(why)) => {
                logins.abandoned.fetch_add(1, Ordering::Relaxed);
                // Scanners come back every second.
                if logins.handshakes.may_say(peer.ip(), Instant::now()) {
                    tracing::info!(%peer, "the TLS handshake failed: {why}");
                } else {
                    tracing::debug!(%peer, "the TLS handshake failed: {why}");
                }
            }
            Err(ClientLoginError::Refused(refusal)) => {
                logins.refused.fetch_add(1, Ordering::Relaxed);
                logins.errors.note(&refusal.sqlstate);
                tracing::info!(%peer, sqlstate = %refusal.sqlstate, "login refused: {:?}", refusal.message);
            }
        }
        None
    }

    fn login_timeout(&self) -> Option<Duration> {
        let limit = self.registry.current().config.pooler.client_login_timeout;
        match self.draining.get() {
            Some(_) => Some(limit.unwrap_or(LATE_LOGIN_MAX).min(LATE_LOGIN_MAX)),
            None => limit,
        }
    }

    /// Does what was asked.
    pub fn run(self: &Rc<Self>, errand: Errand) {
        match errand {
            Errand::Settle(admission, counted) => {
                let hub = Rc::clone(self);
                let login = Box::pin(hub.serve_settled(*admission, counted));
                tokio::task::spawn_local(Paced::new(Rc::clone(&self.turns), login));
            }
            Errand::Cancel {
                process_id,
                key,
                done,
            } => {
                let own = self.seat_of(process_id);
                let own = own.and_then(|seat| self.seats.find(seat, &key));
                if let Some(seat) = own.or_else(|| self.seats.find_by_process(process_id, &key)) {
                    seat.order(Order::Cancel(Some(done)));
                }
            }
            // The worker itself does these.
            Errand::Stop | Errand::Sweep => {}
            Errand::Hosts(news, pools) => {
                self.seats
                    .order_those_of(&pools, || Order::Hosts(Arc::clone(&news)));
            }
            Errand::Console(errand) => self.run_for_console(errand),
            Errand::Reloaded => self.seats.order_all(|| Order::LookUp),
            Errand::Drain(Drain::Now) => {
                self.go_on();
                self.draining.set(Some(Drain::Now));
                self.deadlines.end_all();
                let refusal = Refusal::shutting_down();
                self.seats
                    .order_all(|| Order::End(Box::new(refusal.clone())));
            }
            Errand::Drain(drain) => {
                self.go_on();
                self.draining.set(Some(drain));
                // Half a login must not hold up the end.
                self.deadlines.end_all();
                self.seats.order_all(|| Order::LookUp);
            }
        }
    }

    /// Acts upon deadlines; a few times a second.
    pub fn sweep(&self, now: Instant) {
        if !self.standstill.is_on() {
            self.seats.sweep(now, &self.standstill);
        }
        // Behind it: a session that has an order already, such as to say who it is, is not looked at there.
        self.oldest.publish(self.worker, &self.seats, now);
        self.deadlines.sweep(now);
        self.routes.prune();
        self.pools.sweep(now);
    }

    /// The process id that a client of seat `seat` is told: unique among all workers.
    fn process_id(&self, seat: usize) -> i32 {
        let number = seat * self.couriers.len() + self.worker + 1;
        i32::try_from(number).unwrap_or(i32::MAX)
    }

    /// The seat here of a process id that a client was told.
    fn seat_of(&self, process_id: i32) -> Option<usize> {
        let number = usize::try_from(process_id).ok()?.checked_sub(1)?;
        let workers = self.couriers.len();
        (number % workers == self.worker).then_some(number / workers)
    }
}
