//! What watches a pooler of which everything is watched: a scrape of its metrics each second, and a collector that takes its
//! traces. Both are threads of this process, and end with the value.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pooler::demo::free_port;

/// How often the metrics are scraped.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);

/// Which share of the transactions name a caller that records a trace: one of so many.
pub(crate) const TRACED_OF: usize = 100;

/// A statement whose caller records a trace, for pgbench.
pub(crate) const TRACED: &str = "\\set aid random(1, 100000)\nSELECT :aid \
    /*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/;\n";

/// See the module.
pub(crate) struct Watchers {
    collector: u16,
    metrics: u16,
    stopped: Arc<AtomicBool>,
}

impl Watchers {
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port()?))?;
        let watchers = Self {
            collector: listener.local_addr()?.port(),
            metrics: free_port()?,
            stopped: Arc::default(),
        };
        let stopped = Arc::clone(&watchers.stopped);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                // A pooler that has ended has broken its connection off.
                thread::spawn(move || stream.and_then(take_all));
            }
        });
        let (stopped, port) = (Arc::clone(&watchers.stopped), watchers.metrics);
        thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                // It may not listen yet.
                let _scraped = scrape(port);
                thread::sleep(SCRAPE_EVERY);
            }
        });
        Ok(watchers)
    }

    /// The sections of a configuration that has all of it on.
    pub(crate) fn config(&self) -> String {
        format!(
            "[log]\nslow_query = \"500ms\"\nconnections = true\n\
             [tracing]\notlp_endpoint = \"http://127.0.0.1:{}\"\n\
             [metrics]\nlisten = \"127.0.0.1:{}\"\n",
            self.collector, self.metrics
        )
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        // Wakes the collector, which then sees that it is to stop.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.collector)));
    }
}

/// The sections of a configuration that has all of it off.
pub(crate) const NOTHING: &str = "[log]\nslow_query = \"off\"\n[metrics]\nlisten = \"\"\n";

fn scrape(port: u16) -> io::Result<u64> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text\r\n\r\n")?;
    io::copy(&mut stream, &mut io::sink())
}

/// Says yes to every request.
fn take_all(stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let lower = line.to_ascii_lowercase();
            if let Some(number) = lower.strip_prefix("content-length:") {
                length = number.trim().parse().map_err(io::Error::other)?;
            }
        }
        io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
        reader
            .get_mut()
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    }
}
