//! From the table of metrics to text.
//!
//! Written by hand, because of what it costs: a scrape of a thousand pools is some ten thousand lines, or two hundred thousand
//! if all of them have series of their own. The labels of a pool are put into words once a scrape, those of a bucket once a
//! process, and each line is a few copies into one string.

use std::fmt::{self, Write};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Instant, UNIX_EPOCH};

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
    registry: Arc<Registry>,
    /// Locked through a whole scrape, so that there is one at a time: several would take cores
    /// from the workers.
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    roll: Roll,
    /// How long the last text was: the next is about as long.
    len: usize,
}

impl Exporter {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        let roll = Roll::new();
        Self {
            registry,
            last: Mutex::new(Last { roll, len: 0 }),
        }
    }

    pub(super) fn render(&self, format: Format) -> Result<String, fmt::Error> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.look(&mut last.roll);
        let labels: Vec<String> = snapshot.pools.iter().map(labels_text).collect();
        let mut out = String::with_capacity(last.len + last.len / 8);
        for row in ROWS {
            row.describe(format, &mut out)?;
            encode_row(row, &snapshot, &labels, format, &mut out)?;
        }
        if format == Format::OpenMetrics {
            out.push_str("# EOF\n");
        }
        last.len = out.len();
        Ok(out)
    }

    fn look(&self, roll: &mut Roll) -> Snapshot {
        let current = self.registry.current();
        let places = current.config.metrics.max_pools.count();
        let places = places.unwrap_or(usize::MAX);
        let mut pools = roll.sample(&self.registry.pools(), places, Instant::now());
        for pool in &mut pools {
            pool.datacenter = clusters::datacenter(&current, pool);
        }
        Snapshot {
            pools,
            registry: Arc::clone(&self.registry),
            current,
            process: Process::look(),
        }
    }
}

impl Row {
    /// The comments in front of its series. The older format has the name of a counter in full.
    fn describe(&self, format: Format, out: &mut String) -> fmt::Result {
        let name = match format {
            Format::OpenMetrics => self.family(),
            Format::Prometheus => self.name,
        };
        writeln!(out, "# HELP {name} {}", self.help)?;
        writeln!(out, "# TYPE {name} {}", self.kind.word())?;
        match (format, self.unit) {
            (Format::OpenMetrics, Unit::Seconds) => writeln!(out, "# UNIT {name} seconds"),
            (Format::OpenMetrics, Unit::Bytes) => writeln!(out, "# UNIT {name} bytes"),
            _ => Ok(()),
        }
    }
}

/// `labels` are those of the pools.
fn encode_row(
    row: &'static Row,
    snapshot: &Snapshot,
    labels: &[String],
    format: Format,
    out: &mut String,
) -> fmt::Result {
    let mut pools = snapshot.pools.iter().zip(labels);
    let mut series = Series {
        row,
        labels: "",
        format,
        out,
    };
    match row.each {
        Each::Once(emit) => emit(snapshot, &mut series),
        Each::Pool(emit) => pools.try_for_each(|(pool, labels)| {
            series.labels = labels;
            emit(pool, &mut series)
        }),
        Each::Living(emit) => pools.try_for_each(|(pool, labels)| {
            series.labels = labels;
            let gauges = pool.gauges.as_ref();
            gauges.map_or(Ok(()), |gauges| emit(gauges, &mut series))
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

/// The same as they are written.
fn labels_text(pool: &PoolSample) -> String {
    let mut text = String::new();
    for label in labels_of(pool) {
        push_label(&mut text, label);
    }
    text
}

/// A label and its value.
pub(super) type Label<'a> = (&'a str, &'a str);

/// Appends `name="value"`, behind a comma if something stands before it.
fn push_label(text: &mut String, (name, value): Label<'_>) {
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(name);
    text.push_str("=\"");
    for piece in value.split_inclusive(['\\', '"', '\n']) {
        let plain = piece.strip_suffix(['\\', '"', '\n']);
        text.push_str(plain.unwrap_or(piece));
        text.push_str(match piece.as_bytes().last() {
            Some(b'\\') => "\\\\",
            Some(b'"') => "\\\"",
            Some(b'\n') => "\\n",
            _ => "",
        });
    }
    text.push('"');
}

/// A number, as it is written.
pub(super) trait Value: Copy {
    fn push(self, out: &mut String);
}

impl Value for f64 {
    fn push(self, out: &mut String) {
        // With a point or an exponent, as OpenMetrics would have it. A string takes everything.
        let _written = write!(out, "{self:?}");
    }
}

macro_rules! whole_numbers {
    ($($kind:ty),+) => {
        $(impl Value for $kind {
            fn push(self, out: &mut String) {
                out.push_str(itoa::Buffer::new().format(self));
            }
        })+
    };
}

whole_numbers!(i32, i64, u32, u64, usize);

/// Where a row of the table puts its numbers.
#[derive(Debug)]
pub(super) struct Series<'a> {
    row: &'static Row,
    /// As they are written; empty if there are none.
    labels: &'a str,
    format: Format,
    out: &'a mut String,
}

impl Series<'_> {
    /// A value that goes up and down.
    pub(super) fn gauge(&mut self, more: &[Label<'_>], value: impl Value) -> fmt::Result {
        self.sample(more, value)
    }

    /// A sum that only grows.
    pub(super) fn counter(&mut self, more: &[Label<'_>], value: u64) -> fmt::Result {
        self.sample(more, value)
    }

    /// The same in seconds.
    pub(super) fn counter_seconds(&mut self, value: f64) -> fmt::Result {
        self.sample(&[], value)
    }

    /// Durations; the buckets become cumulative.
    pub(super) fn histogram(&mut self, more: &[Label<'_>], sum: &HistogramSum) -> fmt::Result {
        self.histogram_with(more, sum, None)
    }

    /// The same; what is traced of them is shown to those who can read it.
    pub(super) fn histogram_with(
        &mut self,
        more: &[Label<'_>],
        sum: &HistogramSum,
        exemplars: Option<&ExemplarRow>,
    ) -> fmt::Result {
        let labels = self.all_labels(more);
        let count: u64 = sum.buckets.iter().sum();
        self.part("_sum", &labels, seconds(sum.sum_us));
        self.part("_count", &labels, count);
        let exemplars = exemplars.filter(|_| self.format == Format::OpenMetrics);
        let mut so_far = 0;
        for (at, (bound, n)) in BOUNDS.iter().zip(sum.buckets).enumerate() {
            so_far += n;
            let out = &mut *self.out;
            for piece in [self.row.name, "_bucket{", bound, ",", &labels, "} "] {
                out.push_str(piece);
            }
            so_far.push(out);
            if let Some(exemplar) = exemplars.and_then(|row| row[at].as_ref()) {
                push_exemplar(exemplar, out)?;
            }
            out.push('\n');
        }
        Ok(())
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "a row may have something to write that fails"
    )]
    fn sample(&mut self, more: &[Label<'_>], value: impl Value) -> fmt::Result {
        match more {
            [] => {
                let labels = self.labels;
                self.part("", labels, value);
            }
            more => {
                let labels = self.all_labels(more);
                self.part("", &labels, value);
            }
        }
        Ok(())
    }

    fn all_labels(&self, more: &[Label<'_>]) -> String {
        debug_assert!(
            more.iter().all(|(name, _)| self.row.labels.contains(name)),
            "BUG: a label that the table does not have: {more:?}"
        );
        let mut labels = String::with_capacity(self.labels.len() + 32);
        labels.push_str(self.labels);
        for label in more {
            push_label(&mut labels, *label);
        }
        labels
    }

    /// A line.
    fn part(&mut self, suffix: &str, labels: &str, value: impl Value) {
        let out = &mut *self.out;
        out.push_str(self.row.name);
        out.push_str(suffix);
        if !labels.is_empty() {
            out.push('{');
            out.push_str(labels);
            out.push('}');
        }
        out.push(' ');
        value.push(out);
        out.push('\n');
    }
}

/// Behind the number of a bucket (OpenMetrics, "Exemplars").
fn push_exemplar(exemplar: &Exemplar, out: &mut String) -> fmt::Result {
    let since = exemplar.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let trace_id = u128::from_be_bytes(exemplar.trace_id);
    let (value, at) = (seconds(exemplar.us), since.as_secs_f64());
    write!(out, " # {{trace_id=\"{trace_id:032x}\"}} {value} {at:.3}")
}

/// The label of each bucket.
static BOUNDS: LazyLock<[String; BUCKETS_US.len() + 1]> = LazyLock::new(|| {
    std::array::from_fn(|n| match BUCKETS_US.get(n) {
        // A name of a series: never with an exponent, and always with a point.
        Some(&us) if us.is_multiple_of(1_000_000) => format!("le=\"{}.0\"", us / 1_000_000),
        Some(&us) => format!("le=\"{}\"", seconds(us)),
        None => "le=\"+Inf\"".to_owned(),
    })
});

#[expect(clippy::cast_precision_loss, reason = "285 years are exact")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
