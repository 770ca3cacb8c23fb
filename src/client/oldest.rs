//! The longest transaction of each pool, for the metrics, and who has had a server for longest, for those who wait:
//! found by the sweep, which looks at every session anyway, so that no transaction pays for it.
//!
//! The latter is asked to introduce itself only while somebody waits, at each sweep of each worker anew: what it
//! does, and since when, is at most a sweep old. Another that was named before is named no more from then on.
//!
//! A replication connection has a server of no pool: it is in the way only of those that wait for its place among the
//! connections of its host ([`Limit::keeps_waiting`](crate::pool::limit::Limit::keeps_waiting)).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::Seats;
use super::seat::{Order, Seat};
use crate::pool::Pool;

/// What one worker has published. There is one entry at most for each server in use.
#[derive(Debug, Default)]
pub struct Oldest {
    published: RefCell<HashMap<u64, (Arc<Pool>, Instant)>>,
    /// Pools whose waiters were told of a holder here, and whom they were told of.
    introduced: RefCell<HashMap<u64, (Arc<Pool>, u64)>>,
}

/// Of one pool.
struct Holder {
    pool: Arc<Pool>,
    seat: Rc<Seat>,
    since: Instant,
}

impl Oldest {
    /// Tells the pools of `worker` which of its transactions is the longest now, and has those introduce
    /// themselves who keep others waiting.
    pub(super) fn publish(&self, worker: usize, seats: &Seats, now: Instant) {
        let mut transactions: HashMap<u64, (Arc<Pool>, Instant)> = HashMap::new();
        let mut holders: HashMap<u64, Holder> = HashMap::new();
        seats.each_holder(now, |seat, pool, began, since| {
            if let Some(began) = began {
                let (_, oldest) = transactions
                    .entry(pool.id)
                    .or_insert_with(|| (Arc::clone(pool), began));
                *oldest = began.min(*oldest);
            }
            if pool.is_waited_for(now) {
                let family = pool.trunk().unwrap_or(pool);
                let oldest = holders.entry(family.id).or_insert_with(|| Holder {
                    pool: Arc::clone(family),
                    seat: Rc::clone(seat),
                    since,
                });
                if since < oldest.since {
                    oldest.seat = Rc::clone(seat);
                    oldest.since = since;
                }
            }
        });
        let mut published = self.published.borrow_mut();
        for (id, (pool, _)) in &*published {
            if !transactions.contains_key(id) {
                pool.note_oldest_checkout(worker, None);
            }
        }
        for (pool, began) in transactions.values() {
            pool.note_oldest_checkout(worker, Some(*began));
        }
        *published = transactions;
        let mut introduced = self.introduced.borrow_mut();
        for (id, (pool, before)) in &*introduced {
            let now = holders.get(id).map(|holder| holder.seat.id());
            if now != Some(*before) {
                pool.note_holder(worker, None);
            }
        }
        introduced.clear();
        for (id, Holder { pool, seat, .. }) in holders {
            introduced.insert(id, (Arc::clone(&pool), seat.id()));
            seat.order(Order::Introduce(pool));
        }
    }
}
