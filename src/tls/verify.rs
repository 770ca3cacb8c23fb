//! Whether a server's certificate is good enough for the mode, as libpq has it.
//!
//! | mode | chain | name |
//! |---|---|---|
//! | allow, prefer, require, without `ca` | not looked at | not looked at |
//! | allow, prefer, require, with `ca`; verify-ca | must lead to `ca` | not looked at |
//! | verify-full | must lead to `ca`, or what the system trusts | must be the host's |
//!
//! In every mode the server must prove that it has the certificate's key: channel binding would be
//! worth nothing otherwise. As with OpenSSL, `ca` may hold the server's own certificate, also one
//! that is marked as an authority's, and a common name serves where no alternative name is.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::certificate::{self, PeerCertificate};

/// See the module.
#[derive(Debug)]
pub(super) struct ServerCheck {
    pub(super) provider: Arc<CryptoProvider>,
    /// None: any chain will do.
    pub(super) chain: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates that are trusted as they are.
    pub(super) trusted: Vec<CertificateDer<'static>>,
    /// Whether the name must be the host's.
    pub(super) name: bool,
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        let checked = if self.trusted.iter().any(|trusted| trusted == end_entity) {
            check_trusted(end_entity, server_name, now)
        } else {
            let verified = chain.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
            verified.map(drop)
        };
        match checked {
            // The chain is looked at first: it is good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name || is_common_name(end_entity, server_name) => {}
            checked => checked?,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A certificate that is in `ca` itself needs nobody's signature.
fn check_trusted(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    if !certificate::is_valid_at(certificate, now.as_secs()) {
        return Err(CertificateError::Expired.into());
    }
    rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
}

/// Whether a certificate without an alternative name of a host has this common name.
fn is_common_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    let Some(read) = PeerCertificate::read(certificate).filter(|read| !read.names_host) else {
        return false;
    };
    let name = name.to_str();
    read.common_name
        .is_some_and(|pattern| fits(&pattern, &name))
}

/// A `*` stands for the whole first label and for nothing else.
fn fits(pattern: &str, name: &str) -> bool {
    if pattern.eq_ignore_ascii_case(name) {
        return true;
    }
    match (pattern.strip_prefix("*."), name.split_once('.')) {
        (Some(pattern), Some((label, rest))) => {
            !label.is_empty() && pattern.contains('.') && pattern.eq_ignore_ascii_case(rest)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_is_one_label() {
        assert!(fits("db.example.com", "DB.example.com"));
        assert!(fits("*.example.com", "db.example.com"));
        for (pattern, name) in [
            ("*.example.com", "example.com"),
            ("*.example.com", "a.b.example.com"),
            ("*.example.com", ".example.com"),
            ("*.com", "example.com"),
            ("*", "db"),
            ("d*.example.com", "db.example.com"),
            ("db.example.com", "db.example.org"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }
}
