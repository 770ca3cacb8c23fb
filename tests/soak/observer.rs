//! Watches the pooler from outside: its connections as PostgreSQL sees them, its memory, its files, its log, its metrics.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::support::{Rig, SERVERS, Wire, wait_until};
use crate::{Arena, POOL_SIZE};

const PAUSE: Duration = Duration::from_millis(15);

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    samples: usize,
    /// The most connections of a sample: one that was closed is in it until its process has ended.
    most: usize,
    samples_above: usize,
    /// For how long there were too many, at most.
    pub(crate) excess: Duration,
    /// Processes of PostgreSQL that served.
    servers: usize,
    pub(crate) files_before: Option<usize>,
    files_most: usize,
    /// Resident memory after a third of the work, and at its end.
    pub(crate) early_kb: u64,
    pub(crate) late_kb: u64,
    /// Lines of the log that nothing that happens here explains.
    pub(crate) foreign_log_lines: usize,
}

/// See the module.
pub(crate) struct Observer<'a> {
    rig: &'a Rig,
    direct: Wire,
    observed: Observed,
}

impl<'a> Observer<'a> {
    pub(crate) fn new(rig: &'a Rig) -> Self {
        Self {
            rig,
            direct: rig.direct(),
            observed: Observed {
                files_before: rig.pooler.open_files(),
                ..Observed::default()
            },
        }
    }

    /// Until the work is done.
    pub(crate) fn watch(mut self, arena: &Arena) -> Observed {
        let mut above: Option<Instant> = None;
        let mut seen = std::collections::HashSet::new();
        while !arena.is_over() {
            let pids = self.connections();
            let observed = &mut self.observed;
            observed.samples += 1;
            observed.most = observed.most.max(pids.len());
            seen.extend(pids.iter().cloned());
            if pids.len() > POOL_SIZE {
                observed.samples_above += 1;
                let since = *above.get_or_insert_with(Instant::now);
                observed.excess = observed.excess.max(since.elapsed());
            } else {
                above = None;
            }
            if observed.samples % 20 == 1 {
                let files = self.rig.pooler.open_files().unwrap_or(0);
                observed.files_most = observed.files_most.max(files);
                observed.late_kb = self.rig.pooler.rss_kb();
                if arena.statements.load(Ordering::Relaxed) < arena.target / 3 {
                    observed.early_kb = observed.late_kb;
                }
            }
            std::thread::sleep(PAUSE);
        }
        self.observed.servers = seen.len();
        self.observed.foreign_log_lines = self.foreign_log_lines();
        self.observed
    }

    fn connections(&mut self) -> Vec<String> {
        let rows = self.direct.rows(&format!("SELECT pid {SERVERS}"));
        rows.into_iter().map(|mut row| row.remove(0)).collect()
    }

    /// PostgreSQL is well all the time: no server may be lost, refused or given up.
    fn foreign_log_lines(&self) -> usize {
        let log = self.rig.pooler.log();
        let bad = [
            "panicked",
            "server connection lost",
            "did not come to rest",
            "not clean",
            "did not land",
            " ERROR ",
        ];
        log.lines()
            .filter(|l| bad.iter().any(|b| l.contains(b)))
            .count()
    }
}

/// The values of these gauges once all of them are 0, or after a while.
pub(crate) fn gauges(port: u16, names: &[&str]) -> Vec<i64> {
    let mut values = Vec::new();
    let mut look = || {
        let text = scrape(port);
        values = names.iter().map(|name| value(&text, name)).collect();
        values.iter().all(|v| *v == 0)
    };
    wait_until("gauges at 0", &mut look);
    values
}

fn value(text: &str, name: &str) -> i64 {
    let (start, label) = name.split_once('{').unwrap_or((name, ""));
    let label = label.trim_end_matches('}');
    let lines = text
        .lines()
        .filter(|l| l.starts_with(start) && l.contains(label));
    lines
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as i64
}

fn scrape(port: u16) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the metrics");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a reply");
    text
}
