//! Limits that several pools share: on servers of a database, of a user, on a host, and on logins
//! that one host has to take at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::Pool;

/// A count with a bound, and the pools that wait for it to fall.
#[derive(Debug)]
pub struct Limit {
    max: AtomicUsize,
    used: AtomicUsize,
    /// The pools take turns, by how long their clients have waited. Only where they share all their
    /// limits: one that could not use its turn would hold up the others.
    in_turn: bool,
    /// Pools that found it full; where turns are taken, all that have clients waiting. Locked when it is
    /// full, and when a permit is given back.
    blocked: Mutex<Vec<Weak<Pool>>>,
}

impl Limit {
    /// At most `max`; `None` is no limit.
    #[must_use]
    pub fn new(max: Option<usize>) -> Arc<Self> {
        Self::make(max, false)
    }

    /// The same, for pools that have all their limits in common and take turns.
    #[must_use]
    pub fn in_turn(max: Option<usize>) -> Arc<Self> {
        Self::make(max, true)
    }

    fn make(max: Option<usize>, in_turn: bool) -> Arc<Self> {
        Arc::new(Self {
            max: AtomicUsize::new(max.unwrap_or(usize::MAX)),
            used: AtomicUsize::new(0),
            in_turn,
            blocked: Mutex::default(),
        })
    }

    /// Changes the bound; what is over it stays until it is given back.
    pub fn set_max(&self, max: Option<usize>) {
        self.max.store(max.unwrap_or(usize::MAX), Ordering::Release);
    }

    /// The bound; `usize::MAX` is none.
    #[must_use]
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Acquire)
    }

    /// Permits given out.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// Takes one, if it is not full (trap 39: checked and taken in one step).
    #[must_use]
    pub fn try_take(self: &Arc<Self>) -> Option<Permit> {
        let max = self.max();
        self.used
            .try_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                (n < max).then_some(n + 1)
            })
            .ok()
            .map(|_| Permit(Arc::clone(self)))
    }

    /// Takes one for `pool`, which hears of it when one is given back if there is none now.
    #[must_use]
    pub fn take_or_wait(self: &Arc<Self>, pool: &Arc<Pool>) -> Option<Permit> {
        // In this order: one that is taken and given back would have all others look again.
        let take = || self.is_turn_of(pool).then(|| self.try_take()).flatten();
        take().or_else(|| {
            self.note(pool);
            // One may have been given back between the look and the note.
            take()
        })
    }

    /// Clients of `pool` begin to wait: where turns are taken, theirs are counted from now on, whether
    /// or not it comes to find the limit full.
    pub fn line_up(&self, pool: &Arc<Pool>) {
        if self.in_turn {
            self.note(pool);
        }
    }

    fn note(&self, pool: &Arc<Pool>) {
        let mut blocked = self.blocked();
        if !blocked.iter().any(|p| p.as_ptr() == Arc::as_ptr(pool)) {
            blocked.push(Arc::downgrade(pool));
        }
    }

    /// Since when the client waits that has waited longest among those for whom a pool would open a
    /// server now.
    #[must_use]
    pub fn wanted_since(&self) -> Option<Instant> {
        self.by_patience().first()?.0
    }

    /// Whether no other pool would open a server now for somebody who has waited longer.
    fn is_turn_of(&self, pool: &Arc<Pool>) -> bool {
        if !self.in_turn {
            return true;
        }
        let first = self.by_patience().into_iter().next();
        first.is_none_or(|(since, other)| {
            since.is_none() || Arc::ptr_eq(&other, pool) || {
                let mine = pool.wants_since(Instant::now());
                mine.is_some() && mine <= since
            }
        })
    }

    /// The pools whose clients wait for one of these, because all are taken.
    #[must_use]
    pub fn keeps_waiting(&self, now: Instant) -> Vec<Arc<Pool>> {
        if self.used() < self.max() {
            return Vec::new();
        }
        let pools = self.by_patience().into_iter();
        let waits = |(since, pool): &(Option<Instant>, Arc<Pool>)| {
            since.is_some() && pool.is_waited_for(now)
        };
        pools.filter(waits).map(|(_, pool)| pool).collect()
    }

    fn blocked(&self) -> MutexGuard<'_, Vec<Weak<Pool>>> {
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pools that are noted, that with the most patient client first, and since when it waits.
    /// Those that would open nothing now are last. Their locks are taken under none.
    fn by_patience(&self) -> Vec<(Option<Instant>, Arc<Pool>)> {
        let blocked = self.blocked().clone();
        let now = Instant::now();
        let pools = blocked.iter().filter_map(Weak::upgrade);
        let mut pools: Vec<_> = pools.map(|pool| (pool.wants_since(now), pool)).collect();
        pools.sort_by_key(|(since, _)| (since.is_none(), *since));
        pools
    }
}

/// One of a [`Limit`], given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Limit>);

impl Permit {
    /// The limit that it is of.
    #[must_use]
    pub fn limit(&self) -> &Arc<Limit> {
        &self.0
    }

    /// Whether it is one of `limit`.
    #[must_use]
    pub fn is_of(&self, limit: &Arc<Limit>) -> bool {
        Arc::ptr_eq(&self.0, limit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::AcqRel);
        if self.0.blocked().is_empty() {
            return;
        }
        let pools = self.0.by_patience();
        // Where they take turns, who waits stays in line; all others are told once. Who came after the
        // look stays, too.
        let stays = |p: &Weak<Pool>| {
            let known = pools
                .iter()
                .find(|(_, pool)| Arc::as_ptr(pool) == p.as_ptr());
            known.map_or(p.strong_count() > 0, |(_, pool)| {
                self.0.in_turn && pool.has_waiters()
            })
        };
        self.0.blocked().retain(stays);
        for (_, pool) in pools {
            pool.ask_to_grow();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t36_a_permit_comes_back_however_it_ends() {
        let limit = Limit::new(Some(2));
        let a = limit.try_take();
        let b = limit.try_take();
        assert!(a.is_some() && b.is_some() && limit.try_take().is_none());
        drop(a);
        assert_eq!(limit.used(), 1);
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _permit = limit.try_take();
            panic!("on purpose");
        }));
        assert!(unwound.is_err());
        assert_eq!(limit.used(), 1);
    }

    #[test]
    fn t39_many_threads_never_pass_the_limit() {
        let limit = Limit::new(Some(3));
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..10_000 {
                        let permit = limit.try_take();
                        assert!(limit.used() <= 3);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(limit.used(), 0);
    }
}
