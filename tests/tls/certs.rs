//! Certificates of a test's own: an authority, and what it signs.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SignatureAlgorithm,
    date_time_ymd,
};

/// An authority and a directory for what it signs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    dir: PathBuf,
}

impl Authority {
    /// A new one; files go to `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self::of(&rcgen::PKCS_ECDSA_P256_SHA256, dir)
    }

    /// A new one with a key of this kind, which is the kind of every signature of its own.
    pub(crate) fn of(algorithm: &'static SignatureAlgorithm, dir: &Path) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let key = KeyPair::generate_for(algorithm).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
            dir: dir.to_owned(),
        }
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Its own certificate, as a file.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.write(name, &self.pem)
    }

    /// Signs a certificate for `names`, whose common name is `common_name`: certificate and key in PEM.
    pub(crate) fn sign(&self, common_name: &str, names: &[&str]) -> (String, String) {
        self.sign_by(&rcgen::PKCS_ECDSA_P256_SHA256, common_name, names, false)
    }

    /// One whose time is over.
    pub(crate) fn sign_expired(&self, common_name: &str, names: &[&str]) -> (String, String) {
        self.sign_by(&rcgen::PKCS_ECDSA_P256_SHA256, common_name, names, true)
    }

    /// One with a key of this kind.
    pub(crate) fn sign_by(
        &self,
        algorithm: &'static SignatureAlgorithm,
        common_name: &str,
        names: &[&str],
        expired: bool,
    ) -> (String, String) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Signs and writes `name.crt` and `name.key`.
    pub(crate) fn files(
        &self,
        name: &str,
        common_name: &str,
        names: &[&str],
    ) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.sign(common_name, names);
        self.write_pair(name, &(certificate, key))
    }

    /// Writes `name.crt` and `name.key`.
    pub(crate) fn write_pair(
        &self,
        name: &str,
        (certificate, key): &(String, String),
    ) -> (PathBuf, PathBuf) {
        (
            self.write(&format!("{name}.crt"), certificate),
            self.write(&format!("{name}.key"), key),
        )
    }
}
