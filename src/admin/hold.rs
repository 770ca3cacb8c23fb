//! Closing databases for a while, and waiting until their servers are gone.
//!
//! ```text
//!   open --PAUSE--> closing --no server left--> paused --RESUME--> open
//!                      | timeout, the operator leaves
//!                      +----------------------> open
//! ```
//! Half a pause must not outlive who asked for it: a [`Hold`] that is dropped opens again what it has
//! closed, unless it was kept (trap 76).

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Refusal;
use crate::registry::{Closed, Gates, Registry};

/// How often it is looked whether all is closed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// One database.
    Database(String),
    /// Everything, by PAUSE or by SUSPEND.
    Everything(Closed),
}

impl What {
    fn database(&self) -> Option<&str> {
        match self {
            Self::Database(name) => Some(name),
            Self::Everything(_) => None,
        }
    }

    fn close(&self, gates: &mut Gates) -> Result<(), Refusal> {
        let already =
            || Refusal::error("55000", "already paused or suspended").hint("RESUME first.");
        if gates.everything != Closed::No {
            return Err(already());
        }
        match self {
            Self::Database(name) if !gates.paused.insert(name.clone()) => Err(already()),
            Self::Database(_) => Ok(()),
            Self::Everything(how) => {
                gates.everything = *how;
                Ok(())
            }
        }
    }

    fn open(&self, gates: &mut Gates) {
        match self {
            Self::Database(name) => {
                gates.paused.remove(name);
            }
            Self::Everything(_) => gates.everything = Closed::No,
        }
    }
}

/// Something that is being closed; see the module.
#[derive(Debug)]
pub(super) struct Hold {
    registry: Arc<Registry>,
    what: What,
    kept: bool,
}

impl Hold {
    /// Closes it.
    ///
    /// # Errors
    /// 55000, if it is closed already.
    pub(super) fn close(registry: &Arc<Registry>, what: What) -> Result<Self, Refusal> {
        registry.change_gates(|gates| what.close(gates))?;
        Ok(Self {
            registry: Arc::clone(registry),
            what,
            kept: false,
        })
    }

    /// Waits until no server is left, and keeps it closed. Dropped midway it is open again.
    ///
    /// # Errors
    /// 57014, if that takes longer than `limit`; it is open again then.
    pub(super) async fn settle(mut self, limit: Option<Duration>) -> Result<(), Refusal> {
        let began = Instant::now();
        loop {
            let left = self.left();
            if left.is_empty() {
                self.kept = true;
                return Ok(());
            }
            if limit.is_some_and(|limit| began.elapsed() >= limit) {
                return Err(timeout(limit, &left).detail(format!(
                    "Still there: {}. The pause is undone.",
                    left.join(", ")
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Keeps it closed without waiting.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }

    fn left(&self) -> Vec<String> {
        let pools = self.registry.pools_of(self.what.database());
        let line = |pool: &Arc<crate::pool::Pool>| {
            let servers = pool.numbers().servers;
            (servers > 0).then(|| format!("{servers} of {}", pool.key))
        };
        pools.iter().filter_map(line).collect()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.kept {
            self.registry.change_gates(|gates| self.what.open(gates));
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
