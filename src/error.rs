//! What goes wrong, who erred, and what a client is told.
//!
//! Every error that a client can get from the pooler itself is made here, so that SQLSTATE, text
//! and hint of each stand in one place. Errors of PostgreSQL are passed on as they came and never
//! pass through here.

use std::fmt;
use std::io;
use std::time::Duration;

use pooler_protocol::auth::{MessageError, ScramError};
use pooler_protocol::backend::{Report, tag, write_error};
use pooler_protocol::frame::{BadLength, write_message};
use pooler_protocol::ledger::Violation;

mod login;

pub use login::{LoginError, Outlook};

/// An ErrorResponse of the pooler's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Whether the session ends with it.
    pub fatal: bool,
    /// Five characters (PostgreSQL documentation, "PostgreSQL Error Codes").
    pub sqlstate: String,
    /// One line.
    pub message: String,
    /// More of it; may be empty.
    pub detail: String,
    /// What to do; may be empty.
    pub hint: String,
    /// The body of a server's own ErrorResponse, which is sent instead.
    pub verbatim: Option<Box<[u8]>>,
}

impl Refusal {
    /// An error that ends the session.
    pub fn fatal(sqlstate: &str, message: impl Into<String>) -> Self {
        Self {
            fatal: true,
            sqlstate: sqlstate.to_owned(),
            message: message.into(),
            detail: String::new(),
            hint: String::new(),
            verbatim: None,
        }
    }

    /// An error that ends the statement; the session goes on.
    pub fn error(sqlstate: &str, message: impl Into<String>) -> Self {
        Self {
            fatal: false,
            ..Self::fatal(sqlstate, message)
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same with a detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Appends the ErrorResponse.
    pub fn write(&self, out: &mut Vec<u8>) {
        if let Some(body) = &self.verbatim {
            return write_message(out, tag::ERROR_RESPONSE, |b| b.extend_from_slice(body));
        }
        let severity = if self.fatal { "FATAL" } else { "ERROR" };
        let report = Report {
            severity,
            sqlstate: &self.sqlstate,
            message: &self.message,
            detail: &self.detail,
            hint: &self.hint,
        };
        write_error(out, &report);
    }

    /// A limit on clients is reached.
    #[must_use]
    pub fn too_many_clients(limit: &str, value: usize) -> Self {
        Self::fatal("53300", format!("too many clients: {limit} is {value}")).hint(format!(
            "Close sessions that are not used, or raise {limit} in the pooler's configuration."
        ))
    }

    /// The user, the database or the password is wrong: which one is nobody's business.
    #[must_use]
    pub fn wrong_password(user: &str) -> Self {
        Self::fatal(
            "28P01",
            format!("password authentication failed for user \"{user}\""),
        )
    }

    /// Too many logins of this user from this address have failed, or of anybody.
    #[must_use]
    pub fn too_many_failures(user: &str) -> Self {
        Self::fatal(
            "53300",
            format!("too many failed logins of user \"{user}\" from this address"),
        )
        .hint("Wait, and use the right password; see auth.max_login_failures.")
    }

    /// No rule lets the client in, or one keeps it out.
    #[must_use]
    pub fn by_rules(why: String) -> Self {
        Self::fatal("28000", why)
    }

    /// The client has shown no certificate that is trusted, and must.
    #[must_use]
    pub fn certificate_required() -> Self {
        Self::fatal("28000", "connection requires a valid client certificate")
    }

    /// Who the client is elsewhere is not who it says to be here.
    #[must_use]
    pub fn other_name(method: &str, user: &str) -> Self {
        Self::fatal(
            "28000",
            format!("{method} authentication failed for user \"{user}\""),
        )
    }

    /// Somebody outside says that the password is wrong, or that there is no such user.
    #[must_use]
    pub fn outside(method: &str, user: &str) -> Self {
        Self::other_name(method, user)
    }

    /// Whoever outside would have to judge the password cannot. No attempt: it says nothing of the password.
    #[must_use]
    pub fn nobody_can_say(method: &str, user: &str) -> Self {
        Self::fatal(
            "08001",
            format!("{method} authentication failed for user \"{user}\""),
        )
        .hint("Connect again in a moment; the pooler's log says what is wrong.")
    }

    /// The user is in no list, and nobody can be asked about it now.
    #[must_use]
    pub fn no_lookup(user: &str) -> Self {
        Self::fatal("08001", format!("user \"{user}\" cannot be looked up now"))
            .hint("Connect again in a moment; the pooler's log says what is wrong.")
    }

    /// The session asks for a replica, and there is none that can serve it.
    #[must_use]
    pub fn no_replica(cluster: &str) -> Self {
        Self::error("08001", format!("no replica of cluster {cluster:?} can be read from now"))
            .detail("pooler.route is \"replica\": nothing else serves it.")
            .hint("SHOW HOSTS says how the replicas are; pooler.route = 'prefer-replica' falls back to the primary.")
    }

    /// The client came without TLS and must not.
    #[must_use]
    pub fn tls_required() -> Self {
        Self::fatal("28000", "the pooler accepts no connection without TLS")
            .hint("Connect with sslmode=require or more.")
    }

    /// The pooler is stopping.
    #[must_use]
    pub fn shutting_down() -> Self {
        Self::fatal("57P01", "the pooler is shutting down")
            .hint("Connect again; another pooler may take over.")
    }

    /// The pooler is stopping and lets nobody in.
    #[must_use]
    pub fn draining() -> Self {
        Self::fatal("57P03", "the pooler is shutting down")
            .hint("Connect to another pooler, or again in a moment.")
    }

    /// The connection that listened for the session is lost.
    #[must_use]
    pub fn listener_lost() -> Self {
        Self::fatal(
            "08006",
            "the server connection that listened for this session was lost",
        )
        .detail("Notifications may have been missed.")
        .hint("Connect again and LISTEN again.")
    }

    /// An operator has ended the session in the console.
    #[must_use]
    pub fn killed() -> Self {
        Self::fatal(
            "57P01",
            "terminating the session: an operator has ended it in the console",
        )
        .hint("Connect again.")
    }

    /// An operator has closed the database in the console.
    #[must_use]
    pub fn disabled(database: &str) -> Self {
        Self::fatal(
            "55000",
            format!("database \"{database}\" is not accepting connections"),
        )
        .hint("An operator has said DISABLE in the pooler's console; ENABLE ends it.")
    }

    /// The console is not for everybody.
    #[must_use]
    pub fn no_operator(user: &str) -> Self {
        Self::fatal(
            "42501",
            format!("permission denied: \"{user}\" may not use the console"),
        )
        .hint("Only admin_users and stats_users of the pooler's configuration may.")
    }

    /// The session's database or user is no longer in the configuration.
    #[must_use]
    pub fn reconfigured() -> Self {
        Self::fatal(
            "57P01",
            "the pooler was reconfigured without this database or user",
        )
        .hint("Connect again.")
    }

    /// `client_login_timeout` passed.
    #[must_use]
    pub fn login_timeout(limit: Duration) -> Self {
        Self::fatal(
            "08P01",
            format!("the login took longer than client_login_timeout ({limit:?})"),
        )
        .hint("Send the startup packet and the password at once, or raise client_login_timeout.")
    }

    /// The same, and it was no fault of the client's.
    #[must_use]
    pub fn suspended(limit: Duration) -> Self {
        Self::fatal(
            "57P03",
            format!("the pooler is suspended, and client_login_timeout ({limit:?}) has passed"),
        )
        .hint("Try again; RESUME in the pooler's console ends it.")
    }

    /// `client_idle_timeout` passed.
    #[must_use]
    pub fn idle_timeout(limit: Duration) -> Self {
        Self::fatal(
            "57P05",
            format!(
                "terminating the session: idle for longer than client_idle_timeout ({limit:?})"
            ),
        )
        .hint("Connect again when there is work, or raise client_idle_timeout.")
    }

    /// `idle_transaction_timeout` passed.
    #[must_use]
    pub fn idle_transaction_timeout(limit: Duration) -> Self {
        Self::fatal(
            "25P03",
            format!(
                "terminating the session: idle in a transaction for longer than \
                 idle_transaction_timeout ({limit:?})"
            ),
        )
        .hint(
            "End transactions before waiting for anything else, or raise idle_transaction_timeout.",
        )
    }

    /// `transaction_timeout` passed.
    #[must_use]
    pub fn transaction_timeout(limit: Duration) -> Self {
        Self::fatal(
            "25P04",
            format!(
                "terminating the session: the transaction took longer than transaction_timeout \
                 ({limit:?})"
            ),
        )
        .hint("Use shorter transactions, or raise transaction_timeout.")
    }

    /// `query_timeout` passed and the server did not react to the cancel.
    #[must_use]
    pub fn query_timeout(limit: Duration) -> Self {
        Self::fatal(
            "57014",
            format!(
                "terminating the session: the query took longer than query_timeout ({limit:?}) and \
                 the server did not react to the cancel"
            ),
        )
        .hint("See whether the server's host is well.")
    }

    /// The client cancelled while it waited for a server connection.
    #[must_use]
    pub fn cancelled_in_queue() -> Self {
        Self::error("57014", "canceling statement due to user request")
            .detail("The statement was waiting for a server connection; it was not sent.")
    }

    /// A statement of a client did not fit.
    #[must_use]
    pub fn statement_memory(limit: usize) -> Self {
        Self::fatal(
            "53200",
            format!("prepared statements take more than prepared_statement_memory ({limit} bytes)"),
        )
        .hint("Close statements that are not used, or raise prepared_statement_memory.")
    }

    /// Pooling by statement meets a transaction block.
    #[must_use]
    pub fn transaction_in_statement_mode() -> Self {
        Self::fatal(
            "08P01",
            "transaction blocks are not allowed with pool_mode = \"statement\"",
        )
        .hint("Set pool_mode = \"transaction\" for this database, or do not use BEGIN.")
    }

    /// The client broke the protocol.
    #[must_use]
    pub fn client_protocol(what: impl fmt::Display) -> Self {
        Self::fatal("08P01", format!("protocol violation: {what}"))
            .hint("This is a fault of the client's driver, or something else speaks on this port.")
    }

    /// The server went away while it worked for the client.
    #[must_use]
    pub fn server_gone(host: &str, why: impl fmt::Display) -> Self {
        Self::fatal(
            "08006",
            format!("the connection to the server {host} was lost: {why}"),
        )
        .hint("If a transaction was open, it was not committed, unless its COMMIT was running.")
    }
}

/// Why a server connection that was in use is not usable any more.
#[derive(Debug, thiserror::Error)]
pub enum ServerFault {
    /// It closed the connection.
    #[error("it closed the connection")]
    Closed,
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It said something that nobody asked for.
    #[error("{0}")]
    Violation(#[from] Violation),
    /// A length that cannot be.
    #[error("{0}")]
    Length(#[from] BadLength),
    /// It refused settings that another server accepted.
    #[error("it refused the session's settings: {0}")]
    Settings(String),
    /// It did not come to rest in time.
    #[error("it did not answer in time")]
    Timeout,
    /// It owes a client that has gone more than is worth reading.
    #[error("it has more to send than is worth reading")]
    TooMuch,
    /// The monitor cannot reach its host any more.
    #[error("the host does not answer")]
    HostLost,
    /// Its host is the primary no more.
    #[error("another host is the primary now")]
    Deposed,
}

/// Why a login of a client ended.
#[derive(Debug, thiserror::Error)]
pub enum ClientLoginError {
    /// It hung up, or never said anything that deserves an answer.
    #[error("the client left during login: {0}")]
    Gone(String),
    /// The TLS handshake failed, of which its side was told as far as TLS has words for it.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// It gets this and is closed.
    #[error("{}", .0.message)]
    Refused(Box<Refusal>),
}

impl From<Refusal> for ClientLoginError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<io::Error> for ClientLoginError {
    fn from(e: io::Error) -> Self {
        Self::Gone(e.to_string())
    }
}

impl From<MessageError> for ClientLoginError {
    fn from(e: MessageError) -> Self {
        Refusal::fatal(e.sqlstate(), e.to_string()).into()
    }
}

/// What a client is told of a SCRAM exchange that failed; a wrong proof looks like any other wrong
/// password.
#[must_use]
pub fn scram_refusal(user: &str, e: &ScramError) -> Refusal {
    if matches!(e, ScramError::WrongProof) {
        return Refusal::wrong_password(user);
    }
    Refusal::fatal(e.sqlstate(), e.to_string()).detail(e.detail().unwrap_or_default())
}
