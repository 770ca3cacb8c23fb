//! What is measured: the cases, who takes part in each, and the rounds.
//!
//! Within a case the contestants take turns, in another order in each round, each freshly started; what is compared was
//! measured within a minute.

use std::io;
use std::path::Path;
use std::time::Duration;

use pooler::demo::postgres::Postgres;

use crate::idle::{self, Memory};
use crate::large::{self, Flow, Shape};
use crate::options::Options;
use crate::peers::{Kind, Peer, Running, SERVERS};
use crate::pgbench::{self, Link, Load, Window};
use crate::storm::{self, Storm};

/// One thing that is measured of everyone who takes part.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Case {
    Transactions(Load),
    Logins(Load),
    /// What logs, traces and metrics cost: one of a hundred transactions names a caller that records a trace.
    Watched(Load),
    Large(Shape),
    Idle {
        clients: usize,
        link: Link,
    },
    /// Steady clients, while so many others log in at once.
    Storm {
        steady: usize,
        logins: usize,
    },
}

/// One measurement.
#[derive(Clone, Debug)]
pub(crate) enum Measured {
    Window(Window),
    Flow(Flow),
    Memory(Memory),
    Storm(Storm),
}

/// A case and its measurements: for each contestant, one a round.
pub(crate) struct Outcome {
    pub(crate) case: Case,
    pub(crate) rows: Vec<(Kind, Vec<Measured>)>,
}

impl Outcome {
    /// Whether it is about what watching costs.
    pub(crate) fn is_watched(&self) -> bool {
        matches!(self.case, Case::Watched(_))
    }
}

/// Where a measurement takes place.
pub(crate) struct Arena<'a> {
    pub(crate) postgres: &'a Postgres,
    /// For the contestants' files.
    pub(crate) directory: &'a Path,
    /// For pgbench's logs: in memory, where there is such a place.
    pub(crate) logs: &'a Path,
    pub(crate) seconds: Duration,
}

/// Idle clients by TLS at most: the benchmark holds the other ends, which are larger.
const TLS_IDLE_MAX: usize = 4000;

/// All cases of the table.
pub(crate) fn all(options: &Options) -> Vec<Case> {
    let mut cases = Vec::new();
    let load = |protocol, clients, reconnect, link| Load {
        protocol,
        clients,
        reconnect,
        link,
        rate: None,
    };
    for protocol in ["simple", "extended", "prepared"] {
        for clients in [1, 32, 500] {
            cases.push(Case::Transactions(load(
                protocol,
                clients,
                false,
                Link::Plain,
            )));
        }
    }
    // Ten times as many clients as servers.
    cases.push(Case::Transactions(load(
        "simple",
        SERVERS * 10,
        false,
        Link::Plain,
    )));
    cases.push(Case::Large(Shape {
        rows: 1000,
        row_bytes: 100,
    }));
    cases.push(Case::Large(Shape {
        rows: 100_000,
        row_bytes: 1000,
    }));
    cases.push(Case::Logins(load("simple", 16, true, Link::Plain)));
    for protocol in ["simple", "extended"] {
        cases.push(Case::Watched(load(protocol, 32, false, Link::Plain)));
    }
    cases.push(Case::Idle {
        clients: options.idle_clients(),
        link: Link::Plain,
    });
    for protocol in ["simple", "prepared"] {
        cases.push(Case::Transactions(load(protocol, 32, false, Link::Tls)));
    }
    for link in [Link::Tls, Link::TlsScram] {
        cases.push(Case::Logins(load("simple", 32, true, link)));
    }
    cases.push(Case::Storm {
        steady: 50,
        logins: 500,
    });
    cases.push(Case::Idle {
        clients: options.idle_clients().min(TLS_IDLE_MAX),
        link: Link::Tls,
    });
    cases.retain(|case| options.wants_case(&case.name()));
    cases
}

impl Case {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Transactions(load) => {
                let (prefix, plural) =
                    (load.link.prefix(), if load.clients == 1 { "" } else { "s" });
                format!("{prefix}{}, {} client{plural}", load.protocol, load.clients)
            }
            Self::Logins(load) => {
                let prefix = load.link.prefix();
                format!(
                    "{prefix}a login for each transaction, {} clients",
                    load.clients
                )
            }
            Self::Watched(load) => format!("watched, {}, {} clients", load.protocol, load.clients),
            Self::Large(shape) => format!("{} rows of {} bytes", shape.rows, shape.row_bytes),
            Self::Idle { clients, link } => format!("{}{clients} idle clients", link.prefix()),
            Self::Storm { steady, logins } => {
                let prefix = Link::TlsScram.prefix();
                format!("{prefix}{steady} steady clients while {logins} log in at once")
            }
        }
    }

    /// How clients come, which decides what they must be asked.
    fn link(&self) -> Link {
        match self {
            Self::Transactions(load) | Self::Logins(load) | Self::Watched(load) => load.link,
            Self::Large(_) => Link::Plain,
            Self::Idle { link, .. } => *link,
            Self::Storm { .. } => Link::TlsScram,
        }
    }

    fn takes_part(&self, kind: Kind) -> bool {
        if matches!(kind, Kind::Watched { .. }) || matches!(self, Self::Watched(_)) {
            return matches!((self, kind), (Self::Watched(_), Kind::Watched { .. }));
        }
        if self.link() != Link::Plain {
            return kind.pools();
        }
        match self {
            // Its clients' names of statements would be each other's.
            Self::Transactions(load) => kind != Kind::BarePooler || load.protocol != "prepared",
            Self::Logins(_) | Self::Large(_) => !matches!(kind, Kind::Relay | Kind::BarePooler),
            Self::Idle { .. } | Self::Storm { .. } => kind.pools(),
            Self::Watched(_) => false,
        }
    }

    /// Measures everyone in every round; `progress` hears of each measurement.
    pub(crate) fn run(
        self,
        peers: &[Peer],
        rounds: usize,
        arena: &Arena<'_>,
        mut progress: impl FnMut(&Self, Kind, &Measured),
    ) -> io::Result<Outcome> {
        if let Self::Large(shape) = self {
            shape.prepare(arena.postgres)?;
        }
        let peers: Vec<&Peer> = peers
            .iter()
            .filter(|peer| self.takes_part(peer.kind))
            .collect();
        let mut rows: Vec<_> = peers.iter().map(|peer| (peer.kind, Vec::new())).collect();
        // Memory does not vary as time does.
        let rounds = if matches!(self, Self::Idle { .. }) {
            1
        } else {
            rounds
        };
        for round in 0..rounds {
            for turn in 0..peers.len() {
                let index = (turn + round) % peers.len();
                let start =
                    || peers[index].start(self.link(), arena.postgres.port(), arena.directory);
                let running = start()?;
                let other = match self {
                    Self::Storm { .. } => Some(start()?),
                    _ => None,
                };
                let measured = self.measure(&running, other.as_ref(), arena).map_err(|e| {
                    io::Error::other(format!(
                        "{}, {}: {e}",
                        self.name(),
                        peers[index].kind.name()
                    ))
                })?;
                progress(&self, peers[index].kind, &measured);
                rows[index].1.push(measured);
            }
        }
        Ok(Outcome { case: self, rows })
    }

    /// `other` is a second one of the same kind, which serves nobody else.
    fn measure(
        &self,
        running: &Running,
        other: Option<&Running>,
        arena: &Arena<'_>,
    ) -> io::Result<Measured> {
        match *self {
            Self::Transactions(load) | Self::Logins(load) => {
                pgbench::run(load, running, arena.seconds, arena.logs).map(Measured::Window)
            }
            Self::Watched(load) => {
                pgbench::run_watched(load, running, arena.seconds, arena.logs).map(Measured::Window)
            }
            Self::Large(shape) => large::run(shape, running, arena.seconds).map(Measured::Flow),
            Self::Idle { clients, link } => {
                idle::run(clients, link, running, arena.directory).map(Measured::Memory)
            }
            Self::Storm { steady, logins } => {
                let other = other.ok_or_else(|| io::Error::other("BUG: no second one"))?;
                storm::run(steady, logins, [running, other], arena).map(Measured::Storm)
            }
        }
    }
}
