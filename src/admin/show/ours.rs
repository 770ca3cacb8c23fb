//! What PgBouncer has not: who waits for whom, who is kept on a server and why, and what is prepared.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::super::census::{ClientLine, View};
use super::super::sheet::{Sheet, count, int4, int8, is, numeric, text};
use super::pools::PoolLine;
use super::{moment, pools, rest_us, seconds};
use crate::registry::Totals;
use crate::relay::reasons;

/// A client that waits.
pub(in super::super) struct Waiter {
    client: ClientLine,
    position: usize,
    wait: Duration,
    holder: Option<ClientLine>,
}

impl Waiter {
    fn of_holder(&self, value: fn(&ClientLine) -> Option<String>) -> Option<String> {
        self.holder.as_ref().and_then(value)
    }
}

/// A client in the queue of its pool.
pub(in super::super) struct Queued<'a> {
    pub(in super::super) client: &'a ClientLine,
    /// Since when it waits.
    pub(in super::super) since: Instant,
    /// From 1.
    pub(in super::super) position: usize,
}

/// Those who wait, pool by pool, the most patient of each first.
pub(in super::super) fn waiting(view: &View) -> Vec<Queued<'_>> {
    let clients = view.clients.iter();
    let mut queue: Vec<Queued<'_>> = clients
        .filter_map(|client| {
            Some(Queued {
                client,
                since: client.waiting?,
                position: 1,
            })
        })
        .collect();
    let place = |w: &Queued<'_>| (w.since, w.client.id);
    queue.sort_by(|a, b| {
        let pools = a.client.pool_name.cmp(&b.client.pool_name);
        pools.then_with(|| place(a).cmp(&place(b)))
    });
    for at in 1..queue.len() {
        let (before, here) = (&queue[at - 1], &queue[at]);
        if before.client.pool_name == here.client.pool_name {
            queue[at].position = before.position + 1;
        }
    }
    queue
}

/// Who has had a server of each pool for longest, by the name of the pool; or a replication connection, that the pool
/// waits for its place.
pub(in super::super) fn holders(view: &View) -> HashMap<&str, &ClientLine> {
    let mut holders: HashMap<&str, &ClientLine> = HashMap::new();
    for client in view.clients.iter().filter(|client| client.held.is_some()) {
        let others = client.keeps_waiting.iter().map(String::as_str);
        let own = (!client.pool_name.is_empty()).then_some(&*client.pool_name);
        for pool in own.into_iter().chain(others) {
            let oldest = holders.entry(pool).or_insert(client);
            if (client.held, client.id) < (oldest.held, oldest.id) {
                *oldest = client;
            }
        }
    }
    holders
}

fn queue(view: &View) -> Vec<Waiter> {
    let now = Instant::now();
    let holders = holders(view);
    let line = |queued: Queued<'_>| Waiter {
        client: queued.client.clone(),
        position: queued.position,
        wait: now.saturating_duration_since(queued.since),
        holder: holders
            .get(&*queued.client.pool_name)
            .map(|&holder| holder.clone()),
    };
    waiting(view).into_iter().map(line).collect()
}

/// SHOW QUEUE
pub(in super::super) static QUEUE: Sheet<Waiter> = Sheet {
    columns: &[
        int8("client", |w| is(w.client.id)),
        text("application_name", |w| is(&w.client.application_name)),
        text("user", |w| is(&w.client.user)),
        text("database", |w| is(&w.client.database)),
        text("addr", |w| is(w.client.peer)),
        text("pool", |w| is(&w.client.pool_name)),
        int4("position", |w| count(w.position)),
        int4("wait", |w| seconds(w.wait)),
        int4("wait_us", |w| rest_us(w.wait)),
        int8("holder", |w| w.of_holder(|h| is(h.id))),
        text("holder_application_name", |w| {
            w.of_holder(|h| is(&h.application_name))
        }),
        text("holder_user", |w| w.of_holder(|h| is(&h.user))),
        text("holder_addr", |w| w.of_holder(|h| is(h.peer))),
        int4("holder_remote_pid", |w| {
            w.of_holder(|h| h.server.map(|(_, pid)| pid.to_string()))
        }),
        text("holder_since", |w| w.of_holder(|h| moment(h.held?))),
        text("holder_state", |w| w.of_holder(|h| is(h.doing))),
        text("holder_query", |w| w.of_holder(|h| is(&h.text))),
    ],
    lines: |_, view| queue(view),
};

/// A client that is kept on its server, and one reason.
pub(in super::super) struct Pin {
    client: ClientLine,
    reason: &'static str,
}

/// SHOW PINS
pub(in super::super) static PINS: Sheet<Pin> = Sheet {
    columns: &[
        int8("client", |p| is(p.client.id)),
        text("application_name", |p| is(&p.client.application_name)),
        text("user", |p| is(&p.client.user)),
        text("database", |p| is(&p.client.database)),
        text("addr", |p| is(p.client.peer)),
        int8("server", |p| p.client.server.map(|(id, _)| id.to_string())),
        int4("remote_pid", |p| {
            p.client.server.map(|(_, pid)| pid.to_string())
        }),
        text("reason", |p| is(p.reason)),
        text("since", |p| p.client.pinned.and_then(moment)),
    ],
    lines: |_, view| {
        let pins = view.clients.iter().flat_map(|client| {
            reasons(client.pins).map(move |kind| Pin {
                client: client.clone(),
                reason: kind.reason,
            })
        });
        pins.collect()
    },
};

/// SHOW PREPARED: how the statements of a pool fare.
pub(in super::super) static PREPARED: Sheet<PreparedLine> = Sheet {
    columns: &[
        text("database", |p| is(&p.pool.pool.key.database)),
        text("user", |p| is(&p.pool.pool.key.user)),
        int4("max_prepared_statements", |p| count(p.max)),
        numeric("named_by_clients", |p| is(p.totals.named)),
        numeric("prepared_on_servers", |p| is(p.totals.prepared)),
        numeric("reused", |p| is(p.totals.used - p.totals.prepared)),
        numeric("evicted", |p| is(p.evicted)),
        numeric("retried", |p| is(p.retried)),
    ],
    lines: |desk, _| {
        pools::pools(&desk.registry)
            .into_iter()
            .map(prepared)
            .collect()
    },
};

/// A pool.
pub(in super::super) struct PreparedLine {
    pool: PoolLine,
    max: usize,
    totals: Totals,
    evicted: u64,
    retried: u64,
}

fn prepared(pool: PoolLine) -> PreparedLine {
    let mut totals = Totals::default();
    totals.add_pool(&pool.pool);
    let (mut evicted, mut retried) = (0, 0);
    for counters in pool.pool.all_counters() {
        evicted += counters.statements_evicted.value();
        retried += counters.statements_retried.value();
    }
    PreparedLine {
        max: pool.pool.plan().settings.max_prepared_statements,
        pool,
        totals,
        evicted,
        retried,
    }
}
