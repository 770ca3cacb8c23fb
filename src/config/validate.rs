//! What no single key can tell: references, duplicates, sizes that contradict each other, and
//! set-ups that are legal and almost certainly not meant (warnings).

use std::collections::BTreeSet;

use pooler_protocol::auth::Secret;

use super::Config;
use super::error::Problems;
use super::hba;
use super::keys;
use super::reader::Document;
use super::section::{Section, Values};
use super::types::{Cluster, ListenAddress, TlsSide};
use super::words::{AuthType, Role, Routing, TlsBinding, TlsMode, TlsNegotiation};

/// Names of databases that are the console.
pub(crate) const CONSOLE: &[&str] = &["pooler", "pgbouncer"];

/// Checks the configuration as a whole.
pub(crate) fn check(config: &Config, document: &Document, problems: &mut Problems) {
    check_pooler(config, &document.pooler, problems);
    for (name, section) in &document.clusters {
        check_cluster(&config.clusters[name], section, problems);
        check_monitor(config, &config.clusters[name], document, problems);
    }
    check_unused_clusters(config, document, problems);
    for (name, section) in &document.databases {
        check_database(config, name, section, problems);
    }
    check_pool_sizes(document, problems);
    check_auth(config, document, problems);
    check_tls_files(&config.tls.client, &document.tls_client, problems);
    check_tls_files(&config.tls.server, &document.tls_server, problems);
    check_tls_to_clients(&config.tls.client, &document.tls_client, problems);
    check_tls_to_servers(&config.tls.server, &document.tls_server, problems);
    check_tracing(config, &document.tracing, problems);
}

fn check_pooler(config: &Config, section: &Section, problems: &mut Problems) {
    let pooler = &config.pooler;
    if pooler.listen.is_empty() {
        let message = "is empty; write at least one address, such as \"127.0.0.1:6432\"";
        problems.error(section.line_of("listen"), section.place("listen"), message);
    }
    let defaults = &pooler.defaults;
    if let (Some(notify), Some(timeout)) = (defaults.query_wait_notify, defaults.query_wait_timeout)
        && notify >= timeout
    {
        let message = "is not below query_wait_timeout, so that no client ever sees the notice";
        let line = section.line_of("query_wait_notify");
        problems.warn(line, section.place("query_wait_notify"), message);
    }
    if config.databases.is_empty() {
        let message = "no database is configured: add [databases.X] for clients to connect to";
        problems.warn(None, "", message);
    }
}

fn check_cluster(cluster: &Cluster, section: &Section, problems: &mut Problems) {
    let (line, place) = (section.line_of("hosts"), section.place("hosts"));
    let hosts = section.values().tables("hosts");
    if section.sets("hosts") && hosts.is_empty() {
        problems.error(
            line,
            &place,
            "is empty; write at least one { host = \"...\" }",
        );
    }
    let mut seen = BTreeSet::new();
    for host in hosts {
        let Some(built) = super::build::host(host) else {
            continue;
        };
        if let Some(message) = wrong_host(&built.host) {
            problems.error(host.line_of("host"), host.place("host"), message);
        }
        if !seen.insert((built.host.clone(), built.port)) {
            let message = format!("{built} is in this cluster already; remove one");
            problems.error(host.line_of("host"), host.place("host"), message);
        }
    }
    let pinned = cluster
        .hosts
        .iter()
        .filter(|host| host.role == Some(Role::Primary))
        .count();
    if pinned > 1 {
        let message = format!("{pinned} hosts are pinned as primary; pin one, or none");
        problems.error(line, &place, message);
    }
    let fallback = "read_fallback";
    if section.sets(fallback) && cluster.read_fallback.is_empty() {
        let message = "is empty: reads wait for the primary while no local replica can take them";
        problems.warn(section.line_of(fallback), section.place(fallback), message);
    }
}

/// A database of `cluster` of which some statements may leave the primary.
fn routed<'a>(config: &Config, cluster: &Cluster, document: &'a Document) -> Option<&'a str> {
    let here = document.databases.iter();
    let mut here = here.filter(|(name, _)| config.databases[*name].cluster == cluster.name);
    let found = here.find(|(_, database)| {
        let mut users = document.users.values().map(Some).chain([None]);
        users.any(|user| {
            let layers = [user, Some(database), Some(&document.pooler)];
            let layers = if user.is_some() {
                layers
            } else {
                [layers[1], layers[2], None]
            };
            Values { layers }.word("routing", Routing::from_word) != Routing::Off
        })
    });
    found.map(|(name, _)| name.as_str())
}

/// Whoever routes must know the hosts, and whoever looks at them must get in.
fn check_monitor(config: &Config, cluster: &Cluster, document: &Document, problems: &mut Problems) {
    let section = &document.clusters[&cluster.name];
    let key = "monitor_user";
    let (line, place) = (section.line_of(key), section.place(key));
    match &cluster.monitor_user {
        None => {
            if let Some(database) = routed(config, cluster, document) {
                let message = format!(
                    "is not set, so nothing is known of the replicas and every statement of {:?} goes to \
                     the primary; name a user that the hosts let in",
                    database
                );
                problems.warn(line, place, message);
            }
        }
        Some(user)
            if config.knows_a_secret()
                && config.secret(user).is_none()
                && config.secret_source(user).is_none() =>
        {
            let message = format!(
                "no password is known of {user:?}; add it to [users] or auth.file, unless the hosts ask \
                 for none"
            );
            problems.warn(line, place, message);
        }
        Some(_) => {}
    }
}

/// What is wrong with the name of a host.
fn wrong_host(host: &str) -> Option<String> {
    if host.starts_with('/') || host.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    if let Some((name, port)) = host.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Some(format!(
            "{host:?} has a port in it; write host = {name:?}, port = {port}"
        ));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!host.chars().all(plain)).then(|| {
        format!("{host:?} is not a host name, an address or the absolute path of a directory")
    })
}

fn check_unused_clusters(config: &Config, document: &Document, problems: &mut Problems) {
    for (name, section) in &document.clusters {
        if !config
            .databases
            .values()
            .any(|database| database.cluster == *name)
        {
            problems.warn(
                section.line,
                &section.title,
                "no database uses this cluster",
            );
        }
    }
}

fn check_database(config: &Config, name: &str, section: &Section, problems: &mut Problems) {
    let database = &config.databases[name];
    if CONSOLE.contains(&name) {
        let message = "is the name of the console; give the database another name, and dbname = \
                       its name on the server";
        problems.error(section.line, &section.title, message);
    }
    check_reference(config, &database.cluster, section, problems);
    let user = database.user.as_deref();
    if user.is_none() && database.password.is_some() {
        let key = if section.sets("password") {
            "password"
        } else {
            "password_file"
        };
        let message = "has no effect without user; set user, or put it into [users.X]";
        problems.error(section.line_of(key), section.place(key), message);
    }
    let unknown = |user: &&str| {
        config.server_login(database, user).secret.is_none()
            && config.server_secret_source(database, user).is_none()
    };
    if let Some(user) = user.filter(unknown) {
        let message = format!(
            "no password is known of {user:?}; set password, or add it to [users] or auth.file, \
             unless the server asks for none"
        );
        problems.warn(section.line_of("user"), section.place("user"), message);
    }
}

/// The cluster of a database must be there.
fn check_reference(config: &Config, cluster: &str, section: &Section, problems: &mut Problems) {
    if config.clusters.contains_key(cluster) {
        return;
    }
    let known = config.clusters.keys().map(String::as_str);
    let message = match cluster {
        _ if config.clusters.is_empty() => {
            "no cluster is configured; add [clusters.main] with hosts = [{ host = \"...\" }]".into()
        }
        "" => format!(
            "is missing; there are several: {}",
            known.collect::<Vec<_>>().join(", ")
        ),
        cluster => format!("{cluster:?}: {}", keys::unknown("cluster", cluster, known)),
    };
    problems.error(
        section.line_of("cluster"),
        section.place("cluster"),
        message,
    );
}

/// No pool may have to keep more connections open than it may have.
fn check_pool_sizes(document: &Document, problems: &mut Problems) {
    let pooler = &document.pooler;
    let sets = |section: &&Section| section.sets("min_pool_size") || section.sets("pool_size");
    for section in document.sections().filter(sets) {
        let values = Values {
            layers: [Some(section), Some(pooler), None],
        };
        let (min, max) = (values.count("min_pool_size"), values.count("pool_size"));
        if min > max {
            let message =
                format!("{min} is more than pool_size, {max}; lower it or raise pool_size");
            let line = section.line_of("min_pool_size");
            problems.error(line, section.place("min_pool_size"), message);
        }
    }
}

fn check_auth(config: &Config, document: &Document, problems: &mut Problems) {
    let section = &document.auth;
    check_lookup(config, section, problems);
    hba::check(config, section, problems);
    let (line, place) = (section.line_of("type"), section.place("type"));
    if config.auth.kind == AuthType::Trust {
        let open = config.pooler.listen.iter().find(
            |address| matches!(address, ListenAddress::Tcp(address) if !address.ip().is_loopback()),
        );
        if let Some(open) = open {
            let message = format!("trust: whoever reaches {open} can log in as any user");
            problems.warn(line, place, message);
        }
        return;
    }
    let asks_for_secrets = !matches!(config.auth.kind, AuthType::Cert | AuthType::Hba);
    if asks_for_secrets && !config.knows_a_secret() && config.auth.query.is_none() {
        let message = "nobody can log in: add users to [users] or name a user list in auth.file";
        problems.warn(line, place, message);
    }
    for key in ["admin_users", "stats_users"] {
        for name in document.pooler.values().names(key) {
            if config.knows_a_secret() && config.secret(name).is_none() {
                let message = format!("{name:?} cannot log in: no password is known");
                let pooler = &document.pooler;
                problems.warn(pooler.line_of(key), pooler.place(key), message);
            }
        }
    }
    for (name, section) in &document.users {
        let secret = config.users[name].password.as_ref();
        if let Some(message) = secret.and_then(|secret| wrong_secret(config.auth.kind, secret)) {
            problems.warn(
                section.line_of("password"),
                section.place("password"),
                message,
            );
        }
    }
}

/// Who looks users up needs something to ask, and a way in.
fn check_lookup(config: &Config, section: &Section, problems: &mut Problems) {
    let auth = &config.auth;
    let mut report = |key: &str, message: &str, fatal: bool| {
        let (line, place) = (section.line_of(key), section.place(key));
        match fatal {
            true => problems.error(line, place, message),
            false => problems.warn(line, place, message),
        }
    };
    match (&auth.user, &auth.query) {
        (None, Some(_)) => report("query", "needs auth.user, who runs it", true),
        (Some(_), None) if auth.kind != AuthType::Hba => {
            report("user", "looks nobody up without auth.query", false);
        }
        (Some(user), _)
            if config.secret(user).is_none() && config.secret_source(user).is_none() =>
        {
            let message = format!(
                "no password is known of {user:?}; add it to [users] or auth.file, unless the hosts ask \
                 for none"
            );
            report("user", &message, false);
        }
        _ => {}
    }
    if auth
        .query
        .as_ref()
        .is_some_and(|query| !query.contains("$1"))
    {
        let message =
            "does not mention $1, the name of the user; every user would get the same answer";
        report("query", message, true);
    }
}

/// Why a user with this secret cannot log in with this method.
fn wrong_secret(kind: AuthType, secret: &Secret) -> Option<&'static str> {
    match (kind, secret) {
        (AuthType::ScramSha256, Secret::Md5(_)) => {
            Some("an md5 secret cannot log in with auth.type scram-sha-256; store a SCRAM one")
        }
        _ => None,
    }
}

fn check_tls_files(side: &TlsSide, section: &Section, problems: &mut Problems) {
    let (has, lacks) = match (&side.cert, &side.key) {
        (Some(_), None) => ("cert", "key"),
        (None, Some(_)) => ("key", "cert"),
        _ => return,
    };
    let message = format!("is set and {lacks} is not; set both");
    problems.error(section.line_of(has), section.place(has), message);
}

/// What is required must be possible.
fn check_tls_to_clients(side: &TlsSide, section: &Section, problems: &mut Problems) {
    let (line, place) = (section.line_of("mode"), section.place("mode"));
    let mode = side.mode;
    if !mode.is_required() {
        return;
    }
    if side.cert.is_none() {
        let message = format!("{mode} needs cert and key: no client could connect");
        problems.error(line, place, message);
    } else if mode.is_verified() && side.ca.is_none() {
        let message = format!("{mode} needs ca: who may sign a client's certificate");
        problems.error(line, place, message);
    }
}

fn check_tls_to_servers(side: &TlsSide, section: &Section, problems: &mut Problems) {
    let mode = side.mode;
    if side.negotiation == TlsNegotiation::Direct && !mode.is_required() {
        let (line, place) = (section.line_of("negotiation"), section.place("negotiation"));
        let message =
            format!("direct cannot go on without TLS, as {mode} may; use require or more");
        problems.error(line, place, message);
    }
    if side.channel_binding == TlsBinding::Require && !mode.is_required() {
        let key = "channel_binding";
        let message =
            format!("require cannot be had without TLS, as {mode} may go on; use require or more");
        problems.error(section.line_of(key), section.place(key), message);
    }
    if mode == TlsMode::VerifyCa && side.ca.is_none() {
        let message = "verify-ca without ca: any certificate of an authority that this system trusts \
                       will do, whosever it is; set ca, or use verify-full";
        problems.warn(section.line_of("mode"), section.place("mode"), message);
    }
}

fn check_tracing(config: &Config, section: &Section, problems: &mut Problems) {
    let Some(endpoint) = &config.tracing.otlp_endpoint else {
        return;
    };
    let message = if endpoint.contains('@') {
        "names a user; write that into headers".to_owned()
    } else if config.tracing.traces_uri().is_none() {
        format!("{endpoint:?} is not a URL; write \"http://collector:4318\"")
    } else {
        return;
    };
    let key = "otlp_endpoint";
    problems.error(section.line_of(key), section.place(key), message);
}
