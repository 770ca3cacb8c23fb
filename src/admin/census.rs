//! Who is there: what each session says of itself when it is asked.

use std::cell::RefCell;
use std::time::Instant;

use pooler_protocol::statement::Marks;
use tokio::sync::oneshot;

use crate::net::{Peer, Stream};

/// What one worker, or all of them, know.
#[derive(Debug, Default)]
pub struct View {
    /// Clients.
    pub clients: Vec<ClientLine>,
    /// Servers that idle, and those of the clients.
    pub servers: Vec<ServerLine>,
    /// The statement that is asked about, if one is.
    pub asked: String,
    /// What the command was given.
    pub words: Vec<String>,
}

impl View {
    /// Puts `instead` in place of every text that a client has sent.
    pub(super) fn hide_texts(&mut self, instead: &str) {
        let texts = self.clients.iter_mut().map(|client| &mut client.text);
        texts
            .filter(|text| !text.is_empty())
            .for_each(|text| instead.clone_into(text));
    }
}

/// What a client is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Between transactions.
    Idle,
    /// In the queue for a server.
    Waiting,
    /// It has one.
    Active,
    /// It is ending.
    Closing,
}

/// A client.
#[derive(Debug, Clone)]
pub struct ClientLine {
    /// Unique in the process.
    pub id: u64,
    /// As whom it logged in.
    pub user: String,
    /// The name that it asked for.
    pub database: String,
    /// The name of the pool whose server it has or waits for; empty if that is none's.
    pub pool_name: String,
    /// What it is doing.
    pub standing: Standing,
    /// Since when.
    pub since: Instant,
    /// Its address.
    pub peer: Peer,
    /// The address that it connected to.
    pub local: Peer,
    /// How it is encrypted; empty: it is not.
    pub tls: String,
    /// `none`, `logical` or `physical`.
    pub replication: &'static str,
    /// When it logged in.
    pub connected: Instant,
    /// Since when it waits for a server.
    pub waiting: Option<Instant>,
    /// When its transaction began.
    pub transaction: Option<Instant>,
    /// When the request was sent that the server works on.
    pub query: Option<Instant>,
    /// The beginning of what it has sent last, if it has a server.
    pub text: String,
    /// As it is set now.
    pub application_name: String,
    /// Statements that it has a name for.
    pub statements: usize,
    /// The number of its server, and the process there.
    pub server: Option<(u64, i32)>,
    /// What keeps it on its server.
    pub pins: Marks,
    /// Since when it is kept.
    pub pinned: Option<Instant>,
    /// The connection that listens for all clients of its pool listens for it, too.
    pub listens: bool,
    /// Since when it has its server, if it has one: since its transaction began, or what keeps it there.
    pub held: Option<Instant>,
    /// Of a replication connection: pools that wait for its place among the connections of its host.
    pub keeps_waiting: Vec<String>,
    /// As `state` of `pg_stat_activity`.
    pub doing: &'static str,
    /// Bytes received and not decided about.
    pub received: usize,
    /// Bytes that it has not taken.
    pub unsent: usize,
}

impl ClientLine {
    /// Of a client that came then, has no server, and does nothing.
    #[must_use]
    pub fn idle(id: u64, user: &str, database: &str, stream: &Stream, since: Instant) -> Self {
        Self {
            id,
            user: user.to_owned(),
            database: database.to_owned(),
            pool_name: String::new(),
            standing: Standing::Idle,
            since,
            peer: stream.peer(),
            local: stream.local(),
            tls: stream.encryption(),
            replication: "none",
            connected: since,
            waiting: None,
            transaction: None,
            query: None,
            text: String::new(),
            application_name: String::new(),
            statements: 0,
            server: None,
            pins: Marks::default(),
            pinned: None,
            listens: false,
            held: None,
            keeps_waiting: Vec::new(),
            doing: "idle",
            received: 0,
            unsent: 0,
        }
    }
}

/// A server connection.
#[derive(Debug, Clone)]
pub struct ServerLine {
    /// Unique in the process.
    pub id: u64,
    /// As whom it is logged in.
    pub user: String,
    /// The name that clients ask for.
    pub database: String,
    /// The number of its client.
    pub client: Option<u64>,
    /// Where it is, as configured.
    pub host: String,
    /// The address that was connected to.
    pub peer: Peer,
    /// The address at this end.
    pub local: Peer,
    /// How it is encrypted; empty: it is not.
    pub tls: String,
    /// `none`, `logical` or `physical`.
    pub replication: &'static str,
    /// When it was logged in.
    pub connected: Instant,
    /// When it was used last.
    pub since: Instant,
    /// It is closed as soon as it is free.
    pub close_needed: bool,
    /// The process of PostgreSQL.
    pub process_id: i32,
    /// As it is set now.
    pub application_name: String,
    /// Statements that it holds.
    pub statements: usize,
    /// Bytes received and not decided about.
    pub received: usize,
    /// Bytes that it has not taken.
    pub unsent: usize,
}

/// A look under way: filled by the sessions of a worker one after the other, and handed over when the
/// last of them, or of its orders, is done with it.
#[derive(Debug)]
pub struct Census {
    view: RefCell<View>,
    reply: RefCell<Option<oneshot::Sender<View>>>,
}

impl Census {
    /// One whose result goes there.
    #[must_use]
    pub fn new(reply: oneshot::Sender<View>) -> Self {
        Self {
            view: RefCell::default(),
            reply: RefCell::new(Some(reply)),
        }
    }

    /// One client more.
    pub fn add_client(&self, client: ClientLine) {
        self.view.borrow_mut().clients.push(client);
    }

    /// One server more.
    pub fn add_server(&self, server: ServerLine) {
        self.view.borrow_mut().servers.push(server);
    }
}

impl Drop for Census {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            // Who asked may have left.
            let _heard = reply.send(self.view.take());
        }
    }
}
