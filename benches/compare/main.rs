//! `make bench`: the pooler beside PgBouncer, HAProxy in TCP mode, a relay and a pooler that do no more than they must, and
//! a direct connection, in one run.
//!
//! Every contestant stands before the same PostgreSQL, configured alike, in turns that rotate over several rounds; the
//! tables hold medians. Comparisons hold within a run: the machine, and what else it does, are the same only there.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the tables are what the program is for"
)]

mod bare_pooler;
mod cases;
mod client;
mod idle;
mod large;
mod options;
mod peers;
mod pgbench;
mod process;
mod relay;
mod report;
mod storm;
mod tls;
mod watched;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use pooler::demo::postgres::Postgres;

use crate::cases::{Arena, Case, Outcome};
use crate::options::Options;
use crate::peers::{Kind, Peer, SERVERS};

/// Open files that 8000 clients and what serves them need at most.
const FILES: u64 = 40_000;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("compare: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    if let Some((from, to)) = options.relay() {
        return relay::run(from, to);
    }
    if let Some((from, to)) = options.bare_pooler() {
        return bare_pooler::run(from, to);
    }
    raise_file_limit(options)?;
    let (peers, missing) = peers::found(options);
    let postgres = start_postgres()?;
    postgres.psql(&format!("CREATE ROLE {} LOGIN", peers::SCRAM_USER))?;
    let directory = pooler::demo::make_dir("bench")?;
    let logs = LogDirectory::create(&directory)?;
    let arena = Arena {
        postgres: &postgres,
        directory: &directory,
        logs: &logs.0,
        seconds: options.seconds(),
    };
    let head = head(options, &peers, &missing, &postgres)?;
    for line in &head {
        println!("{line}");
    }
    let mut outcomes = Vec::new();
    for case in cases::all(options) {
        let outcome = case.run(
            &peers,
            options.rounds(),
            &arena,
            |case: &Case, kind: Kind, measured| {
                eprintln!(
                    "{}: {}: {}",
                    case.name(),
                    kind.name(),
                    report::line(case, measured)
                );
            },
        )?;
        outcomes.push(outcome);
    }
    println!("\n{}", report::summary(&outcomes));
    for outcome in outcomes.iter().filter(|outcome| outcome.is_watched()) {
        println!("{}", report::table(outcome));
    }
    write_results(options, &head, &outcomes)
}

fn write_results(options: &Options, head: &[String], outcomes: &[Outcome]) -> io::Result<()> {
    if let Some(path) = options.output() {
        std::fs::write(&path, report::file(head, outcomes))?;
        println!("written to {}", path.display());
    }
    Ok(())
}

/// A server with room for every client of a direct connection, that does nothing by itself meanwhile.
fn start_postgres() -> io::Result<Postgres> {
    let builder = Postgres::builder()
        .max_connections(700)
        .setting("shared_buffers", "512MB");
    let builder = builder
        .setting("autovacuum", "off")
        .setting("jit", "off")
        .setting("max_wal_size", "4GB");
    builder
        .setting("max_parallel_workers_per_gather", "0")
        .setting("synchronize_seqscans", "off")
        .start()
}

/// The limit counts for the contestants too, which inherit it.
fn raise_file_limit(options: &Options) -> io::Result<()> {
    // Root may go beyond the hard limit; anyone else has to do with it.
    let raised = rlimit::setrlimit(rlimit::Resource::NOFILE, FILES, FILES).map(|()| FILES);
    let limit = raised.or_else(|_| rlimit::increase_nofile_limit(FILES))?;
    let needed = options.idle_clients() as u64 + 200;
    if limit < needed {
        let hint = format!(
            "the limit of open files is {limit}, {needed} are needed: ulimit -n, or --idle-clients"
        );
        return Err(io::Error::other(hint));
    }
    Ok(())
}

/// The conditions of the run.
fn head(
    options: &Options,
    peers: &[Peer],
    missing: &[String],
    postgres: &Postgres,
) -> io::Result<Vec<String>> {
    let mut head = vec![
        format!(
            "Machine: {}; everything runs on it at once",
            process::machine()
        ),
        format!(
            "PostgreSQL {}, over TCP on the loopback",
            postgres.psql("SHOW server_version")?
        ),
    ];
    head.extend(
        peers
            .iter()
            .filter_map(Peer::version)
            .map(|version| format!("{version}{}", commit(&version))),
    );
    let (rounds, seconds) = (options.rounds(), options.seconds());
    head.push(format!(
        "{rounds} rounds, each measurement {seconds:?}, medians; {SERVERS} server connections"
    ));
    head.push(
        "Transactions are `SELECT :aid`; CPU time is the contestant's alone, all its threads"
            .to_owned(),
    );
    head.push(
        "`of PgBouncer's`: CPU time, or memory, relative to PgBouncer's of the same round"
            .to_owned(),
    );
    head.push(
        "The bare relay parses and pools nothing, and has a server connection for each client: what remains is the kernel's"
            .to_owned(),
    );
    head.push(
        "The bare pooler knows where a reply ends and nothing else: what remains is the least that pooling costs"
            .to_owned(),
    );
    head.push(
        "TLS is 1.3 from the clients, with one certificate (ECDSA P-256) for all; every handshake is a full one, because libpq \
         resumes none. SCRAM is checked against a verifier"
            .to_owned(),
    );
    head.extend(missing.iter().cloned());
    Ok(head)
}

/// The commit of this tree, behind our own version.
fn commit(version: &str) -> String {
    if !version.starts_with("pooler") {
        return String::new();
    }
    let described = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .output();
    let described = described.ok().filter(|out| out.status.success());
    described.map_or_else(String::new, |out| {
        format!(" ({})", String::from_utf8_lossy(&out.stdout).trim())
    })
}

/// Where pgbench's logs go: in memory if the system has a place for that. Removed with the value.
struct LogDirectory(PathBuf);

impl LogDirectory {
    fn create(otherwise: &Path) -> io::Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory } else { otherwise };
        let path = parent.join(format!("pooler-bench-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for LogDirectory {
    fn drop(&mut self) {
        // It holds nothing but logs that were removed one by one.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
