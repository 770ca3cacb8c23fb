//! Connections that are accepted when their peer has said something.
#![allow(unsafe_code)] // One system call for which there is no safe wrapper.

use std::io;
use std::os::fd::BorrowedFd;

/// Has a listening TCP socket hand out a connection only when its first bytes are there, or
/// `seconds` after it came (`TCP_DEFER_ACCEPT`, tcp(7)): nobody is woken for one that has nothing to
/// be answered yet. The kernel counts in retransmissions, so it may be some seconds more.
///
/// # Errors
/// What the system says.
#[cfg(target_os = "linux")]
pub fn defer_accept(listener: BorrowedFd<'_>, seconds: u8) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let value = libc::c_int::from(seconds);
    let size = std::mem::size_of_val(&value);
    // SAFETY: the kernel reads `size` bytes from the address of `value`, which lives until after the
    // call, and keeps nothing of them; the descriptor is open as long as it is borrowed.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const value).cast(),
            libc::socklen_t::try_from(size).unwrap_or_default(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// As on Linux; there is none on this system.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn defer_accept(_listener: BorrowedFd<'_>, _seconds: u8) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
