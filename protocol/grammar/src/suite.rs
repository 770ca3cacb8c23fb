//! PostgreSQL's regression suite, run once on a PostgreSQL of our own: every statement that psql sent, with
//! the names that the database had after the test that it is from.
//!
//! Tests may fail here; what counts is what was sent. `scripts/regress.sh` fetches the suite.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pooler::demo::postgres::Postgres;
use pooler_protocol::route::QUESTION;

use super::Names;

/// A test's statements, in order, each once.
pub struct Part {
    /// The test.
    pub name: String,
    /// As they were sent.
    pub statements: Vec<String>,
    /// The database's names after it.
    pub names: Names,
}

/// Where `scripts/regress.sh` leaves the suite.
#[must_use]
pub fn source() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("target/regress/src/postgresql/src/test/regress")
}

/// Runs the whole suite, test after test.
///
/// # Panics
/// If there is no suite or no PostgreSQL.
#[must_use]
pub fn run() -> Vec<Part> {
    let source = source();
    let schedule = fs::read_to_string(source.join("parallel_schedule"));
    let schedule = schedule.expect("the suite: SUITE_ONLY=1 sh scripts/regress.sh");
    let builder = Postgres::builder()
        .setting("logging_collector", "on")
        .setting("log_destination", "jsonlog")
        .setting("log_directory", "statements")
        .setting("log_filename", "all")
        .setting("log_rotation_size", "0")
        .setting("log_statement", "all")
        .setting("max_prepared_transactions", "2");
    let postgres = builder.start().expect("PostgreSQL");
    let files = copy(&source, postgres.socket_dir());
    let created = postgres.psql("CREATE DATABASE regression TEMPLATE template0");
    created.expect("a database");
    let tests = schedule
        .lines()
        .filter_map(|line| line.strip_prefix("test:"));
    let log = postgres.data_dir().join("statements/all.json");
    let (mut parts, mut read) = (Vec::new(), 0);
    for name in tests.flat_map(str::split_whitespace) {
        run_test(&postgres, &files, name);
        let mut names = Names::default();
        let question = format!("\\pset format unaligned\n\\pset tuples_only on\n{QUESTION}");
        names.read(&postgres.psql_in("regression", &question).expect("names"));
        let logged = fs::read(&log).expect("the server's log");
        parts.push(Part {
            name: name.to_owned(),
            statements: statements(&String::from_utf8_lossy(&logged[read..])),
            names,
        });
        read = logged.len();
    }
    parts
}

/// The server reads these under another account.
fn copy(source: &Path, near: &Path) -> PathBuf {
    let to = near.join("suite");
    fs::create_dir_all(&to).expect("a directory");
    let libraries = fs::read_dir(source)
        .expect("the suite")
        .filter_map(Result::ok);
    let libraries = libraries.map(|entry| entry.path());
    let libraries = libraries.filter(|path| path.extension().is_some_and(|e| e == "so"));
    let parts = [source.join("sql"), source.join("data")];
    for path in parts.into_iter().chain(libraries) {
        let copied = Command::new("cp").arg("-R").arg(path).arg(&to).status();
        assert!(copied.expect("cp").success());
    }
    let open = Command::new("chmod")
        .arg("-R")
        .arg("a+rX")
        .arg(&to)
        .status();
    assert!(open.expect("chmod").success());
    fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("chmod");
    to
}

fn run_test(postgres: &Postgres, files: &Path, name: &str) {
    let script = files.join("sql").join(format!("{name}.sql"));
    let mut psql = Command::new("timeout");
    psql.args([
        "120",
        "psql",
        "-X",
        "-q",
        "-U",
        "postgres",
        "-d",
        "regression",
    ])
    .args([
        "-v",
        "HIDE_TABLEAM=on",
        "-v",
        "HIDE_TOAST_COMPRESSION=on",
        "-f",
    ])
    .arg(script)
    .env("PGHOST", postgres.socket_dir())
    .env("PGPORT", postgres.port().to_string())
    .env("PG_ABS_SRCDIR", files)
    .env("PG_ABS_BUILDDIR", files)
    .env("PG_LIBDIR", files)
    .env("PG_DLSUFFIX", ".so")
    .env("PGTZ", "PST8PDT")
    .env("PGDATESTYLE", "Postgres, MDY")
    .current_dir(files)
    .stdin(Stdio::null())
    .stdout(Stdio::null())
    .stderr(Stdio::null());
    // Whether all of it worked is not asked.
    let _status = psql.status().expect("psql");
}

/// What the log says was sent, each once.
fn statements(log: &str) -> Vec<String> {
    let mut seen = HashMap::new();
    for line in log.lines() {
        let Ok(entry) = serde_json::from_str::<serde_json::Value>(line) else {
            continue;
        };
        let message = entry["message"].as_str().unwrap_or_default();
        let sent = message.strip_prefix("statement: ");
        let prepared = || message.strip_prefix("execute <unnamed>: ");
        if let Some(text) = sent.or_else(prepared) {
            let next = seen.len();
            seen.entry(text.to_owned()).or_insert(next);
        }
    }
    let mut all: Vec<_> = seen.into_iter().collect();
    all.sort_unstable_by_key(|(_, at)| *at);
    all.into_iter().map(|(text, _)| text).collect()
}
