//! What a worker has to send, collected: one system call for the sends of many sessions.
//!
//! Each send wakes somebody, and the kernel often lets whoever was woken go first: with a call a
//! send a worker is preempted at the end of every other one. So short messages are copied into the
//! worker's batch, and leave together.
//!
//! ```text
//!           collect                      sent in full
//!   Nothing -------> Collected --flush--> Nothing
//!                     |     ^        \--> Unsent --taken over by the socket's Outbox--> Nothing
//!                     +-----+         \-> Failed (for good)
//!                     collect: appended
//! ```
//! These are the states of a [`Socket`], and these the rules:
//!
//! - **A socket has one entry at most.** More bytes for it are appended; if there is no room the batch
//!   is flushed first. So bytes leave in the order in which they came, also if a send is short.
//! - **Collected bytes count as sent, for one round.** Nobody waits for them, but whoever must know
//!   that nothing is unsent (`Outbox::has_sent_all`), or writes past the batch, flushes first.
//! - **What the system did not take is the connection's again.** It lies here as `Unsent` until the
//!   task is polled that collected it, which is woken; its `Outbox` takes it over, and as long as it
//!   does not nothing else can be written to that socket. An error lies here as `Failed`, and every
//!   later write reports it.
//! - **No descriptor is closed, and none leaves the worker, with bytes in the batch**: a [`Socket`]
//!   owns the descriptor, flushes when it is dropped, and cannot be taken apart otherwise. A number
//!   in the batch is always that of the socket it was collected for.
//! - **A round is short.** The worker's [`flush_rounds`] is woken by the first bytes of a round. It
//!   runs behind everything that was ready then, lets what that made ready run, too (a reply frees a
//!   server, and whoever waits for it writes to it), and flushes. A full batch is flushed at once, and
//!   so is one that a large write overtakes: large writes come in rows.
//!
//! Outside of a worker, and where the system cannot do it, nothing is collected: the caller writes.
//! Logins to servers and cancels never collect. Of TLS it is ciphertext that is
//! collected, and what the system did not take is the connection's records' again (`net::tls`).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, RawFd};
use std::task::{Context, Poll, Waker};

use pooler_ring::Ring;

/// Times that [`flush_rounds`] is polled in a round: behind what was ready at its beginning, and
/// behind what that has woken.
const LAPS: u8 = 2;

/// Entries have numbers below this, so that one fits a ticket beside the round.
const ENTRY_NUMBERS: u64 = 1 << 8;
const _: () = assert!(pooler_ring::ENTRIES_MAX < 1 << 8);

thread_local! {
    static BATCH: RefCell<Batch> = const { RefCell::new(Batch::new()) };
}

/// Bytes that one entry has room for.
pub const COLLECT_LEN_MAX: usize = pooler_ring::ENTRY_LEN_MAX;

/// Whether bytes are collected on this thread. Where they are, and are not more than
/// [`COLLECT_LEN_MAX`], there is a way to send them that does not refuse.
#[inline]
#[must_use]
pub fn is_collecting() -> bool {
    let collecting = BATCH.try_with(|batch| batch.borrow().ring.is_some());
    collecting.unwrap_or(false)
}

/// Whether this system can send a batch by one call.
///
/// # Errors
/// Why it cannot.
pub fn check() -> io::Result<()> {
    Ring::new().map(drop)
}

/// Collects on this thread, and sends what is collected, until it is dropped. It ends at once if
/// the system cannot do it.
pub async fn flush_rounds() {
    let ring = match Ring::new() {
        Ok(ring) => ring,
        Err(e) => return tracing::warn!("a worker sends every message by itself: {e}"),
    };
    let _until_dropped = Collecting;
    BATCH.with_borrow_mut(|batch| batch.ring = Some(ring));
    poll_fn(poll_lap).await
}

/// Ends the collecting of a thread when dropped.
struct Collecting;

impl Drop for Collecting {
    fn drop(&mut self) {
        flush();
        BATCH.with_borrow_mut(|batch| {
            batch.ring = None;
            batch.flusher = None;
        });
    }
}

fn poll_lap(cx: &mut Context<'_>) -> Poll<()> {
    let due = BATCH.with_borrow_mut(|batch| {
        if batch.is_empty() {
            batch.laps = 0;
            if !batch
                .flusher
                .as_ref()
                .is_some_and(|w| w.will_wake(cx.waker()))
            {
                batch.flusher = Some(cx.waker().clone());
            }
            return false;
        }
        batch.laps += 1;
        if batch.laps < LAPS {
            cx.waker().wake_by_ref();
            return false;
        }
        batch.laps = 0;
        true
    });
    if due {
        flush();
    }
    Poll::Pending
}

/// Sends everything that is collected on this thread.
pub fn flush() {
    // At the end of the thread there is no batch; it ended its collecting before.
    let Ok(Some(mut round)) = BATCH.try_with(|batch| batch.borrow_mut().flush()) else {
        return;
    };
    // Out of the batch's hands: whoever is woken, or dropped with its waker, may use it.
    for entry in round.incomplete.drain(..) {
        round.wakers[entry].wake_by_ref();
    }
    round.wakers.clear();
    BATCH.with_borrow_mut(|batch| batch.last = round);
}

/// One call's worth of bytes, and what earlier calls left.
struct Batch {
    /// While the thread collects.
    ring: Option<Ring>,
    /// The number of the round, never 0.
    round: u64,
    /// Who is woken if an entry is not sent in full.
    wakers: Vec<Waker>,
    /// What was not sent, until its socket asks.
    left: Vec<Left>,
    /// [`flush_rounds`].
    flusher: Option<Waker>,
    /// How often it was polled in this round.
    laps: u8,
    /// Emptied, for its memory.
    last: Round,
}

/// What a flush leaves to be done.
#[derive(Debug, Default)]
struct Round {
    wakers: Vec<Waker>,
    /// Entries that were not sent in full.
    incomplete: Vec<usize>,
}

/// What was not sent.
#[derive(Debug)]
struct Left {
    ticket: u64,
    /// The bytes, or the error.
    what: Result<Vec<u8>, Failure>,
}

/// An error that can be reported more than once.
#[derive(Debug, Clone, Copy)]
struct Failure {
    code: Option<i32>,
    kind: io::ErrorKind,
}

impl From<&io::Error> for Failure {
    fn from(e: &io::Error) -> Self {
        Self {
            code: e.raw_os_error(),
            kind: e.kind(),
        }
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure.code {
            Some(code) => Self::from_raw_os_error(code),
            None => failure.kind.into(),
        }
    }
}

impl Batch {
    const fn new() -> Self {
        Self {
            ring: None,
            round: 1,
            wakers: Vec::new(),
            left: Vec::new(),
            flusher: None,
            laps: 0,
            last: Round {
                wakers: Vec::new(),
                incomplete: Vec::new(),
            },
        }
    }

    fn is_empty(&self) -> bool {
        self.ring.as_ref().is_none_or(Ring::is_empty)
    }

    /// A new entry, if there is room for one.
    #[inline]
    fn put(&mut self, fd: RawFd, waker: &Waker, bytes: &[u8]) -> Option<u64> {
        let ring = self.ring.as_mut()?;
        let first = ring.is_empty();
        let entry = ring.put(fd, bytes)?;
        debug_assert_eq!(entry, self.wakers.len());
        self.wakers.push(waker.clone());
        if first && let Some(flusher) = &self.flusher {
            flusher.wake_by_ref();
        }
        Some(self.round * ENTRY_NUMBERS + entry as u64)
    }

    /// The number of the entry, if it is of the round that is being collected.
    #[inline]
    fn entry(&self, ticket: u64) -> Option<usize> {
        let number = (ticket % ENTRY_NUMBERS) as usize;
        (ticket / ENTRY_NUMBERS == self.round).then_some(number)
    }

    fn state(&self, ticket: u64) -> State {
        if ticket == 0 {
            return State::Nothing;
        }
        if self.entry(ticket).is_some() {
            return State::Collected;
        }
        match self.left.iter().find(|left| left.ticket == ticket) {
            None => State::Nothing,
            Some(Left { what: Ok(_), .. }) => State::Unsent,
            Some(Left { what: Err(e), .. }) => State::Failed(*e),
        }
    }

    /// Returns what is left to be done, if there was something to send.
    fn flush(&mut self) -> Option<Round> {
        let ring = self.ring.as_mut().filter(|ring| !ring.is_empty())?;
        let mut done = std::mem::take(&mut self.last);
        std::mem::swap(&mut done.wakers, &mut self.wakers);
        let (round, left) = (self.round, &mut self.left);
        let flushed = ring.flush(|entry, result, bytes| {
            let what = match result {
                Ok(n) if n == bytes.len() => return,
                Ok(n) => Ok(bytes[n..].to_vec()),
                Err(e) => Err(Failure::from(&e)),
            };
            let ticket = round * ENTRY_NUMBERS + entry as u64;
            left.push(Left { ticket, what });
            done.incomplete.push(entry);
        });
        self.round += 1;
        if let Err(e) = flushed {
            tracing::error!("a worker sends every message by itself from now on: {e}");
            self.ring = None;
        }
        Some(done)
    }
}

/// What a socket has in the batch.
#[derive(Debug, Clone, Copy)]
enum State {
    Nothing,
    Collected,
    Unsent,
    Failed(Failure),
}

/// What became of bytes that were to be collected.
#[derive(Debug, PartialEq, Eq)]
pub enum Collect {
    /// They are collected.
    Done,
    /// They are not, and nothing of this socket is: the caller writes them.
    Refused,
    /// They are not, and these are to be written before them.
    Behind(Vec<u8>),
}

/// A socket of this thread whose bytes may be collected. Closing it sends them first.
#[derive(Debug)]
pub struct Socket<T> {
    // In this order: what is collected leaves before the descriptor is closed.
    entry: Entry,
    socket: T,
}

/// The ticket of what a socket has in the batch of this thread; 0 for nothing.
#[derive(Debug)]
struct Entry {
    ticket: Cell<u64>,
    /// Tickets are of one thread.
    _one_thread: PhantomData<*const ()>,
}

impl Entry {
    /// The state now; the ticket is given back when it stands for nothing any more.
    fn state(&self) -> State {
        let ticket = self.ticket.get();
        let state = BATCH.try_with(|batch| batch.borrow().state(ticket));
        let state = state.unwrap_or(State::Nothing);
        if matches!(state, State::Nothing) {
            self.ticket.set(0);
        }
        state
    }

    /// The state when nothing is collected any more.
    fn flushed(&self) -> State {
        match self.state() {
            State::Collected => {
                flush();
                self.state()
            }
            state => state,
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let ticket = self.ticket.get();
        if ticket == 0 || matches!(self.flushed(), State::Nothing) {
            return;
        }
        BATCH.with_borrow_mut(|batch| batch.left.retain(|left| left.ticket != ticket));
    }
}

impl<T> From<T> for Socket<T> {
    fn from(socket: T) -> Self {
        Self {
            entry: Entry {
                ticket: Cell::new(0),
                _one_thread: PhantomData,
            },
            socket,
        }
    }
}

impl<T: AsRawFd> Socket<T> {
    /// To read from it, or ask about it.
    #[inline]
    pub fn peek(&self) -> &T {
        &self.socket
    }

    /// To read from it.
    #[inline]
    pub fn for_reading(&mut self) -> &mut T {
        &mut self.socket
    }

    /// Lets what is collected leave, so that the caller may write past the batch.
    ///
    /// # Errors
    /// If not all of it has left: the caller's bytes would be out of order.
    #[inline]
    pub fn make_way(&self) -> io::Result<()> {
        if self.entry.ticket.get() == 0 {
            return Ok(());
        }
        match self.entry.flushed() {
            State::Nothing => Ok(()),
            State::Failed(e) => Err(e.into()),
            State::Unsent | State::Collected => {
                Err(io::Error::other("BUG: a write past what waits"))
            }
        }
    }

    /// To write to it past the batch.
    ///
    /// # Errors
    /// As [`Socket::make_way`].
    #[inline]
    pub fn for_writing(&mut self) -> io::Result<&mut T> {
        self.make_way()?;
        Ok(&mut self.socket)
    }

    /// The socket, to go to another thread.
    ///
    /// # Errors
    /// As [`Socket::make_way`]; it is closed then.
    pub fn into_inner(self) -> io::Result<T> {
        self.make_way()?;
        Ok(self.socket)
    }

    /// Whether nothing of it is collected, unsent or failed. What is collected is sent to know that.
    #[inline]
    pub fn has_sent_all(&self) -> bool {
        self.entry.ticket.get() == 0 || matches!(self.entry.flushed(), State::Nothing)
    }

    /// Whether something of it may be collected, unsent or failed. A look at a number.
    #[inline]
    pub fn may_have_collected(&self) -> bool {
        self.entry.ticket.get() != 0
    }

    /// Bytes that were collected and could not be sent; none if it is still open whether they can.
    ///
    /// # Errors
    /// That of the send.
    pub fn take_unsent(&mut self) -> io::Result<Vec<u8>> {
        match self.entry.state() {
            State::Nothing | State::Collected => Ok(Vec::new()),
            State::Failed(e) => Err(e.into()),
            State::Unsent => {
                let ticket = self.entry.ticket.replace(0);
                BATCH.with_borrow_mut(|batch| {
                    let at = batch.left.iter().position(|left| left.ticket == ticket);
                    let at = at.expect("BUG: what was there is gone");
                    batch.left.swap_remove(at).what.map_err(Into::into)
                })
            }
        }
    }

    /// Collects `bytes`, if that can be done, behind all that was collected before. If they cannot be
    /// sent later, `waker` is woken.
    ///
    /// # Errors
    /// That of an earlier send.
    #[inline]
    pub fn collect(&mut self, waker: &Waker, bytes: &[u8]) -> io::Result<Collect> {
        let fd = self.socket.as_raw_fd();
        let ticket = self.entry.ticket.get();
        let tried = BATCH.with_borrow_mut(|batch| {
            if ticket == 0 && batch.ring.is_none() {
                return Some(Collect::Refused);
            }
            if let Some(entry) = batch.entry(ticket) {
                let ring = batch.ring.as_mut()?;
                return ring.append(entry, fd, bytes).then_some(Collect::Done);
            }
            if ticket != 0 && !batch.left.is_empty() {
                return None;
            }
            let ticket = batch.put(fd, waker, bytes);
            self.entry.ticket.set(ticket.unwrap_or(0));
            ticket.map(|_| Collect::Done)
        });
        match tried {
            Some(collect) => Ok(collect),
            None => self.collect_after_flush(fd, waker, bytes),
        }
    }

    /// There is no room, or something may be left of an earlier round.
    #[cold]
    fn collect_after_flush(
        &mut self,
        fd: RawFd,
        waker: &Waker,
        bytes: &[u8],
    ) -> io::Result<Collect> {
        flush();
        let unsent = self.take_unsent()?;
        if !unsent.is_empty() {
            return Ok(Collect::Behind(unsent));
        }
        let ticket = BATCH.with_borrow_mut(|batch| batch.put(fd, waker, bytes));
        self.entry.ticket.set(ticket.unwrap_or(0));
        Ok(ticket.map_or(Collect::Refused, |_| Collect::Done))
    }
}

#[cfg(test)]
pub(crate) mod tests;
