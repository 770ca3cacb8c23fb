//! What is settled before a startup packet counts: encryption, and the version of the protocol.
//!
//! Invariant: a connection gets at most one answer to SSLRequest and one to GSSENCRequest, and no
//! byte that came unencrypted is taken for one that came through TLS (CVE-2021-23214 for a
//! client's bytes, CVE-2021-23222 for a server's).

use super::{GSSENC_MINOR, MAJOR, REQUEST_MAJOR, SSL_MINOR, StartupError};

/// The newest minor version of protocol 3 that we speak.
const MINOR_NEWEST: u16 = 2;

/// The most bytes of a NegotiateProtocolVersion's body that we accept from a server.
const NEGOTIATE_BYTES_MAX: usize = 10_000;

/// Which answers a client's connection has had; one for each connection, made by `default`.
///
/// ```text
/// start --SSLRequest-----> 'N', one SSLRequest less   or   'S': nothing but a startup packet
///       --GSSENCRequest--> 'N', one GSSENCRequest less
///       --ClientHello----> nothing but a startup packet
/// ```
///
/// A request that has had its answer is an unsupported protocol, as it is to PostgreSQL.
#[derive(Debug, Default)]
pub struct Negotiation {
    ssl_answered: bool,
    gss_answered: bool,
    encrypted: bool,
}

impl Negotiation {
    /// Answers an SSLRequest: the byte to write, `S` if TLS is `offered`, else `N`.
    ///
    /// `buffered` is the number of bytes that have been read behind the request. Nothing may be
    /// read from the socket between this call and the TLS handshake.
    ///
    /// # Errors
    ///
    /// `UnsupportedProtocol` for a second request, or one through TLS. `UnencryptedData` if the
    /// answer would be `S` and bytes are buffered: they may have been put there by somebody else.
    pub fn answer_ssl(&mut self, offered: bool, buffered: usize) -> Result<u8, StartupError> {
        if self.ssl_answered || self.encrypted {
            return Err(repeated(SSL_MINOR));
        }
        if offered && buffered > 0 {
            return Err(StartupError::UnencryptedData);
        }
        self.ssl_answered = true;
        self.encrypted = offered;
        Ok(if offered { b'S' } else { b'N' })
    }

    /// Notes that the connection began with TLS, without an SSLRequest.
    ///
    /// # Errors
    ///
    /// `DirectTls` if it has begun otherwise: what looks like a ClientHello comes unencrypted, behind
    /// a request, or encrypted already.
    pub fn begin_directly(&mut self) -> Result<(), StartupError> {
        if self.ssl_answered || self.gss_answered || self.encrypted {
            return Err(StartupError::DirectTls);
        }
        self.ssl_answered = true;
        self.encrypted = true;
        Ok(())
    }

    /// Answers a GSSENCRequest: always `N`, for we have no GSSAPI.
    ///
    /// # Errors
    ///
    /// `UnsupportedProtocol` for a second request, or one through TLS.
    pub fn answer_gss(&mut self) -> Result<u8, StartupError> {
        if self.gss_answered || self.encrypted {
            return Err(repeated(GSSENC_MINOR));
        }
        self.gss_answered = true;
        Ok(b'N')
    }

    /// Whether the answer was `S`, so that what follows comes through TLS.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }
}

fn repeated(minor: u16) -> StartupError {
    StartupError::UnsupportedProtocol {
        major: REQUEST_MAJOR,
        minor,
    }
}

/// What a server says to our SSLRequest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslAnswer {
    /// `S`: the TLS handshake comes next.
    Accepted,
    /// `N`: the server has no TLS. Nothing has been encrypted.
    Refused,
}

/// What can be wrong with a server's part of the negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// Bytes behind the answer: they would be taken for encrypted ones.
    #[error("received unencrypted data after SSL response")]
    UnencryptedData,
    /// A byte that is neither `S` nor `N`. `E` begins an ErrorResponse whose text must not be
    /// shown to anybody, for no one has vouched for the server yet.
    #[error("received invalid response to SSL negotiation: byte {0:#04x}")]
    UnknownAnswer(u8),
    /// A NegotiateProtocolVersion that is cut or longer than it says.
    #[error("received invalid protocol negotiation message")]
    Malformed,
    /// A version that is not one of protocol 3, or newer than the one asked for.
    #[error("received protocol negotiation for version {major}.{minor}")]
    Version {
        /// The major version that the server named.
        major: u16,
        /// The minor version that the server named.
        minor: u16,
    },
}

/// Parses a server's answer to SSLRequest from everything that has been read since it was sent.
///
/// # Errors
///
/// Anything but one byte that is `S` or `N`.
pub fn parse_ssl_answer(buf: &[u8]) -> Result<Option<SslAnswer>, NegotiationError> {
    match buf {
        [] => Ok(None),
        [b'S'] => Ok(Some(SslAnswer::Accepted)),
        [b'N'] => Ok(Some(SslAnswer::Refused)),
        [b'S' | b'N', ..] => Err(NegotiationError::UnencryptedData),
        [byte, ..] => Err(NegotiationError::UnknownAnswer(*byte)),
    }
}

/// The newest minor version of protocol 3 that we speak and that is not above `requested`.
///
/// These are 3.0 and 3.2; 3.1 was never a version of its own (PostgreSQL's documentation,
/// "Protocol Versions").
pub fn accepted_minor(requested: u16) -> u16 {
    if requested >= MINOR_NEWEST {
        MINOR_NEWEST
    } else {
        0
    }
}

/// Parses the body of a server's NegotiateProtocolVersion ('v'): the minor version it will speak,
/// given the one `requested`. The options that it does not know are those that we sent.
///
/// # Errors
///
/// `Malformed`, or `Version` for one that was not asked for.
pub fn parse_negotiate_protocol_version(
    requested: u16,
    body: &[u8],
) -> Result<u16, NegotiationError> {
    if body.len() > NEGOTIATE_BYTES_MAX {
        return Err(NegotiationError::Malformed);
    }
    let (&[a, b, c, d, n @ ..], options) = body
        .split_first_chunk::<8>()
        .ok_or(NegotiationError::Malformed)?;
    let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let ends = options.iter().filter(|&&byte| byte == 0).count();
    if ends != u32::from_be_bytes(n) as usize || options.last().is_some_and(|&byte| byte != 0) {
        return Err(NegotiationError::Malformed);
    }
    if major != MAJOR || minor > requested || accepted_minor(minor) != minor {
        return Err(NegotiationError::Version { major, minor });
    }
    Ok(minor)
}
