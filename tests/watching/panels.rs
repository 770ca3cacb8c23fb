//! `make panels`: what the dashboard's panels show, drawn from a real Prometheus's answers by a browser.
//!
//! It is not Grafana, which draws better: title, place, queries, legends and units are the dashboard's, the drawing is ours. So
//! it shows that each panel has something to show under a load that has everything in it, and what.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use pooler::demo::postgres::Postgres;
use pooler::demo::{find_program, make_dir};
use serde_json::Value;

use crate::prometheus::{Prometheus, metrics_port};
use crate::provisions::dashboard;
use crate::scrape::METRICS;
use crate::support::{Pooler, Wire, query};

const LOAD: Duration = Duration::from_secs(90);

/// A grid of 24 columns, as the dashboard has it, in pixels.
const COLUMN: u64 = 62;
const LINE: u64 = 30;

/// Of the lines of a panel; the first is for the first series.
const COLORS: [&str; 8] = [
    "#3274d9", "#e0752d", "#299c46", "#bf1b00", "#7c4dff", "#00a3a3", "#b8860b", "#c2185b",
];

/// Series of a panel that are drawn and named.
const SERIES_MAX: usize = COLORS.len();

#[test]
#[ignore = "a picture: make panels"]
fn panels_are_drawn() {
    let primary = Postgres::builder().max_connections(200).start().unwrap();
    let replica = primary.replica(&[]).unwrap();
    let pooler = Pooler::builder()
        .set("inspect_functions = true")
        .set("datacenter = \"dc1\"")
        .set("pool_size = 3")
        .host_in("dc1", primary.port())
        .host_in("dc2", replica.port())
        .cluster("monitor_user = \"postgres\"")
        .cluster("read_fallback = [\"remote-replica\", \"primary\"]")
        .database("routing = \"auto\"")
        .section("[databases.shop]\ncluster = \"main\"\ndbname = \"postgres\"\nrouting = \"auto\"")
        .section(
            "[databases.reports]\ncluster = \"main\"\ndbname = \"postgres\"\nrouting = \"off\"",
        )
        .section(METRICS)
        .start();
    let mut setup = pooler.login("postgres", "reports");
    setup.rows("CREATE TABLE orders (id serial, note text)");
    replica.wait_for(&primary).unwrap();
    let interval = Duration::from_secs(1);
    let prometheus = Prometheus::start(metrics_port(&pooler), interval, "prometheus-panels");
    load(&pooler);
    let html = page(&prometheus);
    prometheus.stop();
    let dir = make_dir("panels").unwrap();
    let (page, picture) = (dir.join("panels.html"), dir.join("panels.png"));
    std::fs::write(&page, html).unwrap();
    let chromium = find_program("chromium").expect("chromium on PATH");
    let (width, height) = size();
    let mut command = Command::new(chromium);
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .arg(format!("--window-size={width},{height}"))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(&page);
    let out = command.output().unwrap();
    assert!(out.status.success() && picture.exists(), "{out:?}");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/panels.png");
    std::fs::copy(&picture, &kept).unwrap();
    println!("{}", kept.display());
}

/// Reads and writes, more clients than servers, transactions that are held, errors, statements with names, pins.
fn load(pooler: &Pooler) {
    let stop = AtomicBool::new(false);
    let stop = &stop;
    let worker = |n: usize| {
        let database = ["shop", "shop", "reports"][n % 3];
        let mut wire: Wire = pooler.login("postgres", database);
        for round in 0_usize.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let sql = match (round + n) % 9 {
                0 => "INSERT INTO orders (note) VALUES ('x')",
                1 if round % 40 < 9 => "SELECT 1 / 0",
                2 if n == 0 => "SELECT pg_sleep(0.4)",
                _ => "SELECT count(*) FROM orders WHERE id < 50",
            };
            wire.send(&[query(sql)]);
            wire.recv_to_ready();
            std::thread::sleep(Duration::from_millis(4 + (n as u64 % 5)));
            if round % 300 == 299 {
                wire.leave();
                wire = pooler.login("postgres", database);
            }
        }
    };
    std::thread::scope(|scope| {
        for n in 0..12 {
            scope.spawn(move || worker(n));
        }
        scope.spawn(move || {
            let mut pinned = pooler.login("postgres", "shop");
            pinned.rows("SELECT pg_advisory_lock(1)");
            std::thread::sleep(LOAD / 2);
            pinned.rows("SELECT pg_advisory_unlock(1)");
        });
        std::thread::sleep(LOAD);
        stop.store(true, Ordering::Relaxed);
    });
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// Of the whole picture.
fn size() -> (u64, u64) {
    let panels = dashboard();
    let bottoms = panels["panels"].as_array().unwrap().iter();
    let bottom = bottoms.map(|p| number(&p["gridPos"]["y"]) + number(&p["gridPos"]["h"]));
    (24 * COLUMN + 20, bottom.max().unwrap_or(0) * LINE + 70)
}

fn page(prometheus: &Prometheus) -> String {
    let end = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let end = end.unwrap().as_secs_f64();
    // Without the first moments, in which rates are of less than their interval.
    let span = (end - LOAD.as_secs_f64() + 15.0, end);
    let mut body = String::new();
    let mut empty = Vec::new();
    for panel in dashboard()["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        let place = &panel["gridPos"];
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| number(&place[name]));
        let style = format!(
            "left:{}px;top:{}px;width:{}px;height:{}px",
            x * COLUMN + 10,
            y * LINE + 60,
            w * COLUMN - 8,
            h * LINE - 8
        );
        if panel["type"] == "row" {
            write!(body, "<h2 style=\"{style}\">{title}</h2>").unwrap();
            continue;
        }
        let mut series = BTreeMap::new();
        for target in panel["targets"].as_array().unwrap() {
            let expression = filled(target["expr"].as_str().unwrap());
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            for (labels, points) in prometheus.range(&expression, span).unwrap() {
                series.insert(named(legend, &labels), points);
            }
        }
        if series.is_empty() {
            empty.push(title.to_owned());
        }
        let unit = panel["fieldConfig"]["defaults"]["unit"]
            .as_str()
            .unwrap_or("");
        let (w, h) = (w * COLUMN - 8, h * LINE - 8);
        let drawn = drawing(&series, unit, span, (w as f64, h as f64 - 24.0));
        write!(
            body,
            "<div class=p style=\"{style}\"><b>{title}</b>{drawn}</div>"
        )
        .unwrap();
    }
    println!("without anything to show: {empty:?}");
    format!(
        "<!doctype html><meta charset=utf-8><title>panels</title><style>body{{margin:0;background:#f4f5f5;\
         font:12px sans-serif;color:#222}}h1{{position:absolute;left:10px;top:4px;font-size:17px;margin:0}}\
         p{{position:absolute;left:10px;top:28px;margin:0;color:#555}}h2{{position:absolute;font-size:15px;margin:0}}\
         .p{{position:absolute;background:#fff;border:1px solid #dcdcdc;overflow:hidden}}.p b{{display:block;padding:4px 8px}}\
         </style><h1>The panels of docker/grafana/pooler.json, with a Prometheus's own answers</h1>\
         <p>Drawn by tests/watching/panels.rs from 90 seconds of load on a primary and a replica. This is not Grafana: only \
         titles, queries, units and places are the dashboard's.</p>{body}"
    )
}

fn filled(expression: &str) -> String {
    let names = ["instance", "database", "user"];
    let all = names.iter().fold(expression.to_owned(), |e, name| {
        e.replace(&format!("\"${name}\""), "\".*\"")
    });
    all.replace("$__rate_interval", "15s")
}

fn named(legend: &str, labels: &Value) -> String {
    let mut name = legend.to_owned();
    while let Some((before, (label, after))) = name
        .split_once("{{")
        .and_then(|(before, rest)| Some((before, rest.split_once("}}")?)))
    {
        let value = labels[label.trim()].as_str().unwrap_or_default();
        name = format!("{before}{value}{after}");
    }
    name
}

/// Lines in a frame, with the largest value, and the names of the series below.
fn drawing(
    series: &BTreeMap<String, Vec<(f64, f64)>>,
    unit: &str,
    (from, to): (f64, f64),
    (w, h): (f64, f64),
) -> String {
    let values = series.values().flatten().map(|(_, value)| *value);
    let most = values.filter(|v| v.is_finite()).fold(0.0, f64::max);
    let top = if most > 0.0 { most * 1.1 } else { 1.0 };
    let (left, bottom) = (
        58.0,
        h - 22.0 - 13.0 * ((series.len().min(SERIES_MAX) as f64) / 3.0).ceil(),
    );
    let mut svg = format!("<svg width={w} height={h} style=\"font:10px sans-serif\">");
    for part in 0..=4 {
        let y = bottom - (bottom - 6.0) * f64::from(part) / 4.0;
        let label = amount(top * f64::from(part) / 4.0, unit);
        write!(
            svg,
            "<line x1={left} x2={} y1={y} y2={y} stroke=#eee /><text x={} y={} text-anchor=end fill=#777>{label}</text>",
            w - 8.0,
            left - 4.0,
            y + 3.0
        )
        .unwrap();
    }
    for (n, (name, points)) in series.iter().enumerate().take(SERIES_MAX) {
        let color = COLORS[n];
        let mut path = String::new();
        let mut last = f64::NEG_INFINITY;
        for (at, value) in points.iter().filter(|(_, value)| value.is_finite()) {
            let x = left + (w - 8.0 - left) * (at - from) / (to - from);
            let y = bottom - (bottom - 6.0) * value / top;
            // A gap is a gap.
            let step = if at - last > 2.5 { 'M' } else { 'L' };
            write!(path, "{step}{x:.1} {y:.1}").unwrap();
            last = *at;
        }
        let (x, y) = (
            left - 50.0 + (n % 3) as f64 * (w - 16.0) / 3.0,
            bottom + 16.0 + 13.0 * (n / 3) as f64,
        );
        write!(
            svg,
            "<path d=\"{path}\" fill=none stroke={color} stroke-width=1.5 /><text x={x} y={y} fill={color}>&#9644; {name}</text>"
        )
        .unwrap();
    }
    if series.is_empty() {
        write!(
            svg,
            "<text x={} y={} text-anchor=middle fill=#999>nothing</text>",
            w / 2.0,
            bottom / 2.0
        )
        .unwrap();
    }
    svg + "</svg>"
}

/// A value with its unit, as the dashboard names it.
fn amount(value: f64, unit: &str) -> String {
    let scaled = |value: f64, suffix: &str| match value {
        v if v >= 1e9 => format!("{:.1} G{suffix}", v / 1e9),
        v if v >= 1e6 => format!("{:.1} M{suffix}", v / 1e6),
        v if v >= 1e3 => format!("{:.1} k{suffix}", v / 1e3),
        v => {
            format!("{v:.3}")
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_owned()
                + " "
                + suffix
        }
    };
    match unit {
        "s" if value > 0.0 && value < 1.0 => format!("{:.2} ms", value * 1e3),
        "percentunit" => format!("{:.0} %", value * 100.0),
        "s" => scaled(value, "s"),
        "ops" => scaled(value, "/s"),
        "bytes" => scaled(value, "B"),
        "Bps" => scaled(value, "B/s"),
        _ => scaled(value, ""),
    }
}
