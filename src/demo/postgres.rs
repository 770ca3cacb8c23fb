//! Real PostgreSQL clusters, from the PostgreSQL installed here: for `pooler demo`, the integration tests and the benchmarks.
//!
//! A cluster listens on 127.0.0.1 and on a Unix socket in its data directory, keeps nothing safe (fsync off), and has the
//! superuser and database `postgres`. The interface blocks; it knows no tokio. The invariant: whatever is started here is
//! stopped and removed, by `Drop`, or by the guard of `scratch` when this process dies; and nothing else is ever stopped.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use super::builder::Builder;
use super::ports::free_port;
use super::process::{children, kill_family, wait_child, wait_until};
use super::programs::{command, psql, server_command, signal};
use super::scratch::Scratch;

/// A running (or stopped) cluster of this process. All methods take `&self`: it can live in a static.
pub struct Postgres {
    pub(super) scratch: Arc<Scratch>,
    number: u32,
    dir: PathBuf,
    log: PathBuf,
    port: u16,
    /// The value of `method` in the default lines of `pg_hba.conf`.
    pub(super) auth: String,
    /// The postmaster, our child; `None` when stopped. Behind the lock: starting and stopping.
    server: Mutex<Option<Child>>,
}

/// How to stop a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// After every client has left (at most a minute).
    Smart,
    /// Sessions end with 57P01, transactions roll back, a clean shutdown.
    Fast,
    /// Sessions end with 57P02 at once; the next start recovers.
    Immediate,
}

/// How long a start, a stop or a wait for a replica may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How often a start is tried with another port, or again with its own.
const STARTS_MAX: usize = 10;

/// Lines of the log in an error.
const LOG_TAIL: usize = 20;

impl Postgres {
    /// A cluster to be: PostgreSQL's defaults, trust, nothing durable.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Its port on 127.0.0.1 and of its Unix socket; the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its Unix socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.dir
    }

    /// The postmaster's process, `None` when it is stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server().as_ref().map(Child::id)
    }

    /// What the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Runs SQL as `postgres` on the database `postgres`: see [`Postgres::psql_in`].
    ///
    /// # Errors
    /// As there.
    pub fn psql(&self, sql: &str) -> io::Result<String> {
        self.psql_in("postgres", sql)
    }

    /// Runs SQL through `psql` over the Unix socket, statement by statement up to the first error, and gives the rows,
    /// one a line, columns separated by `|`, without headings.
    ///
    /// # Errors
    /// What psql said.
    pub fn psql_in(&self, dbname: &str, sql: &str) -> io::Result<String> {
        psql(self.dir.as_os_str(), self.port, dbname, sql)
    }

    /// Adds a line to `postgresql.conf`, where the last of a name wins; [`Postgres::reload`] or a restart makes it count.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_conf(&self, name: &str, value: &str) -> io::Result<()> {
        self.add_conf([(name, value)])
    }

    /// Puts these lines before the default ones of `pg_hba.conf`, in place of earlier such lines.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_hba(&self, lines: &[&str]) -> io::Result<()> {
        let mut text = String::from("local all postgres trust\nlocal replication postgres trust\n");
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        for who in [
            "local all all",
            "host all all 127.0.0.1/32",
            "host replication all 127.0.0.1/32",
        ] {
            text.push_str(&format!("{who} {}\n", self.auth));
        }
        self.write_file("pg_hba.conf", text.as_bytes())
    }

    /// Writes a file in the data directory that only the server can read.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_file(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let path = self.dir.join(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        self.scratch
            .account
            .map_or(Ok(()), |account| account.own(&path))?;
        file.write_all(contents)
    }

    /// Makes the server read its files again; new sessions see them when this returns.
    ///
    /// # Errors
    /// It is stopped, or did not reload in a minute.
    pub fn reload(&self) -> io::Result<()> {
        let loaded = || self.psql("SELECT pg_conf_load_time()");
        let before = loaded()?;
        signal("HUP", &[self.running_pid()?])?;
        let done = wait_until(PATIENCE, || Ok(loaded()? != before))?;
        if done {
            Ok(())
        } else {
            Err(io::Error::other(
                "PostgreSQL did not reload its configuration",
            ))
        }
    }

    /// Stops the server; nothing happens if it is stopped.
    ///
    /// # Errors
    /// It is still there after a minute.
    pub fn stop(&self, mode: Stop) -> io::Result<()> {
        let mut server = self.server();
        let Some(child) = server.as_mut() else {
            return Ok(());
        };
        let name = match mode {
            Stop::Smart => "TERM",
            Stop::Fast => "INT",
            Stop::Immediate => "QUIT",
        };
        signal(name, &[child.id()])?;
        if wait_child(child, PATIENCE)?.is_none() {
            return Err(io::Error::other(format!(
                "PostgreSQL did not stop ({mode:?}) within {PATIENCE:?}"
            )));
        }
        *server = None;
        Ok(())
    }

    /// Starts the server on its old port after [`Postgres::stop`] or [`Postgres::crash`]; nothing happens if it runs.
    ///
    /// # Errors
    /// The server's own words.
    pub fn start_again(&self) -> io::Result<()> {
        let mut server = self.server();
        if server
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
        {
            return Ok(());
        }
        *server = None;
        for _ in 1..STARTS_MAX {
            match self.launch() {
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                    std::thread::sleep(Duration::from_millis(200))
                }
                other => return other.map(|child| *server = Some(child)),
            }
        }
        self.launch().map(|child| *server = Some(child))
    }

    /// A fast stop and a start.
    ///
    /// # Errors
    /// As these two.
    pub fn restart(&self) -> io::Result<()> {
        self.stop(Stop::Fast)?;
        self.start_again()
    }

    pub(super) fn server(&self) -> MutexGuard<'_, Option<Child>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn running_pid(&self) -> io::Result<u32> {
        self.pid().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotConnected, "this PostgreSQL is stopped")
        })
    }

    pub(super) fn add_conf<'a>(
        &self,
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> io::Result<()> {
        let mut text = String::new();
        for (name, value) in settings {
            text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        OpenOptions::new()
            .append(true)
            .open(self.dir.join("postgresql.conf"))?
            .write_all(text.as_bytes())
    }

    /// A cluster that is nothing but a path yet.
    pub(super) fn prepare(auth: String) -> io::Result<Self> {
        let scratch = Scratch::current()?;
        let (number, dir) = scratch.fresh_path();
        let log = dir.with_extension("log");
        Ok(Self {
            scratch,
            number,
            dir,
            log,
            port: 0,
            auth,
            server: Mutex::new(None),
        })
    }

    /// The first start: a port that was free a moment ago may be taken now.
    pub(super) fn start_on_free_port(&mut self) -> io::Result<()> {
        let (socket, name) = (
            self.dir.display().to_string(),
            format!("node{}", self.number),
        );
        self.add_conf([
            ("unix_socket_directories", socket.as_str()),
            ("cluster_name", name.as_str()),
        ])?;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..STARTS_MAX {
            self.port = free_port()?;
            self.set_conf("port", &self.port.to_string())?;
            match self.launch() {
                Ok(child) => {
                    *self.server() = Some(child);
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => last = e,
                Err(e) => return Err(e),
            }
        }
        Err(last)
    }

    /// Starts the postmaster as our child, in a process group of its own, and waits until it accepts connections.
    fn launch(&self) -> io::Result<Child> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let logged = self.log().len();
        let mut postgres = server_command("postgres", self.scratch.account, self.scratch.root())?;
        postgres.arg("-D").arg(&self.dir).process_group(0);
        postgres.stdout(log.try_clone()?).stderr(log);
        let mut child = postgres.spawn()?;
        let mut ended = None;
        let ready = wait_until(PATIENCE, || {
            ended = child.try_wait()?;
            Ok(ended.is_some() || self.accepts(child.id()))
        })?;
        if ready && ended.is_none() {
            return Ok(child);
        }
        if ended.is_none() {
            kill_family(&mut child)?;
        }
        self.forget_crashed();
        let taken = self
            .log()
            .get(logged..)
            .unwrap_or_default()
            .contains("Address already in use");
        let kind = if taken {
            io::ErrorKind::AddrInUse
        } else {
            io::ErrorKind::Other
        };
        Err(io::Error::new(
            kind,
            format!("PostgreSQL did not start:\n{}", self.log_tail()),
        ))
    }

    /// Whether the postmaster of this number says that it is ready (a standby that serves no reads counts).
    fn accepts(&self, pid: u32) -> bool {
        let text = std::fs::read_to_string(self.dir.join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.first() == Some(&pid.to_string().as_str())
            && matches!(lines.get(7), Some(&"ready" | &"standby"))
    }

    /// The last lines of the log, for an error.
    pub(super) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }

    /// Removes what a killed server leaves: its lock file, which names a process that may be another's one day, and its
    /// System V memory segment.
    pub(super) fn forget_crashed(&self) {
        let lock_file = self.dir.join("postmaster.pid");
        let text = std::fs::read_to_string(&lock_file).unwrap_or_default();
        if let Some(segment) = text
            .lines()
            .nth(6)
            .and_then(|line| line.split_ascii_whitespace().nth(1))
        {
            // Without `ipcrm` it stays until the next start: no harm.
            drop(command("ipcrm").args(["-m", segment]).output());
        }
        drop(std::fs::remove_file(lock_file));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(child) = self
            .server
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            && !matches!(end(child), Ok(Some(_)))
        {
            drop(kill_family(child));
        }
        self.forget_crashed();
        // What stays behind here goes with the guard.
        drop(std::fs::remove_dir_all(&self.dir));
        drop(std::fs::remove_file(&self.log));
    }
}

/// Ends a server at once, a frozen one too.
fn end(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    signal("QUIT", &[child.id()])?;
    let mut family = children(child.id())?;
    family.push(child.id());
    signal("CONT", &family)?;
    wait_child(child, Duration::from_secs(10))
}
