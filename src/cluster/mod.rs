//! Clusters: the hosts of a primary and its replicas, and which of them takes writes.
//!
//! Roles are observed, not configured: every login says whether the server is in recovery
//! (`in_hot_standby`, PostgreSQL 14 and later), so the primary is known without a question. A
//! replica is never used as a primary: its connection is closed and the next host tried.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::config::{self, Role};
use crate::error::LoginError;
use crate::net::Address;
use crate::pool::limit::Limit;
use crate::pool::{Candidate, Locate};
use crate::server::Welcome;

/// A host and what it has to bear.
#[derive(Debug)]
pub struct Host {
    /// Where it listens.
    pub address: Address,
    /// Where it stands.
    pub datacenter: String,
    role: Option<Role>,
    logins: Arc<Limit>,
    connections: Arc<Limit>,
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
}

impl Cluster {
    /// As configured; `logins_parallel` is `server_connect_parallel`.
    #[must_use]
    pub fn new(config: &config::Cluster, logins_parallel: usize) -> Arc<Self> {
        let hosts = config.hosts.iter().map(|h| Host {
            address: Address::new(&h.host, h.port),
            datacenter: h.datacenter.clone(),
            role: h.role,
            logins: Limit::new(Some(logins_parallel)),
            connections: Limit::new(config.max_server_connections.count()),
        });
        Arc::new(Self {
            name: config.name.clone(),
            hosts: hosts.collect(),
            primary: AtomicUsize::new(0),
            state: AtomicU8::new(PrimaryState::Unknown as u8),
            born: Instant::now(),
            lost_at: AtomicU64::new(0),
        })
    }

    /// Changes what its hosts may be asked to bear.
    pub fn set_limits(&self, config: &config::Cluster, logins_parallel: usize) {
        for host in &self.hosts {
            host.logins.set_max(Some(logins_parallel));
            host.connections
                .set_max(config.max_server_connections.count());
        }
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
            _ if now.saturating_duration_since(self.born) > lost_at + LOST_MAX => {
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
            let ms = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.lost_at.store(ms, Ordering::Relaxed);
        }
        self.state.store(state as u8, Ordering::Relaxed);
    }

    fn position(&self, address: &Address) -> Option<usize> {
        self.hosts.iter().position(|h| h.address == *address)
    }

    /// Hosts that may be the primary: not those that the configuration calls replicas.
    fn eligible(&self) -> impl Iterator<Item = usize> {
        let n = self.hosts.len();
        let first = self.primary.load(Ordering::Relaxed);
        (0..n)
            .map(move |i| (first + i) % n)
            .filter(|&i| self.hosts[i].role != Some(Role::Replica))
    }
}

impl Locate for Cluster {
    fn candidates(&self) -> Vec<Candidate> {
        let mut eligible: Vec<usize> = self.eligible().collect();
        if eligible.is_empty() {
            // Replicas alone: whoever configured that wants to read from one.
            eligible.push(0);
        }
        if let Some(pinned) = eligible
            .iter()
            .copied()
            .find(|&i| self.hosts[i].role == Some(Role::Primary))
        {
            eligible = vec![pinned];
        }
        let candidate = |i: usize| Candidate {
            address: self.hosts[i].address.clone(),
            logins: Arc::clone(&self.hosts[i].logins),
            connections: Arc::clone(&self.hosts[i].connections),
        };
        eligible.into_iter().map(candidate).collect()
    }

    fn inspect(&self, address: &Address, welcome: &Welcome) -> bool {
        let in_recovery = welcome.find("in_hot_standby") == Some("on");
        if in_recovery && self.candidates().len() > 1 {
            return false;
        }
        if let Some(at) = self.position(address) {
            let before = self.primary.swap(at, Ordering::Relaxed);
            if before != at {
                tracing::info!(cluster = %self.name, host = %address, "this host is the primary now");
            }
        }
        self.set_state(PrimaryState::Found);
        true
    }

    fn failed(&self, address: &Address, error: &LoginError) {
        let was_primary = self.position(address) == Some(self.primary.load(Ordering::Relaxed));
        if was_primary && error.outlook() != crate::error::Outlook::Permanent {
            self.set_state(PrimaryState::Lost);
        }
    }

    fn nobody(&self, errors: Vec<String>) -> LoginError {
        self.set_state(PrimaryState::Lost);
        LoginError::NoPrimary {
            cluster: self.name.clone(),
            why: errors.join("; "),
        }
    }
}
