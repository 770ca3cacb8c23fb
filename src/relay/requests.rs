//! From the client to the server: each message is entered in the ledger, statement names become
//! the pooler's, and what the server lacks is put in front.

use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};

use pooler_protocol::backend::TransactionStatus;
use pooler_protocol::frame::{HEADER_LEN, Header, SMALL_MESSAGE_LEN_MAX};
use pooler_protocol::frontend::{
    BindView, ParseView, Target, tag, write_bind_front, write_parse, write_statement_target,
};
use pooler_protocol::ledger::{Answer, Deal, OUTSTANDING_MAX, Request, Sent};
use pooler_protocol::prepared::{SERVER_NAME_PREFIX, Statement, Unnamed};

use super::{Ended, Fill, HeldBack, Outcome, Relay};
use crate::buffer::{SCRATCH_LEN, Splice};
use crate::error::{Refusal, ServerFault};

/// The longest named Parse: its text must be kept to prepare it elsewhere.
const NAMED_PARSE_LEN_MAX: usize = 16 * 1024 * 1024;

/// The longest unnamed Parse whose text is kept; a longer one streams through and belongs to its
/// server.
const UNNAMED_PARSE_LEN_MAX: usize = SCRATCH_LEN;

/// Bytes of the pooler's own that one read of a client may call for.
const OUTPUT_LEN_MAX: usize = 1024 * 1024;

/// A Query up to this length, in bytes, is looked at whole: DISCARD and DEALLOCATE are short.
const DEALLOCATE_LEN_MAX: usize = 128;

/// The longest batch that is kept to be sent once more.
const REPLAY_LEN_MAX: usize = 16 * 1024;

/// What was done with the message at hand.
enum Step {
    /// Decided; this many of its bytes were used.
    Done(usize),
    /// The same; what follows is not looked at before all so far is answered.
    Last(usize),
    /// It must be seen whole, and is not.
    More,
    /// It builds upon what the server has not confirmed.
    Wait,
    /// The client leaves.
    Leave,
}

/// What the messages of one read were, as far as sending them again is concerned.
#[derive(Default)]
struct BatchShape {
    syncs: usize,
    ends_with_sync: bool,
    uses_statements: bool,
    /// What was read is not used up, for want of room.
    is_cut_short: bool,
}

impl Relay<'_> {
    /// Reads the client once and sends what it said. Returns whether anything moved.
    #[inline]
    pub(super) fn read_requests(&mut self, cx: &mut Context<'_>) -> Result<bool, Outcome> {
        let server = &mut *self.server;
        match server.outbox.poll_flush(&mut server.stream, cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(e)) => return Err(self.server_write_failed(e)),
            Poll::Pending => return Ok(false),
        }
        let stalled = self.client.ended != Ended::No
            || self.server.ledger.outstanding() >= OUTSTANDING_MAX
            || self.server.replay.due
            || self.is_held_back();
        if stalled {
            return Ok(false);
        }
        if self.client.carry.len() > SCRATCH_LEN && !self.client.unread {
            return self.read_long_message(cx);
        }
        match self.client.poll_fill(cx, self.scratch) {
            Poll::Ready(Ok(Fill::Bytes(n))) => {
                self.take_requests(cx, 0..n)?;
                Ok(true)
            }
            Poll::Ready(Ok(Fill::End) | Err(_)) => {
                self.client.ended = Ended::Gone;
                Ok(true)
            }
            Poll::Pending => Ok(false),
        }
    }

    /// Whether a statement is under way that what the client sent behind it depends on.
    #[inline]
    fn is_held_back(&mut self) -> bool {
        let over = match self.client.held_back {
            HeldBack::No => return false,
            HeldBack::UntilAnswered => self.server.ledger.outstanding() == 0,
            HeldBack::UntilConfirmed => self.server.journal.is_synced(),
        };
        if over {
            self.client.held_back = HeldBack::No;
        }
        !over
    }

    /// Goes on with a message that must be seen whole and does not fit the scratch buffer.
    fn read_long_message(&mut self, cx: &mut Context<'_>) -> Result<bool, Outcome> {
        let room = &mut self.scratch.input[..SCRATCH_LEN];
        let n = match self.client.poll_read(cx, room) {
            Poll::Ready(Ok(n)) if n > 0 => n,
            Poll::Ready(_) => {
                self.client.ended = Ended::Gone;
                return Ok(true);
            }
            Poll::Pending => return Ok(false),
        };
        self.client.carry.push(&self.scratch.input[..n]);
        let whole = Header::read(self.client.carry.as_slice())
            .map_err(Refusal::client_protocol)?
            .is_some_and(|h| self.client.carry.len() >= h.len);
        if whole {
            let input = self.client.carry.take();
            self.translate(cx, &input)?;
        }
        Ok(true)
    }

    /// Sends what is in `range` of the scratch buffer's input.
    #[inline]
    pub(super) fn take_requests(
        &mut self,
        cx: &mut Context<'_>,
        range: Range<usize>,
    ) -> Result<(), Outcome> {
        // The buffer leaves its place while it is read from, because the relay is needed whole.
        let input = std::mem::take(&mut self.scratch.input);
        let result = self.translate(cx, &input[range]);
        self.scratch.input = input;
        result
    }

    #[inline]
    fn translate(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Result<(), Outcome> {
        self.counters.received_bytes.add(input.len() as u64);
        let was_idle = self.server.ledger.outstanding() == 0;
        let repeatable = was_idle
            && self.client.pass == 0
            && self.server.ledger.status() == TransactionStatus::Idle;
        let mut output = std::mem::take(&mut self.scratch.output);
        let mut splice = Splice::new(input, &mut output);
        if was_idle && !Arc::ptr_eq(&self.server.settings, &self.client.settings) {
            splice.put(|out| self.server.adopt_settings(&self.client.settings, out));
        }
        let mut shape = BatchShape::default();
        let used = self.enter_all(input, &mut splice, &mut shape)?;
        self.note_replay(repeatable, &input[..used], &shape);
        if was_idle && self.server.ledger.outstanding() > 0 {
            self.begin_work();
        }
        let bytes = splice.finish();
        let server = &mut *self.server;
        let sent = server.outbox.send(&mut server.stream, cx, bytes);
        self.scratch.put_back(output);
        self.client.carry.replace(&input[used..]);
        let held_back = self.client.held_back != HeldBack::No || shape.is_cut_short;
        self.client.unread = held_back && used < input.len();
        sent.map_err(|e| self.server_write_failed(e))?;
        self.give_ready_answers(cx)
    }

    /// Enters every whole message, and the beginning of one that may stream. Returns the bytes
    /// used.
    #[inline]
    fn enter_all(
        &mut self,
        input: &[u8],
        splice: &mut Splice<'_>,
        shape: &mut BatchShape,
    ) -> Result<usize, Outcome> {
        let mut at = self.client.pass.min(input.len());
        if at > 0 {
            splice.keep(0, at);
            self.client.pass -= at;
        }
        while let Some(header) = Header::read(&input[at..]).map_err(Refusal::client_protocol)? {
            if splice.put_len() > OUTPUT_LEN_MAX {
                // Short messages can call for long statements: the rest waits until these are sent.
                shape.is_cut_short = true;
                break;
            }
            shape.ends_with_sync = header.tag == tag::SYNC;
            match self.enter(header, &input[at..], at, splice, shape)? {
                Step::Done(n) => at += n,
                Step::Last(n) => {
                    self.client.held_back = HeldBack::UntilAnswered;
                    return Ok(at + n);
                }
                Step::More => break,
                Step::Wait => {
                    self.client.held_back = HeldBack::UntilConfirmed;
                    break;
                }
                Step::Leave => {
                    self.client.ended = Ended::Terminate;
                    return Ok(input.len());
                }
            }
        }
        Ok(at)
    }

    /// Enters the message at the front of `bytes`, which stand at `at` of the splice's input.
    #[inline]
    fn enter(
        &mut self,
        header: Header,
        bytes: &[u8],
        at: usize,
        splice: &mut Splice<'_>,
        shape: &mut BatchShape,
    ) -> Result<Step, Outcome> {
        let here = header.len.min(bytes.len());
        let whole = here == header.len;
        check_small(header)?;
        if self.server.ledger.is_discarding() && header.tag != tag::SYNC {
            return Ok(match header.tag {
                tag::TERMINATE => Step::Leave,
                _ => self.discard(header, here),
            });
        }
        let body = &bytes[HEADER_LEN.min(here)..here];
        match header.tag {
            tag::QUERY if !whole && header.len <= DEALLOCATE_LEN_MAX => return Ok(Step::More),
            tag::QUERY => {
                let ops = self.forget_unnamed();
                self.request(Request::Query, ops);
                if whole && drops_statements(body) {
                    splice.keep(at, at + here);
                    return Ok(Step::Last(here));
                }
            }
            tag::SYNC => {
                shape.syncs += 1;
                let _sent = self.server.ledger.request(Request::Sync, Deal::Forward, 0);
                self.server.journal.note_sync();
            }
            tag::EXECUTE => self.request(Request::Execute, 0),
            tag::BIND => return self.enter_bind(header, body, at, splice, shape),
            tag::PARSE => return self.enter_parse(header, body, at, splice),
            tag::DESCRIBE | tag::CLOSE if !whole => return Ok(Step::More),
            tag::DESCRIBE => {
                shape.uses_statements = true;
                return self.enter_describe(body, here, at, splice);
            }
            tag::CLOSE => return Ok(self.enter_close(body, here, at, splice)),
            tag::FLUSH => {}
            tag::FUNCTION_CALL => self.request(Request::FunctionCall, 0),
            tag::COPY_DATA => {
                if self.server.ledger.outstanding() == 0 {
                    return Ok(self.discard(header, here));
                }
            }
            tag::COPY_DONE | tag::COPY_FAIL => {
                let ledger = &mut self.server.ledger;
                if ledger.request(Request::CopyEnd, Deal::Forward, 0) == Sent::Discard {
                    return Ok(self.discard(header, here));
                }
            }
            tag::TERMINATE => return Ok(Step::Leave),
            other => {
                return Err(Refusal::client_protocol(format_args!(
                    "invalid frontend message type {other}"
                ))
                .into());
            }
        }
        Ok(self.keep(header, here, at, splice))
    }

    #[inline]
    fn request(&mut self, request: Request, ops: u8) {
        let sent = self.server.ledger.request(request, Deal::Forward, ops);
        debug_assert_eq!(sent, Sent::Entered);
    }

    /// Forwards the bytes that are here as they are; the rest of the message follows them.
    #[inline]
    fn keep(&mut self, header: Header, here: usize, at: usize, splice: &mut Splice<'_>) -> Step {
        splice.keep(at, at + here);
        self.client.pass = header.len - here;
        Step::Done(here)
    }

    fn discard(&mut self, header: Header, here: usize) -> Step {
        self.client.drop = header.len - here;
        Step::Done(here)
    }

    /// A simple Query drops the unnamed statement on both sides.
    #[inline]
    fn forget_unnamed(&mut self) -> u8 {
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

    fn enter_parse(
        &mut self,
        header: Header,
        body: &[u8],
        at: usize,
        splice: &mut Splice<'_>,
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
    fn enter_bind(
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

    fn enter_describe(
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
    fn enter_close(
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
    fn ensure_held(&mut self, statement: &Statement, splice: &mut Splice<'_>) {
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

    /// Keeps the batch in case that a cached plan has become invalid, if it could be sent again.
    #[inline]
    fn note_replay(&mut self, repeatable: bool, batch: &[u8], shape: &BatchShape) {
        let replay = &mut self.server.replay;
        if replay.running {
            return;
        }
        if !replay.batch.is_empty() {
            replay.batch.clear();
        }
        let keep = repeatable
            && shape.uses_statements
            && shape.syncs == 1
            && shape.ends_with_sync
            && batch.len() <= REPLAY_LEN_MAX;
        if keep {
            replay.batch.extend_from_slice(batch);
        }
    }

    /// Sends the batch again that failed on a plan that had become invalid.
    pub(super) fn repeat(&mut self, cx: &mut Context<'_>) -> Result<(), Outcome> {
        let batch = std::mem::take(&mut self.server.replay.batch);
        self.server.replay.due = false;
        self.server.replay.running = true;
        self.counters.statements_retried.add(1);
        let carried = self.client.carry.take();
        let result = self.translate(cx, &batch);
        self.client.carry.replace(&carried);
        result
    }

    /// Gives the answers of the pooler's own whose turn it is, if the server owes nothing that
    /// would carry them along.
    #[inline]
    fn give_ready_answers(&mut self, cx: &mut Context<'_>) -> Result<(), Outcome> {
        if self.server.ledger.is_busy_or_quiet() {
            return Ok(());
        }
        let mut answers = Vec::new();
        while let Some((answer, kept)) = self.server.ledger.take_answer() {
            self.server.journal.keep(kept);
            answers.extend_from_slice(answer.bytes());
        }
        let client = &mut *self.client;
        if client
            .outbox
            .send(&mut client.stream, cx, &answers)
            .is_err()
        {
            client.ended = Ended::Gone;
        }
        Ok(())
    }

    /// A server that takes no more may still have said why: its last words are read before its
    /// loss is believed.
    fn server_write_failed(&mut self, e: std::io::Error) -> Outcome {
        tracing::debug!("write to server failed: {e}");
        ServerFault::Io(e).into()
    }
}

/// Whether a simple Query takes away statements that the books say the server holds: behind it in a
/// pipeline they would be used in vain.
#[inline]
fn drops_statements(body: &[u8]) -> bool {
    matches!(body.first(), Some(b'D' | b'd'))
        && [&b"DISCARD"[..], b"DEALLOCATE"]
            .iter()
            .any(|word| body.get(..word.len()).is_some_and(|b| b.eq_ignore_ascii_case(word)))
}

/// Messages that carry no data are short (PostgreSQL refuses longer ones, too).
#[inline]
fn check_small(header: Header) -> Result<(), Outcome> {
    let small = matches!(
        header.tag,
        tag::SYNC
            | tag::FLUSH
            | tag::DESCRIBE
            | tag::CLOSE
            | tag::EXECUTE
            | tag::COPY_DONE
            | tag::TERMINATE
    );
    if small && header.len > SMALL_MESSAGE_LEN_MAX {
        return Err(Refusal::client_protocol(format_args!(
            "invalid length of message {:?}: {}",
            char::from(header.tag),
            header.len - 1
        ))
        .into());
    }
    Ok(())
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
