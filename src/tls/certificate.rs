//! What is read from a certificate beyond what verifying it takes: whose it is, and what a login is
//! bound to.

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

/// Whose a verified certificate is. Kept for the time of the login.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The last common name of the subject: the most specific one.
    pub common_name: Option<String>,
    /// The whole subject, as RFC 2253 writes it: the most specific part first.
    pub subject: String,
    /// Alternative names: of hosts, and of people's mailboxes.
    pub alternative_names: Vec<String>,
    /// Whether a host's name is among them: then the common name is none.
    pub(super) names_host: bool,
}

impl PeerCertificate {
    /// Reads a certificate; what it does not say is not there.
    #[must_use]
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?;
        let tbs = certificate.tbs_certificate();
        let mut peer = Self {
            subject: tbs.subject().to_string(),
            ..Self::default()
        };
        for attribute in tbs.subject().iter() {
            if attribute.oid == COMMON_NAME {
                let value = std::str::from_utf8(attribute.value.value()).ok();
                // PostgreSQL, too, refuses a name with a NUL within it.
                peer.common_name = value.filter(|v| !v.contains('\0')).map(str::to_owned);
            }
        }
        if let Ok(Some((_, names))) = tbs.get_extension::<SubjectAltName>() {
            for name in names.0 {
                match name {
                    GeneralName::DnsName(name) => {
                        peer.names_host = true;
                        peer.alternative_names.push(name.to_string());
                    }
                    GeneralName::Rfc822Name(name) => peer.alternative_names.push(name.to_string()),
                    GeneralName::IpAddress(_) => peer.names_host = true,
                    _ => {}
                }
            }
        }
        Some(peer)
    }
}

/// Whether `now`, in seconds since 1970, is within a certificate's time.
pub(super) fn is_valid_at(certificate: &CertificateDer<'_>, now: u64) -> bool {
    let Ok(certificate) = Certificate::from_der(certificate) else {
        return false;
    };
    let validity = certificate.tbs_certificate().validity();
    let seconds = |time: &Time| time.to_unix_duration().as_secs();
    (seconds(&validity.not_before)..=seconds(&validity.not_after)).contains(&now)
}

/// What `tls-server-end-point` binds to (RFC 5929, section 4.1): the certificate's hash by the
/// algorithm of its signature, or SHA-256 in place of MD5 and SHA-1. None where the signature has no
/// hash of its own (Ed25519): there is no channel binding then.
pub(super) fn end_point_hash(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let hash = SignatureHash::of(parsed.signature_algorithm())?;
    Some(match hash {
        SignatureHash::Sha224 => Sha224::digest(certificate).to_vec(),
        SignatureHash::Sha256 => Sha256::digest(certificate).to_vec(),
        SignatureHash::Sha384 => Sha384::digest(certificate).to_vec(),
        SignatureHash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignatureHash {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

impl SignatureHash {
    fn of(algorithm: &AlgorithmIdentifierOwned) -> Option<Self> {
        Some(match algorithm.oid.to_string().as_str() {
            // RSA: MD5, SHA-1, SHA-256; ECDSA: SHA-1, SHA-256.
            "1.2.840.113549.1.1.4"
            | "1.2.840.113549.1.1.5"
            | "1.2.840.113549.1.1.11"
            | "1.2.840.10045.4.1"
            | "1.2.840.10045.4.3.2" => Self::Sha256,
            "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Self::Sha384,
            "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Self::Sha512,
            "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => Self::Sha224,
            RSASSA_PSS => return Self::of_pss(algorithm),
            _ => return None,
        })
    }

    /// RSASSA-PSS names its hash in the parameters, in front of the hash of the mask; SHA-1 is not
    /// written (RFC 4055, section 3.1).
    fn of_pss(algorithm: &AlgorithmIdentifierOwned) -> Option<Self> {
        let parameters = algorithm.parameters.as_ref()?.to_der().ok()?;
        let at = parameters
            .windows(SHA2.len())
            .position(|bytes| bytes == SHA2)?;
        Some(match parameters.get(at + SHA2.len())? {
            1 => Self::Sha256,
            2 => Self::Sha384,
            3 => Self::Sha512,
            4 => Self::Sha224,
            _ => return None,
        })
    }
}

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const RSASSA_PSS: &str = "1.2.840.113549.1.1.10";
/// 2.16.840.1.101.3.4.2, encoded: one more byte says which of the SHA-2 family.
const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
