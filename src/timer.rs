//! Timers of what runs on workers.
//!
//! A worker's event loop has no timers of its own: with them, each time that it goes to sleep and wakes costs a look
//! at the clock and a lock, for timers that hardly ever are. What is rare enough to deserve one (a login to a server,
//! a server that is made clean) has it in the main thread's loop, which goes round twenty times a second anyway and
//! wakes the worker when the time has come. Deadlines of sessions and logins, which are many, are kept by the sweep.
//!
//! On a thread that was lent none, timers are those of the event loop it runs.

use std::cell::OnceCell;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::{Sleep, Timeout};

thread_local! {
    static LENDER: OnceCell<Handle> = const { OnceCell::new() };
}

/// From here on, what runs on this thread has its timers in `lender`'s event loop, which must go round for as long as
/// anything waits for one. Only the first call counts.
pub fn borrow_from(lender: Handle) {
    LENDER.with(|kept| {
        let _first = kept.set(lender);
    });
}

/// Is done when `time` has passed.
pub fn sleep(time: Duration) -> Sleep {
    with_timers(|| tokio::time::sleep(time))
}

/// Runs `future` until it is done or `limit` has passed. It is polled once at least.
pub fn timeout<F: Future>(limit: Duration, future: F) -> Timeout<F> {
    with_timers(|| tokio::time::timeout(limit, future))
}

/// Runs `future` until it is done or `deadline` has come. It is polled once at least.
pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    with_timers(|| tokio::time::timeout_at(deadline.into(), future))
}

/// A timer belongs to the event loop that is entered when it is made.
fn with_timers<T>(make: impl FnOnce() -> T) -> T {
    LENDER.with(|lender| {
        let _entered = lender.get().map(Handle::enter);
        make()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::runtime::Builder;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_thread_without_timers_has_those_that_it_was_lent() {
        let (lend, lent) = mpsc::channel();
        let (done, ended) = oneshot::channel();
        let lender = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("an event loop");
            lend.send(runtime.handle().clone()).expect("a receiver");
            runtime.block_on(ended).expect("the end");
        });
        let lent = lent.recv().expect("a handle");
        let worker = std::thread::spawn(move || {
            borrow_from(lent);
            let worker = Builder::new_current_thread().build();
            worker.expect("an event loop").block_on(async {
                sleep(Duration::from_millis(1)).await;
                let never = std::future::pending::<()>();
                assert!(timeout(Duration::from_millis(1), never).await.is_err());
                let at_once = std::future::ready(7);
                assert_eq!(timeout_at(Instant::now(), at_once).await, Ok(7));
            });
        });
        worker.join().expect("no panic");
        done.send(()).expect("a receiver");
        lender.join().expect("no panic");
    }
}
