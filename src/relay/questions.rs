//! What a client leaves in the session of its server: suspected from the text of its statements,
//! and found out by asking the server (design: suspect cheaply, decide by asking).
//!
//! ```text
//!   clean --a text that may change the session--> suspect --question behind it--> asked
//!   asked --only settings--> clean      they are the client's now, and follow it
//!   asked --something that no other connection can have--> held
//!   held  --a text that may end it--> suspect          held --the client leaves--> DISCARD ALL
//! ```
//! The question goes out behind the statement in the same write where the transaction surely ends
//! with it, and else when it has ended; it is never asked inside a transaction, whose snapshot it
//! could take too early. Until the answer is here nothing that the client sends goes to the server:
//! it could find a setting that is about to be put back.

use std::sync::Arc;

use pooler_protocol::backend::{
    TransactionStatus, read_data_row, write_command_complete, write_parameter_status,
    write_ready_for_query,
};
use pooler_protocol::frontend::{each_value, write_query, write_sync};
use pooler_protocol::ledger::{Deal, Request};
use pooler_protocol::prepared::{Statement, Unnamed};
use pooler_protocol::settings::Settings;
use pooler_protocol::statement::{
    ByName, Marks, WORD_LEN_MAX, as_custom_setting, by_name, custom_settings, scan, scan_on,
};

mod kinds;

use kinds::question;
pub use kinds::{KINDS, Kind, reasons};

use super::listening::Listening;
use super::requests::{BatchShape, Step};
use super::{ClientSide, HeldBack, Outcome, Relay};
use crate::buffer::Splice;
use crate::error::Refusal;
use crate::server::listening::Channel;

/// A text up to this length, in bytes, is looked at as one EXECUTE or DEALLOCATE.
const BY_NAME_LEN_MAX: usize = 8 * 1024;

/// What to do with a client that has left something in the session that only this connection can
/// hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// It keeps the server until that is gone.
    Keep,
    /// It is told that it must not, and ended.
    Refuse,
    /// It is thrown away.
    Drop,
}

/// A question under way.
#[derive(Debug)]
pub(super) struct Question {
    /// What about.
    asked: Marks,
    settings: Vec<(String, String)>,
    channels: Vec<Channel>,
    held: Marks,
    failed: bool,
}

/// What is known of the session that a client has made for itself.
#[derive(Debug)]
pub struct Possessions {
    /// What it has done since the server was asked last.
    pub(super) marks: Marks,
    /// What only its server holds.
    pub(super) held: Marks,
    /// What it listens to, if it does.
    pub listening: Option<Box<Listening>>,
    question: Option<Box<Question>>,
    /// What it asked for at login: RESET goes back to it.
    startup: Arc<Settings>,
    /// A setting of its own cannot be asked for by name.
    is_untraced: bool,
    /// The end of the piece of a long text that was looked at last.
    seam: Option<Box<[u8]>>,
}

impl Possessions {
    /// Of a client that has just logged in.
    #[must_use]
    pub fn new(startup: Arc<Settings>) -> Self {
        Self {
            marks: Marks::NONE,
            held: Marks::NONE,
            listening: None,
            question: None,
            startup,
            is_untraced: false,
            seam: None,
        }
    }

    /// What keeps the client on its server.
    #[inline]
    #[must_use]
    pub fn held(&self) -> Marks {
        self.held
    }

    /// Whether the server has something of the client's, or may have.
    #[inline]
    #[must_use]
    pub fn are_somewhere(&self) -> bool {
        !self.held.is_empty() || self.is_due() || self.question.is_some()
    }

    /// Whether the server is to be asked.
    #[inline]
    #[must_use]
    pub fn is_due(&self) -> bool {
        !self.marks.questions(self.held).is_empty()
    }

    /// Whether a text is on its way of which only the beginning was looked at.
    #[inline]
    #[must_use]
    pub fn is_reading_on(&self) -> bool {
        self.seam.is_some()
    }

    /// Whether an answer is awaited.
    #[inline]
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.question.is_some()
    }

    /// Whether what it listens to is just being handed over, or its last reply is held back.
    #[inline]
    #[must_use]
    pub fn is_parting(&self) -> bool {
        let listening = self.listening.as_ref();
        listening.is_some_and(|l| l.is_parting() || l.holds_ready())
    }

    /// The server is another's, or gone.
    pub fn part(&mut self) {
        self.marks = Marks::NONE;
        self.held = Marks::NONE;
        self.question = None;
        self.seam = None;
        if let Some(listening) = &mut self.listening {
            listening.part();
        }
    }
}

impl Relay<'_> {
    /// Notes what a text, or the beginning of one, makes one suspect.
    #[inline]
    pub(super) fn suspect_text(
        &mut self,
        text: &[u8],
        is_whole: bool,
        shape: &mut BatchShape,
        splice: &mut Splice<'_>,
    ) {
        if !self.rules.release_between_transactions {
            if may_want_database(text) {
                self.interners.note_vacated(text);
            }
            return;
        }
        let marks = scan(text) | self.interners.hidden(text);
        self.raise(marks, text, shape);
        self.forget_sequences(marks, shape, splice);
        if !is_whole {
            self.keep_seam(text);
        }
    }

    /// The client has had its server forget everything.
    pub(super) fn discard_all(&mut self) {
        let possessions = &mut self.client.possessions;
        possessions.held = possessions.held.without(Marks::DRAWS);
    }

    /// Goes on with a long text.
    pub(super) fn suspect_more(&mut self, piece: &[u8], shape: &mut BatchShape) {
        let Some(seam) = self.client.possessions.seam.take() else {
            return;
        };
        let mut seam = seam.into_vec();
        seam.extend_from_slice(&piece[..piece.len().min(WORD_LEN_MAX)]);
        let marks = scan_on(&seam) | scan_on(piece) | self.interners.hidden(&seam);
        let marks = marks | self.interners.hidden(piece);
        self.raise(marks, piece, shape);
        if self.client.pass > piece.len() {
            self.keep_seam(piece);
        }
    }

    /// A client that asks for what it drew from a sequence, at the beginning of a transaction, must
    /// not be told what another drew on this server: the server forgets that first.
    #[inline]
    pub(super) fn forget_sequences(
        &mut self,
        marks: Marks,
        shape: &BatchShape,
        splice: &mut Splice<'_>,
    ) {
        let drew = self.client.possessions.held.has(Marks::DRAWS);
        if !marks.has(Marks::DRAWN) || drew || !self.rules.release_between_transactions {
            return;
        }
        let server = &mut *self.server;
        let begins = shape.messages == 1
            && server.ledger.outstanding() == 0
            && server.ledger.status() == TransactionStatus::Idle;
        if begins {
            splice.put(|out| server.put_own_query("DISCARD SEQUENCES", out));
        }
    }

    fn keep_seam(&mut self, text: &[u8]) {
        let from = text.len().saturating_sub(WORD_LEN_MAX);
        self.client.possessions.seam = Some(text[from..].into());
    }

    /// Notes what a prepared statement that is about to run makes one suspect. `bind` is the body of
    /// its Bind.
    #[inline]
    pub(super) fn suspect_statement(
        &mut self,
        statement: &Statement,
        bind: &[u8],
        shape: &mut BatchShape,
    ) {
        let marks = statement.marks() | self.interners.hidden_in(statement);
        if marks.is_empty() && self.client.possessions.held.is_empty() {
            return;
        }
        self.raise(marks, statement.query(), shape);
        if marks.has(Marks::SETTINGS) {
            each_value(bind, |value| {
                if let Some(name) = as_custom_setting(value) {
                    note_custom(self.client, self.interners, name);
                }
            });
        }
    }

    /// Notes `marks` of `text`.
    #[inline]
    pub(super) fn raise(&mut self, marks: Marks, text: &[u8], shape: &mut BatchShape) {
        if !self.rules.release_between_transactions {
            if marks.has(Marks::DATABASE) {
                self.interners.note_vacated(text);
            }
            return;
        }
        let possessions = &mut self.client.possessions;
        let mut marks = marks;
        if possessions.held.has(Marks::UNKNOWN) {
            marks |= Marks::ALL;
        }
        if marks.is_empty() {
            return;
        }
        if marks.has(Marks::DATABASE) {
            self.interners.note_vacated(text);
        }
        shape.marks |= marks;
        possessions.marks |= marks;
        if self.rules.keep_sequences && marks.has(Marks::DRAWS) {
            possessions.held |= Marks::DRAWS;
        }
        if possessions.is_due() || !possessions.held.is_empty() {
            self.server.suspect = true;
        }
        if marks.has(Marks::SETTINGS) {
            custom_settings(text, |name| note_custom(self.client, self.interners, name));
        }
    }

    /// Asks the server behind the batch that was just entered, if that surely ends the transaction.
    #[inline]
    pub(super) fn ask_behind(
        &mut self,
        shape: &BatchShape,
        before: TransactionStatus,
        splice: &mut Splice<'_>,
    ) {
        if !self.client.possessions.is_due() || self.client.possessions.is_asked() {
            return;
        }
        let stands_alone = match shape.queries {
            1 => shape.messages == 1,
            0 => shape.syncs == 1 && shape.ends_with_sync,
            _ => false,
        };
        let ends = match before {
            TransactionStatus::Idle => !shape.marks.has(Marks::BEGINS),
            _ => shape.marks.has(Marks::ENDS) && !shape.marks.has(Marks::BEGINS),
        };
        let plain = !shape.marks.has(Marks::COPIES)
            && self.client.pass == 0
            && self.server.statements.unnamed != Unnamed::Untracked;
        if stands_alone && ends && plain {
            let sql = self.begin_question();
            splice.put(|out| write_query(out, &sql));
        }
    }

    /// Asks the server when the transaction has ended, if it was not asked before.
    #[inline]
    pub(super) fn ask_at_rest(&mut self) -> bool {
        let possessions = &self.client.possessions;
        if !possessions.is_due() || possessions.is_asked() || self.server.reusable().is_none() {
            return false;
        }
        let sql = self.begin_question();
        self.server.outbox.append(|out| write_query(out, &sql));
        true
    }

    fn begin_question(&mut self) -> String {
        let possessions = &mut self.client.possessions;
        let asked = possessions.marks.questions(possessions.held);
        possessions.marks = Marks::NONE;
        possessions.question = Some(Box::new(Question {
            asked,
            settings: Vec::new(),
            channels: Vec::new(),
            held: Marks::NONE,
            failed: false,
        }));
        self.client.held_back = HeldBack::UntilAnswered;
        let _sent = self.server.ledger.request(Request::Query, Deal::Read, 0);
        self.server.statements.unnamed = Unnamed::None;
        let user = self.server.welcome.find("session_authorization");
        question(asked, &self.interners.custom_settings(), user)
    }

    /// A row of the answer.
    pub(super) fn take_answer_row(&mut self, body: &[u8]) {
        let Some(question) = &mut self.client.possessions.question else {
            return;
        };
        let row = read_data_row(body).unwrap_or_default();
        let [Some(kind), Some(name), Some(value)] = row[..] else {
            question.failed = true;
            return;
        };
        match kind {
            b"l" => match from_hex(name) {
                Some(channel) => {
                    question.channels.push(channel.into_bytes().into());
                    question.held |= Marks::LISTEN;
                }
                None => question.failed = true,
            },
            b"s" => match (std::str::from_utf8(name), from_hex(value)) {
                (Ok(name), Some(value)) => question.settings.push((name.to_owned(), value)),
                _ => question.failed = true,
            },
            _ => match KINDS.iter().find(|k| k.letter.as_bytes() == kind) {
                Some(kind) => question.held |= kind.marks,
                None => question.failed = true,
            },
        }
    }

    /// The server could not answer.
    pub(super) fn fail_answer(&mut self) {
        if let Some(question) = &mut self.client.possessions.question {
            question.failed = true;
        }
    }

    /// The answer is here.
    pub(super) fn end_question(&mut self) -> Result<(), Outcome> {
        let now = self.look_at_clock();
        let status = self.server.ledger.status();
        if self.server.ledger.outstanding() == 0 {
            let idle = status == TransactionStatus::Idle;
            self.meter.query = None;
            self.meter.idle_since = (!idle).then_some(now);
            self.meter.transaction = self.meter.transaction.filter(|_| !idle);
        }
        let Some(question) = self.client.possessions.question.take() else {
            return Ok(());
        };
        let Question {
            asked,
            settings,
            channels,
            held,
            failed,
        } = *question;
        let possessions = &mut self.client.possessions;
        if status != TransactionStatus::Idle {
            // The statement did not end the transaction after all: asked again when it ends.
            possessions.marks |= asked;
            return Ok(());
        }
        if failed {
            // A statement_timeout, say. It is asked again after the client's next statement.
            possessions.held |= Marks::UNKNOWN;
            return self.judge_leftovers();
        }
        possessions.held = possessions.held.without(asked | Marks::UNKNOWN) | held;
        if possessions.is_untraced {
            possessions.held |= Marks::SETTINGS;
        }
        if asked.has(Marks::SETTINGS) {
            self.take_over_settings(&settings);
        }
        if asked.has(Marks::LISTEN) {
            self.note_channels(channels);
        }
        self.server.suspect = !self.client.possessions.held.is_empty();
        self.judge_leftovers()
    }

    fn judge_leftovers(&mut self) -> Result<(), Outcome> {
        let held = self.client.possessions.held;
        if held.is_empty() || self.rules.leftovers != Leftovers::Refuse {
            return Ok(());
        }
        let what: Vec<&str> = reasons(held).map(|kind| kind.what).collect();
        let refusal = Refusal::fatal(
            "0A000",
            format!("the session holds {}, which only one server connection can have", what.join(" and ")),
        )
        .detail("on_session_state is \"error\" for this database.")
        .hint("Set on_session_state = \"pin\" to let such sessions keep their server connection, or use a pool in session mode.");
        Err(refusal.into())
    }

    /// What the server says is set is the client's from now on, and what it has reset is as it was
    /// at login: that goes with the client's next statement.
    fn take_over_settings(&mut self, found: &[(String, String)]) {
        let pairs = found.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let found = Settings::from_pairs(pairs);
        let mut mine: Option<Settings> = self.own_settings(&found);
        let startup = Arc::clone(&self.client.possessions.startup);
        for (name, value) in startup.iter() {
            if found.find(name).is_some() {
                continue;
            }
            mine = Some(mine.as_ref().unwrap_or(&found).with(name, Some(value)));
            let welcome = &self.server.welcome;
            let told = self.client.settings.find(name).or(welcome.find(name));
            if welcome.find(name).is_some() && told != Some(value) {
                let report = |out: &mut Vec<u8>| write_parameter_status(out, name, value);
                self.client.outbox.append(report);
            }
        }
        self.server.settings = self.interners.settings(found);
        self.client.settings = match mine {
            Some(mine) => self.interners.settings(mine),
            None => Arc::clone(&self.server.settings),
        };
    }

    /// A text that names a statement which the client has prepared by protocol means that one, which
    /// the server knows by another name. `None`: the text goes through as it is.
    pub(super) fn enter_by_name(
        &mut self,
        text: &[u8],
        here: usize,
        shape: &mut BatchShape,
        splice: &mut Splice<'_>,
    ) -> Option<Step> {
        if self.client.statements.named_len() == 0 || !may_name_statement(text) {
            return None;
        }
        let named = by_name(text)?;
        let (ByName::Deallocate(name) | ByName::Execute(name)) = &named;
        let statement = self.client.statements.find(&name.name)?.clone();
        if self.server.ledger.outstanding() > 0 || !splice.is_empty() {
            return Some(Step::WaitForAnswers);
        }
        let status = self.server.ledger.status();
        if status == TransactionStatus::Failed {
            return None;
        }
        if let ByName::Deallocate(name) = &named {
            // The server goes on holding it for others.
            self.client.statements.remove(&name.name);
            self.client.outbox.append(|out| {
                write_command_complete(out, "DEALLOCATE");
                write_ready_for_query(out, status);
            });
            return Some(Step::Done(here));
        }
        self.raise(statement.marks() | Marks::ALL, statement.query(), shape);
        let ops = self.forget_unnamed();
        self.ensure_held(&statement, splice);
        if self.server.ledger.outstanding() > 0 {
            splice.put(write_sync);
            let _sent = self.server.ledger.request(Request::Sync, Deal::Skip, 0);
            self.server.journal.note_sync();
        }
        self.request(Request::Query, ops);
        let mut sql = text[..name.place.start].to_vec();
        statement.write_server_name(&mut sql);
        sql.extend_from_slice(&text[name.place.end..]);
        splice.put(|out| write_query_bytes(out, &sql));
        Some(Step::Done(here))
    }
}

/// Whether a text may be about a whole database: DROP, ALTER or CREATE.
#[inline]
fn may_want_database(text: &[u8]) -> bool {
    let first = text.trim_ascii_start().first();
    matches!(
        first,
        Some(b'd' | b'D' | b'a' | b'A' | b'c' | b'C' | b'/' | b'-' | b';')
    )
}

/// Whether a text may be one EXECUTE or DEALLOCATE.
#[inline]
pub(crate) fn may_name_statement(text: &[u8]) -> bool {
    let first = text.trim_ascii_start().first();
    matches!(first, Some(b'd' | b'D' | b'e' | b'E' | b'/' | b'-' | b';'))
        && text.len() <= BY_NAME_LEN_MAX
}

fn write_query_bytes(out: &mut Vec<u8>, sql: &[u8]) {
    use pooler_protocol::frame::write_message;
    write_message(out, pooler_protocol::frontend::tag::QUERY, |b| {
        b.extend_from_slice(sql);
        b.push(0);
    });
}

fn note_custom(client: &mut ClientSide, interners: &crate::server::Interners, name: &str) {
    if !interners.note_custom_setting(name) {
        client.possessions.is_untraced = true;
    }
}

fn from_hex(hex: &[u8]) -> Option<String> {
    let digit = |b: u8| char::from(b).to_digit(16);
    let mut bytes = Vec::with_capacity(hex.len() / 2);
    for pair in hex.chunks(2) {
        let &[high, low] = pair else { return None };
        bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_text_is_read_back() {
        assert_eq!(from_hex(b"4ac3bc"), Some("J\u{fc}".into()));
        for bad in [&b"4"[..], b"4g", b"ff"] {
            assert_eq!(from_hex(bad), None);
        }
    }
}
