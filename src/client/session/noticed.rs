//! What a session tells others: slow statements and comings and goings to the log, traced transactions to the
//! collector, what keeps it on its server to the counters.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use pooler_protocol::frontend::{ParseView, tag};
use pooler_protocol::naming::Facts;
use pooler_protocol::route::{Caller, find_caller};
use pooler_protocol::statement::Marks;

use super::{KINDS, Session, State};
use crate::config::{PoolMode, PoolSettings};
use crate::error::Refusal;
use crate::log::AS_OFTEN_AS_IT_HAPPENS;
use crate::metrics::SqlState;
use crate::net::host_name;
use crate::observe::{
    Attention, Broken, Origin, Record, Statement, TEXTS_LEN_MAX, Transaction, log_slow,
};
use crate::pool::Checkout;
use crate::relay::{Ended, Naming, break_transaction, each_message, first_batch_len};
use crate::server::Server;

/// As the client is told.
pub(super) fn broken_by(refusal: &Refusal) -> Broken {
    Broken {
        sqlstate: SqlState::try_from(refusal.sqlstate.as_bytes()).ok(),
        why: refusal.message.clone(),
    }
}

/// Nobody is there to be told.
pub(super) fn left() -> Broken {
    Broken {
        sqlstate: None,
        why: "the client left in the middle of it".to_owned(),
    }
}

impl Session {
    pub(super) fn look_up_attention(&mut self) {
        let current = self.hub.registry.current();
        let config = &current.config;
        let attention = Attention::of(&config.log, &config.tracing);
        let before = std::mem::replace(&mut self.rules.attention, attention);
        if (before.is_on, before.traces) == (attention.is_on, attention.traces) {
            return;
        }
        // What was not kept from its beginning says nothing, and what is kept no more is nobody's.
        if let State::Active(server) = &mut self.state {
            server.watch.abandon();
            if attention.is_on && server.ledger.outstanding() > 0 {
                server.watch.begin_late();
            }
        }
    }

    /// Notes what keeps the client on its server.
    #[inline]
    pub(super) fn count_pins(&mut self, held: Marks) {
        if self.pins == held {
            return;
        }
        let counters = self.local.counters();
        for (kind, counts) in KINDS.iter().zip(&counters.pins) {
            match (self.pins.has(kind.marks), held.has(kind.marks)) {
                (false, true) => counts.begun.add(1),
                (true, false) => counts.ended.add(1),
                _ => {}
            }
        }
        self.pins = held;
        let since = (!held.is_empty()).then(|| self.seat.pinned().unwrap_or_else(Instant::now));
        self.seat.set_pinned(since);
    }

    /// What the client is called toward servers from now on. In a pool by session its server was told at login.
    pub(super) fn look_up_name(&mut self, settings: &PoolSettings) {
        let by_session = settings.pool_mode == PoolMode::Session;
        self.client.naming = (!by_session && !settings.application_name.is_identity()).then(|| {
            let key = &self.home.shared().key;
            let peer = self.client.stream.peer().to_string();
            let frame = settings.application_name.frame(&Facts {
                client: &peer,
                user: self.user(),
                database: &key.database,
                pooler: host_name(),
            });
            let interners = &self.hub.registry.commons.interners;
            Box::new(Naming::new(frame, &self.client.settings, interners))
        });
    }

    pub(super) fn user(&self) -> &str {
        let shown = self.holdings.user.as_deref();
        shown.unwrap_or(&self.home.shared().key.user)
    }

    /// Tells what was slow, and which transactions are traced.
    #[cold]
    pub(super) fn tell(&mut self) {
        let State::Active(server) = &mut self.state else {
            return;
        };
        let slow = server.watch.take_slow();
        let (traced, lost) = server.watch.take_traced();
        let State::Active(server) = &self.state else {
            return;
        };
        self.log_slow(server, &slow);
        self.send_traces(server, traced, lost);
    }

    fn log_slow(&self, server: &Server, slow: &[Statement]) {
        if slow.is_empty() {
            return;
        }
        let name = self.application_name(Some(server));
        let origin = Origin {
            user: self.user(),
            database: &self.home.shared().key.database,
            peer: self.client.stream.peer(),
            application_name: &name,
            server: &server.identity.host,
        };
        let current = self.hub.registry.current();
        for statement in slow {
            log_slow(statement, &origin, &current.config.log);
        }
    }

    fn send_traces(&self, server: &Server, traced: Vec<Transaction>, lost: u64) {
        let spans = &self.hub.registry.spans;
        spans.lose(lost);
        for transaction in traced {
            if transaction.broken.is_none() {
                let took = transaction.ended - transaction.began;
                let exemplars = &self.local.counters().transaction_exemplars;
                exemplars.note(took, transaction.caller.parent.trace_id);
            }
            spans.put(Record {
                server: Some(server.identity.address.clone()),
                ..self.record(transaction, Some(server))
            });
        }
    }

    fn record(&self, transaction: Transaction, server: Option<&Server>) -> Record {
        let pool = self.local.shared();
        Record {
            transaction,
            database: pool.plan().recipe.dbname.clone(),
            user: self.user().to_owned(),
            peer: self.client.stream.peer(),
            application_name: self.application_name(server),
            pool: pool.key.to_string(),
            on_replica: pool.key.replica.is_some(),
            is_pinned: !self.pins.is_empty(),
            server: None,
            waiting: Vec::new(),
        }
    }

    /// What this server did for the client is over.
    #[inline]
    pub(super) fn look_back(&mut self, server: &mut Checkout) {
        if server.watch.is_close() {
            self.tell_broken(server);
        }
        server.watch.abandon();
    }

    #[cold]
    fn tell_broken(&self, server: &mut Checkout) {
        let lost = || Broken {
            sqlstate: Some(*b"08006"),
            why: "the server connection was lost".to_owned(),
        };
        let broken = match (&self.ended_by, self.client.ended) {
            (Some(broken), _) => Broken::clone(broken),
            (None, Ended::No) => lost(),
            (None, Ended::Terminate | Ended::Gone) => left(),
        };
        let attention = &self.rules.attention;
        break_transaction(server, &self.client, &self.meter, attention, broken);
        let (traced, more) = server.watch.take_traced();
        self.send_traces(server, traced, more);
    }

    /// Takes the server away whose work is to be done again elsewhere, which is not worth telling.
    pub(super) fn take_wrong_server(&mut self) -> Option<Checkout> {
        if let State::Active(server) = &mut self.state {
            server.watch.abandon();
        }
        self.take_server()
    }

    /// What waits for a server will not get one: if its caller records a trace, that is a transaction of which the
    /// wait was all.
    pub(super) fn note_vain_wait(&self, broken: impl FnOnce() -> Broken) {
        if !self.rules.attention.traces {
            return;
        }
        let State::Waiting(wait) = &self.state else {
            return;
        };
        let waiting = self.client.carry.as_slice();
        let batch = &waiting[..first_batch_len(waiting).unwrap_or(waiting.len())];
        let (mut text, mut said) = (None, None);
        each_message(batch, |tag, body| {
            let here = match tag {
                tag::QUERY => body.strip_suffix(b"\0").unwrap_or(body),
                tag::PARSE => ParseView::read(body).map_or(&b""[..], |view| view.query()),
                _ => return,
            };
            text = text.or(Some(here));
            said = said.take().or_else(|| find_caller(here));
        });
        let set = self.client.settings.caller();
        let set = set.map(|parent| Caller {
            parent: *parent,
            state: None,
        });
        let Some(caller) = said.or(set) else {
            return;
        };
        if !self.rules.attention.records(&caller.parent) {
            return;
        }
        let now = Instant::now();
        let waited = now.saturating_duration_since(wait.since());
        let mut transaction = Transaction::new(caller, now, waited);
        transaction.broken = Some(broken());
        self.hub.registry.spans.put(Record {
            waiting: text.map_or(Vec::new(), |text| {
                text[..text.len().min(TEXTS_LEN_MAX)].to_vec()
            }),
            ..self.record(transaction, None)
        });
    }

    /// Logs that the client is here, and how long its login took.
    #[cold]
    pub(super) fn log_login(&self, took: Duration) {
        self.log_visit("login", took, None);
    }

    /// Logs that the client has left, how long it was here, and why it left.
    #[cold]
    pub(super) fn log_logout(&self) {
        let reason: Cow<'_, str> = match &self.ended_by {
            Some(broken) => Cow::Borrowed(&broken.why),
            None if self.client.ended == Ended::Terminate => "the client said so".into(),
            None => "the client closed its connection".into(),
        };
        let stayed = Instant::now() - self.holdings.born;
        self.log_visit("logout", stayed, Some(&reason));
    }

    fn log_visit(&self, what: &str, lasted: Duration, reason: Option<&str>) {
        tracing::info!(
            target: AS_OFTEN_AS_IT_HAPPENS,
            user = self.user(),
            database = self.home.shared().key.database,
            peer = %self.client.stream.peer(),
            application_name = self.application_name(None),
            seconds = lasted.as_secs_f64(),
            reason,
            "{what}"
        );
    }
}
