//! Spans on their way to the collector: a bounded queue, and a thread of their own that nobody waits for.
//!
//! ```text
//!   sessions --put--> queue --every TICK, or half full--> batch --POST--> taken | refused: counted
//!                       | full: counted                     ^   | not now
//!                       v                                   `---' after a pause, for TRIES_MAX at most; then counted
//! ```
//! Workers take a short lock for each traced transaction and wake nobody for it: the thread looks by itself. While a
//! collector is slow or away the queue fills, and what does not fit is dropped and counted. A transaction is dropped
//! whole or not at all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use rustls::ClientConfig;
use tokio::sync::Notify;

use super::otlp::{Answer, Link, Target};
use super::spans::{Clock, Record, number_pair, text_pair};
use crate::config::Tracing;

/// Transactions that may wait. Usual ones take 1 or 2 MB together.
const RECORDS_MAX: usize = 2048;

/// Bytes of transactions that may wait. The largest take some 30 kB each: their texts, and the names of their statements' callers.
const RECORDS_SIZE_MAX: usize = 16 * 1024 * 1024;

/// Spans that one request carries at most, but for those of its last transaction.
const BATCH_SPANS_MAX: usize = 512;

/// How old a span gets before it is sent.
const TICK: Duration = Duration::from_secs(1);

/// The first pause after an attempt that failed; it doubles, with jitter.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// The longest pause, if the collector does not ask for more.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long one batch is tried.
const TRIES_MAX: Duration = Duration::from_secs(30);

/// Schema of the attributes' names.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.33.0";

/// What became of spans, since the start.
#[derive(Debug, Default)]
pub struct SpanCounts {
    /// Taken by a collector.
    pub exported: AtomicU64,
    /// The queue was full.
    pub full: AtomicU64,
    /// The collector was not there, or said so often that it is busy.
    pub unavailable: AtomicU64,
    /// The collector did not want them.
    pub refused: AtomicU64,
    /// The process ended, or tracing was switched off, before they were sent.
    pub stopped: AtomicU64,
}

/// See the module. Shared by all workers.
#[derive(Debug, Default)]
pub struct Spans {
    /// What became of them.
    pub counts: SpanCounts,
    queue: Mutex<Queue>,
    target: Mutex<Option<Arc<Target>>>,
    /// The queue is half full, the target has changed, or it is time to stop.
    wake: Notify,
    stopping: AtomicBool,
    /// Told when the thread has ended, if there is one.
    ended: Mutex<Option<mpsc::Receiver<()>>>,
}

/// What waits, within [`RECORDS_MAX`] and [`RECORDS_SIZE_MAX`].
#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Record>,
    /// Of all of them, in bytes.
    size: usize,
}

impl Queue {
    /// Whether the queue has just become half full. If there is no room: how many spans are lost.
    fn push(&mut self, record: Record) -> Result<bool, u64> {
        let size = self.size + record.size();
        if self.records.len() >= RECORDS_MAX || size > RECORDS_SIZE_MAX {
            return Err(record.transaction.spans());
        }
        let before = std::mem::replace(&mut self.size, size);
        self.records.push_back(record);
        let is_half = |len, size| len >= RECORDS_MAX / 2 || size >= RECORDS_SIZE_MAX / 2;
        let len = self.records.len();
        Ok(is_half(len, size) && !is_half(len - 1, before))
    }

    fn pop(&mut self) -> Option<Record> {
        let record = self.records.pop_front()?;
        self.size -= record.size();
        Some(record)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Spans {
    /// Goes by this configuration from now on. The thread is started when there is a collector for the first time.
    pub fn configure(self: &Arc<Self>, tracing: &Tracing, tls: Option<Arc<ClientConfig>>) {
        let target = tracing.traces_uri().map(|uri| {
            let headers = tracing.headers.clone();
            Arc::new(Target { uri, headers, tls })
        });
        let wanted = target.is_some();
        *lock(&self.target) = target;
        self.wake.notify_one();
        let mut ended = lock(&self.ended);
        if !wanted || ended.is_some() {
            return;
        }
        let (sender, receiver) = mpsc::channel();
        let spans = Arc::clone(self);
        let thread = std::thread::Builder::new().name("spans".to_owned());
        let started = thread.spawn(move || {
            spans.run();
            // Dropped with the thread, whatever ends it.
            drop(sender);
        });
        match started {
            Ok(_thread) => *ended = Some(receiver),
            Err(e) => {
                tracing::error!("no traces are sent, because a thread cannot be started: {e}")
            }
        }
    }

    /// Queues a transaction, or drops it; never waits for the collector.
    pub fn put(&self, record: Record) {
        let pushed = lock(&self.queue).push(record);
        match pushed {
            Ok(true) => self.wake.notify_one(),
            Ok(false) => {}
            Err(spans) => self.lose(spans),
        }
    }

    /// So many spans found no room.
    pub fn lose(&self, spans: u64) {
        add(&self.counts.full, spans);
    }

    /// Sends what waits, for so long at most; for the end of the process.
    pub fn finish(&self, limit: Duration) {
        let Some(ended) = lock(&self.ended).take() else {
            return;
        };
        self.stopping.store(true, Ordering::Release);
        self.wake.notify_one();
        if ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            let left = std::mem::take(&mut *lock(&self.queue)).records;
            let left = left.iter().map(|record| record.transaction.spans());
            add(&self.counts.stopped, left.sum());
        }
        let counts = &self.counts;
        let full = counts.full.load(Ordering::Relaxed);
        let lost = full
            + counts.unavailable.load(Ordering::Relaxed)
            + counts.stopped.load(Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(
                spans = lost,
                "spans were dropped: the collector did not take them"
            );
        }
    }

    fn run(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.export()),
            Err(e) => tracing::error!("no traces are sent: {e}"),
        }
    }

    async fn export(&self) {
        let resource = resource();
        let mut link = Link::default();
        loop {
            while let Some(spans) = self.next_batch() {
                self.send(&mut link, spans, &resource).await;
            }
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            let is_off = lock(&self.target).is_none();
            if is_off {
                // Who has turned it off need not be looked after.
                link.close();
                self.wake.notified().await;
            } else {
                drop(tokio::time::timeout(TICK, self.wake.notified()).await);
            }
        }
    }

    /// The oldest that wait.
    fn next_batch(&self) -> Option<Vec<Span>> {
        let mut records = Vec::new();
        let mut queue = lock(&self.queue);
        let mut len = 0;
        while len < BATCH_SPANS_MAX {
            let Some(record) = queue.pop() else {
                break;
            };
            len += usize::try_from(record.transaction.spans()).unwrap_or(BATCH_SPANS_MAX);
            records.push(record);
        }
        drop(queue);
        let clock = Clock::now();
        let spans: Vec<Span> = records
            .iter()
            .flat_map(|record| record.spans(clock))
            .collect();
        (!spans.is_empty()).then_some(spans)
    }

    /// Until it is taken, refused, or given up.
    async fn send(&self, link: &mut Link, spans: Vec<Span>, resource: &Resource) {
        let count = spans.len() as u64;
        let body: Bytes = encode(spans, resource).into();
        let until = Instant::now() + TRIES_MAX;
        let mut pause = PAUSE_MIN;
        loop {
            let Some(target) = lock(&self.target).clone() else {
                return add(&self.counts.stopped, count);
            };
            let (after, why) = match link.post(&target, body.clone()).await {
                Answer::Taken { rejected } => {
                    let rejected = rejected.min(count);
                    add(&self.counts.exported, count - rejected);
                    return add(&self.counts.refused, rejected);
                }
                Answer::Refused(why) => {
                    tracing::warn!(collector = %target.uri, spans = count, "traces are refused: {why}");
                    return add(&self.counts.refused, count);
                }
                Answer::Later { after, why } => (after, why),
            };
            let jitter = 0.75 + 0.5 * rand::random::<f64>();
            let wait = pause.mul_f64(jitter).max(after.unwrap_or_default());
            if Instant::now() + wait >= until || self.stopping.load(Ordering::Acquire) {
                tracing::warn!(collector = %target.uri, spans = count, "traces are dropped: {why}");
                return add(&self.counts.unavailable, count);
            }
            tracing::debug!(collector = %target.uri, "traces are sent again in {wait:.1?}: {why}");
            pause = (pause * 2).min(PAUSE_MAX);
            self.rest(wait).await;
        }
    }

    /// A new target, or the end, is not waited for.
    async fn rest(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let before = lock(&self.target).as_ref().map(Arc::as_ptr);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let woken = tokio::time::timeout(left, self.wake.notified())
                .await
                .is_ok();
            let is_other = lock(&self.target).as_ref().map(Arc::as_ptr) != before;
            if !woken || is_other || self.stopping.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

fn encode(spans: Vec<Span>, resource: &Resource) -> Vec<u8> {
    let scope = InstrumentationScope {
        name: "pooler".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans,
                schema_url: SCHEMA_URL.to_owned(),
            }],
            schema_url: SCHEMA_URL.to_owned(),
        }],
    };
    request.encode_to_vec()
}

/// Who sends.
fn resource() -> Resource {
    let id: [u8; 16] = rand::random();
    let attributes: Vec<KeyValue> = vec![
        text_pair("service.name", "pooler"),
        text_pair("service.version", env!("CARGO_PKG_VERSION")),
        text_pair("service.instance.id", super::slow::hex(&id)),
        number_pair("process.pid", i64::from(std::process::id())),
        text_pair("host.name", crate::net::host_name()),
    ];
    Resource {
        attributes,
        ..Resource::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Peer;
    use crate::observe::Transaction;
    use pooler_protocol::route::{Caller, TraceParent};

    fn record(waiting: usize) -> Record {
        let parent = TraceParent {
            trace_id: [1; 16],
            span_id: [2; 8],
            sampled: true,
        };
        let state = None;
        let now = Instant::now();
        Record {
            transaction: Transaction::new(Caller { parent, state }, now, Duration::ZERO),
            database: "app".to_owned(),
            user: "ada".to_owned(),
            peer: Peer::Unix,
            application_name: String::new(),
            pool: "app/ada".to_owned(),
            on_replica: false,
            is_pinned: false,
            server: None,
            waiting: vec![b'x'; waiting],
        }
    }

    /// What waits is bounded in number and in bytes; what does not fit is counted, and what leaves makes room.
    #[test]
    fn the_queue_is_bounded_in_number_and_in_bytes() {
        for (waiting, fit) in [(0, RECORDS_MAX), (64 * 1024, 200)] {
            let spans = Spans::default();
            for _ in 0..RECORDS_MAX + 10 {
                spans.put(record(waiting));
            }
            let size = lock(&spans.queue).size;
            assert!(size <= RECORDS_SIZE_MAX, "{size}");
            let waits = lock(&spans.queue).records.len();
            assert!(waits >= fit && waits <= RECORDS_MAX, "{waits}");
            let lost = spans.counts.full.load(Ordering::Relaxed);
            assert_eq!(lost, (RECORDS_MAX + 10 - waits) as u64);
            assert!(spans.next_batch().is_some());
            spans.put(record(waiting));
            assert_eq!(spans.counts.full.load(Ordering::Relaxed), lost);
            while spans.next_batch().is_some() {}
            assert_eq!(lock(&spans.queue).size, 0);
        }
    }
}
