//! What a key is: where it may stand, what its value looks like, its default, and why one would
//! change it.
//!
//! The rows themselves are in `table.rs`. They drive parsing, unknown keys, defaults, SHOW CONFIG,
//! what a reload may change, and `pooler.example.toml`. A key that is not a row cannot be read.

use super::table::KEYS;
use super::value::EMPTY_NOT_ALLOWED;

/// A table of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Pooler,
    Cluster,
    Host,
    Database,
    User,
    Auth,
    TlsClient,
    TlsServer,
    Metrics,
    Log,
    Tracing,
}

impl Table {
    /// As an operator would write it; X stands for a name.
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Table::Pooler => "[pooler]",
            Table::Cluster => "[clusters.X]",
            Table::Host => "a host of [clusters.X]",
            Table::Database => "[databases.X]",
            Table::User => "[users.X]",
            Table::Auth => "[auth]",
            Table::TlsClient => "[tls.client]",
            Table::TlsServer => "[tls.server]",
            Table::Metrics => "[metrics]",
            Table::Log => "[log]",
            Table::Tracing => "[tracing]",
        }
    }
}

/// One row of the table of keys.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// Where the key has its default.
    pub(crate) home: &'static [Table],
    /// Where it may be set again for one database or user.
    pub(crate) again: &'static [Table],
    pub(crate) kind: Kind,
    /// What holds when it is not set.
    pub(crate) preset: Preset,
    /// What `Config::restart_needed` calls the key; none if a reload can change it.
    pub(crate) restart: Option<&'static str>,
    /// What it does and why one would change it. Sentences.
    pub(crate) doc: &'static str,
}

/// What holds when a key is not set.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Preset {
    /// This, written as TOML.
    Is(&'static str),
    /// Nothing.
    Unset,
    /// It must be set.
    Required,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number of `unit`; `zero` says what 0 means, and 0 is refused without it.
    Count {
        unit: &'static str,
        zero: Option<&'static str>,
        max: u64,
    },
    /// "15s"; `zero` as above.
    Duration { zero: Option<&'static str> },
    /// A duration, or "off".
    SlowQuery,
    /// A number from 0 to 1.
    Ratio,
    /// "64kB"; `zero` as above.
    Size { zero: Option<&'static str> },
    /// Permission bits in octal, as text.
    FileMode,
    /// Any text; `empty` says what the empty one means.
    Text { empty: &'static str },
    /// A file; relative to the configuration's directory. Empty: none.
    File,
    /// A password or verifier, never shown. Empty: none.
    Secret,
    /// A text with places in braces.
    Template,
    /// A list of names.
    Names,
    /// An inline table of headers of HTTP; their values are never shown.
    Headers,
    /// A list of where to listen.
    Addresses,
    /// One "address:port"; empty: none.
    Address,
    /// One of these words.
    Word(Choice),
    /// A list of these words, each at most once.
    Words(Choice),
    /// A list of inline tables whose keys are the rows of this table.
    Tables(Table),
}

/// The words of an enum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    pub(crate) words: &'static [&'static str],
    /// Resolves aliases; none for a word that is not known.
    pub(crate) parse: fn(&str) -> Option<&'static str>,
}

impl Kind {
    /// The unit of the value, for documentation.
    pub(crate) fn unit(self) -> String {
        let (unit, zero) = match self {
            Kind::Flag => ("true or false".to_owned(), None),
            Kind::Count { unit, zero, .. } => (unit.to_owned(), zero),
            Kind::Duration { zero } => ("duration".to_owned(), zero),
            Kind::SlowQuery => ("duration; 0: all, off: none".to_owned(), None),
            Kind::Ratio => ("0 to 1".to_owned(), None),
            Kind::Size { zero } => ("size".to_owned(), zero),
            Kind::FileMode => ("octal".to_owned(), None),
            Kind::Text {
                empty: EMPTY_NOT_ALLOWED,
            } => ("text".to_owned(), None),
            Kind::Text { empty } => (format!("text; empty: {empty}"), None),
            Kind::File => ("file; empty: none".to_owned(), None),
            Kind::Secret => ("secret; empty: none".to_owned(), None),
            Kind::Template => ("text".to_owned(), None),
            Kind::Names => ("list of names".to_owned(), None),
            Kind::Headers => ("table of texts".to_owned(), None),
            Kind::Addresses => ("list of address:port or directory".to_owned(), None),
            Kind::Address => ("address:port; empty: off".to_owned(), None),
            Kind::Word(choice) => (choice.words.join(" | "), None),
            Kind::Words(choice) => (format!("list of {}", choice.words.join(", ")), None),
            Kind::Tables(_) => ("list of tables".to_owned(), None),
        };
        match zero {
            Some(zero) => format!("{unit}; 0: {zero}"),
            None => unit,
        }
    }
}

impl Key {
    /// Where else the key may be set.
    pub(crate) const fn again(self, again: &'static [Table]) -> Key {
        Key { again, ..self }
    }

    /// A reload cannot change the key, and reports it by this name.
    pub(crate) const fn restart(self, restart: &'static str) -> Key {
        Key {
            restart: Some(restart),
            ..self
        }
    }

    /// What it does and why one would change it.
    pub(crate) const fn doc(self, doc: &'static str) -> Key {
        Key { doc, ..self }
    }

    /// Whether the key may stand in `table`.
    pub(crate) fn stands_in(&self, table: Table) -> bool {
        self.home.contains(&table) || self.again.contains(&table)
    }

    /// "[pooler], [databases.X] and [users.X]"
    pub(crate) fn tables_shown(&self) -> String {
        let names: Vec<_> = self
            .home
            .iter()
            .chain(self.again)
            .map(|table| table.shown())
            .collect();
        match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
            _ => names.concat(),
        }
    }
}

/// The row of `name` in `table`.
pub(crate) fn find(table: Table, name: &str) -> Option<&'static Key> {
    KEYS.iter()
        .find(|key| key.name == name && key.stands_in(table))
}

/// The rows that have their default in `table`.
pub(crate) fn at_home(table: Table) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.home.contains(&table))
}

/// What to say about a key that is not known in `table`.
pub(crate) fn explain_unknown(table: Table, name: &str) -> String {
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return format!("does not belong here; it stands in {}", key.tables_shown());
    }
    if let Some((_, ours)) = PGBOUNCER_NAMES.iter().find(|(theirs, _)| *theirs == name) {
        return format!("unknown key; what PgBouncer calls {name} is {ours} here");
    }
    let here = KEYS
        .iter()
        .filter(|key| key.stands_in(table))
        .map(|key| key.name);
    unknown("key", name, here)
}

/// "unknown key; the nearest known one is pool_size"
pub(crate) fn unknown<'a>(
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> String {
    let nearest = known
        .clone()
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len().max(name.len()) / 2);
    match nearest {
        Some((_, nearest)) => format!("unknown {what}; the nearest known one is {nearest}"),
        None => format!(
            "unknown {what}; known here: {}",
            known.collect::<Vec<_>>().join(", ")
        ),
    }
}

/// PgBouncer's names for what has another name here.
const PGBOUNCER_NAMES: &[(&str, &str)] = &[
    ("listen_addr", "listen in [pooler]"),
    ("listen_port", "listen in [pooler]"),
    ("unix_socket_dir", "listen in [pooler]"),
    ("default_pool_size", "pool_size"),
    ("reserve_pool", "reserve_pool_size"),
    ("auth_type", "type in [auth]"),
    ("auth_file", "file in [auth]"),
    ("auth_hba_file", "hba_file in [auth]"),
    ("auth_ident_file", "ident_file in [auth]"),
    ("auth_user", "user in [auth]"),
    ("auth_query", "query in [auth]"),
    ("auth_dbname", "dbname in [auth]"),
    ("client_tls_sslmode", "mode in [tls.client]"),
    ("server_tls_sslmode", "mode in [tls.server]"),
    ("log_connections", "connections in [log]"),
    ("log_disconnections", "connections in [log]"),
    ("tcp_keepidle", "tcp_keepalive"),
    ("cancel_wait", "cancel_wait_timeout"),
    ("host", "hosts in [clusters.X]"),
    ("port", "hosts in [clusters.X]"),
];
