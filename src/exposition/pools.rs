//! How pools are doing at one moment.

use std::sync::Arc;
use std::time::Instant;

use super::totals::Totals;
use crate::metrics::ExemplarRow;
use crate::pool::{Numbers, Pool};
use crate::relay::KINDS;

/// One line of every metric of pools.
#[derive(Debug, Clone)]
pub(super) struct PoolSample {
    pub(super) database: String,
    pub(super) user: String,
    /// Of a replica's pool, the replica.
    pub(super) host: Option<Arc<str>>,
    /// Of a replica's pool, where the replica stands; the primary of a pool may be another tomorrow.
    pub(super) datacenter: Option<Arc<str>>,
    /// How it is doing; nothing of a pool that is forgotten but for what it had counted.
    pub(super) gauges: Option<Gauges>,
    pub(super) totals: Totals,
    /// Of its transactions, some that are traced.
    pub(super) exemplars: Option<Box<ExemplarRow>>,
}

impl PoolSample {
    /// With those of `pool`.
    pub(super) fn add_exemplars(&mut self, pool: &Pool) {
        for counters in pool.all_counters() {
            counters.transaction_exemplars.add_to(&mut self.exemplars);
        }
    }
}

/// How a pool is doing now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Gauges {
    pub(super) clients_active: usize,
    pub(super) clients_waiting: usize,
    pub(super) clients_idle: usize,
    pub(super) servers_active: usize,
    pub(super) servers_idle: usize,
    pub(super) servers_connecting: usize,
    pub(super) size: usize,
    pub(super) oldest_wait_seconds: f64,
    pub(super) oldest_checkout_seconds: f64,
    /// Clients that keep a server, by reason (see `relay::KINDS`).
    pub(super) pins: [u64; KINDS.len()],
}

impl Gauges {
    /// The numbers are not taken in one step, so differences are cut at zero.
    pub(super) fn new(numbers: &Numbers, size: usize, now: Instant) -> Self {
        let age = |since: Option<Instant>| {
            since.map_or(0.0, |s| now.saturating_duration_since(s).as_secs_f64())
        };
        let idle = numbers.idle;
        let active = numbers.servers.saturating_sub(numbers.connecting + idle);
        let not_waiting = numbers.clients.saturating_sub(numbers.waiting);
        // A server may be in use though its client has gone: it comes to rest.
        let clients_active = active.min(not_waiting);
        Self {
            clients_active,
            clients_waiting: numbers.waiting,
            clients_idle: not_waiting - clients_active,
            servers_active: active,
            servers_idle: idle,
            servers_connecting: numbers.connecting,
            size,
            oldest_wait_seconds: age(numbers.oldest_since),
            oldest_checkout_seconds: age(numbers.oldest_checkout),
            pins: [0; KINDS.len()],
        }
    }

    /// With the clients that `pool` keeps servers for.
    pub(super) fn with_pins(mut self, pool: &Pool) -> Self {
        for counters in pool.all_counters() {
            for (sum, count) in self.pins.iter_mut().zip(&counters.pins) {
                // The end first: what came in between must not make it fall below zero.
                let ended = count.ended.value();
                *sum += count.begun.value().saturating_sub(ended);
            }
        }
        self
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.clients_active += other.clients_active;
        self.clients_waiting += other.clients_waiting;
        self.clients_idle += other.clients_idle;
        self.servers_active += other.servers_active;
        self.servers_idle += other.servers_idle;
        self.servers_connecting += other.servers_connecting;
        self.size += other.size;
        self.oldest_wait_seconds = self.oldest_wait_seconds.max(other.oldest_wait_seconds);
        self.oldest_checkout_seconds = self
            .oldest_checkout_seconds
            .max(other.oldest_checkout_seconds);
        for (mine, its) in self.pins.iter_mut().zip(other.pins) {
            *mine += its;
        }
    }
}
