//! Passwords that somebody outside judges: a directory (`ldap`), or the system (`pam`).
//!
//! A client says its password in the clear, once; the answer is the same for a user who does not exist.
//! What was right is worth a login to the server as this user, where the configuration knows nothing
//! better.

use std::sync::Arc;
use std::time::Instant;

use pooler_protocol::auth::{self, PASSWORD_BYTES_MAX, Password};
use pooler_protocol::hba::{Ldap, Method, Pam};
use zeroize::Zeroizing;

use super::Hub;
use super::gate::Demand;
use super::talk::Talk;
use crate::error::{ClientLoginError, Refusal};
use crate::ldap::{self, LdapFault, Question};
use crate::log::Seldom;
use crate::net::{Peer, name_of as host_name_of};
use crate::pam::{self, PamFault};
use crate::registry::Current;

/// What is wrong with a directory is said once in a while.
static SAID: std::sync::LazyLock<Seldom> = std::sync::LazyLock::new(Seldom::default);

/// Has `user`'s password judged, and returns it. Dropped midway, nobody is asked any more.
///
/// # Errors
/// 28000 if it is wrong; 08001 if nobody can say.
pub(super) async fn prove(
    hub: &Hub,
    current: &Arc<Current>,
    talk: &mut Talk,
    demand: &Demand,
    user: &str,
) -> Result<Password, ClientLoginError> {
    auth::encode_cleartext_password(&mut talk.out);
    let body = Zeroizing::new(talk.next_password_message(PASSWORD_BYTES_MAX).await?);
    let said = auth::parse_password(&body)?;
    // Whoever judges takes text. An empty password is nobody's.
    let Some(password) = std::str::from_utf8(said).ok().filter(|p| !p.is_empty()) else {
        return Err(Refusal::outside(name_of(demand.method), user).into());
    };
    let password = Zeroizing::new(password.to_owned());
    let right = match (&demand.method, &demand.ldap) {
        (Method::Ldap, Some(directory)) => {
            by_directory(hub, current, directory, user, password.clone()).await?
        }
        (Method::Pam, _) => match &demand.pam {
            Some(rule) => by_system(current, talk.peer(), rule, user, password.clone()).await?,
            None => false,
        },
        _ => false,
    };
    match right {
        true => Ok(Password::new(&password)),
        false => Err(Refusal::outside(name_of(demand.method), user).into()),
    }
}

/// As PostgreSQL names it in errors.
fn name_of(method: Method) -> &'static str {
    match method {
        Method::Ldap => "LDAP",
        Method::Pam => "PAM",
        _ => "password",
    }
}

async fn by_directory(
    hub: &Hub,
    current: &Current,
    directory: &Arc<Ldap>,
    user: &str,
    password: Zeroizing<String>,
) -> Result<bool, Refusal> {
    let question = Question {
        directory: Arc::clone(directory),
        user: user.to_owned(),
        password,
        tls: current.tls.ldap.clone(),
        limit: current.config.auth.ldap_timeout,
    };
    let answer = match &hub.registry.commons.beside {
        Some(runtime) => ldap::check(question, runtime).await,
        None => Err(LdapFault::Ending),
    };
    answer.map_err(|fault| nobody_can_say("LDAP", user, &fault))
}

/// From where PAM is told that somebody comes, as in PostgreSQL.
async fn by_system(
    current: &Current,
    peer: Peer,
    rule: &Pam,
    user: &str,
    password: Zeroizing<String>,
) -> Result<bool, Refusal> {
    let from = match peer {
        Peer::Unix => "[local]".to_owned(),
        Peer::Tcp(address) => {
            let address = address.ip().to_canonical();
            let name = match rule.host_name {
                true => host_name_of(address).await,
                false => None,
            };
            name.unwrap_or_else(|| address.to_string())
        }
    };
    let question = pam::Question {
        service: rule.service.clone(),
        directory: current.config.auth.pam_dir.clone(),
        user: user.to_owned(),
        password,
        from,
        limit: current.config.auth.pam_timeout,
    };
    let answer: Result<bool, PamFault> = pam::check(question).await;
    answer.map_err(|fault| nobody_can_say("PAM", user, &fault))
}

fn nobody_can_say(whom: &'static str, user: &str, fault: &dyn std::fmt::Display) -> Refusal {
    if SAID.may_say(None, Instant::now()) {
        tracing::error!(%user, "{whom} cannot say who somebody is: {fault}");
    } else {
        tracing::debug!(%user, "{whom} cannot say who somebody is: {fault}");
    }
    Refusal::nobody_can_say(whom, user)
}
