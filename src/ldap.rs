//! Passwords that a directory judges: method `ldap` of `pg_hba.conf`.
//!
//! ```text
//! simple bind:      connect [StartTLS] -> bind as prefix NAME suffix
//! search and bind:  connect [StartTLS] -> bind as ldapbinddn -> search -> bind as the only entry found
//! ```
//! What is asked runs beside the workers, so many at a time, each within `auth.ldap_timeout`. A name is
//! always data: it is escaped for distinguished names (RFC 4514) and filters (RFC 4515). An empty
//! password is never sent: directories take a bind with one for one as nobody, and let it in (RFC 4513,
//! 5.1.2). A user whom the search does not find costs the same steps as one with a wrong password.
//!
//! PostgreSQL's documentation: "LDAP Authentication".

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use ldap3::result::LdapError;
use ldap3::{
    Ldap as Link, LdapConnAsync, LdapConnSettings, LdapResult, Scope, SearchEntry, SearchOptions,
    dn_escape, ldap_escape,
};
use pooler_protocol::hba::{Ldap, LdapEncryption, LdapFilter, LdapScope, LdapWay};
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

/// Logins that ask a directory at a time; the others wait for their turn.
const ASKED_MAX: usize = 32;

static TURNS: Semaphore = Semaphore::const_new(ASKED_MAX);

/// `invalidCredentials`, and what directories say besides of an entry that may not come in with this password:
/// `constraintViolation` and `unwillingToPerform` (it is locked), `noSuchObject` and `invalidDNSyntax` (there is no
/// such entry), `inappropriateAuthentication` (it has no password), `insufficientAccessRights`. RFC 4511, A.
const REFUSED: &[u32] = &[49, 19, 53, 32, 34, 48, 50];

/// What is asked.
#[derive(Debug)]
pub struct Question {
    /// Of whom, and how.
    pub directory: Arc<Ldap>,
    /// Who comes in.
    pub user: String,
    /// With what.
    pub password: Zeroizing<String>,
    /// By what a certificate of the directory is judged, if it shows one.
    pub tls: Option<Arc<ClientConfig>>,
    /// How long all of it may take.
    pub limit: Duration,
}

/// Why a directory said neither yes nor no. No secret is in it.
#[derive(Debug, thiserror::Error)]
pub enum LdapFault {
    /// None of its servers could be reached.
    #[error("cannot connect to {0}")]
    Unreachable(String),
    /// The pooler itself may not ask.
    #[error("{address}: cannot bind as ldapbinddn {dn:?}: {why}")]
    Bind {
        /// Which server.
        address: String,
        /// As whom.
        dn: String,
        /// The directory's words.
        why: String,
    },
    /// It does not answer as it should.
    #[error("{address}: {why}")]
    Failed {
        /// Which server.
        address: String,
        /// Its words, or those of the library.
        why: String,
    },
    /// It does not answer in time.
    #[error("{servers}: no answer within auth.ldap_timeout ({limit:?})")]
    Timeout {
        /// Which servers.
        servers: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The process ends.
    #[error("the pooler is shutting down")]
    Ending,
}

/// Ends a task with the wait for it.
struct Aborting<T>(JoinHandle<T>);

impl<T> Drop for Aborting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether the password is right. Dropped midway, nobody is asked any more.
///
/// # Errors
/// [`LdapFault`], if the directory cannot say.
pub async fn check(question: Question, runtime: &Handle) -> Result<bool, LdapFault> {
    if question.password.is_empty() {
        return Ok(false);
    }
    let mut task = Aborting(runtime.spawn(async move {
        let within = timeout(question.limit, question.ask());
        within.await.unwrap_or_else(|_elapsed| {
            Err(LdapFault::Timeout {
                servers: question.servers(),
                limit: question.limit,
            })
        })
    }));
    (&mut task.0).await.unwrap_or(Err(LdapFault::Ending))
}

impl Question {
    fn servers(&self) -> String {
        let all = &self.directory.servers;
        all.iter()
            .map(|s| self.url(s))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn url(&self, server: &str) -> String {
        let scheme = match self.directory.encryption {
            LdapEncryption::Ldaps => "ldaps",
            LdapEncryption::None | LdapEncryption::StartTls => "ldap",
        };
        let server = match server.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => server.to_owned(),
        };
        match self.directory.port {
            Some(port) => format!("{scheme}://{server}:{port}"),
            None => format!("{scheme}://{server}"),
        }
    }

    async fn ask(&self) -> Result<bool, LdapFault> {
        let Ok(_turn) = TURNS.acquire().await else {
            return Err(LdapFault::Ending);
        };
        let (address, connection, link) = self.connect().await?;
        // Driven here and not in a task of its own: who stops asking closes the connection.
        tokio::select! {
            said = self.judge(&address, link) => said,
            ended = connection.drive() => Err(LdapFault::Failed {
                address: address.clone(),
                why: ended.err().map_or("it closed the connection".to_owned(), |e| said(&e)),
            }),
        }
    }

    /// To the first server that can be reached. One that does not answer leaves the others their share
    /// of the time.
    async fn connect(&self) -> Result<(String, LdapConnAsync, Link), LdapFault> {
        let end = Instant::now() + self.limit;
        let mut why = Vec::new();
        for (at, server) in self.directory.servers.iter().enumerate() {
            let url = self.url(server);
            let left = self.directory.servers.len() - at;
            let share = (end - Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
            let mut settings = LdapConnSettings::new()
                .set_starttls(self.directory.encryption == LdapEncryption::StartTls);
            if let Some(tls) = &self.tls {
                settings = settings.set_config(Arc::clone(tls));
            }
            let connecting = LdapConnAsync::with_settings(settings, &url);
            match timeout_at(Instant::now() + share, connecting).await {
                Ok(Ok((connection, link))) => return Ok((url, connection, link)),
                Ok(Err(e)) => why.push(format!("{url}: {}", said(&e))),
                Err(_elapsed) => why.push(format!("{url}: no answer within {share:?}")),
            }
        }
        Err(LdapFault::Unreachable(why.join("; ")))
    }

    async fn judge(&self, address: &str, mut link: Link) -> Result<bool, LdapFault> {
        let dn = match &self.directory.way {
            LdapWay::Simple { prefix, suffix } => {
                format!("{prefix}{}{suffix}", dn_escape(&*self.user))
            }
            LdapWay::Search {
                base,
                scope,
                bind_dn,
                bind_password,
                filter,
            } => {
                let bound = link.simple_bind(bind_dn, bind_password).await;
                let bound = bound.map_err(|e| failed(address, &said(&e)))?;
                if bound.rc != 0 {
                    return Err(LdapFault::Bind {
                        address: address.to_owned(),
                        dn: bind_dn.clone(),
                        why: words(&bound),
                    });
                }
                let found = self
                    .search(address, &mut link, base, *scope, filter)
                    .await?;
                match found {
                    Some(dn) => dn,
                    None => {
                        // As many steps as for one who is there; nobody has this name.
                        let nobody: u128 = rand::random();
                        let dn = format!("cn=nobody-{nobody:x},{base}");
                        let _refused = link.simple_bind(&dn, &self.password).await;
                        return Ok(false);
                    }
                }
            }
        };
        // Without a name it would be nobody's password that is right.
        if dn.is_empty() {
            return Ok(false);
        }
        let bound = link.simple_bind(&dn, &self.password).await;
        let bound = bound.map_err(|e| failed(address, &said(&e)))?;
        // The other side closes when it has read this; nothing depends on it.
        let _unbound = link.unbind().await;
        match bound.rc {
            0 => Ok(true),
            rc if REFUSED.contains(&rc) => {
                tracing::info!(user = %self.user, "{address} refused {dn:?}: {}", words(&bound));
                Ok(false)
            }
            _ => Err(failed(address, &words(&bound))),
        }
    }

    /// The name of the only entry that fits; nothing if there is none, or more than one.
    async fn search(
        &self,
        address: &str,
        link: &mut Link,
        base: &str,
        scope: LdapScope,
        filter: &LdapFilter,
    ) -> Result<Option<String>, LdapFault> {
        let filter = filter.of(&ldap_escape(&*self.user));
        let scope = match scope {
            LdapScope::Base => Scope::Base,
            LdapScope::One => Scope::OneLevel,
            LdapScope::Subtree => Scope::Subtree,
        };
        let fault = |e: LdapError| failed(address, &format!("search for {filter}: {}", said(&e)));
        link.with_search_options(SearchOptions::new().sizelimit(2));
        // No attribute: its name alone is wanted.
        let mut stream = link
            .streaming_search(base, scope, &filter, vec!["1.1"])
            .await
            .map_err(fault)?;
        let mut found = Vec::new();
        while let Some(entry) = stream.next().await.map_err(fault)? {
            if entry.is_ref() || entry.is_intermediate() {
                continue;
            }
            found.push(SearchEntry::construct(entry).dn);
            if found.len() > 1 {
                break;
            }
        }
        if found.len() > 1 {
            tracing::warn!(user = %self.user, "{address}: more than one entry fits {filter}: nobody gets in");
            return Ok(None);
        }
        let result = stream.finish().await;
        match (result.rc, found.pop()) {
            // sizeLimitExceeded with one entry: there are more that are not shown.
            (0, found) => Ok(found),
            _ => Err(failed(
                address,
                &format!("search for {filter}: {}", words(&result)),
            )),
        }
    }
}

fn failed(address: &str, why: &str) -> LdapFault {
    LdapFault::Failed {
        address: address.to_owned(),
        why: why.to_owned(),
    }
}

/// A result in few words.
fn words(result: &LdapResult) -> String {
    result.to_string()
}

/// What the library says; an answer of the directory in few words.
fn said(error: &LdapError) -> String {
    match error {
        LdapError::LdapResult { result } => words(result),
        error => error.to_string(),
    }
}
