//! `pooler check --connect CONFIG`: logs in wherever the pooler would, and says which leg fails.
//!
//! Each host of each cluster is tried as the monitor's user, as `auth.user`, and for each database as each
//! user of whom enough is known. No message repeats a secret.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use pooler_protocol::auth::Secret;
use pooler_protocol::settings::Settings;

use crate::config::{Cluster, Config};
use crate::net::Address;
use crate::pool::liveness;
use crate::registry::credentials;
use crate::server::Interners;
use crate::server::login::{Target, login};
use crate::tls::Tls;

/// How long one login may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A login that the pooler would make.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Leg {
    database: String,
    user: String,
    what: &'static str,
}

/// The text, and how many logins failed.
///
/// # Errors
/// What the system says.
pub fn connect(config: &Config, tls: &Tls) -> io::Result<(String, usize)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(connect_all(config, tls)))
}

async fn connect_all(config: &Config, tls: &Tls) -> (String, usize) {
    let no_settings = Interners::new(1).no_settings();
    let mut text = String::new();
    let mut failed = 0;
    for cluster in config.clusters.values() {
        // A String takes all that is written to it.
        let _written = writeln!(text, "\nLogins on cluster {}", cluster.name);
        for host in &cluster.hosts {
            let address = Address::new(&host.host, host.port);
            for leg in legs(config, cluster) {
                let result = try_leg(config, tls, &address, &leg, &no_settings).await;
                failed += usize::from(result.is_err());
                let said = match result {
                    Ok(said) => said.to_owned(),
                    Err(why) => format!("FAILED: {why}"),
                };
                let Leg {
                    database,
                    user,
                    what,
                } = leg;
                let _written = writeln!(text, "  {host}  {what}, {user:?} to {database:?}: {said}");
            }
        }
    }
    (text, failed)
}

/// What the pooler logs in for on a host of `cluster`, each once.
fn legs(config: &Config, cluster: &Cluster) -> BTreeSet<Leg> {
    let mut legs = BTreeSet::new();
    let mut put = |what, user: &str, database: &str| {
        legs.insert(Leg {
            database: database.to_owned(),
            user: user.to_owned(),
            what,
        });
    };
    if let Some(user) = &cluster.monitor_user {
        put("monitor", user, &cluster.monitor_dbname);
    }
    if let Some(user) = &config.auth.user {
        put("look-ups", user, &config.auth.dbname);
    }
    let here = config.databases.values();
    for database in
        here.filter(|d| d.cluster == cluster.name && (d.name != "*" || d.dbname.is_some()))
    {
        let dbname = database.dbname(&database.name);
        match &database.user {
            Some(user) => put("clients", user, dbname),
            None => {
                let users = config
                    .user_names()
                    .filter(|user| config.secret(user).is_some());
                users.for_each(|user| put("clients", user, dbname));
            }
        }
    }
    legs
}

async fn try_leg(
    config: &Config,
    tls: &Tls,
    address: &Address,
    leg: &Leg,
    no_settings: &Arc<Settings>,
) -> Result<&'static str, String> {
    let own = config.databases.values().find(|d| {
        d.user.as_ref() == Some(&leg.user)
            && d.dbname(&d.name) == leg.database
            && (d.password.is_some() || config.server_secret_source(d, &leg.user).is_some())
    });
    let (secret, second, source) = match (leg.what, own) {
        ("clients", Some(own)) => (
            own.password.as_ref(),
            own.second.as_ref(),
            config.server_secret_source(own, &leg.user),
        ),
        _ => (
            config.secret(&leg.user),
            config.second_secret(&leg.user),
            config.secret_source(&leg.user),
        ),
    };
    if matches!(secret, Some(Secret::Scram(_))) {
        return Ok("not tried: of a verifier, only a client's proof logs in");
    }
    let target = Target {
        address: address.clone(),
        database: &leg.database,
        user: &leg.user,
        credentials: &Arc::new(credentials(secret, second, source)),
        parameters: &[("application_name".to_owned(), "pooler check".to_owned())],
        liveness: liveness(&config.pooler.defaults),
        no_settings: Arc::clone(no_settings),
        tls: Arc::clone(&tls.server),
    };
    match tokio::time::timeout(PATIENCE, login(&target)).await {
        Ok(Ok((mut server, _))) => {
            server.terminate();
            Ok("ok")
        }
        Ok(Err(e)) => Err(e.to_string()),
        Err(_elapsed) => Err(format!("no answer within {PATIENCE:?}")),
    }
}
