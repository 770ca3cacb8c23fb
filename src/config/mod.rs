//! The configuration: reading a file into typed structs that are checked to the last reference.
//!
//! The way of a file: `reader` turns text into sections by the table of keys (`keys`, `table`),
//! `build` turns sections into structs, `validate` checks what spans several keys. Every problem is
//! collected and reported with file, line and key; a `Config` exists only if there was none, so
//! whoever holds one need not check it again. Blocking: it reads the files that are named.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pooler_protocol::auth::Secret;

use self::error::Problems;
use self::reader::Document;
use self::section::{Section, Values};
use self::userlist::Userlist;

mod assign;
mod bound;
mod build;
mod error;
mod hba;
mod keys;
mod reader;
mod reread;
mod rows;
mod section;
mod settings;
mod show;
mod table;
mod types;
mod units;
mod userlist;
mod validate;
mod value;
mod words;

pub(crate) use self::bound::{HostBound, counted};
pub(crate) use self::units::{parse_duration, show_duration, show_size};
pub(crate) use self::validate::CONSOLE;

#[cfg(test)]
mod bad_files;
#[cfg(test)]
mod example;
#[cfg(test)]
mod tests;

pub use self::assign::AssignError;
pub use self::error::{ConfigError, Problem};
pub use self::hba::Hba;
pub use self::reread::SecretSource;
pub use self::settings::PoolSettings;
pub use self::show::ShownKey;
pub use self::types::{
    Auth, Authorities, Cluster, Database, Host, Limit, ListenAddress, Log, Metrics, Pooler,
    ServerLogin, Tls, TlsSide, Tracing, User,
};
pub use self::words::{
    AuthType, LogFormat, LogLevel, OnSessionState, PoolMode, ReadConsistency, ReadFallback, Role,
    Route, Routing, TlsBinding, TlsMode, TlsNegotiation, TlsVersion,
};

/// The name of the database that matches any other.
const ANY_DATABASE: &str = "*";

/// A whole configuration. It does not change; a reload makes another.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// `[pooler]`
    pub pooler: Pooler,
    /// `[clusters.X]` by X.
    pub clusters: BTreeMap<String, Cluster>,
    /// `[databases.X]` by X, `*` included.
    pub databases: BTreeMap<String, Database>,
    /// `[users.X]` by X; the user list is behind `secret`.
    pub users: BTreeMap<String, User>,
    /// `[auth]`
    pub auth: Auth,
    /// The rules and maps of the files that `[auth]` names.
    pub hba: Hba,
    /// `[tls.client]` and `[tls.server]`
    pub tls: Tls,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[log]`
    pub log: Log,
    /// `[tracing]`
    pub tracing: Tracing,
    /// What is legal and perhaps not meant; with file, line and key.
    pub warnings: Vec<String>,
    /// Keys of `[pooler]` that were changed while the pooler runs.
    assigned: BTreeSet<&'static str>,
    userlist: Userlist,
    /// The tables that stand in the file once; `[pooler]` first.
    single_sections: Vec<Section>,
    database_sections: BTreeMap<String, Section>,
    user_sections: BTreeMap<String, Section>,
}

impl Config {
    /// Reads a file, and the files that it names.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Config::parse(&text, path)
    }

    /// Reads `text` as if it were the file at `path`; files that it names are looked for there.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let mut problems = Problems::new(path);
        let Some(document) = reader::read(text, &mut problems) else {
            return Err(problems.into_error());
        };
        let mut config = Config::build(path, &document, &mut problems);
        validate::check(&config, &document, &mut problems);
        config.warnings = problems.finish()?;
        config.keep(document);
        Ok(config)
    }

    /// The database that a client asked for by this name: itself, or else `*`.
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases
            .get(name)
            .or_else(|| self.databases.get(ANY_DATABASE))
    }

    /// The cluster of a database of this configuration.
    pub fn cluster(&self, database: &Database) -> &Cluster {
        self.clusters
            .get(&database.cluster)
            .expect("BUG: a database of another configuration")
    }

    /// What holds for a client that asked for `database` as `user`: what the user sets, else the
    /// database (or `*`), else `[pooler]`. For once a login or pool: it looks up every key.
    pub fn pool_settings(&self, database: &str, user: &str) -> PoolSettings {
        let databases = &self.database_sections;
        let database = databases
            .get(database)
            .or_else(|| databases.get(ANY_DATABASE));
        let pooler = self.single_sections.first();
        PoolSettings::read(Values {
            layers: [self.user_sections.get(user), database, pooler],
        })
    }

    /// What is known of a user's password: from `[users]`, else from the user list.
    pub fn secret(&self, user: &str) -> Option<&Secret> {
        let configured = self.users.get(user).and_then(|user| user.password.as_ref());
        configured.or_else(|| self.userlist.get(user).and_then(Option::as_ref))
    }

    /// Whether somebody has a verifier in place of a password: it is listed, or looked up.
    pub fn has_verifiers(&self) -> bool {
        let configured = self.users.values().filter_map(|u| u.password.as_ref());
        let mut listed = configured.chain(self.userlist.values().flatten());
        self.auth.query.is_some() || listed.any(|secret| matches!(secret, Secret::Scram(_)))
    }

    /// A second password that is right, of a user who has a first.
    pub fn second_secret(&self, user: &str) -> Option<&Secret> {
        self.users.get(user)?.second.as_ref()
    }

    /// Whether a user of this name may be looked up: `[users]` has no password of it, and the user list
    /// does not name it. One that is listed with an empty secret has none.
    pub fn may_look_up(&self, user: &str) -> bool {
        self.secret(user).is_none() && !self.userlist.contains_key(user)
    }

    /// The databases of `cluster` of which some statements may leave the primary.
    pub fn routed<'a>(&'a self, cluster: &'a Cluster) -> impl Iterator<Item = &'a Database> {
        let here = self
            .databases
            .values()
            .filter(|d| d.cluster == cluster.name);
        here.filter(|database| {
            let mut users = self.users.keys().map(String::as_str).chain([""]);
            users.any(|user| self.pool_settings(&database.name, user).routing != Routing::Off)
        })
    }

    /// Names of every user that is configured or in the user list, each once.
    pub fn user_names(&self) -> impl Iterator<Item = &str> {
        let listed = self
            .userlist
            .keys()
            .filter(|name| !self.users.contains_key(*name));
        self.users.keys().chain(listed).map(String::as_str)
    }

    /// As whom to log in to the server of `database` for a client who is `client_user`.
    pub fn server_login<'a>(
        &'a self,
        database: &'a Database,
        client_user: &'a str,
    ) -> ServerLogin<'a> {
        match database.user.as_deref() {
            None => ServerLogin {
                user: client_user,
                secret: self.secret(client_user),
                second: self.second_secret(client_user),
            },
            Some(user) => {
                let (secret, second) = match &database.password {
                    Some(own) => (Some(own), database.second.as_ref()),
                    None => (self.secret(user), self.second_secret(user)),
                };
                ServerLogin {
                    user,
                    secret,
                    second,
                }
            }
        }
    }

    /// Whether a user may do everything in the console.
    pub fn is_admin(&self, user: &str) -> bool {
        self.pooler.admin_users.iter().any(|name| name == user)
    }

    /// Whether a user may look at everything in the console; administrators may, too.
    pub fn is_stats(&self, user: &str) -> bool {
        self.is_admin(user) || self.pooler.stats_users.iter().any(|name| name == user)
    }

    fn knows_a_secret(&self) -> bool {
        self.user_names().any(|name| self.secret(name).is_some())
    }

    /// The structs, without the sections that only a finished configuration needs.
    fn build(path: &Path, document: &Document, problems: &mut Problems) -> Config {
        let directory = path.parent().unwrap_or(Path::new(""));
        let only_cluster = match document.clusters.len() {
            1 => document.clusters.keys().next(),
            _ => None,
        };
        let auth = build::auth(&document.auth, directory);
        let userlist = read_userlist(&auth, &document.auth, problems);
        let hba = hba::read(&auth, &document.auth, problems);
        let ldap_tls = hba.ldap_tls(&document.auth, directory);
        let clusters = document.clusters.iter();
        let databases = document.databases.iter();
        let users = document.users.iter();
        Config {
            path: path.to_owned(),
            pooler: build::pooler(&document.pooler),
            clusters: clusters
                .map(|(x, s)| (x.clone(), build::cluster(x, s)))
                .collect(),
            databases: databases
                .map(|(x, s)| {
                    (
                        x.clone(),
                        build::database(x, s, only_cluster, directory, problems),
                    )
                })
                .collect(),
            users: users
                .map(|(x, s)| (x.clone(), build::user(x, s, directory, problems)))
                .collect(),
            auth,
            hba,
            tls: Tls {
                client: build::tls_side(&document.tls_client, directory),
                server: build::tls_side(&document.tls_server, directory),
                ldap: ldap_tls,
                otlp: build::tracing_authorities(&document.tracing, directory),
            },
            metrics: build::metrics(&document.metrics),
            log: build::log(&document.log),
            tracing: build::tracing(&document.tracing),
            warnings: Vec::new(),
            userlist,
            assigned: BTreeSet::new(),
            single_sections: Vec::new(),
            database_sections: BTreeMap::new(),
            user_sections: BTreeMap::new(),
        }
    }

    /// Keeps what `pool_settings` and `show` read, without the secrets.
    fn keep(&mut self, mut document: Document) {
        let named = document
            .databases
            .values_mut()
            .chain(document.users.values_mut());
        named.for_each(Section::forget_secrets);
        self.single_sections = document.single_sections().cloned().collect();
        self.database_sections = document.databases;
        self.user_sections = document.users;
    }
}

/// The user list that `[auth]` names, or an empty one.
fn read_userlist(auth: &Auth, section: &Section, problems: &mut Problems) -> Userlist {
    let Some(file) = &auth.file else {
        return Userlist::new();
    };
    match std::fs::read_to_string(file) {
        Ok(text) => userlist::parse(&text, file, problems),
        Err(error) => {
            let message = format!("cannot read {}: {error}", file.display());
            problems.error(section.line_of("file"), section.place("file"), message);
            Userlist::new()
        }
    }
}
