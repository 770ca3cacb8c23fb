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
use crate::pgbench::{self, Load, Window};

/// One thing that is measured of everyone who takes part.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Case {
    Transactions(Load),
    Logins(Load),
    /// The same by TLS 1.3, from the clients.
    TlsTransactions(Load),
    TlsLogins(Load),
    /// What logs, traces and metrics cost: one of a hundred transactions names a caller that records a trace.
    Watched(Load),
    Large(Shape),
    Idle {
        clients: usize,
    },
}

/// One measurement.
#[derive(Clone, Debug)]
pub(crate) enum Measured {
    Window(Window),
    Flow(Flow),
    Memory(Memory),
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

/// All cases of the table.
pub(crate) fn all(options: &Options) -> Vec<Case> {
    let mut cases = Vec::new();
    let transactions = |protocol, clients| {
        Case::Transactions(Load {
            protocol,
            clients,
            reconnect: false,
        })
    };
    for protocol in ["simple", "extended", "prepared"] {
        for clients in [1, 32, 500] {
            cases.push(transactions(protocol, clients));
        }
    }
    // Ten times as many clients as servers.
    cases.push(transactions("simple", SERVERS * 10));
    cases.push(Case::Large(Shape {
        rows: 1000,
        row_bytes: 100,
    }));
    cases.push(Case::Large(Shape {
        rows: 100_000,
        row_bytes: 1000,
    }));
    cases.push(Case::Logins(Load {
        protocol: "simple",
        clients: 16,
        reconnect: true,
    }));
    let by_tls = |clients, reconnect| Load {
        protocol: "simple",
        clients,
        reconnect,
    };
    cases.push(Case::TlsTransactions(by_tls(32, false)));
    cases.push(Case::TlsLogins(by_tls(32, true)));
    for protocol in ["simple", "extended"] {
        cases.push(Case::Watched(Load {
            protocol,
            clients: 32,
            reconnect: false,
        }));
    }
    cases.push(Case::Idle {
        clients: options.idle_clients(),
    });
    cases.retain(|case| options.wants_case(&case.name()));
    cases
}

impl Case {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Transactions(load) if load.clients == 1 => format!("{}, 1 client", load.protocol),
            Self::Transactions(load) => format!("{}, {} clients", load.protocol, load.clients),
            Self::Logins(load) => format!("a login for each transaction, {} clients", load.clients),
            Self::TlsTransactions(load) => {
                format!("TLS, {}, {} clients", load.protocol, load.clients)
            }
            Self::TlsLogins(load) => {
                format!(
                    "TLS, a login for each transaction, {} clients",
                    load.clients
                )
            }
            Self::Watched(load) => format!("watched, {}, {} clients", load.protocol, load.clients),
            Self::Large(shape) => format!("{} rows of {} bytes", shape.rows, shape.row_bytes),
            Self::Idle { clients } => format!("{clients} idle clients"),
        }
    }

    fn takes_part(&self, kind: Kind) -> bool {
        if matches!(kind, Kind::Watched { .. }) || matches!(self, Self::Watched(_)) {
            return matches!((self, kind), (Self::Watched(_), Kind::Watched { .. }));
        }
        match self {
            // Its clients' names of statements would be each other's.
            Self::Transactions(load) => kind != Kind::BarePooler || load.protocol != "prepared",
            Self::Logins(_) | Self::Large(_) => !matches!(kind, Kind::Relay | Kind::BarePooler),
            Self::Idle { .. } | Self::TlsTransactions(_) | Self::TlsLogins(_) => kind.pools(),
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
                let running = peers[index].start(arena.postgres.port(), arena.directory)?;
                let measured = self.measure(&running, arena).map_err(|e| {
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

    fn measure(&self, running: &Running, arena: &Arena<'_>) -> io::Result<Measured> {
        match *self {
            Self::Transactions(load) | Self::Logins(load) => {
                pgbench::run(load, false, running, arena.seconds, arena.logs).map(Measured::Window)
            }
            Self::TlsTransactions(load) | Self::TlsLogins(load) => {
                pgbench::run(load, true, running, arena.seconds, arena.logs).map(Measured::Window)
            }
            Self::Watched(load) => {
                pgbench::run_watched(load, running, arena.seconds, arena.logs).map(Measured::Window)
            }
            Self::Large(shape) => large::run(shape, running, arena.seconds).map(Measured::Flow),
            Self::Idle { clients } => idle::run(clients, running).map(Measured::Memory),
        }
    }
}
