//! The bytes of a replication connection on their way: one [`Way`] toward the server, one toward the client.
//!
//! ```text
//!   open --the sender has ended--> ending --all sent, and the receiver told--> ended
//! ```
//! What was read is written before more is read, so a slow receiver slows its sender and nothing grows. With reading
//! forbidden a way only sends what it has.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::net::Stream;

/// Bytes under way in one direction.
const BUFFER_LEN: usize = 8 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ending,
    Ended,
}

/// See the module. Invariant: `sent <= end <= buffer.len()`.
#[derive(Debug)]
pub(super) struct Way {
    buffer: Box<[u8]>,
    sent: usize,
    end: usize,
    state: State,
}

impl Way {
    /// With `received` as its first bytes.
    pub(super) fn new(received: &[u8]) -> Self {
        let mut buffer = vec![0; BUFFER_LEN.max(received.len())];
        buffer[..received.len()].copy_from_slice(received);
        Self {
            buffer: buffer.into(),
            sent: 0,
            end: received.len(),
            state: State::Open,
        }
    }

    /// Bytes that the receiver has not taken.
    pub(super) fn unsent_len(&self) -> usize {
        self.end - self.sent
    }

    /// Moves what can be moved. Ready at the end of the sender's stream, when the receiver has all of it.
    ///
    /// # Errors
    /// What the system says of one of the sockets.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        may_read: bool,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.sent < self.end {
                match ready!(to.poll_write(cx, &self.buffer[self.sent..self.end]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    n => self.sent += n,
                }
            }
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Ended;
                }
                State::Open if !may_read => return Poll::Pending,
                State::Open => match ready!(from.poll_read(cx, &mut self.buffer))? {
                    0 => self.state = State::Ending,
                    n => (self.sent, self.end) = (0, n),
                },
            }
        }
    }
}
