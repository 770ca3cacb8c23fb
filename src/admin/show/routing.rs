//! SHOW HOSTS, SHOW ROUTES and EXPLAIN ROUTE: where statements may go, went, and would go.

use std::collections::BTreeMap;
use std::sync::Arc;

use pooler_protocol::route::{Route, Summary, Verdict, classify, hints};

use super::super::Desk;
use super::super::census::View;
use super::super::sheet::{Cell, Sheet, count, int4, int8, is, numeric, text};
use crate::cluster::position::Position;
use crate::cluster::select::{Avoid, Place, Read};
use crate::cluster::watch::{Health, Verdict as Known};
use crate::cluster::{Cluster, Host, PrimaryState};
use crate::config::{Role, Routing};
use crate::metrics::Why;

/// A host of a cluster.
pub(in super::super) struct HostLine {
    pub(in super::super) cluster: Arc<Cluster>,
    host: usize,
    pub(in super::super) known: Known,
    /// Server connections there, and those of them that are in use.
    pub(in super::super) servers: usize,
    pub(in super::super) active: usize,
}

impl HostLine {
    pub(in super::super) fn host(&self) -> &Host {
        &self.cluster.hosts()[self.host]
    }

    /// What the monitor minds about it.
    pub(in super::super) fn why(&self) -> Option<String> {
        self.cluster.why_not(self.host)
    }

    pub(in super::super) fn is_replica(&self) -> bool {
        self.known.role == Some(Role::Replica)
    }

    pub(in super::super) fn role(&self) -> &'static str {
        let primary = self.cluster.primary();
        let here = self.host();
        match self.known.role {
            Some(role) => role.word(),
            // Without a monitor the primary alone is known.
            None if primary.is_some_and(|p| p.address == here.address) => Role::Primary.word(),
            None => "unknown",
        }
    }

    pub(in super::super) fn health(&self) -> &'static str {
        match (self.known.health, self.known.fit) {
            _ if !self.cluster.is_monitored() => "not monitored",
            (Health::Up, false) if self.is_replica() => "lags",
            (Health::Up, _) => "up",
            (Health::Down, _) => "down",
            (Health::Unknown, _) => "unknown",
        }
    }

    fn of_replica(&self, value: impl ToString) -> Cell {
        self.is_replica().then(|| value.to_string())
    }
}

/// Every host, by cluster.
pub(in super::super) fn hosts(desk: &Desk) -> Vec<HostLine> {
    let current = desk.registry.current();
    let mut lines = Vec::new();
    let mut clusters: Vec<_> = current.clusters().values().collect();
    clusters.sort_by_key(|cluster| cluster.name().to_owned());
    for cluster in clusters {
        let pools = desk.registry.pools_on(cluster);
        let primary = cluster.primary().map(|host| &host.address);
        for (at, host) in cluster.hosts().iter().enumerate() {
            let address = host.address.to_string();
            let here = pools.iter().filter(|pool| match &pool.key.replica {
                Some(replica) => **replica == *address,
                None => primary == Some(&host.address),
            });
            let (mut servers, mut active) = (0, 0);
            for numbers in here.map(|pool| pool.numbers()) {
                servers += numbers.servers;
                let others = numbers.idle + numbers.connecting;
                active += numbers.servers.saturating_sub(others);
            }
            lines.push(HostLine {
                cluster: Arc::clone(cluster),
                host: at,
                known: host.verdict(),
                servers,
                active,
            });
        }
    }
    lines
}

/// SHOW HOSTS
pub(in super::super) static HOSTS: Sheet<HostLine> = Sheet {
    columns: &[
        text("cluster", |l| is(l.cluster.name())),
        text("host", |l| is(&l.host().address)),
        text("datacenter", |l| is(&l.host().datacenter)),
        text("role", |l| is(l.role())),
        text("health", |l| is(l.health())),
        text("why", HostLine::why),
        int8("lag_bytes", |l| l.of_replica(l.known.lag_bytes)),
        numeric("lag_seconds", |l| {
            l.of_replica(format!("{:.3}", l.known.lag.as_secs_f64()))
        }),
        int4("timeline", |l| {
            (l.known.timeline > 0).then(|| l.known.timeline.to_string())
        }),
        text("position", |l| {
            (l.known.position > Position::default()).then(|| l.known.position.to_string())
        }),
        int4("weight", |l| is(l.host().weight)),
        int4("share_percent", |l| l.of_replica(l.known.share * 100 / 256)),
        int4("servers", |l| count(l.servers)),
        int4("active", |l| count(l.active)),
    ],
    lines: |desk, _| hosts(desk),
};

/// Statements that went to hosts of one role in one datacenter, for one reason.
pub(in super::super) struct RouteLine {
    database: String,
    role: &'static str,
    datacenter: String,
    why: &'static str,
    count: u64,
}

fn routes(desk: &Desk, _: &View) -> Vec<RouteLine> {
    let mut sums = BTreeMap::<(String, &'static str, String, &'static str), u64>::new();
    for pool in desk.registry.pools() {
        let Some(cluster) = desk.registry.cluster_of(&pool) else {
            continue;
        };
        let host = cluster.host_of(pool.key.replica.as_deref());
        let role = match pool.key.replica {
            Some(_) => Role::Replica,
            None => Role::Primary,
        };
        let datacenter = host.map_or("", |host| &*host.datacenter);
        for why in Why::all() {
            let counters = pool.all_counters().iter();
            let n: u64 = counters.map(|c| c.routed[why.index()].value()).sum();
            if n > 0 {
                let key = (
                    pool.key.database.clone(),
                    role.word(),
                    datacenter.to_owned(),
                    why.name(),
                );
                *sums.entry(key).or_default() += n;
            }
        }
    }
    let line = |((database, role, datacenter, why), count)| RouteLine {
        database,
        role,
        datacenter,
        why,
        count,
    };
    sums.into_iter().map(line).collect()
}

/// SHOW ROUTES
pub(in super::super) static ROUTES: Sheet<RouteLine> = Sheet {
    columns: &[
        text("database", |l| is(&l.database)),
        text("role", |l| is(l.role)),
        text("datacenter", |l| is(&l.datacenter)),
        text("reason", |l| is(l.why)),
        int8("statements", |l| is(l.count)),
    ],
    lines: routes,
};

/// What would become of a statement in one database.
pub(in super::super) struct ExplainLine {
    database: String,
    goes_to: &'static str,
    host: Option<String>,
    reason: String,
    word: Option<String>,
}

impl ExplainLine {
    fn of(desk: &Desk, database: &str, statement: &str) -> Option<Self> {
        let current = desk.registry.current();
        let configured = current.config.database(database)?;
        let settings = current.config.pool_settings(database, "");
        let cluster = current.clusters().get(&configured.cluster)?;
        let known = desk
            .registry
            .known_database(&configured.cluster, configured.dbname(database));
        let catalogue = known.as_ref().and_then(|k| k.catalogue());
        let text = statement.as_bytes();
        let verdict = classify(text, &catalogue.unwrap_or_default());
        let refused = known.is_some_and(|known| known.was_refused(text));
        let (reads, reason, word) = match verdict {
            _ if settings.routing == Routing::Off => (false, "routing is off".to_owned(), None),
            Verdict::Read if refused => (false, "refused_before".to_owned(), None),
            Verdict::Read => (true, "read".to_owned(), None),
            Verdict::Begin(mode) if mode.read_only == Some(true) && !mode.serializable => {
                (true, "read_only_block".to_owned(), None)
            }
            Verdict::Begin(_) => (false, "block".to_owned(), None),
            Verdict::Unproven(doubt) => {
                let word = String::from_utf8_lossy(doubt.word(text)).into_owned();
                (false, doubt.reason.name().to_owned(), Some(word))
            }
            other => (false, why(Summary::from(other)).to_owned(), None),
        };
        let hint = hints(text)
            .route
            .filter(|_| settings.routing != Routing::Off);
        let (reads, reason) = match hint {
            Some(Route::Primary) => (false, format!("hint: primary ({reason})")),
            Some(Route::Replica) => (true, format!("hint: replica ({reason})")),
            Some(Route::PreferReplica) => (true, format!("hint: prefer-replica ({reason})")),
            Some(Route::Auto) | None if settings.routing == Routing::Explicit => {
                (false, format!("routing is explicit ({reason})"))
            }
            Some(Route::Auto) | None => (reads, reason),
        };
        let read = Read {
            seen: Position::default(),
            avoid: Avoid::default(),
            only_replicas: hint == Some(Route::Replica),
        };
        let place = if reads {
            cluster.place_read(read, 0, |_| 0).map(|(place, _)| place)
        } else {
            Some(Place::Primary)
        };
        let (goes_to, host) = match place {
            Some(Place::Replica(at)) => (
                Role::Replica.word(),
                Some(cluster.hosts()[at].address.to_string()),
            ),
            Some(Place::Primary) => (
                Role::Primary.word(),
                (cluster.primary_state() == PrimaryState::Found)
                    .then(|| cluster.primary().map(|host| host.address.to_string()))
                    .flatten(),
            ),
            None => ("nowhere", None),
        };
        Some(Self {
            database: database.to_owned(),
            goes_to,
            host,
            reason,
            word,
        })
    }
}

fn why(summary: Summary) -> &'static str {
    match summary {
        Summary::Empty => "empty",
        Summary::Unproven(reason) => reason.name(),
        _ => "other",
    }
}

/// EXPLAIN ROUTE: a line for each database that has been asked for.
pub(in super::super) static EXPLAIN: Sheet<ExplainLine> = Sheet {
    columns: &[
        text("database", |l| is(&l.database)),
        text("goes_to", |l| is(l.goes_to)),
        text("host", |l| l.host.clone()),
        text("reason", |l| is(&l.reason)),
        text("word", |l| l.word.clone()),
    ],
    lines: |desk, view| {
        let mut names: Vec<String> = desk
            .registry
            .pools()
            .iter()
            .map(|pool| pool.key.database.clone())
            .collect();
        names.sort_unstable();
        names.dedup();
        let lines = names.iter();
        lines
            .filter_map(|name| ExplainLine::of(desk, name, &view.asked))
            .collect()
    },
};
