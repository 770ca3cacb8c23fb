//! What `pooler demo` writes: the pooler's configuration, and the page for whoever sits at the terminal.

#![allow(clippy::print_stdout, reason = "the page is what the command is for")]

use std::path::{Path, PathBuf};

use super::postgres::Postgres;
use super::programs::find_program;

/// What there is and where.
pub(super) struct Places<'a> {
    pub(super) port: u16,
    pub(super) metrics_port: u16,
    pub(super) database: &'a str,
    pub(super) has_tables: bool,
    pub(super) primary: &'a Postgres,
    pub(super) replicas: &'a [Postgres; 2],
    pub(super) directory: &'a Path,
}

/// One line of progress.
pub(super) fn say(what: &str) {
    println!("{what} ...");
}

/// The page.
pub(super) fn print(places: &Places<'_>) {
    println!("{}", page(places));
}

/// The pooler's configuration file in the demo's directory.
pub(super) fn config_file(directory: &Path) -> PathBuf {
    directory.join("pooler.toml")
}

/// The pooler's log in the demo's directory.
pub(super) fn log_file(directory: &Path) -> PathBuf {
    directory.join("pooler.log")
}

/// The pooler's configuration: the primary and a replica in its own datacenter, dc1, the other replica in dc2.
pub(super) fn config(
    port: u16,
    metrics_port: u16,
    primary: &Postgres,
    replicas: &[Postgres; 2],
) -> String {
    let (here, there) = (replicas[0].port(), replicas[1].port());
    let primary = primary.port();
    format!(
        r#"# Made by `pooler demo`; it goes when the demo stops.

[pooler]
listen = ["127.0.0.1:{port}"]
datacenter = "dc1"
admin_users = ["postgres"]
routing = "auto"

[clusters.main]
hosts = [
  {{ host = "127.0.0.1", port = {primary}, datacenter = "dc1" }},
  {{ host = "127.0.0.1", port = {here}, datacenter = "dc1" }},
  {{ host = "127.0.0.1", port = {there}, datacenter = "dc2" }},
]
monitor_user = "postgres"

[databases."*"]
cluster = "main"

[auth]
type = "trust"

[metrics]
listen = "127.0.0.1:{metrics_port}"
"#
    )
}

fn page(places: &Places<'_>) -> String {
    let Places {
        port,
        metrics_port,
        database,
        ..
    } = places;
    let to = format!("-h 127.0.0.1 -p {port} -U postgres");
    let (psql, pgbench) = (typed("psql"), typed("pgbench"));
    let mut page = format!(
        "
pooler is ready on 127.0.0.1:{port}, before a primary and a replica in dc1 and a replica in dc2 \
         (ports {}, {}, {}).

Paste into another shell:

  {psql} {to} {database}
",
        places.primary.port(),
        places.replicas[0].port(),
        places.replicas[1].port(),
    );
    if places.has_tables {
        page.push_str(&format!(
            "  {pgbench} {to} -n -M prepared -c 200 -j 2 -T 10 -P 1 {database}\n"
        ));
    }
    page.push_str(&format!(
        "  {psql} {to} pooler -c 'SHOW HOSTS'    (the console: SHOW HELP)\n"
    ));
    page.push_str(&format!(
        "
Metrics         http://127.0.0.1:{metrics_port}/metrics
Configuration   {}
Log             {}

Ctrl-C stops and removes everything.
",
        config_file(places.directory).display(),
        log_file(places.directory).display(),
    ));
    page
}

/// How a program is typed: its name if the shell finds it, its path otherwise.
fn typed(name: &str) -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(name).is_file()) {
        return name.to_owned();
    }
    find_program(name).map_or_else(|| name.to_owned(), |program| program.display().to_string())
}
