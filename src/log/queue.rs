//! Lines on their way to the standard error.
//!
//! A channel of the standard library and one thread: what a crate for it would add (files, rotation) is the
//! business of whoever reads the standard error, and the thread is needed for the floods, too.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::floods;

/// Lines that may wait.
const LINES_MAX: usize = 1024;

/// How often the thread looks whether floods have ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often [`finish`] tries.
const FINISH_TRY_EVERY: Duration = Duration::from_millis(10);

static QUEUE: OnceLock<SyncSender<Item>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Item {
    Line(Vec<u8>),
    /// Say when everything before it is written.
    Finish(SyncSender<()>),
}

/// Starts the thread, once.
pub(super) fn start() {
    QUEUE.get_or_init(|| {
        let (sender, receiver) = sync_channel(LINES_MAX);
        // Without it the queue is full for ever, which costs the log and nothing else.
        let _thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&receiver));
        sender
    });
}

/// Queues a line, or drops it; never waits.
pub(super) fn put(line: Vec<u8>) {
    let Some(queue) = QUEUE.get() else {
        return;
    };
    if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
        queue.try_send(Item::Line(line))
    {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Lines that were dropped since the start because the standard error did not take them.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Waits until what is queued is written, for so long at most; for the end of the process.
pub fn finish(limit: Duration) {
    let Some(queue) = QUEUE.get() else {
        return;
    };
    let until = Instant::now() + limit;
    let (sender, done) = sync_channel(1);
    loop {
        match queue.try_send(Item::Finish(sender.clone())) {
            Ok(()) => break,
            Err(TrySendError::Disconnected(_)) => return,
            Err(TrySendError::Full(_)) if Instant::now() >= until => return,
            Err(TrySendError::Full(_)) => std::thread::sleep(FINISH_TRY_EVERY),
        }
    }
    let _in_time = done.recv_timeout(until.saturating_duration_since(Instant::now()));
}

fn write_all(queue: &Receiver<Item>) {
    let mut said = 0;
    let mut look_at = Instant::now() + LOOK_EVERY;
    loop {
        match queue.recv_timeout(look_at.saturating_duration_since(Instant::now())) {
            // Nobody can be told of an error, and the next line may go through.
            Ok(Item::Line(line)) => drop(io::stderr().write_all(&line)),
            Ok(Item::Finish(done)) => drop(done.try_send(())),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Instant::now() >= look_at {
            look_at = Instant::now() + LOOK_EVERY;
            floods::say_what_was_held_back(Instant::now());
            let dropped = dropped();
            if dropped > said {
                tracing::warn!(
                    lines = dropped - said,
                    "lines of the log were dropped: the standard error did not take them"
                );
                said = dropped;
            }
        }
    }
}
