//! Sends to many sockets by one system call.
//!
//! ```text
//!   empty --put--> collecting --put, append--> collecting --flush--> empty
//! ```
//! A [`Ring`] copies what it is given, and [`Ring::flush`] hands all of it to the kernel in one call
//! (`io_uring_enter`; an only entry needs none of it, and goes by `send`). A thread is preempted by
//! those whom its sends wake; when each send is a call of its own that happens after every other one,
//! here it happens once.
//!
//! What holds:
//! - Nothing is in flight outside of `flush`: no send waits for a socket (`MSG_DONTWAIT`), so each is
//!   over within the call, and `flush` does not return before the kernel has said so of every one.
//!   So no buffer and no descriptor is used behind the caller's back.
//! - An entry is one send, and entries of different sockets have no order. Bytes for a socket that
//!   has an entry must be appended to it: behind a first send that was short a second would be out
//!   of order.
//! - Between `put` and `flush` the caller keeps the descriptor open: a number that was closed may
//!   name somebody else's socket. This crate cannot see that; the caller's types must hold it.
//! - Each entry gets exactly one result, whatever fails.
//!
//! Where the system has no such call (or forbids it) there is no [`Ring`], and [`Ring::new`] says why.
//!
//! Besides, [`defer_accept`]: one more call for which there is no safe wrapper.

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod linux;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub use linux::Ring;

mod defer;
pub use defer::defer_accept;

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod elsewhere;
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
pub use elsewhere::Ring;

/// Bytes that an entry has room for.
pub const ENTRY_LEN_MAX: usize = 2048;

/// Entries that a [`Ring`] has room for.
pub const ENTRIES_MAX: usize = 64;
