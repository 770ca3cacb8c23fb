//! What a session says of itself when the console asks.

use std::sync::Arc;
use std::time::Instant;

use super::super::seat::Phase;
use super::{Session, State};
use crate::admin::{Census, ClientLine, ServerLine, Standing};
use crate::pool::{Holder, Pool, PoolKey};
use crate::server::{RunningText, Server};
use crate::status;

/// Bytes of a statement's text that are shown.
const TEXT_LEN_MAX: usize = 120;

impl Session {
    /// Adds this session, and the server that it has, to a census.
    pub(super) fn describe(&self, census: &Census) {
        let shared = self.local.shared();
        if let State::Active(server) = &self.state {
            let line = ServerLine {
                client: Some(self.seat.id()),
                since: self.meter.now.unwrap_or(server.born),
                close_needed: server.is_outdated(),
                ..server_line(&shared.key, server)
            };
            census.add_server(line);
        }
        census.add_client(self.line(shared));
    }

    /// Tells those who wait for a server of the pool who has had one for longest. If it has given it back meanwhile it is
    /// not named.
    pub(super) fn introduce(&self, waited_for: &Arc<Pool>) {
        let shared = self.local.shared();
        let family = shared.trunk().unwrap_or(shared);
        let since = self.seat.held_since();
        let since = since.filter(|_| Arc::ptr_eq(family, waited_for));
        let (State::Active(server), Some(since)) = (&self.state, since) else {
            return waited_for.note_holder(self.hub.worker, None);
        };
        let holder = Holder {
            client: self.seat.id(),
            application_name: status::name(&self.application_name(Some(server))),
            user: status::name(self.user()),
            peer: self.client.stream.peer(),
            state: self.meter.doing(),
            since,
        };
        waited_for.note_holder(self.hub.worker, Some(holder));
    }

    fn line(&self, pool: &Pool) -> ClientLine {
        let server = match &self.state {
            State::Active(server) => Some(server),
            _ => None,
        };
        let (phase, since) = self.seat.standing();
        let meter = server.map(|_| self.meter).unwrap_or_default();
        ClientLine {
            id: self.seat.id(),
            user: self.user().to_owned(),
            database: pool.key.database.clone(),
            pool_name: pool.key.to_string(),
            standing: match (&self.state, phase) {
                (State::Closing, _) | (_, Phase::Closing) => Standing::Closing,
                (State::Waiting(_), _) => Standing::Waiting,
                (State::Active(_), _) => Standing::Active,
                (State::Idle, _) => Standing::Idle,
            },
            since,
            peer: self.client.stream.peer(),
            local: self.client.stream.local(),
            tls: self.client.stream.encryption(),
            replication: "none",
            connected: self.holdings.born,
            waiting: match &self.state {
                State::Waiting(wait) => Some(wait.since()),
                _ => None,
            },
            transaction: meter.transaction,
            query: meter.query,
            text: server.map_or(String::new(), |server| self.text(server)),
            application_name: self.application_name(server.map(|s| &**s)),
            statements: self.client.statements.named_len(),
            server: server.map(|s| (s.identity.id, s.identity.process_id)),
            pins: self.pins,
            keeps_waiting: Vec::new(),
            listens: {
                let listening = self.client.possessions.listening.as_ref();
                listening.is_some_and(|listening| listening.has_link())
            },
            pinned: self.seat.pinned(),
            held: server.and_then(|_| self.seat.held_since()),
            doing: meter.doing(),
            received: self.client.carry.len(),
            unsent: self.client.outbox.waiting_len() + self.client.stream.rest_len(),
        }
    }

    pub(super) fn application_name(&self, server: Option<&Server>) -> String {
        let set = self.client.settings.find("application_name");
        // In a session pool the server was started with it.
        let born = || server.and_then(|s| s.welcome.find("application_name"));
        set.or_else(born).unwrap_or_default().to_owned()
    }

    /// The beginning of what the client has sent last.
    fn text(&self, server: &Server) -> String {
        let text = match server.running.sent() {
            RunningText::Text(text) => text,
            RunningText::Statement(name) => match self.client.statements.find(name) {
                Some(statement) => statement.query(),
                None => return String::new(),
            },
            RunningText::Other => return String::new(),
        };
        String::from_utf8_lossy(&text[..text.len().min(TEXT_LEN_MAX)]).into_owned()
    }
}

/// A server that nobody uses, as far as it is the same for all.
pub(in super::super) fn server_line(key: &PoolKey, server: &Server) -> ServerLine {
    let settings = server.settings.find("application_name");
    let name = settings.or_else(|| server.welcome.find("application_name"));
    ServerLine {
        id: server.identity.id,
        user: key.user.clone(),
        database: key.database.clone(),
        client: None,
        host: server.identity.host.clone(),
        peer: server.stream.peer(),
        local: server.stream.local(),
        tls: server.stream.encryption(),
        replication: "none",
        connected: server.born,
        since: Instant::now(),
        close_needed: false,
        process_id: server.identity.process_id,
        application_name: name.unwrap_or_default().to_owned(),
        statements: server.statements.len(),
        received: server.carry.len(),
        unsent: server.outbox.waiting_len() + server.stream.rest_len(),
    }
}
