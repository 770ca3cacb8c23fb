//! SHOW LISTS, MEM, STATE, VERSION: the process; and what PgBouncer has that there is none of here.

use std::mem::size_of;

use super::super::census::ClientLine;
use super::super::sheet::{Column, Sheet, count, int4, int8, is, text};
use super::super::{Desk, View};
use crate::registry::Closed;

/// What SHOW VERSION says: those that look for the version of PgBouncer find which of its consoles
/// this one is like.
const VERSION_TEXT: &str = concat!(
    "PgBouncer 1.25.0 compatible, pooler ",
    env!("CARGO_PKG_VERSION")
);

/// SHOW VERSION
pub(in super::super) static VERSION: Sheet<()> = Sheet {
    columns: &[text("version", |()| is(VERSION_TEXT))],
    lines: |_, _| vec![()],
};

type KeyValue = (&'static str, bool);

/// SHOW STATE
pub(in super::super) static STATE: Sheet<KeyValue> = Sheet {
    columns: &[
        text("key", |l: &KeyValue| is(l.0)),
        text("value", |l| is(if l.1 { "yes" } else { "no" })),
    ],
    lines: |desk, _| {
        let closed = desk.registry.gates_now().everything;
        vec![
            ("active", closed == Closed::No),
            ("paused", closed == Closed::Paused),
            ("suspended", closed == Closed::Suspended),
        ]
    },
};

type Item = (&'static str, usize);

/// SHOW LISTS
pub(in super::super) static LISTS: Sheet<Item> = Sheet {
    columns: &[
        text("list", |l: &Item| is(l.0)),
        int4("items", |l| count(l.1)),
    ],
    lines: lists,
};

fn lists(desk: &Desk, _: &View) -> Vec<Item> {
    let registry = &desk.registry;
    let current = registry.current();
    let numbers: Vec<_> = registry.pools().iter().map(|pool| pool.numbers()).collect();
    let clients: usize = numbers.iter().map(|n| n.clients).sum();
    let sessions = registry.sessions.load(std::sync::atomic::Ordering::Relaxed);
    vec![
        ("databases", current.config.databases.len()),
        ("users", current.config.user_names().count()),
        ("peers", 0),
        ("pools", numbers.len()),
        ("peer_pools", 0),
        ("free_clients", 0),
        ("used_clients", clients),
        ("login_clients", sessions.saturating_sub(clients)),
        ("free_servers", 0),
        ("used_servers", numbers.iter().map(|n| n.servers).sum()),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ]
}

/// Things of one kind in memory.
pub(in super::super) struct Memory {
    name: &'static str,
    used: usize,
    bytes: usize,
}

/// SHOW MEM
pub(in super::super) static MEM: Sheet<Memory> = Sheet {
    columns: &[
        text("name", |l| is(l.name)),
        int4("size", |l| count(l.bytes.checked_div(l.used).unwrap_or(0))),
        int4("used", |l| count(l.used)),
        int4("free", |_| count(0)),
        int4("memtotal", |l| count(l.bytes)),
    ],
    lines: |desk, view| {
        let (statements, bytes) = desk.registry.commons.interners.statement_usage();
        vec![
            Memory {
                name: "prepared_statement_cache",
                used: statements,
                bytes,
            },
            Memory {
                name: "console_lines",
                used: view.clients.len(),
                bytes: view.clients.len() * size_of::<ClientLine>(),
            },
        ]
    },
};

/// A line of what is always empty.
pub(in super::super) enum Nothing {}

const NOTHING: fn(&Desk, &View) -> Vec<Nothing> = |_, _| Vec::new();

macro_rules! empty_sheets {
    ($($(#[$doc:meta])* $name:ident: $($kind:ident $column:literal),+;)+) => {
        $(
            $(#[$doc])*
            pub(in super::super) static $name: Sheet<Nothing> = Sheet {
                columns: { const COLUMNS: &[Column<Nothing>] = &[$($kind($column, |l| match *l {})),+]; COLUMNS },
                lines: NOTHING,
            };
        )+
    };
}

empty_sheets! {
    /// SHOW PEERS: a cancel needs none to find its session.
    PEERS: int4 "peer_id", text "host", int4 "port", int4 "pool_size";
    /// SHOW PEER_POOLS
    PEER_POOLS: int4 "peer_id", int4 "cl_active_cancel_req", int4 "cl_waiting_cancel_req",
        int4 "sv_active_cancel", int4 "sv_login";
    /// SHOW DNS_HOSTS: names are looked up for each connection, by the system.
    DNS_HOSTS: text "hostname", int8 "ttl", text "addrs";
    /// SHOW DNS_ZONES
    DNS_ZONES: text "zonename", int8 "serial", int4 "count";
}
