//! One run of pgbench, measured in a window that begins when all its clients are at work.
//!
//! pgbench writes a line for each transaction; transactions and latencies are those of the lines whose end lies in the
//! window, and the contestant's CPU time is read at the window's two ends. Logins are in neither, unless every transaction
//! has one.

use std::fs::{read_dir, read_to_string, remove_file};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pooler::demo::find_program;

use crate::peers::{DATABASE, PASSWORD, Running, SCRAM_USER, USER};
use crate::process::CpuReading;
use crate::watched::{TRACED, TRACED_OF};

/// From the first transaction to the window's beginning, and from the window's end to pgbench's.
const MARGIN: Duration = Duration::from_secs(1);

/// How long pgbench may take to connect all its clients.
const PATIENCE: Duration = Duration::from_secs(60);

/// How pgbench speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) protocol: &'static str,
    pub(crate) clients: usize,
    /// A login for each transaction.
    pub(crate) reconnect: bool,
    pub(crate) link: Link,
    /// Transactions a second; without it as many as can be.
    pub(crate) rate: Option<u32>,
}

/// How clients come. By TLS every handshake is a full one: libpq, which pgbench connects by, never resumes a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// In the clear, believed without a proof.
    Plain,
    /// By TLS, believed without a proof.
    Tls,
    /// By TLS, with SCRAM-SHA-256.
    TlsScram,
}

impl Link {
    /// What names of cases begin with.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Tls => "TLS, ",
            Self::TlsScram => "TLS and SCRAM, ",
        }
    }
}

/// What a window showed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    pub(crate) per_second: f64,
    /// How long the window was.
    pub(crate) seconds: f64,
    /// Latency in microseconds: half, 99 % and 99.9 % of the transactions took at most this.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    /// CPU time of the contestant, microseconds a transaction.
    pub(crate) cpu: Option<f64>,
    /// Threads of the contestant that ended in the window, with CPU time that is not counted.
    pub(crate) lost_threads: usize,
}

/// Runs pgbench against a contestant; its logs go to `directory` and are removed.
pub(crate) fn run(
    load: Load,
    peer: &Running,
    seconds: Duration,
    directory: &Path,
) -> io::Result<Window> {
    run_scripts(load, &[], peer, seconds, directory, || {
        Ok(vec![edges(peer, seconds)?])
    })
    .and_then(only)
}

/// The same, where some of the transactions are traced.
pub(crate) fn run_watched(
    load: Load,
    peer: &Running,
    seconds: Duration,
    directory: &Path,
) -> io::Result<Window> {
    let script = directory.join("traced.sql");
    std::fs::write(&script, TRACED)?;
    let traced = format!("{}@1", script.display());
    let others = format!("{}@{}", directory.join(SELECT).display(), TRACED_OF - 1);
    run_scripts(load, &[traced, others], peer, seconds, directory, || {
        Ok(vec![edges(peer, seconds)?])
    })
    .and_then(only)
}

fn only(mut windows: Vec<Window>) -> io::Result<Window> {
    windows
        .pop()
        .ok_or_else(|| io::Error::other("BUG: no window"))
}

/// Runs pgbench, for at most `seconds` and what settling takes, and `beside` it what takes windows. With a rate it need not
/// come to its own end.
pub(crate) fn run_beside(
    load: Load,
    peer: &Running,
    seconds: Duration,
    directory: &Path,
    beside: impl FnOnce() -> io::Result<Vec<(Edge, Edge)>>,
) -> io::Result<Vec<Window>> {
    run_scripts(load, &[], peer, seconds, directory, beside)
}

/// The script of transactions that are not traced.
const SELECT: &str = "select.sql";

fn run_scripts(
    load: Load,
    scripts: &[String],
    peer: &Running,
    seconds: Duration,
    directory: &Path,
    beside: impl FnOnce() -> io::Result<Vec<(Edge, Edge)>>,
) -> io::Result<Vec<Window>> {
    let script = directory.join(SELECT);
    std::fs::write(&script, "\\set aid random(1, 100000)\nSELECT :aid;\n")?;
    let only = [script.display().to_string()];
    let scripts = if scripts.is_empty() { &only } else { scripts };
    let mut child = command(load, peer.port, seconds, &script, scripts)?
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let begun = wait_for_first_lines(&mut child, directory)?;
    let windows = if begun {
        std::thread::sleep(MARGIN);
        Some(beside())
    } else {
        None
    };
    let early = load.rate.is_some() && child.try_wait()?.is_none();
    if early {
        // What it has logged is in the files by then, up to the last windows' end.
        std::thread::sleep(MARGIN);
    }
    if early || !matches!(windows, Some(Ok(_))) {
        child.kill()?;
    }
    let out = child.wait_with_output()?;
    let lines = take_logs(directory)?;
    match windows.transpose()? {
        Some(edges) if early || out.status.success() => {
            let each = edges.iter().map(|(from, to)| window(&lines, from, to));
            Ok(each.collect())
        }
        _ => {
            let said = String::from_utf8_lossy(&out.stderr);
            Err(io::Error::other(format!(
                "pgbench: {}: {}",
                out.status,
                said.trim_end()
            )))
        }
    }
}

/// Takes a window in which nothing else happens.
pub(crate) fn edges(peer: &Running, seconds: Duration) -> io::Result<(Edge, Edge)> {
    let from = Edge::now(peer)?;
    std::thread::sleep(seconds);
    Ok((from, Edge::now(peer)?))
}

fn command(
    load: Load,
    port: u16,
    seconds: Duration,
    script: &Path,
    scripts: &[String],
) -> io::Result<Command> {
    let none = || {
        io::Error::new(
            io::ErrorKind::NotFound,
            "pgbench is not here: it comes with PostgreSQL",
        )
    };
    let mut pgbench = Command::new(find_program("pgbench").ok_or_else(none)?);
    let time = (seconds + MARGIN * 2).as_secs_f64().ceil();
    let threads = load
        .clients
        .min(std::thread::available_parallelism().map_or(1, usize::from));
    let (mode, user) = match load.link {
        Link::Plain => ("disable", USER),
        Link::Tls => ("require", USER),
        Link::TlsScram => ("require", SCRAM_USER),
    };
    pgbench.env("PGSSLMODE", mode).env("PGPASSWORD", PASSWORD);
    pgbench.args([
        "-n",
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-U",
        user,
        "-M",
        load.protocol,
    ]);
    pgbench.args([
        "-c",
        &load.clients.to_string(),
        "-j",
        &threads.to_string(),
        "-T",
        &time.to_string(),
    ]);
    for script in scripts {
        pgbench.arg("-f").arg(script);
    }
    pgbench
        .arg("-l")
        .arg("--log-prefix")
        .arg(script.with_file_name(LOG_PREFIX));
    if load.reconnect {
        pgbench.arg("-C");
    }
    if let Some(rate) = load.rate {
        pgbench.args(["-R", &rate.to_string()]);
    }
    pgbench.arg(DATABASE);
    Ok(pgbench)
}

const LOG_PREFIX: &str = "pgbench";

fn logs(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    let is_log = |name: &std::ffi::OsStr| {
        name.to_str()
            .is_some_and(|name| name.starts_with(LOG_PREFIX))
    };
    Ok(entries
        .iter()
        .filter(|entry| is_log(&entry.file_name()))
        .map(std::fs::DirEntry::path)
        .collect())
}

/// Whether transactions were logged before pgbench gave up or the time was up.
fn wait_for_first_lines(pgbench: &mut Child, directory: &Path) -> io::Result<bool> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end && pgbench.try_wait()?.is_none() {
        for log in logs(directory)? {
            if log.metadata()?.len() > 0 {
                return Ok(true);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

fn take_logs(directory: &Path) -> io::Result<Vec<String>> {
    let mut texts = Vec::new();
    for log in logs(directory)? {
        texts.push(read_to_string(&log)?);
        remove_file(log)?;
    }
    Ok(texts)
}

/// One end of the window: the time as pgbench's log has it, in microseconds, and the contestant's CPU time.
pub(crate) struct Edge {
    at: u64,
    cpu: Option<CpuReading>,
}

impl Edge {
    pub(crate) fn now(peer: &Running) -> io::Result<Self> {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(io::Error::other)?;
        let at = u64::try_from(since_epoch.as_micros()).map_err(io::Error::other)?;
        Ok(Self {
            at,
            cpu: peer.pid().map(CpuReading::of).transpose()?,
        })
    }
}

fn window(logs: &[String], from: &Edge, to: &Edge) -> Window {
    let lines = logs
        .iter()
        .flat_map(|log| log.lines())
        .filter_map(parse_line);
    let mut latencies: Vec<u64> = lines
        .filter(|&(end, _)| from.at <= end && end < to.at)
        .map(|(_, took)| took)
        .collect();
    latencies.sort_unstable();
    let count = latencies.len() as f64;
    let cpu = to
        .cpu
        .as_ref()
        .zip(from.cpu.as_ref())
        .map(|(to, from)| to.since(from));
    let seconds = (to.at - from.at) as f64 / 1e6;
    Window {
        per_second: count / seconds,
        seconds,
        p50: quantile(&latencies, 0.5),
        p99: quantile(&latencies, 0.99),
        p999: quantile(&latencies, 0.999),
        cpu: cpu.map(|(used, _)| used / count),
        lost_threads: cpu.map_or(0, |(_, ended)| ended),
    }
}

/// When a transaction ended and how long it took, both in microseconds: fields 5 and 6 (seconds and microseconds), and 3,
/// less field 7, which is there with a rate: how late pgbench itself was.
fn parse_line(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_ascii_whitespace().skip(2);
    let took: u64 = fields.next()?.parse().ok()?;
    let seconds: u64 = fields.nth(1)?.parse().ok()?;
    let micros: u64 = fields.next()?.parse().ok()?;
    let late = fields.next().map_or(Some(0), |field| field.parse().ok())?;
    Some((seconds * 1_000_000 + micros, took.saturating_sub(late)))
}

/// The least value that this share of the sorted values does not exceed.
fn quantile(sorted: &[u64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .map_or(f64::NAN, |&value| value as f64)
}
