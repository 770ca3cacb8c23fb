//! From the text of a file to sections: TOML, known tables, known keys, values of the right form.
//!
//! Nothing here stops at the first problem. A key whose value is wrong is reported and holds its
//! default from then on, so that what comes after can go on looking for more.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::Problems;
use super::keys::{self, Key, Kind, Preset, Table};
use super::section::{Entry, Section};
use super::value::Value;

/// The whole file, each table where it belongs.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) pooler: Section,
    pub(crate) clusters: BTreeMap<String, Section>,
    pub(crate) databases: BTreeMap<String, Section>,
    pub(crate) users: BTreeMap<String, Section>,
    pub(crate) auth: Section,
    pub(crate) tls_client: Section,
    pub(crate) tls_server: Section,
    pub(crate) metrics: Section,
    pub(crate) log: Section,
    pub(crate) tracing: Section,
}

impl Document {
    /// Every section, hosts not included.
    pub(crate) fn sections(&self) -> impl Iterator<Item = &Section> {
        [&self.pooler]
            .into_iter()
            .chain(self.clusters.values())
            .chain(self.databases.values())
            .chain(self.users.values())
            .chain(self.single_sections().skip(1))
    }

    /// The sections that stand in a file once: those of SHOW CONFIG.
    pub(crate) fn single_sections(&self) -> impl Iterator<Item = &Section> {
        [
            &self.pooler,
            &self.auth,
            &self.tls_client,
            &self.tls_server,
            &self.metrics,
            &self.log,
            &self.tracing,
        ]
        .into_iter()
    }
}

/// Reads a file; none if it is not TOML, because what follows a syntax error is guesswork. Other
/// problems are collected, and the document is whole whatever they are.
pub(crate) fn read(text: &str, problems: &mut Problems) -> Option<Document> {
    let (root, syntax_errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        lines: Lines::new(text),
        problems,
    };
    for error in &syntax_errors {
        let line = error.span().map(|span| reader.lines.line(span.start));
        reader.problems.error(
            line,
            "",
            format!("not TOML: {}", error.message().replace('\n', "; ")),
        );
    }
    if !syntax_errors.is_empty() {
        return None;
    }
    let (root, empty) = (root.get_ref(), DeTable::new());
    reader.check_names(root, TABLES, "");
    let tls = reader.table_at(root, "tls");
    if let Some((table, _)) = tls {
        reader.check_names(table, &["client", "server"], "tls.");
    }
    let tls = tls.map_or(&empty, |(table, _)| table);
    Some(Document {
        pooler: reader.single(root, "pooler", Table::Pooler, "[pooler]"),
        clusters: reader.named(root, "clusters", Table::Cluster),
        databases: reader.named(root, "databases", Table::Database),
        users: reader.named(root, "users", Table::User),
        auth: reader.single(root, "auth", Table::Auth, "[auth]"),
        tls_client: reader.single(tls, "client", Table::TlsClient, "[tls.client]"),
        tls_server: reader.single(tls, "server", Table::TlsServer, "[tls.server]"),
        metrics: reader.single(root, "metrics", Table::Metrics, "[metrics]"),
        log: reader.single(root, "log", Table::Log, "[log]"),
        tracing: reader.single(root, "tracing", Table::Tracing, "[tracing]"),
    })
}

/// The tables that may stand at the top of a file.
const TABLES: &[&str] = &[
    "pooler",
    "clusters",
    "databases",
    "users",
    "auth",
    "tls",
    "metrics",
    "log",
    "tracing",
];

struct Reader<'a> {
    lines: Lines,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    /// Reports what is in `table` and not among `known`.
    fn check_names(&mut self, table: &DeTable<'_>, known: &[&str], prefix: &str) {
        for (name, value) in table {
            let text = name.get_ref().as_ref();
            if known.contains(&text) {
                continue;
            }
            let what = if value.get_ref().is_table() {
                "table"
            } else {
                "key"
            };
            let mut message = keys::unknown("table", text, known.iter().copied());
            if what == "key" {
                message =
                    "stands outside of every table; put it below one, such as [pooler]".into();
            }
            let line = self.line(name);
            self.problems
                .error(line, format!("{prefix}{text}"), message);
        }
    }

    /// The table `name` of `parent` and its line, if it is there and a table.
    fn table_at<'t, 'i>(
        &mut self,
        parent: &'t DeTable<'i>,
        name: &str,
    ) -> Option<(&'t DeTable<'i>, Option<usize>)> {
        let (key, value) = parent.get_key_value(name)?;
        let line = self.line(key);
        match value.get_ref().as_table() {
            Some(table) => Some((table, line)),
            None => {
                self.problems
                    .error(line, name, format!("is a table: write [{name}]"));
                None
            }
        }
    }

    /// A table that stands in a file once; its defaults if it is not there.
    fn single(&mut self, parent: &DeTable<'_>, name: &str, table: Table, title: &str) -> Section {
        let empty = DeTable::new();
        let (keys, line) = self.table_at(parent, name).unwrap_or((&empty, None));
        self.section(table, title.to_owned(), line, keys)
    }

    /// The tables `[name.X]`, by X.
    fn named(&mut self, root: &DeTable<'_>, name: &str, table: Table) -> BTreeMap<String, Section> {
        let mut sections = BTreeMap::new();
        let Some((tables, _)) = self.table_at(root, name) else {
            return sections;
        };
        for (key, value) in tables {
            let line = self.line(key);
            let title = format!("[{name}.{}]", bare_or_quoted(key.get_ref()));
            match value.get_ref().as_table() {
                None => self.problems.error(line, title, "is a table, not a value"),
                Some(_) if key.get_ref().is_empty() => {
                    self.problems
                        .error(line, title, "has an empty name; name it");
                }
                Some(keys) => {
                    let section = self.section(table, title, line, keys);
                    sections.insert(key.get_ref().to_string(), section);
                }
            }
        }
        sections
    }

    /// Checks every key of one table, and adds the defaults of those that are not set.
    fn section(
        &mut self,
        table: Table,
        title: String,
        line: Option<usize>,
        keys: &DeTable<'_>,
    ) -> Section {
        let mut section = Section {
            table,
            title,
            line,
            entries: BTreeMap::new(),
        };
        for (name, value) in keys {
            let text = name.get_ref().as_ref();
            let line = self.line(name);
            let Some(key) = keys::find(table, text) else {
                let message = keys::explain_unknown(table, text);
                self.problems.error(line, section.place(text), message);
                continue;
            };
            if let Some(value) = self.value(key, value, line, &section) {
                section.entries.insert(key.name, Entry { value, line });
            }
        }
        for key in keys::at_home(table) {
            self.add_default(&mut section, key, keys);
        }
        section
    }

    fn value(
        &mut self,
        key: &Key,
        value: &Spanned<DeValue<'_>>,
        line: Option<usize>,
        section: &Section,
    ) -> Option<Value> {
        if let Kind::Tables(table) = key.kind
            && value.get_ref().is_array()
        {
            return Some(Value::Tables(self.tables(key, table, value, section)));
        }
        match Value::parse(key.kind, value.get_ref()) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problems.error(line, section.place(key.name), message);
                None
            }
        }
    }

    /// The elements of a list of tables.
    fn tables(
        &mut self,
        key: &Key,
        table: Table,
        list: &Spanned<DeValue<'_>>,
        section: &Section,
    ) -> Vec<Section> {
        let mut sections = Vec::new();
        for (index, element) in list.get_ref().as_array().into_iter().flatten().enumerate() {
            let title = format!("{} {}[{index}]", section.title, key.name);
            let line = Some(self.lines.line(element.span().start));
            match element.get_ref().as_table() {
                Some(keys) => sections.push(self.section(table, title, line, keys)),
                None => self
                    .problems
                    .error(line, title, "is a table: write { host = \"...\" }"),
            }
        }
        sections
    }

    fn add_default(&mut self, section: &mut Section, key: &'static Key, keys: &DeTable<'_>) {
        if section.entries.contains_key(key.name) {
            return;
        }
        match key.preset {
            Preset::Is(_) => {
                let value = key.default_value();
                section
                    .entries
                    .insert(key.name, Entry { value, line: None });
            }
            Preset::Required if !keys.contains_key(key.name) => {
                let place = section.place(key.name);
                self.problems
                    .error(section.line, place, "is missing; it has no default");
            }
            Preset::Required | Preset::Unset => {}
        }
    }

    fn line(&self, name: &Spanned<DeString<'_>>) -> Option<usize> {
        Some(self.lines.line(name.span().start))
    }
}

impl Key {
    /// The default, which a row has as the TOML that an operator would write.
    pub(crate) fn default_value(&self) -> Value {
        let Preset::Is(text) = self.preset else {
            panic!("BUG: {} has no default", self.name);
        };
        let parsed = DeValue::parse(text).expect("BUG: the default of a row is TOML");
        Value::parse(self.kind, parsed.get_ref()).expect("BUG: the default of a row is of its kind")
    }
}

/// A name as it stands in the header of a table.
fn bare_or_quoted(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match !name.is_empty() && name.chars().all(bare) {
        true => name.to_owned(),
        false => format!("{name:?}"),
    }
}

/// Where each line of the text begins.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Lines {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Lines(
            [0].into_iter()
                .chain(newlines.map(|(at, _)| at + 1))
                .collect(),
        )
    }

    /// The line of a byte, counted from 1.
    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}
