//! [`Ring`] by io_uring.
//!
//! Entry `n` has the bytes from `n * ENTRY_LEN_MAX` on and the `n`th place in the kernel's queue, and
//! its results come back under that number, in any order.
#![allow(unsafe_code)] // The kernel is given addresses; see `send`, `queue` and `give_up`.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use io_uring::{Builder, IoUring, cqueue, opcode, squeue, types};

use crate::{ENTRIES_MAX, ENTRY_LEN_MAX};

/// Calls in a row that may come to nothing before the ring is given up. Each is a signal that came
/// in between, or a kernel that is short of memory for the moment.
const VAIN_CALLS_MAX: u32 = 1000;

/// Bytes for one socket.
#[derive(Debug, Clone, Copy)]
struct Entry {
    fd: RawFd,
    len: usize,
}

/// See the crate.
pub struct Ring {
    uring: IoUring,
    entries: Vec<Entry>,
    bytes: Box<[u8]>,
    /// What the kernel said of each entry.
    results: Vec<Option<i32>>,
    /// The kernel takes calls of one thread only.
    _one_thread: PhantomData<*const ()>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entries = self.entries.len();
        f.debug_struct("Ring").field("entries", &entries).finish()
    }
}

impl Ring {
    /// An empty one, after it was tried: the calls may be there and be forbidden.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        let mut ring = Self {
            uring: build()?,
            entries: Vec::with_capacity(ENTRIES_MAX),
            bytes: vec![0; ENTRIES_MAX * ENTRY_LEN_MAX].into_boxed_slice(),
            results: Vec::with_capacity(ENTRIES_MAX),
            _one_thread: PhantomData,
        };
        ring.try_out()?;
        Ok(ring)
    }

    fn try_out(&mut self) -> io::Result<()> {
        let (left, right) = UnixStream::pair()?;
        // Two, because one would be sent without the queue.
        for end in [&left, &right] {
            end.set_nonblocking(true)?;
            self.put(end.as_raw_fd(), b"?");
        }
        let mut sent = Vec::new();
        self.flush(|_, result, _| sent.push(result))?;
        for result in sent {
            if result? != 1 {
                return Err(io::ErrorKind::Unsupported.into());
            }
        }
        for mut end in [&left, &right] {
            if io::Read::read(&mut end, &mut [0; 2])? != 1 {
                return Err(io::ErrorKind::Unsupported.into());
            }
        }
        Ok(())
    }

    /// Whether nothing is collected.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Copies `bytes` to a new entry for a socket that has none. Returns its number, or nothing if
    /// there is no room: all entries are taken, or it is longer than [`ENTRY_LEN_MAX`].
    #[inline]
    pub fn put(&mut self, fd: RawFd, bytes: &[u8]) -> Option<usize> {
        let entry = self.entries.len();
        if entry == ENTRIES_MAX || bytes.len() > ENTRY_LEN_MAX {
            return None;
        }
        let start = entry * ENTRY_LEN_MAX;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        let len = bytes.len();
        self.entries.push(Entry { fd, len });
        Some(entry)
    }

    /// Copies `bytes` behind what entry `entry` has. False, and nothing done, if there is no room.
    ///
    /// # Panics
    /// If that is no entry of `fd`: its bytes would go to somebody else.
    #[inline]
    #[must_use]
    pub fn append(&mut self, entry: usize, fd: RawFd, bytes: &[u8]) -> bool {
        let taken = self.entries[entry];
        assert_eq!(taken.fd, fd, "BUG: the entry of another socket");
        if bytes.len() > ENTRY_LEN_MAX - taken.len {
            return false;
        }
        let start = entry * ENTRY_LEN_MAX + taken.len;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.entries[entry].len += bytes.len();
        true
    }

    /// Sends everything. `each` gets the number of each entry, how many of its bytes the system took
    /// (0 if the socket would have had to be waited for), and its bytes; then there are no entries.
    ///
    /// # Errors
    /// What the system says. The ring is of no use any more then, but `each` was told of all entries.
    pub fn flush(
        &mut self,
        mut each: impl FnMut(usize, io::Result<usize>, &[u8]),
    ) -> io::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        self.results.clear();
        self.results.resize(self.entries.len(), None);
        let completed = match self.entries[..] {
            [entry] => {
                self.results[0] = Some(self.send(entry));
                Ok(())
            }
            _ => {
                self.queue();
                self.complete()
            }
        };
        let lost = match &completed {
            Ok(()) => Box::default(),
            Err(_) => self.give_up(),
        };
        let bytes = if completed.is_ok() {
            &self.bytes
        } else {
            &lost
        };
        for (number, entry) in self.entries.iter().enumerate() {
            let start = number * ENTRY_LEN_MAX;
            let result = match self.results[number] {
                Some(n) if n >= 0 => Ok(n.unsigned_abs() as usize),
                Some(e) if e == -libc::EAGAIN || e == -libc::EINTR => Ok(0),
                Some(e) => Err(io::Error::from_raw_os_error(-e)),
                None => Err(io::Error::other("nobody knows what became of a send")),
            };
            each(number, result, &bytes[start..start + entry.len]);
        }
        self.entries.clear();
        if completed.is_err() {
            // What the kernel may still read stays where it is for good.
            std::mem::forget(lost);
        }
        completed
    }

    /// Sends the only entry without the kernel's queue, which one send does not repay. The result is as the kernel gives
    /// it there.
    fn send(&self, entry: Entry) -> i32 {
        let bytes = &self.bytes[..entry.len];
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the bytes are there, and the kernel keeps none of them.
        let sent = unsafe { libc::send(entry.fd, bytes.as_ptr().cast(), bytes.len(), flags) };
        if sent < 0 {
            let error = io::Error::last_os_error();
            return -error.raw_os_error().unwrap_or(libc::EIO);
        }
        i32::try_from(sent).expect("BUG: a long entry")
    }

    fn queue(&mut self) {
        let mut queue = self.uring.submission();
        for (number, entry) in self.entries.iter().enumerate() {
            let at = self.bytes[number * ENTRY_LEN_MAX..].as_ptr();
            let len = u32::try_from(entry.len).expect("BUG: a long entry");
            let send = opcode::Send::new(types::Fd(entry.fd), at, len)
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                .build()
                .user_data(number as u64);
            // SAFETY: the bytes lie in `self.bytes`, which is not touched before `flush` has seen
            // the completion of this send; if that does not come they are leaked (`give_up`).
            unsafe { queue.push(&send) }.expect("BUG: the queue has room for all entries");
        }
    }

    /// One call, and more only if it was disturbed.
    fn complete(&mut self) -> io::Result<()> {
        let mut left = self.entries.len();
        let mut in_vain = 0;
        while left > 0 {
            let called = self.uring.submit_and_wait(left);
            let before = left;
            for completion in self.uring.completion() {
                left -= usize::from(note(&mut self.results, &completion));
            }
            if left < before {
                in_vain = 0;
                continue;
            }
            in_vain += 1;
            match called {
                Ok(_) if in_vain < VAIN_CALLS_MAX => {}
                Err(e) if in_vain < VAIN_CALLS_MAX && is_passing(&e) => std::thread::yield_now(),
                Ok(_) => return Err(io::ErrorKind::TimedOut.into()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The kernel takes no more calls. What it has not seen was not sent; what it has seen and not
    /// reported may be sent at any time. Gives the bytes away, which must never be freed.
    #[cold]
    fn give_up(&mut self) -> Box<[u8]> {
        let unseen = self.uring.submission().len();
        let seen = self.entries.len().saturating_sub(unseen);
        for result in &mut self.results[seen..] {
            result.get_or_insert(0);
        }
        std::mem::take(&mut self.bytes)
    }
}

/// Enters a result; false for one that nothing waits for.
#[inline]
fn note(results: &mut [Option<i32>], completion: &cqueue::Entry) -> bool {
    let number = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
    let place = results.get_mut(number).filter(|place| place.is_none());
    place.is_some_and(|place| {
        *place = Some(completion.result());
        true
    })
}

fn is_passing(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
    )
}

/// With what newer kernels save a little by, or without.
fn build() -> io::Result<IoUring> {
    let entries = u32::try_from(ENTRIES_MAX).expect("BUG: too many entries");
    let mut newer: Builder<squeue::Entry, cqueue::Entry> = IoUring::builder();
    newer
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun();
    match newer.build(entries) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => IoUring::builder().build(entries),
        built => built,
    }
}

#[cfg(test)]
mod tests;
