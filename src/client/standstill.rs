//! SUSPEND, on one worker: every session sends what is unsent, and reads from nobody until it may go on.
//!
//! ```text
//!   running --StandStill--> still (each session: flushing --nothing unsent--> quiet) --GoOn, Drain--> running
//! ```
//! A session looks at the flag once a poll. What arrives stays with the system; deadlines are not looked at, because nobody
//! could meet them. Who logs in meanwhile waits behind the login, but for operators: they must be able to end it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::{Notify, oneshot};

use super::Hub;
use super::seat::Order;

/// See the module.
#[derive(Debug, Default)]
pub struct Standstill {
    on: Cell<bool>,
    over: Notify,
}

impl Standstill {
    /// Whether sessions are to stand still.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.get()
    }

    /// Until they may go on. Dropped midway, nothing is lost.
    pub(super) async fn wait_until_over(&self) {
        while self.on.get() {
            self.over.notified().await;
        }
    }
}

/// Held by every session that has something unsent; the last of them says that all is quiet.
#[derive(Debug)]
pub struct Unquiet(RefCell<Option<oneshot::Sender<()>>>);

impl Drop for Unquiet {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            // Who asked may have left.
            let _heard = reply.send(());
        }
    }
}

impl Hub {
    /// Has every session stand still; `reply` is sent when nothing is unsent.
    pub(super) fn stand_still(&self, reply: oneshot::Sender<()>) {
        self.standstill.on.set(true);
        let unquiet = Rc::new(Unquiet(RefCell::new(Some(reply))));
        self.seats
            .order_all(|| Order::StandStill(Rc::clone(&unquiet)));
    }

    /// Ends that.
    pub(super) fn go_on(&self) {
        if self.standstill.on.replace(false) {
            self.standstill.over.notify_waiters();
            self.seats.order_all(|| Order::LookUp);
        }
    }
}
