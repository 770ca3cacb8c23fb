//! How much of what a client sends goes to the server that it has now, and what is done if that server
//! turns out to be the wrong one.
//!
//! ```text
//!   Free   the primary: everything, until the server is free
//!   Reads  so many bytes, all of them proven reads; what comes behind is looked at anew
//!   Block  a replica, for a transaction block: a batch at a time, until the block has ended
//! ```
//! Reads can be done again elsewhere as long as nothing of their answer has reached the client: the batches
//! that are not answered yet are kept ([`Rerun`]). A replica that refuses one as a write, cancels it because
//! of a conflict with its recovery, or goes away is then never seen by the client.

use pooler_protocol::backend::ErrorView;
use pooler_protocol::frame::Header;
use pooler_protocol::frontend::{ParseView, Target, tag};
use pooler_protocol::prepared::ClientStatements;

/// The most bytes that are kept to be sent once more.
pub(super) const KEPT_LEN_MAX: usize = 16 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub enum Stint {
    /// Everything.
    #[default]
    Free,
    /// Proven reads.
    Reads {
        /// Bytes that may still be sent.
        left: usize,
        /// What can be sent elsewhere, if anything.
        rerun: Option<Box<Rerun>>,
    },
    /// A transaction block on a replica.
    Block,
}

impl Stint {
    /// Of reads that are the first `len` bytes of what waits for a server.
    #[must_use]
    pub fn reads(len: usize, rerun: Option<Box<Rerun>>) -> Self {
        Self::Reads { left: len, rerun }
    }

    /// Bytes that may be sent now.
    #[inline]
    pub(super) fn limit(&self) -> usize {
        match self {
            Self::Reads { left, .. } => *left,
            Self::Free | Self::Block => usize::MAX,
        }
    }

    /// So many bytes were sent.
    #[inline]
    pub(super) fn note_used(&mut self, used: usize) {
        if let Self::Reads { left, .. } = self {
            *left -= used.min(*left);
        }
    }

    /// Whether the batch that ended with this message is to be answered before another is sent.
    #[inline]
    pub(super) fn is_cut_behind(&self, last: u8) -> bool {
        matches!(self, Self::Block) && matches!(last, tag::SYNC | tag::QUERY | tag::FUNCTION_CALL)
    }

    /// What can be sent elsewhere, if there is a server that may be the wrong one.
    #[inline]
    pub(super) fn rerun(&mut self) -> Option<&mut Rerun> {
        match self {
            Self::Reads { rerun, .. } => rerun.as_deref_mut(),
            Self::Free | Self::Block => None,
        }
    }

    /// Whether the answer of the server is being thrown away.
    #[inline]
    pub(super) fn is_rerun_due(&self) -> bool {
        matches!(self, Self::Reads { rerun: Some(rerun), .. } if rerun.due)
    }

    /// What is to be sent elsewhere because the server is gone, if that can be done.
    #[must_use]
    pub fn take_unanswered(&mut self) -> Option<Again> {
        let unsent = self.limit();
        let rerun = self.rerun()?;
        let possible = (rerun.due || !rerun.spoiled) && !rerun.kept.is_empty();
        possible.then(|| Again {
            batches: std::mem::take(&mut rerun.kept),
            unsent,
            is_refused: rerun.is_refused,
        })
    }
}

/// What is to be sent to another server.
#[derive(Debug, PartialEq, Eq)]
pub struct Again {
    /// Whole batches.
    pub batches: Vec<u8>,
    /// Bytes at their end that the server was not sent yet: what the client said and nobody has looked at
    /// begins with them.
    pub unsent: usize,
    /// The server refused the first of them as something that a replica cannot do.
    pub is_refused: bool,
}

/// Batches that the client has no answer to yet.
#[derive(Debug)]
pub struct Rerun {
    kept: Vec<u8>,
    /// Something of the answer to the first of them is on its way to the client.
    spoiled: bool,
    /// They are to be sent elsewhere; what the server still says to them is thrown away.
    due: bool,
    /// They were refused as something that a replica cannot do.
    is_refused: bool,
    /// A write is refused for good: the client has asked for a replica.
    writes_fail: bool,
}

impl Rerun {
    /// Of `batches`, whole ones, if they can be repeated. With `writes_fail` a refusal as a write is the
    /// client's to see.
    #[must_use]
    pub fn new(batches: &[u8], writes_fail: bool) -> Option<Box<Self>> {
        let repeatable = batches.len() <= KEPT_LEN_MAX && !closes_statement(batches);
        repeatable.then(|| {
            Box::new(Self {
                kept: batches.to_vec(),
                spoiled: false,
                due: false,
                is_refused: false,
                writes_fail,
            })
        })
    }

    /// Something that cannot be taken back goes to the client.
    #[inline]
    pub(super) fn spoil(&mut self) {
        self.spoiled = true;
    }

    /// The first batch is answered.
    #[inline]
    pub(super) fn note_answered(&mut self) {
        self.spoiled = false;
        let len = first_batch_len(&self.kept).unwrap_or(self.kept.len());
        if len == self.kept.len() {
            self.kept.clear();
        } else {
            self.kept.drain(..len);
        }
    }

    /// Whether this error is about the server rather than the statement, and can be kept from the client:
    /// what the server says from here on is thrown away then.
    #[cold]
    pub(super) fn takes(&mut self, error: &ErrorView<'_>) -> bool {
        let sqlstate = error.sqlstate().unwrap_or_default();
        // A write; a temporary or unlogged table; what only a primary can do.
        let refused = matches!(sqlstate, "25006" | "0A000" | "55000");
        let elsewhere = match sqlstate {
            _ if refused => !self.writes_fail,
            // A conflict with recovery, and the goodbye of a server that stops.
            "40001" | "40P01" | "57P01" | "57P02" | "57P03" => true,
            // Cancelled: by a conflict, not by the client or a timeout.
            "57014" => error.message().contains("conflict with recovery"),
            _ => false,
        };
        let takes = elsewhere && !self.spoiled && !self.kept.is_empty();
        self.due |= takes;
        self.is_refused |= takes && refused;
        takes
    }
}

/// Bytes of the first batch: up to its Sync, or a Query by itself. A Query behind messages without a Sync
/// is of none: an error in front of it takes it along, and the Sync that ends that is still to come.
#[must_use]
pub fn first_batch_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut begun = false;
    loop {
        let header = Header::read(&bytes[at..]).ok()??;
        at += header.len;
        if at > bytes.len() {
            return None;
        }
        match header.tag {
            tag::SYNC => return Some(at),
            tag::QUERY | tag::FUNCTION_CALL => return (!begun).then_some(at),
            tag::FLUSH => {}
            _ => begun = true,
        }
    }
}

/// Calls `see` with tag and body of each whole message.
#[inline]
pub fn each_message<'a>(bytes: &'a [u8], mut see: impl FnMut(u8, &'a [u8])) {
    let mut at = 0;
    while let Ok(Some(header)) = Header::read(&bytes[at..]) {
        let Some(message) = bytes.get(at..at + header.len) else {
            return;
        };
        see(header.tag, &message[pooler_protocol::frame::HEADER_LEN..]);
        at += header.len;
    }
}

/// A statement that was closed is not there any more for what comes in front of the Close.
fn closes_statement(batches: &[u8]) -> bool {
    let mut closes = false;
    each_message(batches, |tag, body| {
        closes |= tag == tag::CLOSE && !matches!(Target::read(body), Some(Target::Portal(_)));
    });
    closes
}

/// Takes back the names that `batches` gave to statements: they are about to be given again.
pub fn forget_names(batches: &[u8], statements: &mut ClientStatements) {
    each_message(batches, |tag, body| {
        if tag == tag::PARSE
            && let Some(view) = ParseView::read(body)
            && !view.name.is_empty()
        {
            statements.remove(view.name);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len() + 4).expect("short");
        [&[tag][..], &len.to_be_bytes(), body].concat()
    }

    fn error(sqlstate: &str, message: &str) -> Vec<u8> {
        format!("SERROR\0C{sqlstate}\0M{message}\0\0").into_bytes()
    }

    #[test]
    fn answered_batches_are_kept_no_more() {
        let first = message(tag::QUERY, b"SELECT 1\0");
        let second = [
            message(tag::PARSE, b"\0SELECT 2\0\0\0"),
            message(tag::SYNC, b""),
        ]
        .concat();
        let both = [first.clone(), second.clone()].concat();
        assert_eq!(first_batch_len(&both), Some(first.len()));
        assert_eq!(first_batch_len(&second[..second.len() - 1]), None);
        let mixed = [&second[..second.len() - 5], &first].concat();
        assert_eq!(first_batch_len(&mixed), None);
        let mut stint = Stint::reads(both.len(), Rerun::new(&both, false));
        let rerun = stint.rerun().expect("kept");
        rerun.spoil();
        rerun.note_answered();
        let again = stint.take_unanswered().expect("kept");
        assert_eq!((again.batches, again.unsent), (second, both.len()));
        assert_eq!(stint.take_unanswered(), None);
    }

    #[test]
    fn what_the_client_has_seen_a_part_of_is_not_done_again() {
        let query = message(tag::QUERY, b"SELECT 1\0");
        let mut stint = Stint::reads(query.len(), Rerun::new(&query, false));
        stint.rerun().expect("kept").spoil();
        let body = error("25006", "");
        assert!(!stint.rerun().expect("kept").takes(&ErrorView::new(&body)));
        assert_eq!(stint.take_unanswered(), None);
    }

    #[test]
    fn errors_of_the_statement_itself_are_the_clients() {
        let query = message(tag::QUERY, b"SELECT 1\0");
        let takes = |sqlstate, message, writes_fail| {
            let mut rerun = Rerun::new(&query, writes_fail).expect("kept");
            rerun.takes(&ErrorView::new(&error(sqlstate, message)))
        };
        for sqlstate in ["25006", "0A000", "55000"] {
            assert!(takes(sqlstate, "", false) && !takes(sqlstate, "", true));
        }
        for sqlstate in ["40001", "57P01"] {
            assert!(takes(sqlstate, "", true));
        }
        assert!(takes(
            "57014",
            "canceling statement due to conflict with recovery",
            true
        ));
        for sqlstate in ["57014", "42P01", "22012", "42501"] {
            assert!(!takes(
                sqlstate,
                "canceling statement due to statement timeout",
                false
            ));
        }
    }

    #[test]
    fn a_batch_that_closes_a_statement_cannot_be_repeated() {
        let close = |what: &[u8]| [message(tag::CLOSE, what), message(tag::SYNC, b"")].concat();
        assert!(Rerun::new(&close(b"Ss\0"), false).is_none());
        assert!(Rerun::new(&close(b"Pp\0"), false).is_some());
        assert!(Rerun::new(&vec![0; KEPT_LEN_MAX + 1], false).is_none());
    }
}
