//! Opening servers: how many at a time, where, and what a failure means for those who wait.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::checkout::{Pooled, Slot};
use super::limit::{Limit, Permit};
use super::local::LocalPool;
use super::{Candidate, Errand, Permits, Plan};
use crate::config::{PoolMode, PoolSettings};
use crate::error::{LoginError, Outlook};
use crate::net::Liveness;
use crate::server::Server;
use crate::server::login::{LoginTimes, Target, login};
use crate::timer;

/// Socket options as configured.
#[must_use]
pub fn liveness(settings: &PoolSettings) -> Liveness {
    Liveness {
        keepalive: settings.tcp_keepalive,
        user_timeout: settings.tcp_user_timeout,
    }
}

impl LocalPool {
    /// Opens as many servers as are wanted and allowed. They are opened beside the clients that
    /// asked, not by them: a client that is served otherwise, or leaves, changes nothing.
    pub fn grow(self: &Rc<Self>, now: Instant) {
        let pool = self.shared();
        let bounds = pool.bounds();
        loop {
            // The common case of a full pool ends here, under one short lock.
            if pool.state().connects_due(&bounds, now) == 0 {
                return;
            }
            // In this order: a server whose plan was replaced while it was opened is of the old
            // generation, and closed.
            let generation = pool.generation.load(Ordering::Acquire);
            let plan = pool.plan();
            let Some((permits, attempts)) = self.permits(&plan) else {
                return;
            };
            // Looked at again, and counted, in one step (trap 39).
            let mut state = pool.state();
            if state.connects_due(&bounds, now) == 0 {
                return;
            }
            state.begin_connect(now);
            drop(state);
            let slot = Slot {
                pool: Arc::clone(pool),
                permits,
            };
            let birth = Birth {
                plan,
                generation,
                slot,
            };
            tokio::task::spawn_local(open(Rc::clone(self), birth, attempts));
        }
    }

    fn opened(self: &Rc<Self>, birth: Birth, mut server: Server, times: LoginTimes) {
        let counters = self.counters();
        counters.connect_seconds.record(times.connect);
        counters.login_seconds.record(times.login);
        server.watch.note_opening(times.connect + times.login);
        let pool = self.shared();
        pool.note_welcome(&server.welcome);
        let now = Instant::now();
        pool.state().connected();
        let lifetime = birth.plan.settings.server_lifetime;
        let share = || 0.8 + 0.2 * rand::random::<f64>();
        let pooled = Box::new(Pooled {
            server,
            slot: birth.slot,
            expires: lifetime.map(|l| now + l.mul_f64(share())),
            idle_share: share(),
            generation: birth.generation,
        });
        self.in_use_more();
        self.take_back(pooled, now);
        self.grow(now);
    }

    fn not_opened(self: &Rc<Self>, slot: Slot, error: LoginError) {
        let pool = Arc::clone(self.shared());
        let error = Arc::new(error);
        self.counters().connect_failures.add(1);
        let mut state = pool.state();
        let first = state.failing_since().is_none();
        let now = Instant::now();
        state.connect_failed(Arc::clone(&error), &pool.bounds(), now, rand::random());
        drop(state);
        if first {
            tracing::warn!(pool = %pool.key, "cannot open a server connection: {error}");
        } else {
            tracing::debug!(pool = %pool.key, "cannot open a server connection: {error}");
        }
        drop(slot);
        // Servers that are open still serve those who wait.
        if error.outlook() == Outlook::Permanent && pool.state().permanent_failure(now).is_some() {
            self.fail_all(&error);
            pool.welcome_changed.notify_waiters();
        }
    }
}

/// A host to try, with what it takes to log in there.
struct Attempt {
    candidate: Candidate,
    login: Permit,
    /// Of the likeliest host, so that nothing is tried while it is full; the others are asked when
    /// it is their turn.
    connection: Option<Permit>,
}

impl LocalPool {
    /// What a login needs besides the place in the pool: all of it, or nothing is taken.
    fn permits(&self, plan: &Plan) -> Option<(Permits, Vec<Attempt>)> {
        let pool = self.shared();
        let mut permits = Vec::with_capacity(plan.limits.len() + 1);
        for limit in &plan.limits {
            permits.push(self.take_or_spare(limit)?);
        }
        let mut candidates = plan.recipe.locate.candidates().into_iter();
        let first = candidates.next()?;
        let connection = self.take_or_spare(&first.connections)?;
        let first = Attempt {
            login: first.logins.take_or_wait(pool)?,
            candidate: first,
            connection: Some(connection),
        };
        let rest = candidates.filter_map(|candidate| {
            let login = candidate.logins.try_take()?;
            Some(Attempt {
                candidate,
                login,
                connection: None,
            })
        });
        let all = std::iter::once(first).chain(rest).collect();
        Some((Permits(permits), all))
    }

    /// One of `limit`; if it is full, another pool is asked to give up a server that idles, and
    /// this one hears of it.
    fn take_or_spare(&self, limit: &Arc<Limit>) -> Option<Permit> {
        let pool = self.shared();
        limit.take_or_wait(pool).or_else(|| {
            if limit.used() < limit.max() {
                // It is another's turn, who has been told.
                return None;
            }
            let errand = Errand::Spare {
                limit: Arc::clone(limit),
                asker: Arc::clone(pool),
                workers: pool.commons.couriers.len(),
            };
            pool.send(self.worker(), errand);
            None
        })
    }
}

/// A server that is being opened: by which plan, and its place in the pool.
struct Birth {
    plan: Arc<Plan>,
    /// The pool's generation when the plan was read.
    generation: u32,
    slot: Slot,
}

async fn open(local: Rc<LocalPool>, mut birth: Birth, attempts: Vec<Attempt>) {
    let plan = Arc::clone(&birth.plan);
    let mut errors = Vec::new();
    for attempt in attempts {
        let candidate = attempt.candidate;
        let connection = attempt
            .connection
            .or_else(|| candidate.connections.try_take());
        let Some(connection) = connection else {
            errors.push(LoginError::Refused {
                host: candidate.address.to_string(),
                sqlstate: "53300".to_owned(),
                message: "max_server_connections of the host is reached".to_owned(),
                said: Box::default(),
            });
            continue;
        };
        let tried = try_host(&local, &plan, &candidate).await;
        drop(attempt.login);
        match tried {
            Ok(Some((server, times))) => {
                birth.slot.permits.0.push(connection);
                local.opened(birth, server, times);
                return;
            }
            Ok(None) => errors.push(LoginError::Refused {
                host: candidate.address.to_string(),
                sqlstate: "25006".to_owned(),
                message: "it is a replica".to_owned(),
                said: Box::default(),
            }),
            Err(e) => {
                plan.recipe.locate.failed(&candidate.address, &e);
                errors.push(e);
            }
        }
    }
    let error = match errors.len() {
        1 => errors.remove(0),
        _ => {
            let permanent = errors
                .iter()
                .position(|e| e.outlook() == Outlook::Permanent);
            match permanent {
                Some(at) => errors.swap_remove(at),
                None => plan
                    .recipe
                    .locate
                    .nobody(errors.iter().map(ToString::to_string).collect()),
            }
        }
    };
    local.not_opened(birth.slot, error);
}

/// A server there, if it is one that the pool wants.
pub(super) async fn try_host(
    local: &LocalPool,
    plan: &Plan,
    candidate: &Candidate,
) -> Result<Option<(Server, LoginTimes)>, LoginError> {
    let limit = plan.settings.server_connect_timeout;
    let target = Target {
        address: candidate.address.clone(),
        database: &plan.recipe.dbname,
        user: &local.shared().key.user,
        credentials: &plan.recipe.credentials,
        parameters: &local.shared().key.startup,
        liveness: liveness(&plan.settings),
        no_settings: local.commons().interners.no_settings(),
        tls: Arc::clone(&plan.recipe.tls),
    };
    let (mut server, times) =
        timer::timeout(limit, login(&target))
            .await
            .map_err(|_elapsed| LoginError::Timeout {
                host: candidate.address.to_string(),
                limit,
            })??;
    if plan
        .recipe
        .locate
        .inspect(&candidate.address, &server.welcome)
    {
        let mut asked = local.read_names_first(&mut server).await;
        if asked.is_ok() && plan.settings.pool_mode == PoolMode::Session {
            asked = server.note_birth(target.user).await;
        }
        if let Err(fault) = asked {
            let host = candidate.address.to_string();
            return Err(LoginError::unanswered(host, &fault));
        }
        return Ok(Some((server, times)));
    }
    server.terminate();
    Ok(None)
}
