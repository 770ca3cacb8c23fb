//! A table of the file after its keys were checked against the table of keys, and typed reading
//! from it.
//!
//! `Values` looks through several sections, the most specific first; that is all there is to
//! "user > database > [pooler]". Asking for a key that has no row, or as another kind than its row
//! says, is a bug; a test reads every struct from an empty file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use pooler_protocol::naming::Template;

use super::keys::Table;
use super::types::Limit;
use super::value::{Address, SecretText, Value};

/// One table of the file. At home, keys that were not set hold their default.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Section {
    pub(crate) table: Table,
    /// As it stands in the file: `[databases.app]`.
    pub(crate) title: String,
    /// Where it begins; none if it is not in the file.
    pub(crate) line: Option<usize>,
    pub(crate) entries: BTreeMap<&'static str, Entry>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    /// None: the default.
    pub(crate) line: Option<usize>,
}

impl Section {
    /// `[pooler] listen`
    pub(crate) fn place(&self, key: &str) -> String {
        match self.table {
            Table::Host => format!("{}.{key}", self.title),
            _ => format!("{} {key}", self.title),
        }
    }

    /// Where the key stands, or else the table.
    pub(crate) fn line_of(&self, key: &str) -> Option<usize> {
        self.entries
            .get(key)
            .and_then(|entry| entry.line)
            .or(self.line)
    }

    /// Whether the file sets the key, rather than the default.
    pub(crate) fn sets(&self, key: &str) -> bool {
        self.entries
            .get(key)
            .is_some_and(|entry| entry.line.is_some())
    }

    /// The values of this section alone.
    pub(crate) fn values(&self) -> Values<'_> {
        Values {
            layers: [Some(self), None, None],
        }
    }

    /// Drops every secret, for a section that is kept.
    pub(crate) fn forget_secrets(&mut self) {
        self.entries
            .retain(|_, entry| !matches!(entry.value, Value::Secret(_)));
    }
}

/// Typed reading from sections, the most specific first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values<'a> {
    pub(crate) layers: [Option<&'a Section>; 3],
}

impl<'a> Values<'a> {
    fn value(&self, key: &str) -> Option<&'a Value> {
        let mut layers = self.layers.iter().flatten();
        layers
            .find_map(|section| section.entries.get(key))
            .map(|entry| &entry.value)
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        match self.value(key) {
            Some(Value::Flag(flag)) => *flag,
            other => bug(key, "a flag", other),
        }
    }

    pub(crate) fn count(&self, key: &str) -> usize {
        match self.value(key) {
            Some(Value::Count(count)) => usize::try_from(*count).unwrap_or(usize::MAX),
            other => bug(key, "a count", other),
        }
    }

    pub(crate) fn limit(&self, key: &str) -> Limit {
        Limit::new(self.count(key))
    }

    pub(crate) fn duration(&self, key: &str) -> Duration {
        match self.value(key) {
            Some(Value::Duration(duration)) => *duration,
            other => bug(key, "a duration", other),
        }
    }

    /// A duration of which 0 means that the time never comes.
    pub(crate) fn timeout(&self, key: &str) -> Option<Duration> {
        Some(self.duration(key)).filter(|duration| !duration.is_zero())
    }

    pub(crate) fn slow_query(&self, key: &str) -> Option<Duration> {
        match self.value(key) {
            Some(Value::SlowQuery(duration)) => *duration,
            other => bug(key, "a duration or off", other),
        }
    }

    pub(crate) fn ratio(&self, key: &str) -> f64 {
        match self.value(key) {
            Some(Value::Ratio(ratio)) => *ratio,
            other => bug(key, "a ratio", other),
        }
    }

    pub(crate) fn size(&self, key: &str) -> u64 {
        match self.value(key) {
            Some(Value::Size(bytes)) => *bytes,
            other => bug(key, "a size", other),
        }
    }

    pub(crate) fn file_mode(&self, key: &str) -> u32 {
        match self.value(key) {
            Some(Value::FileMode(mode)) => *mode,
            other => bug(key, "a file mode", other),
        }
    }

    pub(crate) fn text(&self, key: &str) -> &'a str {
        match self.value(key) {
            Some(Value::Text(text)) => text,
            other => bug(key, "a text", other),
        }
    }

    /// A text of which the empty one means that there is none.
    pub(crate) fn optional_text(&self, key: &str) -> Option<String> {
        Some(self.text(key))
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }

    /// A file, relative to `directory`.
    pub(crate) fn file(&self, key: &str, directory: &Path) -> Option<PathBuf> {
        self.optional_text(key).map(|file| directory.join(file))
    }

    pub(crate) fn secret(&self, key: &str) -> Option<&'a SecretText> {
        match self.value(key) {
            Some(Value::Secret(secret)) => Some(secret).filter(|secret| !secret.0.is_empty()),
            other => bug(key, "a secret", other),
        }
    }

    pub(crate) fn template(&self, key: &str) -> &'a Template {
        match self.value(key) {
            Some(Value::Template(template)) => template,
            other => bug(key, "a template", other),
        }
    }

    pub(crate) fn headers(&self, key: &str) -> Vec<(HeaderName, HeaderValue)> {
        match self.value(key) {
            Some(Value::Headers(headers)) => headers.clone(),
            other => bug(key, "headers", other),
        }
    }

    pub(crate) fn names(&self, key: &str) -> &'a [String] {
        match self.value(key) {
            Some(Value::Names(names)) => names,
            other => bug(key, "names", other),
        }
    }

    pub(crate) fn addresses(&self, key: &str) -> &'a [Address] {
        match self.value(key) {
            Some(Value::Addresses(addresses)) => addresses,
            other => bug(key, "addresses", other),
        }
    }

    pub(crate) fn address(&self, key: &str) -> Option<std::net::SocketAddr> {
        match self.value(key) {
            Some(Value::Address(address)) => *address,
            other => bug(key, "an address", other),
        }
    }

    /// A word as its enum; `parse` is the enum's `from_word`.
    pub(crate) fn word<T>(&self, key: &str, parse: fn(&str) -> Option<T>) -> T {
        match self.optional_word(key, parse) {
            Some(word) => word,
            None => bug(key, "a word", self.value(key)),
        }
    }

    /// A word that need not be set.
    pub(crate) fn optional_word<T>(&self, key: &str, parse: fn(&str) -> Option<T>) -> Option<T> {
        match self.value(key) {
            Some(Value::Word(word)) => parse(word),
            _ => None,
        }
    }

    pub(crate) fn words<T>(&self, key: &str, parse: fn(&str) -> Option<T>) -> Vec<T> {
        match self.value(key) {
            Some(Value::Words(words)) => words.iter().filter_map(|word| parse(word)).collect(),
            other => bug(key, "words", other),
        }
    }

    /// The sections of a list of tables; none if it was missing or wrong, which was reported.
    pub(crate) fn tables(&self, key: &str) -> &'a [Section] {
        match self.value(key) {
            Some(Value::Tables(sections)) => sections,
            _ => &[],
        }
    }
}

/// The table of keys and the code that reads it disagree.
fn bug(key: &str, expected: &str, found: Option<&Value>) -> ! {
    panic!("BUG: the key {key} is read as {expected}, and its row gives {found:?}")
}
