//! What the pooler is doing, as `/status.json` says it and as the status page and `pooler top` show it.
//!
//! Plain data that both ends agree on: `admin` and `exposition` fill it in, `top` reads it. Times are seconds
//! before [`Status::collected`]. Lists are bounded by who fills them in, what matters most first; [`LeftOut`]
//! counts what did not fit. Names, addresses and statements are what clients sent: whoever shows them treats
//! them as hostile text. A field that the other end does not have is at its default.

use serde::{Deserialize, Serialize};

/// Pools that are listed: those with the oldest waiters first, then the busiest.
pub const POOLS_MAX: usize = 50;

/// Clients that wait and are listed: the oldest of all first.
pub const WAITING_MAX: usize = 50;

/// Clients that have a server and are listed: first the oldest of each pool in which somebody waits, then the
/// oldest of all.
pub const HOLDING_MAX: usize = 50;

/// Hosts that are listed.
pub const HOSTS_MAX: usize = 100;

/// SQLSTATEs that are listed: the most frequent first.
pub const ERRORS_MAX: usize = 20;

/// Characters of a name that are shown.
pub const NAME_LEN_MAX: usize = 128;

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The pooler's own.
    pub version: String,
    /// Where it runs, as configured; may be empty.
    pub datacenter: String,
    /// Seconds since 1970.
    pub collected: f64,
    /// Since the pooler has been up.
    pub uptime_seconds: f64,
    /// Why new clients should go elsewhere, if they should.
    pub unready: Option<String>,
    /// Threads that serve clients.
    pub workers: usize,
    /// Those that did not answer in time: their clients are missing in `waiting` and `holding`.
    pub silent_workers: Vec<usize>,
    /// Over all pools, those that are not listed included.
    pub totals: Totals,
    /// At most [`POOLS_MAX`].
    pub pools: Vec<Pool>,
    /// At most [`WAITING_MAX`].
    pub waiting: Vec<Waiting>,
    /// At most [`HOLDING_MAX`].
    pub holding: Vec<Holding>,
    /// At most [`HOSTS_MAX`], by cluster in the order in which they are configured.
    pub hosts: Vec<Host>,
    /// The last minutes, the oldest first.
    pub history: History,
    /// Of the time that `history` covers; at most [`ERRORS_MAX`].
    pub errors: Vec<Errors>,
    /// How many are not listed.
    pub left_out: LeftOut,
}

/// Sums over all pools.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Of a database, a user and, of replicas, a host.
    pub pools: usize,
    /// Logged in.
    pub clients: usize,
    /// Clients in the queue for a server.
    pub waiting: usize,
    /// How long the first of all has waited.
    pub oldest_wait_seconds: f64,
    /// Servers that clients have.
    pub servers_active: usize,
    /// Servers that nobody uses.
    pub servers_idle: usize,
    /// Servers that are being opened.
    pub servers_connecting: usize,
}

/// A pool: the servers of one database and user, on the primary or on one replica.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pool {
    /// The name that clients ask for.
    pub database: String,
    /// As whom servers are logged in.
    pub user: String,
    /// Where its servers are, as far as that is known.
    pub host: Option<String>,
    /// `primary` or `replica`.
    pub role: String,
    /// Where that host stands; may be empty.
    pub datacenter: String,
    /// `session`, `transaction` or `statement`.
    pub mode: String,
    /// Nobody gets a server now: an operator said PAUSE.
    pub paused: bool,
    /// Servers that it may have.
    pub size: usize,
    /// Servers that clients have.
    pub active: usize,
    /// Servers that nobody uses.
    pub idle: usize,
    /// Servers that are being opened.
    pub connecting: usize,
    /// Clients that are logged in.
    pub clients: usize,
    /// Clients in the queue.
    pub waiting: usize,
    /// How long the first of the queue has waited; 0 if nobody waits.
    pub oldest_wait_seconds: f64,
    /// How long the longest transaction has had its server; 0 if there is none.
    pub oldest_checkout_seconds: f64,
}

/// A client that waits for a server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// Its number, as in SHOW CLIENTS.
    pub client: u64,
    /// As it calls itself.
    pub application_name: String,
    /// As whom it logged in.
    pub user: String,
    /// The name that it asked for.
    pub database: String,
    /// Its address.
    pub address: String,
    /// The pool, as SHOW QUEUE names it.
    pub pool: String,
    /// Its place in the queue of the pool, from 1.
    pub position: usize,
    /// How long it has waited.
    pub waited_seconds: f64,
    /// Who has had a server of that pool for longest.
    pub holder: Option<Held>,
}

/// Who has had a server for longest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Held {
    /// Its number, as in SHOW CLIENTS.
    pub client: u64,
    /// As it calls itself.
    pub application_name: String,
    /// For how long.
    pub held_seconds: f64,
}

/// A client that has a server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Holding {
    /// Its number, as in SHOW CLIENTS.
    pub client: u64,
    /// As it calls itself.
    pub application_name: String,
    /// As whom it logged in.
    pub user: String,
    /// The name that it asked for.
    pub database: String,
    /// Its address.
    pub address: String,
    /// The pool, as SHOW QUEUE names it.
    pub pool: String,
    /// The host of its server.
    pub host: String,
    /// The process of PostgreSQL that serves it.
    pub process_id: i32,
    /// `active`, `idle in transaction` or `idle`, as in `pg_stat_activity`.
    pub state: String,
    /// The beginning of what it has sent last, with a `?` for each literal.
    pub statement: String,
    /// How long it has had the server.
    pub held_seconds: f64,
    /// How many wait for a server of the same pool.
    pub waiting: usize,
}

/// A host of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// The cluster's name.
    pub cluster: String,
    /// Host and port.
    pub host: String,
    /// Where it stands; may be empty.
    pub datacenter: String,
    /// It stands where the pooler runs.
    pub local: bool,
    /// `primary`, `replica` or `unknown`.
    pub role: String,
    /// `up`, `lags`, `down`, `unknown` or `not monitored`.
    pub health: String,
    /// What the monitor minds about it, if anything.
    pub why: Option<String>,
    /// Of a replica, how far it is behind.
    pub lag_seconds: Option<f64>,
    /// The same in bytes.
    pub lag_bytes: Option<u64>,
    /// Server connections there.
    pub servers: usize,
    /// Those of them that clients have.
    pub active: usize,
}

/// The last minutes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Between two points.
    pub every_seconds: f64,
    /// The oldest first.
    pub points: Vec<Point>,
}

/// What was done between two looks at the counters. A time is missing if nothing of the kind ended meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Point {
    /// When the time ended.
    pub ago_seconds: f64,
    /// Transactions ended.
    pub transactions_per_second: f64,
    /// Half of the transactions took no longer.
    pub transaction_p50_seconds: Option<f64>,
    /// All but a hundredth of them took no longer.
    pub transaction_p99_seconds: Option<f64>,
    /// Half of the requests took no longer.
    pub query_p50_seconds: Option<f64>,
    /// All but a hundredth of them took no longer.
    pub query_p99_seconds: Option<f64>,
    /// All but a hundredth of those who had to wait for a server waited no longer.
    pub wait_p99_seconds: Option<f64>,
    /// How many had to wait, and got one.
    pub waited: u64,
    /// Errors that clients got.
    pub errors: u64,
}

/// Errors of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Errors {
    /// Five characters, or `other` (PostgreSQL documentation, "PostgreSQL Error Codes").
    pub sqlstate: String,
    /// What codes of its class are about.
    pub class: String,
    /// How many.
    pub count: u64,
    /// When the last look was that found one more.
    pub last_seconds: f64,
}

/// What there was no room for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeftOut {
    /// Pools.
    pub pools: usize,
    /// Clients that wait.
    pub waiting: usize,
    /// Clients that have a server.
    pub holding: usize,
    /// Hosts.
    pub hosts: usize,
    /// SQLSTATEs.
    pub errors: usize,
}

/// The beginning of a name, on one line: what is no letter to look at is a space.
#[must_use]
pub fn name(text: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    let mut name: String = text.chars().take(NAME_LEN_MAX).map(shown).collect();
    if text.chars().nth(NAME_LEN_MAX).is_some() {
        name.push('…');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_on_one_line() {
        assert_eq!(name("web\n\u{1b}[31m"), "web  [31m");
        let long = name(&"é".repeat(10_000));
        assert_eq!(long.chars().count(), NAME_LEN_MAX + 1);
        assert!(long.ends_with('…'));
        assert_eq!(name(&"x".repeat(NAME_LEN_MAX)).len(), NAME_LEN_MAX);
    }

    #[test]
    fn what_an_older_pooler_does_not_say_is_at_its_default() {
        let read: Status = serde_json::from_str("{\"version\":\"9\",\"new\":[1]}").expect("read");
        assert_eq!(read.version, "9");
        assert!(read.pools.is_empty() && read.unready.is_none());
    }
}
