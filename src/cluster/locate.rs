//! A cluster as pools see it: where to open their servers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Cluster, PrimaryState};
use crate::config::Role;
use crate::error::{LoginError, Outlook};
use crate::net::Address;
use crate::pool::{Candidate, Locate};
use crate::server::Welcome;

fn is_in_recovery(welcome: &Welcome) -> bool {
    welcome.find("in_hot_standby") == Some("on")
}

impl Cluster {
    /// Hosts that may be the primary: not those that the configuration calls replicas.
    fn eligible(&self) -> impl Iterator<Item = usize> {
        let n = self.hosts.len();
        let first = self.primary.load(Ordering::Relaxed);
        (0..n)
            .map(move |i| (first + i) % n)
            .filter(|&i| self.hosts[i].role != Some(Role::Replica))
    }
}

/// The primary, whichever host that is.
impl Locate for Cluster {
    fn candidates(&self) -> Vec<Candidate> {
        if self.is_monitored() {
            return self
                .primary()
                .map(super::Host::candidate)
                .into_iter()
                .collect();
        }
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
        eligible
            .into_iter()
            .map(|i| self.hosts[i].candidate())
            .collect()
    }

    fn inspect(&self, address: &Address, welcome: &Welcome) -> bool {
        if self.is_monitored() {
            let is_primary = self.primary().is_some_and(|h| h.address == *address);
            if is_in_recovery(welcome) || !is_primary {
                self.call();
                return false;
            }
            self.note_writable();
            return true;
        }
        if is_in_recovery(welcome) && self.candidates().len() > 1 {
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
        if error.outlook() == Outlook::Permanent {
            return;
        }
        let let_in = matches!(error, LoginError::Unanswered { .. });
        if self.is_monitored() {
            self.call();
        } else if !let_in && self.position(address) == Some(self.primary.load(Ordering::Relaxed)) {
            self.set_state(PrimaryState::Lost);
        }
    }

    fn nobody(&self, errors: Vec<String>) -> LoginError {
        if !self.is_monitored() {
            self.set_state(PrimaryState::Lost);
        }
        LoginError::NoPrimary {
            cluster: self.name.clone(),
            why: errors.join("; "),
        }
    }

    fn trouble(&self) -> Option<String> {
        let why = self.no_primary()?;
        Some(format!("cluster {:?} has no primary: {why}", self.name))
    }

    fn alarm(&self) {
        self.call();
    }
}

/// One of a cluster's replicas, for as long as it is one.
#[derive(Debug)]
pub struct ReplicaOf {
    cluster: Arc<Cluster>,
    host: usize,
}

impl ReplicaOf {
    /// Host number `host` of `cluster`.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>, host: usize) -> Self {
        Self { cluster, host }
    }
}

impl Locate for ReplicaOf {
    fn candidates(&self) -> Vec<Candidate> {
        vec![self.cluster.hosts[self.host].candidate()]
    }

    fn inspect(&self, _address: &Address, welcome: &Welcome) -> bool {
        // Before PostgreSQL 14 a server does not say; the monitor does.
        let said = welcome.find("in_hot_standby");
        let replica = match said {
            Some(said) => said == "on",
            None => self.cluster.hosts[self.host].is_replica_up(),
        };
        if !replica {
            self.cluster.call();
        }
        replica
    }

    fn failed(&self, _address: &Address, error: &LoginError) {
        if error.outlook() != Outlook::Permanent {
            self.cluster.call();
        }
    }

    fn nobody(&self, errors: Vec<String>) -> LoginError {
        LoginError::NoPrimary {
            cluster: self.cluster.name.clone(),
            why: errors.join("; "),
        }
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    fn alarm(&self) {
        self.cluster.call();
    }
}
