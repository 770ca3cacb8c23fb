//! What `docker/` brings: dashboards and alerts that use only metrics that exist, files that their own tools take.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

use crate::prometheus::{Prometheus, metrics_port, promtool, scrape};
use crate::support::{Rig, Wire, ssl_request};

fn docker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub(crate) fn dashboard() -> Value {
    serde_json::from_str(&read(&docker().join("grafana/pooler.json"))).unwrap()
}

/// Expressions with the place where each stands.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in dashboard()["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = |v: &Value| v.as_str().unwrap().to_owned();
            found.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    for variable in dashboard()["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["definition"].as_str() {
            let inside = query.strip_prefix("label_values(").unwrap();
            let (metric, label) = inside.trim_end_matches(')').split_once(", ").unwrap();
            found.push((
                "variable".to_owned(),
                format!("sum by ({label}) ({metric})"),
            ));
        }
    }
    let alerts = read(&docker().join("prometheus/alerts.yml"));
    let alerts = Yaml::load_from_str(&alerts).unwrap();
    for rule in alerts[0]["groups"][0]["rules"].as_vec().unwrap() {
        let text = |key: &str| rule[key].as_str().unwrap().to_owned();
        found.push((text("alert"), text("expr")));
    }
    found
}

/// Names of metrics, each with the labels that an expression takes from it; those by which it sums
/// count for every metric that it names.
fn used(expression: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut metrics: Vec<(String, BTreeSet<String>)> = Vec::new();
    let mut by = BTreeSet::new();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = expression;
    while let Some(start) = rest.find(|c: char| c.is_alphabetic() || c == '"') {
        if rest[start..].starts_with('"') {
            let text = &rest[start + 1..];
            rest = &text[text.find('"').unwrap() + 1..];
            continue;
        }
        let text = &rest[start..];
        let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
        let (word, after) = text.split_at(end);
        rest = after;
        let opens = after.trim_start();
        if matches!(
            word,
            "by" | "on" | "group_left" | "group_right" | "ignoring"
        ) {
            let (list, after) = opens[1..].split_once(')').unwrap();
            rest = after;
            by.extend(list.split(',').map(|l| l.trim().to_owned()));
        } else if word == "up" || word.starts_with("pooler_") || word.starts_with("process_") {
            let mut labels = BTreeSet::new();
            if let Some(inside) = opens.strip_prefix('{') {
                let end = inside.find('}').unwrap();
                let matchers = inside[..end].split(", ");
                labels.extend(matchers.map(|m| m[..m.find(['=', '!']).unwrap()].to_owned()));
                rest = &inside[end + 1..];
            }
            metrics.push((word.to_owned(), labels));
        }
    }
    by.remove("");
    for (_, labels) in &mut metrics {
        labels.extend(by.iter().cloned());
    }
    metrics
}

/// What an exposition offers: labels by metric, as samples have them.
fn offered(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut offered: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let labels = offered.entry(name.to_owned()).or_default();
        // What Prometheus adds.
        labels.extend(["instance".to_owned(), "job".to_owned()]);
        let inside = rest.strip_prefix('{').and_then(|r| r.rsplit_once('}'));
        for pair in inside
            .map(|(list, _)| list.split("\","))
            .into_iter()
            .flatten()
        {
            labels.extend(pair.split('=').next().map(str::to_owned));
        }
    }
    let job = ["instance", "job"].map(str::to_owned);
    offered.insert("up".to_owned(), job.into());
    offered
}

/// A pooler of which every metric has something to say.
fn busy() -> (Rig, Vec<Wire>) {
    let rig = Rig::with(|b| {
        b.set("datacenter = \"dc1\"")
            .cluster("monitor_user = \"postgres\"")
            .database("routing = \"auto\"")
            .section("[metrics]\nlisten = \"127.0.0.1:0\"")
    });
    let mut wire = rig.login();
    wire.one("SELECT 1");
    wire.rows("BEGIN");
    assert!(wire.try_rows("SELECT 1/0").is_err());
    wire.rows("ROLLBACK");
    let mut probe = rig.connect();
    probe.send_bytes(&ssl_request());
    (rig, vec![wire])
}

/// Of replicas there are none here; what only they have is checked by its name in the documentation.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md"));
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut all = BTreeMap::new();
    for row in rows {
        let mut cells = row.split(" | ");
        let name = cells.next().unwrap().trim_end_matches('`').to_owned();
        let kind = cells.next().unwrap();
        let mut labels: BTreeSet<String> = cells
            .next()
            .unwrap()
            .split(", ")
            .map(str::to_owned)
            .collect();
        labels.extend(["instance".to_owned(), "job".to_owned()]);
        if kind == "histogram" {
            for part in ["_sum", "_count"] {
                all.insert(format!("{name}{part}"), labels.clone());
            }
            labels.insert("le".to_owned());
            all.insert(format!("{name}_bucket"), labels);
        } else {
            all.insert(name, labels);
        }
    }
    all
}

const OF_REPLICAS: &[&str] = &["pooler_replica_lag_seconds", "pooler_replica_lag_bytes"];

#[test]
fn dashboards_and_alerts_use_only_what_is_there() {
    let (rig, _clients) = busy();
    let port = metrics_port(&rig.pooler);
    let written = documented();
    let mut offered = offered(&scrape(port));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !offered.contains_key("pooler_host_role") && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
        offered = self::offered(&scrape(port));
    }
    for (name, labels) in &offered {
        if name != "up" {
            let allowed = written.get(name).unwrap_or_else(|| panic!("{name}"));
            assert!(labels.is_subset(allowed), "{name}: {labels:?}");
        }
    }
    let prometheus = Prometheus::start(port, Duration::from_secs(1), "prometheus-dashboard");
    let mut seen = BTreeSet::new();
    for (place, expression) in expressions() {
        let metrics = used(&expression);
        assert!(!metrics.is_empty(), "{place}: {expression}");
        for (name, labels) in metrics {
            let known = OF_REPLICAS.contains(&&*name) || offered.contains_key(&name);
            assert!(known, "{place}: {name} does not exist");
            let allowed = written.get(&name).or_else(|| offered.get(&name)).unwrap();
            let foreign: Vec<_> = labels.difference(allowed).collect();
            // A sum of several metrics may be by labels that one of them lacks.
            let matched = foreign.is_empty() || expression.contains("group_left");
            assert!(matched, "{place}: {name} has no {foreign:?}");
            seen.insert(name);
        }
        let filled = ["instance", "database", "user"]
            .iter()
            .fold(expression, |e, name| {
                e.replace(&format!("\"${name}\""), "\".*\"")
            });
        let filled = filled.replace("$__rate_interval", "1m");
        if let Err(e) = prometheus.query(&filled) {
            panic!("{place}: {filled}: {e}");
        }
    }
    for must in [
        "pooler_waiting_clients",
        "pooler_host_up",
        "pooler_errors_total",
    ] {
        assert!(seen.contains(must), "{must} is shown nowhere");
    }
    prometheus.stop();
}

#[test]
fn alerts_are_right_by_their_own_tests() {
    let dir = docker().join("prometheus");
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    promtool(&["check", "rules", &file("alerts.yml")], "");
    promtool(&["test", "rules", &file("alerts_test.yml")], "");
    promtool(
        &["check", "config", "--syntax-only", &file("prometheus.yml")],
        "",
    );
    // Each has a test.
    let (alerts, tests) = (
        read(&dir.join("alerts.yml")),
        read(&dir.join("alerts_test.yml")),
    );
    for name in alerts
        .lines()
        .filter_map(|l| l.trim().strip_prefix("- alert: "))
    {
        assert!(tests.contains(&format!("alertname: {name}\n")), "{name}");
    }
}

fn files(under: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn files_are_what_they_say_they_are() {
    let mut all = Vec::new();
    files(&docker(), &mut all);
    let mut yaml = 0;
    for path in all {
        match path.extension().and_then(|e| e.to_str()) {
            Some("yml" | "yaml") => {
                let documents = Yaml::load_from_str(&read(&path));
                let documents = documents.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                assert!(!documents.is_empty(), "{}", path.display());
                yaml += 1;
            }
            Some("sh") => {
                let checked = std::process::Command::new("bash")
                    .arg("-n")
                    .arg(&path)
                    .status();
                assert!(checked.unwrap().success(), "{}", path.display());
            }
            Some("toml") => checks(&path),
            _ => {}
        }
    }
    assert!(yaml > 5, "{yaml}");
    let compose = read(&docker().join("compose.yaml"));
    let compose = Yaml::load_from_str(&compose).unwrap();
    let services = compose[0]["services"].as_mapping().unwrap();
    let names: Vec<&str> = services.keys().filter_map(Yaml::as_str).collect();
    // Whom the pooler's configuration and Prometheus' name is there.
    let text =
        read(&docker().join("pooler.toml")) + &read(&docker().join("prometheus/prometheus.yml"));
    for name in ["primary", "replica-dc1", "replica-dc2", "pooler"] {
        assert!(names.contains(&name) && text.contains(name), "{name}");
    }
    // What is mounted exists.
    for line in read(&docker().join("compose.yaml")).lines() {
        if let Some((_, rest)) = line.split_once("./")
            && let Some((path, _)) = rest.split_once(":/")
        {
            assert!(docker().join(path).exists(), "{path}");
        }
    }
    // Kubernetes' configuration is one.
    let kubernetes = read(&docker().join("kubernetes/pooler.yaml"));
    let objects = Yaml::load_from_str(&kubernetes).unwrap();
    let toml = objects[0]["data"]["pooler.toml"].as_str().unwrap();
    let dir = pooler::demo::make_dir("kubernetes").unwrap();
    let path = dir.join("pooler.toml");
    fs::write(&path, toml.replace("/etc/pooler-secrets/", "")).unwrap();
    let users = objects[1]["stringData"]["userlist.txt"].as_str().unwrap();
    fs::write(dir.join("userlist.txt"), users).unwrap();
    checks(&path);
    let kinds: Vec<_> = objects
        .iter()
        .map(|o| o["kind"].as_str().unwrap())
        .collect();
    assert!(kinds.contains(&"Deployment") && kinds.contains(&"PodDisruptionBudget"));
}

/// The pooler takes the configuration, without a warning.
fn checks(config: &Path) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pooler"));
    let out = command.arg("check").arg(config).output().unwrap();
    let said = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
    assert!(out.status.success(), "{said}");
}
