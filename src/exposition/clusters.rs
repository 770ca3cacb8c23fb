//! Metrics of clusters: their hosts, and what was routed where.

use std::fmt;
use std::sync::Arc;

use super::pools::PoolSample;
use super::render::{Series, Snapshot};
use crate::cluster::watch::{Health, Verdict};
use crate::cluster::{Host, PrimaryState};
use crate::config::Role;
use crate::metrics::Why;
use crate::registry::Current;

/// Whether there is a primary.
pub(super) fn primary_up(all: &Snapshot, out: &mut Series<'_>) -> fmt::Result {
    for cluster in all.current.clusters().values() {
        let up = match cluster.primary_state() {
            PrimaryState::Unknown => continue,
            PrimaryState::Found => 1,
            PrimaryState::Lost => 0,
        };
        out.gauge(&[("cluster", cluster.name())], up)?;
    }
    Ok(())
}

/// Whether each host can be reached.
pub(super) fn host_up(all: &Snapshot, out: &mut Series<'_>) -> fmt::Result {
    each_host(all, |labels, known| {
        out.gauge(labels, u32::from(known.health == Health::Up))
    })
}

/// The role that each host was seen in.
pub(super) fn host_role(all: &Snapshot, out: &mut Series<'_>) -> fmt::Result {
    each_host(all, |labels, known| {
        let Some(role) = known.role else {
            return Ok(());
        };
        let mut labels = labels.to_vec();
        labels.push(("role", role.word()));
        out.gauge(&labels, 1)
    })
}

/// How far replicas are behind, in seconds.
pub(super) fn lag_seconds(all: &Snapshot, out: &mut Series<'_>) -> fmt::Result {
    each_replica(all, |labels, known| {
        out.gauge(labels, known.lag.as_secs_f64())
    })
}

/// The same in bytes.
pub(super) fn lag_bytes(all: &Snapshot, out: &mut Series<'_>) -> fmt::Result {
    each_replica(all, |labels, known| {
        out.gauge(labels, i64::try_from(known.lag_bytes).unwrap_or(i64::MAX))
    })
}

/// Where the replica of a pool stands, if it is known.
pub(super) fn datacenter(current: &Current, pool: &PoolSample) -> Option<Arc<str>> {
    let replica = pool.host.as_deref()?;
    let database = current.config.database(&pool.database)?;
    let cluster = current.clusters().get(&database.cluster)?;
    let datacenter = &*cluster.host_of(Some(replica))?.datacenter;
    (!datacenter.is_empty()).then(|| datacenter.into())
}

/// Failovers of each cluster that the monitor looks at.
pub(super) fn failovers(all: &Snapshot, out: &mut Series<'_>) -> fmt::Result {
    for cluster in all.current.clusters().values().filter(|c| c.is_monitored()) {
        out.counter(&[("cluster", cluster.name())], cluster.failovers())?;
    }
    Ok(())
}

/// How long the last failover took.
pub(super) fn failover_seconds(all: &Snapshot, out: &mut Series<'_>) -> fmt::Result {
    let clusters = all.current.clusters().values();
    for cluster in clusters.filter(|c| c.failovers() > 0) {
        let took = cluster.failover_took().as_secs_f64();
        out.gauge(&[("cluster", cluster.name())], took)?;
    }
    Ok(())
}

/// Batches by where they went and why.
pub(super) fn routed(all: &Snapshot, out: &mut Series<'_>) -> fmt::Result {
    for pool in &all.pools {
        let cluster = all
            .current
            .config
            .database(&pool.database)
            .and_then(|database| all.current.clusters().get(&database.cluster));
        let role = if pool.host.is_some() {
            Role::Replica
        } else {
            Role::Primary
        };
        let host = cluster.and_then(|cluster| cluster.host_of(pool.host.as_deref()));
        let datacenter = host.map_or("", |host| &*host.datacenter);
        for (why, count) in Why::all().zip(pool.totals.routed).filter(|(_, n)| *n > 0) {
            let mut labels = vec![("database", &*pool.database), ("user", &*pool.user)];
            labels.extend(pool.host.as_deref().map(|host| ("host", host)));
            labels.extend([
                ("role", role.word()),
                ("datacenter", datacenter),
                ("reason", why.name()),
            ]);
            out.counter(&labels, count)?;
        }
    }
    Ok(())
}

fn each_replica(
    all: &Snapshot,
    mut see: impl FnMut(&[(&str, &str)], Verdict) -> fmt::Result,
) -> fmt::Result {
    each_host(all, |labels, known| match known.role {
        Some(Role::Replica) => see(labels, known),
        _ => Ok(()),
    })
}

/// Without a monitor the primary is the one host that is known; the others are not guessed at.
fn each_host(
    all: &Snapshot,
    mut see: impl FnMut(&[(&str, &str)], Verdict) -> fmt::Result,
) -> fmt::Result {
    for cluster in all.current.clusters().values() {
        let found = Verdict {
            health: Health::Up,
            role: Some(Role::Primary),
            ..Verdict::default()
        };
        let known: Vec<(&Host, Verdict)> = match cluster.is_monitored() {
            true => cluster.hosts().iter().map(|h| (h, h.verdict())).collect(),
            false => cluster.primary().map(|h| (h, found)).into_iter().collect(),
        };
        for (host, verdict) in known {
            let address = host.address.to_string();
            let labels = [
                ("cluster", cluster.name()),
                ("host", &*address),
                ("datacenter", &*host.datacenter),
            ];
            see(&labels, verdict)?;
        }
    }
    Ok(())
}
