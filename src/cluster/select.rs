//! Which host serves a read.
//!
//! Local replicas first, then what `read_fallback` says. Among several, two are drawn by their shares
//! and the one with clearly less to do takes the read (power of two choices): a slow replica gets less without
//! anybody measuring it, and no worker needs to know what the others do. The draws step through the
//! shares evenly instead of at random, so that equal replicas get equal parts.

use super::position::Position;
use super::{Cluster, Host};
use crate::config::ReadFallback;

/// Where a statement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To the primary, whichever host that is.
    Primary,
    /// To the replica of this number among the cluster's hosts.
    Replica(usize),
}

/// What a read asks of the host that serves it.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// What it must have replayed.
    pub seen: Position,
    /// Not this one: it has just failed.
    pub avoid: Option<usize>,
    /// Only replicas will do.
    pub only_replicas: bool,
}

/// Statements that one host may have to do more than another before the other is preferred.
const SLACK: u64 = 2;

/// A step between two draws that leaves no gaps: the golden ratio of 2^32.
const STEP: u32 = 0x9e37_79b9;

impl Cluster {
    /// The host for a read, and whether it is one of the first choice; nothing if no replica will do
    /// and only replicas are asked for. `load` says what a host has to do for this worker, `turn` how
    /// often this was asked before.
    #[must_use]
    pub fn place_read(
        &self,
        read: Read,
        turn: u32,
        load: impl Fn(usize) -> usize + Copy,
    ) -> Option<(Place, bool)> {
        let fits = |host: &Host| host.share() > 0 && host.replayed() >= read.seen;
        if let Some(at) = self.draw(turn, load, read.avoid, |h| h.local && fits(h)) {
            return Some((Place::Replica(at), true));
        }
        let primary = self.primary();
        for step in self.read_fallback() {
            match step {
                ReadFallback::RemoteReplica => {
                    if let Some(at) = self.draw(turn, load, read.avoid, |h| !h.local && fits(h)) {
                        return Some((Place::Replica(at), false));
                    }
                }
                _ if read.only_replicas => {}
                ReadFallback::LocalPrimary if primary.is_some_and(|h| h.local) => {
                    return Some((Place::Primary, false));
                }
                ReadFallback::Primary if primary.is_some() => {
                    return Some((Place::Primary, false));
                }
                ReadFallback::LocalPrimary | ReadFallback::Primary => {}
            }
        }
        // Rather one that lags, or that the configuration would not choose, than nobody (trap 71).
        let answers = |h: &Host| h.is_replica_up() && h.replayed() >= read.seen;
        let nobody_else = primary.is_none() || read.only_replicas;
        if nobody_else
            && let Some(at) = self.draw(turn, load, read.avoid, |h| answers(h) && h.weight > 0)
        {
            return Some((Place::Replica(at), false));
        }
        (!read.only_replicas).then_some((Place::Primary, false))
    }

    /// One of the hosts that are `eligible`.
    fn draw(
        &self,
        turn: u32,
        load: impl Fn(usize) -> usize,
        avoid: Option<usize>,
        eligible: impl Fn(&Host) -> bool,
    ) -> Option<usize> {
        let candidates = || {
            let hosts = self.hosts().iter().enumerate();
            hosts.filter(|(at, h)| avoid != Some(*at) && eligible(h))
        };
        // One that lags has no share, and is drawn by its weight alone.
        let share = |h: &Host| u64::from(h.share().max(1));
        let total: u64 = candidates().map(|(_, h)| share(h)).sum();
        let pick = |number: u32| {
            let mut left = (total * u64::from(number)) >> 32;
            candidates().find(|(_, h)| {
                let mine = share(h);
                let found = left < mine;
                left = left.saturating_sub(mine);
                found
            })
        };
        let (first, host) = pick(turn.wrapping_mul(STEP))?;
        let (second, other) = pick(turn.wrapping_mul(STEP).wrapping_add(1 << 31))?;
        // Work for its weight. What is less than twice as much is chance: who gave way to that would give
        // the faster of two equals more and more.
        let work = |at: usize, weight: u32| load(at) as u64 * u64::from(weight.max(1));
        let (mine, its) = (work(first, other.weight), work(second, host.weight));
        match 2 * its + SLACK * u64::from(host.weight.max(1)) < mine {
            true => Some(second),
            false => Some(first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::watch::{Health, Verdict};
    use super::*;
    use crate::config::{self, Role};

    const FALLBACK: [ReadFallback; 3] = [
        ReadFallback::LocalPrimary,
        ReadFallback::RemoteReplica,
        ReadFallback::Primary,
    ];

    /// A primary elsewhere, two replicas here, one there.
    fn cluster(fallback: &[ReadFallback]) -> std::sync::Arc<Cluster> {
        let host = |name: &str, datacenter: &str, weight| config::Host {
            host: name.to_owned(),
            port: 5432,
            datacenter: datacenter.to_owned(),
            role: None,
            weight,
        };
        let config = config::Cluster {
            name: "main".to_owned(),
            hosts: vec![
                host("p", "dc2", 1),
                host("a", "dc1", 1),
                host("b", "dc1", 1),
                host("c", "dc2", 1),
            ],
            max_server_connections: config::Limit::NONE,
            monitor_user: Some("m".to_owned()),
            monitor_dbname: "postgres".to_owned(),
            monitor_interval: std::time::Duration::from_secs(1),
            max_replica_lag: None,
            max_replica_lag_bytes: None,
            read_fallback: fallback.to_vec(),
        };
        let cluster = Cluster::new(&config, 1, "dc1");
        set(&cluster, 0, Role::Primary, true);
        for at in 1..4 {
            set(&cluster, at, Role::Replica, true);
        }
        cluster
    }

    fn set(cluster: &Cluster, at: usize, role: Role, fit: bool) {
        let verdict = Verdict {
            health: Health::Up,
            role: Some(role),
            fit: fit && role == Role::Replica,
            share: if fit { 256 } else { 0 },
            position: Position(100),
            ..Verdict::default()
        };
        cluster.publish_for_test(at, verdict);
    }

    fn read(seen: u64) -> Read {
        Read {
            seen: Position(seen),
            avoid: None,
            only_replicas: false,
        }
    }

    fn place(cluster: &Cluster, read: Read) -> Option<Place> {
        cluster.place_read(read, 1, |_| 0).map(|(place, _)| place)
    }

    #[test]
    fn equal_replicas_get_equal_parts_and_busy_ones_less() {
        let cluster = cluster(&FALLBACK);
        let count = |load: fn(usize) -> usize| {
            let mut counts = [0; 4];
            for turn in 0..10_000 {
                match cluster.place_read(read(0), turn, load) {
                    Some((Place::Replica(at), true)) => counts[at] += 1,
                    other => panic!("{other:?}"),
                }
            }
            counts
        };
        let even = count(|_| 3);
        assert_eq!((even[0], even[3]), (0, 0), "no read leaves the datacenter");
        assert!((4_900..=5_100).contains(&even[1]), "{even:?}");
        let uneven = count(|at| if at == 1 { 9 } else { 2 });
        assert!(uneven[2] > 9_000, "{uneven:?}");
    }

    #[test]
    fn t71_reads_fall_back_in_order_and_never_fail_while_a_host_answers() {
        let cluster = cluster(&FALLBACK);
        set(&cluster, 1, Role::Replica, false);
        assert_eq!(place(&cluster, read(0)), Some(Place::Replica(2)));
        set(&cluster, 2, Role::Replica, false);
        // The primary is not here, so a replica elsewhere.
        assert_eq!(place(&cluster, read(0)), Some(Place::Replica(3)));
        set(&cluster, 3, Role::Replica, false);
        assert_eq!(place(&cluster, read(0)), Some(Place::Primary));
        let only = Read {
            only_replicas: true,
            ..read(0)
        };
        assert!(matches!(place(&cluster, only), Some(Place::Replica(_))));
        cluster.publish_for_test(0, Verdict::default());
        assert!(matches!(place(&cluster, read(0)), Some(Place::Replica(_))));
        for at in 1..4 {
            cluster.publish_for_test(at, Verdict::default());
        }
        assert_eq!(
            place(&cluster, read(0)),
            Some(Place::Primary),
            "it waits there"
        );
        assert_eq!(place(&cluster, only), None);
    }

    #[test]
    fn who_must_see_more_than_a_replica_has_goes_to_the_primary() {
        let cluster = cluster(&[ReadFallback::RemoteReplica, ReadFallback::Primary]);
        assert!(matches!(
            place(&cluster, read(100)),
            Some(Place::Replica(1 | 2))
        ));
        assert_eq!(place(&cluster, read(101)), Some(Place::Primary));
        let avoiding = Read {
            avoid: Some(1),
            ..read(0)
        };
        for turn in 0..10 {
            let placed = cluster.place_read(avoiding, turn, |_| 0);
            assert_eq!(placed, Some((Place::Replica(2), true)));
        }
    }
}
