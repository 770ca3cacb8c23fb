//! Finds PostgreSQL's programs on this machine, and runs them.
//!
//! Nothing here starts a server. Every command leaves with the caller's `PG*` variables taken out and messages in English,
//! so that a `PGHOST` in somebody's shell never sends us to a server that is not ours.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::account::Account;

/// Names the folder with `initdb`, `postgres` and `pg_ctl` when the one found by looking is not the one wanted.
const OVERRIDE: &str = "POOLER_PG_BINDIR";

/// What a folder must hold to be the server's.
const NEEDED: [&str; 4] = ["postgres", "initdb", "pg_ctl", "pg_basebackup"];

/// The folder with the server's programs: `POOLER_PG_BINDIR`, what `pg_config` says, the newest of the packages' usual
/// folders, or `PATH`.
///
/// # Errors
/// `NotFound`, with what to install, when there is no such folder.
pub fn server_programs() -> io::Result<PathBuf> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found.clone());
    }
    let found = match std::env::var_os(OVERRIDE) {
        Some(folder) => Some(PathBuf::from(folder)).filter(|folder| is_complete(folder)),
        None => candidates().into_iter().find(|folder| is_complete(folder)),
    };
    let found = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, missing()))?;
    Ok(FOUND.get_or_init(|| found).clone())
}

/// A client program such as `psql` or `pgbench`: beside the server's programs, or on `PATH`.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let beside = server_programs().ok().map(|folder| folder.join(name));
    beside
        .into_iter()
        .chain(path_folders().map(|folder| folder.join(name)))
        .find(|program| program.is_file())
}

/// A command with an environment that cannot lead it astray, no standard input, and output that nobody reads yet.
pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Runs a command to its end and gives what it printed; its own words are in the error.
pub(super) fn output(command: &mut Command) -> io::Result<String> {
    let name = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let out = command
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("{name}: {e}")))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout)
            .trim_end_matches('\n')
            .to_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(io::Error::other(format!(
        "{name}: {}: {}",
        out.status,
        said.trim_end()
    )))
}

/// Sends a signal, by its name without `SIG`, to every process of the list; those that are gone are no error.
pub(super) fn signal(name: &str, pids: &[u32]) -> io::Result<()> {
    let mut shell = command("sh");
    shell.args([
        "-c",
        r#"s=$1; shift; for p; do kill -s "$s" "$p"; done 2>/dev/null; :"#,
        "sh",
        name,
    ]);
    shell.args(pids.iter().map(u32::to_string));
    output(&mut shell).map(drop)
}

/// The `application_name` of what is done here, so that it is told apart from what is looked at.
pub const NAME: &str = "pooler demo";

/// Runs SQL as `postgres` through `psql`, on a server or a pooler before it.
pub(super) fn psql(host: &OsStr, port: u16, dbname: &str, sql: &str) -> io::Result<String> {
    let none = "psql is not on this machine: install PostgreSQL's client programs";
    let program =
        find_program("psql").ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, none))?;
    let mut psql = command(program);
    psql.args([
        "-AtXq",
        "-v",
        "ON_ERROR_STOP=1",
        "-U",
        "postgres",
        "-d",
        dbname,
    ]);
    psql.args(["-p", &port.to_string(), "-h"]).arg(host);
    psql.env("PGAPPNAME", NAME);
    psql.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = psql.spawn()?;
    let mut stdin = child.stdin.take().expect("psql's standard input is a pipe");
    let out = std::thread::scope(|scope| {
        // Beside the reading: both pipes may fill up. A psql that stops early closes this one, which is no news.
        scope.spawn(move || drop(stdin.write_all(sql.as_bytes())));
        child.wait_with_output()
    })?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout)
            .trim_end_matches('\n')
            .to_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(io::Error::other(format!("psql: {}", said.trim_end())))
}

/// Runs a server's program as the account that may run it, in a folder which that account can enter.
pub(super) fn server_command(
    name: &str,
    account: Option<Account>,
    folder: &Path,
) -> io::Result<Command> {
    let mut command = command(server_programs()?.join(name));
    command.current_dir(folder);
    if let Some(account) = account {
        account.run(&mut command);
    }
    Ok(command)
}

fn is_complete(folder: &Path) -> bool {
    NEEDED.iter().all(|name| folder.join(name).is_file())
}

/// Folders worth a look, the most likely first.
fn candidates() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Ok(said) = output(command("pg_config").arg("--bindir")) {
        folders.push(PathBuf::from(said));
    }
    folders.extend(versions_under("/usr/lib/postgresql", "", "bin"));
    folders.extend(versions_under("/usr", "pgsql-", "bin"));
    folders.extend(path_folders());
    for brew in [
        "/opt/homebrew/opt",
        "/usr/local/opt",
        "/home/linuxbrew/.linuxbrew/opt",
    ] {
        folders.extend(versions_under(brew, "postgresql@", "bin"));
        folders.push(Path::new(brew).join("postgresql/bin"));
    }
    folders
}

/// `parent/PREFIX<version>/inner`, the newest version first.
fn versions_under(parent: &str, prefix: &str, inner: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let version = entry
                .file_name()
                .to_str()?
                .strip_prefix(prefix)?
                .parse()
                .ok()?;
            Some((version, entry.path().join(inner)))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, folder)| folder).collect()
}

fn path_folders() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

fn missing() -> String {
    format!(
        "PostgreSQL's server programs ({}) are not on this machine. Install them: `apt-get install postgresql` on Debian and \
         Ubuntu, `dnf install postgresql-server` on Fedora and its relatives, `brew install postgresql` on macOS; or name \
         their folder in {OVERRIDE}.",
        NEEDED.join(", ")
    )
}
