//! What a configuration means once it is read.

use std::path::Path;
use std::time::Duration;

use super::*;

pub(super) fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("pooler.toml"))
}

pub(super) fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Lines that make a configuration without warnings, so that those of a test stand alone.
pub(super) const BASE: &str = "[clusters.main]\nhosts = [{ host = \"db1\" }]\n[databases.app]\n\
                    [users.app]\npassword = \"x\"\n";

#[test]
fn all_problems_come_in_the_order_of_the_file() {
    let error = parse("[log]\nlevel = 1\n[pooler]\nworkers = -1\nlissten = []\n").expect_err("bad");
    assert_eq!(
        error.to_string(),
        "pooler.toml:2: [log] level: expected a text, not 1\n\
         pooler.toml:4: [pooler] workers: -1 is out of range; write a number from 0 to 1000000 \
         (threads)\n\
         pooler.toml:5: [pooler] lissten: unknown key; the nearest known one is listen"
    );
}

#[test]
fn what_is_not_toml_is_reported_alone() {
    let error = parse("[pooler]\nworkers = \npool_sice = 5\n")
        .expect_err("bad")
        .to_string();
    assert!(error.starts_with("pooler.toml:2: not TOML: "), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    let error = parse("[log]\nlevel = \"info\"\n[log]\n")
        .expect_err("bad")
        .to_string();
    assert!(
        error.starts_with("pooler.toml:3: not TOML: duplicate key"),
        "{error}"
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nowhere/pooler.toml")).expect_err("not there");
    assert!(
        error
            .to_string()
            .starts_with("/nowhere/pooler.toml: cannot read the configuration")
    );
}

#[test]
fn t63_no_message_and_no_debug_output_repeats_a_secret() {
    let text = format!("{BASE}[users.ops]\npassword = \"hunter2\"\n[pooler]\n");
    let config = good(&text);
    assert!(!format!("{config:?}").contains("hunter2"));
    for bad in [
        "password = \"SCRAM-SHA-256$hunter2\"",
        "password = [\"hunter2\"]",
        "password = hunter2",
        "password = \"hunter2",
        "password = \"hunter2\\q\"",
    ] {
        let error = parse(&format!("[users.ops]\n{bad}\n")).expect_err(bad);
        assert!(!format!("{error}{error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn an_empty_file_holds_every_default() {
    let config = good("");
    assert_eq!(config.pooler.listen[0].to_string(), "127.0.0.1:6432");
    assert_eq!(config.pooler.max_client_conn.count(), Some(10_000));
    assert_eq!(config.pooler.prepared_statement_memory, 256 << 20);
    assert_eq!(config.pooler.shutdown_timeout, None);
    let defaults = &config.pooler.defaults;
    assert_eq!(defaults, &config.pool_settings("any", "one"));
    assert_eq!(
        (defaults.pool_mode, defaults.pool_size),
        (PoolMode::Transaction, 20)
    );
    assert_eq!(defaults.server_lifetime, Some(Duration::from_secs(3600)));
    assert_eq!(defaults.client_idle_timeout, None);
    assert_eq!(defaults.max_db_connections, Limit::NONE);
    assert_eq!(config.auth.kind, AuthType::ScramSha256);
    assert_eq!(config.log.slow_query, Some(Duration::from_millis(500)));
    assert_eq!(config.metrics.listen.map(|a| a.port()), Some(9930));
    for shown in config.show() {
        assert_eq!(shown.value, shown.default, "{}", shown.key);
    }
}

#[test]
fn t46_zero_is_never_or_no_limit() {
    let config = good(
        "[pooler]\nquery_wait_timeout = 0\nserver_lifetime = \"0s\"\nmax_client_conn = 0\n\
         tcp_keepalive = \"0\"\nquery_wait_notify = \"0ms\"\n[log]\nslow_query = 0\n",
    );
    let defaults = &config.pooler.defaults;
    assert_eq!(defaults.query_wait_timeout, None);
    assert_eq!(defaults.server_lifetime, None);
    assert_eq!(defaults.tcp_keepalive, None);
    assert_eq!(defaults.query_wait_notify, None);
    assert_eq!(config.pooler.max_client_conn, Limit::NONE);
    assert!(Limit::NONE.allows(usize::MAX) && Limit::new(2).allows(1) && !Limit::new(2).allows(2));
    assert_eq!(
        config.log.slow_query,
        Some(Duration::ZERO),
        "0 logs every statement"
    );
    assert_eq!(good("[log]\nslow_query = \"off\"").log.slow_query, None);
}

#[test]
fn a_user_wins_over_a_database_and_that_over_the_defaults() {
    let config = good(
        "[pooler]\npool_size = 1\nquery_timeout = \"1s\"\npool_mode = \"session\"\n\
         [clusters.main]\nhosts = [{ host = \"db1\" }]\n\
         [databases.app]\npool_size = 2\nquery_timeout = \"2s\"\n\
         [databases.\"*\"]\npool_size = 4\n\
         [users.report]\npool_size = 3\n",
    );
    for (database, user, pool_size, seconds) in [
        ("app", "report", 3, 2),
        ("app", "other", 2, 2),
        ("unknown", "other", 4, 1),
        ("unknown", "report", 3, 1),
    ] {
        let settings = config.pool_settings(database, user);
        assert_eq!(settings.pool_size, pool_size, "{database} {user}");
        assert_eq!(settings.query_timeout, Some(Duration::from_secs(seconds)));
        assert_eq!(settings.pool_mode, PoolMode::Session);
    }
}

#[test]
fn min_pool_size_never_exceeds_the_pool() {
    let config = good(
        "[clusters.main]\nhosts = [{ host = \"db1\" }]\n[databases.app]\nmin_pool_size = 10\n\
         [users.report]\npool_size = 3\n",
    );
    assert_eq!(config.pool_settings("app", "report").min_pool_size, 3);
    assert_eq!(config.pool_settings("app", "other").min_pool_size, 10);
}

#[test]
fn databases_find_their_cluster_name_and_login() {
    let config = good(
        "[clusters.main]\nhosts = [{ host = \"/run/pg\" }, { host = \"::1\", port = 5433, role = \
         \"master\" }]\n[databases.\"*\"]\n[databases.app]\ndbname = \"app_v2\"\nuser = \"web\"\n\
         [users.web]\npassword = \"w\"\n[users.ann]\npassword = \"a\"\n",
    );
    let app = config.database("app").expect("configured");
    assert_eq!(app.dbname("app"), "app_v2");
    assert_eq!(config.cluster(app).name, "main");
    let login = config.server_login(app, "ann");
    assert_eq!(login.user, "web");
    assert!(login.secret.expect("known").check_password("web", b"w"));
    let any = config.database("other").expect("any other name");
    assert_eq!((any.name.as_str(), any.dbname("other")), ("*", "other"));
    assert_eq!(config.server_login(any, "ann").user, "ann");
    assert!(config.server_login(any, "bob").secret.is_none());
    let hosts = &config.clusters["main"].hosts;
    assert_eq!(hosts[0].socket_path(), Some("/run/pg/.s.PGSQL.5432".into()));
    assert_eq!(hosts[1].to_string(), "[::1]:5433");
    assert_eq!(config.clusters["main"].primary(), &hosts[1]);
}

#[test]
fn listen_addresses_share_a_port() {
    let config = good("[pooler]\nlisten = [\"/run/pooler\", \"localhost:7000\", \"[::]:7001\"]");
    let shown: Vec<_> = config
        .pooler
        .listen
        .iter()
        .map(|address| address.to_string())
        .collect();
    assert_eq!(
        shown,
        ["/run/pooler/.s.PGSQL.7000", "127.0.0.1:7000", "[::]:7001"]
    );
}

#[test]
fn secrets_come_from_users_then_from_the_list() {
    let directory = std::env::temp_dir().join(format!("pooler-config-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let list = "\"app\" \"from the list\"\n\"ops\" \"listed\"\n";
    std::fs::write(directory.join("userlist.txt"), list).expect("written");
    std::fs::write(directory.join("secret"), "from a file\nmore\n").expect("written");
    let text = "[auth]\nfile = \"userlist.txt\"\n[users.app]\npassword_file = \"secret\"\n\
                [users.ops]\npool_size = 1\n";
    let config = Config::parse(text, &directory.join("pooler.toml"));
    std::fs::remove_dir_all(&directory).expect("removed");
    let config = config.expect("right");
    let knows = |user: &str, password: &[u8]| {
        config
            .secret(user)
            .is_some_and(|secret| secret.check_password(user, password))
    };
    assert!(knows("app", b"from a file"));
    assert!(knows("ops", b"listed"));
    assert!(config.secret("nobody").is_none());
    assert_eq!(config.user_names().collect::<Vec<_>>(), ["app", "ops"]);
}

#[test]
fn a_reload_names_what_needs_a_restart() {
    let old = good("");
    assert!(
        old.restart_needed(&good("[pooler]\nlisten = [\"127.0.0.1:6432\"]"))
            .is_empty()
    );
    let new = good(
        "[pooler]\nlisten = [\"127.0.0.1:7432\"]\nworkers = 3\npool_size = 7\n[log]\nlevel = \
         \"debug\"\n[metrics]\nlisten = \"\"\n",
    );
    assert_eq!(
        old.restart_needed(&new),
        ["listen", "workers", "metrics.listen"]
    );
    let shown = new.show();
    let find = |key: &str| shown.iter().find(|shown| shown.key == key).expect(key);
    let listen = find("metrics.listen");
    assert_eq!(
        (listen.value.as_str(), listen.default.as_str()),
        ("", "127.0.0.1:9930")
    );
    assert!(!listen.changeable && find("pool_size").changeable);
    assert_eq!(find("pool_size").value, "7");
    assert_eq!(find("query_wait_timeout").value, "2m");
}
