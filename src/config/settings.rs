//! What one pool goes by: every key that a database or a user may set again, resolved.

use std::time::Duration;

use pooler_protocol::naming::Template;

use super::section::Values;
use super::types::Limit;
use super::words::{OnSessionState, PoolMode, ReadConsistency, Route, Routing};

/// The settings of one database and user. A duration of `None` never comes; equal settings mean
/// that a reload may leave the pool alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// How long a client keeps its server connection.
    pub pool_mode: PoolMode,
    /// Server connections of the pool on one host; at least 1.
    pub pool_size: usize,
    /// Kept open even when idle; at most `pool_size`.
    pub min_pool_size: usize,
    /// Added to `pool_size` once a client has waited for `reserve_pool_timeout`.
    pub reserve_pool_size: usize,
    /// None: the reserve is never used.
    pub reserve_pool_timeout: Option<Duration>,
    /// Server connections of the database, over all users.
    pub max_db_connections: Limit,
    /// Server connections of the user, over all databases.
    pub max_user_connections: Limit,
    /// Clients of the database, over all users.
    pub max_db_client_connections: Limit,
    /// Clients of the user, over all databases.
    pub max_user_client_connections: Limit,
    /// None: a client waits for a server for ever.
    pub query_wait_timeout: Option<Duration>,
    /// None: a waiting client is not told.
    pub query_wait_notify: Option<Duration>,
    /// From connecting to a server to the end of the login.
    pub server_connect_timeout: Duration,
    /// The first delay after a failed login.
    pub server_login_retry: Duration,
    /// None: a server connection is not replaced for its age.
    pub server_lifetime: Option<Duration>,
    /// None: a server connection is not closed for being idle.
    pub server_idle_timeout: Option<Duration>,
    /// Logins at a time to one host; at least 1.
    pub server_connect_parallel: usize,
    /// Run between two clients of a session pool; empty: nothing is.
    pub server_reset_query: String,
    /// Idle outside a transaction.
    pub client_idle_timeout: Option<Duration>,
    /// Idle in a transaction.
    pub idle_transaction_timeout: Option<Duration>,
    /// A whole transaction.
    pub transaction_timeout: Option<Duration>,
    /// A statement.
    pub query_timeout: Option<Duration>,
    /// None: a cancel request waits for ever.
    pub cancel_wait_timeout: Option<Duration>,
    /// What to do with state that only one connection can hold.
    pub on_session_state: OnSessionState,
    /// Prepared statements held by one server connection; at least 1.
    pub max_prepared_statements: usize,
    /// What clients are called toward servers.
    pub application_name: Template,
    /// Whether the client's address is added to `application_name`.
    pub application_name_add_host: bool,
    /// Names of functions that change a session are read from the database.
    pub inspect_functions: bool,
    /// Sessions that draw from sequences keep their server.
    pub keep_sequences: bool,
    /// None: as the system does.
    pub tcp_keepalive: Option<Duration>,
    /// None: as the system does.
    pub tcp_user_timeout: Option<Duration>,
    /// Which statements may leave the primary.
    pub routing: Routing,
    /// Where the statements of a session go that does not say so itself.
    pub route: Route,
    /// What a read on a replica must have seen.
    pub read_consistency: ReadConsistency,
}

impl PoolSettings {
    /// Reads every setting from the most specific section that has it.
    pub(crate) fn read(values: Values<'_>) -> PoolSettings {
        let pool_size = values.count("pool_size");
        PoolSettings {
            pool_mode: values.word("pool_mode", PoolMode::from_word),
            pool_size,
            // A user's pool_size may be smaller than a database's min_pool_size.
            min_pool_size: values.count("min_pool_size").min(pool_size),
            reserve_pool_size: values.count("reserve_pool_size"),
            reserve_pool_timeout: values.timeout("reserve_pool_timeout"),
            max_db_connections: values.limit("max_db_connections"),
            max_user_connections: values.limit("max_user_connections"),
            max_db_client_connections: values.limit("max_db_client_connections"),
            max_user_client_connections: values.limit("max_user_client_connections"),
            query_wait_timeout: values.timeout("query_wait_timeout"),
            query_wait_notify: values.timeout("query_wait_notify"),
            server_connect_timeout: values.duration("server_connect_timeout"),
            server_login_retry: values.duration("server_login_retry"),
            server_lifetime: values.timeout("server_lifetime"),
            server_idle_timeout: values.timeout("server_idle_timeout"),
            server_connect_parallel: values.count("server_connect_parallel"),
            server_reset_query: values.text("server_reset_query").to_owned(),
            client_idle_timeout: values.timeout("client_idle_timeout"),
            idle_transaction_timeout: values.timeout("idle_transaction_timeout"),
            transaction_timeout: values.timeout("transaction_timeout"),
            query_timeout: values.timeout("query_timeout"),
            cancel_wait_timeout: values.timeout("cancel_wait_timeout"),
            on_session_state: values.word("on_session_state", OnSessionState::from_word),
            max_prepared_statements: values.count("max_prepared_statements"),
            application_name: values.template("application_name").clone(),
            application_name_add_host: values.flag("application_name_add_host"),
            inspect_functions: values.flag("inspect_functions"),
            keep_sequences: values.flag("keep_sequences"),
            tcp_keepalive: values.timeout("tcp_keepalive"),
            tcp_user_timeout: values.timeout("tcp_user_timeout"),
            routing: values.word("routing", Routing::from_word),
            route: values.word("route", Route::from_word),
            read_consistency: values.word("read_consistency", ReadConsistency::from_word),
        }
    }
}
