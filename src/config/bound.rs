//! How many server connections a configuration can make, and what bounds them.
//!
//! The answer is an upper bound from the configuration alone: every user who is known logs in to
//! every database. What lets in users or databases without number has no bound of its own.

use super::settings::PoolSettings;
use super::types::{Cluster, Database};
use super::words::AuthType;
use super::{ANY_DATABASE, Config};

/// The most server connections that one host of a cluster can see, and why.
pub(crate) struct HostBound {
    /// None: there is no bound.
    pub(crate) total: Option<usize>,
    /// The key that brought the total down, if one did.
    pub(crate) bounded_by: Option<&'static str>,
    /// By database, how many and why.
    pub(crate) databases: Vec<(String, String)>,
}

impl HostBound {
    pub(crate) fn of(config: &Config, cluster: &Cluster) -> HostBound {
        let mut bound = HostBound {
            total: Some(0),
            bounded_by: None,
            databases: Vec::new(),
        };
        let here = config
            .databases
            .values()
            .filter(|database| database.cluster == cluster.name);
        for database in here {
            let (most, why) = database_bound(config, database);
            bound.total = bound
                .total
                .zip(most)
                .map(|(sum, most)| sum.saturating_add(most));
            bound.databases.push((database.name.clone(), why));
        }
        if let Some(users) = users_bound(config, cluster) {
            bound.lower("max_user_connections", users);
        }
        if let Some(limit) = cluster.max_server_connections.count() {
            bound.lower("max_server_connections", limit);
        }
        bound
    }

    fn lower(&mut self, key: &'static str, limit: usize) {
        if self.total.is_none_or(|total| limit < total) {
            self.total = Some(limit);
            self.bounded_by = Some(key);
        }
    }
}

/// How many connections to a host one database can take (none: no bound), and why.
fn database_bound(config: &Config, database: &Database) -> (Option<usize>, String) {
    if database.name == ANY_DATABASE {
        return (
            None,
            "a pool for every name and user that clients ask for".to_owned(),
        );
    }
    let limit = config
        .pool_settings(&database.name, "")
        .max_db_connections
        .count();
    let (sum, why) = match &database.user {
        Some(user) => {
            let size = pool_most(&config.pool_settings(&database.name, user));
            (Some(size), format!("{size}, one pool as user {user}"))
        }
        None if config.auth.kind == AuthType::Trust => (
            None,
            "a pool for every user, and trust lets any user in".to_owned(),
        ),
        None => {
            let sizes: Vec<usize> = users(config)
                .map(|user| pool_most(&config.pool_settings(&database.name, user)))
                .collect();
            let sum = sizes.iter().sum();
            (Some(sum), sum_sentence(&sizes, sum))
        }
    };
    match limit {
        Some(limit) if sum.is_none_or(|sum| limit < sum) => (
            Some(limit),
            format!("{why}; bounded by max_db_connections = {limit}"),
        ),
        _ => (sum, why),
    }
}

fn sum_sentence(sizes: &[usize], sum: usize) -> String {
    match sizes {
        [] => "0: no user can log in".to_owned(),
        [size, rest @ ..] if rest.iter().all(|other| other == size) => {
            format!("{sum} = {} x {size}", counted(sizes.len(), "user"))
        }
        _ => format!("{sum} over {}", counted(sizes.len(), "user")),
    }
}

/// How many connections to a host `max_user_connections` leaves; none: it does not bound them all.
fn users_bound(config: &Config, cluster: &Cluster) -> Option<usize> {
    let mut names: Vec<&str> = Vec::new();
    for database in config
        .databases
        .values()
        .filter(|db| db.cluster == cluster.name)
    {
        match &database.user {
            Some(user) => names.push(user),
            None if config.auth.kind == AuthType::Trust => return None,
            None => names.extend(users(config)),
        }
    }
    names.sort_unstable();
    names.dedup();
    let limits = names
        .iter()
        .map(|user| config.pool_settings("", user).max_user_connections);
    limits.map(|limit| limit.count()).sum()
}

/// Users who can log in to the pooler with a password.
fn users(config: &Config) -> impl Iterator<Item = &str> {
    config
        .user_names()
        .filter(|user| config.secret(user).is_some())
}

fn pool_most(settings: &PoolSettings) -> usize {
    settings
        .pool_size
        .saturating_add(settings.reserve_pool_size)
}

/// "no user", "1 user", "2 users"
pub(crate) fn counted(count: usize, noun: &str) -> String {
    match count {
        0 => format!("no {noun}"),
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}
