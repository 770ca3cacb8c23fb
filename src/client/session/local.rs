//! What a session between transactions answers without a server: it need not queue for that.

use pooler_protocol::backend::{write_command_complete, write_ready_idle};
use pooler_protocol::frame::{HEADER_LEN, Header};
use pooler_protocol::frontend::{ParseView, Target, tag};
use pooler_protocol::ledger::Answer;
use pooler_protocol::statement::{ByName, by_name};

use super::{Need, Session};
use crate::buffer::SCRATCH_LEN;
use crate::error::Refusal;
use crate::relay::may_name_statement;

/// A whole Sync.
const SYNC: &[u8] = b"S\0\0\0\x04";

impl Session {
    fn answer(&mut self, answer: Answer) {
        let outbox = &mut self.client.outbox;
        outbox.append(|out| out.extend_from_slice(answer.bytes()));
    }

    /// Does what needs no server, and finds the first message that does.
    #[inline]
    pub(super) fn inspect(&mut self, input: &[u8]) -> Result<Need, Refusal> {
        let mut at = 0;
        while let Some(header) = Header::read(&input[at..]).map_err(Refusal::client_protocol)? {
            let here = header.len.min(input.len() - at);
            let whole = here == header.len;
            match header.tag {
                tag::TERMINATE => return Ok(Need::Leave),
                tag::SYNC if whole => {
                    self.discarding = false;
                    self.client.outbox.append(write_ready_idle);
                }
                _ if self.discarding => self.client.drop = header.len - here,
                // PostgreSQL ignores them outside of COPY; Flush has nothing to flush.
                tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL | tag::FLUSH => {
                    self.client.drop = header.len - here;
                }
                tag::PARSE if whole && self.is_known_parse(&input[at..], here) => {
                    self.answer(Answer::ParseComplete);
                }
                tag::CLOSE
                    if whole && self.closes_statement(&input[at + HEADER_LEN..at + here]) =>
                {
                    self.answer(Answer::CloseComplete);
                }
                tag::QUERY if whole && self.deallocates(&input[at + HEADER_LEN..at + here]) => {
                    self.client.outbox.append(|out| {
                        write_command_complete(out, "DEALLOCATE");
                        write_ready_idle(out);
                    });
                }
                tag::QUERY
                | tag::PARSE
                | tag::BIND
                | tag::DESCRIBE
                | tag::CLOSE
                | tag::EXECUTE
                | tag::FUNCTION_CALL
                | tag::SYNC => {
                    // A short message is waited for before a server is: a slow sender holds none.
                    if whole || header.len > SCRATCH_LEN {
                        return Ok(Need::Server(at));
                    }
                    break;
                }
                other => {
                    return Err(Refusal::client_protocol(format_args!(
                        "invalid frontend message type {other}"
                    )));
                }
            }
            at += here;
        }
        self.client.carry.replace(&input[at..]);
        Ok(Need::Nothing)
    }

    /// Whether `bytes` begin with a named Parse of `len` bytes that a server of this pool has
    /// accepted before, and with its Sync: then no server is needed to say so once more. Drivers
    /// that prepare everything when they connect would otherwise queue for nothing, and those that
    /// wait for it with other sessions' transactions open would wait for themselves.
    pub(super) fn is_known_parse(&mut self, bytes: &[u8], len: usize) -> bool {
        if !bytes[len..].starts_with(SYNC) {
            return false;
        }
        let Some(view) = ParseView::read(&bytes[HEADER_LEN..len]) else {
            return false;
        };
        if view.name.is_empty() || self.client.statements.find(view.name).is_some() {
            return false;
        }
        let interners = &self.local.commons().interners;
        let known = interners
            .known_statement(view.text)
            .filter(|s| s.is_accepted_by(self.rules.pool));
        let Some(statement) = known else {
            return false;
        };
        self.client.statements.adopt(view.name, statement);
        let counters = self.local.counters();
        counters.statements_named.add(1);
        counters.statements_reused.add(1);
        true
    }

    /// Gives up the statement of the client's that the Close with `body` names, if it names one;
    /// servers go on holding it for others. Drivers close statements whenever they get round to it,
    /// and send the next query right behind: a cancel while that queues is meant for the query.
    pub(super) fn closes_statement(&mut self, body: &[u8]) -> bool {
        match Target::read(body) {
            Some(Target::Statement(name)) if !name.is_empty() => {
                self.client.statements.remove(name);
                true
            }
            _ => false,
        }
    }

    /// The same by SQL, if that is all that the text of the Query with `body` does: PDO and Rails
    /// prepare by protocol and deallocate by SQL.
    #[inline]
    pub(super) fn deallocates(&mut self, body: &[u8]) -> bool {
        let statements = &mut self.client.statements;
        let text = body.strip_suffix(b"\0").unwrap_or(body);
        if statements.named_len() == 0 || !may_name_statement(text) {
            return false;
        }
        match by_name(text) {
            Some(ByName::Deallocate(named)) if statements.find(&named.name).is_some() => {
                statements.remove(&named.name);
                true
            }
            _ => false,
        }
    }
}
