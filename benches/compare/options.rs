//! What a run measures, from the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// The pooler beside PgBouncer, HAProxy in TCP mode and a direct connection.
#[derive(Parser, Debug)]
#[command(name = "compare")]
pub(crate) struct Options {
    /// One short round of everything, for a look; the results file is left alone
    #[arg(long)]
    quick: bool,
    /// Seconds of each measurement [default: 5, quick: 1]
    #[arg(long)]
    seconds: Option<f64>,
    /// Rounds, of which the medians are taken [default: 5, quick: 1]
    #[arg(long)]
    rounds: Option<usize>,
    /// Only cases whose name contains one of these (such as `simple`, `prepared, 32`, `rows`, `login`, `idle`, `tls`)
    #[arg(long, value_delimiter = ';')]
    only: Vec<String>,
    /// Only contestants whose name contains one of these (such as `pooler, 1 worker`, `PgBouncer`)
    #[arg(long, value_delimiter = ';')]
    peers: Vec<String>,
    /// Idle clients of the memory measurement [default: 8000, quick: 1000]
    #[arg(long)]
    idle_clients: Option<usize>,
    /// The pooler's executable [default: the one of this build]
    #[arg(long)]
    pooler: Option<PathBuf>,
    /// PgBouncer's executable [default: target/bench-peers, PATH]
    #[arg(long)]
    pub(crate) pgbouncer: Option<PathBuf>,
    /// HAProxy's executable [default: target/bench-peers, PATH]
    #[arg(long)]
    pub(crate) haproxy: Option<PathBuf>,
    /// Where the tables go [default: benches/RESULTS.md, nowhere if not everything is measured]
    #[arg(long)]
    output: Option<PathBuf>,
    /// Be the bare relay, from this port to that one
    #[arg(long, hide = true, value_name = "PORT:PORT")]
    relay: Option<String>,
    /// Be the bare pooler, from this port to that one
    #[arg(long, hide = true, value_name = "PORT:PORT")]
    bare_pooler: Option<String>,
    /// cargo says this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn seconds(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(if self.quick { 1.0 } else { 5.0 }))
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 }).max(1)
    }

    pub(crate) fn idle_clients(&self) -> usize {
        self.idle_clients
            .unwrap_or(if self.quick { 1000 } else { 8000 })
            .max(1)
    }

    pub(crate) fn wants_case(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        let has = |part: &String| name.contains(&part.trim().to_lowercase());
        self.only.is_empty() || self.only.iter().any(has)
    }

    pub(crate) fn wants_peer(&self, name: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|part| name.contains(part.trim()))
    }

    /// The ports of the bare relay, if this process is to be it.
    pub(crate) fn relay(&self) -> Option<(u16, u16)> {
        ports(self.relay.as_ref()?)
    }

    /// The ports of the bare pooler, if this process is to be it.
    pub(crate) fn bare_pooler(&self) -> Option<(u16, u16)> {
        ports(self.bare_pooler.as_ref()?)
    }

    pub(crate) fn pooler(&self) -> Option<PathBuf> {
        self.pooler
            .clone()
            .or_else(|| option_env!("CARGO_BIN_EXE_pooler").map(PathBuf::from))
    }

    /// The results file; a run of a part never replaces the results of the whole.
    pub(crate) fn output(&self) -> Option<PathBuf> {
        let whole = !self.quick && self.only.is_empty() && self.peers.is_empty();
        let default = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/RESULTS.md"));
        self.output.clone().or_else(|| whole.then(default))
    }
}

fn ports(pair: &str) -> Option<(u16, u16)> {
    let (from, to) = pair.split_once(':')?;
    Some((from.parse().ok()?, to.parse().ok()?))
}
