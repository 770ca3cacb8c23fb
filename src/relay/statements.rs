//! Statements on their way to the server: the client's names become the pooler's, and what the
//! server lacks is prepared in front of what needs it, in the same write.

use std::sync::Arc;

use pooler_protocol::frame::{HEADER_LEN, Header};
use pooler_protocol::frontend::{
    BindView, ParseView, Target, tag, write_bind_front, write_parse, write_statement_target,
};
use pooler_protocol::ledger::{Answer, Deal, Request, Sent};
use pooler_protocol::prepared::{NO_STATEMENT, SERVER_NAME_PREFIX, Statement, Unnamed};
use pooler_protocol::statement::scan;

use super::position::{QUESTION, asks_position};
use super::requests::{BatchShape, Step};
use super::{Outcome, Relay};
use crate::buffer::{SCRATCH_LEN, Splice};
use crate::error::Refusal;

/// The longest named Parse: its text must be kept to prepare it elsewhere.
const NAMED_PARSE_LEN_MAX: usize = 16 * 1024 * 1024;

/// The longest unnamed Parse whose text is kept; a longer one streams through and belongs to its
/// server.
const UNNAMED_PARSE_LEN_MAX: usize = SCRATCH_LEN;

impl Relay<'_> {
    /// A simple Query drops the unnamed statement on both sides.
    #[inline]
    pub(super) fn forget_unnamed(&mut self) -> u8 {
        let server = &mut *self.server;
        let none = self.client.statements.unnamed().is_none()
            && server.statements.unnamed == Unnamed::None;
        if none {
            return 0;
        }
        server
            .journal
            .replace_unnamed(&mut self.client.statements, &mut server.statements, None);
        1
    }

    pub(super) fn enter_parse(
        &mut self,
        header: Header,
        body: &[u8],
        at: usize,
        splice: &mut Splice<'_>,
        shape: &mut BatchShape,
    ) -> Result<Step, Outcome> {
        let here = body.len() + HEADER_LEN;
        let unnamed = match body.first() {
            Some(first) => *first == 0,
            None if header.body_len() > 0 => return Ok(Step::More),
            None => false,
        };
        if unnamed && header.len > UNNAMED_PARSE_LEN_MAX {
            let server = &mut *self.server;
            server
                .journal
                .replace_unnamed_untracked(&mut self.client.statements, &mut server.statements);
            self.suspect_text(body, here == header.len, shape, splice);
            self.request(Request::Parse, 1);
            return Ok(self.keep(header, here, at, splice));
        }
        if header.len > NAMED_PARSE_LEN_MAX {
            return Err(
                Refusal::fatal("54000", "the text of a prepared statement is too long")
                    .detail(format!(
                        "A named Parse may have {NAMED_PARSE_LEN_MAX} bytes."
                    ))
                    .hint("Send it as the unnamed statement, or as a simple query.")
                    .into(),
            );
        }
        if here < header.len {
            return Ok(Step::More);
        }
        let Some(view) = ParseView::read(body) else {
            // The server's own error is better than ours.
            self.server.statements.unnamed = Unnamed::Unknown;
            self.request(Request::Parse, 0);
            return Ok(self.keep(header, here, at, splice));
        };
        self.look_for_caller(view.query());
        self.speak_of_name(view.query(), shape, splice);
        if shape.messages == 1 {
            self.forget_sequences(scan(view.query()), shape, splice);
        }
        if self.rules.shows_position && asks_position(view.query()) {
            let text = [QUESTION.as_bytes(), b"\0\0\0"].concat();
            let view = ParseView {
                name: view.name,
                text: &text,
            };
            if unnamed {
                self.parse_unnamed(&view)?;
                splice.put(|out| write_parse(out, b"", &text));
                return Ok(Step::Done(here));
            }
            return self.parse_named(&view, here, splice);
        }
        if unnamed {
            self.parse_unnamed(&view)?;
            return Ok(self.keep(header, here, at, splice));
        }
        self.parse_named(&view, here, splice)
    }

    /// Whether a message about the client's statement `name`, which is `statement` if there is one,
    /// comes too early: it would not share the fate of what it builds upon.
    #[inline]
    fn must_wait(&self, name: &[u8], statement: Option<&Statement>) -> bool {
        let journal = &self.server.journal;
        match name {
            _ if journal.is_synced() => false,
            b"" => journal.must_wait_for_unnamed(),
            _ => journal.must_wait(name, statement.map(Statement::id)),
        }
    }

    fn parse_unnamed(&mut self, view: &ParseView<'_>) -> Result<(), Outcome> {
        let known = self.client.statements.unnamed();
        let statement = match known.filter(|s| s.text() == view.text) {
            Some(same) => Arc::clone(same),
            None => self.intern(view.text)?,
        };
        let server = &mut *self.server;
        server.journal.replace_unnamed(
            &mut self.client.statements,
            &mut server.statements,
            Some(statement),
        );
        self.request(Request::Parse, 1);
        Ok(())
    }

    fn parse_named(
        &mut self,
        view: &ParseView<'_>,
        here: usize,
        splice: &mut Splice<'_>,
    ) -> Result<Step, Outcome> {
        if let Some(taken) = self.client.statements.find(view.name).cloned() {
            if self.must_wait(view.name, Some(&taken)) {
                return Ok(Step::Wait);
            }
            // The name is taken: preparing what the server holds once more makes the server say so
            // (42P05), with all that an error means for the transaction.
            self.ensure_held(&taken, splice);
            self.server.journal.note_taken(view.name);
            self.request(Request::Parse, 1);
            splice.put(|out| {
                let mut name = Vec::new();
                taken.write_server_name(&mut name);
                write_parse(out, &name, view.text);
            });
            return Ok(Step::Done(here));
        }
        let statement = self.intern(view.text)?;
        if self.must_wait(view.name, Some(&statement)) {
            return Ok(Step::Wait);
        }
        let held = self.server.statements.touch(statement.id());
        if !held {
            self.make_room(splice);
        }
        if held && self.server.ledger.may_stray() {
            if !self.server.ledger.is_copying_in() {
                return Ok(Step::WaitForAnswers);
            }
            // In the middle of the data it ends the COPY, and does nothing else.
            self.request(Request::Parse, 0);
            put_parse(&statement, splice);
            return Ok(Step::Done(here));
        }
        self.counters.statements_named.add(1);
        let server = &mut *self.server;
        let client = &mut self.client.statements;
        if held {
            server
                .journal
                .name(client, view.name, Arc::clone(&statement));
            let entered = server.ledger.answer(Answer::ParseComplete, 1);
            debug_assert!(entered);
            self.counters.statements_reused.add(1);
            return Ok(Step::Done(here));
        }
        server.journal.hold(&mut server.statements, statement.id());
        server
            .journal
            .name(client, view.name, Arc::clone(&statement));
        self.request(Request::Parse, 2);
        self.counters.statements_prepared.add(1);
        put_parse(&statement, splice);
        Ok(Step::Done(here))
    }

    fn intern(&self, text: &[u8]) -> Result<Arc<Statement>, Outcome> {
        self.interners
            .statement(text)
            .map_err(|e| Refusal::statement_memory(e.limit).into())
    }

    #[inline]
    pub(super) fn enter_bind(
        &mut self,
        header: Header,
        body: &[u8],
        at: usize,
        splice: &mut Splice<'_>,
        shape: &mut BatchShape,
    ) -> Result<Step, Outcome> {
        let here = body.len() + HEADER_LEN;
        let Some(names) = BindView::read(body) else {
            if here < header.len && here < SCRATCH_LEN {
                return Ok(Step::More);
            }
            self.request(Request::Bind, 0);
            return Ok(self.keep(header, here, at, splice));
        };
        if names.statement.is_empty() {
            if self.must_wait(b"", None) {
                return Ok(Step::Wait);
            }
            let statement = self.client.statements.unnamed().cloned();
            if let Some(statement) = &statement {
                self.speak_of_name(statement.query(), shape, splice);
                self.forget_sequences(statement.marks(), shape, splice);
                self.suspect_statement(statement, body, shape);
            }
            self.ensure_unnamed(splice);
            self.request(Request::Bind, 0);
            return Ok(self.keep(header, here, at, splice));
        }
        shape.uses_statements = true;
        let known = self.client.statements.find(names.statement).cloned();
        if self.must_wait(names.statement, known.as_deref()) {
            return Ok(Step::Wait);
        }
        match known {
            Some(statement) => {
                self.speak_of_name(statement.query(), shape, splice);
                self.forget_sequences(statement.marks(), shape, splice);
                self.suspect_statement(&statement, body, shape);
                self.ensure_held(&statement, splice);
                self.request(Request::Bind, 0);
                let mut name = [0; 24];
                let name = server_name(statement.id(), &mut name);
                splice.put(|out| write_bind_front(out, &names, header.body_len(), name));
            }
            None => {
                self.request(Request::Bind, 0);
                let name = unknown_name(names.statement);
                splice.put(|out| write_bind_front(out, &names, header.body_len(), &name));
            }
        }
        splice.keep(at + HEADER_LEN + names.names_len(), at + here);
        self.client.pass = header.len - here;
        Ok(Step::Done(here))
    }

    pub(super) fn enter_describe(
        &mut self,
        body: &[u8],
        here: usize,
        at: usize,
        splice: &mut Splice<'_>,
    ) -> Result<Step, Outcome> {
        match Target::read(body) {
            Some(Target::Statement(b"")) => {
                if self.must_wait(b"", None) {
                    return Ok(Step::Wait);
                }
                self.ensure_unnamed(splice);
                self.request(Request::DescribeStatement, 0);
                splice.keep(at, at + here);
            }
            Some(Target::Statement(name)) => {
                let known = self.client.statements.find(name).cloned();
                if self.must_wait(name, known.as_deref()) {
                    return Ok(Step::Wait);
                }
                if let Some(statement) = &known {
                    self.ensure_held(statement, splice);
                }
                self.request(Request::DescribeStatement, 0);
                splice.put(|out| match &known {
                    Some(statement) => {
                        let mut buffer = [0; 24];
                        let name = server_name(statement.id(), &mut buffer);
                        write_statement_target(out, tag::DESCRIBE, name);
                    }
                    None => write_statement_target(out, tag::DESCRIBE, &unknown_name(name)),
                });
            }
            Some(Target::Portal(_)) | None => {
                self.request(Request::DescribePortal, 0);
                splice.keep(at, at + here);
            }
        }
        Ok(Step::Done(here))
    }

    /// Closing a name of the client's leaves the statement on the server, for others and for later.
    pub(super) fn enter_close(
        &mut self,
        body: &[u8],
        here: usize,
        at: usize,
        splice: &mut Splice<'_>,
    ) -> Step {
        let server = &mut *self.server;
        match Target::read(body) {
            Some(Target::Statement(b"")) => {
                server.journal.replace_unnamed(
                    &mut self.client.statements,
                    &mut server.statements,
                    None,
                );
                self.request(Request::Close, 1);
                splice.keep(at, at + here);
            }
            Some(Target::Statement(name)) if server.journal.must_wait(name, None) => {
                return Step::Wait;
            }
            Some(Target::Statement(name)) => {
                let known = server.journal.forget(&mut self.client.statements, name);
                if server.ledger.may_stray() {
                    // Its place among the replies is not known: the server closes what it never had.
                    self.request(Request::Close, u8::from(known));
                    splice.put(|out| write_statement_target(out, tag::CLOSE, NO_STATEMENT));
                    return Step::Done(here);
                }
                let entered = server.ledger.answer(Answer::CloseComplete, u8::from(known));
                debug_assert!(entered);
            }
            Some(Target::Portal(_)) | None => {
                self.request(Request::Close, 0);
                splice.keep(at, at + here);
            }
        }
        Step::Done(here)
    }

    /// The server holds `statement` when what is put from here on arrives.
    #[inline]
    pub(super) fn ensure_held(&mut self, statement: &Statement, splice: &mut Splice<'_>) {
        let id = statement.id();
        if self.server.statements.touch(id) {
            if !self.server.replay.running {
                if self.server.journal.is_empty() {
                    statement.note_accepted(self.rules.pool);
                }
                self.counters.statements_reused.add(1);
                return;
            }
            // Once more, and this time from its text: the plan that it holds is out of date.
            self.give_up(id, splice);
        } else {
            self.make_room(splice);
        }
        let server = &mut *self.server;
        server.journal.hold(&mut server.statements, id);
        let sent = server.ledger.request(Request::Parse, Deal::Skip, 1);
        debug_assert_eq!(sent, Sent::Entered);
        self.counters.statements_prepared.add(1);
        put_parse(statement, splice);
    }

    fn make_room(&mut self, splice: &mut Splice<'_>) {
        let limit = self.rules.max_prepared_statements;
        while let Some(oldest) = self.server.statements.evictable(limit) {
            self.counters.statements_evicted.add(1);
            self.give_up(oldest, splice);
        }
    }

    fn give_up(&mut self, id: u64, splice: &mut Splice<'_>) {
        let server = &mut *self.server;
        server.journal.release(&mut server.statements, id);
        let sent = server.ledger.request(Request::Close, Deal::Skip, 1);
        debug_assert_eq!(sent, Sent::Entered);
        let mut name = [0; 24];
        let name = server_name(id, &mut name);
        splice.put(|out| write_statement_target(out, tag::CLOSE, name));
    }

    /// The server's unnamed statement is the client's when what is put from here on arrives.
    #[inline]
    fn ensure_unnamed(&mut self, splice: &mut Splice<'_>) {
        let mine = self.client.statements.unnamed().cloned();
        let server = &mut *self.server;
        let request = match (&mine, server.statements.unnamed) {
            (Some(mine), Unnamed::Is(id)) if mine.id() == id => return,
            (None, Unnamed::None | Unnamed::Untracked) => return,
            (Some(_), _) => Request::Parse,
            (None, _) => Request::Close,
        };
        server
            .journal
            .replay_unnamed(&self.client.statements, &mut server.statements);
        let sent = server.ledger.request(request, Deal::Skip, 1);
        debug_assert_eq!(sent, Sent::Entered);
        splice.put(|out| match &mine {
            Some(statement) => write_parse(out, b"", statement.text()),
            None => write_statement_target(out, tag::CLOSE, b""),
        });
    }
}

fn put_parse(statement: &Statement, splice: &mut Splice<'_>) {
    let mut name = [0; 24];
    let name = server_name(statement.id(), &mut name);
    splice.put(|out| write_parse(out, name, statement.text()));
}

/// The name under which servers hold the statement of this id, without allocating.
#[inline]
fn server_name(id: u64, buffer: &mut [u8; 24]) -> &[u8] {
    let prefix = SERVER_NAME_PREFIX.as_bytes();
    let mut at = buffer.len();
    let mut rest = id;
    loop {
        at -= 1;
        buffer[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    at -= prefix.len();
    buffer[at..at + prefix.len()].copy_from_slice(prefix);
    &buffer[at..]
}

/// What no name of a statement that a server holds ends with.
pub(super) const UNKNOWN_NAME_END: &str = "?";

/// A name that the client has not prepared, in a form that no server holds, so that the server
/// says 26000. It differs from the client's only if that looks like one of the pooler's.
fn unknown_name(name: &[u8]) -> Vec<u8> {
    let mut unknown = name.to_vec();
    if name.starts_with(SERVER_NAME_PREFIX.as_bytes()) {
        unknown.extend_from_slice(UNKNOWN_NAME_END.as_bytes());
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use pooler_protocol::prepared::write_server_name;

    #[test]
    fn both_ways_to_write_a_server_name_agree() {
        for id in [0, 1, 9, 10, 12_345, u64::MAX] {
            let mut long = Vec::new();
            write_server_name(id, &mut long);
            assert_eq!(server_name(id, &mut [0; 24]), long);
        }
    }

    #[test]
    fn an_unknown_name_is_none_of_the_poolers() {
        assert_eq!(unknown_name(b"mine"), b"mine");
        assert_eq!(unknown_name(b"_p1"), b"_p1?");
    }
}
