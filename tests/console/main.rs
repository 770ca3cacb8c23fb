//! The console: its commands and columns, who may give which, and what becomes of pools and sessions.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic; what is compared says its version"
)]

#[path = "../support/mod.rs"]
mod support;

mod columns;
mod commands;
mod dashboards;
mod look;
mod newcomers;
mod parity;
mod pause;
mod protocol;
mod suspend;

use std::collections::BTreeMap;

use support::{Rig, Wire, query, startup};

/// A pooler with one who may do everything, "ops", and one who may look, "watch".
fn rig() -> Rig {
    rig_with(|b| b)
}

fn rig_with(change: impl FnOnce(support::Builder) -> support::Builder) -> Rig {
    let operators = |b: support::Builder| {
        b.set("admin_users = [\"ops\"]")
            .set("stats_users = [\"watch\"]")
    };
    Rig::with(|b| change(operators(b)))
}

/// A client that has asked to be let in.
fn begin_login(rig: &Rig, more: &[(&str, &str)]) -> Wire {
    let mut wire = rig.connect();
    let mut parameters = vec![("user", "postgres"), ("database", &*rig.database)];
    parameters.extend_from_slice(more);
    wire.send(&[startup(&parameters)]);
    wire
}

fn console(rig: &Rig) -> Wire {
    rig.pooler.login("ops", "pooler")
}

/// Names and types of the columns of a RowDescription.
fn described(body: &[u8]) -> Vec<(String, u32)> {
    let mut rest = &body[2..];
    let mut columns = Vec::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|&b| b == 0).unwrap();
        let name = String::from_utf8(rest[..end].to_vec()).unwrap();
        let oid = rest[end + 7..end + 11].try_into().unwrap();
        columns.push((name, u32::from_be_bytes(oid)));
        rest = &rest[end + 19..];
    }
    columns
}

/// The rows of a command, by the names of their columns.
fn table(wire: &mut Wire, sql: &str) -> Vec<BTreeMap<String, String>> {
    wire.send(&[query(sql)]);
    let got = wire.recv_to_ready();
    let heads = got.iter().find(|m| m.tag == b'T');
    let heads = described(&heads.unwrap_or_else(|| panic!("{sql}: {got:?}")).body);
    let rows = got.iter().filter(|m| m.tag == b'D');
    rows.map(|row| {
        let names = heads.iter().map(|(name, _)| name.clone());
        names.zip(row.columns()).collect()
    })
    .collect()
}

/// The code of the error that a command ends with.
fn error(wire: &mut Wire, sql: &str) -> String {
    match wire.try_rows(sql) {
        Err(error) => error.sqlstate(),
        Ok(rows) => panic!("{sql}: {rows:?}"),
    }
}
