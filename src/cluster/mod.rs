//! Clusters: the hosts of a primary and its replicas, which of them takes writes, and which may serve
//! reads.
//!
//! Roles are observed, not configured. With a `monitor_user` each host has a connection of the
//! monitor's own ([`monitor`]); what it sees is judged ([`watch`]) and published in atomics, which
//! workers read without a lock ([`select`]). Without one the primary is found by logins: each says
//! whether the server is in recovery (`in_hot_standby`, PostgreSQL 14 and later). A replica is never
//! used as a primary: its connection is closed and the next host tried.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::config::{self, ReadFallback, Role};
use crate::net::Address;
use crate::pool::Candidate;
use crate::pool::limit::Limit;

mod locate;
pub mod monitor;
pub mod position;
pub mod select;
pub mod watch;

pub use locate::ReplicaOf;
use position::{Due, Look, Position};
use watch::{Failure, Health, Limits, Observation, Verdict, Watch};

/// A host, what it has to bear, and what is known of it.
#[derive(Debug)]
pub struct Host {
    /// Where it listens.
    pub address: Address,
    /// Where it stands.
    pub datacenter: String,
    /// It stands where this pooler does.
    pub local: bool,
    /// Its share of the reads among equals.
    pub weight: u32,
    role: Option<Role>,
    logins: Arc<Limit>,
    connections: Arc<Limit>,
    known: Known,
}

/// What was made of the monitor's looks at a host.
#[derive(Debug, Default)]
struct Known {
    verdict: Mutex<Verdict>,
    /// Copies that are read without the lock.
    share: AtomicU32,
    replayed: AtomicU64,
    is_replica_up: AtomicBool,
}

impl Host {
    /// What is known of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        *lock(&self.known.verdict)
    }

    /// Its share of the reads, by its weight and by how long it has been back; 0: none.
    #[inline]
    #[must_use]
    pub fn share(&self) -> u32 {
        self.known.share.load(Ordering::Relaxed)
    }

    /// Up to where it has replayed what the primary has.
    #[inline]
    #[must_use]
    pub fn replayed(&self) -> Position {
        Position(self.known.replayed.load(Ordering::Relaxed))
    }

    /// Whether it is a replica that answers, however far behind.
    #[inline]
    #[must_use]
    pub fn is_replica_up(&self) -> bool {
        self.known.is_replica_up.load(Ordering::Relaxed)
    }

    fn publish(&self, verdict: Verdict) -> Verdict {
        let share = if verdict.fit {
            verdict.share * self.weight
        } else {
            0
        };
        let up = verdict.health == Health::Up && verdict.role == Some(Role::Replica);
        self.known
            .replayed
            .store(verdict.shared.0, Ordering::Relaxed);
        self.known.is_replica_up.store(up, Ordering::Relaxed);
        self.known.share.store(share, Ordering::Relaxed);
        std::mem::replace(&mut lock(&self.known.verdict), verdict)
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            address: self.address.clone(),
            logins: Arc::clone(&self.logins),
            connections: Arc::clone(&self.connections),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What has changed about a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Another host is the primary, or none.
    Primary {
        /// Before, if there was one at some time.
        old: Option<usize>,
        /// Now.
        new: Option<usize>,
    },
    /// A host can be reached no more.
    Lost(usize),
    /// A host is no replica any more.
    Promoted(usize),
    /// A host can be reached.
    Found(usize),
}

/// What is known of the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrimaryState {
    /// Nobody has tried.
    Unknown,
    /// The last login found it.
    Found,
    /// The last login did not, and that was not long ago.
    Lost,
}

/// How long a login that failed says something about the primary: longer than the pause between two
/// attempts. Without it a pooler that is sent no clients because it has no primary would never see
/// that there is one again.
const LOST_MAX: Duration = Duration::from_secs(30);

/// The hosts of one cluster.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    hosts: Vec<Host>,
    /// Index of the host that was the primary when last seen.
    primary: AtomicUsize,
    state: AtomicU8,
    born: Instant,
    /// In milliseconds after `born`: when the primary was last seen to be lost.
    lost_at: AtomicU64,
    /// The monitor looks at it.
    monitored: bool,
    /// The monitor sees nothing: logins have to do.
    blind: AtomicBool,
    watch: Mutex<Watch>,
    /// Looks that were begun.
    looks: AtomicU64,
    /// The last of them of which the primary's position is known.
    sampled: AtomicU64,
    /// As configured: see [`Cluster::read_fallback`].
    fallback: [AtomicU8; 3],
    call: Call,
    failovers: AtomicU64,
    /// Since when the new primary may have been one, until the first server is logged in there.
    promoted: Mutex<Option<Instant>>,
    /// In milliseconds: how long that took the last time.
    failover_took: AtomicU64,
    retired: AtomicBool,
    /// Its monitor was started.
    watched: AtomicBool,
}

/// Calls for a look at once.
#[derive(Debug, Default)]
struct Call {
    notify: Notify,
    /// In milliseconds after the cluster's birth: the last one.
    at: AtomicU64,
}

/// Calls for a look at once are heard this often.
const CALL_EVERY: Duration = Duration::from_millis(50);

/// Looks that may get no answer in time before a host counts as unknown.
const SILENT_LOOKS: u32 = 3;

/// The least time that an observation is good for: a busy host answers late.
const GOOD_FOR_MIN: Duration = Duration::from_secs(4);

fn limits(config: &config::Cluster) -> Limits {
    Limits {
        good_for: (config.monitor_interval * SILENT_LOOKS).max(GOOD_FOR_MIN)
            + config.monitor_interval,
        lag: config.max_replica_lag,
        lag_bytes: config.max_replica_lag_bytes,
    }
}

impl Cluster {
    /// As configured; `logins_parallel` is `server_connect_parallel`, `datacenter` where this pooler
    /// stands.
    #[must_use]
    pub fn new(config: &config::Cluster, logins_parallel: usize, datacenter: &str) -> Arc<Self> {
        let hosts = config.hosts.iter().map(|h| Host {
            address: Address::new(&h.host, h.port),
            datacenter: h.datacenter.clone(),
            local: h.datacenter == datacenter,
            weight: h.weight,
            role: h.role,
            logins: Limit::new(Some(logins_parallel)),
            connections: Limit::new(config.max_server_connections.count()),
            known: Known::default(),
        });
        let cluster = Self {
            name: config.name.clone(),
            hosts: hosts.collect(),
            primary: AtomicUsize::new(0),
            state: AtomicU8::new(PrimaryState::Unknown as u8),
            born: Instant::now(),
            lost_at: AtomicU64::new(0),
            monitored: config.monitor_user.is_some(),
            blind: AtomicBool::new(false),
            watch: Mutex::new(Watch::new(
                config.hosts.iter().map(|h| h.role),
                limits(config),
            )),
            looks: AtomicU64::new(0),
            sampled: AtomicU64::new(0),
            fallback: std::array::from_fn(|_| AtomicU8::new(0)),
            call: Call::default(),
            failovers: AtomicU64::new(0),
            promoted: Mutex::default(),
            failover_took: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            watched: AtomicBool::new(false),
        };
        cluster.set_fallback(&config.read_fallback);
        Arc::new(cluster)
    }

    /// Changes what its hosts may be asked to bear.
    pub fn set_limits(&self, config: &config::Cluster, logins_parallel: usize) {
        for host in &self.hosts {
            host.logins.set_max(Some(logins_parallel));
            host.connections
                .set_max(config.max_server_connections.count());
        }
        self.set_fallback(&config.read_fallback);
        lock(&self.watch).set_limits(limits(config));
    }

    fn set_fallback(&self, steps: &[ReadFallback]) {
        for (at, slot) in self.fallback.iter().enumerate() {
            let step = steps.get(at).map_or(0, |step| *step as u8 + 1);
            slot.store(step, Ordering::Relaxed);
        }
    }

    /// Where reads go, in this order, when no local replica can take them.
    pub fn read_fallback(&self) -> impl Iterator<Item = ReadFallback> {
        const STEPS: [ReadFallback; 3] = [
            ReadFallback::LocalPrimary,
            ReadFallback::RemoteReplica,
            ReadFallback::Primary,
        ];
        let slots = self.fallback.iter();
        slots.filter_map(|slot| {
            let step = slot.load(Ordering::Relaxed);
            STEPS.into_iter().find(|s| *s as u8 + 1 == step)
        })
    }

    /// It is no longer in the configuration: its monitor ends.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.call.notify.notify_waiters();
    }

    /// Whether it is no longer in the configuration.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Whether roles come from the monitor.
    #[must_use]
    pub fn is_monitored(&self) -> bool {
        self.monitored && !self.blind.load(Ordering::Relaxed)
    }

    /// How often another host became the primary.
    #[must_use]
    pub fn failovers(&self) -> u64 {
        self.failovers.load(Ordering::Relaxed)
    }

    /// From the last look that showed the new primary as a replica to the first server connection that
    /// could write there, at the last failover.
    #[must_use]
    pub fn failover_took(&self) -> Duration {
        Duration::from_millis(self.failover_took.load(Ordering::Relaxed))
    }

    /// A server is logged in on the primary.
    fn note_writable(&self) {
        if let Some(since) = lock(&self.promoted).take() {
            let took = since.elapsed();
            self.failover_took.store(millis(took), Ordering::Relaxed);
            tracing::info!(cluster = %self.name, "the new primary takes writes, {took:.1?} after it was last seen to be a replica");
        }
    }

    /// Looks that were begun so far: what is asked of the primary from now on has a larger number.
    #[inline]
    #[must_use]
    pub fn looks(&self) -> Look {
        self.looks.load(Ordering::SeqCst)
    }

    /// What a replica must have replayed for a write that ended when look number `look` had begun; nothing
    /// if there was none since.
    #[inline]
    #[must_use]
    pub fn due_after(&self, look: Look) -> Option<Due> {
        if self.sampled.load(Ordering::Acquire) <= look {
            return None;
        }
        lock(&self.watch).samples().after(look)
    }

    /// Has the monitor look at every host at once: somebody has been told that something has changed.
    pub fn call(&self) {
        let now = millis(self.born.elapsed());
        let before = self.call.at.load(Ordering::Relaxed);
        if now.saturating_sub(before) >= millis(CALL_EVERY)
            && self
                .call
                .at
                .compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.call.notify.notify_waiters();
        }
    }

    /// The number of a look that is about to be taken.
    fn begin_look(&self) -> Look {
        self.looks.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Notes what a look at `host` showed, and judges anew.
    fn note(
        &self,
        host: usize,
        look: Look,
        seen: Result<Observation, Failure>,
        now: Instant,
    ) -> Vec<Change> {
        let mut watch = lock(&self.watch);
        match seen {
            Ok(observation) => watch.seen(host, look, observation),
            Err(failure) => watch.failed(host, failure),
        }
        self.judge(&mut watch, now)
    }

    /// Whether its monitor is to be started: it is told so once.
    #[must_use]
    pub fn begin_watching(&self) -> bool {
        !self.watched.swap(true, Ordering::AcqRel)
    }

    /// Judges anew because time has passed.
    pub fn tick(&self, now: Instant) -> Vec<Change> {
        if !self.watched.load(Ordering::Acquire) {
            return Vec::new();
        }
        let changes = self.judge(&mut lock(&self.watch), now);
        for change in &changes {
            self.log(*change);
        }
        changes
    }

    fn judge(&self, watch: &mut Watch, now: Instant) -> Vec<Change> {
        let before = self.primary();
        let last = self.primary.load(Ordering::Relaxed);
        let never = self.state.load(Ordering::Relaxed) == PrimaryState::Unknown as u8;
        let old = (before.is_some() || !never).then_some(last);
        let verdicts = watch.judge(now);
        let new = watch.primary();
        let mut changes = Vec::new();
        for (at, (host, verdict)) in self.hosts.iter().zip(verdicts).enumerate() {
            let was = host.publish(verdict);
            let up = |v: Verdict| v.health == Health::Up;
            if up(was) && !up(verdict) {
                changes.push(Change::Lost(at));
            }
            if up(verdict) && !up(was) {
                changes.push(Change::Found(at));
            }
            if was.role == Some(Role::Replica) && verdict.role == Some(Role::Primary) {
                changes.push(Change::Promoted(at));
            }
        }
        if let Some(new) = new {
            self.primary.store(new, Ordering::Relaxed);
            if let Some(look) = watch.samples().last_look() {
                self.sampled.store(look, Ordering::Release);
            }
        }
        self.blind.store(watch.is_blind(), Ordering::Relaxed);
        if self.is_monitored() {
            match new {
                Some(_) => self.set_state(PrimaryState::Found),
                None if watch.has_looked() => self.set_state(PrimaryState::Lost),
                None => {}
            }
        }
        let had = before.and_then(|h| self.position(&h.address));
        if had != new {
            if old.is_some() && new.is_some() && new != old {
                self.failovers.fetch_add(1, Ordering::Relaxed);
                *lock(&self.promoted) = new.and_then(|new| watch.last_in_recovery(new));
            }
            changes.push(Change::Primary { old, new });
        }
        changes
    }

    fn log(&self, change: Change) {
        let name = &self.name;
        let host = |at: usize| &self.hosts[at].address;
        match change {
            Change::Primary { new: Some(new), .. } => {
                tracing::info!(cluster = %name, host = %host(new), "this host is the primary now");
            }
            Change::Primary { new: None, .. } => {
                let why = self.no_primary().unwrap_or_default();
                tracing::warn!(cluster = %name, "there is no primary: {why}");
            }
            Change::Lost(at) => {
                let why = lock(&self.watch).failure(at).unwrap_or_default();
                tracing::warn!(cluster = %name, host = %host(at), "the host cannot be reached: {why}");
            }
            Change::Found(at) => {
                tracing::info!(cluster = %name, host = %host(at), "the host can be reached");
            }
            Change::Promoted(at) => {
                tracing::info!(cluster = %name, host = %host(at), "the host is no replica any more");
            }
        }
        let outdated = lock(&self.watch).outdated_primary(Instant::now());
        if let Some((at, timeline, highest)) = outdated {
            tracing::warn!(
                cluster = %name, host = %host(at), timeline,
                "the host takes writes on a timeline that is outdated ({highest} was seen): it gets none before the configuration is reloaded"
            );
        }
    }

    /// Why nothing is known of `host`, or what the monitor minds about it.
    #[must_use]
    pub fn why_not(&self, host: usize) -> Option<String> {
        let watch = lock(&self.watch);
        let outdated = watch.outdated_primary(Instant::now());
        watch.failure(host).or_else(|| {
            let (at, timeline, highest) = outdated?;
            (at == host).then(|| {
                format!("takes writes on timeline {timeline}, and {highest} was seen elsewhere")
            })
        })
    }

    /// Why there is no primary, for those who wait for it.
    #[must_use]
    pub fn no_primary(&self) -> Option<String> {
        if !self.is_monitored() || self.primary().is_some() {
            return None;
        }
        let watch = lock(&self.watch);
        let said: Vec<String> = self
            .hosts
            .iter()
            .enumerate()
            .map(
                |(at, host)| match (watch.failure(at), host.verdict().role) {
                    (Some(why), _) => format!("{}: {why}", host.address),
                    (None, Some(Role::Replica)) => format!("{} is a replica", host.address),
                    (None, _) => format!("{} has not answered yet", host.address),
                },
            )
            .collect();
        Some(said.join("; "))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its hosts, as configured.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The number of the host that pools call `name`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.hosts
            .iter()
            .position(|h| h.address.to_string() == name)
    }

    /// The host of a pool: the replica of that name, or the primary.
    #[must_use]
    pub fn host_of(&self, replica: Option<&str>) -> Option<&Host> {
        match replica {
            Some(name) => self.find(name).map(|at| &self.hosts[at]),
            None => self.primary(),
        }
    }

    /// What is known of the primary.
    #[must_use]
    pub fn primary_state(&self) -> PrimaryState {
        self.primary_state_at(Instant::now())
    }

    /// The same, as it is at `now` if nobody tries before.
    #[must_use]
    pub fn primary_state_at(&self, now: Instant) -> PrimaryState {
        let lost_at = Duration::from_millis(self.lost_at.load(Ordering::Relaxed));
        match self.state.load(Ordering::Relaxed) {
            0 => PrimaryState::Unknown,
            1 => PrimaryState::Found,
            _ if !self.is_monitored()
                && now.saturating_duration_since(self.born) > lost_at + LOST_MAX =>
            {
                PrimaryState::Unknown
            }
            _ => PrimaryState::Lost,
        }
    }

    /// The host that was the primary when last seen.
    #[must_use]
    pub fn primary(&self) -> Option<&Host> {
        (self.primary_state() == PrimaryState::Found)
            .then(|| &self.hosts[self.primary.load(Ordering::Relaxed)])
    }

    fn set_state(&self, state: PrimaryState) {
        if state == PrimaryState::Lost {
            self.lost_at
                .store(millis(self.born.elapsed()), Ordering::Relaxed);
        }
        self.state.store(state as u8, Ordering::Relaxed);
    }

    fn position(&self, address: &Address) -> Option<usize> {
        self.hosts.iter().position(|h| h.address == *address)
    }

    /// Puts a verdict in force as if it had been judged.
    #[cfg(test)]
    fn publish_for_test(&self, host: usize, verdict: Verdict) {
        self.hosts[host].publish(verdict);
        if verdict.role == Some(Role::Primary) {
            self.primary.store(host, Ordering::Relaxed);
            self.set_state(PrimaryState::Found);
        } else if self.primary.load(Ordering::Relaxed) == host {
            self.set_state(PrimaryState::Lost);
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
