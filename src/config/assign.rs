//! A setting that is changed while the pooler runs, and what differs between two configurations.

use std::collections::{BTreeMap, BTreeSet};

use pooler_protocol::auth::Secret;

use super::Config;
use super::build;
use super::keys::{self, Table};
use super::section::{Entry, Section};
use super::value::Value;

/// Why a setting cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignError {
    /// Five characters.
    pub sqlstate: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

fn wrong(sqlstate: &'static str, message: String) -> AssignError {
    AssignError { sqlstate, message }
}

impl Config {
    /// The same with `key` of `[pooler]` set to what `text` says, until the file is read again.
    ///
    /// # Errors
    /// If there is no such key, it cannot change at run time, or the value is wrong.
    pub fn with(&self, key: &str, text: &str) -> Result<Config, AssignError> {
        let Some(row) = keys::find(Table::Pooler, key) else {
            let elsewhere = self.show().into_iter().any(|shown| shown.key == key);
            return Err(if elsewhere {
                let how = "cannot be changed by SET; change the file and RELOAD";
                wrong("55P02", format!("{key} {how}"))
            } else {
                let how = keys::explain_unknown(Table::Pooler, key);
                wrong("42704", format!("{key}: {how}"))
            });
        };
        if row.restart.is_some() {
            let how = "cannot be changed without a restart";
            return Err(wrong("55P02", format!("{key} {how}")));
        }
        let value = Value::parse_text(row.kind, text)
            .map_err(|why| wrong("22023", format!("{key}: {why}")))?;
        let mut config = self.clone();
        let pooler = config.single_sections.first_mut();
        let pooler = pooler.expect("BUG: a configuration without [pooler]");
        pooler.entries.insert(row.name, Entry { value, line: None });
        config.pooler = build::pooler(pooler);
        config.assigned.insert(row.name);
        config.warnings.clear();
        Ok(config)
    }

    /// What is different in `new`, a line each: keys with both values, and tables.
    pub fn changes(&self, new: &Config) -> Vec<String> {
        let single = self.single_sections.iter().zip(&new.single_sections);
        let mut changes: Vec<String> = single.flat_map(|(a, b)| values(a, b)).collect();
        let same_database = |name: &String| {
            let (old, new_one) = (&self.databases[name], &new.databases[name]);
            is_same(&self.database_sections[name], &new.database_sections[name])
                && is_same_secret(old.password.as_ref(), new_one.password.as_ref())
                && is_same_secret(old.second.as_ref(), new_one.second.as_ref())
        };
        let same_user = |name: &String| {
            let (old, new) = (&self.users[name], &new.users[name]);
            is_same_secret(old.password.as_ref(), new.password.as_ref())
                && is_same_secret(old.second.as_ref(), new.second.as_ref())
        };
        let same_section =
            |name: &String| is_same(&self.user_sections[name], &new.user_sections[name]);
        changes.extend(tables("clusters", &self.clusters, &new.clusters, |name| {
            self.clusters[name] == new.clusters[name]
        }));
        changes.extend(tables(
            "databases",
            &self.databases,
            &new.databases,
            same_database,
        ));
        changes.extend(tables("users", &self.users, &new.users, |name| {
            same_user(name) && same_section(name)
        }));
        let same_list = self.userlist.len() == new.userlist.len()
            && self
                .userlist
                .iter()
                .zip(&new.userlist)
                .all(|(a, b)| a.0 == b.0 && is_same_secret(a.1.as_ref(), b.1.as_ref()));
        if !same_list {
            changes.push("users of auth.file".to_owned());
        }
        changes
    }
}

fn values(old: &Section, new: &Section) -> Vec<String> {
    let prefix = match old.table {
        Table::Pooler => String::new(),
        _ => format!("{}.", old.title.trim_matches(['[', ']'])),
    };
    let value = |section: &Section, name: &str| section.entries.get(name).map(|e| e.value.show());
    keys::at_home(old.table)
        .map(|key| (key.name, value(old, key.name), value(new, key.name)))
        .filter(|(_, old, new)| old != new)
        .map(|(name, old, new)| {
            let shown = |value: Option<String>| format!("{:?}", value.unwrap_or_default());
            format!("{prefix}{name}: {} -> {}", shown(old), shown(new))
        })
        .collect()
}

fn is_same_secret(old: Option<&Secret>, new: Option<&Secret>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => old.is_same(new),
        (None, None) => true,
        _ => false,
    }
}

/// Whether two tables say the same, wherever they stand.
fn is_same(old: &Section, new: &Section) -> bool {
    let values = |section: &Section| -> Vec<(&'static str, Value)> {
        let entries = section.entries.iter();
        entries
            .map(|(name, entry)| (*name, entry.value.clone()))
            .collect()
    };
    values(old) == values(new)
}

fn tables<T>(
    what: &str,
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    is_same: impl Fn(&String) -> bool,
) -> Vec<String> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let change = |name: &String| match (old.contains_key(name), new.contains_key(name)) {
        (false, _) => Some("added"),
        (true, false) => Some("removed"),
        (true, true) => (!is_same(name)).then_some("changed"),
    };
    let line = |name: &String| Some(format!("[{what}.{name}] {}", change(name)?));
    names.into_iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(more: &str) -> Config {
        let text = format!("[clusters.c]\nhosts = [{{ host = \"h\" }}]\n[databases.d]\n{more}");
        Config::parse(&text, Path::new("pooler.toml")).expect("a configuration")
    }

    #[test]
    fn a_setting_is_changed_until_the_next_reload() {
        let old = config("");
        let new = old.with("pool_size", "7").expect("a number");
        assert_eq!(new.pool_settings("d", "u").pool_size, 7);
        let new = new.with("query_timeout", "5s").expect("a duration");
        let new = new.with("admin_users", "a, b").expect("names");
        assert_eq!(new.pooler.admin_users, ["a", "b"]);
        let shown = new.show();
        let source = |key: &str| {
            let found = shown.iter().find(|s| s.key == key);
            found.map(|s| (s.value.as_str(), s.source.as_str()))
        };
        assert_eq!(source("pool_size"), Some(("7", "SET")));
        assert_eq!(source("query_timeout"), Some(("5s", "SET")));
        assert_eq!(source("min_pool_size"), Some(("0", "default")));
        assert_eq!(
            old.changes(&new),
            [
                "admin_users: \"\" -> \"a, b\"",
                "pool_size: \"20\" -> \"7\"",
                "query_timeout: \"0\" -> \"5s\""
            ]
        );
    }

    #[test]
    fn what_cannot_be_changed_says_why() {
        let config = config("");
        for (key, value, sqlstate) in [
            ("listen", "127.0.0.1:1", "55P02"),
            ("log.level", "debug", "55P02"),
            ("pool_sise", "1", "42704"),
            ("pool_size", "many", "22023"),
            ("pool_size", "0", "22023"),
            ("query_timeout", "5", "22023"),
            ("pool_mode", "magic", "22023"),
            ("keep_sequences", "maybe", "22023"),
        ] {
            let error = config.with(key, value).expect_err(key);
            assert_eq!(
                error.sqlstate, sqlstate,
                "{key} = {value}: {}",
                error.message
            );
        }
    }

    #[test]
    fn t63_changes_never_show_a_secret() {
        let old = config("[users.u]\npassword = \"old-secret\"\n[users.gone]\n");
        let new = config("[users.u]\npassword = \"new-secret\"\n[users.new]\npool_size = 1\n");
        let changes = old.changes(&new);
        assert_eq!(
            changes,
            [
                "[users.gone] removed",
                "[users.new] added",
                "[users.u] changed"
            ]
        );
        assert_eq!(new.changes(&new), [""; 0]);
    }
}
