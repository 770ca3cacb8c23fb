//! TLS toward clients: with PgBouncer's meaning of the modes.

use std::io;
use std::sync::Arc;

use pooler_protocol::auth::ChannelBinding;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{UnbufferedServerConnection, WebPkiClientVerifier};

use super::certificate::{PeerCertificate, end_point_hash};
use super::handshake::{self, Dear};
use super::{ALPN, Seal, Source, TlsError};
use crate::config::TlsMode;
use crate::net::{Records, Session, Stream, TlsStream};

/// Plaintext of one record, in bytes: libpq before version 9.6 stalls on more when it is used
/// asynchronously (trap 12), and a client can show the first rows before the last have come.
const RECORD_LEN_MAX: usize = 8 * 1024;

/// Tickets that a client gets at once. Most take none; those that do open connections one by one.
const TICKETS: usize = 1;

/// See the module.
#[derive(Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    binding: ChannelBinding,
    required: bool,
    asks_for_certificate: bool,
    seal: Seal,
}

/// A client whose handshake is done.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: Stream,
    /// Whose verified certificate it has shown.
    pub peer: Option<PeerCertificate>,
}

impl Acceptor {
    /// None if TLS is not offered: the mode says so, or there is no certificate.
    pub(super) fn build(source: &Source) -> Result<Option<Self>, TlsError> {
        let settings = source.settings();
        let Some(key) = source.key.as_ref().filter(|_| !source.chain.is_empty()) else {
            return Ok(None);
        };
        if settings.mode == TlsMode::Disable {
            return Ok(None);
        }
        let builder = ServerConfig::builder_with_provider(source.provider()?)
            .with_protocol_versions(source.versions())
            .map_err(|e| source.error("ciphers", e))?;
        let verified = matches!(settings.mode, TlsMode::VerifyCa | TlsMode::VerifyFull);
        let asks_for_certificate = !source.ca.is_empty();
        let builder = if asks_for_certificate {
            let roots = Arc::new(source.roots()?);
            let provider = Arc::clone(builder.crypto_provider());
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            if !verified {
                verifier = verifier.allow_unauthenticated();
            }
            builder.with_client_cert_verifier(verifier.build().map_err(|e| source.error("ca", e))?)
        } else {
            builder.with_no_client_auth()
        };
        let binding = end_point_hash(&source.chain[0]);
        let mut config = builder
            .with_single_cert(source.chain.clone(), key.clone_key())
            .map_err(|e| source.error("cert", e))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_fragment_size = Some(RECORD_LEN_MAX);
        config.send_tls13_tickets = TICKETS;
        // Tickets of one certificate are worth nothing to the next: who was verified by an old `ca`
        // is verified again.
        config.ticketer = Ticketer::new().map_err(|e| source.error("key", e))?;
        Ok(Some(Self {
            config: Arc::new(config),
            binding: binding.map_or(
                ChannelBinding::Unavailable,
                ChannelBinding::TlsServerEndPoint,
            ),
            required: verified || settings.mode == TlsMode::Require,
            asks_for_certificate,
            seal: source.seal.clone(),
        }))
    }

    pub(super) fn source(&self) -> &Seal {
        &self.seal
    }

    /// Whether a client without TLS is refused, unless it comes by a Unix socket.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// What a login over such a connection can be bound to.
    #[must_use]
    pub fn binding(&self) -> &ChannelBinding {
        &self.binding
    }

    /// Does the handshake; `input` is what the client has said of it so far. Without an SSLRequest
    /// before it (`direct`), the client must have named PostgreSQL's protocol: an HTTP client that was
    /// led here must not get an answer.
    ///
    /// # Errors
    /// `InvalidData` with what is wrong with the client's part, of which it is told; else what the
    /// system says.
    pub async fn accept(
        &self,
        mut socket: Stream,
        input: Vec<u8>,
        direct: bool,
    ) -> io::Result<Accepted> {
        let session =
            UnbufferedServerConnection::new(Arc::clone(&self.config)).map_err(io::Error::other)?;
        let records = Records::new(Session::Server(session));
        let dear = match self.asks_for_certificate {
            true => Dear::All,
            false => Dear::First,
        };
        let records = handshake::run(&mut socket, records, input, dear).await?;
        if direct && records.alpn() != Some(ALPN) {
            let why = "a direct TLS connection without ALPN \"postgresql\"";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let peer = records.peer_certificates().first();
        let peer = peer.and_then(PeerCertificate::read);
        Ok(Accepted {
            stream: Stream::Tls(Box::new(TlsStream::new(socket, records))),
            peer,
        })
    }
}
