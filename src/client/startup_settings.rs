//! The settings that a client asks for in its startup packet, in the server's own words.
//!
//! A direct connection has the server judge them at login. Here a server of the pool is asked the
//! first time that a set of them turns up; what it made of them is remembered. Only
//! `application_name` is known without asking: it differs with each application and is taken as it
//! is.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pooler_protocol::backend::{ErrorView, read_data_row, tag};
use pooler_protocol::settings::{Settings, push_set_config};
use pooler_protocol::startup::{Startup, parse_options};

use super::farewell;
use crate::config::PoolSettings;
use crate::error::{Refusal, ServerFault};
use crate::net::Peer;
use crate::pool::LocalPool;
use crate::server::Welcome;

/// Bytes of a name in PostgreSQL, with its end (`NAMEDATALEN`).
const NAME_LEN: usize = 64;

/// How long a server may take to judge.
const ASK_MAX: Duration = Duration::from_secs(15);

/// The settings of the startup packet, one by one; those of `options` first, as PostgreSQL does it.
///
/// # Errors
/// What the client is told of an `options` that cannot be read.
pub(super) fn asked(
    startup: &Startup,
    peer: &Peer,
    pool: &PoolSettings,
) -> Result<Vec<(String, String)>, Refusal> {
    let mut all = Vec::new();
    for (name, value) in startup.settings() {
        if name == "options" {
            let options =
                parse_options(value).map_err(|e| Refusal::fatal(e.sqlstate(), e.to_string()))?;
            all.splice(0..0, options);
        } else {
            all.push((name.to_owned(), value.to_owned()));
        }
    }
    if adds_host(pool) {
        let at = all.iter().position(|(n, _)| n == "application_name");
        let name = at.map_or(String::new(), |at| all.remove(at).1);
        all.push(("application_name".to_owned(), format!("{name} - {peer}")));
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
        return asked(startup, peer, pool);
    }
    let settings = startup.settings();
    Ok(settings
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect())
}

/// A template names the client otherwise.
fn adds_host(pool: &PoolSettings) -> bool {
    pool.application_name_add_host && pool.application_name.is_identity()
}

/// What they are in the server's words.
///
/// # Errors
/// What the server says against them.
pub(super) async fn resolve(
    local: &Rc<LocalPool>,
    welcome: &Welcome,
    mut asked: Vec<(String, String)>,
) -> Result<Arc<Settings>, Refusal> {
    let mut application_name = None;
    asked.retain(|(name, value)| {
        if name == "application_name" && is_plain_name(value) {
            application_name = Some(value.clone());
            return false;
        }
        !is_same(welcome, name, value)
    });
    let interners = &local.commons().interners;
    let settings = if asked.is_empty() {
        interners.no_settings()
    } else if let Some(known) = local.shared().known_settings(&asked) {
        known
    } else {
        let judged = ask_server(local, &asked).await?;
        let judged = interners.settings(judged);
        local.shared().keep_settings(asked, Arc::clone(&judged));
        judged
    };
    let name = application_name.filter(|name| welcome.find("application_name") != Some(name));
    Ok(match name {
        Some(name) => interners.settings(settings.with("application_name", Some(&name))),
        None => settings,
    })
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
        let letters = |s: &str| -> String {
            let alphanumeric = s.chars().filter(char::is_ascii_alphanumeric);
            alphanumeric.map(|c| c.to_ascii_lowercase()).collect()
        };
        return letters(born_with) == letters(value);
    }
    born_with == value
}

async fn ask_server(
    local: &Rc<LocalPool>,
    asked: &[(String, String)],
) -> Result<Settings, Refusal> {
    let mut checkout = farewell::checkout(local).await.map_err(|e| e.refusal())?;
    let mut sql = String::new();
    for (name, value) in asked {
        push_set_config(&mut sql, name, Some(value));
    }
    let mut values = Vec::new();
    let mut refusal = None;
    let judged = tokio::time::timeout(
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
            return Err(refusal.unwrap_or_else(|| Refusal::server_gone(&host, fault)));
        }
        Err(_elapsed) => return Err(Refusal::server_gone(&host, ServerFault::Timeout)),
    }
    let names = asked.iter().map(|(n, _)| n.as_str());
    let pairs = names.zip(values.iter().map(|v| v.as_deref().unwrap_or_default()));
    Ok(Settings::from_pairs(pairs))
}
