//! What a session between transactions answers without a server: it need not queue for that.

use pooler_protocol::frame::HEADER_LEN;
use pooler_protocol::frontend::{ParseView, Target};
use pooler_protocol::statement::{ByName, by_name};

use super::Session;
use crate::relay::may_name_statement;

/// A whole Sync.
const SYNC: &[u8] = b"S\0\0\0\x04";

impl Session {
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
