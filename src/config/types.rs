//! The typed result of reading a configuration: one struct a table of the file.
//!
//! Everything here is checked: a cluster has a host, a database names a cluster that exists. One
//! rule holds for `0`: a duration or a limit of 0 is "never" or "no limit", and is `None` here.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use pooler_protocol::auth::Secret;

use super::settings::PoolSettings;
use super::words::{
    AuthType, LogFormat, LogLevel, ReadFallback, Role, TlsBinding, TlsMode, TlsNegotiation,
    TlsVersion,
};

/// `[pooler]`: the process as a whole, and the defaults of every database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooler {
    /// Where clients connect; at least one.
    pub listen: Vec<ListenAddress>,
    /// Permission bits of the Unix sockets.
    pub unix_socket_mode: u32,
    /// Where this pooler runs; empty if datacenters do not matter.
    pub datacenter: String,
    /// Worker threads as configured; 0: one a core.
    pub workers: usize,
    /// Sends of a worker's round leave by one system call, if the system can do that.
    pub batch_sends: bool,
    /// Users that may do everything in the console.
    pub admin_users: Vec<String>,
    /// Users that may look at everything in the console.
    pub stats_users: Vec<String>,
    /// Clients of the whole process.
    pub max_client_conn: Limit,
    /// From accepting a client to the end of its login.
    pub client_login_timeout: Option<Duration>,
    /// Bytes of statement texts kept by the whole process; more than 0.
    pub prepared_statement_memory: u64,
    /// How long to wait for clients when draining; none: for ever.
    pub shutdown_timeout: Option<Duration>,
    /// What holds for a database and user that set nothing themselves.
    pub defaults: PoolSettings,
}

impl Pooler {
    /// Worker threads to start: as configured, or one a core.
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            workers => workers,
        }
    }
}

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket in this directory, named after the port as PostgreSQL names its own.
    Unix {
        /// The directory; absolute.
        directory: PathBuf,
        /// The port of the first TCP address, or 6432.
        port: u16,
    },
}

impl ListenAddress {
    /// The socket's file: `<directory>/.s.PGSQL.<port>`; none for TCP.
    pub fn socket_path(&self) -> Option<PathBuf> {
        match self {
            ListenAddress::Tcp(_) => None,
            ListenAddress::Unix { directory, port } => {
                Some(directory.join(format!(".s.PGSQL.{port}")))
            }
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix { directory, port } => {
                write!(
                    f,
                    "{}",
                    directory.join(format!(".s.PGSQL.{port}")).display()
                )
            }
        }
    }
}

/// A limit on how many there may be; written 0 when there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(Option<NonZeroUsize>);

impl Limit {
    /// No limit.
    pub const NONE: Limit = Limit(None);

    /// A limit of `count`; 0: none.
    pub fn new(count: usize) -> Limit {
        Limit(NonZeroUsize::new(count))
    }

    /// The number, if there is a limit.
    pub fn count(self) -> Option<usize> {
        self.0.map(NonZeroUsize::get)
    }

    /// Whether one more may come when `used` are there.
    pub fn allows(self, used: usize) -> bool {
        self.0.is_none_or(|limit| used < limit.get())
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("no limit"),
            Some(limit) => limit.fmt(f),
        }
    }
}

/// `[clusters.X]`: a primary and its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The X.
    pub name: String,
    /// At least one; no two with the same host and port.
    pub hosts: Vec<Host>,
    /// Server connections to one host, over all pools.
    pub max_server_connections: Limit,
    /// Who asks the hosts for role and position; none: nobody does.
    pub monitor_user: Option<String>,
    /// The database that the monitor connects to.
    pub monitor_dbname: String,
    /// How often it asks.
    pub monitor_interval: Duration,
    /// A replica further behind serves no reads.
    pub max_replica_lag: Option<Duration>,
    /// The same in bytes of WAL.
    pub max_replica_lag_bytes: Option<u64>,
    /// Where a read goes, in order, when no local replica can take it.
    pub read_fallback: Vec<ReadFallback>,
}

impl Cluster {
    /// Whether `other` is looked at by the same user in the same way.
    pub fn monitor_is_same(&self, other: &Cluster) -> bool {
        (
            &self.monitor_user,
            &self.monitor_dbname,
            self.monitor_interval,
        ) == (
            &other.monitor_user,
            &other.monitor_dbname,
            other.monitor_interval,
        )
    }

    /// The host that is the primary as far as the configuration alone can tell: the one pinned as
    /// primary, else the first that is not pinned as a replica, else the first.
    pub fn primary(&self) -> &Host {
        let pinned = self
            .hosts
            .iter()
            .find(|host| host.role == Some(Role::Primary));
        pinned
            .or_else(|| self.hosts.iter().find(|host| host.role.is_none()))
            .or_else(|| self.hosts.first())
            .expect("BUG: a cluster without hosts passed validation")
    }
}

/// One PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// A name, an address, or the directory of a Unix socket.
    pub host: String,
    /// 5432 unless set.
    pub port: u16,
    /// Where it runs; empty if datacenters do not matter.
    pub datacenter: String,
    /// Set if the role is pinned instead of observed.
    pub role: Option<Role>,
    /// Share of the reads among equals; 0: none of them.
    pub weight: u32,
}

impl Host {
    /// The Unix socket's file, if the host is a directory.
    pub fn socket_path(&self) -> Option<PathBuf> {
        self.host
            .starts_with('/')
            .then(|| PathBuf::from(format!("{}/.s.PGSQL.{}", self.host, self.port)))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// `[databases.X]`: what a client asks for. Its pool settings: `Config::pool_settings`.
#[derive(Debug, Clone)]
pub struct Database {
    /// The X; `*` matches any other name.
    pub name: String,
    /// A key of `Config::clusters`.
    pub cluster: String,
    /// The server's name for it; none: the name that was asked for.
    pub dbname: Option<String>,
    /// Log in to the server as this user for every client.
    pub user: Option<String>,
    /// The password of `user`; none: the one that `Config::secret` knows.
    pub password: Option<Secret>,
    /// Another that is right too.
    pub second: Option<Secret>,
}

impl Database {
    /// The server's name for what a client asked for as `requested`.
    pub fn dbname<'a>(&'a self, requested: &'a str) -> &'a str {
        self.dbname.as_deref().unwrap_or(requested)
    }

    /// Whether connections made for `other` serve this one as well: same cluster, same name there,
    /// same user. A password that changed does not end connections that are logged in.
    pub fn same_target(&self, other: &Database) -> bool {
        (&self.cluster, &self.dbname, &self.user) == (&other.cluster, &other.dbname, &other.user)
    }
}

/// `[users.X]`. Its pool settings: `Config::pool_settings`.
#[derive(Debug, Clone)]
pub struct User {
    /// The X.
    pub name: String,
    /// From `password` or `password_file`.
    pub password: Option<Secret>,
    /// Another that is right too.
    pub second: Option<Secret>,
}

/// How to log in to a server for a client.
#[derive(Debug, Clone, Copy)]
pub struct ServerLogin<'a> {
    /// The database's own user, or the client's.
    pub user: &'a str,
    /// What is known of its password.
    pub secret: Option<&'a Secret>,
    /// Another that may be right.
    pub second: Option<&'a Secret>,
}

/// `[auth]`: how clients prove who they are. Paths start from the configuration's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// The method.
    pub kind: AuthType,
    /// The user list, in PgBouncer's format.
    pub file: Option<PathBuf>,
    /// In the format of PostgreSQL's `pg_hba.conf`.
    pub hba_file: Option<PathBuf>,
    /// In the format of PostgreSQL's `pg_ident.conf`.
    pub ident_file: Option<PathBuf>,
    /// The map for `cert`.
    pub map: Option<String>,
    /// Who runs `query`.
    pub user: Option<String>,
    /// Looks up users that are not in the file.
    pub query: Option<String>,
    /// Where `query` runs.
    pub dbname: String,
    /// How long an answer to `query` is good for; zero: for one login.
    pub cache_time: Duration,
    /// Failed logins of one user from one address before further ones are delayed.
    pub max_login_failures: Limit,
    /// How long `query` may take.
    pub lookup_timeout: Duration,
    /// How long LDAP servers may take for one login.
    pub ldap_timeout: Duration,
    /// Where PAM's services are described, if not where the system has them.
    pub pam_dir: Option<PathBuf>,
    /// How long PAM may take for one login.
    pub pam_timeout: Duration,
}

/// `[tls.client]` and `[tls.server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Applications to the pooler.
    pub client: TlsSide,
    /// The pooler to PostgreSQL.
    pub server: TlsSide,
    /// The pooler to LDAP servers, if a rule asks one that way.
    pub ldap: Option<Authorities>,
    /// The pooler to a collector of traces, if that is asked for by https.
    pub otlp: Option<Authorities>,
}

/// By what certificates of others than clients and servers are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities {
    /// `auth.ldap_ca`, `tracing.ca`; none: as this system has it.
    pub ca: Option<PathBuf>,
}

/// TLS towards one side. Paths start from the configuration's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSide {
    /// How much is asked for.
    pub mode: TlsMode,
    /// Our certificate chain, PEM.
    pub cert: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// Who may sign the other side's certificate, PEM.
    pub ca: Option<PathBuf>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Ciphers, the best first; empty: all that are safe.
    pub ciphers: Vec<String>,
    /// How a server is asked; clients choose for themselves.
    pub negotiation: TlsNegotiation,
    /// Whether logins to servers are bound to their certificates; clients choose for themselves.
    pub channel_binding: TlsBinding,
}

/// `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// Where HTTP is served; none: nowhere.
    pub listen: Option<SocketAddr>,
    /// Pools that have series of their own.
    pub max_pools: Limit,
    /// Whether there is a status page.
    pub status_page: bool,
    /// Names by which it is served, besides addresses and this machine's own.
    pub hosts: Vec<String>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// The least severe message that is logged.
    pub level: LogLevel,
    /// Statements that took longer are logged; zero: all of them; none: none.
    pub slow_query: Option<Duration>,
    /// Of these, how many are logged: 0 to 1.
    pub slow_query_sample_rate: f64,
    /// With the literals in their texts.
    pub slow_query_literals: bool,
    /// With the values of their parameters.
    pub slow_query_parameters: bool,
    /// Whether clients that come and go are logged at info.
    pub connections: bool,
}

/// `[tracing]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Where spans are sent; none: nowhere.
    pub otlp_endpoint: Option<String>,
    /// Of the traces that callers record, how many have spans here: 0 to 1.
    pub sample_ratio: f64,
    /// Sent along; their values are not in what `Debug` shows.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Tracing {
    /// Where spans are posted, if the endpoint is a URL of http or https.
    pub fn traces_uri(&self) -> Option<Uri> {
        let endpoint = self.otlp_endpoint.as_deref()?;
        let uri: Uri = format!("{}/v1/traces", endpoint.trim_end_matches('/'))
            .parse()
            .ok()?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        (known && uri.host().is_some_and(|host| !host.is_empty())).then_some(uri)
    }
}
