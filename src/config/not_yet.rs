//! Keys whose feature is not built yet. Whoever builds a feature deletes its rows.
//!
//! At its default such a key is silent. Otherwise it is a warning. A feature whose absence would leave a
//! door open that the operator believes closed has no key before it is built.

use super::error::Problems;
use super::keys::{self, Table};
use super::reader::Document;
use super::section::Section;
use super::value::Value;

/// A key, or some of its values, without effect.
struct NotYet {
    tables: &'static [Table],
    key: &'static str,
    /// Which words; empty: every value but the default.
    values: &'static [&'static str],
    /// What happens instead.
    instead: &'static str,
}

const TRACING: &[Table] = &[Table::Tracing];

const NOT_YET: &[NotYet] = &[row(TRACING, "otlp_endpoint", &[], "no spans are sent")];

const fn row(
    tables: &'static [Table],
    key: &'static str,
    values: &'static [&'static str],
    instead: &'static str,
) -> NotYet {
    NotYet {
        tables,
        key,
        values,
        instead,
    }
}

/// Reports every key of the document that has no effect yet.
pub(crate) fn report(document: &Document, problems: &mut Problems) {
    for section in document.sections() {
        report_section(section, problems);
        for host in section
            .entries
            .values()
            .filter_map(|entry| match &entry.value {
                Value::Tables(hosts) => Some(hosts),
                _ => None,
            })
        {
            host.iter().for_each(|host| report_section(host, problems));
        }
    }
}

fn report_section(section: &Section, problems: &mut Problems) {
    for row in NOT_YET.iter().filter(|row| row.applies(section)) {
        let (line, place) = (section.line_of(row.key), section.place(row.key));
        problems.warn(line, place, format!("not in effect yet: {}", row.instead));
    }
}

impl NotYet {
    fn applies(&self, section: &Section) -> bool {
        if !self.tables.contains(&section.table) || !section.sets(self.key) {
            return false;
        }
        let Some(entry) = section.entries.get(self.key) else {
            return false;
        };
        match entry.value {
            Value::Word(word) if !self.values.is_empty() => self.values.contains(&word),
            _ => keys::find(section.table, self.key)
                .is_some_and(|key| key.default_value() != entry.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::Preset;

    #[test]
    fn every_row_names_a_key_with_a_default() {
        for row in NOT_YET {
            for table in row.tables {
                let key = keys::find(*table, row.key).expect(row.key);
                assert!(matches!(key.preset, Preset::Is(_)), "{}", row.key);
                let default = key.default_value().show();
                assert!(!row.values.contains(&default.as_str()), "{}", row.key);
            }
        }
    }
}
