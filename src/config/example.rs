//! `pooler.example.toml`: written from the table of keys, and checked against it.
//!
//! To write it again after a change of the table, run this test with `POOLER_WRITE_EXAMPLE` set.

use std::path::Path;

use super::Config;
use super::keys::{self, Key, Preset, Table};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/pooler.example.toml");

const WIDTH: usize = 98;

/// Header, introduction, and keys that are set as an example.
const SECTIONS: &[(Table, &str, &str, &str)] = &[
    (Table::Pooler, "[pooler]", "The process as a whole.", ""),
    (
        Table::Cluster,
        "[clusters.main]",
        "A primary and its replicas; roles are found by asking.",
        concat!(
            "hosts = [\n",
            "  { host = \"10.1.0.10\", port = 5432, datacenter = \"dc1\" },\n",
            "  { host = \"10.1.0.11\", port = 5432, datacenter = \"dc1\" },\n",
            "  { host = \"10.2.0.10\", port = 5432, datacenter = \"dc2\" },\n",
            "]\n",
        ),
    ),
    (
        Table::Database,
        "[databases.app]",
        "What a client asks for; [databases.\"*\"] matches any other name. The defaults \
         above may be set again here: pool_size = 40.",
        "",
    ),
    (
        Table::User,
        "[users.report]",
        "A user of the applications. The defaults above may be set again here, as pool_size is.",
        "pool_size = 5\n",
    ),
    (Table::Auth, "[auth]", "Logging in to the pooler.", ""),
    (
        Table::TlsClient,
        "[tls.client]",
        "Between the applications and the pooler.",
        "",
    ),
    (
        Table::TlsServer,
        "[tls.server]",
        "Between the pooler and PostgreSQL.",
        "",
    ),
    (
        Table::Metrics,
        "[metrics]",
        "For Prometheus, load balancers and people.",
        "",
    ),
    (Table::Log, "[log]", "To the standard error.", ""),
    (Table::Tracing, "[tracing]", "OpenTelemetry.", ""),
];

const HEAD: &str = "\
# Every key of pooler, with its default. A line that begins with \"#\" and a space is prose;
# \"#key = value\" is a key at its default: remove the \"#\" to change it. In square brackets stand
# the unit or the words to choose from, what 0 or an empty text means, and whether a change needs a
# restart; a reload does for every other.
#
# Durations are a whole number and us, ms, s, m, h or d (\"15s\", \"500ms\"); sizes are one and B,
# kB, MB, GB or TB (\"64kB\"). Files are looked for in this file's directory. `pooler check` prints
# what a file means.
";

const DEFAULTS: &str = "Defaults of every database; [databases.X] and [users.X] may set each of \
                        them again (user > database > here), unless it says which may not.";

fn render() -> String {
    let mut text = HEAD.to_owned();
    for (table, header, introduction, set) in SECTIONS {
        text.push_str(&format!("\n{header}\n{}", prose(introduction, "# ")));
        for key in keys::at_home(*table) {
            if key.name == "pool_mode" {
                text.push_str(&format!("\n{}", prose(DEFAULTS, "# ")));
            }
            text.push('\n');
            text.push_str(&render_key(key, set));
        }
        if !set.is_empty() && !set.starts_with("hosts") {
            text.push_str(&format!("\n{set}"));
        }
    }
    text
}

fn render_key(key: &Key, set: &str) -> String {
    let mut text = prose(&documentation(key), "# ");
    match key.preset {
        Preset::Is(default) => text.push_str(&format!("#{} = {default}\n", key.name)),
        Preset::Required | Preset::Unset => {
            for key in keys::at_home(Table::Host) {
                let default = match key.preset {
                    Preset::Is(default) => format!(" = {default}"),
                    _ => String::new(),
                };
                let item = format!("{}{default}: {}", key.name, documentation(key));
                text.push_str(&prose(&item, "#   "));
            }
            text.push_str(set);
        }
    }
    text
}

/// The sentences of a row and the brackets behind them.
fn documentation(key: &Key) -> String {
    let mut facts = vec![key.kind.unit()];
    if matches!(key.preset, Preset::Required) {
        facts.push("must be set".to_owned());
    }
    match key.again {
        [Table::Database] => facts.push("not in [users.X]".to_owned()),
        [Table::User] => facts.push("not in [databases.X]".to_owned()),
        _ => {}
    }
    if key.restart.is_some() {
        facts.push("needs a restart".to_owned());
    }
    format!("{} [{}]", key.doc, facts.join("; "))
}

/// Text in lines of `WIDTH`, each behind `prefix`.
fn prose(text: &str, prefix: &str) -> String {
    let mut lines = String::new();
    let mut line = prefix.to_owned();
    for word in text.split(' ') {
        if line.len() + word.len() > WIDTH && line != prefix {
            lines.push_str(&format!("{}\n", line.trim_end()));
            line = prefix.to_owned();
        }
        line.push_str(word);
        line.push(' ');
    }
    format!("{lines}{}\n", line.trim_end())
}

/// The example with every key that is commented out at work.
fn uncommented(text: &str) -> String {
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => key,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_what_the_table_says() {
    let expected = render();
    if std::env::var_os("POOLER_WRITE_EXAMPLE").is_some() {
        std::fs::write(FILE, &expected).expect("the example can be written");
    }
    let found = std::fs::read_to_string(FILE).expect("the example is there");
    for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(
            found,
            expected,
            "line {}: set POOLER_WRITE_EXAMPLE to write it",
            number + 1
        );
    }
    assert_eq!(found, expected);
}

#[test]
fn the_example_documents_every_key_and_parses() {
    let text = std::fs::read_to_string(FILE).expect("the example is there");
    for key in super::table::KEYS {
        assert!(text.contains(key.name), "{}", key.name);
        assert!(key.doc.ends_with('.'), "{}", key.name);
        if let Preset::Is(default) = key.preset
            && !key.stands_in(Table::Host)
        {
            assert!(
                text.contains(&format!("\n#{} = {default}\n", key.name)),
                "{}",
                key.name
            );
        }
    }
    for text in [text.clone(), uncommented(&text)] {
        let config = Config::parse(&text, Path::new("pooler.example.toml"));
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        for shown in config.show() {
            assert_eq!(shown.value, shown.default, "{}", shown.key);
        }
        assert_eq!(config.pool_settings("app", "report").pool_size, 5);
        assert_eq!(config.clusters["main"].hosts.len(), 3);
        let warnings: Vec<_> = config.warnings.iter().map(|w| w.split_once(": ")).collect();
        assert_eq!(warnings.len(), 1, "{:?}", config.warnings);
    }
}

/// Whatever an editor's slip makes of the example, reading it ends with an answer.
#[test]
fn no_text_makes_parsing_panic() {
    let text = std::fs::read_to_string(FILE).expect("the example is there");
    let lines: Vec<String> = uncommented(&text)
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(str::to_owned)
        .collect();
    let (mut accepted, mut refused) = (0, 0);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..1_000 {
        let mut mutated = lines.clone();
        for _ in 0..=random.below(3) {
            mutate(&mut mutated, &mut random);
        }
        let text = mutated.join("\n");
        match Config::parse(&text, Path::new("pooler.toml")) {
            Ok(config) => {
                accepted += 1;
                assert!(
                    config.pool_settings("app", "report").pool_size > 0,
                    "round {round}"
                );
                assert!(!crate::check::describe(&config).is_empty(), "round {round}");
                config.databases.values().for_each(|database| {
                    assert!(!config.cluster(database).hosts.is_empty(), "round {round}");
                });
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("pooler.toml:"), "round {round}");
            }
        }
    }
    assert!(
        accepted > 50 && refused > 50,
        "{accepted} accepted, {refused} refused"
    );
}

const PIECES: &[&str] = &[
    "",
    "\"",
    "[",
    "]",
    "{",
    "}",
    "=",
    ",",
    "#",
    "0",
    "-1",
    "99999999999999999999",
    "1e400",
    "\"0\"",
    "\"15s\"",
    "\"9999999999d\"",
    "true",
    "[[\"a\"]]",
    "[pooler]",
    "[clusters.main]",
    "[databases]",
    "[users.\"\\u0000\"]",
    "1979-05-27",
    "''",
    "\u{1f418}",
    "a.b.c = 1",
    "hosts = [{}]",
    "0xFF",
];

fn mutate(lines: &mut Vec<String>, random: &mut Random) {
    let at = random.below(lines.len());
    let other = random.below(lines.len());
    let piece = PIECES[random.below(PIECES.len())];
    match random.below(6) {
        0 => drop(lines.remove(at)),
        1 => lines.swap(at, other),
        2 => lines.insert(at, lines[other].clone()),
        3 => {
            let name = lines[at].split('=').next().unwrap_or_default();
            lines[at] = format!("{name}= {piece}");
        }
        4 => {
            let middle = random.below(lines[at].len() + 1);
            let middle = lines[at].floor_char_boundary(middle);
            lines[at].insert_str(middle, piece);
        }
        _ => {
            let middle = random.below(lines[at].len() + 1);
            let middle = lines[at].floor_char_boundary(middle);
            lines[at].truncate(middle);
        }
    }
}

/// Xorshift: the same numbers in every run.
struct Random(u64);

impl Random {
    /// A number below `end`; 0 if that is 0.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end.max(1)
    }
}
