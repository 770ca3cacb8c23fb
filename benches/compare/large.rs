//! Large results: a few clients that read them as fast as they can.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use pooler::demo::postgres::Postgres;

use crate::client::{BUFFER, Client};
use crate::peers::{DATABASE, Running, USER};
use crate::process::CpuReading;

/// Clients that read at the same time.
const CLIENTS: usize = 4;

/// Before the window.
const WARM_UP: Duration = Duration::from_secs(1);

/// A result of so many rows of so many bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) rows: u32,
    pub(crate) row_bytes: u32,
}

/// What a window showed; megabytes (1,000,000 bytes) are counted as they reach the clients, headers and all.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) megabytes_per_second: f64,
    /// CPU time of the contestant, microseconds a megabyte.
    pub(crate) cpu: Option<f64>,
}

impl Shape {
    fn table(self) -> String {
        format!("rows_{}_{}", self.rows, self.row_bytes)
    }

    /// Makes the table that holds the result.
    pub(crate) fn prepare(self, postgres: &Postgres) -> io::Result<()> {
        let Self { rows, row_bytes } = self;
        let table = self.table();
        // PLAIN: long values are neither compressed nor stored elsewhere.
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {table} (pad text);
             ALTER TABLE {table} ALTER pad SET STORAGE PLAIN;
             TRUNCATE {table};
             INSERT INTO {table} SELECT repeat('x', {row_bytes}) FROM generate_series(1, {rows});
             VACUUM (FREEZE) {table};"
        );
        postgres.psql_in(DATABASE, &sql).map(drop)
    }
}

/// Reads results of this shape through a contestant.
pub(crate) fn run(shape: Shape, peer: &Running, seconds: Duration) -> io::Result<Flow> {
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let sql = format!("SELECT pad FROM {}", shape.table());
    scope(|scope| {
        let reader = || read_until(&stop, &received, &sql, peer.port);
        let readers: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(reader)).collect();
        sleep(WARM_UP);
        let window = measure(&received, peer, seconds);
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader
                .join()
                .map_err(|_| io::Error::other("BUG: a reader panicked"))??;
        }
        window
    })
}

fn read_until(stop: &AtomicBool, received: &AtomicU64, sql: &str, port: u16) -> io::Result<()> {
    let mut client = Client::connect(port, USER, DATABASE)?;
    let mut buffer = vec![0; BUFFER];
    while !stop.load(Ordering::Relaxed) {
        client.query(sql, &mut buffer, |bytes| {
            received.fetch_add(bytes as u64, Ordering::Relaxed);
        })?;
    }
    Ok(())
}

fn measure(received: &AtomicU64, peer: &Running, seconds: Duration) -> io::Result<Flow> {
    let look = || -> io::Result<_> {
        let cpu = peer.pid().map(CpuReading::of).transpose()?;
        Ok((cpu, received.load(Ordering::Relaxed), Instant::now()))
    };
    let (cpu_before, bytes_before, from) = look()?;
    sleep(seconds);
    let (cpu_after, bytes_after, to) = look()?;
    let megabytes = (bytes_after - bytes_before) as f64 / 1e6;
    let cpu = cpu_after
        .zip(cpu_before)
        .map(|(after, before)| after.since(&before).0 / megabytes);
    Ok(Flow {
        megabytes_per_second: megabytes / (to - from).as_secs_f64(),
        cpu,
    })
}
