//! What SHOW CONFIG shows, and what a reload cannot change.

use super::Config;
use super::keys::{self, Table};
use super::section::Section;
use super::table::KEYS;

/// One line of SHOW CONFIG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownKey {
    /// `pool_size`; outside of `[pooler]` with its table: `auth.type`.
    pub key: String,
    /// As an operator would write it, lists separated by commas.
    pub value: String,
    /// What holds when it is not set.
    pub default: String,
    /// Whether a reload can change it.
    pub changeable: bool,
    /// Where the value comes from: `default`, `pooler.toml:7`, or `SET`.
    pub source: String,
    /// The unit, or the words to choose from, and what 0 or an empty text means.
    pub unit: String,
    /// What it does and why one would change it.
    pub doc: &'static str,
}

impl Config {
    /// Every key of the tables that stand in the file once, in the order of the documentation.
    pub fn show(&self) -> Vec<ShownKey> {
        let sections = self.single_sections.iter();
        sections
            .flat_map(|section| self.show_section(section))
            .collect()
    }

    /// The keys that differ in `new` and that a reload cannot change, by the name of `show`.
    pub fn restart_needed(&self, new: &Config) -> Vec<&'static str> {
        let pairs = self.single_sections.iter().zip(&new.single_sections);
        pairs.flat_map(|(old, new)| changed(old, new)).collect()
    }

    /// What `[databases.X]` sets again of the pool settings, as name and value.
    pub(crate) fn set_by_database(&self, name: &str) -> Vec<(&'static str, String)> {
        self.database_sections
            .get(name)
            .map(set_again)
            .unwrap_or_default()
    }

    /// What `[users.X]` sets again of the pool settings, as name and value.
    pub(crate) fn set_by_user(&self, name: &str) -> Vec<(&'static str, String)> {
        self.user_sections
            .get(name)
            .map(set_again)
            .unwrap_or_default()
    }

    fn show_section(&self, section: &Section) -> Vec<ShownKey> {
        let prefix = match section.table {
            Table::Pooler => String::new(),
            _ => format!("{}.", section.title.trim_matches(['[', ']'])),
        };
        keys::at_home(section.table)
            .map(|key| ShownKey {
                key: format!("{prefix}{}", key.name),
                value: section
                    .entries
                    .get(key.name)
                    .map(|e| e.value.show())
                    .unwrap_or_default(),
                default: key.default_value().show(),
                changeable: key.restart.is_none(),
                source: self.source(section, key.name),
                unit: key.kind.unit(),
                doc: key.doc,
            })
            .collect()
    }

    fn source(&self, section: &Section, key: &'static str) -> String {
        if section.table == Table::Pooler && self.assigned.contains(key) {
            return "SET".to_owned();
        }
        match section.entries.get(key).and_then(|entry| entry.line) {
            Some(line) => {
                let file = self.path.file_name().unwrap_or_default();
                format!("{}:{line}", file.to_string_lossy())
            }
            None => "default".to_owned(),
        }
    }
}

fn set_again(section: &Section) -> Vec<(&'static str, String)> {
    let again = KEYS.iter().filter(|key| key.again.contains(&section.table));
    let set = again.filter(|key| section.sets(key.name));
    set.map(|key| (key.name, section.entries[key.name].value.show()))
        .collect()
}

fn changed(old: &Section, new: &Section) -> Vec<&'static str> {
    let value = |section: &Section, name: &str| section.entries.get(name).map(|e| e.value.clone());
    keys::at_home(old.table)
        .filter(|key| value(old, key.name) != value(new, key.name))
        .filter_map(|key| key.restart)
        .collect()
}
