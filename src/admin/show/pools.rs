//! SHOW POOLS, DATABASES and USERS: what there is to connect with.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::Desk;
use super::super::sheet::{Cell, Sheet, count, flag, int4, int8, is, text};
use super::{rest_us, seconds};
use crate::config::{Config, Database, PoolSettings};
use crate::pool::{Numbers, Pool};
use crate::registry::{Gates, Registry};

/// A pool, with what belongs to it: servers with startup parameters of their own, and those on replicas.
pub(in super::super) struct PoolLine {
    pub(in super::super) pool: Arc<Pool>,
    pub(in super::super) numbers: Numbers,
    pub(in super::super) settings: Arc<PoolSettings>,
    pub(in super::super) paused: bool,
    now: Instant,
}

/// Every pool, in the order of their names.
pub(super) fn pools(registry: &Registry) -> Vec<PoolLine> {
    let trunk = |pool: &Pool| pool.trunk().map(|trunk| trunk.id);
    let mut lines = lines(registry, |pool| trunk(pool).or(pool.home_id()));
    lines.sort_by(|a, b| {
        let name = |line: &PoolLine| (line.pool.key.database.clone(), line.pool.key.user.clone());
        name(a).cmp(&name(b))
    });
    lines
}

/// Every pool, those on replicas apart from that on the primary, in no order.
pub(in super::super) fn pools_apart(registry: &Registry) -> Vec<PoolLine> {
    lines(registry, |pool| pool.trunk().map(|trunk| trunk.id))
}

/// Pools, each with those that belong to it by their number.
fn lines(registry: &Registry, belongs_to: impl Fn(&Pool) -> Option<u64>) -> Vec<PoolLine> {
    let all = registry.pools();
    let mut branches: HashMap<u64, Vec<Numbers>> = HashMap::new();
    for (trunk, pool) in all.iter().filter_map(|p| Some((belongs_to(p)?, p))) {
        branches.entry(trunk).or_default().push(pool.numbers());
    }
    let now = Instant::now();
    let trunks = all.into_iter().filter(|pool| belongs_to(pool).is_none());
    let line = |pool: Arc<Pool>| {
        let mut numbers = pool.numbers();
        for branch in branches.get(&pool.id).into_iter().flatten() {
            numbers.add(branch);
        }
        PoolLine {
            numbers,
            settings: Arc::clone(&pool.plan().settings),
            paused: pool.is_paused(),
            pool,
            now,
        }
    };
    trunks.map(line).collect()
}

impl PoolLine {
    pub(in super::super) fn active(&self) -> usize {
        let idle = self.numbers.connecting + self.numbers.idle;
        self.numbers.servers.saturating_sub(idle)
    }

    pub(in super::super) fn age(&self, since: Option<Instant>) -> Duration {
        let age = since.map(|since| self.now.saturating_duration_since(since));
        age.unwrap_or_default()
    }

    pub(in super::super) fn wait(&self) -> Duration {
        self.age(self.numbers.oldest_since)
    }
}

/// SHOW POOLS
pub(in super::super) static POOLS: Sheet<PoolLine> = Sheet {
    columns: &[
        text("database", |l| is(&l.pool.key.database)),
        text("user", |l| is(&l.pool.key.user)),
        int4("cl_active", |l| {
            count(l.numbers.clients.saturating_sub(l.numbers.waiting))
        }),
        int4("cl_waiting", |l| count(l.numbers.waiting)),
        int4("cl_active_cancel_req", |_| count(0)),
        int4("cl_waiting_cancel_req", |_| count(0)),
        int4("sv_active", |l| count(l.active())),
        int4("sv_active_cancel", |_| count(0)),
        int4("sv_being_canceled", |_| count(0)),
        int4("sv_idle", |l| count(l.numbers.idle)),
        int4("sv_used", |_| count(0)),
        int4("sv_tested", |_| count(0)),
        int4("sv_login", |l| count(l.numbers.connecting)),
        int4("maxwait", |l| seconds(l.wait())),
        int4("maxwait_us", |l| rest_us(l.wait())),
        text("pool_mode", |l| is(l.settings.pool_mode)),
        text("load_balance_hosts", |_| None),
        int4("pool_size", |l| count(l.settings.pool_size)),
        int4("paused", |l| flag(l.paused)),
        int8("oldest_transaction_us", |l| {
            is(l.age(l.numbers.oldest_checkout).as_micros())
        }),
    ],
    lines: |desk, _| pools(&desk.registry),
};

/// A database that can be asked for.
pub(in super::super) struct DatabaseLine {
    name: String,
    host: String,
    port: u16,
    dbname: String,
    user: Option<String>,
    cluster: String,
    /// Of a user that sets nothing for itself.
    settings: PoolSettings,
    own_mode: Option<String>,
    servers: usize,
    clients: usize,
    paused: bool,
    disabled: bool,
}

impl DatabaseLine {
    fn new(config: &Config, name: &str, configured: &Database, gates: &Gates) -> Self {
        let hosts = &config.cluster(configured).hosts;
        let own = config.set_by_database(&configured.name);
        let own_mode = own.into_iter().find(|(key, _)| *key == "pool_mode");
        let names: Vec<&str> = hosts.iter().map(|host| host.host.as_str()).collect();
        Self {
            name: name.to_owned(),
            host: names.join(","),
            port: hosts.first().map_or(0, |host| host.port),
            dbname: configured.dbname(name).to_owned(),
            user: configured.user.clone(),
            cluster: configured.cluster.clone(),
            settings: config.pool_settings(name, ""),
            own_mode: own_mode.map(|(_, mode)| mode),
            servers: 0,
            clients: 0,
            paused: gates.is_paused(name),
            disabled: gates.is_disabled(name),
        }
    }
}

fn databases(registry: &Registry) -> Vec<DatabaseLine> {
    let current = registry.current();
    let config = &current.config;
    let gates = registry.gates_now();
    let pools = pools(registry);
    let asked = pools.iter().map(|line| line.pool.key.database.as_str());
    let configured = config.databases.keys().map(String::as_str);
    // Those that "*" stands for are there once they have been asked for.
    let names: BTreeSet<&str> = configured.filter(|n| *n != "*").chain(asked).collect();
    let lines = names.into_iter().filter_map(|name| {
        let configured = config.database(name)?;
        let mut line = DatabaseLine::new(config, name, configured, &gates);
        for pool in pools.iter().filter(|line| line.pool.key.database == name) {
            line.servers += pool.numbers.servers;
            line.clients += pool.numbers.clients;
        }
        Some(line)
    });
    lines.collect()
}

/// SHOW DATABASES
pub(in super::super) static DATABASES: Sheet<DatabaseLine> = Sheet {
    columns: &[
        text("name", |l| is(&l.name)),
        text("host", |l| is(&l.host)),
        int4("port", |l| is(l.port)),
        text("database", |l| is(&l.dbname)),
        text("force_user", |l| l.user.clone()),
        int4("pool_size", |l| count(l.settings.pool_size)),
        int4("min_pool_size", |l| count(l.settings.min_pool_size)),
        int4("reserve_pool_size", |l| count(l.settings.reserve_pool_size)),
        int4("server_lifetime", |l| {
            seconds(l.settings.server_lifetime.unwrap_or_default())
        }),
        text("pool_mode", |l| l.own_mode.clone()),
        text("load_balance_hosts", |_| None),
        int4("max_connections", |l| {
            count(l.settings.max_db_connections.count().unwrap_or(0))
        }),
        int4("current_connections", |l| count(l.servers)),
        int4("max_client_connections", |l| {
            count(l.settings.max_db_client_connections.count().unwrap_or(0))
        }),
        int4("current_client_connections", |l| count(l.clients)),
        int4("paused", |l| flag(l.paused)),
        int4("disabled", |l| flag(l.disabled)),
        text("cluster", |l| is(&l.cluster)),
        // As it was called before PgBouncer 1.24, for exporters of that time.
        int4("reserve_pool", |l| count(l.settings.reserve_pool_size)),
    ],
    lines: |desk, _| databases(&desk.registry),
};

/// A user.
pub(in super::super) struct UserLine {
    name: String,
    own: BTreeMap<&'static str, String>,
    settings: PoolSettings,
    servers: usize,
    clients: usize,
}

impl UserLine {
    fn own(&self, key: &str) -> Cell {
        self.own.get(key).cloned()
    }
}

fn users(desk: &Desk) -> Vec<UserLine> {
    let current = desk.registry.current();
    let config = &current.config;
    let pools = pools(&desk.registry);
    let busy = pools.iter().map(|line| line.pool.key.user.as_str());
    let names: BTreeSet<&str> = config.user_names().chain(busy).collect();
    let lines = names.into_iter().map(|name| {
        let own = pools.iter().filter(|line| line.pool.key.user == name);
        UserLine {
            name: name.to_owned(),
            own: config.set_by_user(name).into_iter().collect(),
            settings: config.pool_settings("", name),
            servers: own.clone().map(|line| line.numbers.servers).sum(),
            clients: own.map(|line| line.numbers.clients).sum(),
        }
    });
    lines.collect()
}

/// SHOW USERS
pub(in super::super) static USERS: Sheet<UserLine> = Sheet {
    columns: &[
        text("name", |l| is(&l.name)),
        text("pool_size", |l| is(l.own("pool_size").unwrap_or_default())),
        text("reserve_pool_size", |l| {
            is(l.own("reserve_pool_size").unwrap_or_default())
        }),
        text("pool_mode", |l| l.own("pool_mode")),
        int4("max_user_connections", |l| {
            count(l.settings.max_user_connections.count().unwrap_or(0))
        }),
        int4("current_connections", |l| count(l.servers)),
        int4("max_user_client_connections", |l| {
            count(l.settings.max_user_client_connections.count().unwrap_or(0))
        }),
        int4("current_client_connections", |l| count(l.clients)),
    ],
    lines: |desk, _| users(desk),
};
