//! What is kept of the work of one server while a client uses it: enough to say of a statement, when it turns out to
//! have been slow, what it was.

use std::time::Duration;

use crate::metrics::SqlState;

/// Bytes of batches that are kept: the front of them is enough to say what they were.
const KEPT_LEN_MAX: usize = 8 * 1024;

/// Slow statements that may wait for the session, which takes them at the end of each poll.
const NEWS_MAX: usize = 256;

/// A request and its answer.
#[derive(Debug)]
pub struct Statement {
    /// Its text, or the front of it; empty if that is not known any more.
    pub text: Vec<u8>,
    /// The body of the first Bind, if all of it is here.
    pub bind: Vec<u8>,
    /// How long the server worked on it.
    pub ran: Duration,
    /// How long it had waited for the server.
    pub waited: Duration,
    /// Rows returned, or written.
    pub rows: u64,
    /// Bytes of its answer.
    pub bytes: u64,
    /// Its error.
    pub sqlstate: Option<SqlState>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Watch {
    /// Batches that are not answered yet, the oldest first.
    kept: Vec<u8>,
    /// They did not all fit: only the first of them is known.
    is_cut: bool,
    rows: u64,
    sqlstate: Option<SqlState>,
    /// Bytes received from the server, up to the last read.
    received: u64,
    /// Those of them that belong to answers before this one.
    received_before: u64,
    slow: Vec<Statement>,
}

impl Watch {
    /// These bytes go to the server.
    #[inline]
    pub fn keep(&mut self, sent: &[u8]) {
        if self.is_cut {
            return;
        }
        let room = KEPT_LEN_MAX - self.kept.len();
        self.is_cut = sent.len() > room;
        self.kept.extend_from_slice(&sent[..sent.len().min(room)]);
    }

    /// The batches that are not answered.
    #[must_use]
    pub fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// The first `len` bytes of them are answered.
    pub fn forget(&mut self, len: usize) {
        if self.is_cut || len >= self.kept.len() {
            self.kept.clear();
        } else {
            self.kept.drain(..len);
        }
    }

    /// Everything is answered, or will never be.
    #[inline]
    pub fn forget_all(&mut self) {
        self.kept.clear();
        self.is_cut = false;
    }

    /// A statement has ended, with this tag (PostgreSQL documentation, CommandComplete).
    #[inline]
    pub fn note_command(&mut self, body: &[u8]) {
        let tag = body.strip_suffix(b"\0").unwrap_or(body);
        let mut rows = 0;
        let mut unit = 1_u64;
        for byte in tag.iter().rev() {
            match byte {
                b'0'..=b'9' => rows = digit_added(rows, unit, *byte),
                _ => break,
            }
            unit = unit.wrapping_mul(10);
        }
        self.rows = self.rows.wrapping_add(rows);
    }

    /// An error of its own.
    #[cold]
    pub fn note_error(&mut self, sqlstate: &str) {
        self.sqlstate = SqlState::try_from(sqlstate.as_bytes()).ok();
    }

    /// So many bytes were read and judged.
    #[inline]
    pub fn note_received(&mut self, len: usize) {
        self.received = self.received.wrapping_add(len as u64);
    }

    /// Takes what is known of the answer that ended with the byte before `at` of what is being read: rows,
    /// bytes, error.
    #[inline]
    pub fn take_numbers(&mut self, at: usize) -> (u64, u64, Option<SqlState>) {
        let received = self.received.wrapping_add(at as u64);
        let bytes = received.wrapping_sub(self.received_before);
        self.received_before = received;
        (
            std::mem::take(&mut self.rows),
            bytes,
            std::mem::take(&mut self.sqlstate),
        )
    }

    /// The client has left, in the middle of its work perhaps.
    #[inline]
    pub fn abandon(&mut self) {
        self.forget_all();
        self.rows = 0;
        self.sqlstate = None;
        self.received_before = self.received;
    }

    /// What has just ended was slow.
    #[cold]
    pub fn note_slow(&mut self, statement: Statement) {
        if self.slow.len() < NEWS_MAX {
            self.slow.push(statement);
        }
    }

    /// Whether there is something for the session to tell.
    #[inline]
    #[must_use]
    pub fn has_slow(&self) -> bool {
        !self.slow.is_empty()
    }

    /// Takes it.
    #[must_use]
    pub fn take_slow(&mut self) -> Vec<Statement> {
        std::mem::take(&mut self.slow)
    }
}

/// A server may say any number.
#[inline]
fn digit_added(rows: u64, unit: u64, byte: u8) -> u64 {
    rows.wrapping_add(unit.wrapping_mul(u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_last_number_of_the_tag() {
        let mut watch = Watch::default();
        for tag in [
            &b"SELECT 12\0"[..],
            b"INSERT 0 3\0",
            b"BEGIN\0",
            b"COPY 1000",
            b"",
        ] {
            watch.note_command(tag);
        }
        assert_eq!(watch.take_numbers(0).0, 1015);
        watch.note_command(b"X 99999999999999999999999999\0");
    }

    #[test]
    fn of_long_batches_the_front_is_kept() {
        let mut watch = Watch::default();
        watch.keep(&[1; KEPT_LEN_MAX - 1]);
        watch.keep(&[2; 10]);
        watch.keep(&[3; 10]);
        assert_eq!(watch.kept().len(), KEPT_LEN_MAX);
        assert_eq!(watch.kept().last(), Some(&2));
        watch.forget(100);
        assert!(watch.kept().is_empty());
        watch.forget_all();
        watch.keep(&[4; 10]);
        watch.forget(4);
        assert_eq!(watch.kept(), [4; 6]);
    }

    #[test]
    fn bytes_belong_to_the_answer_that_they_came_with() {
        let mut watch = Watch::default();
        watch.note_received(100);
        assert_eq!(watch.take_numbers(30).1, 130);
        assert_eq!(watch.take_numbers(50).1, 20);
        watch.note_received(70);
        assert_eq!(watch.take_numbers(5).1, 25);
    }
}
