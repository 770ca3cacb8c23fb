//! Logging in to PostgreSQL: from an address to a [`Server`].
//!
//! ```text
//! connect -> startup packet -> authentication -> ParameterStatus... BackendKeyData ReadyForQuery
//! ```
//! Everything that the other side says is bounded: messages of at most 64 kB, 256 kB in all. The
//! caller sets the deadline; dropped midway, the connection is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pooler_protocol::auth::{
    self, AuthRequest, ChannelBinding, Mechanism, ScramChallenge, ScramClient, ScramKeys, Secret,
    ServerProven,
};
use pooler_protocol::backend::{ErrorView, read_backend_key_data, read_parameter_status, tag};
use pooler_protocol::frame::{HEADER_LEN, Header};
use pooler_protocol::ledger::Ledger;
use pooler_protocol::prepared::ServerStatements;
use pooler_protocol::settings::Settings;
use pooler_protocol::startup;

pub use super::credentials::{Credentials, Reread};
use super::{CancelFlight, Identity, Pass, Replay, Running, Server, Welcome};
use crate::buffer::{Carry, Outbox};
use crate::error::LoginError;
use crate::net::{Address, Liveness, Stream};
use crate::tls::{Connector, OpenError, Opened, Way};

const MESSAGE_LEN_MAX: usize = 64 * 1024;
const LOGIN_LEN_MAX: usize = 256 * 1024;

/// Where to log in, and as whom.
#[derive(Debug)]
pub struct Target<'a> {
    /// Where.
    pub address: Address,
    /// Database.
    pub database: &'a str,
    /// User.
    pub user: &'a str,
    /// The proof.
    pub credentials: &'a Arc<Credentials>,
    /// Further startup parameters (`replication`, say).
    pub parameters: &'a [(String, String)],
    /// Socket options.
    pub liveness: Liveness,
    /// The empty set of the process's interner.
    pub no_settings: Arc<Settings>,
    /// How to encrypt the connection.
    pub tls: Arc<Connector>,
}

/// How long the parts of a login took.
#[derive(Debug, Clone, Copy)]
pub struct LoginTimes {
    /// To connect.
    pub connect: Duration,
    /// From then on to ReadyForQuery.
    pub login: Duration,
}

/// Logs in. Secrets that are kept outside of the configuration are read again before; if a server refuses all
/// of them they are read once more, and tried again if they are others by now: while a password is changed,
/// the old and the new one both get in.
///
/// # Errors
/// [`LoginError`]: which says whether to try again.
pub async fn login(target: &Target<'_>) -> Result<(Server, LoginTimes), LoginError> {
    if target.credentials.refresh().await {
        tracing::info!(user = %target.user, "the password was read again: it has changed");
    }
    let tried = target.credentials.candidates();
    match login_with_each(target, &tried).await {
        Err(why) if why.is_about_secret() => {
            // A login beside this one may have read them first: what counts is what was not tried yet.
            target.credentials.renew().await;
            let mut fresh = target.credentials.candidates();
            fresh.retain(|secret| !tried.iter().any(|t| t.is_same(secret)));
            if fresh.is_empty() {
                return Err(why);
            }
            tracing::info!(user = %target.user, "the password was read again: {why}");
            login_with_each(target, &fresh).await
        }
        done => done,
    }
}

/// With one secret after the other, until one is taken.
async fn login_with_each(
    target: &Target<'_>,
    secrets: &[Secret],
) -> Result<(Server, LoginTimes), LoginError> {
    let mut left = secrets.iter();
    let mut secret = left.next();
    loop {
        let result = login_once(target, secret).await;
        match (&result, left.next()) {
            (Err(why), Some(next)) if why.is_about_secret() => secret = Some(next),
            (Ok(_), _) => {
                target.credentials.note_success(secret.cloned());
                return result;
            }
            (Err(_), _) => return result,
        }
    }
}

async fn login_once(
    target: &Target<'_>,
    secret: Option<&Secret>,
) -> Result<(Server, LoginTimes), LoginError> {
    let way = target.tls.first_way(&target.address);
    match login_by(way, target, secret).await {
        Err(why) => match target.tls.second_way(way, &why, &target.address) {
            Some(way) => login_by(way, target, secret).await,
            None => Err(why),
        },
        done => done,
    }
}

async fn login_by(
    way: Way,
    target: &Target<'_>,
    secret: Option<&Secret>,
) -> Result<(Server, LoginTimes), LoginError> {
    let host = target.address.to_string();
    let began = Instant::now();
    let opened = target.tls.open(way, &target.address, target.liveness).await;
    let Opened {
        stream,
        connected,
        binding,
    } = opened.map_err(|e| match e {
        OpenError::Io(e) => LoginError::Unreachable {
            host: host.clone(),
            source: Arc::new(e),
        },
        OpenError::Tls(why) => LoginError::Tls {
            host: host.clone(),
            why,
        },
    })?;
    let mut talk = Talk {
        stream,
        binding,
        host,
        received: Vec::new(),
        total: 0,
        welcome: Welcome::default(),
    };
    talk.send_startup(target).await?;
    talk.authenticate(target, secret).await?;
    let (process_id, cancel_key) = talk.settle_in().await?;
    let times = LoginTimes {
        connect: connected - began,
        login: connected.elapsed(),
    };
    Ok((talk.finish(target, began, process_id, cancel_key), times))
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A login under way.
struct Talk {
    stream: Stream,
    binding: ChannelBinding,
    host: String,
    received: Vec<u8>,
    total: usize,
    welcome: Welcome,
}

impl Talk {
    async fn send_startup(&mut self, target: &Target<'_>) -> Result<(), LoginError> {
        let mut out = BytesMut::new();
        let own = [("user", target.user), ("database", target.database)];
        let more = target.parameters.iter();
        let parameters = own
            .into_iter()
            .chain(more.map(|(n, v)| (n.as_str(), v.as_str())));
        startup::encode_startup(0, parameters, &mut out).map_err(|e| self.protocol(e))?;
        self.send(&out).await
    }

    async fn authenticate(
        &mut self,
        target: &Target<'_>,
        secret: Option<&Secret>,
    ) -> Result<(), LoginError> {
        let mut proven: Option<ServerProven> = None;
        let mut exchanged = false;
        loop {
            let (tag, body) = self.next().await?;
            if tag != tag::AUTHENTICATION {
                return Err(
                    self.protocol(format!("{:?} instead of Authentication", char::from(tag)))
                );
            }
            let request = auth::parse_request(&body).map_err(|e| self.protocol(e))?;
            match request {
                // After a SCRAM exchange only a server that has proved itself may say so.
                AuthRequest::Ok if exchanged && proven.is_none() => {
                    return Err(self.protocol("AuthenticationOk without the server's proof"));
                }
                // An exchange that was not bound has ended in an error by now.
                AuthRequest::Ok if target.tls.must_bind() && proven.is_none() => {
                    return Err(self.not_bound("asks for no proof"));
                }
                AuthRequest::Ok => return Ok(()),
                // It must not even see a password.
                AuthRequest::CleartextPassword if target.tls.must_bind() => {
                    return Err(self.not_bound("asks for a cleartext password"));
                }
                AuthRequest::Md5Password { .. } if target.tls.must_bind() => {
                    return Err(self.not_bound("asks for an md5 password"));
                }
                AuthRequest::CleartextPassword => {
                    let Some(Secret::Plain(password)) = secret else {
                        return Err(self.no_credentials("a cleartext password", "plain password"));
                    };
                    self.send_password(password.as_bytes()).await?;
                }
                AuthRequest::Md5Password { salt } => {
                    let answer = secret.and_then(|s| s.md5_response(target.user, salt));
                    let Some(answer) = answer else {
                        return Err(
                            self.no_credentials("an md5 password", "plain password or md5 hash")
                        );
                    };
                    self.send_password(answer.as_bytes()).await?;
                }
                AuthRequest::Sasl { mechanisms } => {
                    exchanged = true;
                    proven = Some(self.authenticate_scram(target, secret, &mechanisms).await?);
                }
                AuthRequest::SaslContinue(_) | AuthRequest::SaslFinal(_) => {
                    return Err(self.protocol("a SASL message outside of an exchange"));
                }
                AuthRequest::Unsupported { name, .. } => {
                    return Err(self.no_credentials(name, "support"));
                }
            }
        }
    }

    async fn authenticate_scram(
        &mut self,
        target: &Target<'_>,
        secret: Option<&Secret>,
        offered: &[&str],
    ) -> Result<ServerProven, LoginError> {
        let nonce: [u8; 18] = rand::random();
        let client = ScramClient::new(offered, self.binding.clone(), &nonce)
            .map_err(|e| self.protocol(e))?;
        if target.tls.must_bind() && client.mechanism() != Mechanism::ScramSha256Plus {
            return Err(self.not_bound(match self.binding {
                ChannelBinding::Unavailable => "shows no certificate that can be bound to",
                ChannelBinding::TlsServerEndPoint(_) => "offers no SCRAM-SHA-256-PLUS",
            }));
        }
        let mut out = BytesMut::new();
        auth::encode_sasl_initial_response(client.mechanism(), client.message(), &mut out);
        self.send(&out).await?;

        let body = self.next_authentication().await?;
        let Ok(AuthRequest::SaslContinue(first)) = auth::parse_request(&body) else {
            return Err(self.protocol("no SASLContinue in a SCRAM exchange"));
        };
        let challenge = client.server_first(first).map_err(|e| self.protocol(e))?;
        let keys = self.keys_for(target, secret, &challenge).await?;
        let answered = challenge
            .client_final(&keys)
            .map_err(|e| self.protocol(e))?;
        out.clear();
        auth::encode_sasl_response(answered.message(), &mut out);
        self.send(&out).await?;

        let body = self.next_authentication().await?;
        let Ok(AuthRequest::SaslFinal(last)) = auth::parse_request(&body) else {
            return Err(self.protocol("no SASLFinal in a SCRAM exchange"));
        };
        // Mutual: a server that cannot prove that it knows the password is not ours.
        let proven = answered.server_final(last).map_err(|e| self.protocol(e))?;
        target.credentials.learn(keys);
        Ok(proven)
    }

    async fn keys_for(
        &self,
        target: &Target<'_>,
        secret: Option<&Secret>,
        challenge: &ScramChallenge,
    ) -> Result<ScramKeys, LoginError> {
        let (salt, iterations) = (challenge.salt().to_vec(), challenge.iterations());
        if let Some(keys) = target.credentials.known_keys(&salt, iterations) {
            return Ok(keys);
        }
        let Some(Secret::Plain(password)) = secret.cloned() else {
            return Err(self.no_credentials(
                "SCRAM-SHA-256",
                "plain password (or the same verifier as the server, and a client that logged in \
                 with it)",
            ));
        };
        // Milliseconds of computing do not belong on a worker (trap 59).
        let derive = move || auth::derive(password.as_bytes(), &salt, iterations);
        tokio::task::spawn_blocking(derive)
            .await
            .map_err(|e| self.protocol(e))
    }

    /// Everything between AuthenticationOk and ReadyForQuery.
    async fn settle_in(&mut self) -> Result<(i32, Box<[u8]>), LoginError> {
        let (mut process_id, mut key) = (0, Box::default());
        loop {
            let (tag, body) = self.next().await?;
            match tag {
                tag::PARAMETER_STATUS => {
                    let Some((name, value)) = read_parameter_status(&body) else {
                        return Err(self.protocol("malformed ParameterStatus"));
                    };
                    self.welcome.put(name, value);
                }
                tag::BACKEND_KEY_DATA => {
                    let Some((pid, secret)) = read_backend_key_data(&body) else {
                        return Err(self.protocol("malformed BackendKeyData"));
                    };
                    (process_id, key) = (pid, secret.into());
                }
                tag::READY_FOR_QUERY if body == *b"I" => return Ok((process_id, key)),
                _ => {
                    return Err(
                        self.protocol(format!("{:?} after AuthenticationOk", char::from(tag)))
                    );
                }
            }
        }
    }

    fn finish(
        self,
        target: &Target<'_>,
        began: Instant,
        process_id: i32,
        cancel_key: Box<[u8]>,
    ) -> Server {
        let mut carry = Carry::default();
        carry.replace(&self.received);
        let encrypted = matches!(self.stream, Stream::Tls(_));
        Server {
            stream: self.stream,
            ledger: Ledger::new(),
            journal: pooler_protocol::prepared::Journal::default(),
            statements: ServerStatements::default(),
            settings: Arc::clone(&target.no_settings),
            welcome: Arc::new(self.welcome),
            carry,
            pass: Pass::NONE,
            outbox: Outbox::default(),
            replay: Replay::default(),
            dirty: false,
            suspect: false,
            defined: false,
            cut: false,
            said_goodbye: false,
            identity: Arc::new(Identity {
                id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
                host: self.host,
                address: target.address.clone(),
                tls: encrypted.then(|| Arc::clone(&target.tls)),
                liveness: target.liveness,
                process_id,
                cancel_key,
            }),
            cancels: Arc::new(CancelFlight::default()),
            conceived: began,
            born: Instant::now(),
            running: Running::default(),
            watch: crate::observe::Watch::default(),
            used: false,
            born_as: None,
        }
    }

    async fn next_authentication(&mut self) -> Result<Vec<u8>, LoginError> {
        match self.next().await? {
            (tag::AUTHENTICATION, body) => Ok(body),
            (tag, _) => Err(self.protocol(format!("{:?} in a SCRAM exchange", char::from(tag)))),
        }
    }

    /// The next message that is not a notice; an ErrorResponse is an error.
    async fn next(&mut self) -> Result<(u8, Vec<u8>), LoginError> {
        loop {
            while let Some((tag, body)) = self.split_message()? {
                match tag {
                    tag::ERROR_RESPONSE => {
                        return Err(LoginError::refused(&self.host, &ErrorView::new(&body)));
                    }
                    tag::NOTICE_RESPONSE => {
                        let text = ErrorView::new(&body).message();
                        tracing::warn!(host = %self.host, "notice at login: {text}");
                        self.welcome.note(&body);
                    }
                    _ => return Ok((tag, body)),
                }
            }
            let mut buffer = [0; 4096];
            let n = self
                .stream
                .read(&mut buffer)
                .await
                .map_err(|e| self.broken(e))?;
            if n == 0 {
                return Err(self.broken(std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.total += n;
            if self.total > LOGIN_LEN_MAX {
                return Err(self.protocol(format!("more than {LOGIN_LEN_MAX} bytes")));
            }
            self.received.extend_from_slice(&buffer[..n]);
        }
    }

    fn split_message(&mut self) -> Result<Option<(u8, Vec<u8>)>, LoginError> {
        let Some(header) = Header::read(&self.received).map_err(|e| self.protocol(e))? else {
            return Ok(None);
        };
        if header.len > MESSAGE_LEN_MAX {
            return Err(self.protocol(format!(
                "a message {:?} of {} bytes",
                char::from(header.tag),
                header.len
            )));
        }
        if self.received.len() < header.len {
            return Ok(None);
        }
        let rest = self.received.split_off(header.len);
        let message = std::mem::replace(&mut self.received, rest);
        Ok(Some((header.tag, message[HEADER_LEN..].to_vec())))
    }

    async fn send_password(&mut self, password: &[u8]) -> Result<(), LoginError> {
        let mut out = BytesMut::new();
        auth::encode_password_message(password, &mut out).map_err(|e| self.protocol(e))?;
        self.send(&out).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), LoginError> {
        match self.stream.write_all(bytes).await {
            Ok(()) => Ok(()),
            Err(e) => Err(self.broken(e)),
        }
    }

    /// A connection that breaks during login is a server that is away, or on its way down or up.
    fn broken(&self, e: std::io::Error) -> LoginError {
        LoginError::Unreachable {
            host: self.host.clone(),
            source: Arc::new(e),
        }
    }

    fn protocol(&self, what: impl std::fmt::Display) -> LoginError {
        LoginError::Protocol {
            host: self.host.clone(),
            what: what.to_string(),
        }
    }

    fn not_bound(&self, how: &'static str) -> LoginError {
        LoginError::NotBound {
            host: self.host.clone(),
            how,
        }
    }

    fn no_credentials(&self, asked: &'static str, missing: &'static str) -> LoginError {
        LoginError::NoCredentials {
            host: self.host.clone(),
            asked,
            missing,
        }
    }
}
