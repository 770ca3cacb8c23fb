//! What a client says before it has logged in, and what the pooler says to a server there.
//!
//! The packets of this phase have no type byte: a length, a code, a body (PostgreSQL's
//! documentation, "Message Flow / Start-up" and "Message Formats"). [`parse`] reads one of them
//! from bytes that may be cut anywhere or hold more than one packet. It judges the first bytes as
//! soon as they are there, so that nobody makes us wait for, or make room for, a length that no
//! client of PostgreSQL would announce.
//!
//! Invariant: nothing is allocated before the whole packet is in hand, and a packet never exceeds
//! [`STARTUP_BYTES_MAX`].

mod encode;
mod error;
mod negotiation;
mod opening;
mod options;

pub use encode::{
    EncodeError, encode_cancel_request, encode_negotiate_protocol_version, encode_ssl_request,
    encode_startup,
};
pub use error::StartupError;
pub use negotiation::{
    Negotiation, NegotiationError, SslAnswer, accepted_minor, parse_negotiate_protocol_version,
    parse_ssl_answer,
};
pub use opening::{Opening, Step};
pub use options::{OptionsError, parse_options};

use crate::frame::split_cstr;

/// The longest packet that a client may send before it has logged in, in bytes, its length field
/// included. PostgreSQL's limit is `MAX_STARTUP_PACKET_LENGTH`.
pub const STARTUP_BYTES_MAX: usize = 10_000;

/// The longest cancel key, in bytes (protocol 3.2; before it a key has always four bytes).
pub const CANCEL_KEY_BYTES_MAX: usize = 256;

/// The shortest cancel key, in bytes.
pub const CANCEL_KEY_BYTES_MIN: usize = 4;

/// Length and code: what every packet of this phase begins with.
const HEADER_BYTES: usize = 8;

/// Length, code and process id: what a CancelRequest has in front of its key.
const CANCEL_HEADER_BYTES: usize = 12;

const MAJOR: u16 = 3;
const REQUEST_MAJOR: u16 = 1234;
const CANCEL_MINOR: u16 = 5678;
const SSL_MINOR: u16 = 5679;
const GSSENC_MINOR: u16 = 5680;

/// A packet of a client that has not logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstPacket<'a> {
    /// The client would like TLS and waits for one byte; see [`Negotiation::answer_ssl`].
    SslRequest,
    /// The client would like GSSAPI encryption and waits for one byte; see
    /// [`Negotiation::answer_gss`].
    GssEncRequest,
    /// The client wants the query of another session cancelled. It gets no answer.
    Cancel {
        /// The process id that the session's BackendKeyData named.
        process_id: i32,
        /// The session's secret, 4 to 256 bytes. Compare it in constant time.
        key: &'a [u8],
    },
    /// The client wants to log in.
    Startup(Startup),
}

/// A StartupMessage: who wants to log in, where, and with which settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// The minor version of protocol 3 that the client asked for. It may be one that does not
    /// exist; see [`Startup::accepted_minor`].
    pub minor: u16,
    /// The names and values and the empty name at their end, each with its NUL.
    text: String,
    /// Where the NUL of the name and that of the value of each parameter are in it.
    ends: Vec<[usize; 2]>,
    known: Known,
}

/// What the protocol itself looks for among the parameters. Of those of one name the last one wins, as in PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    /// Where it is among the parameters.
    user: usize,
    /// Where it is, if it is there and not empty.
    database: Option<usize>,
    replication: Replication,
    /// Whether there are protocol options.
    has_options: bool,
}

/// What kind of session the `replication` parameter asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// An ordinary session.
    No,
    /// Physical replication: no database, replication commands only.
    Physical,
    /// Logical replication: a database, replication commands and SQL.
    Database,
}

/// What the first bytes of a connection are, as far as they have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstBytes {
    /// Nothing has come yet.
    Empty,
    /// What is there may begin a packet of PostgreSQL's protocol.
    Startup,
    /// A TLS ClientHello without SSLRequest (`sslnegotiation=direct`).
    Tls,
    /// An HTTP request, HTTP/2 included.
    Http,
    /// None of these: as a length it would be over [`STARTUP_BYTES_MAX`].
    Garbage,
}

/// Judges the first bytes of a connection; one byte is enough for all but a well-formed length.
pub fn classify(buf: &[u8]) -> FirstBytes {
    const METHODS: [&[u8]; 10] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"CONNECT ",
        b"OPTIONS ",
        b"TRACE ",
        b"PATCH ",
        b"PRI * ",
    ];
    let begins = |with: &[u8]| buf.iter().zip(with).all(|(a, b)| a == b);
    if buf.is_empty() {
        FirstBytes::Empty
    } else if begins(&[0x16, 0x03]) {
        FirstBytes::Tls
    } else if METHODS.iter().any(|method| begins(method)) {
        FirstBytes::Http
    } else if !length_may_fit(buf) {
        FirstBytes::Garbage
    } else {
        FirstBytes::Startup
    }
}

/// Whether a length that begins like this can be one that we accept. The bytes that are missing
/// count as zero, so a prefix is refused only when every length with that prefix is too long.
fn length_may_fit(buf: &[u8]) -> bool {
    let mut prefix = [0u8; 4];
    for (to, from) in prefix.iter_mut().zip(buf) {
        *to = *from;
    }
    u32::from_be_bytes(prefix) as usize <= STARTUP_BYTES_MAX
}

/// Parses one packet from the front of `buf`, which holds what has been read and not consumed.
///
/// Returns the packet and the bytes it took, or `None` while bytes are missing: the caller reads
/// more, up to [`STARTUP_BYTES_MAX`], and asks again.
///
/// # Errors
///
/// See [`StartupError`]. None of them leaves a connection that can go on.
pub fn parse(buf: &[u8]) -> Result<Option<(FirstPacket<'_>, usize)>, StartupError> {
    match classify(buf) {
        FirstBytes::Empty => return Ok(None),
        FirstBytes::Tls => return Err(StartupError::DirectTls),
        FirstBytes::Http => return Err(StartupError::Http),
        FirstBytes::Garbage => return Err(StartupError::TooLong),
        FirstBytes::Startup => {}
    }
    let Some((length, rest)) = buf.split_first_chunk::<4>() else {
        return Ok(None);
    };
    // `classify` has seen all four bytes of the length and found it within the limit.
    let length = u32::from_be_bytes(*length) as usize;
    if length < HEADER_BYTES {
        return Err(StartupError::TooShort);
    }
    let Some(&[a, b, c, d]) = rest.first_chunk::<4>() else {
        return Ok(None);
    };
    let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    // The code is judged before the body is waited for.
    let kind = Kind::of(major, minor, length)?;
    let Some(packet) = buf.get(..length) else {
        return Ok(None);
    };
    let packet = match kind {
        Kind::Ssl => FirstPacket::SslRequest,
        Kind::GssEnc => FirstPacket::GssEncRequest,
        Kind::Cancel => parse_cancel(packet)?,
        Kind::Startup => FirstPacket::Startup(parse_startup(minor, &packet[HEADER_BYTES..])?),
    };
    Ok(Some((packet, length)))
}

enum Kind {
    Ssl,
    GssEnc,
    Cancel,
    Startup,
}

impl Kind {
    fn of(major: u16, minor: u16, length: usize) -> Result<Kind, StartupError> {
        const KEYS: std::ops::RangeInclusive<usize> =
            CANCEL_HEADER_BYTES + CANCEL_KEY_BYTES_MIN..=CANCEL_HEADER_BYTES + CANCEL_KEY_BYTES_MAX;
        match (major, minor) {
            (MAJOR, _) => Ok(Kind::Startup),
            (REQUEST_MAJOR, SSL_MINOR) if length == HEADER_BYTES => Ok(Kind::Ssl),
            (REQUEST_MAJOR, GSSENC_MINOR) if length == HEADER_BYTES => Ok(Kind::GssEnc),
            (REQUEST_MAJOR, CANCEL_MINOR) if KEYS.contains(&length) => Ok(Kind::Cancel),
            (REQUEST_MAJOR, CANCEL_MINOR) => Err(StartupError::CancelLength),
            _ => Err(StartupError::UnsupportedProtocol { major, minor }),
        }
    }
}

fn parse_cancel(packet: &[u8]) -> Result<FirstPacket<'_>, StartupError> {
    let (process_id, key) = packet
        .get(HEADER_BYTES..)
        .and_then(|body| body.split_first_chunk::<4>())
        .ok_or(StartupError::CancelLength)?;
    Ok(FirstPacket::Cancel {
        process_id: i32::from_be_bytes(*process_id),
        key,
    })
}

/// Parses names and values, each ended by a NUL, the list ended by an empty name.
fn parse_startup(minor: u16, body: &[u8]) -> Result<Startup, StartupError> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text.to_owned(),
        Err(_) => readable(body)?,
    };
    let mut ends = Vec::with_capacity(4);
    let (mut user, mut database, mut replication) = (None, None, None);
    let mut has_options = false;
    let mut rest = text.as_bytes();
    loop {
        let name = take_string(&mut rest)?;
        if name.is_empty() {
            break;
        }
        let name_end = text.len() - rest.len() - 1;
        let value = take_string(&mut rest)?;
        let here = Some(ends.len());
        match name {
            b"user" => user = here.filter(|_| !value.is_empty()),
            b"database" => database = here.filter(|_| !value.is_empty()),
            b"replication" => replication = Some(value),
            _ => has_options |= is_protocol_option(name),
        }
        ends.push([name_end, text.len() - rest.len() - 1]);
    }
    if !rest.is_empty() {
        return Err(StartupError::Unterminated);
    }
    let known = Known {
        user: user.ok_or(StartupError::NoUser)?,
        database,
        replication: replication.map_or(Ok(Replication::No), parse_replication)?,
        has_options,
    };
    Ok(Startup {
        minor,
        text,
        ends,
        known,
    })
}

fn take_string<'a>(body: &mut &'a [u8]) -> Result<&'a [u8], StartupError> {
    let (string, rest) = split_cstr(body).ok_or(StartupError::Unterminated)?;
    *body = rest;
    Ok(string)
}

/// The list as text, if all that is not is in an `application_name`.
fn readable(mut body: &[u8]) -> Result<String, StartupError> {
    let mut text = String::with_capacity(body.len());
    loop {
        let name = take_string(&mut body)?;
        if name.is_empty() {
            text.push('\0');
            break;
        }
        let value = take_string(&mut body)?;
        push_text(name, name, &mut text)?;
        push_text(name, value, &mut text)?;
    }
    match body {
        [] => Ok(text),
        _ => Err(StartupError::Unterminated),
    }
}

/// Appends a parameter's bytes as text, and a NUL.
///
/// A session's encoding is not known yet. A name of a user or database that is not UTF-8 could be
/// matched with nothing that is configured, and a setting would reach the server changed, so both
/// are refused. `application_name` alone is only ever shown; there PostgreSQL 16 and later write
/// such bytes as `\xNN`, and so do we.
fn push_text(name: &[u8], bytes: &[u8], text: &mut String) -> Result<(), StartupError> {
    use std::fmt::Write as _;

    if name != b"application_name" && std::str::from_utf8(bytes).is_err() {
        return Err(StartupError::InvalidUtf8 {
            parameter: name.escape_ascii().to_string(),
        });
    }
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("BUG: writing to a string failed");
        }
    }
    text.push('\0');
    Ok(())
}

impl Startup {
    /// The parameters, names and values, in order.
    pub fn parameters(
        &self,
    ) -> impl ExactSizeIterator<Item = (&str, &str)> + DoubleEndedIterator + Clone {
        (0..self.ends.len()).map(|at| self.parameter(at))
    }

    fn parameter(&self, at: usize) -> (&str, &str) {
        let [name, value] = self.ends[at];
        let start = at
            .checked_sub(1)
            .map_or(0, |before| self.ends[before][1] + 1);
        (&self.text[start..name], &self.text[name + 1..value])
    }

    /// The user who wants to log in; never empty.
    pub fn user(&self) -> &str {
        self.parameter(self.known.user).1
    }

    /// The database to log in to: the one named, or the one that has the user's name.
    pub fn database(&self) -> &str {
        self.parameter(self.known.database.unwrap_or(self.known.user))
            .1
    }

    /// The kind of session asked for.
    pub fn replication(&self) -> Replication {
        self.known.replication
    }

    /// The names of the protocol options asked for (`_pq_.` in front); we know none of them.
    pub fn unsupported_options(&self) -> impl Iterator<Item = &str> + Clone {
        self.parameters()
            .map(|(name, _)| name)
            .filter(|name| is_protocol_option(name.as_bytes()))
    }

    /// The parameters that are settings of the session, in order; a later one overrides an
    /// earlier one of the same name. `options` is among them as it came: see [`parse_options`].
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.parameters().filter(|(name, _)| {
            !matches!(*name, "user" | "database" | "replication")
                && !is_protocol_option(name.as_bytes())
        })
    }

    /// The minor version of protocol 3 that this session speaks.
    pub fn accepted_minor(&self) -> u16 {
        accepted_minor(self.minor)
    }

    /// Whether the client must be told, before authentication, what of its requests we do not
    /// know; see [`encode_negotiate_protocol_version`].
    pub fn needs_negotiation(&self) -> bool {
        self.accepted_minor() != self.minor || self.known.has_options
    }
}

fn parse_replication(value: &[u8]) -> Result<Replication, StartupError> {
    match parse_bool(value) {
        _ if value == b"database" => Ok(Replication::Database),
        Some(true) => Ok(Replication::Physical),
        Some(false) => Ok(Replication::No),
        None => Err(StartupError::InvalidReplication {
            value: String::from_utf8_lossy(value).into_owned(),
        }),
    }
}

fn is_protocol_option(name: &[u8]) -> bool {
    name.starts_with(b"_pq_.")
}

/// A boolean as PostgreSQL reads one: any unambiguous prefix of true, false, yes, no, on, off, or
/// 1 or 0, in any case (PostgreSQL's documentation, "Setting Parameters").
fn parse_bool(value: &[u8]) -> Option<bool> {
    let prefix = |of: &[u8], bytes_min: usize| {
        value.len() >= bytes_min
            && of
                .get(..value.len())
                .is_some_and(|of| of.eq_ignore_ascii_case(value))
    };
    if prefix(b"true", 1) || prefix(b"yes", 1) || prefix(b"on", 2) || value == b"1" {
        Some(true)
    } else if prefix(b"false", 1) || prefix(b"no", 1) || prefix(b"off", 2) || value == b"0" {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
