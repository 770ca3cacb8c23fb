//! TLS over a socket: records decrypted into the caller's buffer and encrypted from it.
//!
//! ```text
//! socket --(ciphertext, the thread's own buffer)--> Records --(plaintext)--> the caller's buffer
//! ```
//! rustls is used by its unbuffered interface: an idle connection holds its keys and no buffer. What
//! stays behind is a part of a record that is not whole yet (`carry`), plaintext for which the caller
//! had no room (`plain`), and ciphertext that the socket did not take (`out`).
//!
//! Invariant: bytes that a caller wants written count as written when their ciphertext is in the
//! socket's hands, not before. Until then the caller keeps them and offers them again, first thing, as
//! it does when a socket takes nothing: so whoever has nothing unsent has nothing unsent here either.
//!
//! Short messages are collected instead (see [`batch`]), as ciphertext: keys have moved on
//! by then, so what the system did not take comes to the front of `out`, and is sent before anything
//! else is encrypted:
//!
//! ```text
//!          collect                 a short send
//!   out = [] ------> (in the batch) -----------> out = [rest]    claimed = 0, may_have_collected
//!      ^                                            | poll_send_rest, or the next write
//!      +--------------------------------------------+
//! ```

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use super::{DetachedStream, Stream};
use crate::batch::{self, Collect};

mod records;
#[cfg(test)]
mod tests;

pub use records::{Next, Records, Session};

/// Plaintext that one write encrypts at most, in bytes: what a worker's scratch buffer holds.
const WRITE_LEN_MAX: usize = 64 * 1024;

/// Ciphertext that one read takes at most, in bytes, and at least, however small the caller's buffer.
const READ_LEN_MAX: usize = 64 * 1024;
const READ_LEN_MIN: usize = 2 * 1024;

/// What encrypting adds to a record at most: header, explicit nonce, type and tag (RFC 8446, section
/// 5.2; RFC 5288, section 3), with room to spare.
const SEAL_LEN_MAX: usize = 64;

/// Plaintext that is collected at most, in bytes: one record, which fits an entry of the batch.
const COLLECT_LEN_MAX: usize = batch::COLLECT_LEN_MAX - SEAL_LEN_MAX;

/// The longest record (RFC 8446, section 5.2; RFC 5246, section 6.2.3): no more than this is carried.
const RECORD_LEN_MAX: usize = 5 + 16 * 1024 + 2048;

thread_local! {
    /// Ciphertext of the connection that is being read, or written, in this very call.
    static INPUT: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; READ_LEN_MAX + RECORD_LEN_MAX].into_boxed_slice());
    static OUTPUT: RefCell<Vec<u8>> = RefCell::new(vec![0; WRITE_LEN_MAX + 4 * 1024]);
}

/// A socket that is spoken to by TLS. Dropped, it says so to the peer if that takes no waiting.
#[derive(Debug)]
pub struct TlsStream {
    /// None only within `detach`.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    socket: Stream,
    records: Records,
}

impl TlsStream {
    /// After the handshake.
    #[must_use]
    pub fn new(socket: Stream, records: Records) -> Self {
        Self {
            open: Some(Open { socket, records }),
        }
    }

    fn open(&self) -> &Open {
        let open = self.open.as_ref();
        open.expect("BUG: it is used while it moves")
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> &Stream {
        &self.open().socket
    }

    pub(super) fn records(&self) -> &Records {
        &self.open().records
    }

    fn parts(&mut self) -> (&mut Stream, &mut Records) {
        let open = self.open.as_mut();
        let Open { socket, records } = open.expect("BUG: it is used while it moves");
        (socket, records)
    }

    /// Whether there is plaintext that nobody has taken.
    pub(super) fn has_plain(&self) -> bool {
        self.open().records.has_plain()
    }

    /// As [`Stream::is_readable`].
    pub(super) fn is_readable(&self) -> bool {
        let Open { socket, records } = self.open();
        records.has_plain() || records.is_closed || socket.is_readable()
    }

    /// As [`Stream::poll_read`].
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.read_by(buffer, |socket, room| socket.poll_read(cx, room))
    }

    /// As [`Stream::try_read`].
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        now(self.read_by(buffer, |socket, room| later(socket.try_read(room))))
    }

    fn read_by(
        &mut self,
        buffer: &mut [u8],
        mut read: impl FnMut(&mut Stream, &mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let (socket, records) = self.parts();
        if records.has_plain() {
            return Poll::Ready(Ok(records.take_plain(buffer)));
        }
        let limit = buffer.len().clamp(READ_LEN_MIN, READ_LEN_MAX);
        INPUT.with_borrow_mut(|input| {
            loop {
                if records.is_closed {
                    return Poll::Ready(Ok(0));
                }
                let whole = records.check_carry(RECORD_LEN_MAX);
                whole.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                let carried = records.carry.len();
                let n = ready!(read(socket, &mut input[carried..carried + limit]))?;
                if n == 0 {
                    return Poll::Ready(Ok(0));
                }
                input[..carried].copy_from_slice(&records.carry);
                let processed = records.process(&mut input[..carried + n], buffer);
                // An alert, or what a change of keys calls for; what is not taken goes with the next
                // write.
                if records.claimed == 0 {
                    let _later = send_out(records, |bytes| later(socket.try_write(bytes)));
                }
                match processed {
                    Ok((_, 0)) => {}
                    Ok((_, filled)) => return Poll::Ready(Ok(filled)),
                    Err(e) => {
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, e)));
                    }
                }
            }
        })
    }

    /// As [`Stream::poll_write`]; after `Pending` the same bytes must come first.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write_by(bytes, |socket, out| socket.poll_write(cx, out))
    }

    /// As [`Stream::try_write`]; after `WouldBlock` the same bytes must come first.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(self.write_by(bytes, |socket, out| later(socket.try_write(out))))
    }

    /// As [`Stream::collect`]. `Done` also if the batch did not take them after all: their ciphertext
    /// waits here then, and the task is woken to send it.
    pub(super) fn collect(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<Collect> {
        let (socket, records) = self.parts();
        if bytes.len() > COLLECT_LEN_MAX || !records.out.is_empty() || !batch::is_collecting() {
            // What was collected before must not be overtaken.
            adopt(socket, records)?;
            return Ok(Collect::Refused);
        }
        OUTPUT.with_borrow_mut(|out| {
            let (_all, len) = records.encrypt(bytes, out)?;
            match socket.collect(cx, &out[..len])? {
                Collect::Done => return Ok(Collect::Done),
                Collect::Refused => {}
                Collect::Behind(unsent) => records.out = unsent,
            }
            records.out.extend_from_slice(&out[..len]);
            cx.waker().wake_by_ref();
            Ok(Collect::Done)
        })
    }

    /// As [`Stream::may_have_collected`].
    pub(super) fn may_have_collected(&self) -> bool {
        let Open { socket, records } = self.open();
        records.has_rest() || socket.may_have_collected()
    }

    /// As [`Stream::has_sent_all`].
    pub(super) fn has_sent_all(&self) -> bool {
        let Open { socket, records } = self.open();
        records.out.is_empty() && socket.has_sent_all()
    }

    /// As [`Stream::take_unsent`].
    pub(super) fn take_unsent(&mut self) -> io::Result<()> {
        let (socket, records) = self.parts();
        records.put_back(socket.take_unsent()?);
        Ok(())
    }

    /// As [`Stream::poll_send_rest`].
    pub(super) fn poll_send_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (socket, records) = self.parts();
        if !records.has_rest() {
            return Poll::Ready(Ok(()));
        }
        adopt(socket, records)?;
        send_out(records, |out| socket.poll_write(cx, out))
    }

    fn write_by(
        &mut self,
        bytes: &[u8],
        mut write: impl FnMut(&mut Stream, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let (socket, records) = self.parts();
        adopt(socket, records)?;
        ready!(send_out(records, |out| write(socket, out)))?;
        let claimed = std::mem::take(&mut records.claimed);
        if claimed > 0 {
            assert!(
                claimed <= bytes.len(),
                "BUG: other bytes are written than were begun"
            );
            return Poll::Ready(Ok(claimed));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        OUTPUT.with_borrow_mut(|out| {
            let (taken, len) = records.encrypt(bytes, out)?;
            let sent = match write(socket, &out[..len]) {
                Poll::Ready(Ok(n)) => n,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => 0,
            };
            if sent == len {
                return Poll::Ready(Ok(taken));
            }
            records.out.extend_from_slice(&out[sent..len]);
            records.claimed = taken;
            // Whoever waits is woken when the socket takes more.
            ready!(send_out(records, |rest| write(socket, rest)))?;
            Poll::Ready(Ok(std::mem::take(&mut records.claimed)))
        })
    }

    /// Says that nothing more will come, and closes the socket's side.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (socket, records) = self.parts();
        adopt(socket, records)?;
        if records.out.is_empty() {
            // Nothing comes out a second time.
            records.put_close_notify();
        }
        ready!(send_out(records, |out| socket.poll_write(cx, out)))?;
        tokio::io::AsyncWrite::poll_shutdown(std::pin::Pin::new(socket), cx)
    }

    /// Leaves the event loop of this thread.
    pub(super) fn detach(mut self: Box<Self>) -> io::Result<DetachedStream> {
        let open = self.open.take();
        let Open { socket, records } = open.expect("BUG: it is used while it moves");
        let socket = socket.detach()?;
        Ok(DetachedStream::Tls(DetachedTls(Box::new((
            socket, records,
        )))))
    }
}

/// A [`TlsStream`] between two event loops.
#[derive(Debug)]
pub struct DetachedTls(Box<(DetachedStream, Records)>);

impl DetachedTls {
    /// Enters the event loop of this thread.
    pub(super) fn attach(self) -> io::Result<Stream> {
        let (socket, records) = *self.0;
        let stream = TlsStream::new(socket.attach()?, records);
        Ok(Stream::Tls(Box::new(stream)))
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        let Some(Open { socket, records }) = &mut self.open else {
            return;
        };
        if records.out.is_empty() && !records.is_closed {
            records.put_close_notify();
            let _sent = socket.try_write(&records.out);
        }
    }
}

/// Lets what is collected leave; what the system does not take waits in `out`, in front.
fn adopt(socket: &mut Stream, records: &mut Records) -> io::Result<()> {
    if socket.may_have_collected() && !socket.has_sent_all() {
        records.put_back(socket.take_unsent()?);
    }
    Ok(())
}

/// Sends what is encrypted.
fn send_out(
    records: &mut Records,
    mut write: impl FnMut(&[u8]) -> Poll<io::Result<usize>>,
) -> Poll<io::Result<()>> {
    while records.out_at < records.out.len() {
        match ready!(write(&records.out[records.out_at..]))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => records.out_at += n,
        }
    }
    if records.out_at > 0 {
        records.out = Vec::new();
        records.out_at = 0;
    }
    Poll::Ready(Ok(()))
}

/// What waits for nothing as what may wait, and back.
fn later(result: io::Result<usize>) -> Poll<io::Result<usize>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

fn now(polled: Poll<io::Result<usize>>) -> io::Result<usize> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
