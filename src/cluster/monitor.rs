//! Looking at the hosts of a cluster: each has a connection and a task of its own, so that one that does
//! not answer delays nobody (trap 67). No client's transaction is ever asked for this.
//!
//! ```text
//!   logged out --login--> logged in --look, every monitor_interval--> logged in
//!       ^                     | no answer in time, or the connection broke
//!       +---------------------+
//! ```
//! The connection is kept, so a host that is full of connections can still be seen, and its log does not
//! fill with logins (trap 81). A [`Cluster::call`] makes every task look at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pooler_protocol::backend::{read_data_row, tag};
use pooler_protocol::settings::Settings;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::spawn_local;

use super::position::Position;
use super::watch::{Failure, Observation};
use super::{Change, Cluster};
use crate::config;
use crate::error::{LoginError, Outlook, ServerFault};
use crate::net::Liveness;
use crate::server::Server;
use crate::server::login::{Credentials, Target, login};
use crate::tls::Connector;

/// What is asked at each look. Everything is qualified: what is set for the monitor's user must not
/// change what it means. A host in recovery writes nothing, so where the next record would go is only
/// asked of others; where the last one ended is asked of all.
const QUESTION: &str = "SELECT (pg_catalog.pg_control_system()).system_identifier, \
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN 't' ELSE 'f' END, \
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL \
        ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END, \
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
        ELSE pg_catalog.pg_current_wal_insert_lsn() END, \
    GREATEST((pg_catalog.pg_control_checkpoint()).timeline_id, \
        (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver)), \
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE pg_catalog.pg_current_wal_flush_lsn() END, \
    pg_catalog.current_setting('wal_writer_delay')";

/// The least time that a host has for an answer, or for a login.
const ANSWER_MIN: Duration = Duration::from_secs(1);

/// The least pause between two looks.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// While there is no primary, hosts are looked at this many times as often.
const HURRY: u32 = 5;

/// How the monitor gets in.
#[derive(Debug)]
pub struct Access {
    /// The proof.
    pub credentials: Arc<Credentials>,
    /// How its connections are encrypted.
    pub tls: Arc<Connector>,
    /// Socket options.
    pub liveness: Liveness,
}

/// What the monitor of a cluster is made of.
#[derive(Debug)]
pub struct Monitor {
    cluster: Arc<Cluster>,
    user: String,
    dbname: String,
    access: Access,
    interval: Duration,
    no_settings: Arc<Settings>,
    changes: UnboundedSender<(Arc<Cluster>, Change)>,
}

impl Monitor {
    /// Of `cluster`, which is configured as `config`; nothing if nobody is to look at it. What it finds
    /// out is told through `changes`.
    #[must_use]
    pub fn new(
        cluster: &Arc<Cluster>,
        config: &config::Cluster,
        access: Access,
        no_settings: Arc<Settings>,
        changes: UnboundedSender<(Arc<Cluster>, Change)>,
    ) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            cluster: Arc::clone(cluster),
            user: config.monitor_user.clone()?,
            dbname: config.monitor_dbname.clone(),
            access,
            interval: config.monitor_interval,
            no_settings,
            changes,
        }))
    }

    /// Starts to look, until the cluster is retired.
    pub fn start(self: &Arc<Self>) {
        for host in 0..self.cluster.hosts().len() {
            spawn_local(Arc::clone(self).look_after(host));
        }
    }

    async fn look_after(self: Arc<Self>, host: usize) {
        let mut server = None;
        let mut was_blind = false;
        while !self.cluster.is_retired() {
            let called = self.cluster.call.notify.notified();
            tokio::pin!(called);
            // Heard from here on: who calls during a look wants another.
            called.as_mut().enable();
            let look = self.cluster.begin_look();
            let seen = self.look(host, &mut server).await;
            let blind = match &seen {
                Err(Failure::Blind(why)) => Some(why.clone()),
                _ => None,
            };
            if let Some(why) = blind.as_ref().filter(|_| !was_blind) {
                let address = &self.cluster.hosts()[host].address;
                tracing::warn!(cluster = %self.cluster.name(), host = %address, "monitor_user cannot see the host, so nobody reads from it: {why}");
            }
            was_blind = blind.is_some();
            let changes = self.cluster.note(host, look, seen, Instant::now());
            self.tell(changes);
            let _called = tokio::time::timeout(self.pause(), called).await;
        }
    }

    fn tell(&self, changes: Vec<Change>) {
        for change in changes {
            self.cluster.log(change);
            // A process that is ending hears no more.
            let _ending = self.changes.send((Arc::clone(&self.cluster), change));
        }
    }

    /// Not all at one time, and more often while somebody waits for a primary.
    fn pause(&self) -> Duration {
        let interval = match self.cluster.primary() {
            Some(_) => self.interval,
            None => self.interval / HURRY,
        };
        interval
            .mul_f64(0.9 + 0.2 * rand::random::<f64>())
            .max(PAUSE_MIN)
    }

    /// One look. The connection is kept in `server` if it is good for another.
    async fn look(&self, host: usize, server: &mut Option<Server>) -> Result<Observation, Failure> {
        let limit = self.interval.max(ANSWER_MIN);
        let timed = tokio::time::timeout(limit, async {
            // A connection that broke since the last look says nothing about the host yet.
            if let Some(known) = server.as_mut()
                && let Ok(observation) = ask(known).await
            {
                return Ok(observation);
            }
            *server = None;
            let fresh = server.insert(self.log_in(host).await?);
            ask(fresh).await
        });
        let seen = timed.await.unwrap_or(Err(Failure::Silent));
        if seen.is_err() {
            *server = None;
        }
        seen
    }

    async fn log_in(&self, host: usize) -> Result<Server, Failure> {
        let address = self.cluster.hosts()[host].address.clone();
        let target = Target {
            address,
            database: &self.dbname,
            user: &self.user,
            credentials: &self.access.credentials,
            parameters: &[("application_name".to_owned(), "pooler monitor".to_owned())],
            liveness: self.access.liveness,
            tls: Arc::clone(&self.access.tls),
            no_settings: Arc::clone(&self.no_settings),
        };
        match login(&target).await {
            Ok((server, _)) => Ok(server),
            Err(error) => Err(failure(&error)),
        }
    }
}

/// What a failed login says about the host.
fn failure(error: &LoginError) -> Failure {
    match (error, error.outlook()) {
        // It takes no more connections: busy, not ill (trap 73).
        (LoginError::Refused { sqlstate, .. }, _) if sqlstate.starts_with("53") => Failure::Silent,
        (LoginError::Timeout { .. }, _) => Failure::Silent,
        (_, Outlook::Permanent) => Failure::Blind(error.to_string()),
        (_, Outlook::Returning | Outlook::Temporary) => Failure::Down(error.to_string()),
    }
}

async fn ask(server: &mut Server) -> Result<Observation, Failure> {
    let asked = Instant::now();
    let mut observation = None;
    let answered = server.ask(QUESTION, |tag, body| {
        if tag == tag::DATA_ROW {
            observation = read(asked, body);
        }
    });
    match answered.await {
        Ok(()) => observation.ok_or_else(|| Failure::Blind("its answer makes no sense".to_owned())),
        Err(ServerFault::Settings(message)) => Err(Failure::Blind(message)),
        Err(fault) => Err(Failure::Down(fault.to_string())),
    }
}

fn read(asked: Instant, body: &[u8]) -> Option<Observation> {
    let row = read_data_row(body)?;
    let text = |column: usize| -> Option<&str> { std::str::from_utf8((*row.get(column)?)?).ok() };
    let in_recovery = text(1)? == "t";
    // The name of a file of the log begins with the timeline.
    let writes = text(2).and_then(|name| u32::from_str_radix(name.get(..8)?, 16).ok());
    let replays = text(4).and_then(|number| number.parse().ok());
    let flushed = text(5).and_then(Position::parse);
    let position = match text(3) {
        Some(text) => Position::parse(text)?,
        // Nothing has been replayed yet.
        None => Position::default(),
    };
    Some(Observation {
        asked,
        // It is signed in SQL.
        system: text(0)?.parse::<i64>().ok()?.cast_unsigned(),
        in_recovery,
        timeline: writes.or(replays)?,
        position: match in_recovery {
            true => position,
            false => position.end_of_last_record(),
        },
        flushed: flushed.unwrap_or(position),
        writer_delay: text(6).and_then(read_delay).unwrap_or(DELAY_MAX),
    })
}

/// The most that `wal_writer_delay` can be set to.
const DELAY_MAX: Duration = Duration::from_secs(10);

/// A time as PostgreSQL shows a setting: `200ms`, `1s`.
fn read_delay(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[Option<&str>]) -> Vec<u8> {
        let mut body = u16::try_from(columns.len())
            .expect("few")
            .to_be_bytes()
            .to_vec();
        for column in columns {
            let len = column.map_or(-1, |c| i32::try_from(c.len()).expect("short"));
            body.extend_from_slice(&len.to_be_bytes());
            body.extend_from_slice(column.unwrap_or_default().as_bytes());
        }
        body
    }

    #[test]
    fn answers_are_read() {
        let now = Instant::now();
        let primary = row(&[
            Some("-1"),
            Some("f"),
            Some("0000000A0000000000000003"),
            Some("0/3002018"),
            Some("9"),
            Some("0/3001000"),
            Some("200ms"),
        ]);
        let seen = read(now, &primary).expect("a primary");
        assert_eq!(
            (seen.system, seen.in_recovery, seen.timeline),
            (u64::MAX, false, 10)
        );
        assert_eq!(
            seen.position,
            Position(0x300_2000),
            "without the header of the page"
        );
        assert_eq!(seen.flushed, Position(0x300_1000));
        assert_eq!(seen.writer_delay, Duration::from_millis(200));
        let replica = row(&[Some("7"), Some("t"), None, Some("0/3002018"), Some("9")]);
        let seen = read(now, &replica).expect("a replica");
        assert_eq!(
            (seen.in_recovery, seen.timeline, seen.position),
            (true, 9, Position(0x300_2018))
        );
        let fresh = row(&[Some("7"), Some("t"), None, None, Some("1")]);
        assert_eq!(
            read(now, &fresh).expect("a fresh one").position,
            Position(0)
        );
        for bad in [
            row(&[]),
            row(&[Some("x"), Some("t"), None, None, Some("1")]),
            row(&[Some("7"), Some("t"), None, Some("?"), Some("1")]),
            row(&[Some("7"), Some("t"), None, None, None]),
        ] {
            assert_eq!(read(now, &bad), None);
        }
    }

    #[test]
    fn t73_a_host_that_takes_no_more_connections_is_not_ill() {
        let refused = |sqlstate: &str| LoginError::Refused {
            host: String::new(),
            sqlstate: sqlstate.to_owned(),
            message: String::new(),
            said: Box::default(),
        };
        assert_eq!(failure(&refused("53300")), Failure::Silent);
        assert!(matches!(failure(&refused("57P03")), Failure::Down(_)));
        assert!(matches!(failure(&refused("28P01")), Failure::Blind(_)));
    }
}
