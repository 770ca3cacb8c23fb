//! What the rows of the table of keys are written with.

use super::keys::{Key, Kind, Preset, Table};

pub(super) const POOLER: &[Table] = &[Table::Pooler];
pub(super) const CLUSTER: &[Table] = &[Table::Cluster];
pub(super) const HOST: &[Table] = &[Table::Host];
pub(super) const DATABASE: &[Table] = &[Table::Database];
pub(super) const USER: &[Table] = &[Table::User];
pub(super) const DATABASE_AND_USER: &[Table] = &[Table::Database, Table::User];
pub(super) const AUTH: &[Table] = &[Table::Auth];
pub(super) const TLS: &[Table] = &[Table::TlsClient, Table::TlsServer];
pub(super) const TLS_SERVER: &[Table] = &[Table::TlsServer];
pub(super) const METRICS: &[Table] = &[Table::Metrics];
pub(super) const LOG: &[Table] = &[Table::Log];
pub(super) const TRACING: &[Table] = &[Table::Tracing];

pub(super) const NEVER: Kind = Kind::Duration {
    zero: Some("never"),
};
pub(super) const FOR_EVER: Kind = Kind::Duration {
    zero: Some("for ever"),
};
pub(super) const DURATION: Kind = Kind::Duration { zero: None };

/// A key of `[pooler]` that a database or a user may set again.
pub(super) const fn pool_key(name: &'static str, kind: Kind, default: &'static str) -> Key {
    key(POOLER, name, kind, default).again(DATABASE_AND_USER)
}

pub(super) const fn key(
    home: &'static [Table],
    name: &'static str,
    kind: Kind,
    default: &'static str,
) -> Key {
    Key {
        home,
        again: &[],
        name,
        kind,
        preset: Preset::Is(default),
        restart: None,
        doc: "",
    }
}

pub(super) const fn count(unit: &'static str, zero: Option<&'static str>) -> Kind {
    Kind::Count {
        unit,
        zero,
        max: 1_000_000,
    }
}

pub(super) const fn size(zero: Option<&'static str>) -> Kind {
    Kind::Size { zero }
}

pub(super) const fn text(empty: &'static str) -> Kind {
    Kind::Text { empty }
}

pub(super) const fn required(home: &'static [Table], name: &'static str, kind: Kind) -> Key {
    Key {
        home,
        again: &[],
        name,
        kind,
        preset: Preset::Required,
        restart: None,
        doc: "",
    }
}

pub(super) const fn optional(home: &'static [Table], name: &'static str, kind: Kind) -> Key {
    Key {
        home,
        again: &[],
        name,
        kind,
        preset: Preset::Unset,
        restart: None,
        doc: "",
    }
}
