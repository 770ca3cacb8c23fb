//! What a client must do to get in: as `auth.type` says, or the first rule of `auth.hba_file` that fits.

use std::sync::Arc;

use pooler_protocol::hba::{
    Asked, Came, ClientCert, ClientName, Decision, Facts, Ldap, Method, Need, Pam, Rule,
};
use pooler_protocol::startup::{Replication, Startup};

use crate::config::AuthType;
use crate::error::Refusal;
use crate::lookup::LookupError;
use crate::net::{Peer, name_of, networks, user_name};
use crate::registry::Current;
use crate::tls::PeerCertificate;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) method: Method,
    pub(super) client_cert: ClientCert,
    client_name: ClientName,
    map: Option<String>,
    pub(super) ldap: Option<Arc<Ldap>>,
    pub(super) pam: Option<Pam>,
}

impl Demand {
    fn by_type(kind: AuthType, map: Option<String>) -> Self {
        let method = match kind {
            AuthType::Trust => Method::Trust,
            AuthType::Password => Method::Password,
            AuthType::Md5 => Method::Md5,
            AuthType::ScramSha256 => Method::ScramSha256,
            AuthType::Cert => Method::Cert,
            AuthType::Hba => Method::Reject,
        };
        Self {
            method,
            client_cert: match method {
                Method::Cert => ClientCert::VerifyFull,
                _ => ClientCert::Any,
            },
            client_name: ClientName::CommonName,
            map,
            ldap: None,
            pam: None,
        }
    }

    fn by_rule(rule: &Rule) -> Self {
        Self {
            method: rule.method,
            client_cert: rule.client_cert,
            client_name: rule.client_name,
            map: rule.map.clone(),
            ldap: rule.ldap.clone(),
            pam: rule.pam.clone(),
        }
    }
}

/// Whether nobody has to show anything, whoever it is and wherever it comes from: [`demand`] would say so too, after more
/// work than all the rest of such a login.
pub(super) fn is_open_to_all(kind: AuthType) -> bool {
    kind == AuthType::Trust
}

/// Where a client comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) peer: Peer,
    pub(super) encrypted: bool,
}

/// What is demanded of a client. Dropped midway, nothing is lost.
///
/// # Errors
/// 28000 if no rule lets it in; 08001 if that depends on its roles and nobody can be asked for them.
pub(super) async fn demand(
    current: &Arc<Current>,
    origin: Origin,
    startup: &Startup,
) -> Result<Demand, Refusal> {
    let auth = &current.config.auth;
    if auth.kind != AuthType::Hba {
        return Ok(Demand::by_type(auth.kind, auth.map.clone()));
    }
    let asked = Asked {
        user: startup.user(),
        database: startup.database(),
        replication: startup.replication() == Replication::Physical,
        came: match origin.peer {
            Peer::Unix => Came::Local,
            Peer::Tcp(address) => Came::Tcp {
                address: address.ip(),
                encrypted: origin.encrypted,
            },
        },
    };
    let mut facts = Facts::default();
    loop {
        match current.config.hba.rules.decide(&asked, &facts) {
            Decision::Rule(rule) if rule.method == Method::Reject => {
                return Err(refusal(&asked, true));
            }
            Decision::Rule(rule) => return Ok(Demand::by_rule(rule)),
            Decision::None => return Err(refusal(&asked, false)),
            Decision::Needs(need) => find_out(current, need, &asked, &mut facts).await?,
        }
    }
}

async fn find_out(
    current: &Arc<Current>,
    need: Need,
    asked: &Asked<'_>,
    facts: &mut Facts,
) -> Result<(), Refusal> {
    match (need, asked.came) {
        (Need::Roles, _) => facts.roles = Some(roles(current, asked).await?),
        (Need::HostName, Came::Tcp { address, .. }) => {
            facts.host_name = Some(name_of(address.to_canonical()).await);
        }
        (Need::HostName, Came::Local) => facts.host_name = Some(None),
        (Need::Networks, _) => {
            let found = networks();
            facts.networks = Some(found.map_err(|e| {
                tracing::error!("cannot list this machine's addresses: {e}");
                // Fail closed: the rule could be a reject.
                refusal(asked, false)
            })?);
        }
    }
    Ok(())
}

/// The roles of a user; one who does not exist has none.
async fn roles(current: &Arc<Current>, asked: &Asked<'_>) -> Result<Vec<String>, Refusal> {
    let Some(lookup) = current.roles_of(asked.database) else {
        return Err(refusal(asked, false));
    };
    match lookup.roles(asked.user).await {
        Ok((roles, _)) => Ok(roles.map_or(Vec::new(), |roles| roles.to_vec())),
        Err(LookupError::Query(_) | LookupError::Answer(_)) => Err(refusal(asked, false)),
        Err(_) => Err(Refusal::no_lookup(asked.user)),
    }
}

/// In PostgreSQL's words.
fn refusal(asked: &Asked<'_>, rejected: bool) -> Refusal {
    let (host, encryption) = match asked.came {
        Came::Local => ("[local]".to_owned(), "no encryption"),
        Came::Tcp { address, encrypted } => {
            let how = if encrypted {
                "SSL encryption"
            } else {
                "no encryption"
            };
            (address.to_canonical().to_string(), how)
        }
    };
    let (user, database) = (asked.user, asked.database);
    let what = match (rejected, asked.replication) {
        (true, true) => "pg_hba.conf rejects replication connection for",
        (true, false) => "pg_hba.conf rejects connection for",
        (false, true) => "no pg_hba.conf entry for replication connection from",
        (false, false) => "no pg_hba.conf entry for",
    };
    let database = match asked.replication {
        true => String::new(),
        false => format!(", database \"{database}\""),
    };
    Refusal::by_rules(format!(
        "{what} host \"{host}\", user \"{user}\"{database}, {encryption}"
    ))
}

impl Demand {
    /// Whether a certificate's name may be `user`.
    ///
    /// # Errors
    /// 28000, if not.
    pub(super) async fn check_certificate(
        &self,
        current: &Arc<Current>,
        certificate: Option<&PeerCertificate>,
        startup: &Startup,
    ) -> Result<(), Refusal> {
        let certificate = certificate.ok_or_else(Refusal::certificate_required)?;
        if self.client_cert == ClientCert::VerifyCa {
            return Ok(());
        }
        let names = match self.client_name {
            ClientName::CommonName => certificate.common_name.clone().into_iter().collect(),
            ClientName::DistinguishedName => vec![certificate.subject.clone()],
            ClientName::AlternativeName => certificate.alternative_names.clone(),
        };
        for name in names.iter().filter(|name| !name.is_empty()) {
            if self.is_allowed(current, name, startup).await? {
                return Ok(());
            }
        }
        Err(Refusal::other_name("certificate", startup.user()))
    }

    /// Whether the user of the operating system may be the user.
    ///
    /// # Errors
    /// 28000, if not.
    pub(super) async fn check_peer(
        &self,
        current: &Arc<Current>,
        uid: Option<u32>,
        startup: &Startup,
    ) -> Result<(), Refusal> {
        let name = match uid {
            Some(uid) => user_name(uid).await,
            None => None,
        };
        match name {
            Some(name) if self.is_allowed(current, &name, startup).await? => Ok(()),
            _ => Err(Refusal::other_name("Peer", startup.user())),
        }
    }

    async fn is_allowed(
        &self,
        current: &Arc<Current>,
        name: &str,
        startup: &Startup,
    ) -> Result<bool, Refusal> {
        let (map, user) = (self.map.as_deref(), startup.user());
        let maps = &current.config.hba.maps;
        if let Ok(allowed) = maps.allows(map, name, user, None) {
            return Ok(allowed);
        }
        let asked = Asked {
            user,
            database: startup.database(),
            replication: false,
            came: Came::Local,
        };
        let roles = roles(current, &asked).await?;
        Ok(maps.allows(map, name, user, Some(&roles)).unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_to_all_demands_nothing_and_nothing_else_is() {
        for kind in [
            AuthType::Trust,
            AuthType::Password,
            AuthType::Md5,
            AuthType::ScramSha256,
            AuthType::Cert,
            AuthType::Hba,
        ] {
            let demand = Demand::by_type(kind, None);
            let nothing = demand.method == Method::Trust && demand.client_cert == ClientCert::Any;
            assert_eq!(is_open_to_all(kind), nothing, "{kind:?}");
        }
    }
}
