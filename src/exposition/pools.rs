//! Numbers of the pools at one moment, added up over the workers.
//!
//! Each pool has labels of its own up to [`LABELLED_MAX`]; all others are one series, "other". That
//! sum never falls (to Prometheus a fall means that the process was started anew), so a pool that
//! was summed stays summed, and what it had counted stays in the sum when it is forgotten.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crate::metrics::{HistogramSum, OTHER_SQLSTATE, PoolCounters, SqlState, Why};
use crate::pool::{Numbers, Pool, PoolKey};
use crate::relay::KINDS;

/// Pools that have labels of their own: the first that are seen. Each costs some 200 lines.
pub(super) const LABELLED_MAX: usize = 500;

/// What all other pools are called, as database and as user.
pub(super) const OTHER: &str = "other";

/// SQLSTATEs that are told apart in one pool; the rest is "other".
const SQLSTATES_MAX: usize = 200;

/// One line of every metric of pools.
#[derive(Debug, Clone)]
pub(super) struct PoolSample {
    pub(super) database: String,
    pub(super) user: String,
    /// Of a replica's pool, the replica.
    pub(super) host: Option<Arc<str>>,
    pub(super) gauges: Gauges,
    pub(super) totals: Totals,
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
        }
    }

    fn add(&mut self, other: &Self) {
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
    }
}

/// What a pool has counted: the fields are those of [`PoolCounters`].
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub(super) queries: u64,
    pub(super) transactions: u64,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    pub(super) query_seconds: HistogramSum,
    pub(super) transaction_seconds: HistogramSum,
    pub(super) wait_seconds: HistogramSum,
    pub(super) connect_seconds: HistogramSum,
    pub(super) login_seconds: HistogramSum,
    pub(super) connect_failures: u64,
    pub(super) statements_prepared: u64,
    pub(super) statements_reused: u64,
    pub(super) statements_evicted: u64,
    pub(super) statements_retried: u64,
    pub(super) errors: BTreeMap<SqlState, u64>,
    pub(super) cancels: u64,
    pub(super) retried_on_primary: u64,
    /// Batches that came to the pool, by `Why::index`.
    pub(super) routed: [u64; Why::COUNT],
    /// Clients that keep a server now, by reason (see `relay::KINDS`).
    pub(super) pins: [u64; KINDS.len()],
}

impl Totals {
    fn add_pool(&mut self, pool: &Pool) {
        for counters in pool.all_counters() {
            self.add(counters);
        }
    }

    fn add(&mut self, counters: &PoolCounters) {
        self.queries += counters.queries.value();
        self.transactions += counters.transactions.value();
        self.received_bytes += counters.received_bytes.value();
        self.sent_bytes += counters.sent_bytes.value();
        counters.query_seconds.add_to(&mut self.query_seconds);
        counters
            .transaction_seconds
            .add_to(&mut self.transaction_seconds);
        counters.wait_seconds.add_to(&mut self.wait_seconds);
        counters.connect_seconds.add_to(&mut self.connect_seconds);
        counters.login_seconds.add_to(&mut self.login_seconds);
        self.connect_failures += counters.connect_failures.value();
        self.statements_prepared += counters.statements_prepared.value();
        self.statements_reused += counters.statements_reused.value();
        self.statements_evicted += counters.statements_evicted.value();
        self.statements_retried += counters.statements_retried.value();
        counters.errors.add_to(&mut self.errors);
        self.cancels += counters.cancels.value();
        self.retried_on_primary += counters.retried_on_primary.value();
        for (sum, count) in self.routed.iter_mut().zip(&counters.routed) {
            *sum += count.value();
        }
        for (sum, count) in self.pins.iter_mut().zip(&counters.pins) {
            // The end first: what came in between must not make it fall below zero.
            let ended = count.ended.value();
            *sum += count.begun.value().saturating_sub(ended);
        }
    }

    fn bound_errors(&mut self) {
        while self.errors.len() > SQLSTATES_MAX {
            let last = self.errors.keys().rev().find(|c| **c != OTHER_SQLSTATE);
            let Some(last) = last.copied() else { return };
            let n = self.errors.remove(&last).unwrap_or_default();
            *self.errors.entry(OTHER_SQLSTATE).or_default() += n;
        }
    }
}

/// Which pools have labels and which are summed; see the module.
#[derive(Debug)]
pub(super) struct Roll {
    labelled_max: usize,
    labelled: HashSet<u64>,
    summed: HashMap<u64, Arc<Pool>>,
    /// What pools had counted that were summed and are gone.
    gone: Totals,
    /// Whether there was ever a pool to sum.
    sums: bool,
}

impl Roll {
    pub(super) fn new(labelled_max: usize) -> Self {
        Self {
            labelled_max,
            labelled: HashSet::new(),
            summed: HashMap::new(),
            gone: Totals::default(),
            sums: false,
        }
    }

    /// The numbers of `pools`, which are all that there are; the sum of the others comes last.
    pub(super) fn sample(&mut self, mut pools: Vec<Arc<Pool>>, now: Instant) -> Vec<PoolSample> {
        pools.sort_unstable_by(|a, b| a.key.database.cmp(&b.key.database).then(a.id.cmp(&b.id)));
        self.forget_gone(&pools);
        let mut by_age: Vec<&Arc<Pool>> = pools.iter().collect();
        by_age.sort_unstable_by_key(|pool| pool.id);
        for pool in by_age.into_iter().filter(|pool| pool.trunk().is_none()) {
            self.enroll(pool);
        }
        // What servers with startup parameters of their own do is their trunk's business.
        let mut branches: HashMap<u64, Vec<Numbers>> = HashMap::new();
        for (trunk, numbers) in pools
            .iter()
            .filter_map(|p| Some((p.trunk()?.id, p.numbers())))
        {
            branches.entry(trunk).or_default().push(numbers);
        }
        pools.retain(|pool| pool.trunk().is_none());
        let mut samples = Vec::with_capacity(pools.len().min(self.labelled_max) + 1);
        let mut other = PoolSample {
            database: OTHER.to_owned(),
            user: OTHER.to_owned(),
            host: None,
            gauges: Gauges::default(),
            totals: self.gone.clone(),
        };
        for pool in &pools {
            let size = pool.plan().settings.pool_size;
            let mut numbers = pool.numbers();
            for branch in branches.get(&pool.id).into_iter().flatten() {
                numbers.add(branch);
            }
            let gauges = Gauges::new(&numbers, size, now);
            if self.labelled.contains(&pool.id) {
                samples.push(own_sample(pool, gauges));
            } else {
                other.gauges.add(&gauges);
                other.totals.add_pool(pool);
            }
        }
        if self.sums {
            other.totals.bound_errors();
            samples.push(other);
        }
        samples
    }

    fn forget_gone(&mut self, pools: &[Arc<Pool>]) {
        let living: HashSet<u64> = pools.iter().map(|pool| pool.id).collect();
        self.labelled.retain(|id| living.contains(id));
        let gone = &mut self.gone;
        self.summed.retain(|id, pool| {
            let lives = living.contains(id);
            if !lives {
                gone.add_pool(pool);
            }
            lives
        });
    }

    fn enroll(&mut self, pool: &Arc<Pool>) {
        if self.labelled.contains(&pool.id) || self.summed.contains_key(&pool.id) {
            return;
        }
        if self.labelled.len() < self.labelled_max && !is_other(&pool.key) {
            self.labelled.insert(pool.id);
        } else {
            self.sums = true;
            self.summed.insert(pool.id, Arc::clone(pool));
        }
    }
}

/// A pool that is really called like the sum is a part of it: two series of one name would make
/// the whole scrape invalid.
fn is_other(key: &PoolKey) -> bool {
    key.database == OTHER && key.user == OTHER
}

fn own_sample(pool: &Pool, gauges: Gauges) -> PoolSample {
    let mut totals = Totals::default();
    totals.add_pool(pool);
    totals.bound_errors();
    PoolSample {
        database: pool.key.database.clone(),
        user: pool.key.user.clone(),
        host: pool.key.replica.clone(),
        gauges,
        totals,
    }
}
