//! Logins that failed: each further one of that user from that address, and after many of anybody from that
//! address, is made to wait longer.
//!
//! ```text
//!   free --max_login_failures--> delayed, 0.1 s and then twice as long each time, at most 10 s
//!     ^------- none for 5 min, or the right password ------'
//! ```
//! Attempts that come at once wait one behind the other, so that many connections guess no faster than
//! one; whoever would wait for too long is refused. What a name or an address has done delays no other
//! user from elsewhere: nobody can be locked out by a stranger. Time is injected.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The first delay.
const DELAY_MIN: Duration = Duration::from_millis(100);

/// The longest delay.
const DELAY_MAX: Duration = Duration::from_secs(10);

/// Who would wait longer is refused.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// When a failure is forgotten.
const FORGET: Duration = Duration::from_secs(300);

/// An address has so many times the failures of one user: many applications can share it.
const ADDRESS_SHARE: u32 = 10;

/// Entries of either kind that are kept.
const KEPT_MAX: usize = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Attempts {
    /// By the hash of the user's name: names can be long.
    users: Mutex<HashMap<(Option<IpAddr>, u64), Record>>,
    addresses: Mutex<HashMap<Option<IpAddr>, Record>>,
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    failures: u32,
    last: Instant,
    /// When the next attempt may be made.
    next: Instant,
}

impl Record {
    /// When an attempt at `now` may be made; the next one must come after it.
    fn take_turn(&mut self, free: u32, now: Instant) -> Instant {
        if self.failures < free {
            return now;
        }
        let at = self.next.max(now);
        if at - now <= WAIT_MAX {
            self.next = at + delay(self.failures - free);
        }
        at
    }
}

fn delay(over: u32) -> Duration {
    let factor = 1_u32.checked_shl(over).unwrap_or(u32::MAX);
    DELAY_MIN.saturating_mul(factor).min(DELAY_MAX)
}

/// A network of version 6 has more addresses than can be remembered.
fn network(address: Option<IpAddr>) -> Option<IpAddr> {
    address.map(|address| match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    })
}

impl Attempts {
    /// How long an attempt to log in as `user` from `address` has to wait, of which so many may fail; nothing
    /// if it would wait for too long.
    #[must_use]
    pub fn begin(
        &self,
        address: Option<IpAddr>,
        user: &str,
        free: Option<usize>,
        now: Instant,
    ) -> Option<Duration> {
        let Some(free) = free.map(|free| u32::try_from(free).unwrap_or(u32::MAX)) else {
            return Some(Duration::ZERO);
        };
        if self.is_empty() {
            return Some(Duration::ZERO);
        }
        let address = network(address);
        let shared = free.saturating_mul(ADDRESS_SHARE);
        let by_address = turn(&self.addresses, &address, shared, now);
        let by_user = turn(
            &self.users,
            &(address, self.hasher.hash_one(user)),
            free,
            now,
        );
        let wait = by_address.max(by_user) - now;
        (wait <= WAIT_MAX).then_some(wait)
    }

    /// It failed.
    pub fn failed(&self, address: Option<IpAddr>, user: &str, now: Instant) {
        let address = network(address);
        note(&self.addresses, address, now);
        note(&self.users, (address, self.hasher.hash_one(user)), now);
    }

    /// It did not.
    pub fn passed(&self, address: Option<IpAddr>, user: &str) {
        if self.is_empty() {
            return;
        }
        let address = network(address);
        lock(&self.users).remove(&(address, self.hasher.hash_one(user)));
        // Somebody there knows what to say.
        if let Some(record) = lock(&self.addresses).get_mut(&address) {
            record.failures /= 2;
        }
    }

    /// Nobody failed lately: nothing need be hashed.
    fn is_empty(&self) -> bool {
        lock(&self.addresses).is_empty() && lock(&self.users).is_empty()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn turn<K: Hash + Eq>(
    records: &Mutex<HashMap<K, Record>>,
    key: &K,
    free: u32,
    now: Instant,
) -> Instant {
    let mut records = lock(records);
    let Some(record) = records.get_mut(key) else {
        return now;
    };
    if now.saturating_duration_since(record.last) >= FORGET {
        records.remove(key);
        return now;
    }
    record.take_turn(free, now)
}

fn note<K: Hash + Eq>(records: &Mutex<HashMap<K, Record>>, key: K, now: Instant) {
    let mut records = lock(records);
    if records.len() >= KEPT_MAX && !records.contains_key(&key) {
        records.retain(|_, record| now.saturating_duration_since(record.last) < FORGET);
        // Names that were tried once were made up.
        if records.len() >= KEPT_MAX {
            records.retain(|_, record| record.failures > 1);
        }
        if records.len() >= KEPT_MAX {
            records.clear();
        }
    }
    let record = records.entry(key).or_insert(Record {
        failures: 0,
        last: now,
        next: now,
    });
    record.failures = record.failures.saturating_add(1);
    record.last = now;
    record.next = record.next.max(now);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Option<usize> = Some(3);

    fn address(n: u8) -> Option<IpAddr> {
        Some([10, 0, 0, n].into())
    }

    #[test]
    fn failures_delay_the_user_from_that_address_alone() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(
                attempts.begin(address(1), "bob", FREE, now),
                Some(Duration::ZERO)
            );
            attempts.failed(address(1), "bob", now);
        }
        // The first waits for nothing, those behind it for each other.
        let waits: Vec<_> = (0..4)
            .map(|_| attempts.begin(address(1), "bob", FREE, now))
            .collect();
        let ms = |n| Some(Duration::from_millis(n));
        assert_eq!(waits, [ms(0), ms(100), ms(200), ms(300)]);
        for _ in 0..4 {
            attempts.failed(address(1), "bob", now);
        }
        let later = now + Duration::from_secs(1);
        assert_eq!(attempts.begin(address(1), "bob", FREE, later), ms(0));
        assert_eq!(
            attempts.begin(address(1), "bob", FREE, later),
            ms(1600),
            "it grows"
        );
        for (from, user) in [(address(2), "bob"), (address(1), "ann"), (None, "bob")] {
            assert_eq!(
                attempts.begin(from, user, FREE, now),
                ms(0),
                "{from:?} {user}"
            );
        }
        assert_eq!(
            attempts.begin(address(1), "bob", None, later),
            ms(0),
            "no limit"
        );
        attempts.passed(address(1), "bob");
        assert_eq!(attempts.begin(address(1), "bob", FREE, later), ms(0));
        assert_eq!(attempts.begin(address(1), "bob", FREE, later), ms(0));
    }

    #[test]
    fn many_names_from_one_address_are_delayed_and_forgotten() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for n in 0..100_u32 {
            attempts.failed(address(1), &n.to_string(), now);
        }
        let waits = (0..10).map(|_| attempts.begin(address(1), "new", FREE, now));
        assert!(
            waits.collect::<Vec<_>>().contains(&None),
            "a crowd is refused"
        );
        let later = now + FORGET;
        assert_eq!(
            attempts.begin(address(1), "new", FREE, later),
            Some(Duration::ZERO)
        );
        for n in 0..3 * KEPT_MAX {
            attempts.failed(address(1), &n.to_string(), now);
        }
        assert!(lock(&attempts.users).len() <= KEPT_MAX);
    }

    #[test]
    fn a_network_of_version_6_is_one_address() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let from = |n: u16| Some(Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, n).into());
        for n in 0..5 {
            attempts.failed(from(n), "bob", now);
        }
        assert_eq!(
            attempts.begin(from(9), "bob", FREE, now),
            Some(Duration::ZERO)
        );
        assert_ne!(
            attempts.begin(from(10), "bob", FREE, now),
            Some(Duration::ZERO)
        );
    }
}
