//! What the relay sees of a statement that turns out to be slow.

use std::time::Duration;

use pooler_protocol::frame::{HEADER_LEN, Header};
use pooler_protocol::frontend::{BindView, ParseView, tag};

use super::{Relay, first_batch_len};
use crate::observe::Statement;

impl Relay<'_> {
    /// A request is answered, by what ends at `at` of what is being read, after so long.
    #[inline]
    pub(super) fn watch_end(&mut self, ran: Duration, at: usize) {
        let waited = std::mem::take(&mut self.meter.waited);
        let (rows, bytes, sqlstate) = self.server.watch.take_numbers(at);
        if waited + ran >= self.rules.attention.slow {
            let (text, bind) = self.first_kept();
            self.server.watch.note_slow(Statement {
                text,
                bind,
                ran,
                waited,
                rows,
                bytes,
                sqlstate,
            });
        }
        if self.server.ledger.outstanding() == 0 {
            self.server.watch.forget_all();
        } else {
            let kept = self.server.watch.kept();
            let len = first_batch_len(kept).unwrap_or(kept.len());
            self.server.watch.forget(len);
        }
    }

    /// The text of the oldest batch that is kept, and the body of its first Bind. The last message that is kept may
    /// be the front of a longer one.
    #[cold]
    fn first_kept(&self) -> (Vec<u8>, Vec<u8>) {
        let kept = self.server.watch.kept();
        let batch = &kept[..first_batch_len(kept).unwrap_or(kept.len())];
        let (mut text, mut bind) = (None, Vec::new());
        let mut at = 0;
        while let Ok(Some(header)) = Header::read(&batch[at..]) {
            let end = (at + header.len).min(batch.len());
            let is_whole = end == at + header.len;
            let body = batch.get(at + HEADER_LEN..end).unwrap_or_default();
            match header.tag {
                tag::QUERY => text = text.or(Some(up_to_zero(body))),
                tag::PARSE => {
                    let query = match ParseView::read(body) {
                        Some(view) => view.query(),
                        None => up_to_zero(&body[(up_to_zero(body).len() + 1).min(body.len())..]),
                    };
                    text = text.or(Some(query));
                }
                tag::BIND if bind.is_empty() => {
                    if is_whole {
                        bind = body.to_vec();
                    }
                    if text.is_none()
                        && let Some(view) = BindView::read(body)
                    {
                        text = self.text_of(view.statement);
                    }
                }
                _ => {}
            }
            at = end;
        }
        (text.unwrap_or_default().to_vec(), bind)
    }

    fn text_of(&self, name: &[u8]) -> Option<&[u8]> {
        let statements = &self.client.statements;
        let statement = match name {
            b"" => statements.unnamed(),
            name => statements.find(name),
        };
        statement.map(|statement| statement.query())
    }
}

fn up_to_zero(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}
