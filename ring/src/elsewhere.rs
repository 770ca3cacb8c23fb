//! For systems without io_uring: no [`Ring`] can be had.

use std::convert::Infallible;
use std::io;
use std::os::fd::RawFd;

/// See the crate. There is none on this system.
#[derive(Debug)]
pub struct Ring(Infallible);

impl Ring {
    /// There is none.
    ///
    /// # Errors
    /// Always.
    pub fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether nothing is collected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self.0 {}
    }

    /// A new entry.
    pub fn put(&mut self, _fd: RawFd, _bytes: &[u8]) -> Option<usize> {
        match self.0 {}
    }

    /// More for an entry.
    pub fn append(&mut self, _entry: usize, _fd: RawFd, _bytes: &[u8]) -> bool {
        match self.0 {}
    }

    /// Sends everything.
    ///
    /// # Errors
    /// None.
    pub fn flush(&mut self, _each: impl FnMut(usize, io::Result<usize>, &[u8])) -> io::Result<()> {
        match self.0 {}
    }
}
