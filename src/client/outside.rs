//! Passwords that somebody outside judges: a directory (`ldap`).
//!
//! A client says its password in the clear, once; the answer is the same for a user who does not exist.
//! What was right is worth a login to the server as this user, where the configuration knows nothing
//! better.

use std::sync::Arc;
use std::time::Instant;

use pooler_protocol::auth::{self, PASSWORD_BYTES_MAX, Password};
use pooler_protocol::hba::{Ldap, Method};
use zeroize::Zeroizing;

use super::Hub;
use super::authenticate::Talk;
use super::gate::Demand;
use crate::error::{ClientLoginError, Refusal};
use crate::ldap::{self, LdapFault, Question};
use crate::log::Seldom;
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
    answer.map_err(|fault| {
        if SAID.may_say(None, Instant::now()) {
            tracing::error!(%user, "LDAP cannot say who somebody is: {fault}");
        } else {
            tracing::debug!(%user, "LDAP cannot say who somebody is: {fault}");
        }
        Refusal::nobody_can_say("LDAP", user)
    })
}
