//! The table of keys: one row a key, in the order of `pooler.example.toml`.
//!
//! A row is read as: where it stands, its name, what it looks like, its default; then what it does
//! and why one would change it. A new key is a row here and a field where its value is used; the
//! example is written from the rows by the test that compares it.

use super::keys::{Key, Kind, Table};
use super::rows::{
    AUTH, CLUSTER, DATABASE, DATABASE_AND_USER, DURATION, FOR_EVER, HOST, LOG, METRICS, NEVER,
    POOLER, TLS, TLS_SERVER, TRACING, USER, count, key, optional, pool_key, required, size, text,
};
use super::value::EMPTY_NOT_ALLOWED;
use super::words::{
    AuthType, LogFormat, LogLevel, OnSessionState, PoolMode, ReadConsistency, ReadFallback, Role,
    Route, Routing, TlsBinding, TlsMode, TlsNegotiation, TlsVersion,
};

/// Every key there is.
pub(crate) static KEYS: &[Key] = &[
    // The process as a whole.
    key(POOLER, "listen", Kind::Addresses, r#"["127.0.0.1:6432"]"#)
        .restart("listen")
        .doc(
            "Where clients connect. \"0.0.0.0:6432\" and \"[::]:6432\" are every address of this \
             machine; a directory such as \"/run/pooler\" is a Unix socket .s.PGSQL.6432 in it.",
        ),
    key(POOLER, "unix_socket_mode", Kind::FileMode, r#""0777""#)
        .restart("unix_socket_mode")
        .doc(
            "Permissions of the Unix socket. Tighten it to let only one group of this machine in.",
        ),
    key(POOLER, "datacenter", text("none"), r#""""#)
        .restart("datacenter")
        .doc("Where this pooler runs. Set it, here and at the hosts, to keep reads local."),
    key(POOLER, "workers", count("threads", Some("one a core")), "0")
        .restart("workers")
        .doc("Worker threads. Set it to leave cores to other programs on this machine."),
    key(POOLER, "batch_sends", Kind::Flag, "true")
        .restart("batch_sends")
        .doc("Send what a worker has for many connections by one system call (io_uring), if that can be done."),
    key(POOLER, "admin_users", Kind::Names, "[]")
        .doc("Who may do everything in the console (databases pooler and pgbouncer)."),
    key(POOLER, "stats_users", Kind::Names, "[]")
        .doc("Who may look at everything in the console and change nothing: monitoring."),
    key(
        POOLER,
        "max_client_conn",
        count("clients", Some("no limit")),
        "10000",
    )
    .doc(
        "Clients of the whole process. One more is refused with 53300. Each takes a file \
             descriptor.",
    ),
    key(POOLER, "client_login_timeout", NEVER, r#""60s""#).doc(
        "A client that has not logged in by then is closed, even if bytes trickle in. Lower \
             it where strangers can connect.",
    ),
    key(
        POOLER,
        "prepared_statement_memory",
        size(None),
        r#""256MB""#,
    )
    .doc(
        "Statement texts kept by the whole process. Lower it on a small machine; raise it \
             when SHOW PREPARED shows evictions.",
    ),
    key(POOLER, "shutdown_timeout", FOR_EVER, r#""0""#).doc(
        "How long to wait for clients when draining. Set it below the patience of what \
             supervises the process.",
    ),
    // Pools.
    pool_key(
        "pool_mode",
        Kind::Word(PoolMode::CHOICE),
        r#""transaction""#,
    )
    .doc(
        "How long a client keeps its server connection. Use session for applications that \
             transaction pooling breaks.",
    ),
    pool_key("pool_size", count("server connections", None), "20").doc(
        "Server connections of one database and user on one host. Raise it while clients wait \
             and PostgreSQL has idle cores; more than a few a core makes PostgreSQL slower.",
    ),
    pool_key(
        "min_pool_size",
        count("server connections", Some("none")),
        "0",
    )
    .doc(
        "Kept open even when idle. Raise it so that a burst after a quiet time need not log \
             in first.",
    ),
    pool_key(
        "reserve_pool_size",
        count("server connections", Some("no reserve")),
        "0",
    )
    .doc(
        "More connections for a pool whose clients have waited for reserve_pool_timeout. Set \
             it for short bursts that pool_size should not grow for.",
    ),
    pool_key("reserve_pool_timeout", NEVER, r#""5s""#).doc(
        "How long a client waits before the reserve is used. Lower it if clients give up \
             before.",
    ),
    key(
        POOLER,
        "max_db_connections",
        count("server connections", Some("no limit")),
        "0",
    )
    .again(DATABASE)
    .doc(
        "Server connections of one database, over all users. Set it to protect PostgreSQL's \
             max_connections when there are many users.",
    ),
    key(
        POOLER,
        "max_user_connections",
        count("server connections", Some("no limit")),
        "0",
    )
    .again(USER)
    .doc(
        "Server connections of one user, over all databases. Set it to keep a batch user from \
             taking them all.",
    ),
    key(
        POOLER,
        "max_db_client_connections",
        count("clients", Some("no limit")),
        "0",
    )
    .again(DATABASE)
    .doc(
        "Clients of one database, over all users. Keeps one application from using up \
             max_client_conn.",
    ),
    key(
        POOLER,
        "max_user_client_connections",
        count("clients", Some("no limit")),
        "0",
    )
    .again(USER)
    .doc(
        "Clients of one user, over all databases. Keeps one user from using up \
             max_client_conn.",
    ),
    pool_key("query_wait_timeout", FOR_EVER, r#""120s""#).doc(
        "A client that has waited this long for a server connection gets 53400. Lower it to \
             fail fast instead of queueing behind an outage.",
    ),
    pool_key("query_wait_notify", NEVER, r#""5s""#).doc(
        "A client that waits this long gets a NOTICE that says so. Set it to 0 for drivers \
             that make an error of it.",
    ),
    pool_key("server_connect_timeout", DURATION, r#""15s""#).doc(
        "From connecting to a server to the end of the login. Lower it to notice a host that \
             does not answer sooner.",
    ),
    pool_key("server_login_retry", DURATION, r#""1s""#).doc(
        "Delay after a login that failed; doubles with jitter to 15s. Raise it to spare a \
             server that is starting.",
    ),
    pool_key("server_lifetime", FOR_EVER, r#""1h""#).doc(
        "A server connection is replaced when it is this old and idle, with 20 % jitter. \
             Lower it if backends bloat.",
    ),
    pool_key("server_idle_timeout", NEVER, r#""10m""#).doc(
        "A server connection that was idle for this long is closed, with 20 % jitter, down to \
             min_pool_size.",
    ),
    pool_key("server_connect_parallel", count("logins", None), "4").doc(
        "Logins at a time to one host. Raise it if a cold start is slow; lower it if logins \
             overload PostgreSQL.",
    ),
    pool_key("server_reset_query", text("nothing"), r#""DISCARD ALL""#).doc(
        "Run between two clients of a session pool. Set it empty only if clients leave \
             nothing behind.",
    ),
    pool_key("client_idle_timeout", NEVER, r#""0""#).doc(
        "A client that is idle outside a transaction for this long is closed (57P05). Set it \
             if applications leak connections.",
    ),
    pool_key("idle_transaction_timeout", NEVER, r#""0""#).doc(
        "A client that is idle in a transaction for this long is closed (25P03). Set it: such \
             a client holds a server connection and PostgreSQL's locks.",
    ),
    pool_key("transaction_timeout", NEVER, r#""0""#).doc(
        "A client whose transaction lasts this long is closed (25P04). Set it to bound how \
             long vacuum and schema changes can be held up.",
    ),
    pool_key("query_timeout", NEVER, r#""0""#).doc(
        "A statement that runs this long is cancelled (57014). Set it a little above \
             PostgreSQL's statement_timeout, which is kinder, for servers that hang.",
    ),
    pool_key("cancel_wait_timeout", FOR_EVER, r#""10s""#).doc(
        "How long a cancel request may wait to be delivered. Lower it if cancels that come \
             too late do harm.",
    ),
    pool_key(
        "on_session_state",
        Kind::Word(OnSessionState::CHOICE),
        r#""pin""#,
    )
    .doc(
        "What to do in transaction mode with state that only one connection can hold (LISTEN, \
             session advisory locks, temporary tables): keep the client on that connection, \
             refuse with 0A000, or let it be lost.",
    ),
    pool_key("inspect_functions", Kind::Flag, "true").doc(
        "Whether to read from a database, once a minute, which of its functions leave something in \
             the session (a temporary table, a setting, a lock): calls of these are watched like the \
             statements themselves. Turn it off if the catalogue has very many functions and none \
             of them does such things.",
    ),
    pool_key("keep_sequences", Kind::Flag, "false").doc(
        "Whether currval() and lastval() know, in transaction mode, what an earlier transaction \
             drew from a sequence: then a session that inserts or calls nextval() keeps its server \
             connection until it leaves. Without it they fail outside of the transaction that \
             drew; use INSERT ... RETURNING.",
    ),
    pool_key("max_prepared_statements", count("statements", None), "200").doc(
        "Prepared statements held by one server connection; the least used go first. Raise it \
             if SHOW PREPARED shows evictions; each costs PostgreSQL memory.",
    ),
    pool_key("application_name", Kind::Template, r#""{application}""#).doc(
        "What clients are called toward servers, in pg_stat_activity and in PostgreSQL's log: a text with \
             {application} (what the client calls itself), {client} (address and port), {user}, {database}, \
             {pooler} (this machine), 63 bytes at most. The client goes on seeing its own name. Set it to \
             \"{application}@{client}\" to know who is behind a query; with {client} each client has a name of \
             its own, which its server is told with the first statement that it runs there.",
    ),
    pool_key("application_name_add_host", Kind::Flag, "false").doc(
        "Add the client's address and port to application_name at login, as PgBouncer does it: the client \
             sees it, too, and SET replaces it. Without effect if application_name is set.",
    ),
    pool_key(
        "tcp_keepalive",
        Kind::Duration {
            zero: Some("the system's default"),
        },
        r#""15s""#,
    )
    .doc(
        "Probe a connection that is idle for this long, three times. Lower it behind a \
             firewall that forgets idle connections.",
    ),
    pool_key(
        "tcp_user_timeout",
        Kind::Duration {
            zero: Some("the system's default"),
        },
        r#""30s""#,
    )
    .doc(
        "A connection is dead when sent data is not acknowledged for this long. Lower it to \
             notice a lost machine sooner.",
    ),
    pool_key("routing", Kind::Word(Routing::CHOICE), r#""off""#).doc(
        "What may leave the primary for a replica: nothing, what a hint, SET or startup \
             option asks for, or every statement that is proven to read only.",
    ),
    pool_key("route", Kind::Word(Route::CHOICE), r#""auto""#).doc(
        "What holds for a session that does not set pooler.route itself: the choice by statement, or \
             all to the primary, to replicas alone (a write fails there), or to replicas as long as there \
             are any. Set it for a user that only reports, say. routing must not be off.",
    ),
    pool_key(
        "read_consistency",
        Kind::Word(ReadConsistency::CHOICE),
        r#""session""#,
    )
    .doc(
        "What a read on a replica must have seen: anything within the lag limit, or at least \
             the session's own writes.",
    ),
    // Clusters.
    required(CLUSTER, "hosts", Kind::Tables(Table::Host)).doc("The primary and its replicas."),
    required(
        HOST,
        "host",
        Kind::Text {
            empty: EMPTY_NOT_ALLOWED,
        },
    )
    .doc("A name, an address, or the directory of a Unix socket."),
    key(
        HOST,
        "port",
        Kind::Count {
            unit: "port",
            zero: None,
            max: 65_535,
        },
        "5432",
    )
    .doc("PostgreSQL's port."),
    key(HOST, "datacenter", text("none"), r#""""#).doc("Where the host runs."),
    optional(HOST, "role", Kind::Word(Role::CHOICE))
        .doc("Pins the role (\"master\" is \"primary\") instead of asking the host."),
    key(
        HOST,
        "weight",
        Kind::Count {
            unit: "share of the reads",
            zero: Some("no reads"),
            max: 1_000,
        },
        "1",
    )
    .doc("Raise it for a larger machine; 0 keeps a replica for failover only."),
    key(
        CLUSTER,
        "max_server_connections",
        count("server connections", Some("no limit")),
        "0",
    )
    .doc(
        "To one host, over all pools. Set it below PostgreSQL's max_connections, less what \
             others use.",
    ),
    key(CLUSTER, "monitor_user", text("no monitor"), r#""""#).doc(
        "Who asks the hosts for role, position and lag; \"pooler\", say. Its password comes \
             from [users] or the userlist.",
    ),
    key(
        CLUSTER,
        "monitor_dbname",
        Kind::Text {
            empty: EMPTY_NOT_ALLOWED,
        },
        r#""postgres""#,
    )
    .doc("The database that the monitor connects to."),
    key(CLUSTER, "monitor_interval", DURATION, r#""500ms""#)
        .doc("How often a host is asked. Lower it to notice a failover sooner."),
    key(
        CLUSTER,
        "max_replica_lag",
        Kind::Duration {
            zero: Some("no limit"),
        },
        r#""10s""#,
    )
    .doc("A replica further behind serves no reads. Lower it if applications mind old data."),
    key(
        CLUSTER,
        "max_replica_lag_bytes",
        size(Some("no limit")),
        r#""0""#,
    )
    .doc("The same in bytes of WAL, which also holds while the primary is idle or gone."),
    key(
        CLUSTER,
        "read_fallback",
        Kind::Words(ReadFallback::CHOICE),
        r#"["local-primary", "remote-replica", "primary"]"#,
    )
    .doc(
        "Where a read goes, in this order, when no local replica can take it. Leave out what \
             must not serve reads.",
    ),
    // Databases and users.
    key(DATABASE, "cluster", text("the only one"), r#""""#)
        .doc("The cluster that has it. May be left out while there is only one."),
    key(DATABASE, "dbname", text("the same name"), r#""""#)
        .doc("The server's name for it. Set it to give clients another name than the server's."),
    key(DATABASE, "user", text("the client's own"), r#""""#)
        .doc("Log in to the server as this user for every client: one pool instead of one a user."),
    key(DATABASE_AND_USER, "password", Kind::Secret, r#""""#)
        .doc("A password in clear, \"md5...\" or \"SCRAM-SHA-256$...\"."),
    key(DATABASE_AND_USER, "password_file", Kind::File, r#""""#)
        .doc(
            "A file whose first line is the password, to keep it out of this one; a second line is a \
             second_password. Read again for each login to a server.",
        ),
    key(DATABASE_AND_USER, "second_password", Kind::Secret, r#""""#).doc(
        "Another password that is right too, while one is being changed: clients may come with either, and \
             servers are tried with both.",
    ),
    key(DATABASE_AND_USER, "password_command", Kind::Names, "[]").doc(
        "A program and its arguments, run without a shell for each login to a server: the first line that it \
             prints is the password, a second one another that may be right. It has 10 s. For servers alone: \
             clients are not checked with it.",
    ),
    // Authentication.
    key(
        AUTH,
        "type",
        Kind::Word(AuthType::CHOICE),
        r#""scram-sha-256""#,
    )
    .doc(
        "How clients prove who they are. trust only where nobody else can connect; cert: by a \
             certificate with their name; hba: as the first line of hba_file says that fits.",
    ),
    key(AUTH, "file", Kind::File, r#""""#)
        .doc("Users and their secrets, in PgBouncer's format: \"userlist.txt\"."),
    key(AUTH, "hba_file", Kind::File, r#""""#)
        .doc(
            "Who may connect from where and how, in PostgreSQL's format: \"pg_hba.conf\". For type hba.",
        ),
    key(AUTH, "ident_file", Kind::File, r#""""#)
        .doc("Maps of user names for cert and peer, in PostgreSQL's format: \"pg_ident.conf\"."),
    key(AUTH, "map", text("none"), r#""""#)
        .doc("With type cert: the map of ident_file that says which users a certificate's common name may be."),
    key(AUTH, "user", text("no look-up"), r#""""#)
        .doc(
            "Who runs query; a user that may do nothing else. Its password: from [users] or file.",
        ),
    key(AUTH, "query", text("no look-up"), r#""""#).doc(
        "Looks up the secret of a user of whom neither [users] nor file has one: \"SELECT rolname, \
             CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM \
             pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin\". It runs with search_path \
             pg_catalog: name the schema of anything else. The console asks no server: its users are \
             listed.",
    ),
    key(
        AUTH,
        "dbname",
        Kind::Text {
            empty: EMPTY_NOT_ALLOWED,
        },
        r#""postgres""#,
    )
    .doc("The database that query runs in, on the cluster of the database that a client asks for."),
    key(
        AUTH,
        "cache_time",
        Kind::Duration {
            zero: Some("at every login"),
        },
        r#""60s""#,
    )
    .doc(
        "How long what query said is believed; that there is no such user, 5 s at most. A password \
             that was changed, or has expired, lets nobody in for longer. A login that fails has it \
             asked again.",
    ),
    key(AUTH, "max_login_failures", count("logins", Some("no limit")), "10").doc(
        "Failed logins of one user from one address, and ten times as many of all users from there, \
             before each further one has to wait: 0.1 s, then twice as long each time, 10 s at most. The \
             right password ends it. Raise it where many applications share an address.",
    ),
    key(AUTH, "lookup_timeout", DURATION, r#""5s""#)
        .doc("How long query may take, connecting included. Lower it where clients give up sooner."),
    key(AUTH, "ldap_ca", Kind::File, r#""""#).doc(
        "Authorities that vouch for LDAP servers, PEM. Without it, those that this system trusts. For \
             rules of hba_file with ldapscheme=ldaps or ldaptls=1; the server's name is always checked.",
    ),
    key(AUTH, "ldap_timeout", DURATION, r#""5s""#).doc(
        "How long LDAP servers may take for one login, connecting included: one that does not answer \
             leaves the others of its rule their share. Lower it where clients give up sooner.",
    ),
    key(AUTH, "pam_dir", Kind::File, r#""""#).doc(
        "Where method pam of hba_file finds its services, one file each; without it as the system has it, \
             /etc/pam.d.",
    ),
    key(AUTH, "pam_timeout", DURATION, r#""15s""#).doc(
        "How long PAM's modules may take for one login. One that takes longer keeps one of 16 turns until it is \
             done, but not its client. Lower it where clients give up sooner.",
    ),
    // TLS.
    key(TLS, "mode", Kind::Word(TlsMode::CHOICE), r#""prefer""#).doc(
        "How much TLS is asked for. Toward servers as libpq's sslmode. Toward clients as PgBouncer's \
             client_tls_sslmode: allow and prefer leave it to the client, require and more refuse one \
             without it, verify-ca and verify-full want its certificate. Use require or more across a \
             network that others can read.",
    ),
    key(TLS, "cert", Kind::File, r#""""#).doc(
        "Our certificate chain, PEM: shown to clients (without one they are offered no TLS), or to \
             servers that ask for one.",
    ),
    key(TLS, "key", Kind::File, r#""""#).doc("The certificate's key, PEM."),
    key(TLS, "ca", Kind::File, r#""""#).doc(
        "Who may sign the other side's certificate, PEM. With it a certificate that is shown is \
             verified in every mode. Clients need it for verify-ca and verify-full; of servers, the \
             authorities that this system trusts are taken without it.",
    ),
    key(TLS, "min_version", Kind::Word(TlsVersion::CHOICE), r#""TLSv1.2""#)
        .doc("The oldest version that is spoken. Raise it if nothing old has to connect."),
    key(TLS, "ciphers", Kind::Names, "[]").doc(
        "Registered names of ciphers, the best first, such as \"TLS_AES_128_GCM_SHA256\"; empty: all \
             that are safe. Set it where a rule of yours names them.",
    ),
    key(TLS_SERVER, "negotiation", Kind::Word(TlsNegotiation::CHOICE), r#""postgres""#).doc(
        "How servers are asked for TLS, as libpq's sslnegotiation. direct saves a round trip with \
             PostgreSQL 17 and later, and needs mode require or more.",
    ),
    key(TLS_SERVER, "channel_binding", Kind::Word(TlsBinding::CHOICE), r#""prefer""#).doc(
        "Whether logins by SCRAM are bound to the server's certificate, as libpq's channel_binding: nobody in \
             between can pass such a login on, whoever signed a certificate for them. prefer: where the server \
             can. require refuses every other login, and needs mode require or more.",
    ),
    // Watching it.
    key(METRICS, "listen", Kind::Address, r#""127.0.0.1:9930""#)
        .restart("metrics.listen")
        .doc(
            "HTTP: /metrics, /healthz, /readyz and a status page at /. It has no password: keep it on \
             an address that only monitoring reaches.",
        ),
    key(METRICS, "max_pools", count("pools", Some("no limit")), "100").doc(
        "Pools (of a database and a user, on the primary or on a replica) that have series of their \
             own: the busiest. All others are summed as database and user \"other\". Each costs some 220 \
             lines of a scrape.",
    ),
    key(METRICS, "status_page", Kind::Flag, "true").doc(
        "The status page at / and what it shows, /status.json: pools, hosts, latencies, and who waits \
             for whom by name, with users, applications, addresses and statements, these without their \
             literals. Turn it off where more people reach the address than may know these.",
    ),
    key(METRICS, "hosts", Kind::Names, "[]").doc(
        "Names by which / and /status.json may be asked for, without a port: [\"status.example\"]. Addresses, \
             localhost and this machine's own name always do; any other gets 421, so that no site can have its \
             visitors' browsers read them under a name of its own. /metrics and the probes go by any name.",
    ),
    key(LOG, "format", Kind::Word(LogFormat::CHOICE), r#""text""#)
        .restart("log.format")
        .doc("Use json where a collector reads the log."),
    key(LOG, "level", Kind::Word(LogLevel::CHOICE), r#""info""#)
        .doc("The least severe message that is logged. Use debug to see clients come and go."),
    key(LOG, "slow_query", Kind::SlowQuery, r#""500ms""#).doc(
        "Log statements slower than this, waiting for a server included. Choose off where another \
             log has them.",
    ),
    key(LOG, "slow_query_sample_rate", Kind::Ratio, "1").doc(
        "Share of the slow statements that is logged. Lower it where there are too many.",
    ),
    key(LOG, "slow_query_literals", Kind::Flag, "false").doc(
        "Log slow statements with their literals, which are data, instead of a ? for each. Those that \
             may name a secret (ALTER ROLE ... PASSWORD) never show theirs.",
    ),
    key(LOG, "slow_query_parameters", Kind::Flag, "false")
        .doc("Log the parameters of slow statements, which are data."),
    key(LOG, "connections", Kind::Flag, "false")
        .doc("Log every client that comes or goes. Useful with long connections only."),
    key(TRACING, "otlp_endpoint", text("off"), r#""""#).doc(
        "Send spans of transactions whose caller records a trace and sends its traceparent (in a \
             comment of a statement, by SET pooler.traceparent, as a startup option) to the collector at \
             \"http://collector:4318\", by OTLP over HTTP; /v1/traces is appended.",
    ),
    key(TRACING, "sample_ratio", Kind::Ratio, "1").doc(
        "Share of these traces of which spans are sent, chosen by the trace's id. Lower it where callers \
             record more than the collector is to keep.",
    ),
    key(TRACING, "headers", Kind::Headers, "{}").doc(
        "Sent with the spans, never shown: { authorization = \"Bearer ...\" }.",
    ),
    key(TRACING, "ca", Kind::File, r#""""#).doc(
        "Authorities that vouch for a collector at https://, PEM. Without it, those that this system \
             trusts; the collector's name is always checked.",
    ),
];
