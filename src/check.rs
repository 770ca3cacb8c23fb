//! What `pooler check CONFIG` prints: what a configuration means, for whoever is about to run it.
//!
//! Settings are in the file already; this is what follows from them: who can connect where, how
//! many connections PostgreSQL may see at most and what bounds them, and whether this machine
//! allows as many. Nothing here opens a connection, save [`connect`].

use std::time::Duration;

use crate::config::{
    AuthType, Cluster, Config, Database, HostBound, ListenAddress, PoolMode, PoolSettings,
    ReadConsistency, Route, Routing, TlsMode, TlsNegotiation, TlsSide, counted, show_duration,
    show_size,
};

mod connect;

pub use connect::connect;

/// Files that the pooler needs besides clients and servers: listeners, log, event queues, name
/// look-ups, scrapes of the metrics.
const OTHER_FILES: usize = 64;

/// The whole text, each line ended.
pub fn describe(config: &Config) -> String {
    describe_with(config, rlimit::Resource::NOFILE.get_hard().ok())
}

/// As `describe`, on a machine that lets a process open this many files.
fn describe_with(config: &Config, files_max: Option<u64>) -> String {
    let mut report = Report(String::new());
    report.0.push_str(&format!("{}\n", config.path.display()));
    describe_process(config, &mut report);
    for cluster in config.clusters.values() {
        describe_cluster(config, cluster, &mut report);
    }
    for database in config.databases.values() {
        describe_database(config, database, &mut report);
    }
    describe_users(config, &mut report);
    describe_timeouts(config, &mut report);
    describe_files(config, files_max, &mut report);
    report.heading(&match config.warnings.len() {
        0 => "No warnings".to_owned(),
        count => format!("Warnings: {count}"),
    });
    config
        .warnings
        .iter()
        .for_each(|warning| report.item(warning));
    report.0
}

/// Text in two columns under headings.
struct Report(String);

impl Report {
    fn heading(&mut self, text: &str) {
        self.0.push_str(&format!("\n{text}\n"));
    }

    fn line(&mut self, label: &str, text: impl AsRef<str>) {
        self.0
            .push_str(&format!("  {label:<22}{}\n", text.as_ref()));
    }

    fn item(&mut self, text: &str) {
        self.0.push_str(&format!("  {text}\n"));
    }
}

fn describe_process(config: &Config, report: &mut Report) {
    let pooler = &config.pooler;
    report.heading("Pooler");
    for address in &pooler.listen {
        let mode = match address {
            ListenAddress::Tcp(_) => String::new(),
            ListenAddress::Unix { .. } => format!(", mode {:04o}", pooler.unix_socket_mode),
        };
        report.line("listens on", format!("{address}{mode}"));
    }
    if !pooler.datacenter.is_empty() {
        report.line("datacenter", &pooler.datacenter);
    }
    let chosen = if pooler.workers == 0 {
        " (one a core)"
    } else {
        ""
    };
    report.line(
        "worker threads",
        format!("{}{chosen}", pooler.worker_count()),
    );
    report.line(
        "clients",
        match pooler.max_client_conn.count() {
            Some(clients) => format!("at most {clients} (max_client_conn)"),
            None => "no limit (max_client_conn = 0)".to_owned(),
        },
    );
    report.line(
        "statement texts",
        format!("at most {}", show_size(pooler.prepared_statement_memory)),
    );
    report.line("authentication", describe_auth(config));
    report.line("TLS with clients", describe_client_tls(&config.tls.client));
    report.line("TLS with servers", describe_server_tls(&config.tls.server));
    report.line(
        "console",
        format!(
            "administrators: {}; read only: {}",
            listed(&pooler.admin_users),
            listed(&pooler.stats_users)
        ),
    );
    report.line(
        "metrics",
        match config.metrics.listen {
            Some(address) => format!("http://{address}/metrics"),
            None => "off".to_owned(),
        },
    );
    if let Some(address) = config.metrics.listen.filter(|_| config.metrics.status_page) {
        report.line(
            "status page",
            format!("http://{address}/, without a password"),
        );
    }
    report.line(
        "slow queries",
        match config.log.slow_query {
            None => "not logged".to_owned(),
            Some(Duration::ZERO) => "every statement is logged".to_owned(),
            Some(slow) => format!("logged from {}", show_duration(slow)),
        },
    );
}

fn describe_client_tls(side: &TlsSide) -> String {
    if side.mode == TlsMode::Disable {
        return "none: disable".to_owned();
    }
    if side.cert.is_none() {
        return "none: there is no cert to show".to_owned();
    }
    let whether = match side.mode.is_required() {
        true => "required",
        false => "for those that ask for it",
    };
    let certificates = match (side.mode.is_verified(), &side.ca) {
        (true, _) => "; clients must show a certificate that ca has signed",
        (false, Some(_)) => "; a certificate that a client shows must be signed by ca",
        (false, None) => "",
    };
    format!(
        "{whether} ({}, {} or later){certificates}",
        side.mode, side.min_version
    )
}

fn describe_server_tls(side: &TlsSide) -> String {
    let whether = match side.mode {
        TlsMode::Disable => return "none: disable".to_owned(),
        TlsMode::Allow => "only with servers that refuse to go without",
        TlsMode::Prefer => "with servers that have it, else none",
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => "required",
    };
    let certificate = match (side.mode, &side.ca) {
        (TlsMode::VerifyFull, _) => "certificate and name of the server are verified",
        (TlsMode::VerifyCa, _) | (_, Some(_)) => "the server's certificate is verified",
        (_, None) => "whoever answers is believed",
    };
    let begin = match side.negotiation {
        TlsNegotiation::Postgres => "",
        TlsNegotiation::Direct => ", begun directly",
    };
    format!(
        "{whether} ({}, {} or later{begin}); {certificate}",
        side.mode, side.min_version
    )
}

fn describe_auth(config: &Config) -> String {
    if config.auth.kind == AuthType::Trust {
        return "trust: nobody is asked for a password".to_owned();
    }
    if config.auth.kind == AuthType::Hba {
        let rules = config.hba.rules.all().len();
        let file = config.auth.hba_file.as_deref().unwrap_or("".as_ref());
        return format!("hba; {} in {}", counted(rules, "rule"), file.display());
    }
    let known = config
        .user_names()
        .filter(|user| config.secret(user).is_some())
        .count();
    let file = match &config.auth.file {
        Some(file) => format!(", with those in {}", file.display()),
        None => String::new(),
    };
    format!(
        "{}; {} with a password{file}",
        config.auth.kind,
        counted(known, "user")
    )
}

fn describe_cluster(config: &Config, cluster: &Cluster, report: &mut Report) {
    report.heading(&format!("Cluster {}", cluster.name));
    for host in &cluster.hosts {
        let role = host.role.map(|role| format!("pinned as {role}"));
        let place = Some(host.datacenter.clone()).filter(|place| !place.is_empty());
        let facts: Vec<String> = place.into_iter().chain(role).collect();
        report.line(
            "host",
            format!("{:<24}{}", host.to_string(), facts.join(", ")).trim_end(),
        );
    }
    report.line("roles", describe_monitor(cluster));
    if config.routed(cluster).next().is_some() {
        report.line("reads", describe_reads(config, cluster));
    }
    let bound = HostBound::of(config, cluster);
    report.line("connections to a host", bound_sentence(&bound, cluster));
    for (database, text) in &bound.databases {
        report.line("", format!("{database}: {text}"));
    }
}

fn describe_monitor(cluster: &Cluster) -> String {
    match &cluster.monitor_user {
        Some(user) => format!(
            "asked every {} as {user}, in database {}",
            show_duration(cluster.monitor_interval),
            cluster.monitor_dbname
        ),
        None => "found out by logins; no monitor_user".to_owned(),
    }
}

fn describe_reads(config: &Config, cluster: &Cluster) -> String {
    let here = &config.pooler.datacenter;
    let local = match here.as_str() {
        "" => "replicas".to_owned(),
        here => format!("replicas in {here}"),
    };
    let steps = cluster
        .read_fallback
        .iter()
        .map(|step| step.word().to_owned());
    let steps: Vec<String> = std::iter::once(local).chain(steps).collect();
    let lag = match cluster.max_replica_lag {
        Some(lag) => format!(", at most {} behind", show_duration(lag)),
        None => String::new(),
    };
    format!("{}{lag}", steps.join(", then "))
}

fn bound_sentence(bound: &HostBound, cluster: &Cluster) -> String {
    match (bound.total, bound.bounded_by) {
        (None, _) => {
            format!(
                "no bound: set max_server_connections in [clusters.{}]",
                cluster.name
            )
        }
        (Some(total), Some(key)) => format!("at most {total}, bounded by {key}"),
        (Some(total), None) => format!("at most {total}, the sum of its pools"),
    }
}

fn describe_database(config: &Config, database: &Database, report: &mut Report) {
    let any = if database.name == "*" {
        " (any other name)"
    } else {
        ""
    };
    report.heading(&format!("Database {}{any}", database.name));
    let dbname = database.dbname.as_deref().unwrap_or("the same name");
    report.line(
        "on the server",
        format!("{dbname}, cluster {}", database.cluster),
    );
    report.line(
        "logs in as",
        match &database.user {
            Some(user) => format!("{user}, for every client: one pool"),
            None => "the client's user: a pool for each".to_owned(),
        },
    );
    let settings = config.pool_settings(&database.name, database.user.as_deref().unwrap_or(""));
    report.line("pool", describe_pool(&settings));
    report.line("routing", describe_routing(&settings));
    let set = config.set_by_database(&database.name);
    if !set.is_empty() {
        report.line("sets", assignments(&set));
    }
}

fn describe_routing(settings: &PoolSettings) -> String {
    let what = match (settings.routing, settings.pool_mode) {
        (Routing::Off, _) => return "off: everything to the primary".to_owned(),
        (_, PoolMode::Session) => {
            return "none in session mode: everything to the primary".to_owned();
        }
        (Routing::Explicit, _) => "by hint, SET or startup option",
        (Routing::Auto, _) => "by statement: proven reads to replicas",
    };
    let seen = match settings.read_consistency {
        ReadConsistency::Session => "a session reads what it wrote",
        ReadConsistency::Eventual => "reads may be older than the session's writes",
    };
    match settings.route {
        Route::Auto => format!("{what}; {seen}"),
        route => format!("{what}, {route} unless the session says otherwise; {seen}"),
    }
}

fn describe_pool(settings: &PoolSettings) -> String {
    let mut text = format!(
        "{} mode, {} server connections a host",
        settings.pool_mode, settings.pool_size
    );
    if settings.min_pool_size > 0 {
        text.push_str(&format!(", {} kept open", settings.min_pool_size));
    }
    if settings.reserve_pool_size > 0
        && let Some(after) = settings.reserve_pool_timeout
    {
        let (size, after) = (settings.reserve_pool_size, show_duration(after));
        text.push_str(&format!(", {size} more after a wait of {after}"));
    }
    text
}

fn describe_users(config: &Config, report: &mut Report) {
    let set = config
        .users
        .keys()
        .map(|name| (name, config.set_by_user(name)));
    let set: Vec<_> = set.filter(|(_, set)| !set.is_empty()).collect();
    if !set.is_empty() {
        report.heading("Users with settings of their own (they win over a database's)");
    }
    for (name, set) in set {
        report.line(name, assignments(&set));
    }
}

fn describe_timeouts(config: &Config, report: &mut Report) {
    let (pooler, pool) = (&config.pooler, &config.pooler.defaults);
    let timeouts = [
        ("client_login_timeout", pooler.client_login_timeout),
        ("query_wait_notify", pool.query_wait_notify),
        ("query_wait_timeout", pool.query_wait_timeout),
        ("client_idle_timeout", pool.client_idle_timeout),
        ("idle_transaction_timeout", pool.idle_transaction_timeout),
        ("transaction_timeout", pool.transaction_timeout),
        ("query_timeout", pool.query_timeout),
        ("cancel_wait_timeout", pool.cancel_wait_timeout),
        ("server_connect_timeout", Some(pool.server_connect_timeout)),
        ("server_login_retry", Some(pool.server_login_retry)),
        ("server_idle_timeout", pool.server_idle_timeout),
        ("server_lifetime", pool.server_lifetime),
        ("tcp_keepalive", pool.tcp_keepalive),
        ("tcp_user_timeout", pool.tcp_user_timeout),
        ("shutdown_timeout", pooler.shutdown_timeout),
    ];
    report.heading("Timeouts in force, where a database or user sets no other");
    for (name, timeout) in timeouts {
        if let Some(timeout) = timeout {
            report.item(&format!("{name:<26}{}", show_duration(timeout)));
        }
    }
    let off = timeouts
        .iter()
        .filter(|(_, timeout)| timeout.is_none())
        .map(|(name, _)| *name);
    let off: Vec<_> = off.collect();
    if !off.is_empty() {
        report.item(&format!("{:<26}{}", "off", off.join(", ")));
    }
}

fn describe_files(config: &Config, files_max: Option<u64>, report: &mut Report) {
    report.heading("File descriptors");
    let limit = match files_max {
        Some(limit) => format!("this machine lets a process of this user open {limit}"),
        None => "the limit of this machine is not known".to_owned(),
    };
    let servers = config.clusters.values().map(|cluster| {
        let total = HostBound::of(config, cluster).total;
        total.map(|total| total.saturating_mul(cluster.hosts.len()))
    });
    let servers: Option<usize> = servers.sum();
    let clients = config.pooler.max_client_conn.count();
    let (Some(clients), Some(servers)) = (clients, servers) else {
        let lacks = if clients.is_none() {
            "clients"
        } else {
            "server connections"
        };
        report.line("needed", format!("no bound, because {lacks} have none"));
        report.line("allowed", limit);
        return;
    };
    let needed = clients.saturating_add(servers).saturating_add(OTHER_FILES);
    report.line(
        "needed at most",
        format!("{needed} = {clients} clients + {servers} servers + {OTHER_FILES} others"),
    );
    let enough = match files_max {
        Some(max) if max < needed as u64 => {
            ": NOT ENOUGH; raise it (LimitNOFILE=, ulimit -Hn) or lower max_client_conn"
        }
        _ => "",
    };
    report.line("allowed", format!("{limit}{enough}"));
}

fn assignments(set: &[(&'static str, String)]) -> String {
    let texts: Vec<_> = set
        .iter()
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    texts.join(", ")
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "nobody".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const FILE: &str = r#"
[pooler]
listen = ["0.0.0.0:6432", "/run/pooler"]
datacenter = "dc1"
workers = 4
admin_users = ["ops"]
max_client_conn = 5000

[clusters.main]
hosts = [{ host = "10.1.0.10", datacenter = "dc1", role = "primary" }]
max_server_connections = 90

[clusters.other]
hosts = [{ host = "db2" }]

[databases.app]
cluster = "main"
reserve_pool_size = 5

[databases.jobs]
cluster = "main"
dbname = "jobs_v2"
user = "worker"
password = "w"
pool_mode = "session"

[databases."*"]
cluster = "other"

[users.ops]
password = "o"

[users.report]
password = "r"
pool_size = 50
query_timeout = "30m"
"#;

    const EXPECTED: &str = r#"pooler.toml

Pooler
  listens on            0.0.0.0:6432
  listens on            /run/pooler/.s.PGSQL.6432, mode 0777
  datacenter            dc1
  worker threads        4
  clients               at most 5000 (max_client_conn)
  statement texts       at most 256MB
  authentication        scram-sha-256; 2 users with a password
  TLS with clients      none: there is no cert to show
  TLS with servers      with servers that have it, else none (prefer, TLSv1.2 or later); whoever answers is believed
  console               administrators: ops; read only: nobody
  metrics               http://127.0.0.1:9930/metrics
  status page           http://127.0.0.1:9930/, without a password
  slow queries          logged from 500ms

Cluster main
  host                  10.1.0.10:5432          dc1, pinned as primary
  roles                 found out by logins; no monitor_user
  connections to a host at most 90, bounded by max_server_connections
                        app: 80 over 2 users
                        jobs: 20, one pool as user worker

Cluster other
  host                  db2:5432
  roles                 found out by logins; no monitor_user
  connections to a host no bound: set max_server_connections in [clusters.other]
                        *: a pool for every name and user that clients ask for

Database * (any other name)
  on the server         the same name, cluster other
  logs in as            the client's user: a pool for each
  pool                  transaction mode, 20 server connections a host
  routing               off: everything to the primary

Database app
  on the server         the same name, cluster main
  logs in as            the client's user: a pool for each
  pool                  transaction mode, 20 server connections a host, 5 more after a wait of 5s
  routing               off: everything to the primary
  sets                  reserve_pool_size = 5

Database jobs
  on the server         jobs_v2, cluster main
  logs in as            worker, for every client: one pool
  pool                  session mode, 20 server connections a host
  routing               off: everything to the primary
  sets                  pool_mode = session

Users with settings of their own (they win over a database's)
  report                pool_size = 50, query_timeout = 30m

Timeouts in force, where a database or user sets no other
  client_login_timeout      1m
  query_wait_notify         5s
  query_wait_timeout        2m
  cancel_wait_timeout       10s
  server_connect_timeout    15s
  server_login_retry        1s
  server_idle_timeout       10m
  server_lifetime           1h
  tcp_keepalive             15s
  tcp_user_timeout          30s
  off                       client_idle_timeout, idle_transaction_timeout, transaction_timeout, query_timeout, shutdown_timeout

File descriptors
  needed                no bound, because server connections have none
  allowed               this machine lets a process of this user open 1024

No warnings
"#;

    #[test]
    fn a_configuration_is_told() {
        let config = Config::parse(FILE, Path::new("pooler.toml")).expect("right");
        let text = describe_with(&config, Some(1024));
        assert_eq!(text, EXPECTED, "{text}");
    }
}
