//! Workers: one thread each, with an event loop of its own and everything that lives on it.

use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::runtime::{Builder, Handle, LocalOptions};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::admin::Desk;
use crate::batch;
use crate::buffer::SharedScratch;
use crate::cancel::Canceller;
use crate::client::{self, Drain, Errand, Hub, Seats};
use crate::listener::{Bound, accept_all};
use crate::notify::Heartbeats;
use crate::pool::{self, LocalPools};
use crate::registry::Registry;
use crate::timer;

/// Threads of a worker for what must not block it: names that are looked up, keys that are derived.
const BLOCKING_THREADS_MAX: usize = 4;

/// What a worker is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its number.
    pub index: usize,
    /// What is configured.
    pub registry: Arc<Registry>,
    /// The other workers, and itself.
    pub couriers: Vec<client::Courier>,
    /// The console's.
    pub desk: Arc<Desk>,
    /// Errands about pools.
    pub pool_errands: UnboundedReceiver<pool::Errand>,
    /// Errands about clients.
    pub client_errands: UnboundedReceiver<Errand>,
    /// The listening sockets, which all workers share.
    pub listeners: Vec<Bound>,
    /// Who of them takes connections.
    pub door: client::Door,
    /// Sends of a round leave by one call.
    pub batch_sends: bool,
    /// Descriptors that clients may take; the numbers from here on are for other things.
    pub descriptors: RawFd,
    /// Where it shows that it goes round.
    pub heartbeats: Heartbeats,
}

/// Starts a worker. `timers` is whose event loop has its timers, and goes round for as long as clients are served.
///
/// # Errors
/// If the system gives no thread or no event loop.
pub fn start(parts: Parts, timers: Handle) -> io::Result<JoinHandle<()>> {
    let name = format!("worker-{}", parts.index);
    std::thread::Builder::new().name(name).spawn(move || {
        timer::borrow_from(timers);
        let looks = client::Looks::default();
        let counted = looks.clone();
        let runtime = Builder::new_current_thread()
            .enable_io()
            .on_thread_unpark(move || counted.note())
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => runtime.block_on(work(parts, looks)),
            Err(e) => tracing::error!("a worker has no event loop: {e}"),
        }
    })
}

async fn work(parts: Parts, looks: client::Looks) {
    let Parts {
        index,
        registry,
        couriers,
        desk,
        mut pool_errands,
        mut client_errands,
        listeners,
        door,
        batch_sends,
        descriptors,
        heartbeats,
    } = parts;
    if batch_sends {
        tokio::task::spawn_local(batch::flush_rounds());
    }
    let hub = Rc::new(Hub {
        worker: index,
        registry,
        couriers,
        desk,
        scratch: SharedScratch::default(),
        pools: LocalPools::new(index),
        seats: Rc::new(Seats::default()),
        oldest: client::Oldest::default(),
        canceller: Canceller::default(),
        deadlines: client::Deadlines::default(),
        turns: Rc::new(client::Turns::new(looks)),
        doorkeeper: client::Doorkeeper::new(door.clone(), index),
        routes: client::RouteTable::default(),
        draining: std::cell::Cell::new(None),
        standstill: client::Standstill::default(),
    });
    let turns = Rc::clone(&hub.turns);
    tokio::task::spawn_local(async move { turns.usher().await });
    let for_pools = Rc::clone(&hub);
    tokio::task::spawn_local(async move {
        while let Some(errand) = pool_errands.recv().await {
            for_pools.pools.run(errand);
        }
    });
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|bound| {
            let hub = Rc::clone(&hub);
            let duty = door.watch();
            let is_unix = matches!(bound, Bound::Unix(_));
            let task = tokio::task::spawn_local(accept_all(hub, bound, duty, descriptors));
            (is_unix, task)
        })
        .collect();
    while let Some(errand) = client_errands.recv().await {
        match errand {
            Errand::Stop => break,
            Errand::Sweep => {
                heartbeats.beat(index);
                hub.sweep(Instant::now());
            }
            Errand::Drain(drain) => {
                // By a Unix socket the console can still be reached (trap 75).
                for (is_unix, task) in &accepting {
                    if !is_unix || drain == Drain::Now {
                        task.abort();
                    }
                }
                hub.run(errand);
            }
            other => hub.run(other),
        }
    }
}
