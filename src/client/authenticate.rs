//! From the first byte of a connection to a client that has proved who it is.
//!
//! ```text
//! [SSLRequest [TLS] | GSSENCRequest | TLS]* -> StartupMessage -> (password | SASL exchange) -> Authenticated
//!                               -> CancelRequest  -> (done)
//! ```
//! Nothing that a client says here makes the pooler allocate by a length that it announces, and
//! nothing is sent to a server. The deadline is absolute: bytes that trickle do not move it.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pooler_protocol::auth::{
    self, PASSWORD_BYTES_MAX, Password, SASL_BYTES_MAX, ScramKeys, ScramServer,
};
use pooler_protocol::hba::{ClientCert, Method};
use pooler_protocol::startup::{self, Opening, Startup, StartupError, Step};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::account::{Account, derive};
use super::admit::Admission;
use super::talk::Talk;
use super::{Errand, Hub, gate, outside, startup_settings};
use crate::admin::{Visitor, is_console};
use crate::config::PoolSettings;
use crate::error::{ClientLoginError, Refusal, scram_refusal};
use crate::lookup::Found;
use crate::net::{Peer, Stream};
use crate::pool::Pool;
use crate::pool::limit::Permit;
use crate::registry::Current;
use crate::timer;

/// How long a cancel request may take before its connection is closed.
const CANCEL_MAX: Duration = Duration::from_secs(30);

/// Proof that a client is who it says. Only [`authenticate`] makes one, and only with one can a
/// pool be had.
#[derive(Debug)]
pub struct Authenticated {
    user: String,
    /// From a SCRAM exchange: enough to log in to a server that has the same verifier.
    keys: Option<ScramKeys>,
    /// What was looked up of the user.
    found: Option<Arc<Found>>,
    /// Said in the clear, and right.
    password: Option<Password>,
}

impl Authenticated {
    /// Nobody asked for a proof.
    fn trusted(user: String) -> Self {
        Self {
            user,
            keys: None,
            found: None,
            password: None,
        }
    }

    /// Notes what the exchange gave to log in with elsewhere, if the pool is of the same user.
    fn teach(&self, pool: &Pool) {
        if self.user != pool.key.user {
            return;
        }
        let credentials = &pool.plan().recipe.credentials;
        if let Some(found) = &self.found {
            let _news = credentials.learn_from_lookup(found.secret());
        }
        if let Some(keys) = &self.keys {
            credentials.learn_from_client(keys);
        }
        if let Some(password) = &self.password {
            credentials.learn_password(password);
        }
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }
}

/// Lets a client prove who it is, within `limit`.
///
/// # Errors
/// [`ClientLoginError`]; a refusal has been sent already. A cancel request ends as one that has
/// gone. Dropped midway, the connection is closed.
pub(super) async fn authenticate(
    hub: &Rc<Hub>,
    stream: Stream,
    peer: Peer,
    limit: Option<Duration>,
) -> Result<Admitted, ClientLoginError> {
    let mut talk = Talk::new(stream, peer, Rc::clone(&hub.scratch));
    talk.read_early();
    let timed = {
        // Pinned where it is made: moved into place it would be copied twice.
        let conversation = pin!(async {
            let proven = converse(hub, &mut talk).await?;
            talk.flush().await?;
            Ok(proven)
        });
        hub.deadlines.within(limit, conversation).await
    };
    let result = timed.unwrap_or_else(|_elapsed| {
        let refusal = match hub.draining.get() {
            Some(_) => Refusal::draining(),
            None => Refusal::login_timeout(limit.unwrap_or_default()),
        };
        Err(refusal.into())
    });
    match result {
        Ok(Proven::Client(startup, proof, pool, permits)) => {
            let admission = Admission::new(talk, startup, proof, pool, permits);
            Ok(Admitted::Session(Box::new(admission)))
        }
        Ok(Proven::Operator(startup, proof)) => {
            let (stream, _, received, out) = talk.into_parts();
            let user = proof.user;
            let mut settings = startup.settings();
            let name = settings.find(|(name, _)| *name == "application_name");
            Ok(Admitted::Console(Visitor {
                stream,
                received,
                out,
                user,
                application_name: name.map_or(String::new(), |(_, value)| value.to_owned()),
            }))
        }
        Err(ClientLoginError::Refused(refusal)) => {
            talk.refuse(&refusal);
            Err(ClientLoginError::Refused(refusal))
        }
        Err(gone) => Err(gone),
    }
}

/// Where a client goes that has proved who it is.
#[derive(Debug)]
pub(super) enum Admitted {
    /// To a session.
    Session(Box<Admission>),
    /// To the console.
    Console(Visitor),
}

/// What a conversation came to.
enum Proven {
    Client(Startup, Authenticated, Arc<Pool>, Vec<Permit>),
    Operator(Startup, Authenticated),
}

async fn converse(hub: &Rc<Hub>, talk: &mut Talk) -> Result<Proven, ClientLoginError> {
    let startup = read_startup(hub, talk).await?;
    let is_console = is_console(startup.database());
    if hub.draining.get().is_some() && !is_console {
        return Err(Refusal::draining().into());
    }
    if startup.needs_negotiation() {
        startup::encode_negotiate_protocol_version(
            startup.accepted_minor(),
            startup.unsupported_options(),
            &mut talk.out,
        );
    }
    let current = hub.registry.current();
    if is_console {
        // Nothing is taken from the clients: who is to look after a full pooler must get in.
        let proof = prove_in_turn(hub, &current, talk, &startup).await?;
        if !current.config.is_stats(proof.user()) {
            return Err(Refusal::no_operator(proof.user()).into());
        }
        auth::encode_authentication_ok(&mut talk.out);
        return Ok(Proven::Operator(startup, proof));
    }
    let mut permits = Vec::new();
    match hub.registry.clients.try_take() {
        Some(permit) => permits.push(permit),
        None if current.config.is_admin(startup.user()) => {}
        None => {
            let max = hub.registry.clients.max();
            return Err(Refusal::too_many_clients("max_client_conn", max).into());
        }
    }
    let proof = prove_in_turn(hub, &current, talk, &startup).await?;
    auth::encode_authentication_ok(&mut talk.out);
    if hub.registry.is_disabled(startup.database()) {
        return Err(Refusal::disabled(startup.database()).into());
    }
    let parameters = |pool: &PoolSettings| startup_settings::verbatim(&startup, &talk.peer(), pool);
    let pool = hub
        .registry
        .pool(startup.database(), proof.user(), parameters)?;
    for (name, limit) in hub.registry.client_limits(&pool, proof.user()) {
        let Some(permit) = limit.try_take() else {
            return Err(Refusal::too_many_clients(name, limit.max()).into());
        };
        permits.push(permit);
    }
    proof.teach(&pool);
    Ok(Proven::Client(startup, proof, pool, permits))
}

/// Reads packets until the one that starts a session.
async fn read_startup(hub: &Rc<Hub>, talk: &mut Talk) -> Result<Startup, ClientLoginError> {
    let tls = hub.registry.current().tls.client.clone();
    // A Unix socket is never encrypted, as PostgreSQL has it.
    let tls = tls.filter(|_| talk.is_open());
    let mut opening = Opening::new(tls.is_some());
    loop {
        let direct = match opening.next(talk.received()).map_err(startup_error)? {
            Step::More => {
                talk.read_more().await?;
                continue;
            }
            Step::Refuse { used, answer } => {
                talk.consume(used);
                talk.out.extend_from_slice(&[answer]);
                talk.send().await?;
                continue;
            }
            Step::BeginTls { answer } => {
                talk.consume(talk.received().len());
                talk.out.extend_from_slice(&[answer]);
                talk.send().await?;
                false
            }
            Step::BeginTlsDirectly => true,
            Step::Cancel { process_id, key } => {
                cancel(hub, process_id, key).await;
                return Err(ClientLoginError::Gone("it was a cancel request".to_owned()));
            }
            Step::Session { used, startup } => {
                if talk.is_open() && tls.as_ref().is_some_and(|t| t.is_required()) {
                    return Err(Refusal::tls_required().into());
                }
                talk.consume(used);
                return Ok(startup);
            }
        };
        let acceptor = tls
            .as_ref()
            .expect("BUG: TLS begins only where it is offered");
        let encrypted = talk.encrypt(acceptor, direct).await;
        hub.registry.logins.note_tls(encrypted)?;
    }
}

fn startup_error(e: StartupError) -> ClientLoginError {
    if e.is_silent() {
        return ClientLoginError::Gone(e.to_string());
    }
    Refusal::fatal(e.sqlstate(), e.to_string())
        .detail(e.detail().unwrap_or_default())
        .into()
}

/// Passes a cancel request to the session that it names. The connection is held until the cancel
/// has landed: that is how a client knows that the next query cannot be hit.
async fn cancel(hub: &Rc<Hub>, process_id: i32, key: &[u8]) {
    hub.desk.cancel(process_id, key);
    // A client of a pool by session knows its server's process, which does not tell the worker.
    let asked: Vec<_> = hub
        .couriers
        .iter()
        .filter_map(|worker| {
            let (done, landed) = oneshot::channel();
            let errand = Errand::Cancel {
                process_id,
                key: key.into(),
                done,
            };
            worker.send(errand).ok().map(|()| landed)
        })
        .collect();
    // Nothing to cancel, a wrong key and a cancel that was given up all look the same.
    let _ended = timer::timeout(CANCEL_MAX, async {
        for landed in asked {
            let _landed_or_not = landed.await;
        }
    })
    .await;
}

/// As [`prove`], after a wait if too many such logins have failed; at once where nothing is to be proved.
async fn prove_in_turn(
    hub: &Rc<Hub>,
    current: &Arc<Current>,
    talk: &mut Talk,
    startup: &Startup,
) -> Result<Authenticated, ClientLoginError> {
    let (user, address) = (startup.user(), talk.peer().ip());
    if gate::is_open_to_all(current.config.auth.kind) {
        // Nothing is asked that could be answered wrong.
        return Ok(Authenticated::trusted(user.to_owned()));
    }
    let attempts = &hub.registry.attempts;
    let free = current.config.auth.max_login_failures.count();
    match attempts.begin(address, user, free, Instant::now()) {
        Some(Duration::ZERO) => {}
        // A timer of its own: only who failed often waits for one.
        Some(wait) => timer::sleep(wait).await,
        None => return Err(Refusal::too_many_failures(user).into()),
    }
    let proven = prove(hub, current, talk, startup).await;
    match &proven {
        Ok(_) => attempts.passed(address, user),
        Err(ClientLoginError::Refused(refusal)) if refusal.sqlstate.starts_with("28") => {
            attempts.failed(address, user, Instant::now());
        }
        Err(_) => {}
    }
    proven
}

async fn prove(
    hub: &Rc<Hub>,
    current: &Arc<Current>,
    talk: &mut Talk,
    startup: &Startup,
) -> Result<Authenticated, ClientLoginError> {
    let user = startup.user().to_owned();
    let demand = gate::demand(current, talk.origin(), startup).await?;
    if demand.client_cert != ClientCert::Any && talk.certificate().is_none() {
        return Err(Refusal::certificate_required().into());
    }
    let proof = match demand.method {
        Method::Trust | Method::Cert => Authenticated::trusted(user),
        Method::Peer => {
            demand.check_peer(current, talk.peer_uid(), startup).await?;
            Authenticated::trusted(user)
        }
        Method::Ldap | Method::Pam => {
            let password = outside::prove(hub, current, talk, &demand, &user).await?;
            Authenticated {
                password: Some(password),
                ..Authenticated::trusted(user)
            }
        }
        // Whoever has decided so has said so.
        Method::Reject => return Err(Refusal::wrong_password(&user).into()),
        Method::Password | Method::Md5 | Method::ScramSha256 => {
            let account = Account::find(current, &user, startup.database()).await?;
            prove_by_secret(hub, current, talk, demand.method, account).await?
        }
    };
    if demand.client_cert != ClientCert::Any {
        let certificate = talk.certificate();
        demand
            .check_certificate(current, certificate, startup)
            .await?;
    }
    Ok(proof)
}

async fn prove_by_secret(
    hub: &Rc<Hub>,
    current: &Arc<Current>,
    talk: &mut Talk,
    method: Method,
    mut account: Account,
) -> Result<Authenticated, ClientLoginError> {
    let (mut keys, mut password) = (None, None);
    match method {
        Method::Password => password = prove_password(hub, current, talk, &mut account).await?,
        Method::Md5 if !account.needs_scram() => prove_md5(hub, talk, &mut account).await?,
        // A verifier can be proved by SCRAM alone, also where md5 is configured.
        _ => keys = Some(prove_scram(hub, current, talk, &account).await?),
    }
    Ok(Authenticated {
        user: account.name.clone(),
        keys,
        found: account.found(),
        password,
    })
}

async fn prove_password(
    hub: &Hub,
    current: &Current,
    talk: &mut Talk,
    account: &mut Account,
) -> Result<Option<Password>, ClientLoginError> {
    auth::encode_cleartext_password(&mut talk.out);
    let body = Zeroizing::new(talk.next_password_message(PASSWORD_BYTES_MAX).await?);
    let said = auth::parse_password(&body)?;
    loop {
        let (secret, exists) = account.secret_or_mock(hub);
        let (name, password) = (account.name.clone(), Zeroizing::new(said.to_vec()));
        let second = account.second().cloned();
        let padding = account.padding(hub, current, &secret);
        let check = derive(move || {
            let _never = padding.is_some_and(|mock| mock.check_password(&name, &password));
            let second = second.is_some_and(|s| s.check_password(&name, &password));
            secret.check_password(&name, &password) || second
        });
        let right = check.await.unwrap_or(false);
        if right && exists {
            return Ok(std::str::from_utf8(said).ok().map(Password::new));
        }
        if !account.renew().await {
            return Err(Refusal::wrong_password(&account.name).into());
        }
    }
}

async fn prove_md5(
    hub: &Hub,
    talk: &mut Talk,
    account: &mut Account,
) -> Result<(), ClientLoginError> {
    let salt: [u8; 4] = rand::random();
    auth::encode_md5_password(salt, &mut talk.out);
    let body = talk.next_password_message(PASSWORD_BYTES_MAX).await?;
    let response = auth::parse_password(&body)?;
    loop {
        let (secret, exists) = account.secret_or_mock(hub);
        let second = account.second();
        let second = second.is_some_and(|s| s.check_md5(&account.name, salt, response));
        if (secret.check_md5(&account.name, salt, response) || second) && exists {
            return Ok(());
        }
        if !account.renew().await {
            return Err(Refusal::wrong_password(&account.name).into());
        }
    }
}

async fn prove_scram(
    hub: &Hub,
    current: &Arc<Current>,
    talk: &mut Talk,
    account: &Account,
) -> Result<ScramKeys, ClientLoginError> {
    let user = &*account.name;
    let server = match account.verifier(hub, current).await {
        Some(verifier) => {
            let second = account.second_verifier(current, &verifier).await;
            ScramServer::new(verifier, talk.binding().clone()).or(second)
        }
        None => ScramServer::mock(&hub.registry.mock_secret, user, talk.binding().clone()),
    };
    auth::encode_sasl(server.mechanisms(), &mut talk.out);
    let body = talk.next_password_message(SASL_BYTES_MAX).await?;
    let first = auth::parse_sasl_initial_response(&body)?;
    let nonce: [u8; auth::NONCE_BYTES] = rand::random();
    let challenged = server
        .client_first(first.mechanism, first.data, &nonce)
        .map_err(|e| scram_refusal(user, &e))?;
    auth::encode_sasl_continue(challenged.message(), &mut talk.out);
    let body = talk.next_password_message(SASL_BYTES_MAX).await?;
    let last = auth::parse_sasl_response(&body)?;
    let accepted = challenged.client_final(last).map_err(|e| {
        account.doubt();
        scram_refusal(user, &e)
    })?;
    auth::encode_sasl_final(accepted.message.as_bytes(), &mut talk.out);
    Ok(accepted.keys)
}
