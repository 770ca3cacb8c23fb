//! Reading from a database which of its functions change the session of whoever calls them (see
//! `pooler_protocol::vigilance`).
//!
//! ```text
//!   unknown --the first server is opened--> known --a definition changes, or time passes--> stale
//!   stale --a server idles when the sweep comes--> known
//! ```

use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use pooler_protocol::backend::{read_data_row, tag};
use pooler_protocol::route::{Builder, QUESTION as CATALOGUE_QUESTION};
use pooler_protocol::statement::as_custom_setting;
use pooler_protocol::vigilance::QUESTION;

use super::Pool;
use super::local::LocalPool;
use crate::config::PoolMode;
use crate::error::ServerFault;
use crate::server::Server;
use crate::server::catalogue::Database;
use crate::timer;

/// How long names are good for: definitions may change past the pooler, too.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// How long a database may take to say them.
const ASK_MAX: Duration = Duration::from_secs(5);

/// How long it may take to say what it knows of its functions.
const CATALOGUE_ASK_MAX: Duration = Duration::from_secs(30);

/// What was read of a pool's database.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// When it was begun last.
    at: Option<Instant>,
    /// Definitions that had been changed through the pooler then.
    definitions: u64,
}

impl Pool {
    /// Whether it is this caller's turn to read the names; whoever is told so begins at once.
    fn begin_reading(&self, now: Instant) -> bool {
        // A replica may not have replayed yet what was defined, and its database is the same.
        if self.home.is_some() {
            return false;
        }
        let settings = &self.plan().settings;
        if !settings.inspect_functions || settings.pool_mode == PoolMode::Session {
            return false;
        }
        let definitions = self.commons.interners.definitions();
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let old = |at: Instant| now.saturating_duration_since(at) >= GOOD_FOR;
        let due = reading.at.is_none_or(old) || reading.definitions != definitions;
        if due {
            *reading = Reading {
                at: Some(now),
                definitions,
            };
        }
        due
    }

    /// Asks a server that nobody uses.
    async fn read_names(&self, server: &mut Server) -> Result<(), ServerFault> {
        let (mut names, mut settings) = (Vec::new(), Vec::new());
        let asked = server.ask(QUESTION, |tag, body| {
            if tag != tag::DATA_ROW {
                return;
            }
            match read_data_row(body).as_deref() {
                Some([Some(b"name"), Some(name)]) => names.push(Box::from(*name)),
                Some([Some(b"setting"), Some(name)]) => {
                    settings.extend(as_custom_setting(name).map(str::to_owned))
                }
                _ => {}
            }
        });
        match timer::timeout(ASK_MAX, asked).await {
            Ok(Ok(())) => {
                let interners = &self.commons.interners;
                interners.set_suspect_names(self.id, names);
                for name in settings {
                    // Beyond the bound, who uses it in a statement of its own is told apart.
                    let _noted = interners.note_custom_setting(&name);
                }
            }
            Ok(Err(ServerFault::Settings(message))) => {
                tracing::warn!(pool = %self.key, "cannot read which functions change a session: {message}");
            }
            Ok(Err(fault)) => return Err(fault),
            Err(_elapsed) => return Err(ServerFault::Timeout),
        }
        Ok(())
    }
}

impl Pool {
    /// What is known of the database's functions, if it is this caller's turn to read that.
    fn begin_catalogue(&self, now: Instant) -> Option<(Arc<Database>, u64)> {
        if self.home.is_some() {
            return None;
        }
        let database = self.plan().recipe.catalogue.clone()?;
        let definitions = self.commons.interners.definitions();
        let turn = database.begin_reading(definitions, now);
        turn.then_some((database, definitions))
    }

    /// Asks a server that nobody uses.
    async fn read_catalogue(
        &self,
        server: &mut Server,
        (database, definitions): (Arc<Database>, u64),
    ) -> Result<(), ServerFault> {
        let mut names = Builder::default();
        let asked = server.ask(CATALOGUE_QUESTION, |tag, body| {
            if tag == tag::DATA_ROW
                && let Some([Some(kind), Some(name)]) = read_data_row(body).as_deref()
            {
                names.add(kind, name);
            }
        });
        let asked = timer::timeout(CATALOGUE_ASK_MAX, asked).await;
        match asked.unwrap_or(Err(ServerFault::Timeout)) {
            Ok(()) => database.set(names.build(), definitions),
            Err(ServerFault::Settings(message)) => {
                tracing::warn!(pool = %self.key, "cannot read the functions of the database, so its reads stay on the primary: {message}");
            }
            Err(fault) => {
                database.fail_reading();
                return Err(fault);
            }
        }
        Ok(())
    }
}

/// A pool that is forgotten has no names.
impl Drop for Pool {
    fn drop(&mut self) {
        self.commons
            .interners
            .set_suspect_names(self.id, Vec::new());
    }
}

impl LocalPool {
    /// Reads the names by a server that was just opened, if they are due.
    ///
    /// # Errors
    /// [`ServerFault`]: it is of no use then.
    pub(super) async fn read_names_first(&self, server: &mut Server) -> Result<(), ServerFault> {
        let now = Instant::now();
        if self.shared().begin_reading(now) {
            self.shared().read_names(server).await?;
        }
        if let Some(turn) = self.shared().begin_catalogue(now) {
            self.shared().read_catalogue(server, turn).await?;
        }
        Ok(())
    }

    /// Reads them again, if they are due and a server idles.
    pub(super) fn read_names_again(self: &Rc<Self>, now: Instant) {
        if self.idle.borrow().is_empty() {
            return;
        }
        let names = self.shared().begin_reading(now);
        let catalogue = self.shared().begin_catalogue(now);
        if !names && catalogue.is_none() {
            return;
        }
        let Some(mut checkout) = self.try_checkout() else {
            if let Some((database, _)) = catalogue {
                database.fail_reading();
            }
            return;
        };
        tokio::task::spawn_local(async move {
            let pool = Arc::clone(checkout.pool().shared());
            let read = async {
                if names {
                    pool.read_names(&mut checkout).await?;
                }
                match catalogue {
                    Some(turn) => pool.read_catalogue(&mut checkout, turn).await,
                    None => Ok(()),
                }
            };
            match read.await {
                Ok(()) => {
                    if let Some(proof) = checkout.reusable() {
                        checkout.release(proof, Instant::now());
                    }
                }
                Err(e) => tracing::debug!(pool = %pool.key, "server closed: {e}"),
            }
        });
    }
}
