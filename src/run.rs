//! The process: from a configuration to the last client's leave.

use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing_subscriber::filter::LevelFilter;

use crate::admin::{Control, Desk, Reloaded};
use crate::batch;
use crate::client::{self, Drain, Errand};
use crate::cluster::monitor::{Access, Monitor};
use crate::cluster::{Change, Cluster};
use crate::config::{Config, ConfigError, LogFormat, LogLevel};
use crate::exposition;
use crate::listener;
use crate::log;
use crate::notify::{self, Heartbeats, Watchdog};
use crate::pool::{Commons, liveness};
use crate::registry::{Gates, Registry, credentials_of};
use crate::server::Interners;
use crate::shutdown::{Ask, Signals};
use crate::tls::{Tls, TlsError};
use crate::worker::{self, Parts};

/// How long clients may take to take in their last message when the process stops at once.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long a collector may take to take the traces of the last moment.
const TRACES_LAST: Duration = Duration::from_secs(2);

/// How often the main thread looks whether there is something to do.
const TICK: Duration = Duration::from_millis(50);

/// How often deadlines are looked at: they are kept to within this.
const SWEEP_EVERY: Duration = Duration::from_millis(200);

/// How long a pool that nobody uses is remembered.
const POOL_UNUSED_MAX: Duration = Duration::from_secs(60);

/// Descriptors beside those of clients and servers: listeners, logs, event loops, cancel requests.
const DESCRIPTORS_APART: u64 = 256;

/// Why the pooler did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration is wrong: exit code 2.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of a certificate or a key is of no use: exit code 2.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system refused something: exit code 1.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Runs the pooler with the configuration in `path` until it is told to stop.
///
/// # Errors
/// [`RunError`] if it cannot start.
pub fn run(path: &Path) -> Result<(), RunError> {
    let ended = run_logged(path);
    log::finish(LAST_WORDS);
    ended
}

fn run_logged(path: &Path) -> Result<(), RunError> {
    let config = Config::load(path)?;
    log::start(config.log.format == LogFormat::Json, level_of(&config));
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let descriptors = raise_descriptors(&config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    // Before anything else, so that a signal during start does what it says.
    let signals = runtime.block_on(async { Signals::listen() })?;
    let (fleet, controls) = Fleet::start(config, descriptors, runtime.handle())?;
    let served = runtime.block_on(fleet.serve(signals, controls, path));
    fleet.stop();
    tracing::info!("stopped");
    Ok(served?)
}

fn level_of(config: &Config) -> LevelFilter {
    match config.log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Raises the limit on open files as far as it goes, and says if that is not far enough. Returns how
/// many of them clients may take: the rest is for servers, cancel requests, names and the log, which
/// are of more use to the clients inside than one more client is (trap 50).
fn raise_descriptors(config: &Config) -> RawFd {
    let limit = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => limit,
        Err(e) => {
            tracing::warn!("cannot raise the limit on open files: {e}");
            return RawFd::MAX;
        }
    };
    let clients = config.pooler.max_client_conn.count().unwrap_or(0) as u64;
    let servers = config.pooler.defaults.pool_size as u64 * config.databases.len() as u64;
    let wanted = clients + servers + DESCRIPTORS_APART;
    if limit < wanted {
        tracing::warn!(
            "the limit on open files is {limit}; max_client_conn and the pools can need {wanted}: \
             raise it (LimitNOFILE= in a systemd unit, ulimit -n in a shell)"
        );
    }
    let reserve = (servers + DESCRIPTORS_APART).min(limit / 4);
    RawFd::try_from(limit - reserve).unwrap_or(RawFd::MAX)
}

/// What the console asks of the process.
type Controls = UnboundedReceiver<Control>;

/// Whether the system sends many messages by one call; containers often forbid it.
fn can_batch_sends() -> bool {
    match batch::check() {
        Ok(()) => true,
        Err(e) => {
            tracing::info!(
                "every message is sent by itself, because io_uring is not to be had: {e}"
            );
            false
        }
    }
}

/// All workers and what they share.
struct Fleet {
    registry: Arc<Registry>,
    couriers: Vec<client::Courier>,
    desk: Arc<Desk>,
    heartbeats: Heartbeats,
    threads: Vec<JoinHandle<()>>,
    socket_files: Vec<listener::SocketFile>,
}

impl Fleet {
    fn start(
        config: Config,
        descriptors: RawFd,
        runtime: &Handle,
    ) -> Result<(Self, Controls), RunError> {
        let tls = Tls::load(&config.tls, None)?;
        let workers = config.pooler.worker_count();
        let statement_bytes =
            usize::try_from(config.pooler.prepared_statement_memory).unwrap_or(usize::MAX);
        let (listeners, socket_files) = listener::bind_all(&config, workers)?;
        let (pool_couriers, pool_errands): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| unbounded_channel()).unzip();
        let (couriers, client_errands): (Vec<client::Courier>, Vec<_>) =
            (0..workers).map(|_| unbounded_channel()).unzip();
        let commons = Arc::new(Commons {
            interners: Interners::new(statement_bytes),
            couriers: pool_couriers,
            beside: Some(runtime.clone()),
        });
        let batch_sends = config.pooler.batch_sends && can_batch_sends();
        let registry = Registry::new(config, tls, commons);
        export_traces(&registry);
        let (control, controls) = unbounded_channel();
        let tellers = couriers.clone();
        let tell = move |worker: usize, errand| {
            // Nobody answers for a worker that has stopped, which is seen.
            let _stopped = tellers[worker].send(Errand::Console(errand));
        };
        let desk = Desk::new(Arc::clone(&registry), control, workers, Box::new(tell));
        let mut fleet = Self {
            registry,
            couriers,
            desk,
            heartbeats: Heartbeats::new(workers),
            threads: Vec::with_capacity(workers),
            socket_files,
        };
        let door = client::Door::default();
        let parts = pool_errands.into_iter().zip(client_errands).zip(listeners);
        for (index, ((pool_errands, client_errands), listeners)) in parts.enumerate() {
            let parts = Parts {
                index,
                registry: Arc::clone(&fleet.registry),
                couriers: fleet.couriers.clone(),
                desk: Arc::clone(&fleet.desk),
                pool_errands,
                client_errands,
                listeners,
                door: door.clone(),
                batch_sends,
                descriptors,
                heartbeats: fleet.heartbeats.clone(),
            };
            match worker::start(parts, runtime.clone()) {
                Ok(thread) => fleet.threads.push(thread),
                Err(e) => {
                    // Those that run have their timers on this thread.
                    fleet.stop();
                    return Err(e.into());
                }
            }
        }
        tracing::info!(workers, version = env!("CARGO_PKG_VERSION"), "pooler is up");
        Ok((fleet, controls))
    }

    /// Until a signal says stop and what it says about clients is done.
    async fn serve(
        &self,
        mut signals: Signals,
        mut controls: Controls,
        path: &Path,
    ) -> io::Result<()> {
        let exposition = self.expose().await?;
        let (changes, mut changed) = unbounded_channel();
        self.watch_clusters(&changes);
        let mut drain = None;
        let mut deadline: Option<Instant> = None;
        let mut ticks = tokio::time::interval(TICK);
        let mut sweep_at = Instant::now();
        let mut watchdog = Watchdog::new(self.heartbeats.clone(), SWEEP_EVERY, sweep_at);
        notify::ready();
        loop {
            tokio::select! {
                ask = signals.next() => match ask {
                    Ask::Reload => drop(self.reload(path)),
                    ask => {
                        let next = escalate(drain, ask);
                        deadline = self.begin_drain(next, "received a signal");
                        drain = Some(next);
                    }
                },
                Some((cluster, change)) = changed.recv() => self.heed(&cluster, change),
                Some(control) = controls.recv() => match control {
                    Control::Ask(ask) => {
                        let next = escalate(drain, ask);
                        deadline = self.begin_drain(next, "told by the console");
                        drain = Some(next);
                    }
                    // Who asked may have left.
                    Control::Reload(reply) => drop(reply.send(self.reload(path))),
                    Control::Adopt(config, reply) => {
                        let adopted = self.adopt(*config).map_err(|e| e.to_string());
                        drop(reply.send(adopted));
                    },
                },
                _ = ticks.tick() => {
                    let now = Instant::now();
                    watchdog.tick(now);
                    for cluster in self.registry.current().clusters().values() {
                        for change in cluster.tick(now) {
                            self.heed(cluster, change);
                        }
                    }
                    if now >= sweep_at {
                        sweep_at = now + SWEEP_EVERY;
                        self.watch_clusters(&changes);
                        self.registry.prune(now, POOL_UNUSED_MAX);
                        self.registry.vacate(now);
                        self.registry.tick_lookups(now);
                        self.desk.tick(now);
                        self.tell(|| Errand::Sweep);
                    }
                    match drain {
                        Some(Drain::Servers) if self.is_drained(Drain::Servers) => {
                            self.tell(|| Errand::Drain(Drain::Now));
                            drain = Some(Drain::Now);
                            deadline = Some(now + LAST_WORDS);
                        }
                        Some(mode) if self.is_drained(mode) => break,
                        Some(Drain::Now) if deadline.is_some_and(|d| now >= d) => break,
                        Some(_) if deadline.is_some_and(|d| now >= d) => {
                            tracing::warn!("shutdown_timeout has passed: ending the sessions that are left");
                            self.tell(|| Errand::Drain(Drain::Now));
                            drain = Some(Drain::Now);
                            deadline = Some(now + LAST_WORDS);
                        }
                        _ => {}
                    }
                    exposition.set_accepting(drain.is_none());
                }
            }
        }
        Ok(())
    }

    /// Returns when those end that are left then. Once the log says why, nothing can be paused or suspended any more.
    fn begin_drain(&self, drain: Drain, why: &str) -> Option<Instant> {
        notify::stopping();
        self.registry.change_gates(Gates::drain);
        tracing::info!("{why}: {drain:?}");
        self.tell(|| Errand::Drain(drain));
        let limit = match drain {
            Drain::Now => Some(LAST_WORDS),
            _ => self.registry.current().config.pooler.shutdown_timeout,
        };
        limit.map(|l| Instant::now() + l)
    }

    async fn expose(&self) -> io::Result<exposition::Exposition> {
        let listen = self.registry.current().config.metrics.listen;
        exposition::start(Arc::clone(&self.desk), listen).await
    }

    /// Starts the monitors of clusters that are new.
    fn watch_clusters(&self, changes: &UnboundedSender<(Arc<Cluster>, Change)>) {
        let current = self.registry.current();
        for (name, cluster) in current.clusters() {
            let config = &current.config.clusters[name];
            let Some(user) = config.monitor_user.as_deref() else {
                continue;
            };
            if !cluster.begin_watching() {
                continue;
            }
            let monitor = Monitor::new(
                cluster,
                config,
                Access {
                    credentials: credentials_of(&current.config, user),
                    tls: Arc::clone(&current.tls.server),
                    liveness: liveness(&current.config.pooler.defaults),
                },
                self.registry.commons.interners.no_settings(),
                changes.clone(),
            );
            if let Some(monitor) = monitor {
                monitor.start();
            }
        }
    }

    /// Pools first, so that sessions which look elsewhere find them as they are to be.
    fn heed(&self, cluster: &Arc<Cluster>, change: Change) {
        self.registry.heed(cluster, change);
        let host = |at: usize| cluster.hosts()[at].address.to_string();
        let news = Arc::new(client::HostNews {
            lost: match change {
                Change::Lost(at) | Change::Promoted(at) => Some(host(at)),
                Change::Primary { .. } | Change::Found(_) => None,
            },
            primary: match change {
                // Where there was none before, nobody writes to another: what was opened by an earlier
                // configuration ends its transactions.
                Change::Primary { old, new } => old.and(new).map(host),
                Change::Lost(_) | Change::Promoted(_) | Change::Found(_) => None,
            },
        });
        let concerned = self
            .registry
            .pools_on(cluster)
            .iter()
            .map(|pool| pool.id)
            .collect();
        let concerned = Arc::new(concerned);
        self.tell(|| Errand::Hosts(Arc::clone(&news), Arc::clone(&concerned)));
    }

    fn is_drained(&self, drain: Drain) -> bool {
        match drain {
            Drain::Servers => self.registry.pools().iter().all(|pool| {
                let numbers = pool.numbers();
                numbers.servers <= numbers.idle + numbers.connecting && numbers.waiting == 0
            }),
            Drain::Clients | Drain::Now => self.registry.sessions.load(Ordering::Acquire) == 0,
        }
    }

    fn reload(&self, path: &Path) -> Result<Reloaded, String> {
        notify::reloading();
        let loaded = Config::load(path).map_err(RunError::from);
        let adopted = loaded.and_then(|config| self.adopt(config));
        notify::ready();
        match adopted {
            Ok(reloaded) => Ok(reloaded),
            Err(e) => {
                self.registry.reloads.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!("reload failed, the old configuration stays in force:\n{e}");
                Err(e.to_string())
            }
        }
    }

    /// Puts `config` in force.
    fn adopt(&self, config: Config) -> Result<Reloaded, RunError> {
        let old = self.registry.current();
        let tls = Tls::load(&config.tls, Some(&old.tls))?;
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let changes = old.config.changes(&config);
        log::set_level(level_of(&config));
        let warnings = config.warnings.clone();
        let restart = self.registry.reload(config, tls);
        export_traces(&self.registry);
        self.tell(|| Errand::Reloaded);
        tracing::info!("configuration reloaded");
        if !restart.is_empty() {
            tracing::warn!(
                "changed, but in effect only after a restart: {}",
                restart.join(", ")
            );
        }
        Ok(Reloaded {
            changes,
            restart,
            warnings,
        })
    }

    fn tell(&self, errand: impl Fn() -> Errand) {
        for courier in &self.couriers {
            // A worker that has stopped needs no telling.
            let _stopped = courier.send(errand());
        }
    }

    fn stop(self) {
        self.tell(|| Errand::Stop);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        drop(self.socket_files);
        self.registry.spans.finish(TRACES_LAST);
    }
}

fn export_traces(registry: &Registry) {
    let current = registry.current();
    let tls = current.tls.otlp.clone();
    registry.spans.configure(&current.config.tracing, tls);
}

/// A second signal means now.
fn escalate(drain: Option<Drain>, ask: Ask) -> Drain {
    match (drain, ask) {
        (None, Ask::DrainClients) => Drain::Clients,
        (None, Ask::DrainServers) => Drain::Servers,
        _ => Drain::Now,
    }
}
