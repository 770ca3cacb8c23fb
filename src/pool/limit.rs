//! Limits that several pools share: on servers of a database, of a user, on a host, and on logins
//! that one host has to take at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Pool;

/// A count with a bound, and the pools that wait for it to fall.
#[derive(Debug)]
pub struct Limit {
    max: AtomicUsize,
    used: AtomicUsize,
    /// Pools that found it full. Locked when it is full, and when a permit is given back.
    blocked: Mutex<Vec<Weak<Pool>>>,
}

impl Limit {
    /// At most `max`; `None` is no limit.
    #[must_use]
    pub fn new(max: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            max: AtomicUsize::new(max.unwrap_or(usize::MAX)),
            used: AtomicUsize::new(0),
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
        self.try_take().or_else(|| {
            let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
            if !blocked.iter().any(|p| p.as_ptr() == Arc::as_ptr(pool)) {
                blocked.push(Arc::downgrade(pool));
            }
            drop(blocked);
            // One may have been given back between the look and the note.
            self.try_take()
        })
    }
}

/// One of a [`Limit`], given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Limit>);

impl Permit {
    /// Whether it is one of `limit`.
    #[must_use]
    pub fn is_of(&self, limit: &Arc<Limit>) -> bool {
        Arc::ptr_eq(&self.0, limit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::AcqRel);
        let mut blocked = self
            .0
            .blocked
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if blocked.is_empty() {
            return;
        }
        let blocked = std::mem::take(&mut *blocked);
        for pool in blocked.iter().filter_map(Weak::upgrade) {
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
