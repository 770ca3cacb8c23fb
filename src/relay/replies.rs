//! From the server to the client: the ledger says whose each message is; rows stream through.

use std::task::{Context, Poll};

use pooler_protocol::backend::{
    ErrorView, read_parameter_status, tag, write_error_renamed, write_parameter_status,
};
use pooler_protocol::frame::{HEADER_LEN, Header};
use pooler_protocol::ledger::{Deal, Verdict, Violation};
use pooler_protocol::naming::SETTING;
use pooler_protocol::prepared::{SERVER_NAME_PREFIX, write_server_name};
use pooler_protocol::route::changes_catalogue;

use super::statements::UNKNOWN_NAME_END;
use super::{Ended, Outcome, Relay};
use crate::buffer::{SCRATCH_LEN, Splice};
use crate::error::ServerFault;
use crate::server::Pass;

/// The longest ErrorResponse that is seen whole; of a longer one the front is enough.
const ERROR_LEN_MAX: usize = 8 * 1024;

/// The longest of the other messages that must be seen whole.
const WHOLE_LEN_MAX: usize = SCRATCH_LEN;

/// What PostgreSQL calls the place where a cached plan is found to be out of date; unlike the
/// message it is the same in every language.
const STALE_PLAN_ROUTINE: &[u8] = b"RevalidateCachedQuery";

impl Relay<'_> {
    /// Reads the server once and sends what it said. Returns whether anything moved.
    #[inline]
    pub(super) fn read_replies(&mut self, cx: &mut Context<'_>) -> Result<bool, Outcome> {
        let client = &mut *self.client;
        match client.outbox.poll_flush(&mut client.stream, cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => {
                client.ended = Ended::Gone;
                return Ok(true);
            }
            Poll::Pending => return Ok(false),
        }
        let carried = self.server.carry.len();
        let room = &mut self.scratch.input[carried..carried + SCRATCH_LEN];
        let n = match self.server.stream.poll_read(cx, room) {
            Poll::Ready(Ok(0)) => return Err(ServerFault::Closed.into()),
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(e)) => return Err(ServerFault::Io(e).into()),
            Poll::Pending => return Ok(false),
        };
        let mut input = std::mem::take(&mut self.scratch.input);
        if carried > 0 {
            input[..carried].copy_from_slice(self.server.carry.as_slice());
        }
        let result = self.give(cx, &input[..carried + n]);
        self.scratch.input = input;
        result?;
        if self.server.replay.due && self.server.ledger.outstanding() == 0 {
            self.repeat(cx)?;
        }
        Ok(true)
    }

    #[inline]
    fn give(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Result<(), Outcome> {
        let mut output = std::mem::take(&mut self.scratch.output);
        let mut splice = Splice::new(input, &mut output);
        let judged = self.judge_all(input, &mut splice);
        // What was right before a fault still belongs to the client.
        let begun = !splice.is_at_mark();
        let bytes = splice.finish();
        if !bytes.is_empty() {
            self.counters.sent_bytes.add(bytes.len() as u64);
            // The client has seen something of the batch: it cannot be repeated unseen.
            self.server.replay.batch.clear();
            let client = &mut *self.client;
            if begun && let Some(rerun) = client.stint.rerun() {
                rerun.spoil();
            }
            if client.outbox.send(&mut client.stream, cx, bytes).is_err() {
                client.ended = Ended::Gone;
            }
        }
        self.scratch.put_back(output);
        let used = judged?;
        if self.rules.attention.is_on {
            self.server.watch.note_received(used);
        }
        if used < input.len() {
            self.check_beginning(input[used])?;
        }
        self.server.carry.replace(&input[used..]);
        Ok(())
    }

    /// The rest of a message that nobody asked for need not be waited for.
    fn check_beginning(&self, tag: u8) -> Result<(), Outcome> {
        let asynchronous = matches!(
            tag,
            tag::NOTICE_RESPONSE
                | tag::PARAMETER_STATUS
                | tag::NOTIFICATION_RESPONSE
                | tag::ERROR_RESPONSE
        );
        if asynchronous || self.server.ledger.reusable().is_none() {
            return Ok(());
        }
        Err(ServerFault::Violation(Violation::Unasked { tag }).into())
    }

    #[inline]
    fn judge_all(&mut self, input: &[u8], splice: &mut Splice<'_>) -> Result<usize, Outcome> {
        let mut at = self.server.pass.rest.min(input.len());
        if at > 0 {
            if self.server.pass.deal == Deal::Forward {
                splice.keep(0, at);
            }
            self.server.pass.rest -= at;
        }
        loop {
            at = self.pass_rows(input, at, splice)?;
            let Some(header) = Header::read(&input[at..]).map_err(ServerFault::Length)? else {
                return Ok(at);
            };
            let bytes = &input[at..];
            let here = header.len.min(bytes.len());
            let answers = match header.tag {
                tag::DATA_ROW => self.client.possessions.is_asked(),
                tag::NOTIFICATION_RESPONSE => self.client.possessions.listening.is_some(),
                _ => false,
            };
            if here < wanted(header, answers)? {
                return Ok(at);
            }
            self.judge(header, &bytes[HEADER_LEN..here], at, splice)?;
            at += here;
        }
    }

    /// Rows are most of what a server sends: as long as they are due, nothing but their length
    /// matters.
    #[inline]
    fn pass_rows(
        &mut self,
        input: &[u8],
        start: usize,
        splice: &mut Splice<'_>,
    ) -> Result<usize, Outcome> {
        let is_row = |at: usize| matches!(input.get(at), Some(&(tag::DATA_ROW | tag::COPY_DATA)));
        if !is_row(start) {
            return Ok(start);
        }
        let Some(deal) = self.server.ledger.rows_to() else {
            return Ok(start);
        };
        if deal == Deal::Read {
            return Ok(start);
        }
        let mut at = start;
        while is_row(at) {
            let Some(header) = Header::read(&input[at..]).map_err(ServerFault::Length)? else {
                break;
            };
            let here = header.len.min(input.len() - at);
            at += here;
            if here < header.len {
                let rest = header.len - here;
                let deal = match self.client.stint.is_rerun_due() {
                    true => Deal::Skip,
                    false => deal,
                };
                self.server.pass = Pass { rest, deal };
                break;
            }
        }
        if deal == Deal::Forward && !self.client.stint.is_rerun_due() {
            if let Some(rerun) = self.client.stint.rerun() {
                rerun.spoil();
            }
            splice.keep(start, at);
        }
        Ok(at)
    }

    /// Judges one message whose body begins with `body` and which stands at `at`.
    #[inline]
    fn judge(
        &mut self,
        header: Header,
        body: &[u8],
        at: usize,
        splice: &mut Splice<'_>,
    ) -> Result<(), Outcome> {
        self.put_ready_answers(splice);
        if header.tag == tag::ERROR_RESPONSE {
            self.check_asked(body)?;
        }
        let status = body.first().copied().unwrap_or(0);
        let verdict = self
            .server
            .ledger
            .response(header.tag, status)
            .map_err(ServerFault::Violation)?;
        if verdict.kept > 0 {
            self.server.journal.keep(verdict.kept);
        }
        self.server.pass = Pass {
            rest: header.len - HEADER_LEN - body.len(),
            deal: verdict.deal,
        };
        if verdict.deal == Deal::Forward && self.client.stint.is_rerun_due() {
            return self.throw_away(header.tag);
        }
        match header.tag {
            tag::READY_FOR_QUERY if verdict.deal == Deal::Read => {
                self.end_question()?;
                return self.end_thrown_away();
            }
            tag::READY_FOR_QUERY => {
                if self.server.replay.due {
                    return Ok(());
                }
                self.server.replay.running = false;
                if verdict.deal == Deal::Forward {
                    if !self.hold_ready() {
                        splice.keep(at, at + header.len);
                    }
                    // Answers of our own to what may be done again go with the first of the server's.
                    let mut held = false;
                    if let Some(rerun) = self.client.stint.rerun() {
                        rerun.note_answered();
                        held = self.server.ledger.is_busy();
                    }
                    splice.mark();
                    if !held {
                        self.put_ready_answers(splice);
                    }
                    self.end_work(at + header.len)?;
                }
                return Ok(());
            }
            tag::ERROR_RESPONSE => return self.judge_error(header, body, at, verdict, splice),
            tag::DATA_ROW if verdict.deal == Deal::Read => self.take_answer_row(body),
            tag::COMMAND_COMPLETE if verdict.deal == Deal::Forward => self.note_command(body),
            tag::PARAMETER_STATUS => {
                if let Some(own) = self.note_parameter(body, verdict.deal) {
                    splice.put(|out| write_parameter_status(out, SETTING, &own));
                    return Ok(());
                }
            }
            tag::NOTIFICATION_RESPONSE if !self.is_for_client(body) => return Ok(()),
            _ => {}
        }
        if verdict.deal == Deal::Forward {
            splice.keep(at, at + HEADER_LEN + body.len());
        }
        self.put_ready_answers(splice);
        Ok(())
    }

    /// The answer of a server that was the wrong one is nobody's. When it owes nothing more, what it was
    /// asked goes elsewhere.
    #[cold]
    fn throw_away(&mut self, tag: u8) -> Result<(), Outcome> {
        self.server.pass.deal = Deal::Skip;
        while let Some((_answer, kept)) = self.server.ledger.take_answer() {
            self.server.journal.keep(kept);
        }
        match tag {
            tag::READY_FOR_QUERY => self.end_thrown_away(),
            _ => Ok(()),
        }
    }

    /// A question of the pooler's own may be behind what is thrown away.
    #[inline]
    fn end_thrown_away(&mut self) -> Result<(), Outcome> {
        if self.client.stint.is_rerun_due() && self.server.ledger.outstanding() == 0 {
            return Err(self.elsewhere());
        }
        Ok(())
    }

    fn elsewhere(&mut self) -> Outcome {
        match self.client.stint.take_unanswered() {
            Some(again) => Outcome::Elsewhere(again),
            None => ServerFault::Closed.into(),
        }
    }

    /// An error that a free server sends is about that server, and nothing to its last client.
    fn check_asked(&self, body: &[u8]) -> Result<(), Outcome> {
        let free = self.server.ledger.reusable().is_some();
        if free && self.rules.release_between_transactions {
            let goodbye = ErrorView::new(body).message();
            return Err(ServerFault::Io(std::io::Error::other(goodbye)).into());
        }
        Ok(())
    }

    /// Replies of the pooler's own go out when all before them has (trap 2).
    #[inline]
    fn put_ready_answers(&mut self, splice: &mut Splice<'_>) {
        while let Some((answer, kept)) = self.server.ledger.take_answer() {
            self.server.journal.keep(kept);
            splice.put(|out| out.extend_from_slice(answer.bytes()));
        }
    }

    fn judge_error(
        &mut self,
        header: Header,
        body: &[u8],
        at: usize,
        verdict: Verdict,
        splice: &mut Splice<'_>,
    ) -> Result<(), Outcome> {
        let error = ErrorView::new(body);
        if verdict.deal == Deal::Skip {
            // Only the session's settings are asked for this way; the client's own statement may
            // be behind them already, so neither it nor the server can go on.
            return Err(ServerFault::Settings(error.message()).into());
        }
        self.server.said_goodbye |= error.is_fatal();
        if verdict.deal == Deal::Read {
            tracing::debug!(
                "the server cannot say what its session holds: {}",
                error.message()
            );
            self.fail_answer();
            return Ok(());
        }
        let mut refused = None;
        if verdict.voided > 0 {
            let server = &mut *self.server;
            refused = server.journal.void(
                &mut self.client.statements,
                &mut server.statements,
                verdict.voided,
                verdict.failed,
            );
        }
        if error.field(b'R') == Some(STALE_PLAN_ROUTINE) {
            let repeatable = splice.is_empty()
                && !self.server.replay.batch.is_empty()
                && !self.server.replay.running;
            if repeatable {
                self.server.replay.due = true;
                return Ok(());
            }
            // It cannot be repeated; at least the next use must not meet the same plan.
            self.server.dirty = true;
        }
        if let Some(rerun) = self.client.stint.rerun()
            && rerun.takes(&error)
        {
            splice.back_to_mark();
            self.server.pass.deal = Deal::Skip;
            if error.is_fatal() {
                return Err(self.elsewhere());
            }
            return Ok(());
        }
        let sqlstate = error.sqlstate().unwrap_or("XX000");
        self.counters.errors.note(sqlstate);
        if self.rules.attention.is_on {
            self.server.watch.note_error(sqlstate);
        }
        if let Some((pooler_name, client_name)) = self.renamed(&error, refused) {
            splice.put(|out| write_error_renamed(out, body, &pooler_name, &client_name));
        } else {
            splice.keep(at, at + HEADER_LEN + body.len());
        }
        debug_assert!(header.len >= HEADER_LEN);
        Ok(())
    }

    /// An error that names a statement names it as the pooler does: the name to be replaced, and
    /// the client's own, which is `refused` if the server refused a Parse of that.
    fn renamed(
        &self,
        error: &ErrorView<'_>,
        refused: Option<Box<[u8]>>,
    ) -> Option<(Vec<u8>, Vec<u8>)> {
        if !matches!(error.sqlstate(), Some("26000" | "42P05")) || self.server.pass.rest > 0 {
            return None;
        }
        let message = error.message();
        let (_, rest) = message.split_once(&format!("\"{SERVER_NAME_PREFIX}"))?;
        let (rest, _) = rest.split_once('"')?;
        if let Some(unknown) = rest.strip_suffix(UNKNOWN_NAME_END) {
            let client_name = format!("{SERVER_NAME_PREFIX}{unknown}");
            let pooler_name = format!("{SERVER_NAME_PREFIX}{rest}");
            return Some((pooler_name.into_bytes(), client_name.into_bytes()));
        }
        let id = rest.parse().ok()?;
        let client_name = match &refused {
            Some(name) => name,
            None => self.client.statements.name_of(id)?,
        };
        let mut pooler_name = Vec::new();
        write_server_name(id, &mut pooler_name);
        Some((pooler_name, client_name.to_vec()))
    }

    /// Some commands take the server's statements away.
    #[inline]
    fn note_command(&mut self, body: &[u8]) {
        if self.rules.attention.is_on {
            self.server.watch.note_command(body);
        }
        // The tags of nearly all statements end here.
        if matches!(body.first(), Some(b'I' | b'U')) || body.starts_with(b"SELECT ") {
            return;
        }
        let command = body.strip_suffix(b"\0").unwrap_or(body);
        if changes_catalogue(command) {
            self.interners.note_definition();
            // Others see it when the transaction has ended.
            self.server.defined = true;
        }
        // What the text made one suspect is asked about; but the pooler's own statements have gone
        // with the client's.
        if matches!(command, b"DISCARD ALL" | b"DISCARD SEQUENCES") {
            self.discard_all();
        }
        if matches!(command, b"DEALLOCATE ALL" | b"DISCARD ALL") {
            let server = &mut *self.server;
            server
                .journal
                .deallocate_all(&mut self.client.statements, &mut server.statements);
        }
    }

    /// A setting that the server reports has changed. What a client's own statement did becomes
    /// part of its settings; what the pooler's did is known already. Returns what the client is to be told of
    /// its name instead, if anything.
    fn note_parameter(&mut self, body: &[u8], deal: Deal) -> Option<String> {
        let (name, value) = read_parameter_status(body)?;
        if !self.rules.release_between_transactions {
            // Cleaning puts back and reports what this client has set, but not what a reload of the
            // configuration did meanwhile: the next client is told what was reported last.
            std::sync::Arc::make_mut(&mut self.server.welcome).put(name, value);
            return None;
        }
        if deal != Deal::Forward || is_reported_only(name) {
            return None;
        }
        self.note_reported(name, value)
    }
}

/// Parameters that the server reports and nobody can set by name.
fn is_reported_only(name: &str) -> bool {
    matches!(
        name,
        "server_version"
            | "server_encoding"
            | "integer_datetimes"
            | "is_superuser"
            | "session_authorization"
            | "in_hot_standby"
    )
}

/// How many bytes of a message must be there before it can be judged.
#[inline]
fn wanted(header: Header, answers: bool) -> Result<usize, Outcome> {
    match header.tag {
        tag::DATA_ROW | tag::NOTIFICATION_RESPONSE if !answers => Ok(HEADER_LEN),
        tag::READY_FOR_QUERY if header.len != HEADER_LEN + 1 => Err(short(header)),
        tag::READY_FOR_QUERY
        | tag::NOTIFICATION_RESPONSE
        | tag::DATA_ROW
        | tag::PARAMETER_STATUS
        | tag::COMMAND_COMPLETE
        | tag::PARSE_COMPLETE
        | tag::BIND_COMPLETE
        | tag::CLOSE_COMPLETE
        | tag::NO_DATA
        | tag::PORTAL_SUSPENDED
        | tag::EMPTY_QUERY_RESPONSE => {
            if header.len > WHOLE_LEN_MAX {
                return Err(short(header));
            }
            Ok(header.len)
        }
        tag::ERROR_RESPONSE => Ok(header.len.min(ERROR_LEN_MAX)),
        _ => Ok(HEADER_LEN),
    }
}

fn short(header: Header) -> Outcome {
    let what = format!(
        "a message {:?} of {} bytes",
        char::from(header.tag),
        header.len
    );
    ServerFault::Io(std::io::Error::new(std::io::ErrorKind::InvalidData, what)).into()
}
