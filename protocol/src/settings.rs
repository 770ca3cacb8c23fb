//! Session settings: immutable sets of them, and the difference between two.
//!
//! Equal sets are one pointer ([`SettingsInterner`]), so that "does this server have this client's
//! settings?" is a comparison of two addresses. Values are in the server's canonical form: the one
//! that it reports, never the client's spelling of it (trap 30).

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use crate::route::{TRACEPARENT_SETTING, TraceParent};

/// Session settings that differ from what the server connection was born with, ordered by name.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Settings {
    entries: Vec<(Box<str>, Box<str>)>,
    /// What [`TRACEPARENT_SETTING`] says, read once.
    caller: Option<TraceParent>,
}

impl Settings {
    /// The settings of `pairs`; the last of equal names counts. Names are compared without case, as
    /// PostgreSQL does.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut settings = Self::default();
        for (name, value) in pairs {
            settings.put(name, Some(value));
        }
        settings
    }

    /// A copy in which `name` is `value`, or is back at its default for `None`.
    #[must_use]
    pub fn with(&self, name: &str, value: Option<&str>) -> Self {
        let mut copy = Self {
            entries: self.entries.clone(),
            caller: self.caller,
        };
        copy.put(name, value);
        copy
    }

    /// The value of `name`, if it is set.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        self.position(name).ok().map(|at| &*self.entries[at].1)
    }

    /// The caller that the session names for all its statements.
    #[inline]
    #[must_use]
    pub fn caller(&self) -> Option<&TraceParent> {
        self.caller.as_ref()
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names and values, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(n, v)| (&**n, &**v))
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.entries
            .binary_search_by(|(n, _)| caseless(n).cmp(caseless(name)))
    }

    fn put(&mut self, name: &str, value: Option<&str>) {
        if name.eq_ignore_ascii_case(TRACEPARENT_SETTING) {
            self.caller = value.and_then(|value| TraceParent::parse(value.as_bytes()));
        }
        match (self.position(name), value) {
            (Ok(at), Some(value)) => self.entries[at].1 = value.into(),
            (Ok(at), None) => {
                self.entries.remove(at);
            }
            (Err(at), Some(value)) => self.entries.insert(at, (name.into(), value.into())),
            (Err(_), None) => {}
        }
    }

    /// The query that brings a session from these settings to `to`; `None` if they agree.
    ///
    /// `set_config` takes the value as one string, in the form in which the server shows it: that
    /// is right for lists (`search_path`) too, which SET would take for one quoted name.
    ///
    /// A session that has taken on another role gives it up first and takes the new one on last:
    /// what is set in between is set with the rights of the user who logged in. Setting
    /// `session_authorization` ends `role`, so it goes before that.
    #[must_use]
    pub fn query_to(&self, to: &Self) -> Option<String> {
        let changes = |name: &str| self.find(name) != to.find(name);
        let names = || self.iter().chain(to.iter()).map(|(name, _)| name);
        if !names().any(changes) {
            return None;
        }
        let mut sql = String::new();
        for name in IDENTITY.iter().rev() {
            if self.find(name).is_some() {
                push_set_config(&mut sql, name, None);
            }
        }
        for (name, value) in to.iter().filter(|(name, _)| !is_identity(name)) {
            if changes(name) {
                push_set_config(&mut sql, name, Some(value));
            }
        }
        for (name, _) in self.iter().filter(|(name, _)| !is_identity(name)) {
            if to.find(name).is_none() {
                push_set_config(&mut sql, name, None);
            }
        }
        for name in IDENTITY {
            if let Some(value) = to.find(name) {
                push_set_config(&mut sql, name, Some(value));
            }
        }
        Some(sql)
    }
}

/// The settings that say whose rights a session has, in the order in which they must be set.
const IDENTITY: [&str; 2] = ["session_authorization", "role"];

fn is_identity(name: &str) -> bool {
    IDENTITY.iter().any(|i| i.eq_ignore_ascii_case(name))
}

fn caseless(name: &str) -> impl Iterator<Item = u8> + '_ {
    name.bytes().map(|b| b.to_ascii_lowercase())
}

/// Appends a `set_config` of the session to a SELECT, and the SELECT itself if `sql` is empty.
pub fn push_set_config(sql: &mut String, name: &str, value: Option<&str>) {
    sql.push_str(if sql.is_empty() { "SELECT " } else { ", " });
    sql.push_str("pg_catalog.set_config(");
    sql.push_str(&quote(name));
    sql.push_str(", ");
    match value {
        Some(value) => sql.push_str(&quote(value)),
        None => sql.push_str("NULL"),
    }
    sql.push_str(", false)");
}

/// A string constant that means the same under every setting of `standard_conforming_strings`
/// and of `client_encoding` (trap 32).
#[must_use]
pub fn quote(value: &str) -> String {
    if value.is_ascii() {
        return postgres_protocol::escape::escape_literal(value);
    }
    let mut sql = String::from("pg_catalog.convert_from(pg_catalog.decode('");
    for byte in value.bytes() {
        let _infallible = write!(sql, "{byte:02x}");
    }
    sql.push_str("', 'hex'), 'UTF8')");
    sql
}

/// Keeps one copy of each set.
#[derive(Debug)]
pub struct SettingsInterner {
    /// In a tree: clients choose them, and a hash that they cannot make collide costs a login more than comparing.
    known: BTreeSet<Arc<Settings>>,
    empty: Arc<Settings>,
    sweep_at: usize,
}

impl Default for SettingsInterner {
    fn default() -> Self {
        let empty = Arc::new(Settings::default());
        Self {
            known: BTreeSet::from([Arc::clone(&empty)]),
            empty,
            sweep_at: 64,
        }
    }
}

impl SettingsInterner {
    /// The set in which nothing is set.
    #[must_use]
    pub fn empty(&self) -> Arc<Settings> {
        Arc::clone(&self.empty)
    }

    /// The one copy of `settings`.
    pub fn intern(&mut self, settings: Settings) -> Arc<Settings> {
        if let Some(known) = self.known.get(&settings) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|s| Arc::strong_count(s) > 1);
            self.sweep_at = (self.known.len() * 2).max(64);
        }
        let new = Arc::new(settings);
        self.known.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_one_pointer() {
        let mut i = SettingsInterner::default();
        let a = i.intern(Settings::from_pairs([("TimeZone", "UTC"), ("a", "1")]));
        let b = i.intern(Settings::from_pairs([("a", "1"), ("TimeZone", "UTC")]));
        assert!(Arc::ptr_eq(&a, &b));
        let back = i.intern(a.with("timezone", None).with("a", None));
        assert!(Arc::ptr_eq(&back, &i.empty()));
    }

    #[test]
    fn the_query_sets_what_differs_and_resets_what_is_gone() {
        let from = Settings::from_pairs([("DateStyle", "ISO, MDY"), ("x.gone", "1")]);
        let to = Settings::from_pairs([("datestyle", "ISO, MDY"), ("search_path", "a, \"B\"")]);
        assert_eq!(
            from.query_to(&to).expect("they differ"),
            "SELECT pg_catalog.set_config('search_path', 'a, \"B\"', false), \
             pg_catalog.set_config('x.gone', NULL, false)"
        );
        assert_eq!(to.query_to(&to), None);
    }

    #[test]
    fn t29_a_role_is_given_up_first_and_taken_on_last() {
        let from = Settings::from_pairs([("role", "r1"), ("a", "1")]);
        let to = Settings::from_pairs([("role", "r1"), ("session_authorization", "u"), ("z", "2")]);
        assert_eq!(
            from.query_to(&to).expect("they differ"),
            "SELECT pg_catalog.set_config('role', NULL, false), \
             pg_catalog.set_config('z', '2', false), \
             pg_catalog.set_config('a', NULL, false), \
             pg_catalog.set_config('session_authorization', 'u', false), \
             pg_catalog.set_config('role', 'r1', false)"
        );
        assert_eq!(from.query_to(&from), None);
    }

    #[test]
    fn t32_values_with_quotes_and_backslashes_stay_one_value() {
        let sql = Settings::default()
            .query_to(&Settings::from_pairs([(
                "application_name",
                "a'); DROP \\'",
            )]))
            .expect("they differ");
        assert_eq!(
            sql,
            "SELECT pg_catalog.set_config('application_name',  E'a''); DROP \\\\''', false)"
        );
    }

    #[test]
    fn t32_values_in_any_script_mean_the_same_in_every_encoding() {
        assert_eq!(
            quote("J\u{fc}"),
            "pg_catalog.convert_from(pg_catalog.decode('4ac3bc', 'hex'), 'UTF8')"
        );
    }

    #[test]
    fn sets_that_nobody_uses_are_forgotten() {
        let mut i = SettingsInterner::default();
        for n in 0..10_000 {
            let _ = i.intern(Settings::from_pairs([(
                "application_name",
                &*n.to_string(),
            )]));
        }
        assert!(i.known.len() <= 200);
    }
}
