//! Users that no file lists are looked up in PostgreSQL: `auth.query`, run as `auth.user`.
//!
//! ```text
//!   unknown --asked for--> asking --answered--> known or absent --older than its time--> unknown
//! ```
//! A look-up belongs to a cluster and has a few connections of its own, to the primary if there is one,
//! else to any host that answers. No client's settings are ever applied there (trap 34), the name goes as
//! a parameter, and `search_path` is `pg_catalog`. Whoever asks for a name that is being asked for waits for
//! the same answer. An answer counts only if it names who was asked for (trap 58). Everything runs
//! beside the workers; dropping a wait stops nothing.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use pooler_protocol::auth::{Secret, Verifier};
use pooler_protocol::settings::Settings;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use zeroize::Zeroizing;

use crate::cluster::Cluster;
use crate::net::{Address, DetachedStream, Liveness};
use crate::server::Server;
use crate::server::login::Credentials;
use crate::timer;
use crate::tls::Connector;

mod answers;
mod link;

use answers::{Answers, Step};

/// Connections of one cluster's look-ups.
const LINKS_MAX: usize = 2;

/// Look-ups under way or waiting for a connection.
const ASKED_MAX: usize = 1000;

/// How long a connection idles before it is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How long an absence is remembered at most: a user who was just made should get in soon.
const ABSENT_MAX: Duration = Duration::from_secs(5);

/// How old an answer must be for a failed login to have it asked for again.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// How long after a failure to connect nobody tries again.
const DOWN_FOR: Duration = Duration::from_millis(500);

/// How long the same failure is not logged again.
const SAID_FOR: Duration = Duration::from_secs(60);

/// Bytes of a name that is asked for: PostgreSQL's own are shorter, and strangers' are remembered.
const NAME_LEN_MAX: usize = 256;

/// Roles that a user may be a member of; more are not read.
const ROLES_MAX: u32 = 10_000;

/// Roles of which a user is a member, directly or not, itself among them. Being a superuser makes
/// nobody a member, as in PostgreSQL's own check of `pg_hba.conf`.
const ROLES: &str = "WITH RECURSIVE member(of) AS (\
    SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1 \
    UNION SELECT roleid FROM pg_catalog.pg_auth_members, member WHERE pg_auth_members.member = member.of) \
    SELECT rolname FROM pg_catalog.pg_roles, member WHERE oid = member.of";

/// Why nothing is known of a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Nobody can be asked.
    #[error("cannot log in to look users up: {0}")]
    Unreachable(String),
    /// The answer did not come in time.
    #[error("no answer within auth.lookup_timeout ({0:?})")]
    Timeout(Duration),
    /// Too many are waiting.
    #[error("{ASKED_MAX} look-ups are under way")]
    Busy,
    /// The process is ending.
    #[error("the pooler is shutting down")]
    Ending,
    /// The server refused the query.
    #[error("auth.query failed: {0}")]
    Query(String),
    /// The answer is not what it is to be.
    #[error("auth.query: {0}")]
    Answer(String),
}

impl LookupError {
    /// Whether asking again later may help, without anybody changing the configuration.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        !matches!(self, Self::Query(_) | Self::Answer(_))
    }
}

/// What was found of a user.
#[derive(Debug)]
pub struct Found {
    secret: Secret,
    /// Made of a plain password once.
    verifier: OnceLock<Verifier>,
}

impl Found {
    fn new(secret: Secret) -> Arc<Self> {
        let verifier = OnceLock::new();
        Arc::new(Self { secret, verifier })
    }

    /// The secret.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The verifier made of it earlier.
    #[must_use]
    pub fn known_verifier(&self) -> Option<Verifier> {
        self.verifier.get().cloned()
    }

    /// Keeps the verifier made of it.
    pub fn keep_verifier(&self, verifier: Verifier) {
        // Another login was faster with the same.
        let _kept = self.verifier.set(verifier);
    }
}

/// Whose users are looked up, and how.
#[derive(Debug)]
pub struct Recipe {
    /// Where.
    pub cluster: Arc<Cluster>,
    /// `auth.user`
    pub user: String,
    /// `auth.dbname`
    pub dbname: String,
    /// `auth.query`; without one, only memberships are asked for.
    pub query: Option<String>,
    /// What proves that the pooler is `user`.
    pub credentials: Arc<Credentials>,
    /// How its connections are encrypted.
    pub tls: Arc<Connector>,
    /// Socket options.
    pub liveness: Liveness,
    /// The empty set of the process's interner.
    pub no_settings: Arc<Settings>,
    /// How long an answer is good for.
    pub cache_time: Duration,
    /// How long it may take.
    pub timeout: Duration,
}

/// See the module. A reload makes another, which knows nothing yet.
#[derive(Debug)]
pub struct Lookup {
    recipe: Recipe,
    runtime: Handle,
    users: Answers<Arc<Found>>,
    roles: Answers<Arc<[String]>>,
    turns: Semaphore,
    /// They belong to no event loop meanwhile: what one has for sockets stays on its thread.
    idle: Mutex<Vec<(Server<DetachedStream>, Instant)>>,
    /// The last failure to connect.
    down: Mutex<Option<(Instant, LookupError)>>,
    said: Mutex<Option<(Instant, LookupError)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of a name, and since when.
pub type Known<V> = (Option<V>, Instant);

impl Lookup {
    /// By `recipe`; its connections live on `runtime`.
    #[must_use]
    pub fn new(recipe: Recipe, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            recipe,
            runtime,
            users: Answers::new(ASKED_MAX),
            roles: Answers::new(ASKED_MAX),
            turns: Semaphore::new(LINKS_MAX),
            idle: Mutex::default(),
            down: Mutex::default(),
            said: Mutex::default(),
        })
    }

    /// Who looks users up.
    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// What is known of user `name`, found out if need be; nothing if there is none that may log in.
    /// Dropped midway, it is found out all the same.
    ///
    /// # Errors
    /// [`LookupError`], which has been logged.
    pub async fn user(self: &Arc<Self>, name: &str) -> Result<Known<Arc<Found>>, LookupError> {
        let Some(query) = self.recipe.query.clone() else {
            return Ok((None, Instant::now()));
        };
        let this = Arc::clone(self);
        let ask = move |name: String| async move {
            let rows = this.ask(&query, &name, 2).await?;
            read_user(&rows, &name)
        };
        self.find(|this| &this.users, name, ask).await
    }

    /// The roles that user `name` is a member of, itself included; nothing if there is no such user.
    ///
    /// # Errors
    /// [`LookupError`], which has been logged.
    pub async fn roles(self: &Arc<Self>, name: &str) -> Result<Known<Arc<[String]>>, LookupError> {
        let this = Arc::clone(self);
        let ask = move |name: String| async move {
            let rows = this.ask(ROLES, &name, ROLES_MAX).await?;
            let role =
                |row: &Row| Some(String::from_utf8_lossy(row.first()?.as_ref()?).into_owned());
            let roles: Arc<[String]> = rows.iter().filter_map(role).collect();
            Ok(Some(roles).filter(|roles| !roles.is_empty()))
        };
        self.find(|this| &this.roles, name, ask).await
    }

    /// What is known of user `name` led to a login that failed: what is older than a moment is not
    /// believed any more. Whether it is to be asked for again.
    pub fn doubt(&self, name: &str, known_since: Instant) -> bool {
        let old = known_since.elapsed() >= REFRESH_MIN;
        if old {
            self.users.forget(name, known_since);
        }
        old
    }

    /// Closes connections that nobody has used for a while.
    pub fn tick(&self, now: Instant) {
        let aged =
            |(_, since): &mut (_, Instant)| now.saturating_duration_since(*since) >= IDLE_MAX;
        for (server, _) in lock(&self.idle).extract_if(.., aged) {
            if let Ok(mut server) = server.attach() {
                server.terminate();
            }
        }
    }

    async fn find<V, F>(
        self: &Arc<Self>,
        answers: impl Fn(&Self) -> &Answers<V> + Send + 'static,
        name: &str,
        ask: impl FnOnce(String) -> F + Send + 'static,
    ) -> Result<Known<V>, LookupError>
    where
        V: Clone + Send + Sync + 'static,
        F: Future<Output = Result<Option<V>, LookupError>> + 'static,
    {
        if name.len() > NAME_LEN_MAX {
            return Ok((None, Instant::now()));
        }
        let mut answer = match answers(self).find(name, Instant::now()) {
            Step::Known(known) => return Ok(known),
            Step::Full => return Err(self.log(LookupError::Busy)),
            Step::Wait(answer) => answer,
            Step::Ask(tell, answer) => {
                let (this, name) = (Arc::clone(self), name.to_owned());
                let limit = self.recipe.timeout;
                let find_out = move || async move {
                    let timed = timer::timeout(limit, ask(name.clone())).await;
                    let result = timed.unwrap_or(Err(LookupError::Timeout(limit)));
                    let result = result.map_err(|e| this.log(e));
                    let now = Instant::now();
                    let good_for = match &result {
                        Ok(Some(_)) => this.recipe.cache_time,
                        _ => this.recipe.cache_time.min(ABSENT_MAX),
                    };
                    let kept = result.as_ref().ok().map(|found| (found.clone(), now));
                    answers(&this).note(&name, kept, now + good_for);
                    // Who waited may have left.
                    let _heard = tell.send(Some(result.map(|found| (found, now))));
                };
                // A connection stays on the thread on which it was opened.
                self.runtime.spawn(async { drop(spawn_local(find_out())) });
                answer
            }
        };
        let told = answer.wait_for(Option::is_some).await;
        match told.as_deref() {
            Ok(Some(result)) => result.clone(),
            _ => Err(LookupError::Ending),
        }
    }

    /// Says in the log what is wrong, once in a while.
    fn log(&self, error: LookupError) -> LookupError {
        let mut said = lock(&self.said);
        let now = Instant::now();
        let known = said.as_ref().is_some_and(|(at, before)| {
            *before == error && now.saturating_duration_since(*at) < SAID_FOR
        });
        if known {
            tracing::debug!(cluster = %self.recipe.cluster.name(), user = %self.recipe.user, "{error}");
        } else {
            tracing::error!(cluster = %self.recipe.cluster.name(), user = %self.recipe.user, "a user cannot be looked up: {error}");
            *said = Some((now, error.clone()));
        }
        error
    }
}

/// Columns of a row of an answer, zeroed when they are dropped: secrets are among them.
type Row = Vec<Option<Zeroizing<Vec<u8>>>>;

/// Reads what `auth.query` said of `name`.
fn read_user(rows: &[Row], name: &str) -> Result<Option<Arc<Found>>, LookupError> {
    let wrong = |what: &str| Err(LookupError::Answer(what.to_owned()));
    let row = match rows {
        [] => return Ok(None),
        [row] => row,
        _ => return wrong("gave more than one row for a user"),
    };
    let [Some(returned), secret, ..] = &row[..] else {
        return wrong("must give two columns: the user's name and the secret");
    };
    if returned.as_slice() != name.as_bytes() {
        return wrong("gave another user than the one that was asked for");
    }
    let Some(secret) = secret else {
        return Ok(None);
    };
    match std::str::from_utf8(secret).ok().map(Secret::parse) {
        Some(Ok(secret)) => Ok(Some(Found::new(secret))),
        Some(Err(pooler_protocol::auth::SecretError::Empty)) => Ok(None),
        Some(Err(e)) => wrong(&format!("gave no secret: {e}")),
        None => wrong("gave a secret that is not UTF-8"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[Option<&str>]) -> Row {
        let column = |c: &Option<&str>| c.map(|text| Zeroizing::new(text.as_bytes().to_vec()));
        columns.iter().map(column).collect()
    }

    #[test]
    fn t58_an_answer_counts_only_for_the_user_that_was_asked_for() {
        let secret = Some(
            "SCRAM-SHA-256$4096:c2FsdHNhbHQ=$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=",
        );
        let read = |rows: &[Row]| read_user(rows, "bob").map(|found| found.is_some());
        assert_eq!(read(&[row(&[Some("bob"), secret])]), Ok(true));
        assert_eq!(read(&[row(&[Some("bob"), secret, Some("more")])]), Ok(true));
        for absent in [
            &[][..],
            &[row(&[Some("bob"), None])],
            &[row(&[Some("bob"), Some("")])],
        ] {
            assert_eq!(read(absent), Ok(false));
        }
        for wrong in [
            &[row(&[Some("postgres"), secret])][..],
            &[row(&[Some("bo"), secret])],
            &[row(&[None, secret])],
            &[row(&[Some("bob")])],
            &[row(&[])],
            &[row(&[Some("bob"), secret]), row(&[Some("bob"), secret])],
            &[row(&[Some("bob"), Some("SCRAM-SHA-256$broken")])],
        ] {
            let error = read(wrong).expect_err("no answer");
            assert!(
                !error.is_passing() && !error.to_string().contains("broken"),
                "t63"
            );
        }
    }
}
