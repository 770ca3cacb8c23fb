//! From the table of metrics to text, through prometheus-client's encoder.
//!
//! That crate writes OpenMetrics. Who does not ask for it gets Prometheus' older text format, which
//! differs in the comments: there a counter's name has its `_total` in them, too. And it knows no
//! exemplars: the crate writes only those that it has observed itself, so they are put behind their
//! buckets here, by who asks for OpenMetrics.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry as Registered, Unit as PrometheusUnit};

use super::clusters;
use super::pools::PoolSample;
use super::process::Process;
use super::roll::Roll;
use super::table::{Each, ROWS, Row, Unit};
use crate::metrics::{BUCKETS_US, Exemplar, ExemplarRow, HistogramSum};
use crate::registry::{Current, Registry};

/// What a scraper can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// <https://prometheus.io/docs/specs/om/open_metrics_spec/>
    OpenMetrics,
    /// <https://prometheus.io/docs/instrumenting/exposition_formats/>
    Prometheus,
}

impl Format {
    /// By the Accept headers of a request. Who names OpenMetrics can read it.
    pub(super) fn accepted<'a>(mut accepts: impl Iterator<Item = &'a str>) -> Self {
        if accepts.any(|value| value.contains("application/openmetrics-text")) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Everything at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) pools: Vec<PoolSample>,
    pub(super) registry: Arc<Registry>,
    pub(super) current: Arc<Current>,
    pub(super) process: Option<Process>,
}

/// Renders the metrics.
#[derive(Debug)]
pub(super) struct Exporter {
    registered: Registered,
    aside: Arc<Aside>,
}

/// Exemplars of the buckets that are written next, in their order; for the scrape that has the roll.
#[derive(Debug, Default)]
struct Aside(Mutex<VecDeque<Option<Exemplar>>>);

impl Aside {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Option<Exemplar>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exporter {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        let mut registered = Registered::default();
        let aside = Arc::new(Aside::default());
        registered.register_collector(Box::new(Source {
            registry,
            roll: Mutex::new(Roll::new()),
            aside: Arc::clone(&aside),
        }));
        Self { registered, aside }
    }

    pub(super) fn render(&self, format: Format) -> Result<String, fmt::Error> {
        let mut out = String::new();
        match format {
            Format::OpenMetrics => {
                let mut out = WithExemplars::new(&mut out, &self.aside);
                text::encode(&mut out, &self.registered)?;
            }
            Format::Prometheus => {
                text::encode(&mut Classic::new(&mut out), &self.registered)?;
            }
        }
        Ok(out)
    }
}

/// Where prometheus-client takes the numbers from, at each scrape.
#[derive(Debug)]
struct Source {
    registry: Arc<Registry>,
    /// Locked through a whole scrape, so that there is one at a time: several would take cores
    /// from the workers.
    roll: Mutex<Roll>,
    aside: Arc<Aside>,
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut roll = self.roll.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.registry.current();
        let places = current.config.metrics.max_pools.count();
        let places = places.unwrap_or(usize::MAX);
        let mut pools = roll.sample(&self.registry.pools(), places, Instant::now());
        for pool in &mut pools {
            pool.datacenter = clusters::datacenter(&current, pool);
        }
        let snapshot = Snapshot {
            pools,
            registry: Arc::clone(&self.registry),
            current,
            process: Process::look(),
        };
        self.aside.lock().clear();
        for row in ROWS {
            encode_row(row, &snapshot, &self.aside, &mut encoder)?;
        }
        drop(roll);
        Ok(())
    }
}

fn encode_row(
    row: &Row,
    snapshot: &Snapshot,
    aside: &Aside,
    out: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let unit = match row.unit {
        Unit::None => None,
        Unit::Seconds => Some(PrometheusUnit::Seconds),
        Unit::Bytes => Some(PrometheusUnit::Bytes),
    };
    let mut encoder = out.encode_descriptor(row.stem(), row.help, unit.as_ref(), row.kind)?;
    let more = row.labels;
    match row.each {
        Each::Once(emit) => emit(snapshot, &mut Series::new(&mut encoder, &[], more, aside)),
        Each::Pool(emit) => snapshot.pools.iter().try_for_each(|pool| {
            let labels = labels_of(pool);
            emit(pool, &mut Series::new(&mut encoder, &labels, more, aside))
        }),
        Each::Living(emit) => snapshot.pools.iter().try_for_each(|pool| {
            let Some(gauges) = &pool.gauges else {
                return Ok(());
            };
            let labels = labels_of(pool);
            emit(gauges, &mut Series::new(&mut encoder, &labels, more, aside))
        }),
    }
}

/// Of every series of a pool.
pub(super) fn labels_of(pool: &PoolSample) -> Vec<Label<'_>> {
    let mut labels = vec![("database", &*pool.database), ("user", &*pool.user)];
    labels.extend(pool.host.as_deref().map(|host| ("host", host)));
    labels.extend(pool.datacenter.as_deref().map(|dc| ("datacenter", dc)));
    labels
}

/// A label and its value.
pub(super) type Label<'a> = (&'a str, &'a str);

/// Where a row of the table puts its numbers.
#[derive(Debug)]
pub(super) struct Series<'a, 'e> {
    encoder: &'a mut MetricEncoder<'e>,
    labels: &'a [Label<'a>],
    /// What else may come, by the table.
    more: &'static [&'static str],
    aside: &'a Aside,
}

impl<'a, 'e> Series<'a, 'e> {
    fn new(
        encoder: &'a mut MetricEncoder<'e>,
        labels: &'a [Label<'a>],
        more: &'static [&'static str],
        aside: &'a Aside,
    ) -> Self {
        Self {
            encoder,
            labels,
            more,
            aside,
        }
    }

    /// A value that goes up and down.
    pub(super) fn gauge(
        &mut self,
        more: &[Label<'_>],
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        self.encode(more, |encoder| encoder.encode_gauge(&value))
    }

    /// A sum that only grows.
    pub(super) fn counter(&mut self, more: &[Label<'_>], value: u64) -> fmt::Result {
        self.encode(more, |encoder| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// The same in seconds.
    pub(super) fn counter_seconds(&mut self, value: f64) -> fmt::Result {
        self.encode(&[], |encoder| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// Durations; the encoder makes the buckets cumulative.
    pub(super) fn histogram(&mut self, more: &[Label<'_>], sum: &HistogramSum) -> fmt::Result {
        let bounds = BUCKETS_US.iter().map(|&us| seconds(us));
        let bounds = bounds.chain(std::iter::once(f64::INFINITY));
        let mut buckets = [(0.0, 0); BUCKETS_US.len() + 1];
        for (bucket, (bound, &n)) in buckets.iter_mut().zip(bounds.zip(&sum.buckets)) {
            *bucket = (bound, n);
        }
        let count = sum.buckets.iter().sum();
        self.encode(more, |encoder| {
            encoder.encode_histogram::<NoLabelSet>(seconds(sum.sum_us), count, &buckets, None)
        })
    }

    /// The same; what is traced of them is shown to those who can read it. For one row alone: [`EXEMPLARY`].
    pub(super) fn histogram_with(
        &mut self,
        more: &[Label<'_>],
        sum: &HistogramSum,
        exemplars: Option<&ExemplarRow>,
    ) -> fmt::Result {
        let none = [None; BUCKETS_US.len() + 1];
        self.aside.lock().extend(exemplars.unwrap_or(&none));
        self.histogram(more, sum)
    }

    fn encode(
        &mut self,
        more: &[Label<'_>],
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        debug_assert!(
            more.iter().all(|(name, _)| self.more.contains(name)),
            "BUG: a label that the table does not have: {more:?}"
        );
        if self.labels.is_empty() && more.is_empty() {
            return write(self.encoder);
        }
        let labels = (self.labels, more);
        write(&mut self.encoder.encode_family(&labels)?)
    }
}

#[expect(clippy::cast_precision_loss, reason = "285 years are exact")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// What the lines begin with that have exemplars.
const EXEMPLARY: &str = "pooler_transaction_seconds_bucket{";

/// Puts exemplars behind their buckets in OpenMetrics as it is written.
struct WithExemplars<'a> {
    out: &'a mut String,
    aside: &'a Aside,
    /// Where the line begins that is being written.
    line: usize,
}

impl<'a> WithExemplars<'a> {
    fn new(out: &'a mut String, aside: &'a Aside) -> Self {
        let line = out.len();
        Self { out, aside, line }
    }
}

impl Write for WithExemplars<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        // Labels have no line breaks: they are escaped.
        for piece in s.split_inclusive('\n') {
            let Some(text) = piece.strip_suffix('\n') else {
                self.out.push_str(piece);
                continue;
            };
            self.out.push_str(text);
            if self.out[self.line..].starts_with(EXEMPLARY)
                && let Some(exemplar) = self.aside.lock().pop_front().flatten()
            {
                let since = exemplar.at.duration_since(UNIX_EPOCH).unwrap_or_default();
                let trace_id = u128::from_be_bytes(exemplar.trace_id);
                let (value, at) = (seconds(exemplar.us), since.as_secs_f64());
                write!(
                    self.out,
                    " # {{trace_id=\"{trace_id:032x}\"}} {value} {at:.3}"
                )?;
            }
            self.out.push('\n');
            self.line = self.out.len();
        }
        Ok(())
    }
}

/// Makes Prometheus' older format of OpenMetrics as it is written.
struct Classic<'a> {
    out: &'a mut String,
    /// A comment whose end has not come yet; samples go through at once.
    comment: String,
    line_begins: bool,
}

impl<'a> Classic<'a> {
    fn new(out: &'a mut String) -> Self {
        Self {
            out,
            comment: String::new(),
            line_begins: true,
        }
    }

    fn end_comment(&mut self) {
        let comment = std::mem::take(&mut self.comment);
        let mut words = comment.splitn(4, ' ');
        let (_, Some(kind @ ("HELP" | "TYPE")), Some(name), Some(rest)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            // UNIT and EOF are OpenMetrics' own.
            return;
        };
        let total = if is_counter(name) { "_total" } else { "" };
        self.out.push_str("# ");
        self.out.push_str(kind);
        self.out.push(' ');
        self.out.push_str(name);
        self.out.push_str(total);
        self.out.push(' ');
        self.out.push_str(rest);
    }
}

/// Whether `name` is a counter's without its `_total`.
fn is_counter(name: &str) -> bool {
    ROWS.iter().any(|row| {
        matches!(row.kind, MetricType::Counter) && row.name.strip_suffix("_total") == Some(name)
    })
}

impl Write for Classic<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let is_comment = !self.comment.is_empty() || (self.line_begins && s.starts_with('#'));
        self.line_begins = s.ends_with('\n');
        if !is_comment {
            self.out.push_str(s);
            return Ok(());
        }
        self.comment.push_str(s);
        if self.line_begins {
            self.end_comment();
        }
        Ok(())
    }
}
