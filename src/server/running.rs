//! What a server was sent last, for those who ask what it is busy with.
//!
//! Only the front of the first batch is kept, in place: noting it allocates nothing and looks at
//! nothing. What it says is found out by whoever asks.

use pooler_protocol::frame::{HEADER_LEN, split_cstr, up_to_nul};
use pooler_protocol::frontend::{BindView, tag};

/// Bytes kept.
const LEN: usize = 120;

/// See the module.
#[derive(Debug, Clone)]
pub struct Running {
    len: u8,
    front: [u8; LEN],
}

impl Default for Running {
    fn default() -> Self {
        Self {
            len: 0,
            front: [0; LEN],
        }
    }
}

/// What a client has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent<'a> {
    /// A text, or the beginning of one.
    Text(&'a [u8]),
    /// The client's statement of this name, which is empty for the unnamed one.
    Statement(&'a [u8]),
    /// Nothing that has a text.
    Other,
}

impl Running {
    /// `batch` is sent.
    #[inline]
    pub fn note(&mut self, batch: &[u8]) {
        let len = batch.len().min(LEN);
        self.front[..len].copy_from_slice(&batch[..len]);
        self.len = u8::try_from(len).unwrap_or(0);
    }

    /// What it began with.
    #[must_use]
    pub fn sent(&self) -> Sent<'_> {
        let front = &self.front[..usize::from(self.len)];
        let Some(body) = front.get(HEADER_LEN..) else {
            return Sent::Other;
        };
        match front[0] {
            tag::QUERY => Sent::Text(up_to_nul(body)),
            tag::PARSE => {
                let (_name, query) = split_cstr(body).unwrap_or_default();
                Sent::Text(up_to_nul(query))
            }
            tag::BIND => BindView::read(body).map_or(Sent::Other, |b| Sent::Statement(b.statement)),
            _ => Sent::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use pooler_protocol::frontend::{write_parse, write_query, write_sync};

    use super::*;

    #[test]
    fn the_beginning_of_what_was_sent_says_what_it_is() {
        let mut running = Running::default();
        assert_eq!(running.sent(), Sent::Other);
        let mut batch = Vec::new();
        write_query(&mut batch, "SELECT 1");
        running.note(&batch);
        assert_eq!(running.sent(), Sent::Text(b"SELECT 1"));
        batch.clear();
        write_parse(
            &mut batch,
            b"name",
            &[b"SELECT ".as_slice(), &[b'x'; 500]].concat(),
        );
        running.note(&batch);
        let Sent::Text(text) = running.sent() else {
            panic!("a Parse has a text")
        };
        assert!(text.starts_with(b"SELECT xxx") && text.len() > 100);
        running.note(b"B\0\0\0\x10portal\0st\0\0\0");
        assert_eq!(running.sent(), Sent::Statement(b"st"));
        batch.clear();
        write_sync(&mut batch);
        running.note(&batch);
        assert_eq!(running.sent(), Sent::Other);
    }
}
