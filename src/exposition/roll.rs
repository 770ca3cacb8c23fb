//! Which pools have series of their own, and what all others add up to.
//!
//! A bound holds however many users there are: the busiest have a *place*, that is series of their own;
//! all others are one, called "other". Each number that a pool counts goes to exactly one of the two, its
//! own series or the sum, at each scrape anew, so that rates add up to what was done, and no series ever
//! falls (to Prometheus a fall means that the process was started anew).
//!
//! ```text
//!            first seen, room           somebody twice as busy, none left
//!   (new) ------------------> placed ------------------------------------> summed
//!     \                         ^  |                                        ^ |
//!      \ first seen, no room    |  | the pool is forgotten: its series      | | the pool is forgotten:
//!       \                       |  v stay, and are the first to go          | v the sum keeps it
//!        `--------------------> summed (becomes one of the busiest: placed again, its series go on)
//! ```
//!
//! What comes back with the name of a forgotten pool goes on where that one ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pools::{Gauges, PoolSample};
use super::totals::Totals;
use crate::pool::{Numbers, Pool};

/// What all pools without a place are called, as database and as user.
pub(super) const OTHER: &str = "other";

/// How often places change hands.
const REVIEW_EVERY: Duration = Duration::from_secs(60);

/// How much busier a pool must be than one whose place it takes, so that two like ones do not take turns.
const BUSIER: u64 = 2;

/// Forgotten pools that once had a place, for each place: one that comes back goes on where it ended.
const FORMER_PER_PLACE: usize = 4;

/// A pool's name: its database, its user and, of a replica's pool, the replica.
type Name = (String, String, Option<Arc<str>>);

/// What is known of one pool.
#[derive(Debug, Default)]
struct Account {
    /// As it lives now, or has until lately.
    pool: Option<Arc<Pool>>,
    /// Whether it has series of its own.
    placed: bool,
    /// What they show, or showed when there were some.
    own: Option<Box<Totals>>,
    /// What the pool had counted when that was last credited to `own` or, at a change, to the sum.
    credited: Option<Box<Totals>>,
    /// Whether the sum has shown more than what was credited.
    in_sum: bool,
    /// Transactions at the last review, and between the last two.
    seen: u64,
    busy: u64,
}

impl Account {
    /// Credits what the pool has counted since the last time to its own series.
    fn credit_own(&mut self) {
        if let Some(pool) = &self.pool {
            let now = Totals::of(pool);
            let own = self.own.get_or_insert_default();
            own.add_grown(&now, self.credited.as_deref());
            self.credited = Some(Box::new(now));
        }
    }

    /// The same to the sum.
    fn credit(&mut self, sum: &mut Totals) {
        if let Some(pool) = &self.pool {
            let now = Totals::of(pool);
            sum.add_grown(&now, self.credited.as_deref());
            self.credited = Some(Box::new(now));
        }
    }

    /// The pool is gone.
    fn close(&mut self, sum: &mut Totals) {
        if self.placed {
            self.credit_own();
        } else {
            self.credit(sum);
        }
        self.pool = None;
        self.credited = None;
        self.in_sum = false;
        self.seen = 0;
        self.busy = 0;
    }

    fn review(&mut self) {
        let counters = self.pool.iter().flat_map(|pool| pool.all_counters());
        let seen = counters.map(|c| c.transactions.value()).sum();
        self.busy = seen - self.seen.min(seen);
        self.seen = seen;
    }

    /// What decides about places: those that live first, then those that did most.
    fn rank(&self) -> (bool, u64) {
        (self.pool.is_some(), self.busy)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Roll {
    accounts: BTreeMap<Name, Account>,
    /// What was credited to the sum of pools that are gone or have a place now.
    settled: Totals,
    /// Whether there was ever a pool to sum.
    sums: bool,
    reviewed: Option<Instant>,
}

impl Roll {
    pub(super) fn new() -> Self {
        Self {
            accounts: BTreeMap::new(),
            settled: Totals::default(),
            sums: false,
            reviewed: None,
        }
    }

    /// The numbers of `pools`, which are all that there are, with `places` places; the sum of the
    /// others comes last.
    pub(super) fn sample(
        &mut self,
        pools: &[Arc<Pool>],
        places: usize,
        now: Instant,
    ) -> Vec<PoolSample> {
        self.meet(pools);
        self.assign_places(places, now);
        let branches = branches(pools);
        let mut samples = Vec::with_capacity(places.min(self.accounts.len()) + 1);
        let mut other = sample(&(OTHER.to_owned(), OTHER.to_owned(), None));
        other.totals = self.settled.clone();
        let mut others = Gauges::default();
        for (name, account) in &mut self.accounts {
            let gauges = account.pool.as_ref().map(|pool| {
                let size = pool.plan().settings.pool_size;
                let mut numbers = pool.numbers();
                for branch in branches.get(&pool.id).into_iter().flatten() {
                    numbers.add(branch);
                }
                Gauges::new(&numbers, size, now).with_pins(pool)
            });
            if account.placed {
                account.credit_own();
                let mut own = PoolSample {
                    gauges,
                    totals: account.own.as_deref().cloned().unwrap_or_default(),
                    ..sample(name)
                };
                if let Some(pool) = &account.pool {
                    own.add_exemplars(pool);
                }
                samples.push(own);
            } else if let (Some(pool), Some(gauges)) = (&account.pool, gauges) {
                account.in_sum = true;
                others.add(&gauges);
                other.add_exemplars(pool);
                other
                    .totals
                    .add_grown(&Totals::of(pool), account.credited.as_deref());
            }
        }
        if self.sums {
            self.settled.know_codes_of(&other.totals);
            other.gauges = Some(others);
            samples.push(other);
        }
        samples
    }

    /// Notes who has come and who has gone.
    fn meet(&mut self, pools: &[Arc<Pool>]) {
        // What servers with startup parameters of their own do is counted by their trunk.
        let trunks = || pools.iter().filter(|pool| pool.trunk().is_none());
        let living: HashMap<u64, ()> = trunks().map(|pool| (pool.id, ())).collect();
        for account in self.accounts.values_mut() {
            let lives = account.pool.as_ref().map(|p| living.contains_key(&p.id));
            if lives == Some(false) {
                account.close(&mut self.settled);
            }
        }
        for pool in trunks() {
            let account = self.accounts.entry(name_of(pool)).or_default();
            account.pool.get_or_insert_with(|| Arc::clone(pool));
        }
    }

    /// Gives free places to the busiest, and at a review those of quiet pools, too.
    fn assign_places(&mut self, places: usize, now: Instant) {
        let due = self
            .reviewed
            .is_none_or(|at| now.saturating_duration_since(at) >= REVIEW_EVERY);
        if due {
            self.reviewed = Some(now);
            self.accounts.values_mut().for_each(Account::review);
        }
        let (mut placed, mut summed) = (Vec::new(), Vec::new());
        for (name, account) in &mut self.accounts {
            if account.placed {
                placed.push(account);
            } else if account.pool.is_some() && !is_other(name) {
                summed.push(account);
            }
        }
        // The last of each is the first to go, or to come; of equals, the first by name comes.
        placed.sort_by_key(|account| std::cmp::Reverse(account.rank()));
        summed.reverse();
        summed.sort_by_key(|account| account.rank());
        while placed.len() > places {
            placed.pop().expect("more than some").placed = false;
        }
        while let Some(next) = summed.pop() {
            let room = placed.len() < places;
            if !room {
                let Some(last) = placed.last() else { break };
                let gives_way = last.pool.is_none() || (due && next.busy > BUSIER * last.busy);
                if !gives_way {
                    break;
                }
                placed.pop().expect("just seen").placed = false;
            }
            next.placed = true;
            // A pool that is seen for the first time was never in the sum.
            if std::mem::take(&mut next.in_sum) {
                next.credit(&mut self.settled);
            }
            // Who has come is not asked to go again in this round.
            placed.insert(0, next);
        }
        self.sums |= self
            .accounts
            .values()
            .any(|a| !a.placed && a.pool.is_some());
        self.forget_former(FORMER_PER_PLACE * places.max(1));
    }

    fn forget_former(&mut self, max: usize) {
        let mut left = max;
        self.accounts.retain(|_, account| {
            let lives = account.placed || account.pool.is_some();
            let former = !lives && account.own.is_some() && left > 0;
            left -= usize::from(former);
            lives || former
        });
    }
}

fn name_of(pool: &Pool) -> Name {
    let key = &pool.key;
    (key.database.clone(), key.user.clone(), key.replica.clone())
}

/// A pool that is really called like the sum is a part of it: two series of one name would make
/// the whole scrape invalid.
fn is_other(name: &Name) -> bool {
    name.0 == OTHER && name.1 == OTHER
}

/// Of servers that were started with parameters of a client's own, by their trunk.
fn branches(pools: &[Arc<Pool>]) -> HashMap<u64, Vec<Numbers>> {
    let mut branches: HashMap<u64, Vec<Numbers>> = HashMap::new();
    for pool in pools {
        if let Some(trunk) = pool.trunk() {
            branches.entry(trunk.id).or_default().push(pool.numbers());
        }
    }
    branches
}

fn sample((database, user, host): &Name) -> PoolSample {
    PoolSample {
        database: database.clone(),
        user: user.clone(),
        host: host.clone(),
        datacenter: None,
        gauges: None,
        totals: Totals::default(),
        exemplars: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{pool, registry};
    use super::*;
    use crate::registry::Registry;

    /// A roll, its pools, and what it showed last.
    struct Watch {
        registry: Arc<Registry>,
        roll: Roll,
        pools: Vec<Arc<Pool>>,
        now: Instant,
        shown: BTreeMap<Name, u64>,
        /// What was counted, and by how much the series have grown since they were first seen.
        counted: u64,
        grown: u64,
    }

    impl Watch {
        fn new() -> Self {
            Self {
                registry: registry(),
                roll: Roll::new(),
                pools: Vec::new(),
                now: Instant::now(),
                shown: BTreeMap::new(),
                counted: 0,
                grown: 0,
            }
        }

        fn join(&mut self, name: &str) {
            self.pools.push(pool(&self.registry, name));
        }

        /// The pool of that name does `n` transactions.
        fn work(&mut self, name: &str, n: u64) {
            let pool = self.pools.iter().find(|p| p.key.database == name);
            let counters = pool.expect(name).counters(0);
            counters.transactions.add(n);
            counters.queries.add(n);
            counters.query_seconds.record(Duration::from_millis(1));
            self.counted += n;
        }

        /// It is forgotten: another of its name will be another pool. Those that stay are known to the watch alone.
        fn leave(&mut self, name: &str) {
            self.pools.retain(|p| p.key.database != name);
            let much_later = Instant::now() + Duration::from_secs(3600);
            self.registry.prune(much_later, Duration::from_secs(1));
            assert!(self.registry.pools().is_empty());
        }

        /// A scrape after `seconds`: "name queries" of each series. None has fallen.
        fn scrape(&mut self, places: usize, seconds: u64) -> Vec<String> {
            self.now += Duration::from_secs(seconds);
            let samples = self.roll.sample(&self.pools, places, self.now);
            assert!(samples.len() <= places + 1, "{}", samples.len());
            let mut lines = Vec::new();
            for sample in samples {
                let queries = sample.totals.queries;
                let name = (sample.database, sample.user, sample.host);
                lines.push(format!("{} {queries}", name.0));
                if let Some(before) = self.shown.insert(name, queries) {
                    assert!(before <= queries, "{lines:?} was {before}");
                    self.grown += queries - before;
                }
            }
            lines
        }
    }

    #[test]
    fn pools_beyond_the_bound_are_one_sum() {
        let mut watch = Watch::new();
        for name in ["c", "b", "a"] {
            watch.join(name);
            watch.work(name, 10);
        }
        assert_eq!(watch.scrape(2, 0), ["a 10", "b 10", "other 10"]);
        watch.work("c", 1);
        assert_eq!(watch.scrape(2, 15), ["a 10", "b 10", "other 11"]);
        // With room for it, it begins anew: what was in the sum stays there.
        watch.work("c", 4);
        assert_eq!(watch.scrape(3, 15), ["a 10", "b 10", "c 0", "other 15"]);
        watch.work("c", 5);
        assert_eq!(watch.scrape(3, 15), ["a 10", "b 10", "c 5", "other 15"]);
    }

    #[test]
    fn the_busiest_have_places_and_go_on_where_they_ended() {
        let mut watch = Watch::new();
        for name in ["a", "b", "c"] {
            watch.join(name);
        }
        watch.work("a", 100);
        watch.work("b", 100);
        assert_eq!(watch.scrape(2, 0), ["a 100", "b 100", "other 0"]);
        watch.work("a", 100);
        watch.work("b", 1);
        watch.work("c", 2);
        // Twice as busy is not busy enough.
        assert_eq!(watch.scrape(2, 60), ["a 200", "b 101", "other 2"]);
        watch.work("a", 100);
        watch.work("b", 1);
        watch.work("c", 50);
        // Not before the next review.
        assert_eq!(watch.scrape(2, 30), ["a 300", "b 102", "other 52"]);
        watch.work("b", 3);
        assert_eq!(watch.scrape(2, 30), ["a 300", "c 0", "other 55"]);
        watch.work("a", 9);
        watch.work("b", 70);
        watch.work("c", 7);
        assert_eq!(watch.scrape(2, 60), ["a 309", "b 102", "other 132"]);
        watch.work("b", 70);
        watch.work("c", 1);
        assert_eq!(watch.scrape(2, 15), ["a 309", "b 172", "other 133"]);
    }

    #[test]
    fn what_a_forgotten_pool_had_counted_stays() {
        let mut watch = Watch::new();
        watch.join("a");
        watch.work("a", 5);
        assert_eq!(watch.scrape(1, 0), ["a 5"]);
        watch.work("a", 1);
        watch.leave("a");
        assert_eq!(watch.scrape(1, 10), ["a 6"]);
        watch.join("a");
        watch.work("a", 2);
        assert_eq!(watch.scrape(1, 10), ["a 8"]);
        // Gone again, it makes room for another.
        watch.leave("a");
        watch.join("b");
        watch.work("b", 3);
        assert_eq!(watch.scrape(1, 10), ["b 3"]);
        watch.join("a");
        watch.work("a", 40);
        assert_eq!(watch.scrape(1, 10), ["b 3", "other 40"]);
        watch.leave("b");
        watch.work("a", 1);
        watch.pools.retain(|p| p.key.database == "a");
        assert_eq!(watch.scrape(1, 10), ["a 8", "other 41"]);
    }

    #[test]
    fn one_that_is_really_called_like_the_sum_is_in_it() {
        let mut watch = Watch::new();
        let impostor = watch.registry.pool(OTHER, OTHER, |_| Ok(Vec::new()));
        watch.pools.push(impostor.expect("any database"));
        watch.work(OTHER, 7);
        assert_eq!(watch.scrape(9, 0), ["other 7"]);
    }

    #[test]
    fn ten_thousand_users_are_few_series_and_nothing_is_lost() {
        let mut watch = Watch::new();
        for n in 0..10_000 {
            watch.join(&format!("d{n:05}"));
        }
        let places = 50;
        watch.scrape(places, 0);
        let mut dice = 1_u64;
        for round in 0..8 {
            for _ in 0..2_000 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let n = ((dice >> 33) % 10_000) >> ((dice >> 20) % 12);
                watch.work(
                    &format!("d{:05}", (n + round * 700) % 10_000),
                    1 + dice % 90,
                );
            }
            watch.scrape(places, 40);
        }
        assert_eq!(watch.grown, watch.counted);
        assert!(watch.shown.len() > places + 1, "no place has changed hands");
    }
}
