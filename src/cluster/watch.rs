//! What the monitor has seen of a cluster's hosts, and what follows from it: who is the primary, which
//! replicas may serve reads. Pure: the clock comes with the call.
//!
//! A host's role and a replica's lag are observed apart. What was seen too long ago counts for nothing:
//! such a host serves no reads and takes no writes.
//!
//! ```text
//!             seen                        seen, seen again
//!   unknown --------> up      down -----------------------> up
//!      ^              | silent for too long: unknown
//!      |              | refused, or broke off: down
//!      +--------------+
//! ```
//! The primary is the host that is not in recovery, of several the one on the highest timeline; never one
//! on a lower timeline than some host has been on. Two on one timeline: the one that was it before.

use std::time::{Duration, Instant};

use super::position::{Look, Position, Samples, Written};
use crate::config::Role;

/// What one look at a host showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// When it was asked.
    pub asked: Instant,
    /// Of which cluster the host is one (`pg_control_system()`).
    pub system: u64,
    /// Whether it replays another host's log.
    pub in_recovery: bool,
    /// The timeline that it writes or replays.
    pub timeline: u32,
    /// Up to where it has written, or replayed.
    pub position: Position,
    /// Up to where that is flushed; of a replica, the same.
    pub flushed: Position,
    /// `wal_writer_delay`.
    pub writer_delay: Duration,
}

/// Why a look showed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No answer in time. It may be busy; after a while it counts as unknown.
    Silent,
    /// It refuses connections, or broke one off.
    Down(String),
    /// It answers, but not the monitor: its user may not log in, say.
    Blind(String),
}

/// How long what is seen is good for, and how far behind a replica may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// After this time an observation counts for nothing.
    pub good_for: Duration,
    /// A replica further behind serves no reads.
    pub lag: Option<Duration>,
    /// The same in bytes.
    pub lag_bytes: Option<u64>,
}

/// How long a replica that is back takes to get its full share of the reads: its caches are cold.
pub const SLOW_START: Duration = Duration::from_secs(10);

/// The least share in that time, of 256.
const SLOW_START_SHARE: u32 = 26;

/// Looks in a row that must show a host which was down before it serves reads.
const GOOD_LOOKS: u32 = 2;

/// Whether a host can be reached, as far as it is known.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not seen, or not lately.
    #[default]
    Unknown,
    /// Seen lately.
    Up,
    /// Refuses connections.
    Down,
}

/// What follows for one host.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it can be reached.
    pub health: Health,
    /// Its role; none if that is not known.
    pub role: Option<Role>,
    /// Whether it may serve reads as a replica.
    pub fit: bool,
    /// Its share of the reads for its weight, of 256: less when it has just come back.
    pub share: u32,
    /// Up to where it has written or replayed.
    pub position: Position,
    /// Up to where that is known to be what the primary has: not more than where the primary's timeline
    /// began, if the host is not on that.
    pub shared: Position,
    /// How far behind it is.
    pub lag: Duration,
    /// The same in bytes.
    pub lag_bytes: u64,
    /// The timeline that it is on; 0: not known.
    pub timeline: u32,
}

#[derive(Debug, Default)]
struct View {
    pinned: Option<Role>,
    seen: Option<Observation>,
    last_in_recovery: Option<Instant>,
    /// Up to where it had replayed then.
    recovered_to: Position,
    failure: Option<Failure>,
    /// Looks in a row that showed something.
    good: u32,
    /// It has failed at least once.
    has_failed: bool,
    fit_since: Option<Instant>,
    lagging: bool,
}

impl View {
    /// It can be reached no more.
    fn fall(&mut self) {
        self.good = 0;
        self.has_failed = true;
    }
}

/// See the module.
#[derive(Debug)]
pub struct Watch {
    hosts: Vec<View>,
    limits: Limits,
    samples: Samples,
    primary: Option<usize>,
    /// The host that was the primary last, also when there is none now.
    last_primary: Option<usize>,
    /// The highest timeline that was seen, and of which cluster and host.
    highest: Option<Highest>,
}

#[derive(Debug, Clone, Copy)]
struct Highest {
    system: u64,
    timeline: u32,
    host: usize,
}

impl Watch {
    /// Nothing is known yet of hosts with these pinned roles.
    #[must_use]
    pub fn new(pinned: impl IntoIterator<Item = Option<Role>>, limits: Limits) -> Self {
        let view = |pinned| View {
            pinned,
            ..View::default()
        };
        Self {
            hosts: pinned.into_iter().map(view).collect(),
            limits,
            samples: Samples::default(),
            primary: None,
            last_primary: None,
            highest: None,
        }
    }

    /// Other limits hold from now on. Who called for that has looked at the cluster: a host on a lower
    /// timeline than was seen once may be the primary again.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.highest = None;
    }

    /// Look number `look` at `host` showed this.
    pub fn seen(&mut self, host: usize, look: Look, observation: Observation) {
        let view = &mut self.hosts[host];
        view.seen = Some(observation);
        if observation.in_recovery {
            view.last_in_recovery = Some(observation.asked);
            view.recovered_to = observation.position;
        }
        view.failure = None;
        view.good = view.good.saturating_add(1);
        let here = Highest {
            system: observation.system,
            timeline: observation.timeline,
            host,
        };
        match self.highest {
            // The host that was on it was set up anew.
            Some(highest) if highest.host == host => self.highest = Some(here),
            Some(highest) if highest.system == here.system && highest.timeline >= here.timeline => {
            }
            Some(highest) if highest.system != here.system => {}
            _ => self.highest = Some(here),
        }
        if self.primary == Some(host) && !observation.in_recovery {
            let written = Written {
                position: observation.position,
                flushed: observation.flushed,
                writer_delay: observation.writer_delay,
            };
            self.samples.note(look, observation.asked, written);
        }
    }

    /// A look at `host` showed nothing.
    pub fn failed(&mut self, host: usize, failure: Failure) {
        let view = &mut self.hosts[host];
        if matches!(failure, Failure::Down(_)) {
            view.fall();
        }
        view.failure = Some(failure);
    }

    /// Where the primary was at the last looks.
    #[must_use]
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// The primary, if there is one.
    #[must_use]
    pub fn primary(&self) -> Option<usize> {
        self.primary
    }

    /// Whether no host lets the monitor look: roles must be found out otherwise.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        let blind = |view: &View| matches!(view.failure, Some(Failure::Blind(_)));
        self.hosts.iter().any(blind) && self.hosts.iter().all(|view| view.seen.is_none())
    }

    /// When `host` was last seen to be a replica.
    #[must_use]
    pub fn last_in_recovery(&self, host: usize) -> Option<Instant> {
        self.hosts[host].last_in_recovery
    }

    /// Whether every host has been looked at.
    #[must_use]
    pub fn has_looked(&self) -> bool {
        let looked = |view: &View| view.seen.is_some() || view.failure.is_some();
        self.hosts.iter().all(looked)
    }

    /// Why there is nothing to be seen of `host`, if that is so.
    #[must_use]
    pub fn failure(&self, host: usize) -> Option<String> {
        Some(match self.hosts[host].failure.as_ref()? {
            Failure::Silent => "it does not answer".to_owned(),
            Failure::Down(why) | Failure::Blind(why) => why.clone(),
        })
    }

    /// A host that calls itself primary on a lower timeline than was seen elsewhere.
    #[must_use]
    pub fn outdated_primary(&self, now: Instant) -> Option<(usize, u32, u32)> {
        let highest = self.highest?;
        (0..self.hosts.len()).find_map(|host| {
            let seen = self.fresh(host, now)?;
            let outdated = !seen.in_recovery
                && seen.system == highest.system
                && seen.timeline < highest.timeline;
            outdated.then_some((host, seen.timeline, highest.timeline))
        })
    }

    fn health(&self, host: usize, now: Instant) -> Health {
        let view = &self.hosts[host];
        match (&view.failure, view.seen) {
            (Some(Failure::Down(_)), _) => Health::Down,
            (_, Some(seen))
                if now.saturating_duration_since(seen.asked) <= self.limits.good_for =>
            {
                Health::Up
            }
            _ => Health::Unknown,
        }
    }

    fn fresh(&self, host: usize, now: Instant) -> Option<Observation> {
        let up = self.health(host, now) == Health::Up;
        self.hosts[host].seen.filter(|_| up)
    }

    fn find_primary(&self, now: Instant) -> Option<usize> {
        let writable = (0..self.hosts.len()).filter_map(|host| {
            let seen = self.fresh(host, now)?;
            let pinned = self.hosts[host].pinned;
            let outdated = self
                .highest
                .is_some_and(|h| h.system == seen.system && seen.timeline < h.timeline);
            (!seen.in_recovery && pinned != Some(Role::Replica) && !outdated)
                .then_some((host, seen))
        });
        let rank = |(host, seen): &(usize, Observation)| {
            let pinned = self.hosts[*host].pinned == Some(Role::Primary);
            let before = self.last_primary == Some(*host);
            (pinned, seen.timeline, before, seen.position)
        };
        writable.max_by_key(rank).map(|(host, _)| host)
    }

    /// What follows from all that was seen, at `now`: a verdict for each host.
    pub fn judge(&mut self, now: Instant) -> Vec<Verdict> {
        let primary = self.find_primary(now);
        if primary != self.primary {
            if primary.is_some() && primary != self.last_primary {
                self.samples.clear();
            }
            self.primary = primary;
            self.last_primary = primary.or(self.last_primary);
        }
        let system = self
            .last_primary
            .and_then(|p| self.hosts[p].seen)
            .map(|s| s.system);
        (0..self.hosts.len())
            .map(|host| self.judge_host(host, system, now))
            .collect()
    }

    fn judge_host(&mut self, host: usize, system: Option<u64>, now: Instant) -> Verdict {
        let health = self.health(host, now);
        let is_primary = self.primary == Some(host);
        let fresh = self.fresh(host, now);
        // A promoted host's own timeline began behind what it was last seen to have replayed.
        let branch = self.last_primary.and_then(|primary| {
            let view = &self.hosts[primary];
            Some((view.seen?.timeline, view.recovered_to))
        });
        let view = &mut self.hosts[host];
        if health == Health::Unknown && view.seen.is_some() {
            view.fall();
        }
        let role = match fresh {
            _ if is_primary => Some(Role::Primary),
            Some(seen) if seen.in_recovery => Some(Role::Replica),
            _ => None,
        };
        let mut verdict = Verdict {
            health,
            role,
            timeline: view.seen.map_or(0, |s| s.timeline),
            position: view.seen.map_or(Position::default(), |s| s.position),
            ..Verdict::default()
        };
        verdict.shared = match (branch, view.seen) {
            (Some((timeline, began)), Some(seen)) if seen.timeline < timeline => {
                verdict.position.min(began)
            }
            _ => verdict.position,
        };
        if let Some(seen) = view.seen.filter(|s| s.in_recovery) {
            verdict.lag = self.samples.lag(seen.position, now);
            let latest = self.samples.latest().unwrap_or(seen.position);
            verdict.lag_bytes = seen.position.bytes_to(latest);
            // Back only when it is clearly within the limit, so that it does not come and go.
            let factor = if view.lagging { 0.8 } else { 1.0 };
            let over = |lag: Duration, limit: Duration| lag > limit.mul_f64(factor);
            #[expect(
                clippy::cast_precision_loss,
                reason = "a limit need not be met to the byte"
            )]
            let over_bytes = |lag: u64, limit: u64| lag as f64 > limit as f64 * factor;
            view.lagging = self.limits.lag.is_some_and(|l| over(verdict.lag, l))
                || self
                    .limits
                    .lag_bytes
                    .is_some_and(|l| over_bytes(verdict.lag_bytes, l));
        }
        let settled = !view.has_failed || view.good >= GOOD_LOOKS;
        let same = system.is_none_or(|system| fresh.is_some_and(|seen| seen.system == system));
        verdict.fit = role == Some(Role::Replica)
            && view.pinned != Some(Role::Primary)
            && settled
            && same
            && !view.lagging;
        if !verdict.fit {
            view.fit_since = None;
            return verdict;
        }
        let since = *view.fit_since.get_or_insert(now);
        verdict.share = match view.has_failed {
            false => 256,
            true => ramp(now.saturating_duration_since(since)),
        };
        verdict
    }
}

/// The share of a host that has been back for this long.
fn ramp(back_for: Duration) -> u32 {
    let passed = back_for.as_secs_f32() / SLOW_START.as_secs_f32();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 256"
    )]
    let share = (passed.min(1.0) * 256.0) as u32;
    share.max(SLOW_START_SHARE)
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
