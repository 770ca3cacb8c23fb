//! The rules of `auth.hba_file` and the maps of `auth.ident_file`, read and judged with the rest of the
//! configuration: a line that is not understood is an error like any other, so that a reload with one
//! changes nothing (trap 60).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pooler_protocol::hba::{
    ClientCert, Files, IdentMaps, LdapEncryption, LineError, Method, Rule, Rules, Transport,
};

use super::Config;
use super::error::Problems;
use super::section::Section;
use super::types::{Auth, Authorities};
use super::words::AuthType;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Hba {
    /// Who may connect from where and how; none unless `auth.type` is hba.
    pub rules: Arc<Rules>,
    /// Under which names.
    pub maps: Arc<IdentMaps>,
}

impl Hba {
    /// How LDAP servers are told from others, if a rule asks one by TLS.
    pub(crate) fn ldap_tls(&self, section: &Section, directory: &Path) -> Option<Authorities> {
        let mut asked = self.rules.all().iter().filter_map(|r| r.ldap.as_ref());
        let encrypted = asked.any(|ldap| ldap.encryption != LdapEncryption::None);
        let ca = section.values().file("ldap_ca", directory);
        encrypted.then_some(Authorities { ca })
    }
}

struct Disk;

impl Files for Disk {
    fn read(&mut self, path: &Path) -> Result<Option<String>, String> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.to_string()),
        }
    }

    fn list(&mut self, directory: &Path) -> Result<Vec<PathBuf>, String> {
        let entries = std::fs::read_dir(directory).map_err(|e| e.to_string())?;
        let paths: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.path())).collect();
        paths.map_err(|e| e.to_string())
    }
}

/// Reads both files, as far as they are named.
pub(crate) fn read(auth: &Auth, section: &Section, problems: &mut Problems) -> Hba {
    let mut hba = Hba::default();
    if let Some(file) = &auth.hba_file
        && auth.kind == AuthType::Hba
        && exists(file, "hba_file", section, problems)
    {
        let rules = Rules::read(file, &mut Disk).map_err(|e| report(&e, problems));
        hba.rules = rules.unwrap_or_default().into();
    }
    if let Some(file) = &auth.ident_file
        && exists(file, "ident_file", section, problems)
    {
        let maps = IdentMaps::read(file, &mut Disk).map_err(|e| report(&e, problems));
        hba.maps = maps.unwrap_or_default().into();
    }
    hba
}

fn exists(file: &Path, key: &str, section: &Section, problems: &mut Problems) -> bool {
    let read = std::fs::File::open(file);
    if let Err(e) = &read {
        let message = format!("cannot read {}: {e}", file.display());
        problems.error(section.line_of(key), section.place(key), message);
    }
    read.is_ok()
}

fn report(errors: &[LineError], problems: &mut Problems) {
    for error in errors {
        problems.error_in(&error.place.file, error.place.line, error.message.clone());
    }
}

/// What cannot be meant, and what the rules need that is not there.
pub(crate) fn check(config: &Config, section: &Section, problems: &mut Problems) {
    let auth = &config.auth;
    let mut tell = |key: &str, message: &str, fatal: bool| {
        let (line, place) = (section.line_of(key), section.place(key));
        match fatal {
            true => problems.error(line, place, message),
            false => problems.warn(line, place, message),
        }
    };
    match (auth.kind, &auth.hba_file) {
        (AuthType::Hba, None) => tell("type", "hba needs hba_file", true),
        (AuthType::Hba, Some(_)) => {}
        (_, Some(_)) => tell("hba_file", "has no effect unless type is hba", false),
        (_, None) => {}
    }
    let no_ca = config.tls.client.ca.is_none() || config.tls.client.cert.is_none();
    if auth.kind == AuthType::Cert && no_ca {
        let message =
            "cert needs cert, key and ca in [tls.client]: nobody's certificate could be verified";
        tell("type", message, true);
    }
    if let Some(map) = auth.map.as_deref()
        && auth.kind != AuthType::Cert
    {
        let message =
            format!("{map:?} has no effect unless type is cert; rules of hba_file say map=");
        tell("map", &message, false);
    }
    if let Some(map) = auth.map.as_deref().filter(|map| !config.hba.maps.has(map)) {
        let message = format!("there is no map {map:?} in ident_file: nobody gets in by it");
        tell("map", &message, false);
    }
    if config.tls.ldap.is_none() && section.values().optional_text("ldap_ca").is_some() {
        let message = "has no effect: no rule of hba_file asks an LDAP server by TLS";
        tell("ldap_ca", message, false);
    }
    if auth.user.is_none() {
        if let Some(rule) = config.hba.rules.needs_roles() {
            let message =
                "+group and samerole need auth.user, who asks the server for a user's roles";
            problems.error_in(&rule.place.file, rule.place.line, message);
        } else if config.hba.maps.needs_roles() {
            let (line, place) = (section.line_of("ident_file"), section.place("ident_file"));
            problems.error(
                line,
                place,
                "+group needs auth.user, who asks the server for a user's roles",
            );
        }
    }
    for rule in config.hba.rules.all() {
        check_rule(config, rule, no_ca, problems);
    }
}

/// Why a rule cannot ask PAM.
#[cfg(feature = "pam")]
fn pam_is_there() -> Result<(), String> {
    pooler_pam::available().map_err(|e| format!("method pam: {e}"))
}

/// Why a rule cannot ask PAM.
#[cfg(not(feature = "pam"))]
fn pam_is_there() -> Result<(), String> {
    Err("method pam was not built in: build the pooler with the cargo feature \"pam\"".to_owned())
}

fn check_rule(config: &Config, rule: &Rule, no_ca: bool, problems: &mut Problems) {
    let (file, line) = (&rule.place.file, rule.place.line);
    if no_ca && (rule.method == Method::Cert || rule.client_cert != ClientCert::Any) {
        let message =
            "needs cert, key and ca in [tls.client]: nobody's certificate could be verified";
        problems.error_in(file, line, message);
    }
    if rule.method == Method::Pam
        && let Err(why) = pam_is_there()
    {
        problems.error_in(file, line, why);
    }
    match rule.transport {
        Transport::HostGss => {
            problems.warn_in(file, line, "never fits: the pooler does not speak GSSAPI");
        }
        Transport::HostTls if config.tls.client.cert.is_none() => {
            problems.warn_in(file, line, "never fits: there is no cert in [tls.client]");
        }
        _ => {}
    }
    if let Some(map) = rule.map.as_deref().filter(|map| !config.hba.maps.has(map)) {
        let message = format!("there is no map {map:?} in ident_file: nobody gets in by it");
        problems.warn_in(file, line, message);
    }
}
