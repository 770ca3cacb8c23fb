//! `pooler demo`: a primary and two replicas in two datacenters, and the pooler before them.
//!
//! Everything lives in one temporary directory and ends with this process, however it ends: the servers by the guard of
//! `scratch`, the pooler by its leash.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::leash::Leashed;
use super::page::{self, Places};
use super::ports::free_port;
use super::postgres::Postgres;
use super::process::wait_until;
use super::programs::{command, find_program, output, psql};
use super::scratch::Scratch;

/// What may be different from a plain `pooler demo`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Stop by itself after this time.
    pub stop_after: Option<Duration>,
    /// pgbench's scale factor, 100,000 rows each; 0 leaves its tables out.
    pub scale: u32,
    /// The pooler's executable, this process's own if not set.
    pub executable: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            stop_after: None,
            scale: 10,
            executable: None,
        }
    }
}

/// The database that the demo fills.
const DATABASE: &str = "demo";

/// How long the pooler may take to answer its first query.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often we look whether the pooler still runs.
const LOOK: Duration = Duration::from_millis(200);

/// Lines of the pooler's log in an error.
const LOG_TAIL: usize = 20;

/// Starts everything, prints what to try, and waits for SIGINT or SIGTERM (or for the time set) to remove it all.
///
/// # Errors
/// No PostgreSQL here, a server or the pooler that does not start, or a pooler that ends by itself; nothing is left then.
pub fn run(options: &Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(start_and_wait(options.clone()));
    // A start that was interrupted may still be at work in its thread: it ends with the process.
    runtime.shutdown_background();
    super::remove_all();
    result
}

/// Cancel safe: no; `run` alone calls it, to its end.
async fn start_and_wait(options: Options) -> io::Result<()> {
    let mut stop = StopSignals::new()?;
    let stop_after = options.stop_after;
    let starting = tokio::task::spawn_blocking(move || Demo::start(&options));
    let mut demo = tokio::select! {
        demo = starting => demo.map_err(io::Error::other)??,
        () = stop.wait() => return Ok(()),
    };
    page::print(&demo.places());
    let ended = tokio::select! {
        () = stop.wait() => Ok(()),
        () = wait_for(stop_after) => Ok(()),
        result = demo.watch() => result,
    };
    page::say("stopping");
    tokio::task::spawn_blocking(move || drop(demo))
        .await
        .map_err(io::Error::other)?;
    ended
}

/// Everything that runs. Dropped from the top: first the pooler, then replicas and primary.
struct Demo {
    pooler: Leashed,
    replicas: [Postgres; 2],
    primary: Postgres,
    port: u16,
    metrics_port: u16,
    directory: PathBuf,
    has_tables: bool,
}

impl Demo {
    fn start(options: &Options) -> io::Result<Self> {
        page::say("starting a primary and two replicas");
        let primary = Postgres::builder()
            .setting("max_connections", "200")
            .start()?;
        let replicas = [primary.replica(&[])?, primary.replica(&[])?];
        let has_tables = fill(&primary, options.scale)?;

        page::say("starting pooler");
        let (port, metrics_port) = (free_port()?, free_port()?);
        let directory = Scratch::current()?.make_dir("demo")?;
        let (config, log) = (page::config_file(&directory), page::log_file(&directory));
        std::fs::write(
            &config,
            page::config(port, metrics_port, &primary, &replicas),
        )?;
        let log = File::create(log)?;
        let executable = options
            .executable
            .clone()
            .map_or_else(std::env::current_exe, Ok)?;
        let mut pooler = Command::new(executable);
        pooler
            .arg("run")
            .arg(config)
            .stdin(std::process::Stdio::null());
        pooler.stdout(log.try_clone()?).stderr(log);
        let pooler = Leashed::start(&mut pooler)?;
        let mut demo = Self {
            pooler,
            replicas,
            primary,
            port,
            metrics_port,
            directory,
            has_tables,
        };
        demo.wait_until_it_answers()?;
        Ok(demo)
    }

    fn wait_until_it_answers(&mut self) -> io::Result<()> {
        let mut last = None;
        let answered = wait_until(PATIENCE, || {
            self.check_pooler()?;
            last = psql(OsStr::new("127.0.0.1"), self.port, DATABASE, "SELECT 1").err();
            Ok(last.is_none())
        })?;
        match last {
            Some(error) if !answered => {
                Err(self.with_log(&format!("pooler does not answer: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Returns only when the pooler has ended by itself.
    async fn watch(&mut self) -> io::Result<()> {
        loop {
            self.check_pooler()?;
            tokio::time::sleep(LOOK).await;
        }
    }

    fn check_pooler(&mut self) -> io::Result<()> {
        match self.pooler.ended()? {
            None => Ok(()),
            Some(status) => Err(self.with_log(&format!("pooler ended by itself ({status})"))),
        }
    }

    fn with_log(&self, what: &str) -> io::Error {
        let log = std::fs::read_to_string(page::log_file(&self.directory)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n");
        io::Error::other(format!("{what}; the end of its log:\n{tail}"))
    }

    fn places(&self) -> Places<'_> {
        Places {
            port: self.port,
            metrics_port: self.metrics_port,
            database: DATABASE,
            has_tables: self.has_tables,
            primary: &self.primary,
            replicas: &self.replicas,
            directory: &self.directory,
        }
    }
}

/// Makes the database, and pgbench's tables in it if pgbench is here.
fn fill(primary: &Postgres, scale: u32) -> io::Result<bool> {
    primary.psql(&format!("CREATE DATABASE {DATABASE}"))?;
    let Some(pgbench) = find_program("pgbench").filter(|_| scale > 0) else {
        return Ok(false);
    };
    page::say(&format!(
        "filling the database `{DATABASE}` ({} rows)",
        scale * 100_000
    ));
    let mut pgbench = command(pgbench);
    pgbench.args([
        "-i",
        "-q",
        "-s",
        &scale.to_string(),
        "-U",
        "postgres",
        "-p",
        &primary.port().to_string(),
        "-h",
    ]);
    output(pgbench.arg(primary.socket_dir()).arg(DATABASE))?;
    Ok(true)
}

async fn wait_for(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// SIGINT and SIGTERM, from the first moment on.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Cancel safe: a signal that comes while nobody waits is seen by the next wait.
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
