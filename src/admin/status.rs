//! What the console knows, for the status page: pools, who waits, who holds, hosts.
//!
//! Workers are asked as for SHOW QUEUE, and given less time: who looks at a page looks again. Whoever fills
//! in a [`Status`] shares it among all who look, since each look wakes every session that is busy. Who looks
//! has not logged in: statements come without their literals, as in the log.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use pooler_protocol::route::mask;

use super::census::{ClientLine, View};
use super::show::{HostLine, PoolLine, Queued, holders, hosts, pools_apart, waiting};
use super::{Desk, Scope};
use crate::config::Role;
use crate::status::{
    HOLDING_MAX, HOSTS_MAX, Held, Holding, Host, POOLS_MAX, Pool, Status, Totals, WAITING_MAX,
    Waiting, name,
};

/// Who is busy, as far as the workers have said in time.
#[derive(Debug)]
pub struct Sight {
    view: View,
    at: Instant,
    workers: usize,
    silent: Vec<usize>,
}

impl Desk {
    /// Asks the workers who is busy. Dropped midway, they answer nobody.
    pub async fn sight(&self, within: Duration) -> Sight {
        let (view, silent) = self.look_within(Scope::Busy, within).await;
        Sight {
            view,
            at: Instant::now(),
            workers: self.workers,
            silent,
        }
    }

    /// Fills in what `sight` and the registry know. It may take milliseconds: not for an event loop.
    pub fn describe(&self, sight: &Sight, status: &mut Status) {
        status.workers = sight.workers;
        status.silent_workers.clone_from(&sight.silent);
        self.describe_pools(status);
        self.describe_hosts(status);
        describe_queue(sight, status);
    }

    fn describe_pools(&self, status: &mut Status) {
        let mut lines = pools_apart(&self.registry);
        let mut totals = Totals::default();
        for line in &lines {
            totals.pools += 1;
            totals.clients += line.numbers.clients;
            totals.waiting += line.numbers.waiting;
            totals.servers_active += line.active();
            totals.servers_idle += line.numbers.idle;
            totals.servers_connecting += line.numbers.connecting;
            totals.oldest_wait_seconds = totals.oldest_wait_seconds.max(seconds(line.wait()));
        }
        status.totals = totals;
        // Waits of less than a second come and go: they do not decide who comes first.
        lines.sort_by_cached_key(|line| {
            let key = &line.pool.key;
            let busy = (line.wait().as_secs(), line.active(), line.numbers.clients);
            let name = (key.database.clone(), key.user.clone(), key.replica.clone());
            (Reverse(busy), name)
        });
        status.left_out.pools = lines.len().saturating_sub(POOLS_MAX);
        lines.truncate(POOLS_MAX);
        status.pools = lines.iter().map(|line| self.pool(line)).collect();
    }

    fn pool(&self, line: &PoolLine) -> Pool {
        let key = &line.pool.key;
        let cluster = self.registry.cluster_of(&line.pool);
        let host = cluster
            .as_ref()
            .and_then(|cluster| cluster.host_of(key.replica.as_deref()));
        let role = match key.replica {
            Some(_) => Role::Replica,
            None => Role::Primary,
        };
        Pool {
            database: name(&key.database),
            user: name(&key.user),
            host: match &key.replica {
                Some(replica) => Some(name(replica)),
                None => host.map(|host| name(&host.address.to_string())),
            },
            role: role.word().to_owned(),
            datacenter: host.map_or(String::new(), |host| name(&host.datacenter)),
            mode: line.settings.pool_mode.word().to_owned(),
            paused: line.paused,
            size: line.settings.pool_size,
            active: line.active(),
            idle: line.numbers.idle,
            connecting: line.numbers.connecting,
            clients: line.numbers.clients,
            waiting: line.numbers.waiting,
            oldest_wait_seconds: seconds(line.wait()),
            oldest_checkout_seconds: seconds(line.age(line.numbers.oldest_checkout)),
        }
    }

    fn describe_hosts(&self, status: &mut Status) {
        let mut lines = hosts(self);
        status.left_out.hosts = lines.len().saturating_sub(HOSTS_MAX);
        lines.truncate(HOSTS_MAX);
        let host = |line: HostLine| {
            let configured = line.host();
            Host {
                cluster: name(line.cluster.name()),
                host: name(&configured.address.to_string()),
                datacenter: name(&configured.datacenter),
                local: configured.local,
                role: line.role().to_owned(),
                health: line.health().to_owned(),
                why: line.why().map(|why| name(&why)),
                lag_seconds: line.is_replica().then(|| seconds(line.known.lag)),
                lag_bytes: line.is_replica().then_some(line.known.lag_bytes),
                servers: line.servers,
                active: line.active,
            }
        };
        status.hosts = lines.into_iter().map(host).collect();
    }
}

fn describe_queue(sight: &Sight, status: &mut Status) {
    let view = &sight.view;
    let age = |since: Instant| seconds(sight.at.saturating_duration_since(since));
    let held = |client: &ClientLine| client.held.map_or(0.0, age);
    let mut queue = waiting(view);
    let mut behind: HashMap<&str, usize> = HashMap::new();
    for waiter in &queue {
        *behind.entry(&waiter.client.pool_name).or_default() += 1;
    }
    let first = holders(view);
    queue.sort_by_key(|waiter| (waiter.since, waiter.client.id));
    status.left_out.waiting = queue.len().saturating_sub(WAITING_MAX);
    queue.truncate(WAITING_MAX);
    let waiter = |waiter: &Queued<'_>| {
        let client = waiter.client;
        let holder = first.get(&*client.pool_name);
        Waiting {
            client: client.id,
            application_name: name(&client.application_name),
            user: name(&client.user),
            database: name(&client.database),
            address: client.peer.to_string(),
            pool: name(&client.pool_name),
            position: waiter.position,
            waited_seconds: age(waiter.since),
            holder: holder.map(|holder| Held {
                client: holder.id,
                application_name: name(&holder.application_name),
                held_seconds: held(holder),
            }),
        }
    };
    status.waiting = queue.iter().map(waiter).collect();

    // Those who keep others waiting come first, however long the rest has had its servers.
    let blamed: HashSet<u64> = first
        .iter()
        .filter(|(pool, _)| behind.contains_key(*pool))
        .map(|(_, holder)| holder.id)
        .collect();
    let mut holding: Vec<&ClientLine> = view.clients.iter().filter(|c| c.held.is_some()).collect();
    holding.sort_by_key(|c| (!blamed.contains(&c.id), c.held, c.id));
    status.left_out.holding = holding.len().saturating_sub(HOLDING_MAX);
    holding.truncate(HOLDING_MAX);
    let served: HashMap<u64, &str> = view
        .servers
        .iter()
        .filter_map(|server| Some((server.client?, &*server.host)))
        .collect();
    let holder = |client: &ClientLine| Holding {
        client: client.id,
        application_name: name(&client.application_name),
        user: name(&client.user),
        database: name(&client.database),
        address: client.peer.to_string(),
        pool: name(&client.pool_name),
        host: name(served.get(&client.id).copied().unwrap_or_default()),
        process_id: client.server.map_or(0, |(_, process)| process),
        state: client.doing.to_owned(),
        statement: masked(&client.text),
        held_seconds: held(client),
        waiting: {
            let others = client.keeps_waiting.iter().map(String::as_str);
            let pools = others.chain([&*client.pool_name]);
            pools.filter_map(|pool| behind.get(pool)).sum()
        },
    };
    status.holding = holding.into_iter().map(holder).collect();
}

fn masked(text: &str) -> String {
    let mut shown = Vec::new();
    mask(text.as_bytes(), &mut shown);
    String::from_utf8_lossy(&shown).into_owned()
}

/// To the microsecond: more would only make the text longer.
fn seconds(time: Duration) -> f64 {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    #[expect(clippy::cast_precision_loss, reason = "285 years are exact")]
    let us = us as f64;
    us / 1e6
}
