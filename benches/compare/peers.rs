//! The contestants: how each is configured and started. All run before the same PostgreSQL, with 16 server connections
//! where they pool, without logging connections, and serve trust logins over TCP; logins of one user by SCRAM where that is
//! measured.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pooler::demo::{Leashed, find_program, free_port, server_account};
use pooler_protocol::auth;

use crate::client::Client;
use crate::options::Options;
use crate::pgbench::Link;
use crate::watched::{self, Watchers};

/// The database and the user of everything here.
pub(crate) const DATABASE: &str = "postgres";
pub(crate) const USER: &str = "postgres";

/// Whoever logs in by SCRAM, and with what.
pub(crate) const SCRAM_USER: &str = "bench";
pub(crate) const PASSWORD: &str = "secret";

/// Server connections of a pooler.
pub(crate) const SERVERS: usize = 16;

const PATIENCE: Duration = Duration::from_secs(20);

/// One that can be measured.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    program: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pooler {
        workers: u32,
    },
    /// With nothing watched, or all of it; see [`crate::watched`].
    Watched {
        all: bool,
    },
    PgBouncer,
    HaProxy,
    /// See [`crate::relay`].
    Relay,
    /// See [`crate::bare_pooler`].
    BarePooler,
    Direct,
}

/// A contestant at work, until it is dropped.
pub(crate) struct Running {
    pub(crate) port: u16,
    process: Option<Leashed>,
    _watchers: Option<Watchers>,
}

impl Kind {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Pooler { workers: 1 } => "pooler, 1 worker".to_owned(),
            Self::Pooler { workers } => format!("pooler, {workers} workers"),
            Self::Watched { all: true } => "pooler, all watched".to_owned(),
            Self::Watched { all: false } => "pooler, nothing watched".to_owned(),
            Self::PgBouncer => "PgBouncer".to_owned(),
            Self::HaProxy => "HAProxy, TCP".to_owned(),
            Self::Relay => "bare relay".to_owned(),
            Self::BarePooler => "bare pooler".to_owned(),
            Self::Direct => "direct".to_owned(),
        }
    }

    /// Whether many clients share few servers.
    pub(crate) fn pools(self) -> bool {
        matches!(self, Self::Pooler { .. } | Self::PgBouncer)
    }
}

/// Everyone who is wanted and here, and a word on those who are not here.
pub(crate) fn found(options: &Options) -> (Vec<Peer>, Vec<String>) {
    let fetched =
        |name: &str| Some(Path::new("target/bench-peers").join(name)).filter(|path| path.is_file());
    let pgbouncer = options
        .pgbouncer
        .clone()
        .or_else(|| fetched("pgbouncer"))
        .or_else(|| find_program("pgbouncer"));
    let haproxy = options
        .haproxy
        .clone()
        .or_else(|| fetched("haproxy"))
        .or_else(|| find_program("haproxy"));
    let pooler = options.pooler();
    let kinds = [1, 2, 4].map(|workers| (Kind::Pooler { workers }, pooler.clone()));
    let watched = [false, true].map(|all| (Kind::Watched { all }, pooler.clone()));
    let others = [
        (Kind::PgBouncer, pgbouncer),
        (Kind::HaProxy, haproxy),
        (Kind::Relay, std::env::current_exe().ok()),
        (Kind::BarePooler, std::env::current_exe().ok()),
        (Kind::Direct, Some(PathBuf::new())),
    ];
    let (mut peers, mut missing) = (Vec::new(), Vec::new());
    for (kind, program) in kinds.into_iter().chain(watched).chain(others) {
        match program {
            _ if !options.wants_peer(&kind.name()) => {}
            Some(program) => peers.push(Peer { kind, program }),
            None => missing.push(format!("{} is not here: left out", kind.name())),
        }
    }
    (peers, missing)
}

impl Peer {
    /// What it says of its version.
    pub(crate) fn version(&self) -> Option<String> {
        let argument = match self.kind {
            Kind::Pooler { workers: 1 } | Kind::PgBouncer => "--version",
            Kind::HaProxy => "-v",
            Kind::Pooler { .. } | Kind::Watched { .. } => return None,
            Kind::Relay | Kind::BarePooler | Kind::Direct => return None,
        };
        let out = Command::new(&self.program).arg(argument).output().ok()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        text.lines()
            .next()
            .and_then(|line| line.split(" - ").next())
            .map(str::to_owned)
    }

    /// Starts it before the PostgreSQL at this port, for clients that come so, with its files in this directory; it serves when
    /// this returns.
    pub(crate) fn start(&self, link: Link, postgres: u16, directory: &Path) -> io::Result<Running> {
        if self.kind == Kind::Direct {
            return Ok(Running {
                port: postgres,
                process: None,
                _watchers: None,
            });
        }
        let port = free_port()?;
        let config = directory.join(format!("peer-{port}.conf"));
        let watchers = match self.kind {
            Kind::Watched { all: true } => Some(Watchers::start()?),
            _ => None,
        };
        let mut text = self.config(link, port, postgres, directory)?;
        text.push_str(&watchers.as_ref().map_or(String::new(), Watchers::config));
        std::fs::write(&config, text)?;
        let log_path = directory.join(format!("peer-{port}.log"));
        let log = File::create(&log_path)?;
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Pooler { .. } | Kind::Watched { .. } => command.arg("run").arg(&config),
            Kind::HaProxy => command.args(["-db", "-f"]).arg(&config),
            Kind::Relay => command.args(["--relay", &format!("{port}:{postgres}")]),
            Kind::BarePooler => command.args(["--bare-pooler", &format!("{port}:{postgres}")]),
            Kind::PgBouncer | Kind::Direct => command.arg(&config),
        };
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut running = Running {
            port,
            process: Some(Leashed::start(&mut command)?),
            _watchers: watchers,
        };
        running.wait_until_it_serves().map_err(|e| {
            let log = std::fs::read_to_string(&log_path).unwrap_or_default();
            io::Error::other(format!("{} does not serve: {e}\n{log}", self.kind.name()))
        })?;
        Ok(running)
    }

    fn config(&self, link: Link, port: u16, postgres: u16, directory: &Path) -> io::Result<String> {
        let rules = match link {
            Link::Plain | Link::Tls => None,
            Link::TlsScram => Some(rules(directory)?),
        };
        Ok(match self.kind {
            Kind::Pooler { workers } => {
                let [cert, key] = certificate(directory)?;
                pooler_config(port, postgres, workers, rules.as_deref())
                    + "[log]\nlevel = \"warn\"\n[metrics]\nlisten = \"\"\n"
                    + &format!(
                        "[tls.client]\ncert = {cert:?}\nkey = {key:?}\n[tls.server]\nmode = \"disable\"\n"
                    )
            }
            Kind::Watched { all: false } => {
                pooler_config(port, postgres, 1, None) + watched::NOTHING
            }
            // The rest is what watches it.
            Kind::Watched { all: true } => pooler_config(port, postgres, 1, None),
            Kind::PgBouncer => pgbouncer_config(port, postgres, rules.as_deref(), directory)?,
            Kind::HaProxy => haproxy_config(port, postgres),
            Kind::Relay | Kind::BarePooler | Kind::Direct => String::new(),
        })
    }
}

impl Running {
    /// The process, if there is one between.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Leashed::pid)
    }

    fn wait_until_it_serves(&mut self) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self
                .process
                .as_mut()
                .map(Leashed::ended)
                .transpose()?
                .flatten()
            {
                return Err(io::Error::other(format!("it ended by itself ({status})")));
            }
            let served = Client::connect(self.port, USER, DATABASE)
                .and_then(|mut client| client.query("SELECT 1", &mut [0; 4096], |_| ()));
            match served {
                Ok(()) => return Ok(()),
                Err(e) if Instant::now() >= end => return Err(e),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// A certificate and its key, which all contestants show: ECDSA, made once a run.
pub(crate) fn certificate(directory: &Path) -> io::Result<[PathBuf; 2]> {
    let [cert, key] = ["bench.crt", "bench.key"].map(|name| directory.join(name));
    if !key.exists() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
        let made = made.map_err(io::Error::other)?;
        std::fs::write(&cert, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
    }
    Ok([cert, key])
}

/// Who logs in how, for everyone who can read it: one user by SCRAM.
fn rules(directory: &Path) -> io::Result<PathBuf> {
    let path = directory.join("bench_hba.conf");
    let rules = format!(
        "host all {USER} 127.0.0.1/32 trust\nhost all {SCRAM_USER} 127.0.0.1/32 scram-sha-256\n"
    );
    std::fs::write(&path, rules)?;
    Ok(path)
}

/// What is known of that user's password.
fn verifier() -> String {
    let keys = auth::derive(PASSWORD.as_bytes(), b"salt of the test", 4096);
    keys.verifier().encode().to_string()
}

fn pooler_config(port: u16, postgres: u16, workers: u32, rules: Option<&Path>) -> String {
    let auth = match rules {
        None => "type = \"trust\"".to_owned(),
        Some(rules) => format!(
            "type = \"hba\"\nhba_file = {rules:?}\n[users.{SCRAM_USER}]\npassword = \"{}\"",
            verifier()
        ),
    };
    format!(
        r#"[pooler]
listen = ["127.0.0.1:{port}"]
workers = {workers}
pool_mode = "transaction"
pool_size = {SERVERS}
max_client_conn = 20000
max_prepared_statements = 200

[clusters.main]
hosts = [{{ host = "127.0.0.1", port = {postgres}, role = "primary" }}]

[databases."*"]
cluster = "main"

[auth]
{auth}
"#
    )
}

fn pgbouncer_config(
    port: u16,
    postgres: u16,
    rules: Option<&Path>,
    directory: &Path,
) -> io::Result<String> {
    let users = directory.join("pgbouncer-users.txt");
    let known = format!("\"{USER}\" \"\"\n\"{SCRAM_USER}\" \"{}\"\n", verifier());
    std::fs::write(&users, known)?;
    let auth = match rules {
        None => "auth_type = trust".to_owned(),
        Some(rules) => format!("auth_type = hba\nauth_hba_file = {}", rules.display()),
    };
    // It refuses to run as root, but changes to another user by itself.
    let user = server_account()?.map_or_else(String::new, |name| format!("user = {name}\n"));
    let [cert, key] = certificate(directory)?;
    Ok(format!(
        "[databases]
* = host=127.0.0.1 port={postgres}

[pgbouncer]
{user}listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
{auth}
auth_file = {}
pool_mode = transaction
default_pool_size = {SERVERS}
max_prepared_statements = 200
max_client_conn = 20000
log_connections = 0
log_disconnections = 0
client_tls_sslmode = allow
client_tls_cert_file = {}
client_tls_key_file = {}
",
        users.display(),
        cert.display(),
        key.display()
    ))
}

fn haproxy_config(port: u16, postgres: u16) -> String {
    format!(
        "global
    nbthread 1
    maxconn 5000

defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h

listen postgres
    bind 127.0.0.1:{port}
    server postgres 127.0.0.1:{postgres}
"
    )
}
