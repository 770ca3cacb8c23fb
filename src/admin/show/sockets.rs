//! SHOW CLIENTS, SERVERS, SOCKETS and ACTIVE_SOCKETS: one line a connection.

use std::time::{Duration, Instant};

use super::super::census::{ClientLine, ServerLine, Standing, View};
use super::super::sheet::{Column, Sheet, count, flag, int4, is, text};
use super::{moment, rest_us, seconds};
use crate::net::Peer;

/// A connection to a client or to a server.
pub(in super::super) struct Socket {
    kind: &'static str,
    user: String,
    database: String,
    state: &'static str,
    peer: Peer,
    local: Peer,
    tls: String,
    replication: &'static str,
    connected: Instant,
    requested: Instant,
    wait: Duration,
    close_needed: bool,
    name: String,
    link: String,
    remote_pid: i32,
    application_name: String,
    statements: usize,
    id: u64,
    received: usize,
    unsent: usize,
    query: String,
}

/// How states are called where clients and servers stand side by side.
#[derive(Clone, Copy)]
enum Wording {
    Apart,
    Together,
}

impl Socket {
    fn of_client(client: &ClientLine, wording: Wording) -> Self {
        let (state, long) = match client.standing {
            Standing::Idle => ("idle", "cl_active"),
            Standing::Waiting => ("waiting", "cl_waiting"),
            Standing::Active => ("active", "cl_active"),
            Standing::Closing => ("closing", "cl_active"),
        };
        let now = Instant::now();
        let waited = client.waiting.map(|w| now.saturating_duration_since(w));
        Self {
            kind: "C",
            user: client.user.clone(),
            database: client.database.clone(),
            state: wording.choose(state, long),
            peer: client.peer,
            local: client.local,
            tls: client.tls.clone(),
            replication: client.replication,
            connected: client.connected,
            requested: client.query.unwrap_or(client.since),
            wait: waited.unwrap_or_default(),
            close_needed: false,
            name: format!("c{}", client.id),
            link: client
                .server
                .map_or(String::new(), |(id, _)| format!("s{id}")),
            remote_pid: 0,
            application_name: client.application_name.clone(),
            statements: client.statements,
            id: client.id,
            received: client.received,
            unsent: client.unsent,
            query: client.text.clone(),
        }
    }

    fn of_server(server: &ServerLine, wording: Wording) -> Self {
        let (state, long) = match server.client {
            Some(_) => ("active", "sv_active"),
            None => ("idle", "sv_idle"),
        };
        Self {
            kind: "S",
            user: server.user.clone(),
            database: server.database.clone(),
            state: wording.choose(state, long),
            peer: server.peer,
            local: server.local,
            tls: server.tls.clone(),
            replication: server.replication,
            connected: server.connected,
            requested: server.since,
            wait: Duration::ZERO,
            close_needed: server.close_needed,
            name: format!("s{}", server.id),
            link: server.client.map_or(String::new(), |id| format!("c{id}")),
            remote_pid: server.process_id,
            application_name: server.application_name.clone(),
            statements: server.statements,
            id: server.id,
            received: server.received,
            unsent: server.unsent,
            query: String::new(),
        }
    }

    fn is_active(&self) -> bool {
        self.received + self.unsent > 0
    }
}

impl Wording {
    fn choose(self, apart: &'static str, together: &'static str) -> &'static str {
        match self {
            Self::Apart => apart,
            Self::Together => together,
        }
    }
}

fn address(peer: Peer) -> String {
    match peer {
        Peer::Tcp(address) => address.ip().to_string(),
        Peer::Unix => "unix".to_owned(),
    }
}

fn port(peer: Peer) -> u16 {
    match peer {
        Peer::Tcp(address) => address.port(),
        Peer::Unix => 0,
    }
}

macro_rules! socket_columns {
    ($($more:expr),* $(,)?) => {
        &[
            text("type", |s: &Socket| is(s.kind)),
            text("user", |s| is(&s.user)),
            text("database", |s| is(&s.database)),
            text("replication", |s| is(s.replication)),
            text("state", |s| is(s.state)),
            text("addr", |s| is(address(s.peer))),
            int4("port", |s| is(port(s.peer))),
            text("local_addr", |s| is(address(s.local))),
            int4("local_port", |s| is(port(s.local))),
            text("connect_time", |s| moment(s.connected)),
            text("request_time", |s| moment(s.requested)),
            int4("wait", |s| seconds(s.wait)),
            int4("wait_us", |s| rest_us(s.wait)),
            int4("close_needed", |s| flag(s.close_needed)),
            text("ptr", |s| is(&s.name)),
            text("link", |s| is(&s.link)),
            int4("remote_pid", |s| is(s.remote_pid)),
            text("tls", |s| is(&s.tls)),
            text("application_name", |s| is(&s.application_name)),
            int4("prepared_statements", |s| count(s.statements)),
            int4("id", |s| is(s.id)),
            $($more),*
        ]
    };
}

const PLAIN: &[Column<Socket>] = socket_columns!();

const WITH_BUFFERS: &[Column<Socket>] = socket_columns![
    int4("recv_pos", |s| count(s.received)),
    int4("pkt_pos", |_| count(0)),
    int4("pkt_remain", |_| count(0)),
    int4("send_pos", |_| count(0)),
    int4("send_remain", |s| count(s.unsent)),
    int4("pkt_avail", |s| count(s.received)),
    int4("send_avail", |s| count(s.unsent)),
];

const WITH_QUERY: &[Column<Socket>] = socket_columns![text("query", |s| is(&s.query))];

/// SHOW CLIENTS
pub(in super::super) static CLIENTS: Sheet<Socket> = Sheet {
    columns: WITH_QUERY,
    lines: |_, view| clients(view, Wording::Apart).collect(),
};

/// SHOW SERVERS
pub(in super::super) static SERVERS: Sheet<Socket> = Sheet {
    columns: PLAIN,
    lines: |_, view| servers(view, Wording::Apart).collect(),
};

/// SHOW SOCKETS
pub(in super::super) static SOCKETS: Sheet<Socket> = Sheet {
    columns: WITH_BUFFERS,
    lines: |_, view| sockets(view).collect(),
};

/// SHOW ACTIVE_SOCKETS: those with something in their buffers.
pub(in super::super) static ACTIVE_SOCKETS: Sheet<Socket> = Sheet {
    columns: WITH_BUFFERS,
    lines: |_, view| sockets(view).filter(Socket::is_active).collect(),
};

fn clients(view: &View, wording: Wording) -> impl Iterator<Item = Socket> {
    let clients = view.clients.iter();
    clients.map(move |client| Socket::of_client(client, wording))
}

fn servers(view: &View, wording: Wording) -> impl Iterator<Item = Socket> {
    let servers = view.servers.iter();
    servers.map(move |server| Socket::of_server(server, wording))
}

fn sockets(view: &View) -> impl Iterator<Item = Socket> {
    clients(view, Wording::Together).chain(servers(view, Wording::Together))
}
