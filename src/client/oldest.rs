//! The longest transaction of each pool, for the metrics: found by the sweep, which looks at every
//! session anyway, so that no transaction pays for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::Seats;
use crate::pool::Pool;

/// What one worker has published. There is one entry at most for each server in use.
#[derive(Debug, Default)]
pub struct Oldest {
    published: RefCell<HashMap<u64, (Arc<Pool>, Instant)>>,
}

impl Oldest {
    /// Tells the pools of `worker` which of its transactions is the longest now.
    pub(super) fn publish(&self, worker: usize, seats: &Seats) {
        let mut now: HashMap<u64, (Arc<Pool>, Instant)> = HashMap::new();
        seats.each_transaction(|pool, began| {
            let (_, oldest) = now
                .entry(pool.id)
                .or_insert_with(|| (Arc::clone(pool), began));
            *oldest = began.min(*oldest);
        });
        let mut published = self.published.borrow_mut();
        for (id, (pool, _)) in &*published {
            if !now.contains_key(id) {
                pool.note_oldest_checkout(worker, None);
            }
        }
        for (pool, began) in now.values() {
            pool.note_oldest_checkout(worker, Some(*began));
        }
        *published = now;
    }
}
