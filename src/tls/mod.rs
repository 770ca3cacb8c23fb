//! TLS as configured: what is shown to clients and servers, what is asked of them, and handshakes.
//!
//! ```text
//! config::Tls --load (reads the files)--> Tls { client: Acceptor, server: Connector }
//! ```
//! Everything is built before it takes effect, so a bad file changes nothing (trap 61); what did not
//! change is kept, with the tickets and sessions that were given out. Records are `net`'s business.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::config::{self, Authorities, TlsSide, TlsVersion};

mod acceptor;
mod certificate;
mod connector;
mod handshake;
mod verify;

pub use acceptor::{Accepted, Acceptor};
pub use certificate::PeerCertificate;
pub use connector::{Connector, OpenError, Opened, Way};

/// The name of PostgreSQL's protocol in ALPN (PostgreSQL's documentation, "SSL Session Encryption").
const ALPN: &[u8] = b"postgresql";

/// TLS toward both sides.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Toward clients; none if it is not offered to them.
    pub client: Option<Arc<Acceptor>>,
    /// Toward servers.
    pub server: Arc<Connector>,
    /// Toward LDAP servers, if a rule asks one by TLS.
    pub ldap: Option<Arc<ClientConfig>>,
    /// Toward a collector of traces, if that is at https.
    pub otlp: Option<Arc<ClientConfig>>,
}

/// A key of the configuration whose file, or value, is of no use.
#[derive(Debug, thiserror::Error)]
#[error("[{side}] {key}: {why}")]
pub struct TlsError {
    side: &'static str,
    key: &'static str,
    why: String,
}

impl Tls {
    /// None on either side.
    #[must_use]
    pub fn none() -> Self {
        Self {
            client: None,
            server: Connector::never(),
            ldap: None,
            otlp: None,
        }
    }

    /// Reads the files that `config` names. What `old` was made of in the same way is kept.
    ///
    /// # Errors
    /// Which key is wrong, naming the file.
    pub fn load(config: &config::Tls, old: Option<&Tls>) -> Result<Self, TlsError> {
        let client = Source::read("tls.client", &config.client)?;
        let server = Source::read("tls.server", &config.server)?;
        let kept = old.and_then(|o| o.client.as_ref());
        let client = match kept.filter(|acceptor| acceptor.source() == &client.seal) {
            Some(acceptor) => Some(Arc::clone(acceptor)),
            None => Acceptor::build(&client)?.map(Arc::new),
        };
        let kept = old.map(|o| &o.server);
        let server = match kept.filter(|c| c.source() == Some(&server.seal)) {
            Some(connector) => Arc::clone(connector),
            None => Arc::new(Connector::build(&server)?),
        };
        let others = |side, key, authorities: &Option<Authorities>| {
            let authorities = authorities.as_ref();
            let built = authorities.map(|it| connector::toward_others(side, key, it));
            built.transpose()
        };
        Ok(Self {
            client,
            server,
            ldap: others("auth", "ldap_ca", &config.ldap)?,
            otlp: others("tracing", "ca", &config.otlp)?,
        })
    }
}

/// What one side is made of: equal if settings and contents of files are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seal {
    settings: TlsSide,
    contents: [u8; 32],
}

/// Settings, and the files that they name.
struct Source {
    side: &'static str,
    seal: Seal,
    chain: Vec<CertificateDer<'static>>,
    key: Option<PrivateKeyDer<'static>>,
    ca: Vec<CertificateDer<'static>>,
}

impl Source {
    fn read(side: &'static str, settings: &TlsSide) -> Result<Self, TlsError> {
        let cert = File::read(side, "cert", settings.cert.as_deref())?;
        let key = File::read(side, "key", settings.key.as_deref())?;
        let ca = File::read(side, "ca", settings.ca.as_deref())?;
        let mut contents = Sha256::new();
        for file in [&cert, &key, &ca].into_iter().flatten() {
            contents.update(Sha256::digest(&*file.pem));
        }
        Ok(Self {
            side,
            seal: Seal {
                settings: settings.clone(),
                contents: contents.finalize().into(),
            },
            chain: cert.map_or(Ok(Vec::new()), |file| file.certificates())?,
            key: key.map(|file| file.private_key()).transpose()?,
            ca: ca.map_or(Ok(Vec::new()), |file| file.certificates())?,
        })
    }

    fn settings(&self) -> &TlsSide {
        &self.seal.settings
    }

    fn error(&self, key: &'static str, why: impl std::fmt::Display) -> TlsError {
        let file = match key {
            "cert" | "key" => &self.settings().cert,
            "ca" => &self.settings().ca,
            _ => &None,
        };
        let why = match file {
            Some(file) => format!("{}: {why}", file.display()),
            None => why.to_string(),
        };
        TlsError {
            side: self.side,
            key,
            why,
        }
    }

    /// Who may sign the other side's certificate.
    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.ca {
            roots
                .add(certificate.clone())
                .map_err(|e| self.error("ca", e))?;
        }
        Ok(roots)
    }

    /// The cryptography, with the ciphers that are configured.
    fn provider(&self) -> Result<Arc<CryptoProvider>, TlsError> {
        let mut provider = aws_lc_rs::default_provider();
        let wanted = &self.settings().ciphers;
        if wanted.is_empty() {
            return Ok(Arc::new(provider));
        }
        let all = std::mem::take(&mut provider.cipher_suites);
        for name in wanted {
            let found = all.iter().find(|suite| cipher_name(suite) == *name);
            let Some(suite) = found else {
                let known: Vec<_> = all.iter().map(cipher_name).collect();
                let why = format!("no cipher {name:?}; there are {}", known.join(", "));
                return Err(self.error("ciphers", why));
            };
            provider.cipher_suites.push(*suite);
        }
        Ok(Arc::new(provider))
    }

    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        match self.settings().min_version {
            TlsVersion::V12 => &ALL,
            TlsVersion::V13 => &ALL[..1],
        }
    }
}

/// A file that a key names.
struct File<'a> {
    side: &'static str,
    key: &'static str,
    path: &'a Path,
    pem: Zeroizing<Vec<u8>>,
}

impl<'a> File<'a> {
    fn read(
        side: &'static str,
        key: &'static str,
        path: Option<&'a Path>,
    ) -> Result<Option<Self>, TlsError> {
        let Some(path) = path else {
            return Ok(None);
        };
        match std::fs::read(path) {
            Ok(pem) => Ok(Some(Self {
                side,
                key,
                path,
                pem: Zeroizing::new(pem),
            })),
            Err(e) => {
                let why = format!("cannot read {}: {e}", path.display());
                Err(TlsError { side, key, why })
            }
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.pem).collect();
        match all {
            Ok(all) if !all.is_empty() => Ok(all),
            Ok(_) => Err(self.error("it holds no certificate in PEM")),
            Err(e) => Err(self.error(e)),
        }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.pem)
            .map_err(|_| self.error("it holds no private key in PEM, or one with a password"))
    }

    fn error(&self, why: impl std::fmt::Display) -> TlsError {
        TlsError {
            side: self.side,
            key: self.key,
            why: format!("{}: {why}", self.path.display()),
        }
    }
}

/// The registered name of a cipher.
fn cipher_name(suite: &rustls::SupportedCipherSuite) -> String {
    let name = format!("{:?}", suite.suite());
    name.replace("TLS13_", "TLS_")
}
