//! From sections to the typed structs. No judgement here: what is wrong was found by the reader or
//! is found by `validate`.

use std::path::Path;

use pooler_protocol::auth::Secret;

use super::error::Problems;
use super::keys::Table;
use super::section::Section;
use super::settings::PoolSettings;
use super::types::{
    Auth, Authorities, Cluster, Database, Host, ListenAddress, Log, Metrics, Pooler, TlsSide,
    Tracing, User,
};
use super::value::Address;
use super::words::{
    AuthType, LogFormat, LogLevel, ReadFallback, Role, TlsBinding, TlsMode, TlsNegotiation,
    TlsVersion,
};

/// The port of PgBouncer, and of a Unix socket when no TCP address says another.
const PORT: u16 = 6432;

/// `[pooler]`
pub(crate) fn pooler(section: &Section) -> Pooler {
    let values = section.values();
    Pooler {
        listen: listen(values.addresses("listen")),
        unix_socket_mode: values.file_mode("unix_socket_mode"),
        datacenter: values.text("datacenter").to_owned(),
        workers: values.count("workers"),
        batch_sends: values.flag("batch_sends"),
        admin_users: values.names("admin_users").to_owned(),
        stats_users: values.names("stats_users").to_owned(),
        max_client_conn: values.limit("max_client_conn"),
        client_login_timeout: values.timeout("client_login_timeout"),
        prepared_statement_memory: values.size("prepared_statement_memory"),
        shutdown_timeout: values.timeout("shutdown_timeout"),
        defaults: PoolSettings::read(values),
    }
}

fn listen(addresses: &[Address]) -> Vec<ListenAddress> {
    let tcp_port = addresses.iter().find_map(|address| match address {
        Address::Tcp(address) if address.port() != 0 => Some(address.port()),
        _ => None,
    });
    let port = tcp_port.unwrap_or(PORT);
    let one = |address: &Address| match address {
        Address::Tcp(address) => ListenAddress::Tcp(*address),
        Address::Directory(directory) => ListenAddress::Unix {
            directory: directory.clone(),
            port,
        },
    };
    addresses.iter().map(one).collect()
}

/// `[clusters.X]`
pub(crate) fn cluster(name: &str, section: &Section) -> Cluster {
    let values = section.values();
    Cluster {
        name: name.to_owned(),
        hosts: values.tables("hosts").iter().filter_map(host).collect(),
        max_server_connections: values.limit("max_server_connections"),
        monitor_user: values.optional_text("monitor_user"),
        monitor_dbname: values.text("monitor_dbname").to_owned(),
        monitor_interval: values.duration("monitor_interval"),
        max_replica_lag: values.timeout("max_replica_lag"),
        max_replica_lag_bytes: Some(values.size("max_replica_lag_bytes")).filter(|b| *b != 0),
        read_fallback: values.words("read_fallback", ReadFallback::from_word),
    }
}

/// A host; none if it does not even say which, which was reported.
pub(crate) fn host(section: &Section) -> Option<Host> {
    section.entries.get("host")?;
    let values = section.values();
    Some(Host {
        host: values.text("host").to_owned(),
        port: u16::try_from(values.count("port")).unwrap_or(u16::MAX),
        datacenter: values.text("datacenter").to_owned(),
        role: values.optional_word("role", Role::from_word),
        weight: u32::try_from(values.count("weight")).unwrap_or(u32::MAX),
    })
}

/// `[databases.X]`; `only_cluster` is the one that need not be named.
pub(crate) fn database(
    name: &str,
    section: &Section,
    only_cluster: Option<&String>,
    directory: &Path,
    problems: &mut Problems,
) -> Database {
    let values = section.values();
    let cluster = values
        .optional_text("cluster")
        .or_else(|| only_cluster.cloned());
    let (password, second) = passwords(section, directory, problems);
    Database {
        name: name.to_owned(),
        cluster: cluster.unwrap_or_default(),
        dbname: values.optional_text("dbname"),
        user: values.optional_text("user"),
        password,
        second,
    }
}

/// `[users.X]`
pub(crate) fn user(
    name: &str,
    section: &Section,
    directory: &Path,
    problems: &mut Problems,
) -> User {
    let (password, second) = passwords(section, directory, problems);
    User {
        name: name.to_owned(),
        password,
        second,
    }
}

/// What `password` or `password_file` says, and the second one.
fn passwords(
    section: &Section,
    directory: &Path,
    problems: &mut Problems,
) -> (Option<Secret>, Option<Secret>) {
    let values = section.values();
    let (line, place) = (|key| section.line_of(key), |key| section.place(key));
    let second = values.secret("second_password");
    if !values.names("password_command").is_empty() {
        for key in ["password", "password_file", "second_password"] {
            if section.sets(key) {
                let message = "password_command is set too; keep one of the two";
                problems.error(line(key), place(key), message);
            }
        }
        return (None, None);
    }
    let texts = match (
        values.secret("password"),
        values.file("password_file", directory),
    ) {
        (None, None) => {
            if second.is_some() {
                let key = "second_password";
                problems.error(line(key), place(key), "there is no first: set password");
            }
            return (None, None);
        }
        (Some(_), Some(_)) => {
            let key = "password_file";
            problems.error(
                line(key),
                place(key),
                "password is set too; keep one of the two",
            );
            return (None, None);
        }
        (Some(first), None) => {
            let first = ("password", first.0.clone());
            [
                Some(first),
                second.map(|s| ("second_password", s.0.clone())),
            ]
        }
        (None, Some(file)) => {
            let key = "password_file";
            if second.is_some() {
                let key = "second_password";
                problems.error(
                    line(key),
                    place(key),
                    "put it into the second line of password_file",
                );
            }
            match std::fs::read_to_string(&file) {
                Ok(text) => {
                    let mut lines = text.lines();
                    let first = lines.next().unwrap_or_default().to_owned();
                    let second = lines.next().filter(|line| !line.is_empty());
                    [
                        Some((key, first)),
                        second.map(|line| (key, line.to_owned())),
                    ]
                }
                Err(error) => {
                    let message = format!("cannot read {}: {error}", file.display());
                    problems.error(line(key), place(key), message);
                    return (None, None);
                }
            }
        }
    };
    let [first, second] = texts.map(|text| {
        let (key, text) = text?;
        let secret = Secret::parse(&text);
        secret
            .map_err(|e| problems.error(line(key), place(key), e.to_string()))
            .ok()
    });
    (first, second)
}

/// `[auth]`
pub(crate) fn auth(section: &Section, directory: &Path) -> Auth {
    let values = section.values();
    Auth {
        kind: values.word("type", AuthType::from_word),
        file: values.file("file", directory),
        hba_file: values.file("hba_file", directory),
        ident_file: values.file("ident_file", directory),
        map: values.optional_text("map"),
        user: values.optional_text("user"),
        query: values.optional_text("query"),
        dbname: values.text("dbname").to_owned(),
        cache_time: values.timeout("cache_time").unwrap_or_default(),
        max_login_failures: values.limit("max_login_failures"),
        lookup_timeout: values.duration("lookup_timeout"),
        ldap_timeout: values.duration("ldap_timeout"),
        pam_dir: values.file("pam_dir", directory),
        pam_timeout: values.duration("pam_timeout"),
    }
}

/// `[tls.client]` or `[tls.server]`
pub(crate) fn tls_side(section: &Section, directory: &Path) -> TlsSide {
    let values = section.values();
    TlsSide {
        mode: values.word("mode", TlsMode::from_word),
        cert: values.file("cert", directory),
        key: values.file("key", directory),
        ca: values.file("ca", directory),
        min_version: values.word("min_version", TlsVersion::from_word),
        ciphers: values.names("ciphers").to_owned(),
        negotiation: match section.table {
            Table::TlsServer => values.word("negotiation", TlsNegotiation::from_word),
            _ => TlsNegotiation::Postgres,
        },
        channel_binding: match section.table {
            Table::TlsServer => values.word("channel_binding", TlsBinding::from_word),
            _ => TlsBinding::Prefer,
        },
    }
}

/// `[metrics]`
pub(crate) fn metrics(section: &Section) -> Metrics {
    let values = section.values();
    Metrics {
        listen: values.address("listen"),
        max_pools: values.limit("max_pools"),
        status_page: values.flag("status_page"),
        hosts: values.names("hosts").to_owned(),
    }
}

/// `[log]`
pub(crate) fn log(section: &Section) -> Log {
    let values = section.values();
    Log {
        format: values.word("format", LogFormat::from_word),
        level: values.word("level", LogLevel::from_word),
        slow_query: values.slow_query("slow_query"),
        slow_query_sample_rate: values.ratio("slow_query_sample_rate"),
        slow_query_literals: values.flag("slow_query_literals"),
        slow_query_parameters: values.flag("slow_query_parameters"),
        connections: values.flag("connections"),
    }
}

/// `[tracing]`
pub(crate) fn tracing(section: &Section) -> Tracing {
    let values = section.values();
    Tracing {
        otlp_endpoint: values.optional_text("otlp_endpoint"),
        sample_ratio: values.ratio("sample_ratio"),
        headers: values.headers("headers"),
    }
}

/// By what the certificate of a collector is judged, if there is one to be.
pub(crate) fn tracing_authorities(section: &Section, directory: &Path) -> Option<Authorities> {
    let uri = tracing(section).traces_uri()?;
    let ca = section.values().file("ca", directory);
    (uri.scheme_str() == Some("https")).then_some(Authorities { ca })
}
