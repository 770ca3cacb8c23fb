//! What is known of the user that a client says to be: from the configuration, or looked up.
//!
//! A user who does not exist, or of whom nothing is known, is an account like any other here, with a
//! secret that nobody has: whoever asks for a proof need not know the difference, and must not show it
//! (trap 57).

use std::num::NonZero;
use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;
use std::time::Instant;

use pooler_protocol::auth::{MOCK_ITERATIONS, Secret, Verifier, mock_salt};
use tokio::sync::Semaphore;

use super::Hub;
use crate::admin::is_console;
use crate::error::Refusal;
use crate::lookup::{Found, Lookup};
use crate::registry::Current;

/// Derivations of keys at a time: a storm of logins leaves the workers their cores (trap 59).
static TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(1, NonZero::get)));

/// Runs what derives keys, beside the workers. Nothing if it panicked.
pub(super) async fn derive<T: Send + 'static>(
    compute: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let _turn = TURNS.acquire().await.ok()?;
    tokio::task::spawn_blocking(compute).await.ok()
}

/// See the module.
pub(super) struct Account {
    pub(super) name: String,
    known: Known,
    /// Who could say more, and when it was asked.
    lookup: Option<(Arc<Lookup>, Instant)>,
}

enum Known {
    Nothing,
    /// With another that is right too, while it is being changed.
    Listed(Secret, Option<Secret>),
    Found(Arc<Found>),
}

impl Account {
    /// Of `name`, who wants to connect to `database`. Dropped midway, nothing is lost.
    ///
    /// # Errors
    /// 08001 if the user must be looked up and nobody can be asked.
    pub(super) async fn find(
        current: &Arc<Current>,
        name: &str,
        database: &str,
    ) -> Result<Self, Refusal> {
        let mut account = Self {
            name: name.to_owned(),
            known: Known::Nothing,
            lookup: None,
        };
        if let Some(secret) = current.config.secret(name) {
            let second = current.config.second_secret(name);
            account.known = Known::Listed(secret.clone(), second.cloned());
        } else if current.config.may_look_up(name)
            && !is_console(database)
            && let Some(lookup) = current.lookup(database)
        {
            account.look_up(Arc::clone(lookup)).await?;
        }
        Ok(account)
    }

    async fn look_up(&mut self, lookup: Arc<Lookup>) -> Result<(), Refusal> {
        let (found, since) = match lookup.user(&self.name).await {
            Ok(known) => known,
            Err(e) if e.is_passing() => return Err(Refusal::no_lookup(&self.name)),
            // The operator has been told; strangers learn nothing of it.
            Err(_) => (None, Instant::now()),
        };
        self.known = found.map_or(Known::Nothing, Known::Found);
        self.lookup = Some((lookup, since));
        Ok(())
    }

    /// A login failed with what is known. Looks again, once, if that is not fresh: whether there is
    /// something newer to try.
    pub(super) async fn renew(&mut self) -> bool {
        let Some((lookup, since)) = self.lookup.take() else {
            return false;
        };
        lookup.doubt(&self.name, since) && self.look_up(lookup).await.is_ok()
    }

    /// As [`Account::renew`], for the next login: a SCRAM exchange cannot begin anew.
    pub(super) fn doubt(&self) {
        if let Some((lookup, since)) = &self.lookup {
            let _old = lookup.doubt(&self.name, *since);
        }
    }

    fn secret(&self) -> Option<&Secret> {
        match &self.known {
            Known::Nothing => None,
            Known::Listed(secret, _) => Some(secret),
            Known::Found(found) => Some(found.secret()),
        }
    }

    /// What was looked up, for the logins to servers.
    pub(super) fn found(self) -> Option<Arc<Found>> {
        match self.known {
            Known::Found(found) => Some(found),
            Known::Nothing | Known::Listed(..) => None,
        }
    }

    /// The secret to check against, and whether it is one of a user who exists.
    pub(super) fn secret_or_mock(&self, hub: &Hub) -> (Secret, bool) {
        match self.secret() {
            Some(secret) => (secret.clone(), true),
            None => (Secret::mock(&hub.registry.mock_secret, &self.name), false),
        }
    }

    /// What is to be checked beside `secret`, and fits nothing: where some users have verifiers, checking
    /// the password of any other must take as long, or the time would tell who is one of them, and who
    /// does not exist (trap 57).
    pub(super) fn padding(&self, hub: &Hub, current: &Current, secret: &Secret) -> Option<Secret> {
        let is_quick = !matches!(secret, Secret::Scram(_));
        (is_quick && current.has_verifiers)
            .then(|| Secret::Scram(Verifier::mock(&hub.registry.mock_secret, &self.name)))
    }

    /// A second password that is right.
    pub(super) fn second(&self) -> Option<&Secret> {
        match &self.known {
            Known::Listed(_, second) => second.as_ref(),
            Known::Nothing | Known::Found(_) => None,
        }
    }

    /// What a SCRAM exchange that begins with `first` is checked against as well.
    pub(super) async fn second_verifier(
        &self,
        current: &Arc<Current>,
        first: &Verifier,
    ) -> Option<Verifier> {
        let plain = match self.second()? {
            Secret::Scram(verifier) => return Some(verifier.clone()),
            Secret::Md5(_) => return None,
            plain @ Secret::Plain(_) => plain.clone(),
        };
        // No name has a zero in it.
        let name = format!("{}\0second", self.name);
        if let Some(known) = current.known_verifier(&name) {
            return Some(known);
        }
        let (salt, iterations) = (first.salt().to_vec(), first.iterations());
        let made = derive(move || plain.verifier(&salt, iterations)).await??;
        current.keep_verifier(&name, made.clone());
        Some(made)
    }

    /// Whether md5 was asked for and only SCRAM will do: of a verifier, md5 knows nothing. A user
    /// who was looked up and does not exist is like most that do.
    pub(super) fn needs_scram(&self) -> bool {
        match (&self.known, &self.lookup) {
            (Known::Nothing, lookup) => lookup.is_some(),
            _ => matches!(self.secret(), Some(Secret::Scram(_))),
        }
    }

    /// What a SCRAM exchange is checked against; made of a plain password once, off the workers. None
    /// if there is nothing to check it against.
    pub(super) async fn verifier(&self, hub: &Hub, current: &Arc<Current>) -> Option<Verifier> {
        let plain = match self.secret()? {
            Secret::Scram(verifier) => return Some(verifier.clone()),
            Secret::Md5(_) => return None,
            plain @ Secret::Plain(_) => plain.clone(),
        };
        let made_before = match &self.known {
            Known::Found(found) => found.known_verifier(),
            _ => current.known_verifier(&self.name),
        };
        if let Some(known) = made_before {
            return Some(known);
        }
        let salt = mock_salt(&hub.registry.mock_secret, &self.name);
        let made = derive(move || plain.verifier(&salt, MOCK_ITERATIONS)).await??;
        match &self.known {
            Known::Found(found) => found.keep_verifier(made.clone()),
            _ => current.keep_verifier(&self.name, made.clone()),
        }
        Some(made)
    }
}
