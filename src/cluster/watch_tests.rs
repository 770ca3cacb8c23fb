//! What was seen, and what follows.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const GOOD_FOR: Duration = Duration::from_secs(3);

struct Scene {
    watch: Watch,
    now: Instant,
    look: Look,
}

impl Scene {
    fn new(hosts: usize) -> Self {
        Self::pinned(&vec![None; hosts])
    }

    fn pinned(roles: &[Option<Role>]) -> Self {
        let limits = Limits {
            good_for: GOOD_FOR,
            lag: Some(10 * SECOND),
            lag_bytes: None,
        };
        Self {
            watch: Watch::new(roles.iter().copied(), limits),
            now: Instant::now(),
            look: 0,
        }
    }

    fn see(&mut self, host: usize, in_recovery: bool, timeline: u32, position: u64) {
        self.look += 1;
        let observation = Observation {
            asked: self.now,
            system: 7,
            in_recovery,
            timeline,
            position: Position(position),
            flushed: Position(position),
            writer_delay: Duration::ZERO,
        };
        self.watch.seen(host, self.look, observation);
    }

    fn down(&mut self, host: usize) {
        self.watch.failed(host, Failure::Down("refused".to_owned()));
    }

    fn judge(&mut self) -> Vec<Verdict> {
        self.watch.judge(self.now)
    }

    fn primary(&mut self) -> Option<usize> {
        self.judge();
        self.watch.primary()
    }

    fn fit(&mut self) -> Vec<bool> {
        self.judge().iter().map(|v| v.fit).collect()
    }
}

#[test]
fn roles_are_what_the_hosts_say() {
    let mut scene = Scene::new(3);
    assert_eq!(scene.primary(), None);
    scene.see(0, true, 1, 100);
    assert_eq!(scene.primary(), None);
    assert_eq!(
        scene.fit(),
        [true, false, false],
        "no primary, and still read from"
    );
    scene.see(1, false, 1, 100);
    scene.see(2, true, 1, 100);
    assert_eq!(scene.primary(), Some(1));
    assert_eq!(scene.fit(), [true, false, true]);
}

#[test]
fn t68_what_was_seen_too_long_ago_counts_for_nothing() {
    let mut scene = Scene::new(2);
    scene.see(0, false, 1, 100);
    scene.see(1, true, 1, 100);
    assert_eq!((scene.primary(), scene.fit()), (Some(0), vec![false, true]));
    scene.now += GOOD_FOR + SECOND / 10;
    assert_eq!((scene.primary(), scene.fit()), (None, vec![false, false]));
    assert!(
        scene
            .judge()
            .iter()
            .all(|v| v.role.is_none() && v.health == Health::Unknown)
    );
    // Each host's age is its own.
    scene.see(1, true, 1, 100);
    scene.see(1, true, 1, 100);
    assert_eq!((scene.primary(), scene.fit()), (None, vec![false, true]));
}

#[test]
fn t70_of_two_primaries_the_higher_timeline_counts_whoever_was_asked_last() {
    for order in [[0, 1], [1, 0]] {
        let mut scene = Scene::new(2);
        for host in order {
            scene.see(host, false, if host == 1 { 2 } else { 1 }, 100);
        }
        assert_eq!(scene.primary(), Some(1));
    }
    // On one timeline: the one that was it before, however far the other has written.
    let mut scene = Scene::new(2);
    scene.see(1, false, 1, 100);
    assert_eq!(scene.primary(), Some(1));
    scene.see(0, false, 1, 200);
    assert_eq!(scene.primary(), Some(1));
}

#[test]
fn t72_a_demoted_primary_gets_no_writes() {
    let mut scene = Scene::new(2);
    scene.see(0, false, 1, 100);
    scene.see(1, true, 1, 100);
    assert_eq!(scene.primary(), Some(0));
    scene.see(1, false, 2, 100);
    assert_eq!(scene.primary(), Some(1));
    // Even while the new one cannot be seen.
    scene.down(1);
    assert_eq!(scene.primary(), None);
    assert_eq!(scene.watch.outdated_primary(scene.now), Some((0, 1, 2)));
    // Nor if only a replica has been seen on the new timeline.
    let mut scene = Scene::new(2);
    scene.see(1, true, 2, 100);
    scene.see(0, false, 1, 100);
    assert_eq!(scene.primary(), None);
    // Until the host that was on it is set up anew, or somebody has had a look.
    scene.see(1, true, 1, 100);
    assert_eq!(scene.primary(), Some(0));
    let mut scene = Scene::new(2);
    scene.see(1, false, 2, 100);
    scene.down(1);
    scene.see(0, false, 1, 100);
    assert_eq!(scene.primary(), None);
    let limits = scene.watch.limits;
    scene.watch.set_limits(limits);
    assert_eq!(scene.primary(), Some(0));
}

#[test]
fn pinned_roles_hold() {
    let mut scene = Scene::pinned(&[Some(Role::Replica), Some(Role::Primary)]);
    scene.see(0, false, 3, 100);
    assert_eq!(
        scene.primary(),
        None,
        "not the one that is pinned as a replica"
    );
    scene.watch.set_limits(scene.watch.limits);
    scene.see(1, true, 3, 100);
    assert_eq!(scene.primary(), None);
    assert_eq!(
        scene.fit(),
        [false, false],
        "nor does the other serve reads"
    );
}

#[test]
fn t69_a_laggard_serves_no_reads_until_it_is_clearly_back() {
    let mut scene = Scene::new(2);
    scene.see(0, false, 1, 100);
    scene.see(1, true, 1, 100);
    scene.judge();
    scene.see(0, false, 1, 200);
    for second in 0..20 {
        scene.now += SECOND;
        scene.see(0, false, 1, 300 + second);
        scene.see(1, true, 1, 150);
        let verdict = scene.judge()[1];
        assert_eq!(verdict.fit, verdict.lag <= 10 * SECOND, "{verdict:?}");
        assert_eq!(verdict.lag_bytes, 150 + second);
    }
    // Nine seconds behind is within the limit, and not enough to be back.
    scene.see(1, true, 1, 300 + 10);
    assert_eq!(scene.judge()[1].lag, 8 * SECOND);
    assert!(!scene.judge()[1].fit || scene.judge()[1].lag <= 8 * SECOND);
    scene.see(1, true, 1, 319);
    assert!(scene.judge()[1].fit);
}

#[test]
fn a_replica_that_was_down_comes_back_slowly() {
    let mut scene = Scene::new(2);
    scene.see(0, false, 1, 100);
    scene.see(1, true, 1, 100);
    assert_eq!(
        scene.judge()[1].share,
        256,
        "at the start there is nothing to warm up for"
    );
    scene.down(1);
    assert_eq!(scene.judge()[1].health, Health::Down);
    scene.see(1, true, 1, 100);
    assert!(!scene.judge()[1].fit, "one look is not enough");
    scene.see(1, true, 1, 100);
    let first = scene.judge()[1].share;
    assert!(scene.judge()[1].fit && (1..64).contains(&first));
    let mut last = first;
    for _ in 0..10 {
        scene.now += SECOND;
        scene.see(1, true, 1, 100);
        let share = scene.judge()[1].share;
        assert!(share >= last);
        last = share;
    }
    assert_eq!(last, 256);
}

#[test]
fn a_single_silence_is_no_ill_health() {
    let mut scene = Scene::new(2);
    scene.see(0, false, 1, 100);
    scene.see(1, true, 1, 100);
    scene.judge();
    scene.now += SECOND;
    scene.watch.failed(1, Failure::Silent);
    assert_eq!(scene.primary(), Some(0));
    scene.now += GOOD_FOR;
    scene.see(0, false, 1, 100);
    assert_eq!(scene.judge()[1].health, Health::Unknown);
}

#[test]
fn a_replica_of_another_cluster_serves_no_reads() {
    let mut scene = Scene::new(2);
    scene.see(0, false, 1, 100);
    let observation = Observation {
        asked: scene.now,
        system: 8,
        in_recovery: true,
        timeline: 1,
        position: Position(100),
        flushed: Position(100),
        writer_delay: Duration::ZERO,
    };
    scene.watch.seen(1, 9, observation);
    assert_eq!(scene.fit(), [false, false]);
}

#[test]
fn t68_what_a_replica_has_of_an_outdated_timeline_is_not_what_the_primary_has() {
    let mut scene = Scene::new(3);
    scene.see(0, false, 1, 500);
    scene.see(1, true, 1, 300);
    scene.see(2, true, 1, 450);
    let shared = |scene: &mut Scene, host: usize| scene.judge()[host].shared.0;
    assert_eq!((shared(&mut scene, 1), shared(&mut scene, 2)), (300, 450));
    // The one that was not the furthest is promoted, and writes its own log.
    scene.down(0);
    scene.see(1, false, 2, 320);
    assert_eq!(scene.primary(), Some(1));
    scene.see(2, true, 1, 450);
    assert_eq!(shared(&mut scene, 2), 300);
    // It has been set up anew, and follows.
    scene.see(2, true, 2, 320);
    assert_eq!(shared(&mut scene, 2), 320);
}
