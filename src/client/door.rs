//! Which worker takes connections: one at a time, the one on which most new clients come to live.
//!
//! ```text
//!   on duty --logins settle elsewhere, by a margin--> the worker where they settle is on duty
//! ```
//! A client that settles on another worker than the one that let it in costs a wake-up of a thread
//! and two calls of epoll, about a third of a whole login. Which worker that will be is known only
//! after the startup packet, so the door goes where the last clients went. All workers share the
//! listening sockets: what waits in their queues is lost to nobody when the duty changes.

use std::cell::Cell;

use tokio::sync::watch;

/// Logins by which one other worker must lead before the duty goes there.
const MARGIN: u32 = 8;

/// All workers' view of who is on duty.
#[derive(Debug, Clone)]
pub struct Door {
    on_duty: watch::Sender<usize>,
}

impl Default for Door {
    /// The first worker begins.
    fn default() -> Self {
        Self {
            on_duty: watch::Sender::new(0),
        }
    }
}

impl Door {
    /// For a task that takes connections when its worker is on duty.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.on_duty.subscribe()
    }

    fn hand_to(&self, worker: usize) {
        self.on_duty.send_replace(worker);
    }
}

/// One worker's count of where the clients went that it let in.
#[derive(Debug)]
pub struct Doorkeeper {
    door: Door,
    worker: usize,
    /// The worker that leads, and by how many logins.
    lead: Cell<(usize, u32)>,
}

impl Doorkeeper {
    /// Of this worker.
    #[must_use]
    pub fn new(door: Door, worker: usize) -> Self {
        Self {
            door,
            worker,
            lead: Cell::new((worker, 0)),
        }
    }

    /// A client that was let in here lives on worker `home`.
    pub(super) fn note(&self, home: usize) {
        let (leader, by) = self.lead.get();
        let (leader, by) = match by {
            0 => (home, 1),
            _ if home == leader => (leader, (by + 1).min(MARGIN)),
            _ => (leader, by - 1),
        };
        self.lead.set((leader, by));
        if leader != self.worker && by == MARGIN {
            self.lead.set((self.worker, 0));
            self.door.hand_to(leader);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_duty(door: &Door) -> usize {
        *door.watch().borrow()
    }

    #[test]
    fn the_duty_goes_where_the_clients_go() {
        let door = Door::default();
        let keeper = Doorkeeper::new(door.clone(), 0);
        for _ in 1..MARGIN {
            keeper.note(2);
        }
        assert_eq!(on_duty(&door), 0);
        keeper.note(2);
        assert_eq!(on_duty(&door), 2);
    }

    #[test]
    fn clients_that_spread_evenly_leave_it_where_it_is() {
        let door = Door::default();
        let keeper = Doorkeeper::new(door.clone(), 0);
        for n in 0..1000 {
            keeper.note(n % 3);
        }
        assert_eq!(on_duty(&door), 0);
    }

    #[test]
    fn clients_that_stay_hold_it_against_a_few_that_leave() {
        let door = Door::default();
        let keeper = Doorkeeper::new(door.clone(), 1);
        for n in 0..1000 {
            keeper.note(if n % 4 == 0 { 0 } else { 1 });
        }
        assert_eq!(on_duty(&door), 0, "it began elsewhere and never moved");
    }
}
