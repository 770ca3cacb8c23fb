//! A transaction as spans, in the words of OpenTelemetry's semantic conventions for database calls.
//!
//! ```text
//!   the caller's span
//!   '- transaction DATABASE        SERVER: the pooler answers the application
//!      |- wait                     INTERNAL: the queue for a server connection
//!      |  '- connect               CLIENT: if that server was opened meanwhile
//!      |- SELECT DATABASE          CLIENT: the pooler asks PostgreSQL
//!      '- ...
//! ```
//! A proxy is both sides of a call: the transaction is what was asked of it, each statement what it asked itself. A
//! statement that names another caller than the transaction's first has a link to that one's span. Texts are masked
//! here, off the workers: a text that is exported has no literals.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use pooler_protocol::route::{Caller, TraceParent, mask};

use super::transaction::{Step, Transaction};
use crate::metrics::SqlState;
use crate::net::{Address, Peer};

/// Of a span: its trace is recorded, and it is known whether its parent is another process's.
const FLAGS: u32 = 0x101;

/// It is.
const REMOTE_PARENT: u32 = 0x200;

/// The longest word that is taken for a statement's operation, in bytes.
const OPERATION_LEN_MAX: usize = 32;

/// A transaction, and what the session knows of it.
#[derive(Debug)]
pub struct Record {
    /// What it was.
    pub transaction: Transaction,
    /// The database, as the server calls it.
    pub database: String,
    /// Who the client is.
    pub user: String,
    /// The client's address.
    pub peer: Peer,
    /// What the client calls itself.
    pub application_name: String,
    /// The pool.
    pub pool: String,
    /// Whether the pool is of a replica's servers.
    pub on_replica: bool,
    /// Whether the client keeps its server.
    pub is_pinned: bool,
    /// Where it ran, if anywhere.
    pub server: Option<Address>,
    /// The text that waited, or the front of it, if it never ran.
    pub waiting: Vec<u8>,
}

impl Record {
    /// How many bytes it takes in memory.
    pub(super) fn size(&self) -> usize {
        let names = [
            &self.database,
            &self.user,
            &self.application_name,
            &self.pool,
        ];
        let names: usize = names.iter().map(|name| name.len()).sum();
        size_of::<Self>() + self.transaction.size() + names + self.waiting.len()
    }
}

/// What makes wall-clock time of an instant: one for all spans of a record, so that they fit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    wall: Duration,
    instant: Instant,
}

impl Clock {
    pub(super) fn now() -> Self {
        Self {
            wall: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
            instant: Instant::now(),
        }
    }

    /// Nanoseconds since 1970.
    fn nanos(self, at: Instant) -> u64 {
        let age = self.instant.saturating_duration_since(at);
        u64::try_from(self.wall.saturating_sub(age).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Record {
    /// Its spans, the transaction's first.
    pub(super) fn spans(&self, clock: Clock) -> Vec<Span> {
        let it = &self.transaction;
        let arrived = it.began.checked_sub(it.waited).unwrap_or(it.began);
        let parent = it.caller.parent;
        let mut root = self.span(&parent, SpanKind::Server, (arrived, it.ended), clock);
        root.name = format!("transaction {}", self.database);
        root.flags = FLAGS | REMOTE_PARENT;
        root.parent_span_id = parent.span_id.to_vec();
        root.attributes.extend(self.facts());
        self.judge(&mut root);
        let own = TraceParent {
            span_id: id_of(&root),
            ..parent
        };
        let mut spans = vec![root];
        if !it.waited.is_zero() {
            let mut wait = self.span(&own, SpanKind::Internal, (arrived, it.began), clock);
            wait.name = "wait".to_owned();
            let waiting = TraceParent {
                span_id: id_of(&wait),
                ..parent
            };
            spans.push(wait);
            if let Some((began, ended)) = it.opening {
                let mut connect = self.span(&waiting, SpanKind::Client, (began, ended), clock);
                connect.name = "connect".to_owned();
                spans.push(connect);
            }
        }
        for step in &it.steps {
            spans.push(self.step(step, &own, clock));
        }
        spans
    }

    fn step(&self, step: &Step, parent: &TraceParent, clock: Clock) -> Span {
        let mut span = self.span(parent, SpanKind::Client, (step.began, step.ended), clock);
        span.name = self.database.clone();
        if let Some((text, operation)) = described(&step.text) {
            if let Some(operation) = operation {
                span.name = format!("{operation} {}", self.database);
                span.attributes
                    .push(text_pair("db.operation.name", operation));
            }
            span.attributes.push(text_pair("db.query.text", text));
        }
        let rows = i64::try_from(step.rows).unwrap_or(i64::MAX);
        span.attributes
            .push(number_pair("db.response.returned_rows", rows));
        if let Some(sqlstate) = &step.sqlstate {
            fail(&mut span, Some(sqlstate), "");
        }
        if let Some(caller) = &step.caller {
            span.links.push(link_to(caller));
        }
        span
    }

    /// With what all spans of the record have.
    fn span(
        &self,
        parent: &TraceParent,
        kind: SpanKind,
        times: (Instant, Instant),
        clock: Clock,
    ) -> Span {
        let mut attributes = vec![
            text_pair("db.system.name", "postgresql"),
            text_pair("db.namespace", self.database.clone()),
        ];
        match &self.server {
            Some(Address::Tcp { host, port }) => {
                attributes.push(text_pair("server.address", host.clone()));
                attributes.push(number_pair("server.port", i64::from(*port)));
            }
            Some(Address::Unix(path)) => {
                attributes.push(text_pair("server.address", path.display().to_string()));
            }
            None => {}
        }
        Span {
            trace_id: parent.trace_id.to_vec(),
            span_id: new_id().to_vec(),
            trace_state: self.transaction.caller.state.clone().unwrap_or_default(),
            parent_span_id: parent.span_id.to_vec(),
            flags: FLAGS,
            kind: kind.into(),
            start_time_unix_nano: clock.nanos(times.0),
            end_time_unix_nano: clock.nanos(times.1.max(times.0)),
            attributes,
            ..Span::default()
        }
    }

    /// What is said of the transaction alone.
    fn facts(&self) -> Vec<KeyValue> {
        let role = if self.on_replica {
            "replica"
        } else {
            "primary"
        };
        let mut facts = vec![
            text_pair("user.name", self.user.clone()),
            text_pair("pooler.application_name", self.application_name.clone()),
            text_pair("pooler.pool", self.pool.clone()),
            text_pair("pooler.role", role),
            pair("pooler.pinned", Value::BoolValue(self.is_pinned)),
        ];
        if let Peer::Tcp(address) = &self.peer {
            facts.push(text_pair("client.address", address.ip().to_string()));
            facts.push(number_pair("client.port", i64::from(address.port())));
        }
        if self.transaction.left_out > 0 {
            let left_out = i64::try_from(self.transaction.left_out).unwrap_or(i64::MAX);
            facts.push(number_pair("pooler.statements_left_out", left_out));
        }
        if let Some((text, _)) = described(&self.waiting) {
            facts.push(text_pair("db.query.text", text));
        }
        facts
    }

    fn judge(&self, root: &mut Span) {
        let it = &self.transaction;
        match (&it.broken, &it.sqlstate) {
            (Some(broken), sqlstate) => {
                fail(
                    root,
                    broken.sqlstate.as_ref().or(sqlstate.as_ref()),
                    &broken.why,
                );
            }
            (None, Some(sqlstate)) => fail(root, Some(sqlstate), ""),
            (None, None) => {}
        }
    }
}

fn fail(span: &mut Span, sqlstate: Option<&SqlState>, why: &str) {
    let code = sqlstate.map(|code| String::from_utf8_lossy(code).into_owned());
    if let Some(code) = &code {
        span.attributes
            .push(text_pair("db.response.status_code", code.clone()));
    }
    span.attributes.push(text_pair(
        "error.type",
        code.unwrap_or_else(|| "broken".to_owned()),
    ));
    span.status = Some(Status {
        message: why.to_owned(),
        code: StatusCode::Error.into(),
    });
}

/// A text without its literals, and what it does, if that is a word.
fn described(text: &[u8]) -> Option<(String, Option<String>)> {
    let mut masked = Vec::new();
    mask(text, &mut masked);
    let masked = String::from_utf8_lossy(&masked).into_owned();
    let end = masked.find(|c: char| !c.is_ascii_alphabetic());
    let word = &masked[..end.unwrap_or(masked.len())];
    let is_word = (1..=OPERATION_LEN_MAX).contains(&word.len());
    let operation = is_word.then(|| word.to_ascii_uppercase());
    (!masked.is_empty()).then_some((masked, operation))
}

fn link_to(caller: &Caller) -> Link {
    Link {
        trace_id: caller.parent.trace_id.to_vec(),
        span_id: caller.parent.span_id.to_vec(),
        trace_state: caller.state.clone().unwrap_or_default(),
        flags: FLAGS | REMOTE_PARENT,
        ..Link::default()
    }
}

/// All zeros would be none.
fn new_id() -> [u8; 8] {
    rand::random::<u64>().max(1).to_be_bytes()
}

fn id_of(span: &Span) -> [u8; 8] {
    span.span_id.as_slice().try_into().unwrap_or_default()
}

pub(super) fn text_pair(key: &str, value: impl Into<String>) -> KeyValue {
    pair(key, Value::StringValue(value.into()))
}

pub(super) fn number_pair(key: &str, value: i64) -> KeyValue {
    pair(key, Value::IntValue(value))
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
