//! TLS toward servers: with libpq's meaning of the modes.
//!
//! ```text
//! disable          plain
//! allow            plain --refused by the server's rules (28000)--> TLS
//! prefer           TLS --the server has none, or it failed, or 28000--> plain
//! require, verify  TLS
//! ```
//! A Unix socket is never encrypted.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::BytesMut;
use pooler_protocol::auth::ChannelBinding;
use pooler_protocol::startup::{SslAnswer, encode_ssl_request, parse_ssl_answer};
use rustls::client::{UnbufferedClientConnection, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use super::certificate::end_point_hash;
use super::handshake::{self, Dear};
use super::verify::ServerCheck;
use super::{ALPN, File, Seal, Source, TlsError};
use crate::config::{Authorities, TlsBinding, TlsMode, TlsNegotiation};
use crate::error::LoginError;
use crate::net::{Address, Liveness, Records, Session, Stream, TlsStream};

/// See the module.
#[derive(Debug)]
pub struct Connector {
    mode: TlsMode,
    direct: bool,
    channel_binding: TlsBinding,
    /// None if nothing is ever encrypted.
    config: Option<Arc<ClientConfig>>,
    seal: Option<Seal>,
    /// Hosts of which it was said that TLS does not work with them.
    complained: Mutex<HashSet<String>>,
}

/// How to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Without TLS.
    Plain,
    /// By TLS, or not at all.
    Tls,
    /// By TLS if the server has it.
    TlsIfOffered,
}

/// A connection to a server that has not been logged in to.
#[derive(Debug)]
pub struct Opened {
    /// The connection.
    pub stream: Stream,
    /// When the socket was connected.
    pub connected: Instant,
    /// What a login can be bound to.
    pub binding: ChannelBinding,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The network, or the host, does not let one through.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The two sides do not agree about TLS.
    #[error("{0}")]
    Tls(String),
}

impl Connector {
    /// One that never uses TLS.
    #[must_use]
    pub fn never() -> Arc<Self> {
        Arc::new(Self {
            mode: TlsMode::Disable,
            direct: false,
            channel_binding: TlsBinding::Prefer,
            config: None,
            seal: None,
            complained: Mutex::default(),
        })
    }

    pub(super) fn build(source: &Source) -> Result<Self, TlsError> {
        let settings = source.settings();
        let config = match settings.mode {
            TlsMode::Disable => None,
            _ => Some(Arc::new(client_config(source)?)),
        };
        Ok(Self {
            mode: settings.mode,
            direct: settings.negotiation == TlsNegotiation::Direct,
            channel_binding: settings.channel_binding,
            config,
            seal: Some(source.seal.clone()),
            complained: Mutex::default(),
        })
    }

    pub(super) fn source(&self) -> Option<&Seal> {
        self.seal.as_ref()
    }

    /// Whether a login that is not bound to the server's certificate is none.
    #[must_use]
    pub fn must_bind(&self) -> bool {
        self.channel_binding == TlsBinding::Require
    }

    /// What to try first.
    #[must_use]
    pub fn first_way(&self, address: &Address) -> Way {
        if matches!(address, Address::Unix(_)) {
            return Way::Plain;
        }
        match self.mode {
            TlsMode::Disable | TlsMode::Allow => Way::Plain,
            TlsMode::Prefer => Way::TlsIfOffered,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => Way::Tls,
        }
    }

    /// What to try after `first` has failed.
    #[must_use]
    pub fn second_way(&self, first: Way, why: &LoginError, address: &Address) -> Option<Way> {
        if matches!(address, Address::Unix(_)) {
            return None;
        }
        let by_rule = matches!(why, LoginError::Refused { sqlstate, .. } if sqlstate == "28000");
        match (self.mode, first) {
            (TlsMode::Allow, Way::Plain) if by_rule => Some(Way::Tls),
            (TlsMode::Prefer, Way::TlsIfOffered) if by_rule => Some(Way::Plain),
            (TlsMode::Prefer, Way::TlsIfOffered) if matches!(why, LoginError::Tls { .. }) => {
                self.complain(address, why);
                Some(Way::Plain)
            }
            _ => None,
        }
    }

    /// Once a host.
    fn complain(&self, address: &Address, why: &LoginError) {
        let complained = self.complained.lock();
        let mut complained = complained.unwrap_or_else(PoisonError::into_inner);
        if complained.insert(address.to_string()) {
            tracing::warn!("{why}; with mode = \"prefer\" it goes on without TLS");
        }
    }

    /// Connects. The caller sets a deadline. Dropped midway, nothing stays open.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        &self,
        way: Way,
        address: &Address,
        liveness: Liveness,
    ) -> Result<Opened, OpenError> {
        let mut stream = address.connect(liveness).await?;
        let connected = Instant::now();
        let plain = |stream| Opened {
            stream,
            connected,
            binding: ChannelBinding::Unavailable,
        };
        let (Some(config), Address::Tcp { host, .. }) = (&self.config, address) else {
            return Ok(plain(stream));
        };
        if way == Way::Plain {
            return Ok(plain(stream));
        }
        if !self.direct && !request(&mut stream).await? {
            return match way {
                Way::TlsIfOffered => Ok(plain(stream)),
                _ => Err(OpenError::Tls("the server does not offer TLS".to_owned())),
            };
        }
        let name = ServerName::try_from(host.clone())
            .map_err(|e| OpenError::Tls(format!("{host}: {e}")))?;
        let session = UnbufferedClientConnection::new(Arc::clone(config), name)
            .map_err(|e| OpenError::Tls(e.to_string()))?;
        let records = Records::new(Session::Client(session));
        let records = handshake::run(&mut stream, records, Vec::new(), Dear::All)
            .await
            .map_err(|e| match e.kind() {
                io::ErrorKind::InvalidData => OpenError::Tls(e.to_string()),
                _ => OpenError::Io(e),
            })?;
        if self.direct && records.alpn() != Some(ALPN) {
            let why = "the server did not choose PostgreSQL's protocol (ALPN)";
            return Err(OpenError::Tls(why.to_owned()));
        }
        let shown = records.peer_certificates().first();
        let shown = shown.filter(|_| self.channel_binding != TlsBinding::Disable);
        let hash = shown.and_then(end_point_hash);
        Ok(Opened {
            stream: Stream::Tls(Box::new(TlsStream::new(stream, records))),
            connected,
            binding: hash.map_or(
                ChannelBinding::Unavailable,
                ChannelBinding::TlsServerEndPoint,
            ),
        })
    }
}

/// Asks for TLS. Returns whether the server is willing.
async fn request(stream: &mut Stream) -> Result<bool, OpenError> {
    let mut request = BytesMut::new();
    encode_ssl_request(&mut request);
    stream.write_all(&request).await?;
    // Room for more than the answer: what came with it was not encrypted (CVE-2021-23222).
    let mut answer = [0; 64];
    let n = stream.read(&mut answer).await?;
    match parse_ssl_answer(&answer[..n]) {
        Ok(Some(answer)) => Ok(answer == SslAnswer::Accepted),
        Ok(None) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        Err(e) => Err(OpenError::Tls(e.to_string())),
    }
}

fn client_config(source: &Source) -> Result<ClientConfig, TlsError> {
    let settings = source.settings();
    let builder = ClientConfig::builder_with_provider(source.provider()?)
        .with_protocol_versions(source.versions())
        .map_err(|e| source.error("ciphers", e))?;
    let provider = Arc::clone(builder.crypto_provider());
    let verified = matches!(settings.mode, TlsMode::VerifyCa | TlsMode::VerifyFull);
    let roots = match (source.ca.is_empty(), verified) {
        (false, _) => Some(source.roots()?),
        (true, true) => Some(system_roots().ok_or_else(|| source.error("ca", TRUSTS_NOBODY))?),
        (true, false) => None,
    };
    let chain = match roots {
        None => None,
        Some(roots) => Some(
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|e| source.error("ca", e))?,
        ),
    };
    let check = ServerCheck {
        provider,
        chain,
        trusted: source.ca.clone(),
        name: settings.mode == TlsMode::VerifyFull,
    };
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check));
    let mut config = match &source.key {
        Some(key) => builder
            .with_client_auth_cert(source.chain.clone(), key.clone_key())
            .map_err(|e| source.error("cert", e))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// What this machine trusts, if that is anybody.
fn system_roots() -> Option<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _ignored) = roots.add_parsable_certificates(found.certs);
    (added > 0).then_some(roots)
}

const TRUSTS_NOBODY: &str = "is not set, and this system trusts no authority";

/// Toward LDAP servers: their certificate and its name are always verified.
pub(super) fn toward_others(
    side: &'static str,
    key: &'static str,
    settings: &Authorities,
) -> Result<Arc<ClientConfig>, TlsError> {
    let error = |why: String| TlsError { side, key, why };
    let roots = match File::read(side, key, settings.ca.as_deref())? {
        None => system_roots().ok_or_else(|| error(TRUSTS_NOBODY.to_owned()))?,
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in file.certificates()? {
                roots.add(certificate).map_err(|e| error(e.to_string()))?;
            }
            roots
        }
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| error(e.to_string()))?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}
