//! The house plan as a test: what may use what, what the protocol crate must never touch, how long
//! a file may be, and that every trap on the list is covered.
//!
//! It reads the sources, not the program, so a failure names a file and a line. Modules of tests
//! may look anywhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of `src/`, bottom first: a module may use those in the rows above its own in this
/// table, never one beside it or below.
const LAYERS: &[&[&str]] = &[
    // What a worker has to send, collected; and its timers.
    &["batch", "timer"],
    // Words, numbers, keys, and a socket as one type.
    &[
        "error", "metrics", "shutdown", "notify", "log", "config", "net", "status",
    ],
    // What a socket would not take, and what encrypts one: they know sockets.
    &["buffer", "tls"],
    // What a server's work was like.
    &["observe"],
    // A socket, what it owes and what waits for it.
    &["server"],
    // Pools keep servers; the relay moves bytes between one of them and a client; a cancel reaches
    // one. None of the three knows another.
    &["pool", "relay", "cancel"],
    // Hosts, and the pools toward them.
    &["cluster"],
    // Users that are looked up on those hosts, and passwords that others judge.
    &["lookup", "ldap", "pam"],
    // Every pool of the process, and what all workers share.
    &["registry"],
    // What operators see of all this, and do to it.
    &["admin"],
    // A session: takes a server from a pool and drives the relay with it, or is the console's.
    &["client"],
    // What is served to the outside: sessions, and numbers.
    &["listener", "exposition"],
    // One thread with its listeners and sessions.
    &["worker"],
    // All of it, from start to end.
    &["run"],
    // Commands beside `run`.
    &["check", "demo", "top"],
    // The library's list of modules, and the command line.
    &["lib", "main"],
];

/// What the order would allow and the design does not.
const NEVER: &[(&str, &str, &str)] = &[
    ("relay", "config", "the relay gets its rules as an argument"),
    ("server", "config", "a server is logged in to with a Target"),
    (
        "server",
        "metrics",
        "who asked for a login notes how long it took",
    ),
    ("buffer", "config", "sizes of buffers are constants"),
];

/// What the protocol crate must not mention: it does no I/O and knows no time.
const NOT_IN_PROTOCOL: &[&str] = &[
    "tokio",
    "std::net",
    "std::os",
    "std::fs",
    "std::thread",
    "TcpStream",
    "UnixStream",
    "Instant::now",
    "SystemTime",
    "tracing",
    "rand::",
];

/// Where tokio's timers may be used as they are: what never runs on a worker, whose event loop has none and would
/// end what asks for one. Everything else has them from `timer`.
const OWN_TIMERS: &[&str] = &[
    "timer.rs",
    "run.rs",
    "ldap.rs",
    "exposition/",
    "cluster/monitor.rs",
    "observe/",
    "check/",
    "demo/",
    "top/",
];

/// Lines that a file may have.
const LINES_MAX: usize = 600;

/// Longer ones, and how long they may be: they are to be cut, not to grow.
const LONGER: &[(&str, usize)] = &[("tests/soak/client.rs", 640)];

/// Traps that each need a test or a line in ARCHITECTURE.md.
const TRAPS: [std::ops::RangeInclusive<usize>; 4] = [1..=28, 33..=34, 36..=79, 81..=81];

#[test]
fn a_module_uses_only_what_is_below_it() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        let user = module_of(&file);
        for (line, used) in uses(&file) {
            if let Err(why) = may_use(&user, &used) {
                wrong.push(format!("{file}:{line}: {user} uses {used}: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_protocol_crate_touches_no_socket_no_clock_and_no_log() {
    let mut wrong = Vec::new();
    for file in sources("protocol/src") {
        for (line, text) in code(&file) {
            for word in NOT_IN_PROTOCOL.iter().filter(|w| text.contains(**w)) {
                wrong.push(format!("{file}:{line}: mentions {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_runs_on_workers_borrows_its_timers() {
    let mut wrong = Vec::new();
    let has_own = |file: &String| {
        OWN_TIMERS
            .iter()
            .any(|own| file["src/".len()..].starts_with(own))
    };
    for file in sources("src").into_iter().filter(|file| !has_own(file)) {
        let lines = code(&file).into_iter();
        for (line, _) in lines.filter(|(_, text)| names_timers(text)) {
            wrong.push(format!("{file}:{line}: uses tokio::time, not timer"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is_and_is_not_too_long() {
    let mut wrong = Vec::new();
    for file in all_sources() {
        let text = read(&file);
        if !text.starts_with("//!") && !file.contains("fuzz_targets/") {
            wrong.push(format!("{file}:1: does not begin with //!"));
        }
        let known = LONGER.iter().find(|(name, _)| *name == file);
        let max = known.map_or(LINES_MAX, |(_, max)| *max);
        let lines = text.lines().count();
        if lines > max {
            wrong.push(format!("{file}:{lines}: more than {max} lines"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_trap_has_a_test_or_a_line_in_the_map() {
    let Ok(map) = fs::read_to_string(root().join("ARCHITECTURE.md")) else {
        return;
    };
    let mut covered: BTreeSet<usize> = map.lines().flat_map(numbers_in_front).collect();
    for file in all_sources() {
        covered.extend(read(&file).lines().flat_map(traps_of_test));
    }
    let traps = TRAPS.into_iter().flatten();
    let missing: Vec<usize> = traps.filter(|t| !covered.contains(t)).collect();
    assert!(missing.is_empty(), "no test and no line: traps {missing:?}");
}

fn names_timers(text: &str) -> bool {
    let group = text
        .split_once("tokio::{")
        .map(|(_, group)| group_heads(group));
    text.contains("tokio::time") || group.is_some_and(|heads| heads.iter().any(|h| h == "time"))
}

fn may_use(user: &str, used: &str) -> Result<(), String> {
    let rank = |module: &str| LAYERS.iter().position(|row| row.contains(&module));
    let (Some(mine), Some(its)) = (rank(user), rank(used)) else {
        return Err("one of them has no place in the table of this test".to_owned());
    };
    if user != used && its >= mine {
        return Err("it is not below".to_owned());
    }
    let never = NEVER.iter().find(|(u, d, _)| (*u, *d) == (user, used));
    never.map_or(Ok(()), |(_, _, why)| Err((*why).to_owned()))
}

/// The modules that a file names behind `crate::`, with their lines; names in `lib.rs` itself
/// (`crate::Name`) are none.
fn uses(file: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let lines = code(file);
    for (at, (line, text)) in lines.iter().enumerate() {
        for (start, prefix) in text.match_indices("crate::") {
            if text[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &text[start + prefix.len()..];
            let names = match rest.strip_prefix('{') {
                None => vec![first_word(rest)],
                Some(group) => {
                    let more = lines[at + 1..].iter().map(|(_, text)| text.as_str());
                    let all: String = std::iter::once(group).chain(more).collect();
                    group_heads(&all)
                }
            };
            let modules = names
                .into_iter()
                .filter(|n| n.starts_with(char::is_lowercase));
            found.extend(modules.map(|name| (*line, name)));
        }
    }
    found
}

/// The first words of the parts of a `use` group, up to its closing brace.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = vec![String::new()];
    let mut depth = 0;
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(String::new()),
            _ => heads.last_mut().expect("never empty").push(c),
        }
    }
    heads.iter().map(|head| first_word(head.trim())).collect()
}

fn first_word(text: &str) -> String {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    text[..end.unwrap_or(text.len())].to_owned()
}

/// Lines of code with their numbers: no comments, and nothing behind `mod tests`.
fn code(file: &str) -> Vec<(usize, String)> {
    let text = read(file);
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    lines
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(at, line)| (at, line.to_owned()))
        .collect()
}

fn module_of(file: &str) -> String {
    let inside = file.strip_prefix("src/").expect("a file of src/");
    first_word(inside)
}

/// The sources under `directory` that are no tests.
fn sources(directory: &str) -> Vec<String> {
    let mut files = rust_files(directory);
    let all: Vec<String> = files.iter().map(|f| read(f)).collect();
    let is_test = |file: &String| {
        let stem = Path::new(file).file_stem().expect("a file name");
        let stem = stem.to_string_lossy();
        let declared = format!("#[cfg(test)]\nmod {stem};");
        stem.ends_with("tests")
            || file.contains("/tests/")
            || all.iter().any(|text| text.contains(&declared))
    };
    files.retain(|file| !is_test(file));
    files
}

fn all_sources() -> Vec<String> {
    ["src", "protocol", "ring", "pam", "tests", "benches"]
        .into_iter()
        .flat_map(rust_files)
        .collect()
}

/// Every `.rs` file under `directory`, from the root of the project, in order.
fn rust_files(directory: &str) -> Vec<String> {
    let mut files = Vec::new();
    let mut open = vec![PathBuf::from(directory)];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(root().join(&path)).expect("a directory of the project") {
            let name = entry.expect("a directory that stays").file_name();
            let path = path.join(name);
            if root().join(&path).is_dir() && !path.ends_with("target") {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path.to_str().expect("plain names").to_owned());
            }
        }
    }
    files.sort();
    files
}

/// 17 for `fn t17_what_it_shows`; 44 and 45 for `fn c07_t44_t45_what_it_shows`.
fn traps_of_test(line: &str) -> Vec<usize> {
    let name = line.split_once("fn ").map_or("", |(_, name)| name);
    let marks = name.split('_').filter_map(|part| part.strip_prefix('t'));
    marks.filter_map(|number| number.parse().ok()).collect()
}

/// The numbers in the first cell of a row of a table, or in front of an item of a list: `| 4, 12 |`,
/// `- 12: `, `| t12 |`; a range counts as all that it spans: `| 4-6 |`.
fn numbers_in_front(line: &str) -> Vec<usize> {
    let line = line.trim_start_matches(['|', '-', '*', ' ', '`']);
    let end = line.find(['|', ':']).unwrap_or(0);
    let mut numbers = Vec::new();
    for part in line[..end].split(',') {
        let part = part.trim_matches(|c: char| !c.is_ascii_digit());
        let (first, last) = part.split_once(['-', '–']).unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse(), last.parse::<usize>()) {
            numbers.extend(first..=last);
        }
    }
    numbers
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).expect("a source file is UTF-8")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
