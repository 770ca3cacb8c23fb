//! Files that are wrong, or odd, and every message that they give.

use super::tests::{BASE, good, parse};

/// Bad text and all that is said about it, without the name of the file.
const BAD: &[(&str, &str)] = &[
    // Names.
    (
        "[pooler]\npool_sice = 5",
        "2: [pooler] pool_sice: unknown key; the nearest known one is pool_size",
    ),
    (
        "[pooler]\nxyzzy = 5\n",
        "2: [pooler] xyzzy: unknown key; known here: ",
    ),
    (
        "[poler]\nworkers = 1",
        "1: poler: unknown table; the nearest known one is pooler",
    ),
    (
        "workers = 1",
        "1: workers: stands outside of every table; put it below one, such as [pooler]",
    ),
    ("pooler = 1", "1: pooler: is a table: write [pooler]"),
    (
        "databases.app = 1",
        "1: [databases.app]: is a table, not a value",
    ),
    (
        "[users.\"\"]",
        "1: [users.\"\"]: has an empty name; name it",
    ),
    (
        "[tls.clients]",
        "1: tls.clients: unknown table; the nearest known one is client",
    ),
    (
        "[users.app]\nworkers = 1",
        "2: [users.app] workers: does not belong here; it stands in [pooler]",
    ),
    (
        "[users.app]\nmax_db_connections = 1",
        "2: [users.app] max_db_connections: does not belong here; it stands in [pooler] and \
         [databases.X]",
    ),
    (
        "[pooler]\ndefault_pool_size = 20",
        "2: [pooler] default_pool_size: unknown key; what PgBouncer calls default_pool_size is \
         pool_size here",
    ),
    // Values.
    (
        "[pooler]\nworkers = \"many\"",
        "2: [pooler] workers: expected a number (threads), not \"many\"",
    ),
    (
        "[pooler]\npool_size = 0",
        "2: [pooler] pool_size: 0 is out of range; write a number from 1 to 1000000 (server \
         connections)",
    ),
    (
        "[pooler]\nmax_client_conn = -1",
        "2: [pooler] max_client_conn: -1 is out of range; write a number from 0 to 1000000 \
         (clients)",
    ),
    (
        "[pooler]\nquery_timeout = 15",
        "2: [pooler] query_timeout: 15 has no unit; write a duration such as \"15s\"",
    ),
    (
        "[users.\"a b\"]\nquery_timeout = \"15 parsecs\"",
        "2: [users.\"a b\"] query_timeout: \"15 parsecs\" is not a duration; write a whole number \
         and us, ms, s, m, h or d: \"15s\", \"500ms\"",
    ),
    (
        "[pooler]\nserver_login_retry = \"0\"",
        "2: [pooler] server_login_retry: must be more than 0; write a duration such as \"15s\"",
    ),
    (
        "[pooler]\nprepared_statement_memory = \"256 MiB\"",
        "2: [pooler] prepared_statement_memory: \"256 MiB\" is not a size; write a whole number \
         and B, kB, MB, GB or TB: \"64kB\"",
    ),
    (
        "[pooler]\npool_mode = \"transactional\"",
        "2: [pooler] pool_mode: \"transactional\" is not one of session, transaction, statement",
    ),
    (
        "[pooler]\napplication_name_add_host = 1",
        "2: [pooler] application_name_add_host: expected true or false, not 1",
    ),
    (
        "[pooler]\napplication_name = \"{host}\"",
        "2: [pooler] application_name: {host} is not one of {application}, {client}, {user}, {database}, {pooler}",
    ),
    (
        "[pooler]\nunix_socket_mode = \"999\"",
        "2: [pooler] unix_socket_mode: expected permissions such as \"0770\", not \"999\"",
    ),
    (
        "[pooler]\nlisten = \"127.0.0.1:6432\"",
        "2: [pooler] listen: expected a list of addresses in [ ], not \"127.0.0.1:6432\"",
    ),
    (
        "[pooler]\nlisten = [\"*:6432\"]",
        "2: [pooler] listen: \"*:6432\" is not an address to listen on; write \"0.0.0.0:6432\", \
         \"[::]:6432\" or the absolute path of a directory",
    ),
    (
        "[pooler]\nlisten = []",
        "2: [pooler] listen: is empty; write at least one address, such as \"127.0.0.1:6432\"",
    ),
    (
        "[pooler]\nadmin_users = [\"a\", \"a\"]",
        "2: [pooler] admin_users: \"a\" stands there twice; remove one",
    ),
    (
        "[users.u]\npassword = 5",
        "2: [users.u] password: expected a text in quotes, not integer",
    ),
    (
        "[users.u]\npassword = \"SCRAM-SHA-256$broken\"",
        "2: [users.u] password: malformed SCRAM-SHA-256 verifier",
    ),
    (
        "[metrics]\nlisten = \"9930\"",
        "2: [metrics] listen: \"9930\" is not an address; write \"127.0.0.1:9930\", or \"\" \
         for none",
    ),
    (
        "[log]\nslow_query = 5",
        "2: [log] slow_query: 5 has no unit; write a duration such as \"500ms\", or \"off\"",
    ),
    (
        "[tracing]\notlp_endpoint = \"collector\"",
        "2: [tracing] otlp_endpoint: \"collector\" is not a URL; write \"http://collector:4318\"",
    ),
    (
        "[tracing]\notlp_endpoint = \"http://me:secret@collector:4318\"",
        "2: [tracing] otlp_endpoint: names a user; write that into headers",
    ),
    (
        "[tracing]\nheaders = { authorization = \"a\\nb\" }",
        "2: [tracing] headers: authorization: its value is none that a header can have",
    ),
    (
        "[tracing]\nheaders = { \"a b\" = \"c\" }",
        "2: [tracing] headers: \"a b\" is not the name of a header",
    ),
    (
        "[tracing]\nheaders = [\"a\"]",
        "2: [tracing] headers: expected a table such as { authorization = \"...\" }, not array",
    ),
    // Clusters.
    (
        "[clusters.a]",
        "1: [clusters.a] hosts: is missing; it has no default",
    ),
    (
        "[clusters.a]\nhosts = []",
        "2: [clusters.a] hosts: is empty; write at least one { host = \"...\" }",
    ),
    (
        "[clusters.a]\nhosts = \"db1\"",
        "2: [clusters.a] hosts: expected a list of tables, not \"db1\"",
    ),
    (
        "[clusters.a]\nhosts = [\"db1\"]",
        "2: [clusters.a] hosts[0]: is a table: write { host = \"...\" }\n\
         2: [clusters.a] hosts: is empty; write at least one { host = \"...\" }",
    ),
    (
        "[clusters.a]\nhosts = [\n  { host = \"db1\" },\n  { hots = \"db2\" },\n]",
        "4: [clusters.a] hosts[1].hots: unknown key; the nearest known one is host\n\
         4: [clusters.a] hosts[1].host: is missing; it has no default",
    ),
    (
        "[clusters.a]\nhosts = [{ host = \"db1\" }, { host = \"db1\", port = 5432 }]",
        "2: [clusters.a] hosts[1].host: db1:5432 is in this cluster already; remove one",
    ),
    (
        "[clusters.a]\nhosts = [{ host = \"db1:5433\" }]",
        "2: [clusters.a] hosts[0].host: \"db1:5433\" has a port in it; write host = \"db1\", \
         port = 5433",
    ),
    (
        "[clusters.a]\nhosts = [{ host = \"db 1\", port = 70000 }]",
        "2: [clusters.a] hosts[0].port: 70000 is out of range; write a number from 1 to 65535 \
         (port)\n\
         2: [clusters.a] hosts[0].host: \"db 1\" is not a host name, an address or the absolute \
         path of a directory",
    ),
    (
        "[clusters.a]\nhosts = [{ host = \"a\", role = \"master\" }, \
         { host = \"b\", role = \"primary\" }]",
        "2: [clusters.a] hosts: 2 hosts are pinned as primary; pin one, or none",
    ),
    // Databases.
    (
        "[databases.app]",
        "1: [databases.app] cluster: no cluster is configured; add [clusters.main] with hosts = [{ \
         host = \"...\" }]",
    ),
    (
        "[clusters.main]\nhosts = [{ host = \"a\" }]\n[databases.app]\ncluster = \"mian\"",
        "4: [databases.app] cluster: \"mian\": unknown cluster; the nearest known one is main",
    ),
    (
        "[clusters.a]\nhosts = [{ host = \"a\" }]\n[clusters.b]\nhosts = [{ host = \"b\" }]\n\
         [databases.app]",
        "5: [databases.app] cluster: is missing; there are several: a, b",
    ),
    (
        "[clusters.a]\nhosts = [{ host = \"a\" }]\n[databases.pgbouncer]",
        "3: [databases.pgbouncer]: is the name of the console; give the database another name, and \
         dbname = its name on the server",
    ),
    (
        "[clusters.a]\nhosts = [{ host = \"a\" }]\n[databases.app]\npassword = \"x\"",
        "4: [databases.app] password: has no effect without user; set user, or put it into \
         [users.X]",
    ),
    (
        "[users.app]\npassword = \"x\"\npassword_file = \"y\"",
        "3: [users.app] password_file: password is set too; keep one of the two",
    ),
    (
        "[users.app]\npassword_file = \"/nowhere/at/all\"",
        "2: [users.app] password_file: cannot read /nowhere/at/all: No such file or directory (os \
         error 2)",
    ),
    (
        "[auth]\nfile = \"/nowhere/at/all\"",
        "2: [auth] file: cannot read /nowhere/at/all: No such file or directory (os error 2)",
    ),
    (
        "[pooler]\npool_size = 5\nmin_pool_size = 6",
        "3: [pooler] min_pool_size: 6 is more than pool_size, 5; lower it or raise pool_size",
    ),
    (
        "[pooler]\nmin_pool_size = 6\n[users.report]\npool_size = 5",
        "3: [users.report] min_pool_size: 6 is more than pool_size, 5; lower it or raise pool_size",
    ),
    (
        "[tls.client]\ncert = \"a\"",
        "2: [tls.client] cert: is set and key is not; set both",
    ),
    // What must not be ignored.
    (
        "[tls.client]\nmode = \"require\"",
        "2: [tls.client] mode: require needs cert and key: no client could connect",
    ),
    (
        "[tls.client]\nmode = \"verify-full\"\ncert = \"a\"\nkey = \"b\"",
        "2: [tls.client] mode: verify-full needs ca: who may sign a client's certificate",
    ),
    (
        "[tls.server]\nnegotiation = \"direct\"",
        "2: [tls.server] negotiation: direct cannot go on without TLS, as prefer may; use require or more",
    ),
    (
        "[tls.server]\nchannel_binding = \"require\"",
        "2: [tls.server] channel_binding: require cannot be had without TLS, as prefer may go on; use require or more",
    ),
    (
        "[auth]\ntype = \"hba\"",
        "2: [auth] type: hba needs hba_file",
    ),
    (
        "[auth]\nident_file = \"/nowhere/at/all\"",
        "2: [auth] ident_file: cannot read /nowhere/at/all: No such file or directory (os error 2)",
    ),
    (
        "[auth]\nquery = \"SELECT $1\"",
        "2: [auth] query: needs auth.user, who runs it",
    ),
];

#[test]
fn every_problem_of_a_bad_file_is_named() {
    for (text, expected) in BAD {
        let error = parse(text).expect_err(text).to_string();
        let expected: Vec<_> = expected
            .lines()
            .map(|l| format!("pooler.toml:{l}"))
            .collect();
        let expected = expected.join("\n");
        match expected.ends_with(": ") {
            true => assert!(error.starts_with(&expected), "{text}\n{error}"),
            false => assert_eq!(error, expected, "{text}"),
        }
    }
}

/// Text below `BASE`, and the warning it gives.
const ODD: &[(&str, &str)] = &[
    (
        "[pooler]\nrouting = \"auto\"",
        "1: [clusters.main] monitor_user: is not set, so nothing is known of the replicas and every \
         statement of \"app\" goes to the primary; name a user that the hosts let in",
    ),
    (
        "[pooler]\nrouting = \"off\"\nread_consistency = \"session\"\n[tls.client]\n\
         mode = \"disable\"",
        "",
    ),
    (
        "[tls.server]\nmode = \"verify-ca\"",
        "7: [tls.server] mode: verify-ca without ca: any certificate of an authority that this system trusts \
         will do, whosever it is; set ca, or use verify-full",
    ),
    (
        "[tracing]\notlp_endpoint = \"http://c:4318\"\nheaders = { authorization = \"x\" }",
        "",
    ),
    (
        "[auth]\nuser = \"pooler_auth\"",
        "7: [auth] user: looks nobody up without auth.query",
    ),
    (
        "[clusters.b]\nhosts = [{ host = \"a\" }, \
         { host = \"b\", role = \"primary\", weight = 2 }]\n\
         [databases.b]\ncluster = \"b\"\n[databases.a]\ncluster = \"main\"",
        "",
    ),
    (
        "[clusters.b]\nhosts = [{ host = \"b\" }]\n[databases.a]\ncluster = \"main\"",
        "6: [clusters.b]: no database uses this cluster",
    ),
    (
        "[pooler]\nlisten = [\"0.0.0.0:6432\"]\n[auth]\ntype = \"trust\"",
        "9: [auth] type: trust: whoever reaches 0.0.0.0:6432 can log in as any user",
    ),
    (
        "[pooler]\nadmin_users = [\"app\", \"ops\"]",
        "7: [pooler] admin_users: \"ops\" cannot log in: no password is known",
    ),
    (
        "[users.old]\npassword = \"md50123456789abcdef0123456789abcdef\"",
        "7: [users.old] password: an md5 secret cannot log in with auth.type scram-sha-256; store \
         a SCRAM one",
    ),
    (
        "[pooler]\nquery_wait_timeout = \"5s\"",
        "6: [pooler] query_wait_notify: is not below query_wait_timeout, so that no client ever \
         sees the notice",
    ),
    (
        "[databases.b]\nuser = \"web\"",
        "7: [databases.b] user: no password is known of \"web\"; set password, or add it to \
         [users] or auth.file, unless the server asks for none",
    ),
];

#[test]
fn what_is_odd_or_not_built_is_a_warning() {
    for (text, expected) in ODD {
        let text = format!(
            "{BASE}{}",
            text.replace("[databases.a]\n", "[databases.app2]\n")
        );
        // With two clusters the database of BASE has to name its own.
        let text = match text.contains("[clusters.b]") {
            true => text.replace("[databases.app]\n", "[databases.app]\ncluster = \"main\"\n"),
            false => text,
        };
        let shift = usize::from(text.contains("[clusters.b]"));
        let config = good(&text);
        let expected = expected.lines().map(|line| {
            let (number, rest) = line.split_once(':').expect("a line number");
            let number: usize = number.parse().expect("a line number");
            format!("pooler.toml:{}:{rest}", number + shift)
        });
        assert_eq!(config.warnings, expected.collect::<Vec<_>>(), "{text}");
    }
}
