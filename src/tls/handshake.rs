//! Handshakes, off the workers and a few at a time.
//!
//! A handshake takes as long as fifty transactions. So what it computes is computed on a blocking
//! thread, and only so many at a time that half of the cores are left to queries: a storm of logins
//! waits for its turn and queries do not. While the peer is waited for, no turn is held.

use std::io;
use std::sync::LazyLock;

use tokio::sync::Semaphore;

use crate::net::{Next, Records, Stream};

/// Bytes that one read may take.
const READ_LEN: usize = 4096;

/// Turns of the process.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new((cores / 2).max(1))
});

/// Which steps cost much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dear {
    /// The answer to a ClientHello.
    First,
    /// Everything that the peer says.
    All,
}

/// Runs the handshake to its end, beginning with `input` from the peer. The caller sets a deadline.
/// Dropped midway, the connection is of no use.
///
/// # Errors
/// `InvalidData` with what is wrong with the peer's part, of which the peer is told; else what the
/// system says.
pub(super) async fn run(
    socket: &mut Stream,
    mut records: Records,
    mut input: Vec<u8>,
    dear: Dear,
) -> io::Result<Records> {
    let mut has_spoken = false;
    loop {
        let is_dear = !input.is_empty() && (dear == Dear::All || !has_spoken);
        let next = if is_dear {
            let _turn = TURNS.acquire().await;
            let step = move || {
                let next = records.advance(&input);
                (records, next)
            };
            let (back, next) = tokio::task::spawn_blocking(step)
                .await
                .map_err(io::Error::other)?;
            records = back;
            next
        } else {
            records.advance(&input)
        };
        let out = records.take_out();
        let next = match next {
            Ok(next) => next,
            Err(e) => {
                let _told = socket.try_write(&out);
                return Err(io::Error::new(io::ErrorKind::InvalidData, e));
            }
        };
        if !out.is_empty() {
            socket.write_all(&out).await?;
            has_spoken = true;
        }
        match next {
            Next::Traffic => return Ok(records),
            Next::Closed => return Err(io::ErrorKind::UnexpectedEof.into()),
            Next::Handshake => {}
        }
        input = vec![0; READ_LEN];
        let n = socket.read(&mut input).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        input.truncate(n);
    }
}
