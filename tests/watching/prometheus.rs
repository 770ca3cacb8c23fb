//! Prometheus and promtool, and HTTP as far as they need it.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pooler::demo::{Leashed, find_program, free_port, make_dir};
use serde_json::Value;

use crate::support::{PATIENCE, wait_until, wait_within};
pub(crate) use crate::support::{get, metrics_port};

/// From PATH, or from where `scripts/install-prometheus.sh` puts it.
pub(crate) fn program(name: &str) -> PathBuf {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/prometheus/usr/bin");
    let found = find_program(name).or_else(|| Some(fetched.join(name)).filter(|p| p.exists()));
    found.unwrap_or_else(|| panic!("no {name}: run scripts/install-prometheus.sh"))
}

/// Runs promtool with `input`; its output, which must be that of a success.
pub(crate) fn promtool(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program("promtool"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let done = child.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(done.status.success(), "promtool {arguments:?}: {said}");
    said
}

pub(crate) fn scrape(port: u16) -> String {
    let (status, body) = get(port, "/metrics");
    assert!(status.ends_with("200 OK"), "{status}");
    body
}

/// Labels of a series, and what it was when.
pub(crate) type Line = (Value, Vec<(f64, f64)>);

/// A Prometheus that scrapes one target.
pub(crate) struct Prometheus {
    port: u16,
    process: Leashed,
}

impl Prometheus {
    /// Starts it; returns when it has scraped once.
    pub(crate) fn start(target: u16, interval: Duration, name: &str) -> Self {
        let dir = make_dir(name).unwrap();
        let port = free_port().unwrap();
        let ms = interval.as_millis();
        let config = format!(
            "global: {{ scrape_interval: {ms}ms, scrape_timeout: {ms}ms }}\n\
             scrape_configs:\n- job_name: pooler\n  static_configs: [ {{ targets: ['127.0.0.1:{target}'] }} ]\n"
        );
        fs::write(dir.join("prometheus.yml"), config).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new(program("prometheus"));
        command
            .arg(format!(
                "--config.file={}",
                dir.join("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--enable-feature=exemplar-storage")
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let process = Leashed::start(&mut command).unwrap();
        let prometheus = Self { port, process };
        wait_until("Prometheus listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        // It spreads its targets over an interval: the first scrape may be as late as that.
        wait_within(interval + PATIENCE, "Prometheus has scraped", || {
            prometheus.value("up") == Some(1.0)
        });
        prometheus
    }

    /// What an expression is now: labels and values.
    pub(crate) fn query(&self, expression: &str) -> Result<Vec<(Value, f64)>, String> {
        let path = format!("/api/v1/query?query={}", escaped(expression));
        let (_, body) = get(self.port, &path);
        let answer: Value = serde_json::from_str(&body).map_err(|e| format!("{e}: {body}"))?;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let result = answer["data"]["result"].as_array().cloned();
        let samples = result.unwrap_or_default().into_iter().map(|sample| {
            let value = sample["value"][1].as_str().unwrap_or("NaN");
            (sample["metric"].clone(), value.parse().unwrap())
        });
        Ok(samples.collect())
    }

    /// What an expression was, a second at a time, between two times in seconds since 1970: labels, and times with values.
    pub(crate) fn range(
        &self,
        expression: &str,
        (from, to): (f64, f64),
    ) -> Result<Vec<Line>, String> {
        let path = format!(
            "/api/v1/query_range?query={}&start={from:.3}&end={to:.3}&step=1",
            escaped(expression)
        );
        let (_, body) = get(self.port, &path);
        let answer: Value = serde_json::from_str(&body).map_err(|e| format!("{e}: {body}"))?;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let lines = answer["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let point = |point: &Value| {
            let value = point[1].as_str().unwrap_or("NaN");
            (point[0].as_f64().unwrap(), value.parse().unwrap())
        };
        let line = |line: &Value| {
            let points = line["values"].as_array().unwrap().iter().map(point);
            (line["metric"].clone(), points.collect())
        };
        Ok(lines.iter().map(line).collect())
    }

    /// The only value of an expression, if there is one.
    pub(crate) fn value(&self, expression: &str) -> Option<f64> {
        let samples = self.query(expression).ok()?;
        samples.first().map(|(_, value)| *value)
    }

    /// The exemplars of an expression in the last hour: labels, and the value of each.
    pub(crate) fn exemplars(&self, expression: &str) -> Vec<(Value, f64)> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let (from, to) = (now - 3600, now + 3600);
        let expression = escaped(expression);
        let path = format!("/api/v1/query_exemplars?query={expression}&start={from}&end={to}");
        let (_, body) = get(self.port, &path);
        let answer: Value = serde_json::from_str(&body).unwrap();
        let series = answer["data"].as_array().cloned().unwrap_or_default();
        let all = series
            .iter()
            .filter_map(|series| series["exemplars"].as_array())
            .flatten();
        let number = |one: &Value| one["value"].as_str().unwrap().parse().unwrap();
        all.map(|one| (one["labels"].clone(), number(one)))
            .collect()
    }

    pub(crate) fn stop(mut self) {
        self.process.stop().unwrap();
    }
}

fn escaped(text: &str) -> String {
    let escape = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    };
    text.bytes().map(escape).collect()
}
