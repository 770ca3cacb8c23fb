//! Why a server connection could not be opened, what that means for those who wait, and what they are told.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pooler_protocol::backend::ErrorView;

use super::{Refusal, ServerFault};

/// Why a server connection could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoginError {
    /// Nothing answers there, or nobody can be found under the name.
    #[error("cannot connect to {host}: {source}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// It did not answer in time.
    #[error("{host} did not complete the login within server_connect_timeout ({limit:?})")]
    Timeout {
        /// Host and port.
        host: String,
        /// The limit.
        limit: Duration,
    },
    /// The two sides do not agree about TLS.
    #[error("no TLS with {host}: {why}")]
    Tls {
        /// Host and port.
        host: String,
        /// What is wrong.
        why: String,
    },
    /// PostgreSQL refused.
    #[error("{host} refused the login: {message} (SQLSTATE {sqlstate})")]
    Refused {
        /// Host and port.
        host: String,
        /// As it was sent; `XX000` if none was.
        sqlstate: String,
        /// As it was sent.
        message: String,
        /// The body of the ErrorResponse.
        said: Box<[u8]>,
    },
    /// The server asks for a proof that the pooler cannot give.
    #[error("{host} asks for {asked}, for which the pooler has no {missing} of this user")]
    NoCredentials {
        /// Host and port.
        host: String,
        /// The method.
        asked: &'static str,
        /// What would be needed.
        missing: &'static str,
    },
    /// The login would not be bound to the server's certificate, and must be.
    #[error("{host} {how}, and channel_binding = \"require\" takes no login that is not bound")]
    NotBound {
        /// Host and port.
        host: String,
        /// What it does instead.
        how: &'static str,
    },
    /// What the server says is not PostgreSQL's protocol, or it failed to prove who it is.
    #[error("{host} broke the protocol during login: {what}")]
    Protocol {
        /// Host and port.
        host: String,
        /// What was wrong.
        what: String,
    },
    /// It let the pooler in and did not answer the pooler's own questions.
    #[error("{host} took the login and answered nothing after it: {what}")]
    Unanswered {
        /// Host and port.
        host: String,
        /// What it did instead.
        what: String,
    },
    /// No host of the cluster takes writes.
    #[error("no primary among the hosts of cluster {cluster}: {why}")]
    NoPrimary {
        /// The cluster's name.
        cluster: String,
        /// What each host said.
        why: String,
    },
}

/// What a failed login means for those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// The server is away or starting and may be back at any moment: keep waiting, ask often.
    Returning,
    /// It answers but cannot serve now: keep waiting, ask ever more seldom.
    Temporary,
    /// This user and database will not get in until somebody changes something.
    Permanent,
}

impl LoginError {
    /// What it means for those who wait (trap 43).
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        match self {
            Self::Unreachable { .. } | Self::NoPrimary { .. } => Outlook::Returning,
            Self::Refused { sqlstate, .. } if sqlstate == "57P03" || sqlstate == "57P01" => {
                Outlook::Returning
            }
            // Wrong password, authorization, database, role; startup parameters that are wrong, or
            // not supported, or name a library that is not there; a database that takes nobody.
            Self::Refused { sqlstate, .. }
                if matches!(sqlstate.get(..2), Some("28" | "3D" | "42" | "22" | "0A"))
                    || matches!(&**sqlstate, "55000" | "55P02" | "58P01") =>
            {
                Outlook::Permanent
            }
            Self::NoCredentials { .. } | Self::Tls { .. } | Self::NotBound { .. } => {
                Outlook::Permanent
            }
            Self::Refused { .. }
            | Self::Timeout { .. }
            | Self::Protocol { .. }
            | Self::Unanswered { .. } => Outlook::Temporary,
        }
    }

    /// Why the pooler's own questions had no answer on a connection that `host` had let in.
    #[must_use]
    pub fn unanswered(host: String, fault: &ServerFault) -> Self {
        let what = fault.to_string();
        match fault {
            ServerFault::Violation(_) | ServerFault::Length(_) => Self::Protocol { host, what },
            _ => Self::Unanswered { host, what },
        }
    }

    /// Whether another secret could have been let in.
    #[must_use]
    pub fn is_about_secret(&self) -> bool {
        match self {
            Self::NoCredentials { .. } => true,
            Self::Refused { sqlstate, .. } => sqlstate == "28P01",
            _ => false,
        }
    }

    /// What clients are told.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let message = self.to_string();
        match self {
            Self::Refused {
                sqlstate, message, ..
            } => Refusal::fatal(sqlstate, message.clone())
                .detail("PostgreSQL said this when the pooler logged in for this session."),
            Self::NoCredentials { .. } => Refusal::fatal("28P01", message).hint(
                "Put the user's password, or the verifier that the server has, into [users] or the \
                 userlist file.",
            ),
            Self::Protocol { .. } => {
                Refusal::fatal("08P01", message).hint("See what listens on that port.")
            }
            Self::Tls { .. } | Self::NotBound { .. } => Refusal::fatal("08001", message).hint(
                "See [tls.server] in the pooler's configuration, and the server's certificate.",
            ),
            Self::Unanswered { .. } => Refusal::fatal("08006", message)
                .hint("See PostgreSQL's log, and the timeouts that the session asks for."),
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::NoPrimary { .. } => {
                Refusal::fatal("08001", message)
                    .hint("See whether PostgreSQL runs there and can be reached from the pooler.")
            }
        }
    }

    /// The error that a server sent instead of letting the pooler in.
    #[must_use]
    pub fn refused(host: &str, error: &ErrorView<'_>) -> Self {
        Self::Refused {
            host: host.to_owned(),
            sqlstate: error.sqlstate().unwrap_or("XX000").to_owned(),
            message: error.message(),
            said: error.body().into(),
        }
    }

    /// What a client is told whose own startup parameters the server judges: the server's words,
    /// unless they are about the pooler's credentials.
    #[must_use]
    pub fn refusal_of_parameters(&self) -> Refusal {
        let refusal = self.refusal();
        match self {
            Self::Refused { sqlstate, said, .. } if !sqlstate.starts_with("28") => Refusal {
                verbatim: Some(said.clone()).filter(|said| !said.is_empty()),
                ..refusal
            },
            _ => refusal,
        }
    }
}
