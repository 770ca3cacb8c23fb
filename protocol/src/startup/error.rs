//! What can be wrong with a client's first packet, in PostgreSQL's words and codes.

/// Why a connection ends before it has logged in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The announced length has no room for a code.
    #[error("invalid length of startup packet")]
    TooShort,
    /// The announced length is over [`STARTUP_BYTES_MAX`](super::STARTUP_BYTES_MAX): garbage, or
    /// a client that asks for too much.
    #[error("invalid length of startup packet")]
    TooLong,
    /// A CancelRequest whose key has fewer than 4 or more than 256 bytes.
    #[error("invalid length of cancel request packet")]
    CancelLength,
    /// A TLS ClientHello where direct TLS is not served.
    #[error("received direct SSL connection request, which is not supported here")]
    DirectTls,
    /// An HTTP request.
    #[error("received an HTTP request")]
    Http,
    /// A protocol that is not 3, or a request code that is unknown or comes twice.
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2")]
    UnsupportedProtocol {
        /// The upper 16 bits of the code.
        major: u16,
        /// The lower 16 bits of the code.
        minor: u16,
    },
    /// The list of parameters does not end where the packet ends.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Unterminated,
    /// No `user`, or an empty one.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// A parameter, the user's and the database's name among them, that is not UTF-8.
    #[error("invalid byte sequence for encoding \"UTF8\" in startup parameter \"{parameter}\"")]
    InvalidUtf8 {
        /// The name of the parameter, with what is not printable ASCII escaped.
        parameter: String,
    },
    /// A `replication` that is neither a boolean nor "database".
    #[error("invalid value for parameter \"replication\": \"{value}\"")]
    InvalidReplication {
        /// The value as it came.
        value: String,
    },
    /// Bytes were already read behind a request that was about to be granted (CVE-2021-23214).
    #[error("received unencrypted data after SSL request")]
    UnencryptedData,
}

impl StartupError {
    /// The SQLSTATE that PostgreSQL reports (PostgreSQL's documentation, "Error Codes").
    pub fn sqlstate(&self) -> &'static str {
        match self {
            StartupError::UnsupportedProtocol { .. } => "0A000",
            StartupError::NoUser => "28000",
            StartupError::InvalidUtf8 { .. } => "22021",
            StartupError::InvalidReplication { .. } => "22023",
            StartupError::TooShort
            | StartupError::TooLong
            | StartupError::CancelLength
            | StartupError::DirectTls
            | StartupError::Http
            | StartupError::Unterminated
            | StartupError::UnencryptedData => "08P01",
        }
    }

    /// The text for the detail field of the ErrorResponse, where PostgreSQL has one.
    pub fn detail(&self) -> Option<&'static str> {
        match self {
            StartupError::UnencryptedData => Some(
                "This could be either a client-software bug or evidence of an attempted \
                 man-in-the-middle attack.",
            ),
            _ => None,
        }
    }

    /// Whether to close without an ErrorResponse. The peer does not speak the protocol, or sends
    /// a request that never gets an answer; PostgreSQL says nothing either.
    pub fn is_silent(&self) -> bool {
        matches!(
            self,
            StartupError::TooShort
                | StartupError::TooLong
                | StartupError::CancelLength
                | StartupError::DirectTls
                | StartupError::Http
        )
    }
}
