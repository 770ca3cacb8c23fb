//! From the table of metrics to text, through prometheus-client's encoder.
//!
//! That crate writes OpenMetrics. Who does not ask for it gets Prometheus' older text format, which
//! differs in the comments only: there a counter's name has its `_total` in them, too.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

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
use crate::metrics::{BUCKETS_US, HistogramSum};
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
}

impl Exporter {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        let mut registered = Registered::default();
        registered.register_collector(Box::new(Source {
            registry,
            roll: Mutex::new(Roll::new()),
        }));
        Self { registered }
    }

    pub(super) fn render(&self, format: Format) -> Result<String, fmt::Error> {
        let mut out = String::new();
        match format {
            Format::OpenMetrics => text::encode(&mut out, &self.registered)?,
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
        for row in ROWS {
            encode_row(row, &snapshot, &mut encoder)?;
        }
        drop(roll);
        Ok(())
    }
}

fn encode_row(row: &Row, snapshot: &Snapshot, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let unit = match row.unit {
        Unit::None => None,
        Unit::Seconds => Some(PrometheusUnit::Seconds),
        Unit::Bytes => Some(PrometheusUnit::Bytes),
    };
    let mut encoder = out.encode_descriptor(row.stem(), row.help, unit.as_ref(), row.kind)?;
    match row.each {
        Each::Once(emit) => emit(snapshot, &mut Series::new(&mut encoder, &[], row.labels)),
        Each::Pool(emit) => snapshot.pools.iter().try_for_each(|pool| {
            emit(
                pool,
                &mut Series::new(&mut encoder, &labels_of(pool), row.labels),
            )
        }),
        Each::Living(emit) => snapshot.pools.iter().try_for_each(|pool| {
            let Some(gauges) = &pool.gauges else {
                return Ok(());
            };
            emit(
                gauges,
                &mut Series::new(&mut encoder, &labels_of(pool), row.labels),
            )
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
}

impl<'a, 'e> Series<'a, 'e> {
    fn new(
        encoder: &'a mut MetricEncoder<'e>,
        labels: &'a [Label<'a>],
        more: &'static [&'static str],
    ) -> Self {
        Self {
            encoder,
            labels,
            more,
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
