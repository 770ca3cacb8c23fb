//! From the client to the server: each message is entered in the ledger and sent, those about
//! statements as `statements` rewrites them.

use std::ops::Range;
use std::task::{Context, Poll};

use pooler_protocol::backend::TransactionStatus;
use pooler_protocol::frame::{HEADER_LEN, Header, SMALL_MESSAGE_LEN_MAX};
use pooler_protocol::frontend::{tag, write_query};
use pooler_protocol::ledger::{Deal, OUTSTANDING_MAX, Request, Sent};
use pooler_protocol::statement::Marks;

use super::position::{QUESTION, asks_position};
use super::stint::KEPT_LEN_MAX;
use super::{Ended, Fill, HeldBack, Outcome, Relay, Stint, each_message};
use crate::buffer::{SCRATCH_LEN, Splice};
use crate::error::{Refusal, ServerFault};

/// Bytes of the pooler's own that one read of a client may call for.
const OUTPUT_LEN_MAX: usize = 1024 * 1024;

/// A Query up to this length, in bytes, is looked at whole: DISCARD and DEALLOCATE are short.
const DEALLOCATE_LEN_MAX: usize = 128;

/// The longest batch that is kept to be sent once more.
const REPLAY_LEN_MAX: usize = 16 * 1024;

/// What was done with the message at hand.
pub(super) enum Step {
    /// Decided; this many of its bytes were used.
    Done(usize),
    /// The same; what follows is not looked at before all so far is answered.
    Last(usize),
    /// It must be seen whole, and is not.
    More,
    /// It builds upon what the server has not confirmed.
    Wait,
    /// The pooler answers it, when all before it is answered.
    WaitForAnswers,
    /// The client leaves.
    Leave,
}

/// What the messages of one read were, as far as sending them again is concerned.
#[derive(Default)]
pub(super) struct BatchShape {
    pub(super) messages: usize,
    pub(super) queries: usize,
    pub(super) syncs: usize,
    pub(super) ends_with_sync: bool,
    /// What its texts make one suspect.
    pub(super) marks: Marks,
    pub(super) uses_statements: bool,
    /// The server owed nothing.
    pub(super) at_rest: bool,
    /// What was read is not used up, for want of room.
    is_cut_short: bool,
    /// The client leaves: so many bytes are in front of its Terminate, of which the server hears nothing.
    leaves_at: Option<usize>,
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
            // It would hit what comes next.
            || self.server.cancels.is_flying()
            || self.is_held_back();
        if stalled {
            return Ok(false);
        }
        if self.is_at_end_of_stint() {
            return self.hear_more(cx);
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

    /// Whether what the client sends from here on may belong to another server.
    #[inline]
    fn is_at_end_of_stint(&mut self) -> bool {
        match &self.client.stint {
            Stint::Free => false,
            // The rest of a message goes where its beginning went.
            _ if self.client.pass > 0 => false,
            Stint::Reads { left, .. } if *left > 0 => false,
            Stint::Reads { .. } => {
                let ledger = &self.server.ledger;
                let begun = ledger.status() != TransactionStatus::Idle || ledger.is_discarding();
                if begun && ledger.outstanding() == 0 {
                    // What was begun here ends here.
                    self.client.stint = Stint::Block;
                    return false;
                }
                // A client that keeps its server has no other.
                let possessions = &self.client.possessions;
                let keeps = !possessions.held().is_empty()
                    && !possessions.is_due()
                    && !possessions.is_asked()
                    && self.server.ledger.outstanding() == 0;
                if keeps {
                    self.client.stint = Stint::Free;
                }
                !keeps
            }
            Stint::Block => self.is_batch_unanswered(),
        }
    }

    /// Whether the batch that was sent last is to be answered before more is sent.
    fn is_batch_unanswered(&self) -> bool {
        let ledger = &self.server.ledger;
        ledger.owes_ready() && !ledger.is_copying_in()
    }

    /// Keeps what the client says meanwhile, so that its end is seen; with what may have to be sent once
    /// more it is to fit the scratch buffer.
    #[cold]
    fn hear_more(&mut self, cx: &mut Context<'_>) -> Result<bool, Outcome> {
        if self.client.carry.len() >= SCRATCH_LEN - KEPT_LEN_MAX {
            return Ok(false);
        }
        match self
            .client
            .poll_read(cx, &mut self.scratch.input[..SCRATCH_LEN])
        {
            Poll::Ready(Ok(n)) if n > 0 => {
                self.client.carry.push(&self.scratch.input[..n]);
                self.client.unread = true;
                Ok(true)
            }
            // What it asked before is still done.
            Poll::Ready(Ok(_)) if says_terminate(self.client.carry.as_slice()) => Ok(false),
            Poll::Ready(_) => {
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
            HeldBack::No => return self.client.possessions.is_parting(),
            HeldBack::UntilAnswered => {
                self.server.ledger.outstanding() == 0 && !self.client.possessions.is_parting()
            }
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
        let before = self.server.ledger.status();
        let repeatable = was_idle
            && self.client.pass == 0
            && self.server.ledger.status() == TransactionStatus::Idle;
        let mut output = std::mem::take(&mut self.scratch.output);
        let mut splice = Splice::new(input, &mut output);
        if was_idle {
            self.adopt_settings(&mut splice);
            self.restore_listening(&mut splice);
        }
        let mut shape = BatchShape {
            at_rest: was_idle,
            ..BatchShape::default()
        };
        let used = self.enter_all(input, &mut splice, &mut shape)?;
        self.client.stint.note_used(used);
        if was_idle && used == input.len() && self.client.ended == Ended::No {
            self.ask_behind(&shape, before, &mut splice);
        }
        self.note_replay(repeatable, &input[..used], &shape);
        if self.rules.attention.is_on {
            self.watch_sent(&input[..shape.leaves_at.unwrap_or(used)]);
        }
        if was_idle && self.server.ledger.outstanding() > 0 {
            self.server.running.note(input);
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
            if self.client.possessions.is_reading_on() {
                self.suspect_more(&input[..at], shape);
            }
            splice.keep(0, at);
            self.client.pass -= at;
            if matches!(self.client.stint, Stint::Block) && self.is_batch_unanswered() {
                shape.is_cut_short = true;
                return Ok(at);
            }
        }
        let limit = self.client.stint.limit();
        while let Some(header) = Header::read(&input[at..]).map_err(Refusal::client_protocol)? {
            if at >= limit {
                shape.is_cut_short = true;
                break;
            }
            if splice.put_len() > OUTPUT_LEN_MAX {
                // Short messages can call for long statements: the rest waits until these are sent.
                shape.is_cut_short = true;
                break;
            }
            shape.messages += 1;
            shape.ends_with_sync = header.tag == tag::SYNC;
            match self.enter(header, &input[at..], at, splice, shape)? {
                Step::Done(n) => {
                    at += n;
                    if self.client.stint.is_cut_behind(header.tag) {
                        shape.is_cut_short = true;
                        break;
                    }
                }
                Step::Last(n) => {
                    self.client.held_back = HeldBack::UntilAnswered;
                    return Ok(at + n);
                }
                Step::More => break,
                Step::Wait => {
                    self.client.held_back = HeldBack::UntilConfirmed;
                    break;
                }
                Step::WaitForAnswers => {
                    self.client.held_back = HeldBack::UntilAnswered;
                    break;
                }
                Step::Leave => {
                    self.client.ended = Ended::Terminate;
                    shape.leaves_at = Some(at);
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
                let text = body.strip_suffix(b"\0").unwrap_or(body);
                self.look_for_caller(text);
                self.speak_of_name(text, shape, splice);
                if whole && let Some(step) = self.enter_by_name(text, here, shape, splice) {
                    return Ok(step);
                }
                shape.queries += 1;
                self.suspect_text(text, whole, shape, splice);
                let ops = self.forget_unnamed();
                self.request(Request::Query, ops);
                if self.rules.shows_position && whole && asks_position(text) {
                    splice.put(|out| write_query(out, QUESTION));
                    return Ok(Step::Done(here));
                }
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
            tag::PARSE => return self.enter_parse(header, body, at, splice, shape),
            tag::DESCRIBE | tag::CLOSE if !whole => return Ok(Step::More),
            tag::DESCRIBE => {
                shape.uses_statements = true;
                return self.enter_describe(body, here, at, splice);
            }
            tag::CLOSE => return Ok(self.enter_close(body, here, at, splice)),
            tag::FLUSH => {}
            tag::FUNCTION_CALL => {
                shape.queries += 1;
                self.raise(Marks::ALL, b"", shape);
                self.request(Request::FunctionCall, 0);
            }
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
    pub(super) fn request(&mut self, request: Request, ops: u8) {
        let sent = self.server.ledger.request(request, Deal::Forward, ops);
        debug_assert_eq!(sent, Sent::Entered);
    }

    /// Forwards the bytes that are here as they are; the rest of the message follows them.
    #[inline]
    pub(super) fn keep(
        &mut self,
        header: Header,
        here: usize,
        at: usize,
        splice: &mut Splice<'_>,
    ) -> Step {
        splice.keep(at, at + here);
        self.client.pass = header.len - here;
        Step::Done(here)
    }

    pub(super) fn discard(&mut self, header: Header, here: usize) -> Step {
        self.client.drop = header.len - here;
        Step::Done(here)
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
        if let Stint::Reads { left, .. } = &mut self.client.stint {
            *left += batch.len();
        }
        let (carried, unread) = (self.client.carry.take(), self.client.unread);
        let result = self.translate(cx, &batch);
        self.client.carry.replace(&carried);
        self.client.unread = unread;
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

/// Whether the client has said Terminate in `bytes`, whole messages or the beginnings of such.
fn says_terminate(bytes: &[u8]) -> bool {
    let mut said = false;
    each_message(bytes, |tag, _| said |= tag == tag::TERMINATE);
    said
}

/// Whether a simple Query takes away statements that the books say the server holds: behind it in a
/// pipeline they would be used in vain.
#[inline]
fn drops_statements(body: &[u8]) -> bool {
    matches!(body.first(), Some(b'D' | b'd'))
        && [&b"DISCARD"[..], b"DEALLOCATE"].iter().any(|word| {
            body.get(..word.len())
                .is_some_and(|b| b.eq_ignore_ascii_case(word))
        })
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
