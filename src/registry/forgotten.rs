//! Forgetting pools: when that is, and what they had done, so that the totals of a database never fall.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Registry, lock};
use crate::metrics::{Histogram, HistogramSum, PoolCounters};
use crate::pool::{Pool, PoolKey};

/// Databases that are told apart here. With `[databases."*"]` clients may use any number of names.
const DATABASES_MAX: usize = 10_000;

/// What was done in a database since the start. Times are in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Times that a client got a server.
    pub checkouts: u64,
    /// Transactions ended.
    pub transactions: u64,
    /// Requests answered.
    pub queries: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes to clients.
    pub sent: u64,
    /// Spent in transactions.
    pub transaction_us: u64,
    /// Spent in queries.
    pub query_us: u64,
    /// Spent waiting for a server.
    pub wait_us: u64,
    /// Statements that clients gave a name to.
    pub named: u64,
    /// Statements prepared on a server.
    pub prepared: u64,
    /// Uses of prepared statements.
    pub used: u64,
}

impl Totals {
    /// Adds what `pool` has done.
    pub fn add_pool(&mut self, pool: &Pool) {
        for counters in pool.all_counters() {
            self.add_counters(counters);
        }
    }

    fn add_counters(&mut self, counters: &PoolCounters) {
        let us = |histogram: &Histogram| {
            let mut sum = HistogramSum::default();
            histogram.add_to(&mut sum);
            sum.sum_us
        };
        self.add(&Self {
            checkouts: counters.checkouts.value(),
            transactions: counters.transactions.value(),
            queries: counters.queries.value(),
            received: counters.received_bytes.value(),
            sent: counters.sent_bytes.value(),
            transaction_us: us(&counters.transaction_seconds),
            query_us: us(&counters.query_seconds),
            wait_us: us(&counters.wait_seconds),
            named: counters.statements_named.value(),
            prepared: counters.statements_prepared.value(),
            used: counters.statements_prepared.value() + counters.statements_reused.value(),
        });
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, |a, b| a + b);
    }

    /// Sets each number to what `with` makes of it and that of `other`.
    pub fn combine(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        for (mine, its) in [
            (&mut self.checkouts, other.checkouts),
            (&mut self.transactions, other.transactions),
            (&mut self.queries, other.queries),
            (&mut self.received, other.received),
            (&mut self.sent, other.sent),
            (&mut self.transaction_us, other.transaction_us),
            (&mut self.query_us, other.query_us),
            (&mut self.wait_us, other.wait_us),
            (&mut self.named, other.named),
            (&mut self.prepared, other.prepared),
            (&mut self.used, other.used),
        ] {
            *mine = with(*mine, its);
        }
    }
}

/// By database.
pub type ByDatabase = BTreeMap<String, Totals>;

/// What pools had done that are gone. Never locked before the pools.
#[derive(Debug, Default)]
pub(super) struct Forgotten(Mutex<ByDatabase>);

impl Forgotten {
    /// A branch counts with its trunk.
    fn keep(&self, pool: &Pool) {
        if pool.trunk().is_some() {
            return;
        }
        let mut by_database = lock(&self.0);
        let name = &pool.key.database;
        if by_database.len() < DATABASES_MAX || by_database.contains_key(name) {
            by_database.entry(name.clone()).or_default().add_pool(pool);
        }
    }
}

impl Registry {
    /// What was done since the start, by database.
    #[must_use]
    pub fn totals(&self) -> ByDatabase {
        let (mut all, pools) = {
            let pools = lock(&self.pools);
            // Under one lock, so that no pool is in both or in neither.
            let gone = lock(&self.forgotten.0).clone();
            (gone, pools.values().cloned().collect::<Vec<_>>())
        };
        // What servers with startup parameters of their own do is counted by their trunk.
        for pool in pools.iter().filter(|p| p.trunk().is_none()) {
            let totals = all.entry(pool.key.database.clone()).or_default();
            totals.add_pool(pool);
        }
        all
    }

    /// Forgets those of `pools` for which `goes` says so.
    pub(super) fn forget(
        &self,
        pools: &mut BTreeMap<PoolKey, Arc<Pool>>,
        goes: impl Fn(&PoolKey, &Pool) -> bool,
    ) {
        pools.retain(|key, pool| {
            let goes = goes(key, pool);
            if goes {
                self.forgotten.keep(pool);
            }
            !goes
        });
    }

    /// Forgets pools that nobody has used for `unused`: names that clients made up are not kept.
    pub fn prune(&self, now: Instant, unused: Duration) {
        let mut pools = lock(&self.pools);
        self.forget(&mut pools, |_, pool| {
            pool.trunk().is_some() && pool.is_forgettable(now, unused)
        });
        let trunks: HashSet<u64> = pools.values().filter_map(|p| Some(p.trunk()?.id)).collect();
        self.forget(&mut pools, |_, pool| {
            let depends = pool.trunk().is_some() || pool.home_id().is_some();
            !depends && !trunks.contains(&pool.id) && pool.is_forgettable(now, unused)
        });
        // The pools of replicas go with that of the primary.
        let left: HashSet<u64> = pools.values().map(|pool| pool.id).collect();
        self.forget(&mut pools, |_, pool| {
            pool.home_id().is_some_and(|home| !left.contains(&home))
        });
        drop(pools);
        lock(&self.limits).retain(|_, limit| Arc::strong_count(limit) > 1);
        lock(&self.databases).retain(|_, database| Arc::strong_count(database) > 1);
    }
}
