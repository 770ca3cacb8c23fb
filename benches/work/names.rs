//! A Bind on its way from a client's statement name to the server's.

use std::sync::Arc;

use pooler_protocol::frontend::{BindView, write_bind_front};
use pooler_protocol::prepared::{ClientStatements, Interner, Journal, ServerStatements};

/// A client and a server that both hold the statement, and the body of a Bind of it.
pub(crate) struct Names {
    client: ClientStatements,
    server: ServerStatements,
    body: &'static [u8],
    name: Vec<u8>,
    out: Vec<u8>,
}

/// Twenty statements, as pgbench or an application's driver has them.
pub(crate) fn prepared() -> Names {
    let mut interner = Interner::new(1 << 20);
    let mut journal = Journal::default();
    let mut names = Names {
        client: ClientStatements::default(),
        server: ServerStatements::default(),
        body: b"\0P_7\0\0\x01\0\0\0\x01\0\0\0\x0512345\0\x01\0\0",
        name: Vec::with_capacity(64),
        out: Vec::with_capacity(256),
    };
    for n in 0..20 {
        let text = format!("SELECT {n} + $1\0\0\0");
        let statement = interner.intern(text.as_bytes()).expect("there is room");
        journal.hold(&mut names.server, statement.id());
        let name = format!("P_{n}");
        journal.name(&mut names.client, name.as_bytes(), Arc::clone(&statement));
        journal.keep(2);
    }
    names
}

/// The Bind as the server gets it: its length.
pub(crate) fn splice(names: &mut Names) -> usize {
    let view = BindView::read(names.body).expect("well formed");
    let statement = names.client.find(view.statement).expect("prepared");
    assert!(names.server.touch(statement.id()), "the server holds it");
    names.name.clear();
    statement.write_server_name(&mut names.name);
    names.out.clear();
    write_bind_front(&mut names.out, &view, names.body.len(), &names.name);
    names.out.extend_from_slice(&names.body[view.names_len()..]);
    names.out.len()
}
