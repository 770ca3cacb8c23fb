//! Closing databases for a while, and waiting until their servers are gone (PAUSE); having every session stand still (SUSPEND).
//!
//! ```text
//!   open --PAUSE--> closing --no server left--> paused --RESUME--> open
//!                      | timeout, the operator leaves
//!                      +----------------------> open
//!
//!   running --SUSPEND--> flushing --nothing unsent--> still --RESUME, a shutdown--> running
//!                           | timeout, the operator leaves
//!                           +----------------------> running
//! ```
//! Half a pause must not outlive who asked for it: a [`Hold`] or a [`Standstill`] that is dropped undoes what it has begun,
//! unless it was kept (trap 76), or somebody else has resumed: what is closed then is another's.
//!
//! A session that stands still keeps its server, transaction and place in the queue, and reads neither of its sockets; so
//! nothing that arrives is lost, and nothing new begins (`client/standstill.rs`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::holders::{who_holds, who_reads_nothing};
use super::{Desk, Errand, Scope};
use crate::error::Refusal;
use crate::registry::{Closed, Closing, Gates, Registry};
use crate::timer;

/// How often it is looked whether all is closed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// One database.
    Database(String),
    /// All.
    Everything,
}

fn already() -> Refusal {
    Refusal::error("55000", "already paused or suspended").hint("RESUME first.")
}

fn ending() -> Refusal {
    Refusal::error("55000", "the pooler is shutting down").hint("Sessions have to go on for that.")
}

impl What {
    fn database(&self) -> Option<&str> {
        match self {
            Self::Database(name) => Some(name),
            Self::Everything => None,
        }
    }

    fn close(&self, gates: &mut Gates) -> Result<Closing, Refusal> {
        if gates.is_draining() {
            return Err(ending());
        }
        if gates.everything != Closed::No {
            return Err(already());
        }
        match self {
            Self::Database(name) => gates.pause(name).ok_or_else(already),
            Self::Everything => Ok(gates.close_everything(Closed::Paused)),
        }
    }
}

/// Something that is being closed; see the module.
#[derive(Debug)]
pub(super) struct Hold {
    registry: Arc<Registry>,
    what: What,
    closing: Closing,
    kept: bool,
}

impl Hold {
    /// Closes it.
    ///
    /// # Errors
    /// 55000, if it is closed already.
    pub(super) fn close(registry: &Arc<Registry>, what: What) -> Result<Self, Refusal> {
        let closing = registry.change_gates(|gates| what.close(gates))?;
        Ok(Self {
            registry: Arc::clone(registry),
            what,
            closing,
            kept: false,
        })
    }

    /// Waits until no server is left, and keeps it closed. Dropped midway it is open again.
    ///
    /// # Errors
    /// 57014, if that takes longer than `limit`, with who is in the way; it is open again then.
    pub(super) async fn settle(
        mut self,
        desk: &Desk,
        limit: Option<Duration>,
    ) -> Result<(), Refusal> {
        let began = Instant::now();
        loop {
            let left = self.left();
            if left.is_empty() {
                self.kept = true;
                return Ok(());
            }
            if limit.is_some_and(|limit| began.elapsed() >= limit) {
                let view = desk.look(Scope::Everybody).await;
                let database = self.what.database();
                let who = who_holds(&view, |name| database.is_none_or(|d| d == name));
                return Err(timeout(limit, &left).detail(format!(
                    "Still there: {}.{who} The pause is undone.",
                    left.join(", ")
                )));
            }
            timer::sleep(LOOK_EVERY).await;
        }
    }

    /// Keeps it closed without waiting.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }

    fn left(&self) -> Vec<String> {
        let pools = self.registry.pools_of(self.what.database());
        let line = |pool: &Arc<crate::pool::Pool>| {
            // That which listens for clients keeps what no other server knows.
            let servers = pool.numbers().servers + usize::from(pool.is_listening());
            (servers > 0).then(|| format!("{servers} of {}", pool.key))
        };
        pools.iter().filter_map(line).collect()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.kept {
            self.registry.change_gates(|gates| gates.undo(self.closing));
        }
    }
}

/// `limit` has passed.
pub(super) fn timeout(limit: Option<Duration>, left: &[String]) -> Refusal {
    let limit = crate::config::show_duration(limit.unwrap_or_default());
    let pools = left.len();
    Refusal::error(
        "57014",
        format!("timeout: server connections of {pools} pools did not become free in {limit}"),
    )
    .hint("SHOW CLIENTS says who has them and what they run; KILL_CLIENT ends one.")
}

/// Every session stands still, or is about to; see the module.
pub(super) struct Standstill<'a> {
    desk: &'a Desk,
    closing: Closing,
    kept: bool,
}

impl<'a> Standstill<'a> {
    /// Begins it.
    ///
    /// # Errors
    /// 55000, if something is paused, everything is suspended already, or the pooler is shutting down.
    pub(super) fn begin(desk: &'a Desk) -> Result<Self, Refusal> {
        let closing = desk.registry.change_gates(|gates| {
            if gates.is_draining() {
                return Err(ending());
            }
            if gates.is_any_closed() {
                return Err(already());
            }
            Ok(gates.close_everything(Closed::Suspended))
        })?;
        Ok(Self {
            desk,
            closing,
            kept: false,
        })
    }

    /// Waits until nothing is unsent. Dropped midway everything goes on.
    ///
    /// # Errors
    /// 57014, if that takes longer than `limit`, with who takes in nothing; 55000, if somebody else has ended it meanwhile.
    pub(super) async fn settle(mut self, limit: Option<Duration>) -> Result<(), Refusal> {
        let asked = self.desk.ask_each(Errand::StandStill);
        let all = async {
            for answer in asked {
                // A worker that has stopped has nothing unsent.
                let _still = answer.await;
            }
        };
        match limit {
            None => all.await,
            Some(limit) if timer::timeout(limit, all).await.is_ok() => {}
            Some(limit) => {
                let who = who_reads_nothing(&self.desk.look(Scope::Everybody).await);
                let limit = crate::config::show_duration(limit);
                let message = format!("timeout: not everything could be sent in {limit}");
                return Err(Refusal::error("57014", message)
                    .detail(format!("{who} Everything goes on.").trim_start())
                    .hint("KILL_CLIENT ends one."));
            }
        }
        let gates = self.desk.registry.gates_now();
        if !gates.stands(self.closing) {
            return Err(match gates.is_draining() {
                true => ending(),
                false => Refusal::error("55000", "somebody else has resumed"),
            });
        }
        self.kept = true;
        Ok(())
    }
}

impl Drop for Standstill<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let is_suspended = self.desk.registry.change_gates(|gates| {
            gates.undo(self.closing);
            gates.everything == Closed::Suspended
        });
        // Also if somebody has resumed: the workers may have heard of that before they stood still.
        if !is_suspended {
            self.desk.tell_all(|| Errand::GoOn);
        }
    }
}
