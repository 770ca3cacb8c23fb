//! A primary with three replicas, two of them in the pooler's datacenter, and the pooler before them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use pooler::demo::postgres::Postgres;

use crate::support::{Builder, Pooler, Wire, wait_until};

/// The hosts of one cluster.
pub(crate) struct Hosts {
    pub(crate) primary: Postgres,
    /// Here, here, elsewhere.
    pub(crate) replicas: Vec<Postgres>,
}

impl Hosts {
    /// New ones, with `settings` of the replicas' own.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let builder = Postgres::builder().max_connections(200);
        let primary = builder.start().expect("a primary");
        let replica = || primary.replica(settings).expect("a replica");
        let replicas = vec![replica(), replica(), replica()];
        Self { primary, replicas }
    }

    /// Those that tests share which do them no harm.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Hosts> = OnceLock::new();
        SHARED.get_or_init(|| Hosts::start(&[]))
    }

    /// A pooler in the datacenter of the primary and two of the replicas, that routes by statement.
    pub(crate) fn pooler(&self) -> Builder {
        let mut builder = Pooler::builder().set("inspect_functions = true");
        builder = builder.host_in("dc1", self.primary.port());
        for (at, replica) in self.replicas.iter().enumerate() {
            let datacenter = if at < 2 { "dc1" } else { "dc2" };
            builder = builder.host_in(datacenter, replica.port());
        }
        builder
            .set("datacenter = \"dc1\"")
            .set("routing = \"auto\"")
            .cluster("monitor_user = \"postgres\"")
            .cluster("monitor_interval = \"100ms\"")
    }

    pub(crate) fn wait_replayed(&self) {
        for replica in &self.replicas {
            replica
                .wait_for(&self.primary)
                .expect("a replica that replays");
        }
    }
}

/// The pooler, its hosts, and a database of the test's own.
pub(crate) struct Scene<'a> {
    pub(crate) hosts: &'a Hosts,
    pub(crate) pooler: Pooler,
    pub(crate) database: String,
}

impl<'a> Scene<'a> {
    pub(crate) fn on(hosts: &'a Hosts, change: impl FnOnce(Builder) -> Builder) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let database = format!("db{number}");
        let created = hosts.primary.psql(&format!("CREATE DATABASE {database}"));
        created.expect("a database");
        hosts.wait_replayed();
        let scene = Self {
            hosts,
            pooler: change(hosts.pooler()).start(),
            database,
        };
        scene.wait_routed();
        scene
    }

    /// Runs SQL on the primary itself, and waits until all replicas have replayed it.
    pub(crate) fn sql(&self, sql: &str) {
        let done = self.hosts.primary.psql_in(&self.database, sql);
        done.expect("SQL that works");
        self.hosts.wait_replayed();
    }

    pub(crate) fn login(&self) -> Wire {
        self.pooler.login("postgres", &self.database)
    }

    pub(crate) fn login_with(&self, more: &[(&str, &str)]) -> Wire {
        let mut parameters = vec![("user", "postgres"), ("database", &*self.database)];
        parameters.extend_from_slice(more);
        Wire::login_with(self.pooler.port(), &parameters, "")
    }

    /// Waits until all hosts are known, and reads go to replicas.
    pub(crate) fn wait_routed(&self) {
        wait_until("all hosts are known", || {
            let reached = self.pooler.log().matches("the host can be reached").count();
            reached > self.hosts.replicas.len()
        });
        let mut wire = self.login_with(&[("options", "-c pooler.route=prefer-replica")]);
        wait_until("reads go to replicas", || {
            self.place(&wire.one(PORT)) != "primary"
        });
        wire.leave();
    }

    /// What the host of this port is.
    pub(crate) fn place(&self, port: &str) -> &'static str {
        let is = |postgres: &Postgres| postgres.port().to_string() == port;
        match self.hosts.replicas.iter().position(is) {
            Some(0) => "a",
            Some(1) => "b",
            Some(_) => "remote",
            None if is(&self.hosts.primary) => "primary",
            None => panic!("no host has port {port:?}"),
        }
    }

    /// Where a statement that says its port runs, `times` times.
    pub(crate) fn places(
        &self,
        wire: &mut Wire,
        sql: &str,
        times: usize,
    ) -> BTreeMap<&'static str, usize> {
        let mut places = BTreeMap::new();
        for _ in 0..times {
            *places.entry(self.place(&wire.one(sql))).or_default() += 1;
        }
        places
    }

    /// Whether all `times` were on local replicas.
    pub(crate) fn assert_local_reads(&self, wire: &mut Wire, sql: &str) {
        let places = self.places(wire, sql, 20);
        assert!(
            places.keys().all(|place| matches!(*place, "a" | "b")),
            "{sql}: {places:?}"
        );
    }

    pub(crate) fn assert_on_primary(&self, wire: &mut Wire, sql: &str) {
        let places = self.places(wire, sql, 5);
        assert!(
            places.keys().all(|place| *place == "primary"),
            "{sql}: {places:?}"
        );
    }
}

/// The statement that says where it runs.
pub(crate) const PORT: &str = "SELECT current_setting('port')";

/// The metrics.
pub(crate) fn scrape(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("metrics");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    text
}
