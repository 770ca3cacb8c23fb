//! What proves to servers who the pooler is: secrets of the configuration, what took their place since, and what
//! clients left that proved themselves.
//!
//! Nothing here shows a secret. Each lock is held for as long as a value is copied.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pooler_protocol::auth::{Password, ScramKeys, Secret};

/// What proves to a server who the pooler is.
#[derive(Default)]
pub struct Credentials {
    /// From the configuration: the first one, and one that may be right instead, while it is being changed.
    secrets: Vec<Secret>,
    /// What took their place since: looked up, where the configuration has none, or read again.
    later: Mutex<Option<Vec<Secret>>>,
    /// Reads the secrets again from where they came from.
    reread: Option<Reread>,
    /// That of several which a server took last: it is tried first.
    worked: Mutex<Option<Secret>>,
    /// From the last client that said its password in the clear, and was right.
    said: Mutex<Option<Password>>,
    /// From the last client that proved itself by SCRAM, or derived from the secret: deriving takes
    /// milliseconds of a core, so it is done once and not for each connection.
    keys: Mutex<Option<ScramKeys>>,
}

/// Where secrets are read again.
pub struct Reread {
    /// Reads them; none, if nothing of use is there, which it has said. Blocking.
    pub read: Box<dyn Fn() -> Vec<Secret> + Send + Sync>,
    /// Whether every login does, or only one that a server has refused.
    pub for_each_login: bool,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// `secret` as the configuration has it.
    #[must_use]
    pub fn new(secret: Option<Secret>) -> Self {
        Self {
            secrets: secret.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The same, with another that may be right instead.
    #[must_use]
    pub fn or(mut self, second: Option<Secret>) -> Self {
        self.secrets.extend(second);
        self
    }

    /// The same, whose secrets can be read again.
    #[must_use]
    pub fn with_reread(mut self, reread: Option<Reread>) -> Self {
        self.reread = reread;
        self
    }

    /// Notes what was looked up of the user; whether that is news.
    pub fn learn_from_lookup(&self, found: &Secret) -> bool {
        self.replace(vec![found.clone()])
    }

    /// Takes these from now on; whether they are others.
    fn replace(&self, fresh: Vec<Secret>) -> bool {
        let known = self.known();
        let same =
            known.len() == fresh.len() && known.iter().zip(&fresh).all(|(a, b)| a.is_same(b));
        let news = !same && !fresh.is_empty();
        if news {
            *lock(&self.later) = Some(fresh);
        }
        news
    }

    /// Reads the secrets again; whether they are others than before. Dropped midway, nothing has changed.
    pub(super) async fn renew(self: &Arc<Self>) -> bool {
        if self.reread.is_none() {
            return false;
        }
        let this = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            this.reread.as_ref().map_or(Vec::new(), |r| (r.read)())
        });
        self.replace(read.await.unwrap_or_default())
    }

    /// The same before a login, where that is worth it.
    pub(super) async fn refresh(self: &Arc<Self>) -> bool {
        self.reread.as_ref().is_some_and(|r| r.for_each_login) && self.renew().await
    }

    /// From the configuration, unless something took its place.
    fn known(&self) -> Vec<Secret> {
        let later = lock(&self.later).clone();
        later.unwrap_or_else(|| self.secrets.clone())
    }

    /// What to try, the likeliest first. What a client said comes in where there is nothing with which one
    /// can log in by every method.
    pub(super) fn candidates(&self) -> Vec<Secret> {
        let mut all = self.known();
        if !all.iter().any(|secret| matches!(secret, Secret::Plain(_))) {
            let said = lock(&self.said).clone();
            all.splice(..0, said.map(Secret::Plain));
        }
        let worked = lock(&self.worked).clone();
        let at = worked.and_then(|worked| all.iter().position(|secret| secret.is_same(&worked)));
        if let Some(at) = at {
            all.swap(0, at);
        }
        all
    }

    /// Notes which secret a server took.
    pub(super) fn note_success(&self, secret: Option<Secret>) {
        *lock(&self.worked) = secret;
    }

    /// Notes the password that a client said in the clear and that was right.
    pub fn learn_password(&self, password: &Password) {
        *lock(&self.said) = Some(password.clone());
    }

    /// Notes the keys of a client's SCRAM login: enough to log in as this user where the server has
    /// the same verifier. With a plain password the keys are derived for the server's own salt, and
    /// those of a client would only take their place.
    pub fn learn_from_client(&self, keys: &ScramKeys) {
        let plain = |secret: &Secret| matches!(secret, Secret::Plain(_));
        if !self.candidates().iter().any(plain) {
            self.learn(keys.clone());
        }
    }

    /// Notes keys that a server has accepted.
    pub(super) fn learn(&self, keys: ScramKeys) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys);
    }

    /// What `old` has learnt, unless the secret has changed since: keys of an old password must not
    /// outlive it.
    pub fn inherit(&self, old: &Self) {
        let pairs = || self.secrets.iter().zip(&old.secrets);
        let same = self.secrets.len() == old.secrets.len() && pairs().all(|(a, b)| a.is_same(b));
        if let Some(keys) = old.learnt().filter(|_| same) {
            self.learn(keys);
        }
        if same && let Some(said) = &*lock(&old.said) {
            self.learn_password(said);
        }
        if same && let Some(later) = &*lock(&old.later) {
            let _news = self.replace(later.clone());
        }
    }

    fn learnt(&self) -> Option<ScramKeys> {
        self.keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn known_keys(&self, salt: &[u8], iterations: u32) -> Option<ScramKeys> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.clone().filter(|k| k.matches(salt, iterations))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
