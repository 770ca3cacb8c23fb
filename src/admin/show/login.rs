//! EXPLAIN LOGIN user database [address]: which rule would decide about a client, where its secret comes
//! from, and as whom the pooler would log in to the server. Nothing here shows a secret.
//!
//! It asks nobody: what a login would find out from the server or from a name server is named instead.

use pooler_protocol::auth::Secret;
use pooler_protocol::hba::{Asked, Came, Decision, Facts, Need};

use super::super::Desk;
use super::super::census::View;
use super::super::sheet::{Sheet, is, text};
use crate::config::{AuthType, CONSOLE, Config};
use crate::net::networks;
use crate::registry::Current;

/// A leg of a login.
pub(in super::super) struct Leg {
    leg: &'static str,
    says: String,
}

/// See the module.
pub(in super::super) static LOGIN: Sheet<Leg> = Sheet {
    columns: &[text("leg", |l| is(l.leg)), text("says", |l| is(&l.says))],
    lines: legs,
};

fn legs(desk: &Desk, view: &View) -> Vec<Leg> {
    let current = desk.registry.current();
    let mut words = view.words.iter().map(String::as_str);
    let (user, database) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    vec![
        Leg {
            leg: "client to pooler",
            says: gate(&current.config, user, database, words.next()),
        },
        Leg {
            leg: "secret",
            says: secret(&current, user, database),
        },
        Leg {
            leg: "pooler to server",
            says: server(&current, user, database),
        },
    ]
}

/// Which rule decides.
fn gate(config: &Config, user: &str, database: &str, from: Option<&str>) -> String {
    if config.auth.kind != AuthType::Hba {
        return format!("auth.type {}", config.auth.kind);
    }
    let came = match from {
        None | Some("local") => Came::Local,
        Some(from) => {
            let (address, encrypted) = match from.strip_suffix("+tls") {
                Some(address) => (address, true),
                None => (from, false),
            };
            match address.parse() {
                Ok(address) => Came::Tcp { address, encrypted },
                Err(_) => {
                    return format!(
                        "{from:?} is neither an address (ADDRESS or ADDRESS+tls) nor local"
                    );
                }
            }
        }
    };
    let asked = Asked {
        user,
        database,
        replication: false,
        came,
    };
    let facts = Facts {
        networks: networks().ok(),
        ..Facts::default()
    };
    match config.hba.rules.decide(&asked, &facts) {
        Decision::Rule(rule) => format!("{}: {}", rule.place, rule.text),
        Decision::None => "no rule fits: refused with 28000".to_owned(),
        Decision::Needs(Need::Roles) => {
            "depends on the roles of the user, which the server is asked for".to_owned()
        }
        Decision::Needs(Need::HostName) => {
            "depends on the name of the address, which is looked up".to_owned()
        }
        Decision::Needs(Need::Networks) => "this machine's networks cannot be listed".to_owned(),
    }
}

fn kind(secret: &Secret) -> &'static str {
    match secret {
        Secret::Plain(_) => "a plain password",
        Secret::Md5(_) => "an md5 hash",
        Secret::Scram(_) => "a SCRAM verifier",
    }
}

/// Where the user's secret comes from.
fn secret(current: &Current, user: &str, database: &str) -> String {
    let config = &current.config;
    if let Some(secret) = config.secret(user) {
        let listed = config.users.get(user).is_some_and(|u| u.password.is_some());
        let from = if listed { "[users]" } else { "auth.file" };
        return format!("{from}: {}", kind(secret));
    }
    if !config.may_look_up(user) {
        return "auth.file: listed without a secret, so no password fits".to_owned();
    }
    let lookup = current
        .lookup(database)
        .filter(|l| l.recipe().query.is_some());
    match lookup.filter(|_| !CONSOLE.contains(&database)) {
        Some(lookup) => format!(
            "auth.query, as {:?} in {:?} on cluster {:?}",
            lookup.recipe().user,
            lookup.recipe().dbname,
            lookup.recipe().cluster.name()
        ),
        None => "none: no password fits".to_owned(),
    }
}

/// As whom the pooler logs in, and with what.
fn server(current: &Current, user: &str, database: &str) -> String {
    if CONSOLE.contains(&database) {
        let rank = match (current.config.is_admin(user), current.config.is_stats(user)) {
            (true, _) => "an administrator",
            (_, true) => "one who may look",
            _ => "nobody here: refused with 42501",
        };
        return format!("none: the console; {user:?} is {rank}");
    }
    let Some(configured) = current.config.database(database) else {
        return "none: there is no such database (3D000)".to_owned();
    };
    let login = current.config.server_login(configured, user);
    let with = match login.secret {
        Some(secret @ Secret::Scram(_)) => {
            format!("{}: the client's own SCRAM proof is needed", kind(secret))
        }
        Some(secret) => kind(secret).to_owned(),
        None if login.user == user => "what the client's login leaves, if anything".to_owned(),
        None => "no secret".to_owned(),
    };
    format!(
        "cluster {:?}, as {:?} to {:?}, with {with}",
        configured.cluster,
        login.user,
        configured.dbname(database)
    )
}
