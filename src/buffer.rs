//! Bytes between two sockets: the scratch buffer of a worker, and the little that stays behind.
//!
//! A worker reads every socket into one [`Scratch`] and writes from it in the same poll, so an idle
//! connection owns no buffer. What a peer would not take goes to an [`Outbox`], and a message cut
//! in the middle to a [`Carry`]; both give their memory back when they drain.
//!
//! Invariant: nothing of one connection is in the scratch buffer when another is polled, because
//! nothing survives in it between two polls (trap 8).

use std::io;
use std::task::{Context, Poll, ready};

use crate::batch::Collect;
use crate::net::Stream;

/// Bytes that one read may take: large enough that a large result costs few calls, small enough
/// that it stays in a core's cache.
pub const SCRATCH_LEN: usize = 64 * 1024;

/// Room in front of a read for what was carried over from the one before.
const CARRY_LEN_MAX: usize = SCRATCH_LEN;

/// The buffers of a worker.
#[derive(Debug)]
pub struct Scratch {
    /// What was read.
    pub input: Box<[u8]>,
    /// What is to be written, where it differs from what was read.
    pub output: Vec<u8>,
}

impl Scratch {
    /// Itself, with a buffer: a session that panicked may have had it, and the others go on.
    #[inline]
    pub fn whole(&mut self) -> &mut Self {
        if self.input.is_empty() {
            *self = Self::default();
        }
        self
    }

    /// Puts the output buffer back in its place, emptied, and not larger than it has to be.
    #[inline]
    pub fn put_back(&mut self, mut output: Vec<u8>) {
        output.clear();
        output.shrink_to(SCRATCH_LEN);
        self.output = output;
    }
}

/// The scratch buffers of a worker, as its sessions hold them.
pub type SharedScratch = std::rc::Rc<std::cell::RefCell<Scratch>>;

impl Default for Scratch {
    fn default() -> Self {
        Self {
            input: vec![0; SCRATCH_LEN + CARRY_LEN_MAX].into_boxed_slice(),
            output: Vec::with_capacity(SCRATCH_LEN),
        }
    }
}

/// Bytes received that cannot be decided yet, because a message is not complete.
#[derive(Debug, Default)]
pub struct Carry {
    bytes: Vec<u8>,
}

impl Carry {
    /// How many there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Puts `bytes` in place of what there is. Memory is given back when that is nothing.
    #[inline]
    pub fn replace(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            if self.bytes.capacity() > 0 {
                self.bytes = Vec::new();
            }
            return;
        }
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the bytes out.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// Bytes decided but not sent: `sent <= bytes.len()`. A message that finds it empty is collected for
/// the worker's next round of sends (see [`batch`](crate::batch)); what comes of that early comes back
/// here, in front of everything else. So while something is collected nothing here is sent: either
/// `sent` is 0 or nothing is collected.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    /// Whether everything is sent. What is collected is sent first, so this may cost a system call:
    /// ask something cheaper before.
    #[inline]
    #[must_use]
    pub fn has_sent_all(&self, stream: &Stream) -> bool {
        self.bytes.is_empty() && stream.has_sent_all()
    }

    /// Bytes that wait here. Collected ones, which are few and for a moment, do not count.
    #[must_use]
    pub fn waiting_len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Lets `write` append.
    pub fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
    }

    /// Sends what was put here before there was anybody to wake, as [`Outbox::send`] does.
    ///
    /// # Errors
    /// As [`Outbox::poll_flush`].
    pub fn send_first(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> io::Result<()> {
        let first = std::mem::take(self);
        self.send(stream, cx, &first.bytes[first.sent..])
    }

    /// Sends what waits. Ready once nothing does, though some may still be collected.
    ///
    /// # Errors
    /// What the socket says; a peer that takes no byte is [`io::ErrorKind::WriteZero`].
    #[inline]
    pub fn poll_flush(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        // Nearly always nothing waits, and this is asked several times a transaction.
        if self.bytes.is_empty() && !stream.may_have_collected() {
            return Poll::Ready(Ok(()));
        }
        self.poll_flush_waiting(stream, cx)
    }

    /// As [`Outbox::poll_flush`], but Ready only once nothing is collected either: before the
    /// connection ends, or goes to a task that would not be woken.
    ///
    /// # Errors
    /// As [`Outbox::poll_flush`].
    pub fn poll_flush_all(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        // Nothing, or it is taken over below.
        let _sent_all = stream.has_sent_all();
        self.poll_flush(stream, cx)
    }

    fn poll_flush_waiting(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if stream.may_have_collected() {
            if !self.bytes.is_empty() {
                // They go behind it.
                let _sent_all = stream.has_sent_all();
            }
            let unsent = stream.take_unsent()?;
            self.take_over(unsent);
            ready!(stream.poll_send_rest(cx))?;
        }
        while self.sent < self.bytes.len() {
            match stream.poll_write(cx, &self.bytes[self.sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => self.sent += n,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.sent > 0 {
            *self = Self::default();
        }
        Poll::Ready(Ok(()))
    }

    /// Puts what was collected, and not sent, in front.
    fn take_over(&mut self, mut unsent: Vec<u8>) {
        if unsent.is_empty() {
            return;
        }
        assert_eq!(self.sent, 0, "BUG: collected behind what waits");
        unsent.append(&mut self.bytes);
        self.bytes = unsent;
    }

    /// Sends `bytes` behind what waits, with the next round if they are short; what the peer does not
    /// take waits, too.
    ///
    /// # Errors
    /// As [`Outbox::poll_flush`].
    #[inline]
    pub fn send(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        mut bytes: &[u8],
    ) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.bytes.is_empty() {
            match stream.collect(cx, bytes)? {
                Collect::Done => return Ok(()),
                Collect::Behind(unsent) => self.take_over(unsent),
                // Nearly always the system takes all of it at once, and nobody need be woken.
                Collect::Refused => match stream.try_write(bytes) {
                    Ok(n) => bytes = &bytes[n..],
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                },
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
        self.bytes.extend_from_slice(bytes);
        match self.poll_flush(stream, cx) {
            Poll::Ready(Err(e)) => Err(e),
            _ => Ok(()),
        }
    }
}

/// Builds what is to be forwarded from what was received: runs of `input` that are kept, and bytes
/// put between them. As long as one run is all there is, nothing is copied.
#[derive(Debug)]
pub struct Splice<'a> {
    input: &'a [u8],
    from: usize,
    to: usize,
    out: &'a mut Vec<u8>,
    /// What was kept and put when [`Splice::mark`] was called: bytes put, and the run that followed.
    mark: (usize, usize, usize),
}

impl<'a> Splice<'a> {
    /// Nothing kept yet; `out` is emptied.
    #[inline]
    pub fn new(input: &'a [u8], out: &'a mut Vec<u8>) -> Self {
        out.clear();
        Self {
            input,
            from: 0,
            to: 0,
            out,
            mark: (0, 0, 0),
        }
    }

    /// Keeps `input[start..end]`, behind all that is kept or put so far.
    #[inline]
    pub fn keep(&mut self, start: usize, end: usize) {
        if self.to != start {
            self.settle();
            self.from = start;
        }
        self.to = end;
    }

    /// Puts bytes of the pooler's own.
    #[inline]
    pub fn put(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.settle();
        write(self.out);
    }

    /// Remembers what is kept and put so far.
    #[inline]
    pub fn mark(&mut self) {
        self.mark = (self.out.len(), self.from, self.to);
    }

    /// Whether nothing was kept or put since the mark.
    #[inline]
    #[must_use]
    pub fn is_at_mark(&self) -> bool {
        self.mark == (self.out.len(), self.from, self.to)
    }

    /// Gives up what was kept and put since the mark, or since the beginning.
    pub fn back_to_mark(&mut self) {
        let (put, from, to) = self.mark;
        // A run that was settled since then was the one at the mark, and perhaps more.
        let settled = self.out.len() > put && to > from;
        self.out
            .truncate(if settled { put + (to - from) } else { put });
        (self.from, self.to) = if settled { (to, to) } else { (from, to) };
    }

    /// Bytes copied or put so far.
    #[inline]
    #[must_use]
    pub fn put_len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing is to be forwarded.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.from == self.to && self.out.is_empty()
    }

    /// All of it, in order.
    #[inline]
    #[must_use]
    pub fn finish(mut self) -> &'a [u8] {
        if self.out.is_empty() {
            return &self.input[self.from..self.to];
        }
        self.settle();
        self.out
    }

    fn settle(&mut self) {
        self.out.extend_from_slice(&self.input[self.from..self.to]);
        self.from = self.to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_is_not_copied() {
        let mut out = Vec::new();
        let mut s = Splice::new(b"abcdef", &mut out);
        s.keep(1, 3);
        s.keep(3, 5);
        assert_eq!(s.finish(), b"bcde");
        assert!(out.is_empty());
    }

    #[test]
    fn runs_and_insertions_keep_their_order() {
        let mut out = Vec::new();
        let mut s = Splice::new(b"abcdef", &mut out);
        s.put(|o| o.extend_from_slice(b"<"));
        s.keep(0, 2);
        s.keep(3, 4);
        s.put(|o| o.extend_from_slice(b"|"));
        s.keep(4, 6);
        assert_eq!(s.finish(), b"<abd|ef");
    }

    #[test]
    fn what_came_behind_the_mark_can_be_given_up() {
        let build = |before: &dyn Fn(&mut Splice<'_>), behind: &dyn Fn(&mut Splice<'_>)| {
            let mut out = Vec::new();
            let mut s = Splice::new(b"abcdef", &mut out);
            before(&mut s);
            s.mark();
            behind(&mut s);
            s.back_to_mark();
            s.put(|o| o.extend_from_slice(b"!"));
            String::from_utf8(s.finish().to_vec()).expect("ASCII")
        };
        let nothing = |_: &mut Splice<'_>| {};
        let keep = |from: usize, to: usize| move |s: &mut Splice<'_>| s.keep(from, to);
        let put = |s: &mut Splice<'_>| s.put(|o| o.extend_from_slice(b"?"));
        assert_eq!(build(&nothing, &nothing), "!");
        assert_eq!(build(&nothing, &keep(0, 2)), "!");
        assert_eq!(build(&keep(0, 2), &nothing), "ab!");
        assert_eq!(build(&keep(0, 2), &keep(2, 4)), "ab!");
        assert_eq!(build(&keep(0, 2), &keep(3, 4)), "ab!");
        assert_eq!(build(&keep(0, 2), &put), "ab!");
        assert_eq!(build(&put, &put), "?!");
        assert_eq!(build(&put, &keep(2, 3)), "?!");
        let both = |s: &mut Splice<'_>| {
            s.put(|o| o.extend_from_slice(b"?"));
            s.keep(1, 2);
        };
        assert_eq!(build(&both, &both), "?b!");
    }

    #[test]
    fn t08_what_was_carried_is_gone_when_it_is_taken() {
        let mut carry = Carry::default();
        carry.replace(b"abc");
        assert_eq!(carry.take(), b"abc");
        assert!(carry.is_empty());
        carry.replace(b"x");
        carry.replace(b"");
        assert!(carry.is_empty());
        assert_eq!(carry.bytes.capacity(), 0);
    }
}
