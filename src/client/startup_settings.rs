//! The settings that a client asks for in its startup packet, in the server's own words.
//!
//! A direct connection has the server judge them at login. Here a server of the pool is asked the
//! first time that a set of them turns up; what it made of them is remembered. Only
//! `application_name` is known without asking: it differs with each application and is taken as it
//! is.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use pooler_protocol::backend::{ErrorView, read_data_row, tag};
use pooler_protocol::settings::{Settings, push_set_config};
use pooler_protocol::startup::{Startup, parse_options};

use super::farewell;
use super::queue::Newcomer;
use crate::config::PoolSettings;
use crate::error::{ClientLoginError, Refusal, ServerFault};
use crate::net::Peer;
use crate::pool::LocalPool;
use crate::server::Welcome;
use crate::timer;

/// Bytes of a name in PostgreSQL, with its end (`NAMEDATALEN`).
const NAME_LEN: usize = 64;

/// How long a server may take to judge.
const ASK_MAX: Duration = Duration::from_secs(15);

/// Names and values; those of the packet as they are in it.
type Asked<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// The settings of the startup packet, one by one; those of `options` first, as PostgreSQL does it.
///
/// # Errors
/// What the client is told of an `options` that cannot be read.
pub(super) fn asked<'a>(
    startup: &'a Startup,
    peer: &Peer,
    pool: &PoolSettings,
) -> Result<Asked<'a>, Refusal> {
    let mut all = Vec::with_capacity(startup.parameters().len());
    for (name, value) in startup.settings() {
        if name == "options" {
            let options =
                parse_options(value).map_err(|e| Refusal::fatal(e.sqlstate(), e.to_string()))?;
            let options = options.into_iter().map(|(n, v)| (n.into(), v.into()));
            all.splice(0..0, options);
        } else {
            all.push((name.into(), value.into()));
        }
    }
    if adds_host(pool) {
        let at = all.iter().position(|(n, _)| n == "application_name");
        let name = at.map_or(Cow::default(), |at| all.remove(at).1);
        all.push(("application_name".into(), format!("{name} - {peer}").into()));
    }
    Ok(all)
}

/// As the client sent them, for a server of its own to judge.
///
/// # Errors
/// As [`asked`], if the pooler has to look into them.
pub(super) fn verbatim(
    startup: &Startup,
    peer: &Peer,
    pool: &PoolSettings,
) -> Result<Vec<(String, String)>, Refusal> {
    if adds_host(pool) {
        return Ok(owned(asked(startup, peer, pool)?));
    }
    let settings = startup.settings();
    Ok(settings
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect())
}

fn owned(asked: Asked<'_>) -> Vec<(String, String)> {
    let asked = asked.into_iter();
    asked
        .map(|(n, v)| (n.into_owned(), v.into_owned()))
        .collect()
}

/// Whether the client's address becomes a part of its name. A template names the client otherwise.
pub(super) fn adds_host(pool: &PoolSettings) -> bool {
    pool.application_name_add_host && pool.application_name.is_identity()
}

/// What a login's settings come to.
pub(super) enum Resolved {
    Known(Arc<Settings>),
    /// A server has to be asked.
    Unknown(Question),
}

/// What a server is to judge.
pub(super) struct Question {
    asked: Vec<(String, String)>,
    application_name: Option<String>,
}

/// What they are in the server's words, if that is known.
pub(super) fn resolve(local: &LocalPool, welcome: &Welcome, mut asked: Asked<'_>) -> Resolved {
    let mut application_name = None;
    asked.retain_mut(|(name, value)| {
        if name == "application_name" && is_plain_name(value) {
            application_name = Some(std::mem::take(value));
            return false;
        }
        !is_same(welcome, name, value)
    });
    let question = Question {
        asked: owned(asked),
        application_name: application_name.map(Cow::into_owned),
    };
    let known = match question.asked.is_empty() {
        true => Some(local.commons().interners.no_settings()),
        false => local.shared().known_settings(&question.asked),
    };
    match known {
        Some(settings) => {
            let name = question.application_name;
            Resolved::Known(with_name(local, welcome, settings, name))
        }
        None => Resolved::Unknown(question),
    }
}

/// What a server makes of them now.
///
/// # Errors
/// What the server says against them, or that there is none.
pub(super) async fn judge(
    newcomer: &Newcomer<'_>,
    welcome: &Welcome,
    question: Question,
) -> Result<Arc<Settings>, ClientLoginError> {
    let Question {
        asked,
        application_name,
    } = question;
    let local = newcomer.local;
    let judged = ask_server(newcomer, &asked).await?;
    let judged = local.commons().interners.settings(judged);
    local.shared().keep_settings(asked, Arc::clone(&judged));
    Ok(with_name(local, welcome, judged, application_name))
}

fn with_name(
    local: &LocalPool,
    welcome: &Welcome,
    settings: Arc<Settings>,
    name: Option<String>,
) -> Arc<Settings> {
    match name.filter(|name| welcome.find("application_name") != Some(name)) {
        Some(name) => {
            let named = settings.with("application_name", Some(&name));
            local.commons().interners.settings(named)
        }
        None => settings,
    }
}

/// Whether PostgreSQL takes it as it is: printable ASCII, and short enough not to be cut.
fn is_plain_name(value: &str) -> bool {
    value.len() < NAME_LEN && value.bytes().all(|b| (0x20..0x7f).contains(&b))
}

/// Whether a server is born with it. Names of encodings are compared as PostgreSQL does it.
fn is_same(welcome: &Welcome, name: &str, value: &str) -> bool {
    let Some(born_with) = welcome.find(name) else {
        return false;
    };
    if name.eq_ignore_ascii_case("client_encoding") {
        return letters(born_with).eq(letters(value));
    }
    born_with == value
}

fn letters(encoding: &str) -> impl Iterator<Item = u8> {
    let alphanumeric = encoding.bytes().filter(u8::is_ascii_alphanumeric);
    alphanumeric.map(|byte| byte.to_ascii_lowercase())
}

async fn ask_server(
    newcomer: &Newcomer<'_>,
    asked: &[(String, String)],
) -> Result<Settings, ClientLoginError> {
    let mut checkout = newcomer.checkout().await.map_err(|e| e.refusal())?;
    let mut sql = String::new();
    for (name, value) in asked {
        push_set_config(&mut sql, name, Some(value));
    }
    let mut values = Vec::new();
    let mut refusal = None;
    let judged = timer::timeout(
        ASK_MAX,
        checkout.ask(&sql, |tag, body| match tag {
            tag::DATA_ROW => {
                let row = read_data_row(body).unwrap_or_default();
                let text = |v: Option<&[u8]>| v.map(|v| String::from_utf8_lossy(v).into_owned());
                values = row.into_iter().map(text).collect();
            }
            tag::ERROR_RESPONSE => {
                let error = ErrorView::new(body);
                let sqlstate = error.sqlstate().unwrap_or("XX000");
                refusal = Some(Refusal::fatal(sqlstate, error.message()));
            }
            _ => {}
        }),
    )
    .await;
    // What it was set to must not stay: it is cleaned on its way back.
    checkout.dirty = true;
    let host = checkout.identity.host.clone();
    farewell::clean_and_release(checkout);
    match judged {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => {
            let refusal = refusal.unwrap_or_else(|| Refusal::server_gone(&host, fault));
            return Err(refusal.into());
        }
        Err(_elapsed) => return Err(Refusal::server_gone(&host, ServerFault::Timeout).into()),
    }
    let names = asked.iter().map(|(n, _)| n.as_str());
    let pairs = names.zip(values.iter().map(|v| v.as_deref().unwrap_or_default()));
    Ok(Settings::from_pairs(pairs))
}
